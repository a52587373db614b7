"""More streams than may be (A9), and connections that want none."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import pytest

from tests.attacks.ground import Ground, one_line
from tests.attacks.script import Attacker, Blocks, asking, streams
from tests.http2 import frames
from tests.http2.frames import Code, Kind
from tests.robustness.peers import serves, until

_EVENTS = 20
_STREAM = asking("/two/sse/ticker", f"events={_EVENTS}; interval=50ms")
# On the connection, for the answers of all streams.
_ROOM = frames.window_update(0, 1_000_000)


def _whole(attacker: Attacker, count: int) -> None:
    """The first streams end as they should, with all their events."""
    for _ in range(count):
        attacker.until(lambda frame: frame.ends_stream, "the end of a stream")
    for stream in streams(count):
        assert attacker.bodies(stream).count(b"event: tick\n") == _EVENTS, f"stream {stream} misses events"


def _refused(attacker: Attacker) -> list[int]:
    resets = [frame for frame in attacker.frames if frame.kind == Kind.RST_STREAM]
    assert {frame.code for frame in resets} <= {Code.REFUSED_STREAM}, resets
    return [frame.stream for frame in resets]


def test_stream_101_is_refused(ground: Ground) -> None:
    with ground.attack("A9 stream 101") as case:
        attacker, blocks = case.connect(), Blocks()
        attacker.send(_ROOM, *(frames.headers(stream, blocks(_STREAM)) for stream in streams(100)))
        ground.provider.wait(requests=100)
        attacker.send(frames.headers(201, blocks(_STREAM)))
        assert attacker.of(201, Kind.HEADERS, Kind.RST_STREAM).code == Code.REFUSED_STREAM
        _whole(attacker, 100)
        # And with room again, a further one is served.
        attacker.send(frames.headers(203, blocks(asking("/healthz"))))
        assert attacker.of(203, Kind.HEADERS).fields[0] == (":status", "200")
        attacker.send(frames.goaway())
        attacker.read_to_end()
    assert _refused(attacker) == [201]
    assert case.stats["finished"] == 100


def test_150_streams_at_once(ground: Ground) -> None:
    """A client that has not read the limit yet: those above it are refused, and can be asked again."""
    with ground.attack("A9 150 streams at once") as case:
        attacker, blocks = case.connect(), Blocks()
        attacker.send(_ROOM, *(frames.headers(stream, blocks(_STREAM)) for stream in streams(150)))
        _whole(attacker, 100)
        attacker.alive()
        attacker.send(frames.goaway())
        attacker.read_to_end()
    assert _refused(attacker) == list(streams(50, 201))
    assert case.stats["finished"] == 100


def test_300_streams_at_once(ground: Ground) -> None:
    """Two hundred refusals are past any misunderstanding."""
    with ground.attack("A9 300 streams at once") as case:
        attacker, blocks = case.connect(), Blocks()
        attacker.send(*(frames.headers(stream, blocks(_STREAM)) for stream in streams(300)))
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)
    assert set(_refused(attacker)) <= set(streams(200, 201))


@pytest.mark.parametrize(
    ("first", "second"), [(3, 1), (2, 4), (2**31 - 1, 1)], ids=["lower", "even", "highest-then-lower"]
)
def test_stream_ids_out_of_order(ground: Ground, first: int, second: int) -> None:
    with ground.attack("A9 stream ids out of order") as case:
        attacker = case.connect()
        block = frames.block(asking())
        attacker.send(frames.headers(first, block), frames.headers(second, block))
        attacker.ended_by(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)
    one_line(case, attacker.frames[-1].code)


def test_last_stream_id_there_is(ground: Ground) -> None:
    """2^31-1: served, and there can be no other."""
    with ground.attack("A9 last stream id") as case:
        attacker = case.connect()
        attacker.send(frames.headers(2**31 - 1, frames.block(asking("/healthz"))))
        assert attacker.of(2**31 - 1, Kind.HEADERS).fields[0] == (":status", "200")
        attacker.alive()
    assert case.stats["requests"] == 0


# Connections that ask nothing


@pytest.mark.parametrize("preface", [b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", frames.PREFACE, frames.PREFACE + b"\0\0"])
def test_greeting_that_is_never_finished(ground: Ground, preface: bytes) -> None:
    with ground.attack("A11 greeting never finished") as case:
        attacker = Attacker(case.relay.address, greet=False)
        case.attackers.append(attacker)
        attacker.send(preface)
        attacker.read_to_end()
    assert case.stats["requests"] == 0


def test_dribbled_preface(ground: Ground) -> None:
    with ground.attack("A11 preface dribbled") as case:
        attacker = Attacker(case.relay.address, greet=False)
        case.attackers.append(attacker)
        assert not attacker.drip((frames.PREFACE[at : at + 1] for at in range(24)), 0.1), "2.4 s with a limit of 0.5 s"
    assert case.stats["requests"] == 0


def test_thousand_idle_connections(tmp_path: Path) -> None:
    """They cost a few KiB each, nobody notices, and they are told to go."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 3000, "ulimit -n is too low for this test"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ground = Ground(tmp_path, timeouts='keep_alive = "2s"')
    try:
        with contextlib.ExitStack() as stack, ground.attack("1,000 idle connections", growth=40 * 1024 * 1024) as case:
            idle = [stack.enter_context(Attacker(ground.relay.address)) for _ in range(1000)]
            for attacker in idle:
                attacker.until(lambda frame: frame.kind == Kind.SETTINGS and frame.is_ack, "the relay's SETTINGS")
            serves(ground.relay.address)
            until(lambda: ground.relay.descriptors() > 1000, "a thousand connections")
            case.attackers.extend(idle)
            for attacker in idle:
                attacker.ended_by(Code.NO_ERROR)
    finally:
        ground.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
