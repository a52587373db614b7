"""A new connection, until its first bytes say which HTTP it speaks.

HTTP/2 with prior knowledge begins with the preface of RFC 9113, 3.4, which is no request of HTTP/1.1; over TLS the
client has also said it by ALPN (3.2), and the preface comes all the same. The upgrade from HTTP/1.1 is not offered: RFC
9113, 3.1 has taken it back.
"""

from __future__ import annotations

import asyncio
from typing import cast

from serve1 import Connection1
from serve2 import Connection2
from service import Provider

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Opening(asyncio.Protocol):
    """Hands the connection to Connection1 or Connection2, with all that has come. `only`: HTTP/1.1 is closed."""

    _transport: asyncio.Transport

    def __init__(self, provider: Provider, max_streams: int, *, only: bool) -> None:
        self._provider = provider
        self._max_streams = max_streams
        self._only = only
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if PREFACE.startswith(self._came):
            if len(self._came) == len(PREFACE):
                self._hand_over(Connection2(self._provider, self._max_streams))
        elif self._came.startswith(PREFACE):
            self._hand_over(Connection2(self._provider, self._max_streams))
        else:
            # Also with `only`, since whoever asks for the counts need not speak what they are about.
            self._hand_over(Connection1(self._provider, refusing=self._only))

    def connection_lost(self, exc: Exception | None) -> None:
        self._provider.counts.add("connections_silent")

    def _hand_over(self, connection: asyncio.Protocol) -> None:
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        connection.data_received(self._came)
