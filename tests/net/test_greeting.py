"""Which HTTP a client speaks: told by the handshake over TLS, in cleartext by its first bytes, however they come."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.net.downstream1 import Downstream1
from relay.net.downstream2 import Downstream2
from relay.net.greeting import Greeting
from relay.net.service import Client, ClientLimits, Connected, Exchange, Service
from relay.net.timers import Timed
from relay.wire import frames
from relay.wire.frames import PREFACE
from relay.wire.head import RequestHead
from tests.net.pair2 import Loop
from tests.wire.peer2 import make_peer, split_frames
from tests.wire.splits import PLACES, cut, splits


class Tls:
    def __init__(self, alpn: str | None) -> None:
        self._alpn = alpn

    def selected_alpn_protocol(self) -> str | None:
        return self._alpn


class Wheel:
    """`watched`: what it would ask, and when."""

    def __init__(self) -> None:
        self.now = 1.0
        self.watched: dict[Timed, float] = {}

    def watch(self, timed: Timed, when: float) -> None:
        self.watched[timed] = when

    def forget(self, timed: Timed) -> None:
        self.watched.pop(timed, None)


class Transport:
    def __init__(self, tls: Tls | None) -> None:
        self.tls = tls
        self.protocol: asyncio.BaseProtocol | None = None
        self.written: list[bytes] = []
        self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return {"ssl_object": self.tls, "peername": ("127.0.0.1", 5)}.get(name)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Comer:
    """A client that has just come, and the server that takes it. `room`: how many connections there may be."""

    def __init__(self, tls: Tls | None = None, room: int = 1) -> None:
        self.wheel = Wheel()
        self.limits = ClientLimits()
        self.draining = False
        self.room = room
        self.open: set[Connected] = set()
        self.requests: list[RequestHead] = []
        self.refusals: list[RelayError] = []
        self.complaints: list[RelayError] = []
        self.loop = Loop()
        self.transport = Transport(tls)
        self.greeting = Greeting(cast(Service, self))
        self.transport.protocol = self.greeting
        with self.loop.running():
            self.greeting.connection_made(cast(asyncio.Transport, self.transport))

    def says(self, *pieces: bytes) -> None:
        with self.loop.running():
            for piece in pieces:
                if piece and not self.transport.aborted:
                    cast(asyncio.Protocol, self.transport.protocol).data_received(piece)

    def ends(self) -> None:
        with self.loop.running():
            cast(asyncio.Protocol, self.transport.protocol).eof_received()

    @property
    def speaks(self) -> type[asyncio.BaseProtocol]:
        return type(cast(asyncio.BaseProtocol, self.transport.protocol))

    # The service

    def exchange(self, request: RequestHead, client: Client) -> Exchange:
        self.requests.append(request)
        raise Asked

    def opened(self, connection: Connected) -> bool:
        if len(self.open) >= self.room:
            return False
        self.open.add(connection)
        return True

    def left(self, connection: Connected) -> None:
        self.open.discard(connection)

    def refused(self, client: Client, error: RelayError) -> None:
        self.refusals.append(error)

    def broke(self, peer: str, error: RelayError) -> None:
        self.complaints.append(error)


class Asked(Exception):
    """A request has come as far as its exchange: enough for here."""


REQUEST = b"POST /v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
# HTTP/1.1 that begins as the preface does, and goes on otherwise.
LIKE = [b"PRI /a HTTP/1.1\r\nHost: h\r\n\r\n", b"PR / HTTP/1.1\r\nHost: h\r\n\r\n", b"P / HTTP/1.1\r\nHost: h\r\n\r\n"]


def http2_bytes() -> bytes:
    peer = make_peer(client=True)
    peer.ping(b"12345678")
    return peer.data_to_send()


def test_the_preface_is_known_at_every_split() -> None:
    said = http2_bytes()
    for pieces in splits(said):
        comer = Comer()
        comer.says(*pieces)
        assert comer.speaks is Downstream2
        assert not comer.complaints
        assert len(comer.open) == 1, "and the greeting has left"
        assert [id(timed) for timed in comer.wheel.watched] == [id(connection) for connection in comer.open]
        comer.loop.turn()
        kinds = [(kind, flags) for kind, flags, _, _ in split_frames(b"".join(comer.transport.written))]
        assert (frames.PING, frames.ACK) in kinds, "what came behind the preface was heard"


@pytest.mark.parametrize("said", [REQUEST, *LIKE, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_http1_is_known_at_every_split(said: bytes) -> None:
    for pieces in splits(said):
        comer = Comer()
        with pytest.raises(Asked):
            comer.says(*pieces)
        assert comer.speaks is Downstream1
        assert comer.requests[0].method == said.split(b" ")[0]
        assert len(comer.open) == 1


@pytest.mark.parametrize("at", range(1, len(PREFACE)))
def test_a_preface_that_goes_wrong_anywhere_is_http1s_to_refuse(at: int) -> None:
    wrong = bytearray(PREFACE)
    wrong[at] ^= 1
    for pieces in ([bytes(wrong)], [bytes(wrong[:at]), bytes(wrong[at:])]):
        comer = Comer()
        comer.says(*pieces, b"garbage\r\n\r\n")
        assert comer.speaks is Downstream1
        assert comer.requests == []


def test_nothing_is_answered_before_it_is_known() -> None:
    comer = Comer()
    comer.says(PREFACE[:-1])
    comer.loop.turn()
    assert comer.transport.protocol is comer.greeting
    assert comer.transport.written == []
    comer.says(PREFACE[-1:])
    comer.loop.turn()
    assert comer.speaks is Downstream2
    assert split_frames(b"".join(comer.transport.written))[0][0] == frames.SETTINGS


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), PLACES)
def test_garbage_is_never_http2(said: bytes, places: list[int]) -> None:
    comer = Comer()
    comer.says(*cut(said, places))
    assert comer.speaks in (Greeting, Downstream1)
    assert (comer.speaks is Greeting) is PREFACE.startswith(said)


def test_preface_and_then_garbage_is_answered_with_goaway() -> None:
    for pieces in splits(PREFACE + b"\xff" * 20):
        comer = Comer()
        comer.says(*pieces)
        assert comer.speaks is Downstream2
        assert len(comer.complaints) == 1
        kind, _, _, payload = split_frames(b"".join(comer.transport.written))[-1]
        assert (kind, frames.parse_long(payload, 4)) == (frames.GOAWAY, frames.FRAME_SIZE_ERROR)


# Over TLS the handshake has said so


@pytest.mark.parametrize("alpn", [None, "http/1.1"])
def test_without_h2_in_the_handshake_it_is_http1_at_once(alpn: str | None) -> None:
    comer = Comer(Tls(alpn))
    assert comer.speaks is Downstream1
    assert len(comer.open) == 1
    comer = Comer(Tls(alpn))
    comer.says(PREFACE)
    assert comer.speaks is Downstream1


def test_with_h2_in_the_handshake_it_is_nothing_else() -> None:
    for pieces in splits(http2_bytes()):
        comer = Comer(Tls("h2"))
        comer.says(*pieces)
        assert comer.speaks is Downstream2
    for said in (REQUEST, *LIKE, b"\0"):
        for pieces in splits(said):
            comer = Comer(Tls("h2"))
            comer.says(*pieces)
            assert comer.speaks is Greeting
            assert comer.transport.aborted
            assert not comer.open
            assert comer.transport.written == []


# Those who do not go on


@pytest.mark.parametrize("said", [b"", PREFACE[:5]])
@pytest.mark.parametrize("how", ["silence", "end", "drain", "cut"])
def test_who_does_not_go_on_is_let_go(said: bytes, how: str) -> None:
    comer = Comer()
    comer.says(said)
    assert comer.wheel.watched == {comer.greeting: 1.0 + comer.limits.head}
    match how:
        case "silence":
            assert comer.greeting.due(comer.wheel.watched[comer.greeting]) == 0
        case "end":
            comer.ends()
        case "drain":
            comer.greeting.drain()
        case "cut":
            comer.greeting.cut()
    assert comer.transport.aborted
    comer.greeting.connection_lost(None)
    assert not comer.open
    assert not comer.wheel.watched


def test_one_too_many_is_turned_away() -> None:
    for tls in (None, Tls("h2"), Tls("http/1.1")):
        comer = Comer(tls, room=0)
        assert comer.transport.aborted
        assert comer.transport.written == []
