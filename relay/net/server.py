"""Listening: sockets that accept, a bound on what they accept, and the drain."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from relay.errors import ConfigError, RelayError
from relay.net.certificate import Certificate
from relay.net.greeting import Greeting
from relay.net.listener import Listener
from relay.net.poller import Poller
from relay.net.service import Client, ClientLimits, Connected, Exchange
from relay.net.timers import Wheel
from relay.wire.head import RequestHead

# Linux caps it at net.core.somaxconn; a burst of thousands of clients must not meet a full queue.
_BACKLOG = 4096
# What of our writes may lie unsent in the kernel for one client (bytes): without it a client that does not read keeps
# megabytes there, which no ring of ours sees.
_NOT_SENT_LOW_WATER = 128 * 1024
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0: any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Server:
    """What all client connections share. `make` builds the exchange of a request, `refuse` answers what cannot
    become one, `broke` hears of connections that ended for breaking the rules, `bound` is how many there may be."""

    def __init__(
        self,
        wheel: Wheel,
        poller: Poller,
        limits: ClientLimits,
        bound: int,
        make: Callable[[RequestHead, Client], Exchange],
        refuse: Callable[[Client, RelayError], None],
        broke: Callable[[str, RelayError], None],
    ) -> None:
        self.wheel = wheel
        self.limits = limits
        self.draining = False
        self._poller = poller
        self._bound = bound
        self._make = make
        self._refuse = refuse
        self._broke = broke
        self._open: set[Connected] = set()
        # Set while no client is connected.
        self.empty = asyncio.Event()
        self.empty.set()
        self._listening: list[asyncio.Server | Listener] = []

    @property
    def connections(self) -> int:
        return len(self._open)

    async def listen(self, addresses: list[Address], certificate: Certificate | None = None) -> list[Address]:
        """Accept at each address, over TLS if there is a certificate; returns them with the ports they got. Raises
        ConfigError for one that is taken."""
        loop = asyncio.get_running_loop()
        bound = []
        sockets = []
        try:
            for address in addresses:
                sockets.append(_bind(address))
        except BaseException:
            for listener in sockets:
                listener.close()
            raise
        for address, listener in zip(addresses, sockets, strict=True):
            if certificate is None:
                self._listening.append(Listener(listener, _BACKLOG, self._poller, lambda: Greeting(self)))
            else:
                server = await loop.create_server(
                    lambda: Greeting(self),
                    sock=listener,
                    backlog=_BACKLOG,
                    ssl=certificate.context,
                    ssl_handshake_timeout=self.limits.head,
                    ssl_shutdown_timeout=self.limits.stall,
                )
                self._listening.append(server)
            bound.append(Address(address.host, listener.getsockname()[1]))
        return bound

    def drain(self) -> None:
        """Accept no more; close what is idle; what is under way closes after its answer."""
        self.draining = True
        for server in self._listening:
            server.close()
        for connection in list(self._open):
            connection.drain()

    def cut(self) -> None:
        """Close every connection now."""
        for connection in list(self._open):
            connection.cut()

    # What a connection asks of its server

    def exchange(self, request: RequestHead, client: Client) -> Exchange:
        return self._make(request, client)

    def refused(self, client: Client, error: RelayError) -> None:
        self._refuse(client, error)

    def broke(self, peer: str, error: RelayError) -> None:
        self._broke(peer, error)

    def opened(self, connection: Connected) -> bool:
        if len(self._open) >= self._bound or self.draining:
            return False
        self._open.add(connection)
        self.empty.clear()
        return True

    def left(self, connection: Connected) -> None:
        self._open.discard(connection)
        if not self._open:
            self.empty.set()


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit these.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOT_SENT_LOW_WATER)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address.host, address.port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(_why(address, error)) from None
    return listener


def _why(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is taken: another program listens there; stop it, or choose another port with --listen, or "
            "in [server] listen or listen_tls"
        )
    if error.errno == errno.EACCES:
        return f"{address} may not be bound by this user; choose a port from 1024 on with --listen"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine"
    return f"cannot listen on {address}: {error.strerror}"
