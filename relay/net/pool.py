"""Connections to one provider: open, reuse, close, and who waits for one.

A synchronous function decides (`_decide`): an idle connection, leave to open one, or a place in the queue. Asynchronous
code performs. The connection used last is reused first, so that those a burst has opened can expire.

        acquire -> idle connection            release -> first waiter, else idle
                -> leave to connect           lost    -> leave to connect for the first waiter
                -> waiting, bounded
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import ipaddress
import socket
import ssl
from collections import deque
from dataclasses import dataclass

from relay.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors, PoolFull, PoolTimeout, UpstreamError
from relay.net.timers import Wheel, within
from relay.net.upstream1 import Upstream1

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class Origin:
    """A provider's address as configured. `tls`: with the system's trust, None for cleartext. `link_local`: whether
    addresses of 169.254.0.0/16 and fe80::/10 (cloud metadata services) may be connected to."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    link_local: bool = False


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times in seconds. `waiting`: requests that may queue for a connection."""

    connections: int = 1024
    waiting: int = 1024
    connect: float = 5.0
    queue: float = 30.0
    idle: float = 60.0
    stall: float = 60.0


class _Decision(enum.Enum):
    CONNECT = enum.auto()
    WAIT = enum.auto()
    REFUSE = enum.auto()


class Pool:
    """All connections to one origin."""

    def __init__(self, origin: Origin, limits: PoolLimits, wheel: Wheel) -> None:
        self.origin = origin
        self.limits = limits
        self._wheel = wheel
        self._open: set[Upstream1] = set()
        self._connecting = 0
        self._idle: dict[Upstream1, None] = {}  # in the order of their release
        self._waiting: deque[asyncio.Future[Upstream1 | None]] = deque()

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

    def take(self) -> Upstream1 | None:
        """An idle connection, if there is one: the way without a task."""
        decision = self._decide(fresh=False) if self._idle else None
        return decision if isinstance(decision, Upstream1) else None

    async def acquire(self, *, fresh: bool = False) -> Upstream1:
        """A connection to send one request on; `fresh`: one that has served none.

        Raises PoolFull, PoolTimeout, ConnectTimeout, ConnectFailed or OutOfDescriptors.
        """
        while True:
            decision = self._decide(fresh)
            if isinstance(decision, Upstream1):
                return decision
            if decision is _Decision.REFUSE:
                raise PoolFull(f"too many requests wait for upstream {self.origin.name!r}")
            if decision is _Decision.CONNECT:
                self._connecting += 1
                return await self._connect()
            connection = await self._wait()
            if connection is None:
                return await self._connect()
            if fresh and connection.served:
                self._drop(connection)  # its place is all that it is good for
            elif connection.usable:
                return connection

    def release(self, connection: Upstream1) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
        else:
            self._idle[connection] = None

    def lost(self, connection: Upstream1) -> None:
        self._idle.pop(connection, None)
        if connection in self._open:
            self._open.remove(connection)
            self._make_room()

    def close(self) -> None:
        """Close what is idle. Connections in use end with their requests."""
        for connection in list(self._idle):
            self._discard(connection)

    def _decide(self, fresh: bool) -> Upstream1 | _Decision:
        if not fresh:
            while self._idle:
                connection, _ = self._idle.popitem()
                if connection.quiet:
                    return connection
                self._drop(connection)
        elif self._idle and self.open >= self.limits.connections:
            self._discard(next(iter(self._idle)))
        if self.open < self.limits.connections:
            return _Decision.CONNECT
        if len(self._waiting) >= self.limits.waiting:
            return _Decision.REFUSE
        return _Decision.WAIT

    def _discard(self, connection: Upstream1) -> None:
        del self._idle[connection]
        self._drop(connection)

    def _drop(self, connection: Upstream1) -> None:
        """Its place is free from now on, not only when its end has been seen."""
        self._open.discard(connection)
        connection.cancel()

    def _next_waiter(self) -> asyncio.Future[Upstream1 | None] | None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _make_room(self) -> None:
        """A place has become free: the first that waits may open a connection."""
        if self.open < self.limits.connections:
            waiter = self._next_waiter()
            if waiter is not None:
                self._connecting += 1
                waiter.set_result(None)

    async def _wait(self) -> Upstream1 | None:
        """Wait for a connection, or for leave to open one (None)."""
        waiter: asyncio.Future[Upstream1 | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await within(self._wheel, self.limits.queue, _result(waiter), lambda late: None)
        except BaseException as error:
            # Whoever leaves the queue may have been given something in that very moment.
            if waiter.done() and not waiter.cancelled():
                self._give_back(waiter.result())
            else:
                waiter.cancel()
                with contextlib.suppress(ValueError):  # whoever had something to give has passed over it already
                    self._waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                message = f"no connection to upstream {self.origin.name!r} became free in time"
                raise PoolTimeout(message) from None
            raise

    def _give_back(self, given: Upstream1 | None) -> None:
        """What a waiter was given that had left by then."""
        if given is None:
            self._connecting -= 1
            self._make_room()
        elif given.usable:
            self.release(given)

    async def _connect(self) -> Upstream1:
        """Open a connection. Its place is taken already."""
        try:
            connection = await within(self._wheel, self.limits.connect, self._open_first(), lambda late: late.cancel())
        except TimeoutError:
            message = f"upstream {self.origin.name!r} did not accept a connection in time"
            raise ConnectTimeout(message, f"{self._where}: nothing in {self.limits.connect:g} s") from None
        except OSError as error:
            raise self._explain(error) from error
        else:
            if connection.closed:  # it was lost before anybody here knew of it
                raise ConnectFailed(f"upstream {self.origin.name!r} closed the connection at once")
            self._open.add(connection)
            return connection
        finally:
            self._connecting -= 1
            self._make_room()

    def _explain(self, error: OSError) -> UpstreamError:
        name = self.origin.name
        if error.errno in _NO_DESCRIPTORS:
            return OutOfDescriptors("the relay has no file descriptor left")
        detail = f"{self._where}: {error.strerror or error}"
        if isinstance(error, ssl.SSLError):
            message = f"no TLS connection to upstream {name!r}: its certificate or protocol is not accepted"
            return ConnectFailed(message, f"{self._where}: {getattr(error, 'verify_message', '') or error.reason}")
        return ConnectFailed(f"upstream {name!r} cannot be reached", detail)

    @property
    def _where(self) -> str:
        return f"{self.origin.host}:{self.origin.port}"

    async def _open_first(self) -> Upstream1:
        """Connect to the first address that accepts."""
        failure: OSError | TimeoutError = ConnectionError("the host has no address that may be used")
        addresses = await self._addresses()
        deadline = self._wheel.now + self.limits.connect
        while addresses:
            host, family = addresses.pop(0)
            # Each has its share of what is left: one dead address (a broken IPv6, say) must not cost the others theirs.
            share = (deadline - self._wheel.now) / (len(addresses) + 1)
            try:
                return await within(
                    self._wheel, max(share, 0), self._open_one(host, family), lambda late: late.cancel()
                )
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure

    async def _open_one(self, host: str, family: int) -> Upstream1:
        origin, limits = self.origin, self.limits
        loop = asyncio.get_running_loop()
        if origin.tls is None:
            _, protocol = await loop.create_connection(self._make, host, origin.port, family=family)
        else:
            _, protocol = await loop.create_connection(
                self._make,
                host,
                origin.port,
                family=family,
                ssl=origin.tls,
                server_hostname=origin.host,
                ssl_handshake_timeout=limits.connect,
            )
        return protocol

    def _make(self) -> Upstream1:
        return Upstream1(self._wheel, self, self.limits.stall, self.limits.idle)

    async def _addresses(self) -> list[tuple[str, int]]:
        origin = self.origin
        try:
            literal = ipaddress.ip_address(origin.host)
        except ValueError:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            except UnicodeError:
                raise ConnectionError("the host is not a name") from None
            addresses = [(str(info[4][0]), int(info[0])) for info in found]
        else:
            addresses = [(origin.host, socket.AF_INET if literal.version == 4 else socket.AF_INET6)]
        return [address for address in addresses if origin.link_local or not is_link_local(address[0])]


def is_link_local(host: str) -> bool:
    """Whether a host is an address of 169.254.0.0/16 or fe80::/10, in whatever notation; a name is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_link_local


async def _result(waiter: asyncio.Future[Upstream1 | None]) -> Upstream1 | None:
    return await waiter
