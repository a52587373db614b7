"""A provider of HTTP/2 that says GOAWAY while streams are open (A11): those up to its last id finish, those above are
tried again elsewhere, and none of their readers notices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.script import Attacker, Blocks, asking, streams
from tests.http2 import frames
from tests.http2.frames import Code, Kind
from tests.programs import Provider, Relay, config_text

_EVENTS = 20
_LONG = f"events={_EVENTS}; interval=30ms"
# Not begun when the other says GOAWAY, so that the provider may leave it alone.
_LATE = f"{_LONG}; delay=1s"
_COUNT = 30


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Of this test alone: its counters are read to the end."""
    made = Provider()
    yield made
    assert made.stop() == 0


@pytest.fixture
def relay(provider: Provider, tmp_path: Path) -> Iterator[Relay]:
    file = tmp_path / "relay.toml"
    file.write_text(config_text(provider.url, upstream_extra='http = "2"'))
    made = Relay(file)
    yield made
    assert made.stop() == 0
    assert not [line for line in made.lines if "internal" in line or "Traceback" in line]


@contextlib.contextmanager
def _reader(relay: Relay) -> Iterator[Attacker]:
    with Attacker(relay.address) as reader:
        reader.send(frames.window_update(0, 10_000_000))
        yield reader
        reader.send(frames.goaway())
        reader.read_to_end()


def _ask(reader: Attacker, stream: int, simulate: str, blocks: Blocks) -> None:
    reader.send(frames.headers(stream, blocks(asking("/sse/ticker", simulate))))


def _all_whole(reader: Attacker, count: int) -> None:
    def ended() -> int:
        return sum(frame.ends_stream or frame.kind == Kind.RST_STREAM for frame in reader.frames)

    while ended() < count:
        reader.until(lambda frame: frame.stream > 0, "the end of a stream")
    assert not [frame for frame in reader.frames if frame.kind == Kind.RST_STREAM]
    for stream in streams(count):
        assert reader.bodies(stream).count(b"event: tick\n") == _EVENTS, f"stream {stream} misses events"


def _attempts(relay: Relay, count: int) -> list[int]:
    return sorted(relay.access_line(reason="finished")["attempts"] for _ in range(count))


@pytest.mark.parametrize("lie", ["goaway", "graceful"])
def test_streams_up_to_the_last_id_finish_and_those_above_go_elsewhere(
    relay: Relay, provider: Provider, lie: str
) -> None:
    with _reader(relay) as reader:
        blocks = Blocks()
        below, parting, above = streams(_COUNT), 2 * _COUNT + 1, streams(_COUNT, 2 * _COUNT + 3)
        for stream in below:
            _ask(reader, stream, _LATE, blocks)
        provider.wait(requests=_COUNT)
        _ask(reader, parting, f"{_LONG}; lie={lie}; at=3", blocks)
        provider.wait(requests=_COUNT + 1)
        for stream in above:
            _ask(reader, stream, _LATE, blocks)
        _all_whole(reader, 2 * _COUNT + 1)
    attempts = _attempts(relay, 2 * _COUNT + 1)
    stats: dict[str, Any] = provider.stats()
    again = sum(number > 1 for number in attempts)
    assert set(attempts) <= {1, 2}
    # In the second step of the graceful end all that had come are below.
    assert again == stats["ignored"]
    assert again == (_COUNT if lie == "goaway" else 0)
    assert stats["connections"] == 2 if again else 1
    assert stats["finished"] == 2 * _COUNT + 1
    assert stats["http2_errors"]["count"] == 0, stats


def test_stream_that_has_begun_above_the_last_id_is_cut_not_repeated(relay: Relay, provider: Provider) -> None:
    """A provider may not do that; the reader must see that his answer is not whole, and never gets parts of two."""
    with _reader(relay) as reader:
        blocks = Blocks()
        _ask(reader, 1, "events=20; interval=100ms; lie=goaway; at=10", blocks)
        provider.wait(requests=1)
        _ask(reader, 3, "events=1000; interval=20ms", blocks)
        assert reader.of(3, Kind.RST_STREAM).code == Code.INTERNAL_ERROR
        while not any(frame.ends_stream and frame.stream == 1 for frame in reader.frames):
            reader.of(1, Kind.DATA)
    assert relay.access_line(reason="upstream_cut")["attempts"] == 1


def test_every_connection_says_goaway(relay: Relay, provider: Provider) -> None:
    """A provider that parts after three events of each answer: each next request finds another connection."""
    with _reader(relay) as reader:
        blocks = Blocks()
        for stream in streams(10):
            _ask(reader, stream, f"{_LONG}; lie=goaway; at=3", blocks)
            while reader.bodies(stream).count(b"event: tick\n") < 4:
                reader.of(stream, Kind.DATA)
        _all_whole(reader, 10)
    stats: dict[str, Any] = provider.stats()
    assert stats["finished"] == stats["connections"] == 10, stats
    assert stats["http2_errors"]["count"] == 0


def test_refused_streams_go_elsewhere(relay: Relay, provider: Provider) -> None:
    with _reader(relay) as reader:
        blocks = Blocks()
        for stream in streams(_COUNT):
            _ask(reader, stream, f"{_LONG}; lie=refuse; times=2; key={stream}", blocks)
        _all_whole(reader, _COUNT)
    assert _attempts(relay, _COUNT) == [3] * _COUNT
    assert provider.stats()["refused"] == 2 * _COUNT
