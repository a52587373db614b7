"""Frames that are cheap to send and not to take: control frames, empty DATA, frames that nobody knows (A5, A6, A8)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.attacks.ground import Ground, one_line
from tests.attacks.script import Attacker, Blocks, asking, streams
from tests.conftest import RelayMaker
from tests.http2 import frames
from tests.http2.frames import ACK, END_HEADERS, MAX_FRAME, PADDED, Code, Kind, Setting
from tests.programs import PATIENCE

_MANY = 10_000
_GET = frames.headers(1, frames.block(asking()))
_POST = frames.headers(1, frames.block(asking("/echo", "", "POST")), END_HEADERS)
_UNKNOWN = 0xBA

# A5


def _settings(count: int, first: int = 1000) -> bytes:
    return frames.settings(*((first + number, 1) for number in range(count)))


_FLOODS: dict[str, list[bytes]] = {
    "SETTINGS": [frames.settings((Setting.INITIAL_WINDOW_SIZE, 1000))] * _MANY,
    "SETTINGS empty": [frames.settings()] * _MANY,
    "SETTINGS acknowledged": [frames.settings_ack()] * _MANY,
    "SETTINGS with 33 ids": [_settings(33)],
    "SETTINGS with 2,700 ids": [_settings(2700)],
    "SETTINGS with new ids": [_settings(32, 32 * number) for number in range(1, 2000)],
    "SETTINGS of windows": [_GET, *(frames.settings((Setting.INITIAL_WINDOW_SIZE, size)) for size in range(_MANY))],
    "PING": [frames.ping(b"too many")] * _MANY,
    "PRIORITY": [frames.priority(stream, 0) for stream in streams(_MANY)],
    "PRIORITY of one stream": [_GET, *([frames.priority(1, 3)] * _MANY)],
    "WINDOW_UPDATE": [frames.window_update(0, 1)] * _MANY,
    "WINDOW_UPDATE of a stream": [_GET, *([frames.window_update(1, 1)] * _MANY)],
    "WINDOW_UPDATE of closed streams": [_GET, frames.rst_stream(1), *([frames.window_update(1, 1)] * _MANY)],
    "DATA empty": [_POST, *([frames.data(1, b"")] * _MANY)],
    "DATA empty, padded": [_POST, *([frames.data(1, b"\x00", PADDED)] * _MANY)],
    "RST_STREAM": [_GET, *([frames.rst_stream(1)] * _MANY)],
    "unknown frames": [frames.frame(_UNKNOWN, 0, 0, b"")] * _MANY,
    "unknown frames, large": [frames.frame(_UNKNOWN, 0xFF, 1, bytes(MAX_FRAME))] * 500,
    "GREASE of every type": [frames.frame(0x0B + number % 200, 0, 0, b"grease") for number in range(_MANY)],
}


@pytest.mark.parametrize("name", _FLOODS)
def test_flood(ground: Ground, name: str) -> None:
    with ground.attack(f"A5 {name}") as case:
        attacker = case.connect()
        attacker.send(*_FLOODS[name])
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("name", ["PING", "SETTINGS", "PRIORITY", "WINDOW_UPDATE", "unknown frames"])
def test_flood_one_by_one(ground: Ground, name: str) -> None:
    """Each frame a read of its own."""
    with ground.attack(f"A5 {name}, one by one") as case:
        attacker = case.connect()
        attacker.flood(_FLOODS[name])
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


def _bytes_of_a_body(count: int, padding: int) -> Iterator[bytes]:
    yield _POST
    payload = frames.padded(b"x", padding) if padding else b"x"
    yield from [frames.data(1, payload, PADDED if padding else 0)] * count


@pytest.mark.parametrize(("count", "padding"), [(_MANY, 0), (_MANY, 1), (_MANY, 255), (50_000, 0), (50_000, 1)])
def test_body_of_single_bytes_is_a_body(ground: Ground, count: int, padding: int) -> None:
    """No flood: it costs what it says, it arrives, and the padding is given back to the windows."""
    with ground.attack(f"A5 DATA of one byte, {padding} padding, {count}") as case:
        attacker = case.connect()
        attacker.send(*_bytes_of_a_body(count, padding), frames.data(1, b"", frames.END_STREAM))
        while not any(frame.ends_stream for frame in attacker.frames):
            attacker.of(1, Kind.HEADERS, Kind.DATA)
        assert b'"body_length":%d' % count in attacker.bodies(1)
        attacker.send(frames.goaway())
        attacker.read_to_end()


def test_acknowledgments_that_nobody_asked_for(ground: Ground) -> None:
    """A PING that is acknowledged without having been sent is no violation, and costs next to nothing."""
    with ground.attack("A5 PING acknowledged") as case:
        attacker = case.connect()
        attacker.send(*([frames.ping(b"not ours", ACK)] * _MANY))
        attacker.alive()
        attacker.send(frames.goaway())
        attacker.read_to_end()


# A6


@pytest.mark.parametrize("length", [MAX_FRAME + 1, 2**24 - 1])
@pytest.mark.parametrize("kind", [*Kind, _UNKNOWN])
def test_frame_is_refused_at_its_header(ground: Ground, kind: int, length: int) -> None:
    with ground.attack(f"A6 type {kind} announced with {length}") as case:
        attacker = case.connect()
        attacker.send(_POST, length.to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, 1]))
        attacker.ended_by(Code.FRAME_SIZE_ERROR)
    one_line(case, Code.FRAME_SIZE_ERROR)


# A8


def _pings(count: int) -> Iterator[bytes]:
    return (frames.ping(b"answer!!") for _ in range(count))


def _own_answers() -> Iterator[bytes]:
    blocks = Blocks()
    return (frames.headers(stream, blocks(asking("/healthz", ""))) for stream in streams(2000))


def _errors() -> Iterator[bytes]:
    blocks = Blocks()
    fields = [*asking("//", ""), ("x-fill", "y" * 3000)]
    return (frames.headers(stream, blocks(fields)) for stream in streams(2000))


def _large_answers() -> Iterator[bytes]:
    blocks = Blocks()
    yield frames.window_update(0, 2**30)
    for stream in streams(100):
        yield frames.headers(stream, blocks(asking("/raw/x", "events=100000; interval=0; size=10000")))
    # Within the budget, again and again, behind answers that nobody takes.
    yield from _pings(10)


@pytest.mark.parametrize(
    ("script", "sure"),
    [
        pytest.param(_pings(_MANY), True, id="PING"),
        pytest.param(iter([frames.settings()] * _MANY), True, id="SETTINGS"),
        pytest.param(_own_answers(), False, id="own answers"),
        pytest.param(_errors(), False, id="errors"),
        pytest.param(_large_answers(), False, id="large answers"),
    ],
)
def test_peer_that_never_reads(
    ground: Ground, script: Iterator[bytes], sure: bool, request: pytest.FixtureRequest
) -> None:
    """What is answered waits for him in bounded memory, the provider is paused, and then he is cut off."""
    name = request.node.callspec.id
    # Of each answer the relay holds a ring and what one read of the provider's socket brought more.
    growth = 32 if name == "large answers" else 16
    with ground.attack(f"A8 {name}, never read", growth=growth * 1024 * 1024) as case:
        attacker = case.connect((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1), reads=False, window=4096)
        attacker.send(*script)
        if name == "large answers":
            # Half a second without a byte taken: then the log says so for each.
            for _ in range(100):
                assert ground.relay.access_line(reason="client_stalled")["path"] == "/raw/x"
        if not sure and not attacker.over:
            # Then all were answered, and it was the kernel that kept them.
            attacker.send(frames.goaway())
        attacker.read_to_end()
        assert not sure or attacker.frames[-1].kind == Kind.GOAWAY
    if sure:
        one_line(case, Code.ENHANCE_YOUR_CALM)


def test_stop_while_a_broken_connection_lingers(make_relay: RelayMaker) -> None:
    """`make_relay` sees to it that nothing internal was said."""
    relay = make_relay()
    with Attacker(relay.address) as attacker:
        attacker.send(*_FLOODS["PING"][:100])
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
        relay.send_signal(signal.SIGTERM)
        assert relay.process.wait(PATIENCE) == 0
