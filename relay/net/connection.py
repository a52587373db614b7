"""A socket's own pace, for whatever is spoken on it: when it takes no more, when it stalls, how it ends.

The transport's own buffer holds what one write left over (its high mark is 0): everything behind that waits in the
readers' rings, where overflow.py decides.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from typing import cast

from relay.net.timers import Alarm, Wheel
from relay.net.transport import UNKNOWN, SocketTransport

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# A stuck socket is looked at so often (seconds). Its end may come later by two of these: one until it is seen that it
# has taken its last byte, one until it is seen that the limit is over.
STALL_LOOK = 0.5
_TLS_HIGH_WATER = 64 * 1024
# RFC 9112, 9.6: read on for a moment so that what was sent is not lost to a RST. Bounds in seconds and bytes.
LINGER_TIME = 2.0
LINGER_BYTES = 1024 * 1024


AnyTransport = asyncio.Transport | SocketTransport


class Connection(asyncio.BaseProtocol):
    """The protocol of a SocketTransport, or over TLS of the loop's own. Subclasses read and write; this knows how the
    socket takes it. `peer` is the other side's address, `secure` whether TLS is spoken."""

    __slots__ = (
        "_blocked_at",
        "_closing",
        "_resumed",
        "_stall",
        "_stall_mark",
        "_transport",
        "_wheel",
        "closed",
        "peer",
        "secure",
        "tick",
    )

    def __init__(self, wheel: Wheel, stall: float) -> None:
        self.tick = 0
        self.closed = False
        self.peer = ""
        self.secure = False
        self._wheel = wheel
        self._stall = stall
        self._transport = cast(AnyTransport, None)
        self._blocked_at = 0.0
        self._closing = False
        self._stall_mark = (0, 0, 0)
        self._resumed = 0

    # Reading

    def _ignore(self) -> None:
        """From now on, what comes is dropped."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        if not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.closed:
            self._transport.resume_reading()

    # The socket's own pace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(AnyTransport, transport)
        if isinstance(self._transport, SocketTransport):
            self.peer = self._transport.peer
        else:
            address = transport.get_extra_info("peername")
            self.peer = sys.intern(address[0]) if isinstance(address, tuple) else UNKNOWN
        self.secure = transport.get_extra_info("ssl_object") is not None
        if self.secure:
            # uvloop does not resume at a limit of 0, because its buffer never shows as empty.
            cast(asyncio.Transport, transport).set_write_buffer_limits(high=_TLS_HIGH_WATER)

    def _write(self, data: bytes) -> None:
        if not self.closed:
            self._transport.write(data)

    def pause_writing(self) -> None:
        """The socket took less than it was given."""
        self._blocked_at = self._wheel.now
        self._stall_mark = self._progress()
        self._hold()
        self._wheel.watch(self, self._wheel.now + STALL_LOOK)

    def resume_writing(self) -> None:
        self._resumed += 1
        self._blocked_at = 0.0
        self._go_on()

    def _hold(self) -> None:
        """Send nothing more until `_go_on`."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """The socket takes bytes again."""
        raise NotImplementedError

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

    def stalled_for(self, now: float) -> float:
        """Seconds for which a blocked socket has taken nothing."""
        if not self._blocked_at:
            return 0.0
        mark = self._progress()
        if mark != self._stall_mark:
            self._stall_mark = mark
            self._blocked_at = now
        return now - self._blocked_at

    # The end

    @property
    def _is_reset(self) -> bool:
        """Whether the peer has reset the connection, which will be lost when what came before has been read."""
        return isinstance(self._transport, SocketTransport) and self._transport.is_reset

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._blocked_at = 0.0
        self._wheel.forget(self)
        self._ignore()
        self._left(error)

    def eof_received(self) -> None:
        # An end that comes behind our own changes nothing; and uvloop, which looks for it as it closes over TLS, does
        # not bear to be told to abort.
        if not self._closing:
            self._ended()

    def _ended(self) -> None:
        """The peer has ended its side."""
        raise NotImplementedError

    def _left(self, error: Exception | None) -> None:
        """The connection is gone; nothing may be sent on it."""
        raise NotImplementedError

    def due(self, now: float) -> float:
        """The wheel asks: look at the deadlines."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close when what was written has been taken. A peer that takes nothing is cut off after the stall limit."""
        if not self.closed:
            self._closing = True
            self._ignore()
            self._transport.close()
            if self.secure:
                Alarm(self._wheel, LINGER_TIME, self._cut_when_taken)

    def _cut_when_taken(self) -> None:
        """Over TLS a close waits for the peer's, which a peer that does not read never sends."""
        if not self.closed:
            if self._transport.get_write_buffer_size():
                Alarm(self._wheel, LINGER_TIME, self._cut_when_taken)
            else:
                self._cut()

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


def nowhere(data: bytes) -> None:
    """Where bytes go that nobody looks at any more."""
