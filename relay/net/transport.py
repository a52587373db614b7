"""A connection in the clear: a socket that is its own transport.

What asyncio calls a transport (asyncio.Transport), for as much of it as relay's protocols ask for, with two things
more: what is `posted` on it is sent by the poller at the end of the turn, or goes before whatever is written until
then; and what it reads may stay in INPUT (`tell`). Its buffer holds what a write has left over, and its high mark is 0:
the protocol is paused when there is anything in it, and resumed when all of it was sent.

        OPEN --close--> CLOSING --all is sent--> LOST        connection_lost is told in a turn of its own, and behind
          \\---------- abort, an error ----------/            it the descriptor is closed (poller.py says why)

A peer that resets the connection may have said something before: a provider may refuse a request that it does not read
to its end. So where a write is told of the reset, and the connection is being read, it stays OPEN until a read comes to
the end: `is_reset`, and whatever is written is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

from relay.net.poller import BYTES, COUNT, NOT, QUIET, Poller
from relay.net.quiet import hush

UNKNOWN = "unknown"  # a peer whose address is not (RFC 7239, 6.2)


class Taker(Protocol):
    """Who is told of what was read."""

    def take(self, count: int, /) -> None:
        """The first `count` bytes of INPUT are the connection's next; they have to be taken out before this returns."""


class _State(enum.Enum):
    OPEN = enum.auto()
    CLOSING = enum.auto()
    LOST = enum.auto()


