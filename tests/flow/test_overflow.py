"""Between the marks nothing changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.flow.overflow import ANSWER, DRAIN_BYTES, REQUEST, Overflow
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
