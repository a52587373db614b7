"""Fewer and larger writes, or even ones, for a reader that asked for them: each within its time and its number, and
what a person waits for at once."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.core.follower import AT_ONCE, Flush, Follower
from relay.core.log import EventLog
from relay.errors import ClientBehind, RelayError
from relay.flow.overflow import DRAIN_BYTES, MOST_EVENTS_HELD, Mode, lag
from relay.wire import dialect
from tests.core.fakes import DONE, FINISH, ROLE, Log, Socket, Told, delta, ignore, numbered
from tests.core.test_follower import event, fed, follow, tagged


def flushed(flush: Flush, mode: Mode = Mode.MERGE) -> tuple[Told, Follower, Socket]:
    """A reader that has had the first content."""
    fanout = Told()
    reader, sink = follow(fanout, mode=mode, flush=flush)
    fanout.feed(event(1))
    assert sink.body == tagged(1, 1)
    sink.pieces.clear()
    return fanout, reader, sink


# What is meant by what is said


@pytest.mark.parametrize(
    ("events", "after", "smooth", "meant"),
    [
        (0, 0.0, 0.0, AT_ONCE),
        (1, 0.0, 0.0, AT_ONCE),
        (8, 0.0, 0.0, Flush(8, 0.1)),
        (0, 0.02, 0.0, Flush(MOST_EVENTS_HELD, 0.02)),
        (1, 0.02, 0.0, Flush(MOST_EVENTS_HELD, 0.02)),
        (8, 0.02, 0.0, Flush(8, 0.02)),
        (1, 0.0, 0.3, Flush(smooth=0.3)),
    ],
)
def test_what_is_not_said_has_its_meaning(events: int, after: float, smooth: float, meant: Flush) -> None:
    assert Flush.of(events, after, smooth) == meant
    assert meant.at_once == (meant == AT_ONCE)


# Together


def test_events_wait_for_their_number() -> None:
    fanout, reader, sink = flushed(Flush(4, 60.0))
    for seq in range(2, 14):
        fanout.feed(event(seq))
        assert len(sink.pieces) == (seq - 1) // 4
    assert sink.pieces == [tagged(2, 5), tagged(6, 9), tagged(10, 13)]
    assert reader.merged == 0, "who is not behind gets events as they came"


def test_events_wait_for_their_time() -> None:
    fanout, _, sink = flushed(Flush(1000, 0.02))
    fanout.feed(event(2))
    fanout.move(0.015)
    fanout.feed(event(3))
    assert sink.pieces == []
    fanout.move(0.006)
    assert sink.pieces == [tagged(2, 3)]
    fanout.move(10)
    assert sink.pieces == [tagged(2, 3)]
    fanout.feed(event(4))
    fanout.move(0.02)
    assert sink.pieces == [tagged(2, 3), tagged(4, 4)]


def test_a_time_that_is_over_for_other_reasons_delays_nothing() -> None:
    fanout, _, sink = flushed(Flush(2, 0.02))
    fanout.feed(event(2))
    fanout.move(0.01)
    fanout.feed(event(3))
    assert sink.pieces == [tagged(2, 3)]
    fanout.feed(event(4))
    fanout.move(0.02)
    assert sink.body == tagged(2, 4)


@pytest.mark.parametrize("flush", [Flush(1000, 60.0), Flush(smooth=5.0)])
def test_nothing_is_held_back_before_the_first_content(flush: Flush) -> None:
    fanout = Told()
    _, sink = follow(fanout, flush=flush)
    for number, one in enumerate([ROLE, delta(""), delta("a"), delta("b")], 1):
        fanout.feed(one)
        fanout.feed(b": ping\n\n")
        assert len(sink.pieces) == min(number, 3) + (bool(flush.smooth) and number == 4)
    fanout.move(60)
    assert sink.body == b"".join(numbered(n, e) for n, e in enumerate([ROLE, delta(""), delta("a"), delta("b")], 1))


@pytest.mark.parametrize("flush", [Flush(1000, 60.0), Flush(smooth=5.0)])
def test_of_an_unknown_dialect_the_first_event_is_content(flush: Flush) -> None:
    fanout = Told(dialect=dialect.OPAQUE)
    _, sink = follow(fanout, flush=flush)
    fanout.feed(b"data: 1\n\n")
    assert len(sink.pieces) == 1


@pytest.mark.parametrize("flush", [Flush(1000, 60.0), Flush(smooth=5.0)])
@pytest.mark.parametrize("last", [DONE, b'data: {"error":{"message":"m"}}\n\n'])
def test_the_terminal_event_and_what_waits_leave_at_once(flush: Flush, last: bytes) -> None:
    fanout, _, sink = flushed(flush)
    fanout.feed(event(2) + event(3) + event(4))
    fanout.feed(FINISH + last)
    assert sink.body == tagged(2, 4) + numbered(5, FINISH) + numbered(6, last)


@pytest.mark.parametrize("flush", [Flush(1000, 60.0), Flush(smooth=5.0)])
@pytest.mark.parametrize("end", ["finish", "abort"])
def test_the_end_flushes(flush: Flush, end: str) -> None:
    fanout, reader, sink = flushed(flush)
    fanout.feed(event(2) + event(3) + event(4))
    getattr(reader, end)()
    assert sink.body == tagged(2, 4)
    assert sink.ends == [end]
    fanout.move(100)
    assert sink.ends == [end]


@pytest.mark.parametrize("flush", [Flush(4, 0.02), Flush(smooth=0.5)])
def test_what_a_blocked_sink_missed_leaves_as_soon_as_it_can(flush: Flush) -> None:
    fanout, _, sink = flushed(flush, Mode.DISCONNECT)
    fanout.feed(event(2))
    sink.blocks()
    for seq in range(3, 20):
        fanout.feed(event(seq))
        fanout.move(0.5)
    sink.opens()
    assert sink.body == tagged(2, 19)


@pytest.mark.parametrize("flush", [Flush(1000, 0.02), Flush(smooth=0.02)])
def test_whoever_leaves_is_not_woken_for_it(flush: Flush) -> None:
    fanout, reader, sink = flushed(flush)
    fanout.feed(event(2) + event(3))
    pieces = list(sink.pieces)
    reader.detach()
    fanout.move(1)
    assert sink.pieces == pieces
    assert fanout.beat.waiting == []


def test_a_replay_is_not_held_back() -> None:
    fanout = fed(100)
    _, sink = follow(fanout, 10, flush=Flush(1000, 60.0))
    assert sink.body == tagged(11, 100)
    fanout.feed(event(101))
    assert sink.body == tagged(11, 100), "who has read content can wait"
    _, tail = follow(fanout, 101, flush=Flush(1000, 60.0))
    fanout.feed(event(102))
    assert tail.body == tagged(102, 102)


@pytest.mark.parametrize("flush", [Flush(1000, 5.0), Flush(smooth=5.0)])
def test_no_more_is_held_back_than_a_write_gives(flush: Flush) -> None:
    """Else a healthy reader would lose what the log forgets meanwhile, and memory had no bound."""
    fanout = Told(log=Log(100_000))
    reader, sink = follow(fanout, flush=flush)
    fanout.feed(event(1))
    for seq in range(2, 600):
        fanout.feed(event(seq, 5000))
        fanout.settle()
        assert reader.waiting <= DRAIN_BYTES + 5100
    fanout.move(60)
    assert sink.body == tagged(1, 1) + tagged(2, 599, 5000)


def test_fewer_writes_carry_the_same_bytes() -> None:
    fanout = Told()
    _, plain = follow(fanout)
    _, eight = follow(fanout, flush=Flush.of(8, 0.0))
    _, timed = follow(fanout, flush=Flush.of(0, 0.02))
    _, even = follow(fanout, flush=Flush.of(1, 0.0, 0.02))
    for seq in range(1, 401):
        fanout.feed(event(seq))
        fanout.move(0.001)
    fanout.feed(DONE)
    assert plain.body == eight.body == timed.body == even.body
    assert len(plain.pieces) == 401
    # Eight each, and a few whose time had begun for others.
    assert len(eight.pieces) <= 56
    assert len(timed.pieces) <= 23


# Evenly


def test_a_lone_event_leaves_at_once() -> None:
    fanout, _, sink = flushed(Flush(smooth=0.5))
    for seq in range(2, 6):
        fanout.feed(event(seq))
        assert sink.body == tagged(2, seq)
        fanout.move(0.001)


def test_a_burst_leaves_evenly_within_its_time() -> None:
    fanout, _, sink = flushed(Flush(smooth=0.1))
    fanout.feed(b"".join(event(seq) for seq in range(2, 12)))
    times = [fanout.beat.time]
    while fanout.beat.waiting:
        fanout.move(fanout.beat.waiting[0][0] - fanout.beat.time)
        times.append(fanout.beat.time)
    assert sink.pieces == [tagged(seq, seq) for seq in range(2, 12)]
    gaps = [later - earlier for earlier, later in pairwise(times)][:9]
    assert max(gaps) - min(gaps) < 1e-9
    assert times[9] - times[0] <= 0.1


@pytest.mark.parametrize("late", [0.0, 0.001, 0.015, 1.0])
@pytest.mark.parametrize(("number", "size"), [(50, 10), (800, 100), (3000, 300)])
def test_none_is_lost_whatever_the_burst_and_however_late_the_loop(number: int, size: int, late: float) -> None:
    fanout, reader, sink = flushed(Flush(smooth=0.02))
    fanout.feed(b"".join(event(seq, size) for seq in range(2, number + 2)))
    fanout.feed(event(number + 2, size))
    fanout.settle()
    fanout.move(0.05 + 3 * late, late)
    fanout.settle()
    assert sink.body == tagged(2, number + 2, size)
    assert not reader.lags
    assert not fanout.beat.waiting


def test_whoever_was_blocked_in_a_burst_goes_on() -> None:
    fanout, _, sink = flushed(Flush(smooth=0.02), Mode.PAUSE)
    for start in range(2, 2002, 100):
        fanout.feed(b"".join(event(seq, 300) for seq in range(start, start + 100)))
        if start % 300 == 2:
            sink.room = 2
        fanout.move(0.004)
        if sink.blocked:
            sink.opens()
    fanout.settle()
    fanout.move(1)
    assert sink.body == tagged(2, 2001, 300)
    assert not fanout.beat.waiting


def test_time_counts_from_the_first_that_waits_not_from_those_that_have_left() -> None:
    """Eight events take 80 ms, and may wait for 100."""
    fanout, _, sink = flushed(Flush(8, 0.1))
    sink.pieces.clear()
    for _ in range(80):
        fanout.feed(delta("a"))
        fanout.move(0.01)
    assert [piece.count(b"\nid:") for piece in sink.pieces] == [8] * 10


@pytest.mark.parametrize("flush", [Flush(4, 0.1), Flush(smooth=1.0)])
@pytest.mark.parametrize("size", [1, 30_000])
def test_log_that_forgets_what_has_just_come_cuts_off_but_does_not_raise(flush: Flush, size: int) -> None:
    """All logs together are above their limit, and this one is the largest."""
    failed: list[RelayError] = []

    class Keeper:
        def looked(self) -> None:
            log.forget(log.tail)

    log = EventLog(8 << 20, Keeper())
    fanout = Told(log=log)
    fanout.feed(ROLE + delta("a"))

    def fail(error: RelayError) -> None:
        failed.append(error)
        held.detach()

    held = Follower(fanout, 0, lag(Mode.MERGE), fail, flush)
    live = Follower(fanout, 0, lag(Mode.MERGE), ignore)
    sinks = [Socket(reader) for reader in (held, live)]
    for reader, sink in zip((held, live), sinks, strict=True):
        reader.attach(sink, blocked=False)
    for number in range(3, 300):
        fanout.feed(delta("y" * size) * (1 + (number % 50 == 0)))
        fanout.settle()
    fanout.move(10)
    assert sinks[1].body.count(b"\nid:") == log.tail
    assert [type(error) for error in failed] == [ClientBehind]
