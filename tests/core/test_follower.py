"""A reader of a log, step by step: live, behind, from the past to the present, at the end. See test_follower_machine
for any order, test_follower_lag for what happens when it lags, test_follower_flush for fewer writes."""

from __future__ import annotations

import pytest

from relay.core.follower import AT_ONCE, Flush, Follower
from relay.errors import ClientBehind, RelayError
from relay.flow.overflow import Mode, lag
from tests.core.fakes import DONE, ROLE, Producer, Sink, Socket, Told, delta, ignore, numbered

KIB = 1024


def follow(
    fanout: Told,
    after: int = 0,
    mode: Mode = Mode.DISCONNECT,
    flush: Flush = AT_ONCE,
    failures: list[RelayError] | None = None,
    *,
    attach: bool = True,
) -> tuple[Follower, Socket]:
    reader = Follower(fanout, after, lag(mode), (failures if failures is not None else []).append, flush)
    sink = Socket(reader)
    if attach:
        reader.attach(sink, blocked=False)
    return reader, sink


def fed(number: int, size: int = 10) -> Told:
    fanout = Told()
    for seq in range(1, number + 1):
        fanout.feed(event(seq, size))
    return fanout


def event(seq: int, size: int = 10) -> bytes:
    return delta(f"{seq}." + "x" * size)


def tagged(first: int, last: int, size: int = 10) -> bytes:
    return b"".join(numbered(seq, event(seq, size)) for seq in range(first, last + 1))


def test_while_the_sink_takes_everything_nothing_stands_between() -> None:
    fanout = Told()
    reader, sink = follow(fanout)
    assert reader.out is sink
    for seq in range(1, 10):
        fanout.feed(event(seq))
        assert reader.out is sink
        assert (reader.place, reader.delivered, reader.waiting, reader.lags) == (seq, seq, 0, False)
    assert sink.body == tagged(1, 9)
    assert len(sink.pieces) == 9


@pytest.mark.parametrize("after", [0, 1, 63, 64, 65, 128, 199, 200])
def test_whoever_comes_late_gets_what_he_lacks_and_then_the_present(after: int) -> None:
    fanout = fed(200)
    reader, sink = follow(fanout, after)
    assert sink.body == tagged(after + 1, 200)
    assert reader.out is sink
    fanout.feed(event(201))
    assert sink.body == tagged(after + 1, 201)
    assert reader.delivered == 201 - after
    assert reader.given == fanout.log.total - fanout.log.position(after)


def test_what_comes_before_the_sink_is_there_is_not_lost() -> None:
    fanout = fed(3)
    reader, sink = follow(fanout, 1, attach=False)
    fanout.feed(event(4))
    assert reader.blocked
    assert reader.lags
    reader.attach(sink, blocked=True)
    sink.blocked = True
    fanout.feed(event(5))
    assert sink.pieces == []
    sink.opens()
    assert sink.body == tagged(2, 5)


def test_a_replay_goes_in_few_writes_and_lets_others_have_their_turn() -> None:
    fanout = fed(5000, 200)
    _, sink = follow(fanout)
    bytes_ = fanout.log.total
    assert len(sink.body) < 400 * KIB, "everything in one turn"
    turns = 0
    while fanout.beat.soons:
        assert len(fanout.beat.soons) == 1
        fanout.beat.turn()
        turns += 1
    assert turns == len(sink.body) // (256 * KIB)
    assert sink.body == tagged(1, 5000, 200)
    assert len(sink.pieces) <= bytes_ // (31 * KIB) + turns
    assert max(map(len, sink.pieces)) < 64 * KIB


def test_events_that_come_during_a_replay_come_behind_it() -> None:
    fanout = fed(3000, 200)
    _, sink = follow(fanout)
    fanout.feed(event(3001, 200))
    fanout.beat.turn()
    fanout.feed(event(3002, 200) + event(3003, 200))
    fanout.settle()
    fanout.feed(event(3004, 200))
    assert sink.body == tagged(1, 3004, 200)


def test_a_sink_that_blocks_in_the_middle_of_a_replay_goes_on_where_it_stopped() -> None:
    fanout = fed(1000, 200)
    reader = Follower(fanout, 0, lag(Mode.DISCONNECT), ignore)
    sink = Socket(reader, room=1)
    reader.attach(sink, blocked=False)
    for number in range(2, 6):
        assert len(sink.pieces) == number - 1
        assert reader.blocked
        fanout.feed(event(999 + number, 200))
        sink.opens(room=1)
    sink.opens()
    assert sink.body == tagged(1, 1004, 200)


def test_a_large_event_goes_alone_and_whole() -> None:
    fanout = fed(1)
    reader, sink = follow(fanout)
    sink.blocks()
    for seq, size in enumerate((10, 500_000, 10), 2):
        fanout.feed(event(seq, size))
    sink.opens()
    fanout.beat.turn()
    assert sink.pieces[1:] == [tagged(2, 2), numbered(3, event(3, 500_000)), tagged(4, 4)]
    assert reader.place == 4


# Ends


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_an_open_reader_ends_at_once(end: str) -> None:
    fanout = Told()
    reader, sink = follow(fanout)
    fanout.feed(event(1))
    getattr(reader, end)()
    assert sink.ends == [end]


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_the_end_comes_when_everything_was_taken(end: str) -> None:
    fanout = fed(0)
    reader, sink = follow(fanout)
    sink.blocks()
    for seq in range(1, 1000):
        fanout.feed(event(seq, 200))
    getattr(reader, end)()
    for _ in range(5):
        assert sink.ends == []
        sink.opens(room=1)
    sink.opens()
    assert sink.ends == [end]
    assert sink.body == tagged(1, 999, 200)


