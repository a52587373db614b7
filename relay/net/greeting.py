"""A connection that has just come: which HTTP its client speaks.

Over TLS the handshake has said so (ALPN, RFC 7301). In cleartext the first bytes do: HTTP/2 with prior knowledge
begins with a preface that no HTTP/1.1 request can begin with (RFC 9113, 3.4).
"""

from __future__ import annotations

import asyncio
from typing import cast

from relay.net.connection import AnyTransport
from relay.net.downstream1 import Downstream1
from relay.net.downstream2 import Downstream2
from relay.net.service import Service
from relay.wire.frames import PREFACE


class Greeting(asyncio.Protocol):
    """Gives its transport on to the connection that the client wants."""

    __slots__ = ("_heard", "_only_2", "_service", "_transport", "tick")

    def __init__(self, service: Service) -> None:
        self.tick = 0
        self._service = service
        self._heard = b""
        self._only_2 = False
        self._transport = cast(AnyTransport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(AnyTransport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._become(Downstream1(self._service), b"")
        elif self._service.opened(self):
            self._only_2 = tls is not None
            wheel = self._service.wheel
            wheel.watch(self, wheel.now + self._service.limits.head)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        heard = self._heard = self._heard + data
        if heard.startswith(PREFACE):
            self._part()
            self._become(Downstream2(self._service), heard[len(PREFACE) :])
        elif not PREFACE.startswith(heard):
            self._part()
            if self._only_2:
                self._transport.abort()
            else:
                self._become(Downstream1(self._service), heard)

    def eof_received(self) -> None:
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._part()

    def due(self, now: float) -> float:
        self._transport.abort()
        return 0

    def drain(self) -> None:
        self._transport.abort()

    def cut(self) -> None:
        self._transport.abort()

    def _part(self) -> None:
        self._service.wheel.forget(self)
        self._service.left(self)

    def _become(self, connection: Downstream1 | Downstream2, heard: bytes) -> None:
        self._transport.set_protocol(connection)
        connection.connection_made(cast(asyncio.BaseTransport, self._transport))
        if heard and not connection.closed:
            connection.data_received(heard)
