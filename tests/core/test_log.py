"""What can be replayed: every event at its number, nothing forgotten below the limit, found without a search, and held
in little more than its bytes."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.core import log as log_module
from relay.core.log import LARGE, SEGMENT, EventLog
from tests.core.test_budget import calls

KIB = 1024
LIMIT = 20_000


def event(number: int, size: int) -> bytes:
    return (b"%d." % number).ljust(size, b"x")


def filled(number: int, size: int = 100, limit: int = 1 << 30) -> EventLog:
    log = EventLog(limit)
    for seq in range(1, number + 1):
        log.append(event(seq, size))
    return log


class AnyLog(RuleBasedStateMachine):
    """Beside the list of all events that ever came."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.looked_at = (0, 0)
        self.log = EventLog(LIMIT, self)
        self.events: list[bytes] = []
        self.asked_to_forget = 0

    def looked(self) -> None:
        self.looks += 1
        self.looked_at = (self.log.tail, self.log.total)

    @rule(sizes=st.lists(st.sampled_from([1, 30, 200, 3000, 9000]), min_size=1, max_size=20))
    def append(self, sizes: list[int]) -> None:
        for size in sizes:
            self.events.append(event(len(self.events) + 1, size))
            before = self.log.oldest
            self.log.append(self.events[-1])
            if self.log.oldest > before:
                assert self.log.kept >= LIMIT, "forgotten below the limit"
            tail, total = self.looked_at
            assert self.log.tail - tail <= SEGMENT
            # Small events alone do not make it look before their segment ends.
            assert self.log.total - total < 64 * KIB + SEGMENT * LARGE

    @rule(number=st.sampled_from([SEGMENT - 1, SEGMENT, 5 * SEGMENT]), size=st.sampled_from([5, 120]))
    def append_many(self, number: int, size: int) -> None:
        for _ in range(number):
            self.events.append(event(len(self.events) + 1, size))
            self.log.append(self.events[-1])

    @precondition(lambda self: self.log.kept)
    @rule(back=st.integers(0, 200), bound=st.sampled_from([0, 1, 500, 5000, 1 << 30]))
    def read(self, back: int, bound: int) -> None:
        log = self.log
        after = max(log.tail - back, log.oldest - 1)
        expected: list[bytes] = []
        for one in self.events[after:]:
            if expected and sum(map(len, expected)) + len(one) > bound:
                break
            expected.append(one)
        assert log.read(after, bound) == expected

    @rule(back=st.integers(0, 200))
    def position(self, back: int) -> None:
        seq = max(self.log.tail - back, self.log.oldest - 1)
        assert self.log.position(seq) == sum(map(len, self.events[:seq]))

    @rule(back=st.integers(0, 300))
    def forget(self, back: int) -> None:
        until = self.log.tail - back
        before = self.log.oldest
        self.log.forget(until)
        assert self.log.oldest <= max(before, until + 1), "more than was asked"
        assert self.log.oldest > until - SEGMENT, "less than all but a part of one segment"
        if not back:
            assert self.log.kept == 0

    @invariant()
    def what_it_knows(self) -> None:
        log = self.log
        assert log.tail == len(self.events)
        assert log.total == sum(map(len, self.events))
        assert 1 <= log.oldest <= log.tail + 1
        assert log.kept == sum(map(len, self.events[log.oldest - 1 :]))
        # What came since the last look, and the event or segment at the limit.
        assert log.kept <= LIMIT + 64 * KIB + SEGMENT * 9000

    @invariant()
    def everything_is_there(self) -> None:
        assert self.log.read(self.log.oldest - 1, 1 << 30) == self.events[self.log.oldest - 1 :]


TestAnyLog = AnyLog.TestCase
TestAnyLog.settings = hypothesis_settings(max_examples=100, stateful_step_count=25, deadline=None)


def test_whoever_reads_on_where_he_stopped_gets_everything_once() -> None:
    log = filled(1000)
    for bound in (1, 99, 100, 1000, 6400, 32 * KIB):
        got: list[bytes] = []
        while len(got) < 1000:
            got += log.read(len(got), bound)
        assert got == [event(seq, 100) for seq in range(1, 1001)]
    assert log.read(1000, 1 << 20) == []


def test_an_event_above_the_limit_of_a_read_is_read_alone() -> None:
    log = EventLog(1 << 30)
    for size in (10, 5000, 10):
        log.append(bytes(size))
    assert [len(one) for one in log.read(0, 100)] == [10]
    assert [len(one) for one in log.read(1, 100)] == [5000]


def test_recent_and_large_events_are_the_objects_that_came() -> None:
    log = EventLog(1 << 30)
    events = [bytes([seq]) * 5000 for seq in range(100)]
    for one in events:
        log.append(one)
    assert all(read is one for read, one in zip(log.read(0, 1 << 30), events, strict=True))


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=400), st.integers(1, 50_000))
def test_nothing_is_forgotten_below_the_limit(sizes: list[int], limit: int) -> None:
    log = EventLog(limit)
    for size in sizes:
        before = log.oldest
        log.append(bytes(size))
        assert log.oldest == before or log.kept >= limit
        if log.total <= limit:
            assert log.oldest == 1
    assert log.kept == sum(sizes[log.oldest - 1 :])


