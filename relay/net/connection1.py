"""What both ends of HTTP/1.1 share: one connection, one message at a time in each direction.

        bytes in  -> the state of the subclass: reading a head, a body, or looking on
        bytes out <- send            is the current framing: the head with the first piece, then chunks or raw bytes

State and framing are bound methods, so that no flag is asked per piece. The transport's own buffer holds what one
write left over (its high mark is 0): everything behind that waits in the reader's ring, where overflow.py decides. No
next message begins on a socket that has not taken the last one.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import cast

from relay.core.reader import Reader
from relay.net.timers import Wheel
from relay.wire import chunked
from relay.wire.http1 import Framing

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# A stuck socket is looked at so often (seconds). Its end may come later by two of these: one until it is seen that it
# has taken its last byte, one until it is seen that the limit is over.
STALL_LOOK = 0.5
_TLS_HIGH_WATER = 64 * 1024


class Connection1(asyncio.Protocol):
    """A protocol of uvloop's or asyncio's. Subclasses read; this writes, and knows how the socket takes it."""

    __slots__ = (
        "_blocked_at",
        "_head",
        "_reader",
        "_resumed",
        "_stall",
        "_stall_mark",
        "_transport",
        "_wheel",
        "_write",
        "closed",
        "head_sent",
        "send",
        "tick",
    )

    def __init__(self, wheel: Wheel, stall: float) -> None:
        self.tick = 0
        self.closed = False
        self.send: Callable[[bytes], None] = self._send_raw
        self._wheel = wheel
        self._stall = stall
        self._transport = cast(asyncio.Transport, None)
        self._write: Callable[[bytes], None] = _nowhere
        self._head = b""
        self.head_sent = False
        self._reader: Reader | None = None
        self._blocked_at = 0.0
        self._stall_mark = (0, 0, 0)
        self._resumed = 0

    # Reading

    def _receive(self, state: Callable[[bytes], None]) -> None:
        """From now on the connection's bytes go to `state`."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        if not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.closed:
            self._transport.resume_reading()

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
        self.send = self._send_raw
        self._reader = None
        self.head_sent = False

    # The socket's own pace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Over TLS uvloop does not resume at a limit of 0, because its buffer never shows as empty.
        high = _TLS_HIGH_WATER if transport.get_extra_info("ssl_object") is not None else 0
        self._transport.set_write_buffer_limits(high=high)
        self._write = self._transport.write

    def pause_writing(self) -> None:
        """The socket took less than it was given."""
        self._blocked_at = self._wheel.now
        self._stall_mark = self._progress()
        if self._reader is not None:
            self._reader.block()
        self._wheel.watch(self, self._wheel.now + STALL_LOOK)

    def resume_writing(self) -> None:
        self._resumed += 1
        self._blocked_at = 0.0
        if self._reader is not None:
            self._reader.unblock()

    def _progress(self) -> tuple[int, int, int]:
        """Something that differs whenever the peer has taken a byte while the socket was blocked. The socket itself
        asks for more only when much of its own buffer is empty, which a slow peer may not manage within the limit."""
        return self._resumed, self._transport.get_write_buffer_size(), self._untaken()

    def _untaken(self) -> int:
        """Bytes in the kernel that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
        raw = self._transport.get_extra_info("socket")
        if raw is None:
            return 0
        untaken: int = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return untaken

    def _stalled_for(self, now: float) -> float:
        """Seconds for which a blocked socket has taken nothing."""
        if not self._blocked_at:
            return 0.0
        mark = self._progress()
        if mark != self._stall_mark:
            self._stall_mark = mark
            self._blocked_at = now
        return now - self._blocked_at

    # The end

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._write = _nowhere
        self._blocked_at = 0.0
        self._wheel.forget(self)
        self._receive(_nowhere)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.detach()
        self._left(error)

    def _left(self, error: Exception | None) -> None:
        """The connection is gone; nothing may be sent on it."""
        raise NotImplementedError

    def finish(self) -> None:
        """The message out is whole: the sink's half of Reader."""
        raise NotImplementedError

    def abort(self) -> None:
        """The message out will not be whole."""
        raise NotImplementedError

    def due(self, now: float) -> float:
        """The wheel asks: look at the deadlines."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close when what was written has been taken. A peer that takes nothing is cut off after the stall limit."""
        if not self.closed:
            self._receive(_nowhere)
            self._transport.close()

    def _cut(self) -> None:
        """Close now. What the socket has not taken is lost."""
        if not self.closed:
            self._transport.abort()

    def _reset(self) -> None:
        """Close now, and with a RST: the only way to tell a peer whose message ends with the connection that it is
        not whole."""
        if not self.closed:
            raw = self._transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()


def _nowhere(data: bytes) -> None:
    """Where bytes go when the connection is over, in either direction."""
