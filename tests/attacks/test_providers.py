"""The same attacks by a provider of HTTP/2: its connection ends, its answer is an error, and nobody else notices."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.attacks.ground import Ground
from tests.http2 import frames
from tests.http2.frames import END_HEADERS, MAX_FRAME, Code, Kind, Setting
from tests.http2.peers import RESPONSE, ServerPeer
from tests.programs import PATIENCE, Client

_MANY = 10_000
_BEGUN = frames.headers(1, RESPONSE, END_HEADERS)
_UNFINISHED = frames.headers(1, RESPONSE, 0)
_HINT = frames.headers(1, frames.block([(":status", "103"), ("link", "</x>")]), END_HEADERS)
_LARGE = b"\x40" + frames.string("x") + frames.string("v" * 3900)

_CALM = (Code.ENHANCE_YOUR_CALM,)
_ATTACKS: dict[str, tuple[list[bytes], tuple[Code, ...]]] = {
    "SETTINGS": ([frames.settings((Setting.INITIAL_WINDOW_SIZE, 1000))] * _MANY, _CALM),
    "SETTINGS with 33 ids": ([frames.settings(*((number, 1) for number in range(100, 133)))], _CALM),
    "PING": ([frames.ping(b"too many")] * _MANY, _CALM),
    "PRIORITY": ([frames.priority(1, 3)] * _MANY, _CALM),
    "WINDOW_UPDATE": ([frames.window_update(0, 1)] * _MANY, _CALM),
    "DATA empty": ([_BEGUN, *([frames.data(1, b"")] * _MANY)], _CALM),
    "unknown frames": ([frames.frame(0xBA, 0, 0)] * _MANY, _CALM),
    "CONTINUATION small": ([_UNFINISHED, *([frames.continuation(1, b"", 0)] * _MANY)], _CALM),
    "CONTINUATION large": ([_UNFINISHED, *([frames.continuation(1, bytes(MAX_FRAME), 0)] * 5)], _CALM),
    "header bomb": ([frames.headers(1, RESPONSE + _LARGE + b"\xbe" * 10_000, END_HEADERS)], _CALM),
    "table size updates": ([frames.headers(1, b"\x20" * 10_000 + RESPONSE, END_HEADERS)], (Code.COMPRESSION_ERROR,)),
    "frame too long": ([b"\xff\xff\xff\0\0\0\0\0\1"], (Code.FRAME_SIZE_ERROR,)),
    "PUSH_PROMISE": ([frames.push_promise(1, 2, RESPONSE)], (Code.PROTOCOL_ERROR,)),
    "a stream of its own": ([frames.headers(2, RESPONSE, END_HEADERS)], (Code.PROTOCOL_ERROR,)),
    "window of the connection": ([frames.window_update(0, 2**31 - 1)], (Code.FLOW_CONTROL_ERROR,)),
}


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, listener: socket.socket) -> Iterator[Ground]:
    evil = f"http://127.0.0.1:{listener.getsockname()[1]}"
    timeouts = 'upstream_idle = "300ms"\nhead = "2s"'
    made = Ground(tmp_path_factory.mktemp("providers"), timeouts=timeouts, evil=evil)
    yield made
    made.stop()


def _accept(listener: socket.socket) -> ServerPeer:
    """The relay's connection, with a request on stream 1."""
    peer = ServerPeer(listener.accept()[0])
    peer.handshake()
    assert peer.take_request().stream == 1
    return peer


@pytest.mark.parametrize("name", _ATTACKS)
def test_attack_by_a_provider(ground: Ground, listener: socket.socket, name: str) -> None:
    script, codes = _ATTACKS[name]
    with ground.attack(f"provider: {name}") as case, Client(ground.relay.address) as client:
        client.request(target="/evil/x")
        with _accept(listener) as peer:
            peer.send(*script)
            peer.expect_goaway(*codes)
        answer = client.answer()
        assert answer.status == 502 or not answer.clean, answer
    assert [line["reason"] for line in case.lines if line.get("upstream") == "evil"] == ["upstream_invalid"]


def test_informational_answers_without_end(ground: Ground, listener: socket.socket) -> None:
    with ground.attack("provider: 103 again and again"), Client(ground.relay.address) as client:
        client.request(target="/evil/x")
        with _accept(listener) as peer:
            peer.send(*([_HINT] * _MANY))
            peer.expect_stream_error(1, Code.PROTOCOL_ERROR)
        assert client.answer().status == 502


def test_body_past_the_window(ground: Ground, listener: socket.socket) -> None:
    """What nobody reads: the client does not take it, and the provider does not wait."""
    with (
        ground.attack("provider: DATA past the window"),
        Client(ground.relay.address, receive_buffer=4096) as client,
    ):
        client.request(target="/evil/x")
        with _accept(listener) as peer:
            content = frames.data(1, bytes(MAX_FRAME))
            peer.send(_BEGUN, *([content] * 2000))
            peer.expect_stream_error(1, Code.FLOW_CONTROL_ERROR)


def test_body_of_a_stream_that_was_cancelled(ground: Ground, listener: socket.socket) -> None:
    """What is under way is thrown away, and the connection's window is given back for it; the next request is served
    on the same connection."""
    with ground.attack("provider: DATA of a cancelled stream"):
        with Client(ground.relay.address) as client:
            client.request(target="/evil/x")
            peer = _accept(listener)
            peer.send(_BEGUN, frames.data(1, b"begun"))
            client.read_until(b"begun")
        with peer, Client(ground.relay.address) as client:
            peer.expect_reset(1, Code.CANCEL)
            peer.send_within_windows(1, b"x", 1)
            peer.send(*([frames.data(1, bytes(10_000))] * 6))
            client.request(target="/evil/y")
            peer.answer(peer.expect_headers(3).stream)
            assert client.answer().body == b"answer"


def test_answers_that_nobody_asked_for(ground: Ground, listener: socket.socket) -> None:
    with ground.attack("provider: answers to nothing"), Client(ground.relay.address) as client:
        client.request(target="/evil/x")
        with _accept(listener) as peer:
            peer.send(*(frames.headers(stream, RESPONSE, END_HEADERS) for stream in range(3, 2 * _MANY, 2)))
            peer.expect_goaway(Code.PROTOCOL_ERROR)
        assert client.answer().status == 502


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.RST_STREAM, Kind.WINDOW_UPDATE])
def test_frames_of_streams_that_were_never_opened(ground: Ground, listener: socket.socket, kind: Kind) -> None:
    with ground.attack(f"provider: {kind.name} of an idle stream"), Client(ground.relay.address) as client:
        client.request(target="/evil/x")
        with _accept(listener) as peer:
            peer.send(frames.frame(kind, 0, 99, b"\0\0\0\1"))
            peer.expect_goaway(Code.PROTOCOL_ERROR)
        assert client.answer().status == 502
