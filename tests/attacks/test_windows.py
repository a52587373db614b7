"""Windows that stay shut, or open by a byte at a time (A7).

The provider is paused, the limit on stalls ends the stream, and the connection's other streams live.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.ground import Ground
from tests.attacks.script import Attacker, asking
from tests.http2 import frames
from tests.http2.frames import Code, Kind, Setting

_MIB = 1024 * 1024
# More than fits into any buffer between the provider and the client.
_FAST = "events=10000; interval=0; size=10000"
_SLOW = "events=60; interval=15ms; size=10"
_SHUT = (Setting.INITIAL_WINDOW_SIZE, 0)


def _get(stream: int, route: str, simulate: str) -> bytes:
    return frames.headers(stream, frames.block(asking(f"{route}/sse/ticker", simulate)))


def _live_to_the_end(attacker: Attacker, stream: int) -> None:
    while not any(frame.ends_stream and frame.stream == stream for frame in attacker.frames):
        attacker.of(stream, Kind.DATA)
    assert attacker.bodies(stream).count(b"event: tick\n") == 60


def _leave(attacker: Attacker) -> None:
    attacker.alive()
    attacker.send(frames.goaway())
    attacker.read_to_end()


@pytest.fixture(params=["", "/two"], ids=["http1", "http2"])
def route(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_window_of_zero(ground: Ground, route: str) -> None:
    with ground.attack(f"A7 window of zero, provider {route or '/one'}", growth=4 * _MIB) as case:
        attacker = case.connect(_SHUT)
        attacker.send(_get(1, route, _FAST), _get(3, route, _SLOW), frames.window_update(3, 100_000))
        stalled = attacker.of(1, Kind.RST_STREAM)
        assert stalled.code == Code.CANCEL
        line = ground.relay.access_line(reason="client_stalled")
        # The provider was paused: what has come is what was read before.
        assert line["bytes"] < _MIB
        _live_to_the_end(attacker, 3)
        _leave(attacker)
    assert not attacker.bodies(1)
    assert (case.stats["requests"], case.stats["aborted"], case.stats["finished"]) == (2, 1, 1)
    assert case.stats["bytes"] < 20 * _MIB


def test_windows_that_are_never_opened_again(ground: Ground, route: str) -> None:
    """A client that takes 64 KiB and then no more, on a stream and, with another stream, on the connection."""
    with ground.attack(f"A7 windows never opened again, provider {route or '/one'}", growth=4 * _MIB) as case:
        attacker = case.connect()
        attacker.send(_get(1, route, _FAST), _get(3, route, _FAST))
        codes = [attacker.until(lambda frame: frame.kind == Kind.RST_STREAM, "RST_STREAM").code for _ in range(2)]
        assert codes == [Code.CANCEL, Code.CANCEL]
        for _ in range(2):
            ground.relay.access_line(reason="client_stalled")
        # With room on the connection, a new stream is served as ever.
        attacker.send(frames.window_update(0, 100_000), _get(5, route, _SLOW))
        _live_to_the_end(attacker, 5)
        _leave(attacker)
    assert len(attacker.bodies(1)) + len(attacker.bodies(3)) == 65_535
    assert (case.stats["requests"], case.stats["aborted"]) == (3, 2)


def _crumbs(stream: int) -> Iterator[bytes]:
    return (frames.window_update(stream, 1) for _ in range(1000))


def test_windows_of_one_byte(ground: Ground, route: str) -> None:
    """Opened by a byte every 20 ms: fewer than a kilobyte until the limit count as nothing taken."""
    with ground.attack(f"A7 windows of one byte, provider {route or '/one'}", growth=4 * _MIB) as case:
        attacker = case.connect(_SHUT)
        attacker.send(_get(1, route, _FAST), _get(3, route, _SLOW), frames.window_update(3, 100_000))
        for piece in _crumbs(1):
            assert attacker.drip([piece], 0.02)
            if any(frame.kind == Kind.RST_STREAM for frame in attacker.frames):
                break
        assert attacker.of(1, Kind.RST_STREAM).code == Code.CANCEL
        assert ground.relay.access_line(reason="client_stalled")
        _live_to_the_end(attacker, 3)
        _leave(attacker)
    assert len(attacker.bodies(1)) < 1000
    assert {len(frame.payload) for frame in attacker.frames if frame.stream == 1 and frame.kind == Kind.DATA} == {1}
    assert (case.stats["requests"], case.stats["aborted"], case.stats["finished"]) == (2, 1, 1)


def test_window_that_shuts_in_the_middle(ground: Ground) -> None:
    """SETTINGS make it negative; what was sent counts."""
    with ground.attack("A7 window made negative", growth=4 * _MIB) as case:
        attacker = case.connect((Setting.INITIAL_WINDOW_SIZE, 20_000))
        attacker.send(_get(1, "", _FAST))
        while len(attacker.bodies(1)) < 20_000:
            attacker.of(1, Kind.DATA)
        attacker.send(frames.settings(_SHUT), frames.window_update(1, 20_000))
        assert attacker.of(1, Kind.RST_STREAM).code == Code.CANCEL
        _leave(attacker)
    assert len(attacker.bodies(1)) == 20_000
    assert case.stats["aborted"] == 1


def test_answers_that_fit_no_window(ground: Ground) -> None:
    """A hundred streams with windows of zero: a hundred requests that are given up, and nothing is kept."""
    with ground.attack("A7 100 windows of zero", growth=40 * _MIB) as case:
        attacker = case.connect(_SHUT)
        attacker.send(*(_get(stream, "/two", _FAST) for stream in range(1, 201, 2)))
        for _ in range(100):
            attacker.until(lambda frame: frame.kind == Kind.RST_STREAM, "RST_STREAM")
        _leave(attacker)
    assert (case.stats["requests"], case.stats["aborted"]) == (100, 100)
