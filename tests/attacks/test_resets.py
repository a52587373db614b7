"""Streams that are reset as fast as they are opened: by the client (A1), or by the relay for his mistakes (A2).

The provider works for none of them: at most a hundred requests reach it, and each ends at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.attacks.ground import Ground, one_line
from tests.attacks.script import Blocks, asking, streams
from tests.http2 import frames
from tests.http2.frames import END_HEADERS, END_STREAM, MAX_WINDOW, Code, Kind

_RAPID = 10_000
_MADE = 5_000


def _route(route: str) -> str:
    return f"{route}/sse/ticker"


def test_nothing_happens(ground: Ground) -> None:
    """For comparison: what an innocent client sees while nobody attacks."""
    with ground.attack("no attack"):
        ground.relay.resident()


@pytest.mark.parametrize("route", ["", "/two"], ids=["http1", "http2"])
def test_rapid_reset(ground: Ground, route: str) -> None:
    blocks, fields = Blocks(), asking(_route(route))
    script = [frames.headers(stream, blocks(fields)) + frames.rst_stream(stream) for stream in streams(_RAPID)]
    with ground.attack(f"A1 rapid reset, provider {route or '/one'}") as case:
        attacker = case.connect()
        attacker.send(*script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


def test_rapid_reset_on_connection_after_connection(ground: Ground) -> None:
    """A hundred resets are free on each connection, and no more than a hundred requests are under way on all."""
    with ground.attack("A1 rapid reset, 10 connections") as case:
        for _ in range(10):
            blocks, fields = Blocks(), asking("/v1/none")
            attacker = case.connect()
            attacker.send(
                *(frames.headers(stream, blocks(fields)) + frames.rst_stream(stream) for stream in streams(1000))
            )
            attacker.ended_by(Code.ENHANCE_YOUR_CALM)


# How a stream is opened, and by which mistake the relay is made to reset it.
_Mistake = Callable[[int, Blocks, str], tuple[bytes, bytes]]


def _get(stream: int, blocks: Blocks, route: str) -> bytes:
    return frames.headers(stream, blocks(asking(_route(route))))


def _post(stream: int, blocks: Blocks, route: str, *more: tuple[str, str]) -> bytes:
    return frames.headers(stream, blocks(asking(f"{route}/echo", "delay=1000s", "POST", *more)), END_HEADERS)


def _reset(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), frames.rst_stream(stream)


def _window_overflow(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), frames.window_update(stream, MAX_WINDOW)


def _no_window(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), frames.window_update(stream, 0)


def _data_behind_the_end(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), frames.data(stream, b"more")


def _headers_behind_the_end(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), _get(stream, blocks, route)


def _too_short(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _post(stream, blocks, route, ("content-length", "5")), frames.data(stream, b"four", END_STREAM)


def _too_long(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _post(stream, blocks, route, ("content-length", "5")), frames.data(stream, b"is six")


def _depends_on_itself(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), frames.priority(stream, stream)


def _odd_priority(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _get(stream, blocks, route), frames.frame(Kind.PRIORITY, 0, stream, b"four")


def _malformed(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return frames.headers(stream, blocks([*asking(_route(route)), ("connection", "close")])), b""


def _bad_trailers(stream: int, blocks: Blocks, route: str) -> tuple[bytes, bytes]:
    return _post(stream, blocks, route), frames.headers(stream, blocks([(":path", "/late")]))


# Which ends with ENHANCE_YOUR_CALM, because each mistake costs its stream; those that cost the connection its life
# at the first are in order too.
_MISTAKES: dict[str, tuple[_Mistake, tuple[Code, ...]]] = {
    "window-overflow": (_window_overflow, ()),
    "zero-window-update": (_no_window, ()),
    "data-half-closed": (_data_behind_the_end, ()),
    "headers-half-closed": (_headers_behind_the_end, (Code.STREAM_CLOSED,)),
    "body-too-short": (_too_short, ()),
    "body-too-long": (_too_long, ()),
    "depends-on-itself": (_depends_on_itself, (Code.PROTOCOL_ERROR,)),
    "odd-priority": (_odd_priority, (Code.FRAME_SIZE_ERROR,)),
    "malformed-head": (_malformed, ()),
    "malformed-trailers": (_bad_trailers, (Code.PROTOCOL_ERROR,)),
}


def _script(name: str, route: str, count: int) -> Iterator[bytes]:
    blocks, mistake = Blocks(), _MISTAKES[name][0]
    return (b"".join(mistake(stream, blocks, route)) for stream in streams(count))


@pytest.mark.parametrize("route", ["", "/two"], ids=["http1", "http2"])
@pytest.mark.parametrize("name", _MISTAKES)
def test_made_you_reset(ground: Ground, name: str, route: str) -> None:
    script = list(_script(name, route, _MADE))
    with ground.attack(f"A2 {name}, provider {route or '/one'}") as case:
        attacker = case.connect()
        attacker.send(*script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM, *_MISTAKES[name][1])
    one_line(case, attacker.frames[-1].code)


@pytest.mark.parametrize("name", ["window-overflow", "body-too-short", "malformed-head"])
def test_made_you_reset_one_by_one(ground: Ground, name: str) -> None:
    """The same, each mistake in a read of its own: the requests have reached the provider before."""
    script = _script(name, "", 300)
    with ground.attack(f"A2 {name}, one by one") as case:
        attacker = case.connect()
        attacker.flood(script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("route", ["", "/two"], ids=["http1", "http2"])
@pytest.mark.parametrize(
    "mistake", [_reset, _window_overflow, _no_window, _data_behind_the_end, _headers_behind_the_end]
)
def test_reset_when_the_provider_works(ground: Ground, mistake: _Mistake, route: str) -> None:
    """A hundred requests are under way at the provider when they are reset, and another hundred are behind them."""
    with ground.attack(f"A1, A2 {mistake.__name__[1:]} at work, provider {route or '/one'}") as case:
        attacker = case.connect()
        blocks = Blocks()
        openings, mistakes = zip(*(mistake(stream, blocks, route) for stream in streams(100)), strict=True)
        attacker.send(*openings)
        ground.provider.wait(requests=100)
        more = [b"".join(mistake(stream, blocks, route)) for stream in streams(100, 201)]
        attacker.send(*mistakes, *more)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM, Code.STREAM_CLOSED)
    one_line(case, attacker.frames[-1].code)
    assert case.stats["aborted"] >= 100
