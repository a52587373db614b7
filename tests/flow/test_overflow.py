"""Between the marks nothing changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.flow.overflow import ANSWER, DRAIN_BYTES, REQUEST, Lag, Mode, Overflow, Verdict, chosen, lag
from relay.flow.ring import RingBuffer


def ring_of(size: int) -> RingBuffer:
    ring = RingBuffer()
    if size:
        ring.push(bytes(size))
    return ring


@pytest.mark.parametrize(
    ("size", "held", "holds"),
    [
        (0, False, False),
        (10, False, False),
        (20, False, False),
        (21, False, True),
        (20, True, True),
        (11, True, True),
        (10, True, False),
        (0, True, False),
    ],
)
def test_a_producer_waits_above_the_high_mark_until_the_low_one(size: int, held: bool, holds: bool) -> None:
    assert Overflow(high=20, low=10, pieces=100).holds(ring_of(size), held) is holds


@given(st.lists(st.integers(11, 20)))
def test_between_the_marks_nothing_switches(sizes: list[int]) -> None:
    overflow = Overflow(high=20, low=10, pieces=100)
    for held in (False, True):
        for size in sizes:
            assert overflow.holds(ring_of(size), held) is held


@pytest.mark.parametrize("marks", [ANSWER, REQUEST])
def test_the_marks_in_use_are_apart(marks: Overflow) -> None:
    assert 0 < marks.low < marks.high
    assert marks.low <= DRAIN_BYTES


def test_crumbs_are_bounded_by_their_number() -> None:
    overflow = Overflow(high=1 << 20, low=1, pieces=8)
    ring = RingBuffer()
    for _ in range(8):
        ring.push(b"x")
    assert not overflow.holds(ring, False)
    ring.push(b"x")
    assert overflow.holds(ring, False)
    ring.take(2)
    assert overflow.holds(ring, True)


# Readers of a log

_MIB = 1024 * 1024


@pytest.mark.parametrize("mode", [Mode.MERGE, Mode.DISCONNECT])
@pytest.mark.parametrize(
    ("size", "events", "verdict"),
    [
        (0, 0, Verdict.KEEP),
        (_MIB, 10_000, Verdict.KEEP),
        (_MIB + 1, 1, Verdict.END),
        (1, 10_001, Verdict.END),
    ],
)
def test_a_reader_is_cut_off_past_its_bounds_and_not_at_them(
    mode: Mode, size: int, events: int, verdict: Verdict
) -> None:
    assert lag(mode).verdict(size, events, held=False) is verdict


@pytest.mark.parametrize(
    ("size", "events", "held", "verdict"),
    [
        (ANSWER.high, ANSWER.pieces, False, Verdict.KEEP),
        (ANSWER.high + 1, 1, False, Verdict.PAUSE),
        (ANSWER.high + 1, 1, True, Verdict.KEEP),
        (1, ANSWER.pieces + 1, False, Verdict.PAUSE),
        (ANSWER.low + 1, 1, True, Verdict.KEEP),
        (ANSWER.low, 1, True, Verdict.RESUME),
        (ANSWER.low, 1, False, Verdict.KEEP),
        (100 * _MIB, 10**9, True, Verdict.KEEP),
    ],
)
def test_a_paused_producer_waits_between_the_marks(size: int, events: int, held: bool, verdict: Verdict) -> None:
    assert lag(Mode.PAUSE).verdict(size, events, held) is verdict


@pytest.mark.parametrize(
    ("size", "events", "verdict"),
    [
        (ANSWER.high, ANSWER.pieces, Verdict.KEEP),
        (ANSWER.high + 1, 1, Verdict.DROP),
        (1, ANSWER.pieces + 1, Verdict.DROP),
    ],
)
def test_the_oldest_are_dropped_above_the_high_mark(size: int, events: int, verdict: Verdict) -> None:
    assert lag(Mode.DROP).verdict(size, events, held=False) is verdict


@given(st.sampled_from(Mode), st.integers(0, 4 * _MIB), st.integers(0, 40_000), st.booleans())
def test_who_lacks_more_is_never_better_off(mode: Mode, size: int, events: int, held: bool) -> None:
    bounds = lag(mode)
    verdict = bounds.verdict(size, events, held)
    worse = bounds.verdict(size + 1000, events + 100, held)
    if verdict in (Verdict.END, Verdict.PAUSE, Verdict.DROP):
        assert worse is verdict
    if worse is Verdict.RESUME:
        assert verdict is Verdict.RESUME


@pytest.mark.parametrize(
    ("mode", "age", "stall"),
    [(Mode.MERGE, 60.0, 30.0), (Mode.DISCONNECT, 60.0, 30.0), (Mode.PAUSE, 0.0, math.inf), (Mode.DROP, 0.0, 30.0)],
)
def test_for_how_long_a_reader_may_lag_and_take_nothing(mode: Mode, age: float, stall: float) -> None:
    """A paused provider, as that of a transparent stream, is the connection's own limit's to end."""
    assert lag(mode).age_limit == age
    assert lag(mode).stall == stall


def test_bounds_may_be_others() -> None:
    bounds = Lag(Mode.DISCONNECT, bytes=10, events=2, age=5.0)
    assert bounds.verdict(11, 1, held=False) is Verdict.END
    assert bounds.verdict(1, 3, held=False) is Verdict.END
    assert bounds.age_limit == 5.0


@pytest.mark.parametrize(
    ("asked", "kept", "first", "merges", "mode"),
    [
        (None, False, True, True, Mode.PAUSE),
        (None, False, True, False, Mode.PAUSE),
        (None, True, True, True, Mode.MERGE),
        (None, True, False, True, Mode.MERGE),
        (None, True, True, False, Mode.DISCONNECT),
        (Mode.PAUSE, True, True, True, Mode.PAUSE),
        (Mode.PAUSE, True, False, True, Mode.MERGE),
        (Mode.PAUSE, True, False, False, Mode.DISCONNECT),
        *[
            (mode, kept, first, True, mode)
            for mode in Mode
            if mode is not Mode.PAUSE
            for kept in (0, 1)
            for first in (0, 1)
        ],
    ],
)
def test_what_holds_for_a_reader(asked: Mode | None, kept: bool, first: bool, merges: bool, mode: Mode) -> None:
    assert chosen(asked, kept=kept, first=first, merges=merges) == lag(mode)