def test_above_the_limit_the_oldest_go_and_the_newest_stay() -> None:
    limit = 100 * KIB
    log = filled(10_000, 200, limit)
    assert limit <= log.kept <= limit + 64 * KIB + SEGMENT * 200
    assert log.read(log.oldest - 1, 1 << 30) == [event(seq, 200) for seq in range(log.oldest, 10_001)]
    assert log.position(log.oldest - 1) == log.total - log.kept


def test_one_event_above_the_limit_is_kept() -> None:
    log = EventLog(1000)
    for size in (10, 200_000, 10):
        log.append(bytes(size))
        assert log.read(log.tail - 1, 1 << 30) == [bytes(size)]
    for _ in range(SEGMENT):
        log.append(bytes(100))
    assert log.kept < 200_000


def test_looked_is_called_every_64_events_or_64_kib() -> None:
    class Keeper:
        looks = 0

        def looked(self) -> None:
            self.looks += 1

    keeper = Keeper()
    small = EventLog(1 << 30, keeper)
    for _ in range(10 * SEGMENT):
        small.append(b"x")
    assert keeper.looks == 10
    keeper.looks, large = 0, EventLog(1 << 30, keeper)
    for _ in range(20):
        large.append(bytes(32 * KIB))
    assert keeper.looks == 10


def test_forgetting_twice_is_forgetting_once() -> None:
    log = filled(200)
    log.forget(128)
    log.forget(128)
    log.forget(100)
    assert (log.oldest, log.kept) == (129, 72 * 100)
    log.forget(130)
    log.forget(200)
    assert (log.oldest, log.kept) == (201, 0)
    assert log.read(200, 1) == []
    log.append(b"next")
    assert log.read(200, 1) == [b"next"]


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=300), st.integers(0, 2_000_000))
def test_a_quarter_of_it_spares_the_newest(sizes: list[int], spared: int) -> None:
    log = EventLog(1 << 30)
    for size in sizes:
        log.append(bytes(size))
    until = log.quarter(spared)
    assert 0 <= until <= len(sizes) // 4 + SEGMENT + 1
    assert until == 0 or sum(sizes[until:]) >= spared
    before = log.kept
    log.forget(until)
    assert log.kept >= min(spared, before)


# The costs


class Seeking(EventLog):
    """Counts the segments that are looked for."""

    __slots__ = ("sought",)

    def __init__(self) -> None:
        super().__init__(1 << 30)
        self.sought = 0

    def _find(self, seq: int) -> log_module._Segment:
        self.sought += 1
        return super()._find(seq)


@pytest.mark.parametrize("length", [1000, 20_000, 100_000])
def test_seeking_touches_one_segment_however_long_the_log(length: int) -> None:
    log = Seeking()
    for seq in range(1, length + 1):
        log.append(event(seq, 20))
    for after in (0, 1, 63, 64, length // 2, length - 100, length - 1):
        log.sought = 0
        assert log.read(after, 1) == [event(after + 1, 20)]
        # One that ends with its segment has to look into the next.
        assert log.sought <= 2
        log.sought = 0
        assert log.position(after) == sum(len(event(seq, 20)) for seq in range(1, after + 1))
        assert log.sought <= 1
    log.sought = 0
    assert len(log.read(length // 2, 20 * 200)) == 200
    assert log.sought <= 200 // SEGMENT + 2


def _read(log: EventLog, after: int) -> None:
    log.read(after, 1600)


def test_a_long_log_costs_no_more_calls_than_a_short_one() -> None:
    short, long = filled(1100, 20), filled(100_000, 20)
    for after in (10, 500, 900):
        far = after * 100 // SEGMENT * SEGMENT + after % SEGMENT
        few = calls(partial(_read, short, after))
        many = calls(partial(_read, long, far))
        assert (len(few[0]), len(few[1])) == (len(many[0]), len(many[1]))


@pytest.mark.parametrize("size", [120, 200, 1000])
def test_a_full_log_takes_little_more_than_its_bytes(size: int) -> None:
    total = 8 << 20
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        log = EventLog(total)
        for seq in range(total // size):
            log.append(event(seq, size))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert log.kept == total // size * size
    assert used <= 1.3 * log.kept


def test_a_log_above_its_limit_does_not_grow() -> None:
    log = filled(20_000, 100, 256 * KIB)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for seq in range(20_000):
            log.append(event(seq, 100))
        # It may hold what came between two looks, more than at the start.
        assert tracemalloc.get_traced_memory()[0] - before < 1.3 * (log.kept + 2 * 64 * KIB)
    finally:
        tracemalloc.stop()
    assert log.kept <= 256 * KIB + 64 * KIB + SEGMENT * 100


def test_positions_are_the_sums_of_what_came_before() -> None:
    sizes = [1 + seq * 37 % 500 for seq in range(500)]
    log = EventLog(1 << 30)
    for size in sizes:
        log.append(bytes(size))
    assert [log.position(seq) for seq in range(501)] == list(accumulate(sizes, initial=0))