class SocketTransport(socket.SocketType):
    """`protocol` is told what happens to it, and its bytes, unless there is a `taker`. `peer` is the other side's host.
    `how` it is read and what is `watched` for is the poller's. Errors of the socket end the connection: none is
    raised."""

    __slots__ = (
        "_ends",
        "_error",
        "_kept",
        "_reads",
        "_state",
        "how",
        "peer",
        "poller",
        "posted",
        "protocol",
        "taker",
        "watched",
    )

    def __init__(self, poller: Poller, family: int, descriptor: int | None = None, peer: str = UNKNOWN) -> None:
        """Of an accepted connection's descriptor, which is then the transport's; without one, of a new socket."""
        super().__init__(family, socket.SOCK_STREAM, 0, descriptor)
        self.setblocking(False)
        self.peer = sys.intern(peer)  # behind nginx it is one for all
        self.protocol: asyncio.Protocol = NOBODY
        self.taker: Taker = NOBODY
        self.how = NOT
        self.watched = 0
        self.posted = b""
        self._reads = BYTES  # how it is read when it is
        self.poller = poller
        self._state = _State.OPEN
        self._kept: bytearray | None = None
        self._ends = False  # nothing will be written behind what is kept
        self._error: OSError | None = None  # the reset, of which a write has been told

    # The beginning

    async def reach(self, address: tuple[str | int, ...]) -> None:
        """Connect. Raises OSError; then, and if it is cancelled, the socket is closed."""
        self.peer = sys.intern(str(address[0]))
        try:
            try:
                self.connect(address)
            except BlockingIOError:
                reaching = self.protocol = _Reaching(self.poller.loop)
                self.poller.watch(self, select.EPOLLOUT)
                await reaching.done
                number = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, os.strerror(number)) from None
        except BaseException:
            self._dispose()
            raise

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection is there: it is the protocol's from now on."""
        self.set_protocol(protocol)
        protocol.connection_made(cast(asyncio.BaseTransport, self))
        self.resume_reading()

    # Reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def tell(self, taker: Taker) -> None:
        """What is read stays in INPUT from now on, and the taker is told how much it is."""
        self.taker = taker
        self._read_as(max(self._reads, COUNT))

    def hush(self) -> None:
        """Read quietly (quiet.py), where that can be had."""
        if hush(self):
            self._read_as(QUIET)

    def _read_as(self, how: int) -> None:
        self._reads = how
        if self.how:
            self.how = how

    def pause_reading(self) -> None:
        self.how = NOT
        self._watch(self.watched & ~select.EPOLLIN)

    def resume_reading(self) -> None:
        if self._state is _State.OPEN:
            self.how = self._reads
            self._watch(self.watched | select.EPOLLIN)

    def _watch(self, events: int) -> None:
        try:
            self.poller.watch(self, events)
        except OSError as error:
            self._lose(error)

    def happened(self, events: int) -> bool:
        """Anything but that there is something to read. Returns whether a read has something to tell, too."""
        if self.watched & select.EPOLLOUT:
            self._send_kept()
        return events != select.EPOLLOUT

    def unread(self, error: OSError) -> None:
        """What the system says to a read."""
        if not isinstance(error, BlockingIOError):
            self._lose(error)

    def ended(self) -> None:
        """The peer has ended its side; a protocol of ours has nothing to say to that."""
        if self._error is not None:
            # The write was told of the reset in place of this read. Whether it had ended before that, nobody can tell.
            self._lose(self._error)
        else:
            self.protocol.eof_received()
            self.close()

    # Writing

    def write(self, data: bytes) -> None:
        """Send it, behind what was posted, or keep what the socket does not take. Behind an end, or a reset, it is
        dropped."""
        if self.posted:
            data = self.posted + data
            self.posted = b""
        if self._kept is not None:
            if not self._ends:
                self._kept += data
        elif self._state is not _State.LOST and not self._ends and self._error is None:
            try:
                sent = self.send(data)
            except OSError as error:
                self.failed(error, data)
            else:
                if sent < len(data):
                    self.keep(data[sent:])
        elif self._state is _State.LOST:
            self._shut()  # what is posted behind it must not be sent

    def keep(self, rest: bytes) -> None:
        """What the socket has not taken of a write."""
        if self._state is _State.LOST:
            self._shut()
            return
        assert self._kept is None
        self._kept = bytearray(rest)
        self._watch(self.watched | select.EPOLLOUT)
        self._call(self.protocol.pause_writing)

    def failed(self, error: OSError, data: bytes = b"") -> None:
        """What the system says to a write of this."""
        if isinstance(error, BlockingIOError):
            if data:
                self.keep(data)
        elif self._error is not None:
            pass  # it has said so before
        elif self.how and isinstance(error, ConnectionResetError | BrokenPipeError):
            # Being read, it will come to its end; one that is paused would not.
            self._error = error.with_traceback(None)
            self._kept = None
            self._watch(self.watched & ~select.EPOLLOUT)
        else:
            self._shut()
            self._lose(error)

    def _shut(self) -> None:
        """Nothing may be sent behind a gap; until `_leave` closes the socket, its `send` is still there."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_WR)

    def _call(self, told: Callable[[], None]) -> None:
        """A defect in what it calls must not be taken for one of the connection that has written."""
        try:
            told()
        except Exception as error:
            self.poller.complain(self, error)

    def _send_kept(self) -> None:
        if self._kept is not None:
            try:
                sent = self.send(self._kept)
            except OSError as error:
                self.failed(error)
                return
            del self._kept[:sent]
            if self._kept:
                return
            self._kept = None
        if self._ends:
            self._end()
        self._call(self.protocol.resume_writing)
        if self._state is _State.CLOSING and self.posted:
            self.write(b"")
        if self._kept is None:
            self._watch(self.watched & ~select.EPOLLOUT)
            if self._state is _State.CLOSING:
                self._lose(None)

    def get_write_buffer_size(self) -> int:
        return len(self._kept or b"") + len(self.posted)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """End our side, when what was written has been taken."""
        if self.posted:
            self.write(b"")
        self._ends = True
        if self._kept is None and self._state is not _State.LOST:
            self._end()

    def _end(self) -> None:
        try:
            self.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)

    # The end

    def is_closing(self) -> bool:
        return self._state is not _State.OPEN

    @property
    def is_reset(self) -> bool:
        """Whether nothing that is written will arrive any more; what has come is still being read."""
        return self._error is not None

    def close(self) -> None:
        """When what was written has been taken; nothing is read any more."""
        if self._state is _State.OPEN:
            if self.posted:
                self.write(b"")
            self._state = _State.CLOSING
            self.pause_reading()
            if self._kept is None:
                self._lose(None)

    def abort(self) -> None:
        """Now. What was written and not taken is lost."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._state is not _State.LOST:
            self._state = _State.LOST
            self._kept = None
            self.how = NOT
            self.poller.loop.call_soon(self._leave, error)
            self.poller.watch(self, 0)

    def _leave(self, error: OSError | None) -> None:
        try:
            self.protocol.connection_lost(error)
        finally:
            self._dispose()

    def _dispose(self) -> None:
        self._state = _State.LOST
        self.protocol = self.taker = NOBODY
        self._error = None
        self.poller.forget(self)
        super().close()

    def get_extra_info(self, name: str) -> Any:
        """`socket` and `sockname`, as asyncio's: None if it has gone already. Of TLS there is nothing to be known."""
        if self.fileno() < 0:
            return None
        if name == "sockname":
            return self.getsockname()
        return self if name == "socket" else None


class _Reaching(asyncio.Protocol):
    """Of a connection that is on its way: the first that it is told is that it can be written to, or never will be."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()

    def resume_writing(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionAbortedError(errno.ECONNABORTED, "given up"))


class _Nobody(asyncio.Protocol):
    """Of a connection that is nobody's: nothing that comes is looked at."""

    def take(self, count: int) -> None:
        """It is not looked at."""


NOBODY = _Nobody()
