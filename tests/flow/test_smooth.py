"""Bursts come out evenly, none later than its bound, nobody overtaken and nobody forgotten."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.flow.smooth import Smoother

EPSILON = 1e-9


def play(bound: float, arrivals: list[tuple[float, int]], late: float = 0.0) -> tuple[list[float], list[float]]:
    """When each event came and when it left, if whoever asked to be woken is woken so much too late."""
    smoother = Smoother(bound)
    came: list[float] = []
    left: list[float] = []

    def release(now: float) -> None:
        left.extend([now] * smoother.release(now))

    now = 0.0
    for gap, count in arrivals:
        until = now + gap
        while len(left) < len(came) and smoother.next_at + late <= until:
            now = max(smoother.next_at + late, now)
            release(now)
        now = until
        armed = len(left) < len(came)
        smoother.arrive(now, count)
        came.extend([now] * count)
        if not armed:
            release(now)
    while len(left) < len(came):
        assert smoother.next_at + late >= now - EPSILON - late, "asks for a time that was over long ago"
        now = max(smoother.next_at + late, now)
        before = len(left)
        release(now)
        assert len(left) > before, "woken for nothing"
    assert smoother.release(now + 100) == 0, "more left than came"
    return came, left


ARRIVALS = st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 40)), min_size=1, max_size=12)


@given(st.floats(0.001, 5.0), ARRIVALS)
def test_no_event_is_held_back_beyond_the_bound(bound: float, arrivals: list[tuple[float, int]]) -> None:
    came, left = play(bound, arrivals)
    assert left == sorted(left)
    for arrived, gone in zip(came, left, strict=True):
        assert arrived <= gone <= arrived + bound + EPSILON


@given(st.floats(0.001, 5.0), ARRIVALS, st.floats(0.0, 0.5))
def test_a_loop_that_is_late_makes_it_late_by_as_much(
    bound: float, arrivals: list[tuple[float, int]], late: float
) -> None:
    came, left = play(bound, arrivals, late)
    for arrived, gone in zip(came, left, strict=True):
        assert arrived <= gone <= arrived + bound + late + EPSILON


@given(st.floats(0.001, 5.0), st.integers(1, 200))
def test_one_burst_leaves_evenly(bound: float, count: int) -> None:
    _, left = play(bound, [(1.0, count)])
    gaps = [after - before for before, after in pairwise(left)]
    assert left[0] == 1.0
    assert left[-1] <= 1.0 + bound
    if gaps:
        assert max(gaps) - min(gaps) <= 1e-6 * bound + EPSILON
        assert sum(gaps) >= bound * (count - 1) / (count + 1), "it has the time"


@given(st.lists(st.floats(1.001, 3.0), min_size=1, max_size=20))
def test_who_meets_nobody_waiting_leaves_at_once(gaps: list[float]) -> None:
    came, left = play(1.0, [(gap, 1) for gap in gaps])
    assert came == left


def test_a_burst_behind_another_delays_nothing_beyond_the_others_bound() -> None:
    came, left = play(1.0, [(0.0, 10), (0.9, 1000)])
    assert max(left[:10]) <= 1.0
    assert max(left) <= 1.9 + EPSILON
    assert came[10] == 0.9


def test_those_whose_time_is_over_leave_together() -> None:
    smoother = Smoother(0.1)
    smoother.arrive(0.0, 10)
    assert smoother.release(0.0) == 1
    smoother.arrive(0.05, 5)
    assert smoother.release(0.12) == 9
    assert smoother.release(1.0) == 5
    assert smoother.release(2.0) == 0


def test_nobody_leaves_before_his_time() -> None:
    smoother = Smoother(1.0)
    smoother.arrive(0.0, 4)
    assert smoother.release(0.0) == 1
    assert smoother.next_at == pytest.approx(0.25)
    assert smoother.release(0.2) == 0
    assert smoother.release(0.25) == 1


def test_after_all_have_left_another_way_it_begins_anew() -> None:
    smoother = Smoother(1.0)
    smoother.arrive(0.0, 10)
    smoother.release(0.0)
    smoother.clear()
    assert smoother.release(10.0) == 0
    smoother.arrive(20.0, 1)
    assert smoother.next_at == 20.0
    assert smoother.release(20.0) == 1
