"""What both ends of HTTP/1.1 share: one connection, one message at a time in each direction.

        bytes in  -> the state of the subclass: reading a head, a body, or looking on
        bytes out <- send            the head with the first piece; then chunks, which are posted, or raw bytes

No next message begins on a socket that has not taken the last one.
"""

from __future__ import annotations

from relay.core.reader import Reader
from relay.net.connection import Connection
from relay.net.poller import POSTED_LIMIT, POSTED_MOST
from relay.net.timers import Wheel
from relay.net.transport import SocketTransport
from relay.wire import chunked
from relay.wire.head import EMPTY, Framing


class Connection1(Connection):
    """Subclasses read; this writes."""

    __slots__ = ("_framing", "_head", "_in_chunks", "_reader", "head_sent")

    def __init__(self, wheel: Wheel, stall: float) -> None:
        super().__init__(wheel, stall)
        self._framing = EMPTY
        self._in_chunks = False  # the head of a message in chunks has gone, and nothing waits for the socket
        self._head = b""
        self.head_sent = False
        self._reader: Reader | None = None

    # Writing

    def _begin(self, head: bytes, framing: Framing, reader: Reader | None) -> None:
        """The next message out: its head waits for the first piece of its body, to leave in one write with it."""
        self._head = head
        self.head_sent = False
        self._reader = reader
        self._framing = framing
        self._in_chunks = False
        if reader is not None:
            reader.attach(self, blocked=bool(self._blocked_at))

    def flush_head(self) -> None:
        """Send the head now if it still waits: nothing of the body is there yet."""
        if self._head:
            self._write(self._take_head())

    def send(self, payload: bytes) -> None:
        if self._in_chunks:
            # The hot path: chunked.encode, without its call, and a piece that leaves with the others of this turn
            # (poller.py). A second one, or a long one, takes it along at once.
            piece = b"%x\r\n%b\r\n" % (len(payload), payload)
            transport = self._transport
            if isinstance(transport, SocketTransport) and not transport.posted and len(piece) <= POSTED_LIMIT:
                transport.posted = piece
                poller = transport.poller
                poller.posted.append(transport)
                if not poller.woken:
                    poller.wake()
                elif len(poller.posted) >= POSTED_MOST:
                    poller.send_posted()
            else:
                transport.write(piece)
        elif self._reader is not None:
            piece = chunked.encode(payload) if self._framing.chunked else payload
            self._write(self._take_head() + piece if self._head else piece)

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        self.head_sent = True
        self._in_chunks = self._framing.chunked and not self.closed and not self._blocked_at
        return head

    def _end_message(self) -> None:
        """Send what a whole message still lacks: its head if it has no body, its last chunk."""
        head = self._take_head()
        end = chunked.LAST_CHUNK if self._framing.chunked else b""
        if head or end:
            self._write(head + end)
        self._in_chunks = False
        self._framing = EMPTY
        self._reader = None
        self.head_sent = False

    # The socket's own pace

    def _hold(self) -> None:
        self._in_chunks = False
        if self._reader is not None:
            self._reader.block()

    def _go_on(self) -> None:
        self._in_chunks = self._framing.chunked and self.head_sent
        if self._reader is not None:
            self._reader.unblock()

    # The end

    def _left(self, error: Exception | None) -> None:
        self._in_chunks = False
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.detach()

    def finish(self) -> None:
        """The message out is whole: the sink's half of Reader."""
        raise NotImplementedError

    def abort(self) -> None:
        """The message out will not be whole."""
        raise NotImplementedError
