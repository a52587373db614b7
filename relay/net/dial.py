"""Opening a connection to a provider: its addresses, TLS, and which HTTP it turns out to speak.

        addresses -> connect -> TLS, ALPN -> Upstream1
                                          -> Upstream2 -> the provider's SETTINGS

Over TLS the handshake says which (RFC 7301); in cleartext the configuration does (RFC 9113, 3.3: prior knowledge).
A connection of HTTP/2 counts as open when the provider's settings are here: before that, nobody knows whether it
speaks HTTP/2 at all, nor how many streams it takes.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from relay.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors, UpstreamError
from relay.net.poller import Poller
from relay.net.timers import Wheel, within
from relay.net.transport import SocketTransport
from relay.net.upstream1 import Home, Upstream1
from relay.net.upstream2 import Home2, Upstream2

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

Http = Literal["auto", "1.1", "2"]
SocketAddress = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """A provider's address as configured. `tls`: with the system's trust, None for cleartext. `http`: the version, or
    auto: what the handshake says, and 1.1 in cleartext. `link_local`: whether addresses of 169.254.0.0/16 and
    fe80::/10 (cloud metadata services) may be connected to."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    link_local: bool = False
    http: Http = "auto"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times in seconds. `waiting`: requests that may queue for a connection. `streams`: at once on a connection of
    HTTP/2. `ping`: silence after which one with streams open is asked whether it lives, 0 for never; `pong`: how long
    it may take to answer."""

    connections: int = 1024
    waiting: int = 1024
    connect: float = 5.0
    queue: float = 30.0
    idle: float = 60.0
    stall: float = 60.0
    streams: int = 100
    ping: float = 30.0
    pong: float = 10.0


class Homes(Home, Home2, Protocol):  # type: ignore[misc]
    """Where connections of both kinds come from."""


class Dialer:
    """Opens connections to one origin."""

    def __init__(self, origin: Origin, limits: PoolLimits, wheel: Wheel, poller: Poller, home: Homes) -> None:
        self._origin = origin
        self._limits = limits
        self._wheel = wheel
        self._poller = poller
        self._home = home

    async def open(self) -> Upstream1 | Upstream2:
        """Raises ConnectTimeout, ConnectFailed or OutOfDescriptors."""
        try:
            connection = await self._open_first()
        except TimeoutError:
            message = f"no connection to upstream {self._origin.name!r} in time"
            raise ConnectTimeout(message, f"{self._where}: nothing in {self._limits.connect:g} s") from None
        except OSError as error:
            raise self._explain(error) from error
        if connection.closed:  # it was lost before anybody here knew of it
            raise ConnectFailed(f"upstream {self._origin.name!r} closed the connection at once")
        return connection

    def _explain(self, error: OSError) -> UpstreamError:
        name = self._origin.name
        if error.errno in _NO_DESCRIPTORS:
            return OutOfDescriptors("the relay has no file descriptor left")
        detail = f"{self._where}: {error.strerror or error}"
        if isinstance(error, _OtherHttp):
            return ConnectFailed(f"upstream {name!r} does not speak HTTP/2", f'{detail}; http = "auto" lets it choose')
        if isinstance(error, ssl.SSLError):
            message = f"no TLS connection to upstream {name!r}: its certificate or protocol is not accepted"
            return ConnectFailed(message, f"{self._where}: {getattr(error, 'verify_message', '') or error.reason}")
        return ConnectFailed(f"upstream {name!r} cannot be reached", detail)

    @property
    def _where(self) -> str:
        return f"{self._origin.host}:{self._origin.port}"

    async def _open_first(self) -> Upstream1 | Upstream2:
        """Connect to the first address that accepts."""
        failure: OSError | TimeoutError = ConnectionError("the host has no address that may be used")
        addresses = await self._addresses()
        deadline = self._wheel.now + self._limits.connect
        while addresses:
            family, address = addresses.pop(0)
            # Each has its share of what is left: one dead address (a broken IPv6, say) must not cost the others theirs.
            share = (deadline - self._wheel.now) / (len(addresses) + 1)
            try:
                opening = self._open_one(family, address)
                return await within(self._wheel, max(share, 0), opening, lambda late: late.cut())
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure

    async def _open_one(self, family: int, address: SocketAddress) -> Upstream1 | Upstream2:
        origin, limits = self._origin, self._limits
        chooser = _Chooser(self)
        if origin.tls is None:
            transport = SocketTransport(self._poller, family)
            transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await transport.reach(address)
            transport.begin(chooser)
        else:
            # The interface of a link's own address.
            scope = f"%{address[3]}" if len(address) == 4 and address[3] else ""
            await asyncio.get_running_loop().create_connection(
                lambda: chooser,
                f"{address[0]}{scope}",
                origin.port,
                family=family,
                ssl=origin.tls,
                server_hostname=origin.host,
                ssl_handshake_timeout=limits.connect,
                ssl_shutdown_timeout=limits.stall,
            )
        connection = chooser.chosen
        if isinstance(connection, Upstream2):
            try:
                if not await connection.settled:
                    raise _OtherHttp("no SETTINGS came")
            except BaseException:
                connection.cut()
                raise
        elif origin.http == "2":
            connection.cut()
            raise _OtherHttp("ALPN did not choose h2")
        return connection

    def choose(self, alpn: str | None) -> Upstream1 | Upstream2:
        """The protocol for a connection whose handshake said this; None without TLS."""
        limits = self._limits
        if alpn == "h2" or (self._origin.tls is None and self._origin.http == "2"):
            return Upstream2(
                self._wheel,
                self._home,
                stall=limits.stall,
                idle_time=limits.idle,
                streams=limits.streams,
                ping=limits.ping,
                pong=limits.pong,
            )
        return Upstream1(self._wheel, self._home, limits.stall, limits.idle)

    async def _addresses(self) -> list[tuple[int, SocketAddress]]:
        origin = self._origin
        try:
            literal = ipaddress.ip_address(origin.host)
        except ValueError:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            except UnicodeError:
                raise ConnectionError("the host is not a name") from None
        else:
            if literal.version == 4:
                return self._allowed([(socket.AF_INET, (origin.host, origin.port))])
            # Behind a "%" it may name an interface, which becomes a number.
            found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return self._allowed([(int(info[0]), cast(SocketAddress, info[4])) for info in found])

    def _allowed(self, addresses: list[tuple[int, SocketAddress]]) -> list[tuple[int, SocketAddress]]:
        return [found for found in addresses if self._origin.link_local or not is_link_local(str(found[1][0]))]


class _OtherHttp(ConnectionError):
    """The provider does not speak what it was configured to."""


class _Chooser(asyncio.Protocol):
    """A connection until it is known what it speaks: which is when it is made."""

    chosen: Upstream1 | Upstream2

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self.chosen = self._dialer.choose(tls.selected_alpn_protocol() if tls is not None else None)
        self.chosen.connection_made(transport)
        transport.set_protocol(self.chosen)


def is_link_local(host: str) -> bool:
    """Whether a host is an address of 169.254.0.0/16 or fe80::/10, in whatever notation; a name is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_link_local
