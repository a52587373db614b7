"""What both ends of HTTP/1.1 share: one connection, one message at a time in each direction.

        bytes in  -> the state of the subclass: reading a head, a body, or looking on
        bytes out <- send            is the current framing: the head with the first piece, then chunks or raw bytes

State and framing are bound methods, so that no flag is asked per piece. No next message begins on a socket that has
not taken the last one.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.core.reader import Reader
from relay.net.connection import Connection, nowhere
from relay.net.timers import Wheel
from relay.wire import chunked
from relay.wire.head import Framing


class Connection1(Connection):
    """Subclasses read; this writes."""

    __slots__ = ("_head", "_reader", "head_sent", "send")

    def __init__(self, wheel: Wheel, stall: float) -> None:
        super().__init__(wheel, stall)
        self.send: Callable[[bytes], None] = nowhere
        self._head = b""
        self.head_sent = False
        self._reader: Reader | None = None

    # Writing

    def _begin(self, head: bytes, framing: Framing, reader: Reader | None) -> None:
        """The next message out: its head waits for the first piece of its body, to leave in one write with it."""
        self._head = head
        self.head_sent = False
        self._reader = reader
        self.send = self._send_first_chunk if framing.chunked else self._send_first_raw
        if reader is not None:
            reader.attach(self, blocked=bool(self._blocked_at))

    def flush_head(self) -> None:
        """Send the head now if it still waits: nothing of the body is there yet."""
        if self._head:
            chunks = self.send == self._send_first_chunk
            self._route(self._send_chunk if chunks else self._send_raw)
            self._write(self._take_head())

    def _send_first_chunk(self, payload: bytes) -> None:
        self._route(self._send_chunk)
        self._write(self._take_head() + chunked.encode(payload))

    def _send_first_raw(self, payload: bytes) -> None:
        self._route(self._send_raw)
        self._write(self._take_head() + payload)

    def _send_chunk(self, payload: bytes) -> None:
        # chunked.encode, without its call: this line is on the hot path.
        self._write(b"%x\r\n%b\r\n" % (len(payload), payload))

    def _send_raw(self, payload: bytes) -> None:
        self._write(payload)

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        self.head_sent = True
        return head

    def _route(self, send: Callable[[bytes], None]) -> None:
        """Pieces now leave this way. A reader that is blocked goes on waiting."""
        reader = self._reader
        if reader is not None and reader.send == self.send:
            reader.send = send
        self.send = send

    def _end_message(self) -> None:
        """Send what a whole message still lacks: its head if it has no body, its last chunk."""
        if self.send == self._send_first_chunk:
            self._write(self._take_head() + chunked.LAST_CHUNK)
        elif self._head:
            self._write(self._take_head())
        elif self.send == self._send_chunk:
            self._write(chunked.LAST_CHUNK)
        self.send = nowhere
        self._reader = None
        self.head_sent = False

    # The socket's own pace

    def _hold(self) -> None:
        if self._reader is not None:
            self._reader.block()

    def _go_on(self) -> None:
        if self._reader is not None:
            self._reader.unblock()

    # The end

    def _left(self, error: Exception | None) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.detach()

    def finish(self) -> None:
        """The message out is whole: the sink's half of Reader."""
        raise NotImplementedError

    def abort(self) -> None:
        """The message out will not be whole."""
        raise NotImplementedError
