"""Which connections in the clear have something to read, or room to write: an epoll of the relay's own.

        the loop -> its epoll -> Poller -> the relay's epoll -> SocketTransport -> recv_into(INPUT) -> its taker
                                     `--> what was posted -> send, for one socket after another

The loop sees it as one file to be read, and runs everything else as ever: timers, tasks, TLS. What a loop keeps and
does for each connection (a handle, a transport, a context to run in) has left the processor's caches by the time of the
next event, and so it costs an event more than its own work does. Here that is a place in a list and the socket.

CPU per event of a bare proxy in Python (three interleaved pairs each, at 500 x 20/s and 4,000 x 10/s), and what it
keeps in memory for a stream, which is two connections:

        uvloop's transports                      1        1       2.7 - 3.0 KiB
        add_reader() of uvloop for each       0.83     0.86       1.5
        one epoll for all of them             0.74     0.74       0.4

The relay with this to the relay with uvloop's transports (four pairs): 0.87, 0.89; memory 0.58 at 4,000 streams. The
same told of edges (EPOLLET), which the kernel need not look at again, but which must not be missed (six pairs): 1.03,
0.98, so it asks for levels.

What the hot path writes is posted, and sent when all have been read. A send is the kernel's whole way to the other
side; the next one may find it in the processor's caches, and a client on the same machine still awake. CPU per event
with that to without, as it was first written, in a quiet hour (sets of three and four pairs, at 500 x 20/s, at 4,000 x
10/s, and there with an HTTP/2 provider): 0.89 and 0.98; 0.90 and 0.92; 0.80 and 0.83, with 0.01, 0.02 and 0.06 ms more
delay in the median. In a noisy hour later, over HTTP/1.1, no difference could be told (0.96 to 1.16, spreads of a
fifth). 16 in place of 64 for POSTED_MOST: 1.04 and 1.00, for half of the delay; 32 lies between, and was not paired
with either.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from typing import TYPE_CHECKING

from relay.wire.input import INPUT

if TYPE_CHECKING:
    from relay.net.transport import SocketTransport

# How a connection is read: not at all; as bytes that its protocol is given; into INPUT, whose taker is told how many
# there are; the same quietly (quiet.py).
NOT, BYTES, COUNT, QUIET = range(4)

# So many connections are served before the loop sees to anything else.
_BATCH = 256
# What is posted waits for no more than so many others, or reads, and is no longer than so many bytes: 256 KiB in all.
POSTED_MOST, POSTED_LIMIT = 32, 8 * 1024

# Where every event passes, a name of this module is found faster than one of another's.
_READABLE = select.EPOLLIN
_TCP, _QUICK_ACK = socket.IPPROTO_TCP, socket.TCP_QUICKACK


class Poller:
    """Belongs to one loop, from its making until `close`. `posted`: who may have something to be sent at the end of the
    loop's turn; `woken`: that is planned."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.posted: list[SocketTransport] = []
        self.woken = False
        self._epoll = select.epoll()
        # By descriptor: those of a process are small numbers.
        self._transports: list[SocketTransport | None] = []
        loop.add_reader(self._epoll.fileno(), self._serve)

    def close(self) -> None:
        """Nothing is read any more, or written, but for what was posted: what is open is lost."""
        if self._epoll.closed:
            return
        for transport in self._transports:
            if transport is not None:
                transport.abort()
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, transport: SocketTransport, events: int) -> None:
        """Wait for these (select.EPOLLIN, EPOLLOUT), or with 0 for nothing, not even for the connection's end: that
        cannot fail. Else raises OSError where the system has no room for it."""
        before = transport.watched
        if before == events:
            return
        descriptor = transport.fileno()
        if not events:
            # It stays in the list until its descriptor is closed: this batch may hold an event of it.
            transport.watched = 0
            if not self._epoll.closed:
                self._epoll.unregister(descriptor)
            return
        if self._epoll.closed:
            raise ConnectionAbortedError(errno.ECONNABORTED, "nothing is read or written any more")
        if before:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
            missing = descriptor + 1 - len(self._transports)
            if missing > 0:
                self._transports += [None] * max(missing, 64)
            self._transports[descriptor] = transport
        transport.watched = events

    def forget(self, transport: SocketTransport) -> None:
        """Its descriptor is about to be closed. Not within a batch, where the next to get its number would get its
        event."""
        self.watch(transport, 0)
        descriptor = transport.fileno()
        if 0 <= descriptor < len(self._transports):
            self._transports[descriptor] = None

    def wake(self) -> None:
        self.woken = True
        self.loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.woken = False
        self.send_posted()

    def send_posted(self) -> None:
        posted, self.posted = self.posted, []
        for transport in posted:
            data = transport.posted
            if data:
                transport.posted = b""
                try:
                    try:
                        sent = transport.send(data)
                    except OSError as error:
                        transport.failed(error, data)
                    else:
                        if sent != len(data):
                            transport.keep(data[sent:])
                except Exception as error:  # a defect in one must not cost the others what they have to say
                    self.complain(transport, error)

    def _serve(self) -> None:
        self.woken = True
        try:
            ready = self._epoll.poll(0, _BATCH)
            for at in range(0, len(ready), POSTED_MOST):
                self._read(ready[at : at + POSTED_MOST])
                self.send_posted()
        finally:
            self._end_turn()

    def _read(self, ready: list[tuple[int, int]]) -> None:
        """Read whatever there is. One read each: whoever has more has the next turn."""
        transports = self._transports
        for descriptor, events in ready:
            transport = transports[descriptor]
            if transport is None:
                continue
            try:
                if events != _READABLE and not transport.happened(events):
                    continue
                how = transport.how
                if how == QUIET:
                    transport.setsockopt(_TCP, _QUICK_ACK, 0)
                elif how == NOT:
                    continue
                try:
                    count = transport.recv_into(INPUT)
                except OSError as error:
                    transport.unread(error)
                    continue
                if not count:
                    transport.ended()
                elif how == BYTES:
                    transport.protocol.data_received(INPUT[:count])
                else:
                    transport.taker.take(count)
            except Exception as error:  # a defect in one must not cost the others their turn
                self.complain(transport, error)

    def complain(self, transport: SocketTransport, error: Exception) -> None:
        """A defect of its protocol ends a connection."""
        transport.abort()
        self.loop.call_exception_handler({"message": "a connection's protocol failed", "exception": error})