def test_a_blocked_reader_with_nothing_waiting_ends_when_it_is_unblocked() -> None:
    fanout = fed(0)
    reader, sink = follow(fanout)
    fanout.feed(event(1))
    sink.blocks()
    reader.finish()
    assert sink.ends == []
    sink.opens()
    assert sink.ends == ["finish"]


def test_a_reader_of_a_finished_stream_gets_it_and_its_end() -> None:
    fanout = fed(3000, 200)
    fanout.feed(DONE)
    reader, sink = follow(fanout, attach=False)
    reader.finish()
    reader.attach(sink, blocked=False)
    while fanout.beat.soons:
        assert sink.ends == []
        fanout.beat.turn()
    assert sink.ends == ["finish"]
    assert sink.body == tagged(1, 3000, 200) + numbered(3001, DONE)


@pytest.mark.parametrize("blocked", [True, False])
def test_an_abort_says_why_behind_what_was_missing(blocked: bool) -> None:
    fanout = fed(1)
    reader, sink = follow(fanout)
    if blocked:
        sink.blocks()
    fanout.feed(event(2))
    reader.abort(b"data: why\n\n")
    if blocked:
        assert sink.ends == []
        sink.opens()
    assert sink.body == tagged(1, 2) + b"data: why\n\n"
    assert sink.ends == ["abort"]


def test_a_failure_while_the_end_waits_makes_it_an_abort() -> None:
    fanout = fed(1)
    reader, sink = follow(fanout)
    sink.blocks()
    fanout.feed(event(2))
    reader.finish()
    reader.abort()
    sink.opens()
    assert sink.ends == ["abort"]


# Leaving


@pytest.mark.parametrize("blocked", [True, False])
def test_nothing_reaches_a_sink_that_has_gone(blocked: bool) -> None:
    fanout = fed(1)
    reader, sink = follow(fanout)
    if blocked:
        sink.blocks()
        fanout.feed(event(2))
    reader.detach()
    reader.detach()
    seen = list(sink.pieces)
    given, delivered = reader.given, reader.delivered
    for seq in range(2, 10):
        fanout.feed(event(seq))
    reader.unblock()
    reader.finish()
    assert sink.pieces == seen
    assert sink.ends == []
    assert fanout.readers == ()
    assert (reader.given, reader.delivered) == (given, delivered) == (len(event(1)), 1)


def test_a_sink_may_go_in_the_middle_of_a_write() -> None:
    fanout = fed(2000, 200)
    reader, _ = follow(fanout, attach=False)

    class Leaving(Sink):
        def _send(self, piece: bytes) -> None:
            super()._send(piece)
            reader.detach()

    leaving = Leaving()
    reader.attach(leaving, blocked=False)
    assert len(leaving.pieces) == 1
    fanout.feed(event(2001))
    fanout.beat.turn()
    fanout.move(1)
    assert len(leaving.pieces) == 1
    assert leaving.ends == []


def test_whoever_leaves_in_the_middle_of_his_turns_is_let_be() -> None:
    fanout = fed(5000, 200)
    reader, sink = follow(fanout)
    pieces = len(sink.pieces)
    assert fanout.beat.soons
    reader.detach()
    fanout.beat.turn()
    assert len(sink.pieces) == pieces
    assert not fanout.beat.soons


def test_one_reader_changes_nothing_for_another() -> None:
    fanout = Told()
    stuck, stuck_sink = follow(fanout, mode=Mode.DISCONNECT)
    _, sink = follow(fanout, mode=Mode.MERGE)
    fanout.feed(ROLE)
    stuck_sink.blocks()
    for seq in range(2, 300):
        fanout.feed(event(seq))
        assert sink.pieces[-1] == numbered(seq, event(seq))
    assert len(stuck_sink.pieces) == 1
    late, late_sink = follow(fanout, 100)
    assert late_sink.body == tagged(101, 299)
    assert (late.place, stuck.place) == (299, 1)
    stuck_sink.opens()
    assert stuck_sink.body == sink.body


def test_a_reader_whose_events_are_forgotten_is_told_so_and_gets_no_hole() -> None:
    failures: list[RelayError] = []
    fanout = fed(100)
    reader, sink = follow(fanout, failures=failures)
    sink.blocks()
    fanout.feed(event(101))
    fanout.feed(event(102))
    fanout.log.forget(101)
    sink.opens()
    assert len(failures) == 1
    assert isinstance(failures[0], ClientBehind)
    sink.blocks()
    sink.opens()
    assert len(failures) == 1
    assert sink.body == tagged(1, 100)
    reader.detach()


def test_leaving_does_not_undo_the_pause_of_another() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.PAUSE)
    other, other_sink = follow(fanout, mode=Mode.PAUSE)
    producer: Producer = fanout.producer
    sink.blocks()
    other_sink.blocks()
    for seq in range(10):
        fanout.feed(event(seq, 40_000))
    assert producer.paused
    reader.detach()
    assert producer.paused
    other_sink.opens()
    fanout.settle()
    assert not producer.paused
    assert producer.switches == 1
    assert other.place == 10
