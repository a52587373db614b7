"""Floods: each budget at its bound, and one beyond it ends the connection with ENHANCE_YOUR_CALM (RFC 9113, 10.5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import flood, frames
from relay.wire.flood import Bucket
from tests.wire.peer2 import REQUEST, ROLES, Pair, block, codes, frame

CALM = ("broke", frames.ENHANCE_YOUR_CALM)


# The bucket


@pytest.mark.parametrize("size", [2, 10, 100])
def test_a_bucket_gives_one_less_than_it_holds(size: int) -> None:
    bucket = Bucket(size, 10)
    assert [bucket.take(1.0) for _ in range(size + 3)] == [True] * (size - 1) + [False] * 4


def test_a_bucket_refills_with_time_and_no_further_than_it_holds() -> None:
    bucket = Bucket(10, 4)
    for _ in range(9):
        assert bucket.take(1.0)
    assert [bucket.take(1.5), bucket.take(1.5)] == [True, True]
    assert not bucket.take(1.5)
    for _ in range(9):
        assert bucket.take(10_000.0)
    assert not bucket.take(10_000.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(3, 1000)
    assert bucket.take(5.0)
    assert bucket.take(4.0)
    assert not bucket.take(3.0)


@settings(deadline=None)
@given(st.integers(2, 50), st.integers(1, 20), st.lists(st.floats(0, 5), max_size=200))
def test_a_bucket_gives_no_more_than_its_size_and_its_rate(size: int, rate: int, pauses: list[float]) -> None:
    bucket = Bucket(size, rate)
    now, given_out = 1.0, 0
    for pause in pauses:
        now += pause
        given_out += bucket.take(now)
        assert given_out <= size + rate * (now - 1.0)


# What the engine takes of each kind. A probe is sent `bound` times at most, and one more is too much.


def ping(pair: Pair, number: int) -> bytes:
    return frames.ping(b"%8d" % number)


def setting(pair: Pair, number: int) -> bytes:
    return frames.settings({frames.INITIAL_WINDOW_SIZE: 65_535 + number})


def settings_ack(pair: Pair, number: int) -> bytes:
    return frame(frames.SETTINGS, frames.ACK, 0)


def unknown(pair: Pair, number: int) -> bytes:
    return frame(99, number & 0xFF, number, b"?")


# Settings of the peer's own greeting have taken one, and its acknowledgment of ours another.
REFILLED: dict[str, tuple[Callable[[Pair, int], bytes], int]] = {
    "PING": (ping, 19),
    "SETTINGS": (setting, 17),
    "SETTINGS ACK": (settings_ack, 17),
    "unknown": (unknown, 99),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", REFILLED)
@pytest.mark.parametrize("together", [True, False])
def test_what_is_refilled_by_time(role: str, name: str, together: bool) -> None:
    make, bound = REFILLED[name]
    pair = Pair(role)
    fair = [make(pair, number) for number in range(bound)]
    pair.take([b"".join(fair)] if together else fair)
    assert CALM not in pair.told
    pair.clock.now += 0.5  # at 10 a second
    for number in range(5):
        pair.take([make(pair, number)])
        assert CALM not in pair.told
    pair.take([make(pair, 0)])
    assert pair.told[-1] == CALM
    assert codes(pair, frames.GOAWAY) == [(0, frames.ENHANCE_YOUR_CALM)]


def test_answers_to_our_pings_are_not_counted() -> None:
    pair = Pair("server")
    pair.take([frames.ping(bytes(8), ack=True) * 100] * 10)
    assert pair.told == [("pong", bytes(8))] * 1000


def request(number: int, flags: int = 5) -> bytes:
    return frame(frames.HEADERS, flags, 2 * number + 1, block(REQUEST))


def rapid(pair: Pair, number: int) -> None:
    pair.take([request(number), frames.rst_stream(2 * number + 1, frames.CANCEL)])


def made_by_window(pair: Pair, number: int) -> None:
    """MadeYouReset: the peer makes us reset its stream."""
    pair.take([request(number, 4), frame(frames.WINDOW_UPDATE, 0, 2 * number + 1, bytes(4))])


def made_by_data(pair: Pair, number: int) -> None:
    pair.take([request(number), frame(frames.DATA, 0, 2 * number + 1, b"x")])


def made_by_trailers(pair: Pair, number: int) -> None:
    bad = frame(frames.HEADERS, 5, 2 * number + 1, block([(b":path", b"/")]))
    pair.take([request(number, 4), bad])


def made_by_excess(pair: Pair, number: int) -> None:
    stream_id = 2 * number + 1
    pair.take([request(number, 4) + frame(frames.DATA, 0, stream_id, bytes(16_384)) * 5])


def made_by_the_listener(pair: Pair, number: int) -> None:
    """Malformed, or one stream too many."""
    pair.take([request(number)])
    pair.engine.reset(2 * number + 1, frames.REFUSED_STREAM, charge=True)


def on_the_closed(pair: Pair, number: int) -> None:
    if not number:
        pair.take([request(0, 4), frames.rst_stream(1, frames.CANCEL)])
    else:
        pair.take([frame(frames.DATA, 0, 1, b"x")])


def resets_of_the_closed(pair: Pair, number: int) -> None:
    if not number:
        pair.take([request(0, 4)])
    pair.take([frames.rst_stream(1, frames.CANCEL)])


RESETS = [
    rapid,
    made_by_window,
    made_by_data,
    made_by_trailers,
    made_by_excess,
    made_by_the_listener,
    on_the_closed,
    resets_of_the_closed,
]


@pytest.mark.parametrize("reset", RESETS)
def test_resets_whoever_sends_them(reset: Callable[[Pair, int], None]) -> None:
    pair = Pair("server", streams=1000)
    for number in range(99):
        reset(pair, number)
    assert CALM not in pair.told
    pair.clock.now += 0.3
    for number in range(99, 102):
        reset(pair, number)
    assert CALM not in pair.told
    reset(pair, 102)
    # Whatever was not found in the middle of a frame is said at the next.
    pair.take([frames.ping(b"the next", ack=True)])
    assert pair.told[-1] == CALM


def test_all_resets_are_one_budget() -> None:
    pair = Pair("server", streams=1000)
    for number in range(99):
        [rapid, made_by_window, made_by_data, made_by_the_listener][number % 4](pair, number)
    assert CALM not in pair.told
    rapid(pair, 99)
    assert pair.told[-1] == CALM


def test_a_provider_resets_no_more_than_it_was_asked() -> None:
    pair = Pair("client")
    for number in range(500):
        pair.open(2 * number + 1)
        pair.peer.reset_stream(2 * number + 1)
        pair.settle()
        assert pair.told == [("reset", 2 * number + 1, frames.NO_ERROR)]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("streams", [0, 1, 3])
@pytest.mark.parametrize("data", [0, 2])
def test_window_updates_are_in_proportion(role: str, streams: int, data: int) -> None:
    pair = Pair(role)
    for number in range(streams):
        pair.open(2 * number + 1)
    pair.engine.data_sent = data
    bound = flood.WINDOW_UPDATES_FREE + flood.WINDOW_UPDATES_PER_STREAM * streams + flood.WINDOW_UPDATES_PER_DATA * data
    pair.take([frames.window_update(0, 1) * bound])
    assert pair.told == [("window", 0)] * bound
    pair.take([frames.window_update(0, 1)])
    assert pair.told[-1] == CALM


def test_priorities_are_in_proportion_to_streams() -> None:
    pair = Pair("server")
    pair.open(1)
    priority = frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\x10")
    pair.take([priority * 200])
    assert pair.told == []
    pair.take([priority])
    assert pair.told == [CALM]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("turns", [[1], [1, 3]])
def test_empty_data_in_a_row(role: str, turns: list[int]) -> None:
    pair = Pair(role)
    for stream_id in (1, 3):
        pair.open(stream_id)
    row = [frame(frames.DATA, 0, turns[number % len(turns)]) for number in range(10)]
    pair.take([b"".join([*row, frame(frames.DATA, 0, 1, b"x"), *row])])
    assert pair.told == []
    pair.take(row[:1])
    assert pair.told == [CALM]


@pytest.mark.parametrize("role", ROLES)
def test_an_empty_end_is_no_flood(role: str) -> None:
    pair = Pair(role)
    for number in range(50):
        pair.open(2 * number + 1)
    pair.take([b"".join(frame(0, frames.END_STREAM, 2 * number + 1) for number in range(50))])
    assert pair.told == [("end", 2 * number + 1) for number in range(50)]


@pytest.mark.parametrize("role", ROLES)
def test_settings_in_one_frame(role: str) -> None:
    for count in (flood.SETTINGS_IN_A_FRAME, flood.SETTINGS_IN_A_FRAME + 1):
        pair = Pair(role)
        pair.take([frames.settings(dict.fromkeys(range(1000, 1000 + count), 1))])
        assert pair.told == ([("settings",)] if count == 32 else [CALM])
