"""A provider that speaks HTTP/2 by h2's own hand, and a pool in front of it; the wheel's time is what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import cast

from h2.events import ConnectionTerminated, RemoteSettingsChanged, RequestReceived, StreamReset
from h2.settings import SettingCodes

from relay.core.reader import Reader
from relay.core.transfer import Transfer
from relay.errors import RelayError, UpstreamError
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER, REQUEST
from relay.net.dial import Http, Origin, PoolLimits
from relay.net.poller import Poller
from relay.net.pool import Pool
from relay.net.service import Call
from relay.net.timers import Wheel
from relay.net.upstream2 import ProviderStream, Upstream2
from relay.wire import frames
from relay.wire.head import EMPTY, ResponseHead
from tests.core.fakes import Sink
from tests.net.test_timers import Loop
from tests.wire.peer2 import RESPONSE, make_peer


class Link(asyncio.Protocol):
    """One connection of the provider's. It answers what it is asked when told to; `silent`: not even with SETTINGS."""

    def __init__(self, provider: Provider2) -> None:
        self.provider = provider
        self.h2 = make_peer(client=False, settings={SettingCodes.MAX_CONCURRENT_STREAMS: provider.streams})
        self.transport: asyncio.Transport | None = None
        self.asked: list[int] = []
        self.reset: list[int] = []
        self.known = False
        self.parting: tuple[int | None, int | None] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.provider.links.append(self)
        if not self.provider.silent:
            self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self.asked.append(event.stream_id)
            elif isinstance(event, StreamReset):
                self.reset.append(event.stream_id)
            elif isinstance(event, RemoteSettingsChanged):
                self.known = True
            elif isinstance(event, ConnectionTerminated):
                self.parting = event.last_stream_id, event.error_code
        if not self.provider.silent:
            self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def flush(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send())

    def answer(self, stream_id: int) -> None:
        self.h2.send_headers(stream_id, RESPONSE, end_stream=True)
        self.flush()

    def refuse(self, stream_id: int) -> None:
        self.h2.reset_stream(stream_id, 7)
        self.flush()

    def allow(self, streams: int) -> None:
        self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        self.flush()

    def go_away(self, last: int) -> None:
        """By hand: h2 would end with it what it may still answer."""
        assert self.transport is not None
        self.transport.write(frames.goaway(last, frames.NO_ERROR))

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abort()


class Provider2:
    """`streams` it allows at once; `silent`: it accepts and says nothing."""

    def __init__(self, streams: int = 100, *, silent: bool = False) -> None:
        self.streams = streams
        self.silent = silent
        self.links: list[Link] = []
        self.port = 0

    def link_of(self, call: Call) -> Link:
        """The other end of a place's connection."""
        assert isinstance(call, ProviderStream)
        name = call.connection._transport.get_extra_info("sockname")
        for link in self.links:
            if link.transport is not None and link.transport.get_extra_info("peername") == name:
                return link
        raise AssertionError("no such connection")


class Asker:
    """One request without a body. `answer` is its status, or the error."""

    def __init__(self, call: Call, wheel: Wheel) -> None:
        self.answer: int | RelayError | None = None
        self.ended = False
        self._wheel = wheel
        self._reader = Reader(ANSWER, Gate(None))
        self._reader.attach(Sink(), blocked=False)
        self.call = call
        call.ask(b"GET", b"/", [(b"host", b"h")], EMPTY, self, Reader(REQUEST, Gate(None)))

    def answered(self, head: ResponseHead) -> Transfer:
        self.answer = head.status
        return Transfer(self._reader, self, self._wheel)

    def unanswered(self, error: UpstreamError) -> None:
        self.answer = error

    def transfer_began(self) -> None:
        raise AssertionError("there is no body")

    def transfer_ended(self, error: RelayError | None) -> None:
        self.ended = True
        if error is not None:
            self.answer = error


class Place2:
    """A pool in front of a provider, and the time that its wheel goes by."""

    def __init__(
        self, provider: Provider2, limits: PoolLimits, http: Http = "2", tls: ssl.SSLContext | None = None
    ) -> None:
        self.loop = Loop()
        self.wheel = Wheel(cast(asyncio.AbstractEventLoop, self.loop))
        self.wheel.start()
        self.provider = provider
        host = "127.0.0.1" if tls is None else "localhost"
        origin = Origin("p", host, provider.port, tls=tls, http=http)
        self.pool = Pool(origin, limits, self.wheel, Poller(asyncio.get_running_loop()))

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    def ask(self, call: Call) -> Asker:
        return Asker(call, self.wheel)

    @property
    def links(self) -> list[Link]:
        return self.provider.links


def connection_of(call: Call) -> Upstream2:
    assert isinstance(call, ProviderStream)
    return call.connection


def asked(work: Awaitable[Call]) -> asyncio.Future[Call]:
    return asyncio.ensure_future(work)


async def places(place: Place2, count: int) -> list[Call]:
    return [await place.pool.acquire() for _ in range(count)]


@contextlib.asynccontextmanager
async def serving2(
    theirs: int = 100,
    /,
    *,
    silent: bool = False,
    http: Http = "2",
    certificate: tuple[Path, Path] | None = None,
    alpn: list[str] | None = None,
    **limits: float,
) -> AsyncIterator[Place2]:
    """`theirs`: streams that the provider allows; `limits` are our own. `certificate` and `alpn`: over TLS, where the
    provider chooses among these."""
    provider = Provider2(theirs, silent=silent)
    inward = outward = None
    if certificate is not None:
        inward = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        inward.load_cert_chain(*certificate)
        inward.set_alpn_protocols(alpn or [])
        outward = ssl.create_default_context(cafile=str(certificate[0]))
        outward.set_alpn_protocols(["h2", "http/1.1"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Link(provider), "127.0.0.1", 0, ssl=inward)
    provider.port = server.sockets[0].getsockname()[1]
    place = Place2(provider, PoolLimits(**limits), http, outward)  # type: ignore[arg-type]
    try:
        yield place
    finally:
        server.close()
        place.pool.close()
        for link in provider.links:
            link.cut()
