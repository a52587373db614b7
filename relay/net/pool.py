"""Connections to one provider: open, reuse, share, close, and who waits for a place on one.

A synchronous function decides (`_decide`): a place on a connection that is there, leave to open one, or a place in the
queue. Asynchronous code performs.

        HTTP/1.1   a connection is a place. The one used last is reused first, so that those a burst opened can expire.
        HTTP/2     a connection has as many places as the provider takes streams. The oldest with room is filled first,
                   for the same reason, and another is opened before the last is full.

        acquire -> a place                    release, freed -> first waiter, else idle, roomy
                -> leave to connect           lost           -> leave to connect for those who wait
                -> waiting, bounded

Which of the two a provider speaks is not known before the first connection, where the handshake chooses: then one
connection is opened, and the others wait for what it turns out to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque

from relay.errors import PoolFull, PoolTimeout, UpstreamError
from relay.net.dial import Dialer, Origin, PoolLimits
from relay.net.poller import Poller
from relay.net.service import Call
from relay.net.timers import Wheel, within
from relay.net.upstream1 import Upstream1
from relay.net.upstream2 import Upstream2

# A further connection is opened when fewer places than this part of a connection's are left.
_AHEAD = 10


class _Decision(enum.Enum):
    CONNECT = enum.auto()
    WAIT = enum.auto()
    REFUSE = enum.auto()


class Pool:
    """All connections to one origin."""

    def __init__(self, origin: Origin, limits: PoolLimits, wheel: Wheel, poller: Poller) -> None:
        self.origin = origin
        self.limits = limits
        self._wheel = wheel
        self._dialer = Dialer(origin, limits, wheel, poller, self)
        self._open: set[Upstream1 | Upstream2] = set()
        self._connecting = 0
        self._idle: dict[Upstream1, None] = {}  # in the order of their release
        self._roomy: dict[Upstream2, None] = {}  # in the order in which they came to have room
        self._waiting: deque[asyncio.Future[Call | None]] = deque()
        # Whether connections have several places; None while nobody knows.
        self._shares: bool | None = {"1.1": False, "2": True, "auto": None if origin.tls else False}[origin.http]
        self._ahead: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """Connections open or about to be."""
        return len(self._open) + self._connecting

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self) -> Call | None:
        """A place, if there is one: the way without a task."""
        if not self._idle and not self._roomy:
            return None
        decision = self._decide(fresh=False)
        return None if isinstance(decision, _Decision) else decision

    async def acquire(self, *, fresh: bool = False) -> Call:
        """A place for one request; `fresh`: not on a connection of HTTP/1.1 that has served another.

        Raises PoolFull, PoolTimeout, ConnectTimeout, ConnectFailed or OutOfDescriptors.
        """
        while True:
            decision = self._decide(fresh)
            if not isinstance(decision, _Decision):
                return decision
            if decision is _Decision.REFUSE:
                raise PoolFull(f"too many requests wait for upstream {self.origin.name!r}")
            if decision is _Decision.CONNECT:
                self._connecting += 1
                return await self._connect()
            place = await self._wait()
            if place is None:
                return await self._connect()
            if not isinstance(place, Upstream1):
                return place
            if fresh and place.served:
                self._drop(place)  # its place is all that it is good for
            elif place.usable:
                return place

    # What connections tell

    def release(self, connection: Upstream1) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
        else:
            self._idle[connection] = None

    def freed(self, connection: Upstream2) -> None:
        if connection not in self._open:
            return
        while connection.room:
            waiter = self._next_waiter()
            if waiter is None:
                self._roomy[connection] = None
                return
            waiter.set_result(connection.call())
        self._roomy.pop(connection, None)

    def ready(self, connection: Upstream2) -> None:
        self.freed(connection)

    def lost(self, connection: Upstream1 | Upstream2) -> None:
        if isinstance(connection, Upstream1):
            self._idle.pop(connection, None)
        else:
            self._roomy.pop(connection, None)
        if connection in self._open:
            self._open.remove(connection)
            self._make_room()

    def close(self) -> None:
        """Close what is idle. Connections in use end with their requests."""
        for connection in list(self._idle):
            self._discard(connection)
        for shared in [connection for connection in self._open if isinstance(connection, Upstream2)]:
            shared.retire()
        if self._ahead is not None:
            self._ahead.cancel()

    # Deciding

    def _decide(self, fresh: bool) -> Call | _Decision:
        while self._roomy:
            shared = next(iter(self._roomy))
            if shared.room:
                return self._place(shared)
            del self._roomy[shared]
        if not fresh:
            while self._idle:
                connection, _ = self._idle.popitem()
                if connection.quiet:
                    return connection
                self._drop(connection)
        elif self._idle and self.open >= self.limits.connections:
            self._discard(next(iter(self._idle)))
        if self._may_connect():
            return _Decision.CONNECT
        if len(self._waiting) - self._coming >= self.limits.waiting:
            return _Decision.REFUSE
        return _Decision.WAIT

    def _may_connect(self) -> bool:
        """Whether the next in need may open a connection: one for each, or where they share, as many as they fill."""
        if self.open >= self.limits.connections:
            return False
        if self._shares is None:
            return not self._connecting
        return not self._shares or len(self._waiting) >= self._connecting * self.limits.streams

    @property
    def _coming(self) -> int:
        """Places on connections that are being opened, for those who wait."""
        if self._shares is None:
            return self.limits.connections
        return self._connecting * self.limits.streams if self._shares else 0

    def _place(self, connection: Upstream2) -> Call:
        call = connection.call()
        room = connection.room
        if not room:
            del self._roomy[connection]
        few = self.limits.streams // _AHEAD
        if (
            room < few
            and sum(shared.room for shared in self._roomy) < few
            and not self._connecting
            and self.open < self.limits.connections
        ):
            self._connecting += 1
            self._ahead = asyncio.get_running_loop().create_task(self._open_ahead())
        return call

    def _discard(self, connection: Upstream1) -> None:
        del self._idle[connection]
        self._drop(connection)

    def _drop(self, connection: Upstream1) -> None:
        """Its place is free from now on, not only when its end has been seen."""
        self._open.discard(connection)
        connection.cancel()

    def _next_waiter(self) -> asyncio.Future[Call | None] | None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _make_room(self) -> None:
        """A place has become free: those who wait may open connections."""
        while self._waiting and self._may_connect():
            waiter = self._next_waiter()
            if waiter is None:
                return
            self._connecting += 1
            waiter.set_result(None)

    # Performing

    async def _wait(self) -> Call | None:
        """Wait for a place, or for leave to open a connection (None)."""
        waiter: asyncio.Future[Call | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await within(self._wheel, self.limits.queue, _result(waiter), lambda late: None)
        except BaseException as error:
            # Whoever leaves the queue may have been given something in that very moment.
            if waiter.done() and not waiter.cancelled():
                if waiter.exception() is None:
                    self._give_back(waiter.result())
            else:
                # It is cancelled with whoever waited for it, and must not go on to count as one that waits.
                waiter.cancel()
                with contextlib.suppress(ValueError):  # whoever had something to give has passed over it already
                    self._waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                message = f"no connection to upstream {self.origin.name!r} became free in time"
                raise PoolTimeout(message) from None
            raise

    def _give_back(self, given: Call | None) -> None:
        """What a waiter was given that had left by then."""
        if given is None:
            self._connecting -= 1
            self._make_room()
        elif not isinstance(given, Upstream1):
            given.cancel()
        elif given.usable:
            self.release(given)

    async def _connect(self) -> Call:
        """Open a connection, for which there is leave, and take its first place."""
        try:
            connection = await self._dialer.open()
            return self._welcome(connection)
        except UpstreamError as error:
            self._disappoint(error)
            raise
        finally:
            self._connecting -= 1
            self._make_room()

    def _welcome(self, connection: Upstream1 | Upstream2) -> Call:
        self._open.add(connection)
        if self._shares is None or isinstance(connection, Upstream2):
            self._shares = isinstance(connection, Upstream2)
        if isinstance(connection, Upstream1):
            return connection
        call = connection.call()
        self.freed(connection)
        return call

    def _disappoint(self, error: UpstreamError) -> None:
        """The connection that several waited for cannot be had; without another, neither can theirs."""
        if self._shares is not False and not self._open and self._connecting == 1:
            while (waiter := self._next_waiter()) is not None:
                waiter.set_exception(error)

    async def _open_ahead(self) -> None:
        try:
            call = await self._connect()
        except UpstreamError:
            return  # the next request that needs one will say so
        if isinstance(call, Upstream1):
            self.release(call)
        else:
            call.cancel()


async def _result(waiter: asyncio.Future[Call | None]) -> Call | None:
    return await waiter
