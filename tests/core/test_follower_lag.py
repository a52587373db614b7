"""What happens to a reader that lags: merged, cut off, paused or dropped, each past its bound and not before."""

from __future__ import annotations

import pytest

from relay.core.follower import Follower
from relay.errors import ClientBehind, RelayError
from relay.flow.overflow import ANSWER, Lag, Mode, lag
from relay.wire.delta import MERGED_LIMIT
from tests.core.fakes import DONE, FINISH, ROLE, Log, Socket, Told, delta, ignore, number_of, numbered
from tests.core.test_follower import event, fed, follow, tagged
from tests.core.test_follower_machine import Heard

MIB = 1 << 20


def heard(sink: Socket, events: list[bytes], *, of: bool = True) -> Heard:
    told = Heard(events, 0, of)
    told.hear(sink.body)
    return told


def feed_all(fanout: Told, events: list[bytes]) -> list[bytes]:
    for one in events:
        fanout.feed(one)
    return events


# merge


def test_adjacent_texts_become_one_event_with_the_last_ones_id() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.MERGE)
    fanout.feed(ROLE)
    sink.blocks()
    feed_all(fanout, [delta("a"), delta("b"), delta("c"), FINISH, DONE])
    sink.opens()
    assert sink.pieces[1:] == [numbered(4, delta("abc")) + numbered(5, FINISH) + numbered(6, DONE)]
    assert (reader.merged, reader.delivered, reader.dropped) == (2, 6, 0)


def test_barriers_stay_as_they_are_and_nothing_crosses_them() -> None:
    usage = b'data: {"id":"1","choices":[],"usage":{"total_tokens":3}}\n\n'
    tool = b'data: {"id":"1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c"}]}}]}\n\n'
    second = b'data: {"id":"1","choices":[{"index":1,"delta":{"content":"x"}}]}\n\n'
    fanout = Told()
    _, sink = follow(fanout, mode=Mode.MERGE)
    fanout.feed(ROLE)
    sink.blocks()
    events = [delta("a"), usage, delta("b"), tool, delta("c"), second, delta("d"), b"data: not json\n\n", delta("e")]
    feed_all(fanout, events)
    sink.opens()
    assert sink.pieces[1] == b"".join(numbered(seq, one) for seq, one in enumerate(events, 2))


def test_merged_events_are_16_kib_at_the_most() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.MERGE)
    sink.blocks()
    events = feed_all(fanout, [delta(f"{seq}." + "x" * 3000) for seq in range(200)])
    sink.opens()
    fanout.settle()
    told = heard(sink, events)
    assert told.last == 200
    assert told.merged == reader.merged > 100
    blocks = [number_of(block + b"\n\n")[1] for block in sink.body.split(b"\n\n")[:-1]]
    assert max(map(len, blocks)) <= MERGED_LIMIT
    assert max(map(len, blocks)) > MERGED_LIMIT / 2


def test_who_keeps_up_and_who_replays_gets_events_as_they_came() -> None:
    fanout = fed(500)
    reader, sink = follow(fanout, mode=Mode.MERGE)
    fanout.feed(event(501) + event(502))
    assert sink.body == tagged(1, 502)
    sink.blocks()
    fanout.feed(event(503) + event(504))
    sink.opens()
    assert reader.merged == 1
    fanout.feed(event(505) + event(506))
    assert reader.merged == 1, "it is live again"


def test_of_what_a_late_reader_replays_only_what_came_after_him_is_merged() -> None:
    fanout = fed(1500)
    reader = Follower(fanout, 0, lag(Mode.MERGE), ignore)
    sink = Socket(reader)
    sink.blocked = True
    reader.attach(sink, blocked=True)
    feed_all(fanout, [event(seq) for seq in range(1501, 2501)])
    sink.opens(room=1)
    assert sink.blocked
    sink.opens()
    fanout.settle()
    told = heard(sink, [event(seq) for seq in range(1, 2501)])
    assert told.last == 2500
    assert told.merged > 500
    assert sink.body.startswith(tagged(1, 1500))


def test_a_stream_without_ids_is_merged_too() -> None:
    fanout = Told(keeps=False)
    reader, sink = follow(fanout, mode=Mode.MERGE)
    events = [delta("a"), delta("b"), b": ping\n\n", delta("c"), delta("d"), DONE]
    sink.blocks()
    feed_all(fanout, events)
    sink.opens()
    assert sink.body == delta("ab") + b": ping\n\n" + delta("cd") + DONE
    assert reader.merged == 2


# Bounds


@pytest.mark.parametrize("mode", [Mode.MERGE, Mode.DISCONNECT])
@pytest.mark.parametrize(("size", "most"), [(10_000, 104), (10, 10_000)])
def test_past_a_mebibyte_or_ten_thousand_events_it_is_cut_off_once(mode: Mode, size: int, most: int) -> None:
    failures: list[RelayError] = []
    fanout = Told()
    reader, sink = follow(fanout, mode=mode, failures=failures)
    sink.blocks()
    for seq in range(1, most + 1):
        fanout.feed(event(seq, size))
        assert not failures, seq
    assert reader.waiting <= MIB
    fanout.feed(event(most + 1, size))
    fanout.feed(event(most + 2, size))
    assert len(failures) == 1
    assert isinstance(failures[0], ClientBehind)
    assert reader.place == 0
    reader.detach()
    _, again = follow(fanout, reader.place)
    fanout.settle()
    assert again.body == tagged(1, most + 2, size), "who comes back has missed nothing"


@pytest.mark.parametrize("mode", [Mode.MERGE, Mode.DISCONNECT])
def test_a_replay_is_not_behind_while_it_gains(mode: Mode) -> None:
    failures: list[RelayError] = []
    fanout = fed(20_000, 100)
    reader = Follower(fanout, 0, lag(mode), failures.append)
    sink = Socket(reader, room=1)
    reader.attach(sink, blocked=False)
    seq = 20_000
    while reader.lags:
        for _ in range(20):
            seq += 1
            fanout.feed(event(seq, 100))
        sink.opens(room=1)
        assert not failures
    assert heard(sink, [event(number, 100) for number in range(1, seq + 1)]).last == seq


def test_a_replay_that_loses_ground_is_behind_in_the_end() -> None:
    failures: list[RelayError] = []
    fanout = fed(12_000, 100)
    reader = Follower(fanout, 0, lag(Mode.DISCONNECT), failures.append)
    sink = Socket(reader, room=1)
    reader.attach(sink, blocked=False)
    for seq in range(12_001, 60_000):
        fanout.feed(event(seq, 100))
        if not seq % 400 and not failures:
            sink.opens(room=1)
    assert len(failures) == 1


# Age


def aged(mode: Mode, *, fanout: Told | None = None) -> tuple[Told, Follower, Socket]:
    fanout = fanout or Told()
    reader = Follower(fanout, 0, Lag(mode, age=60.0), ignore)
    sink = Socket(reader)
    reader.attach(sink, blocked=False)
    return fanout, reader, sink


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.PAUSE])
def test_where_age_does_not_matter_nothing_is_kept_of_it(mode: Mode) -> None:
    fanout, reader, sink = aged(mode)
    sink.blocks()
    for seq in range(1, 1001):
        fanout.time.now += 1.0
        fanout.feed(event(seq, 10))
    assert reader.late_at(fanout.time.now) == 0.0
    assert reader._marks == ()
    sink.opens()
    assert reader.place == 1000


def test_age_is_that_of_the_oldest_event_that_is_missing() -> None:
    fanout, reader, sink = aged(Mode.DISCONNECT)
    fanout.feed(event(1))
    assert reader.late_at(fanout.time.now) == fanout.time.now + 60
    sink.blocks()
    fanout.move(10)
    assert reader.late_at(fanout.time.now) == fanout.time.now + 60, "it lacks nothing"
    fanout.feed(event(2))
    missing = fanout.time.now
    for seq in range(3, 100):
        fanout.move(0.5)
        fanout.feed(event(seq))
        assert missing + 60 <= reader.late_at(fanout.time.now) <= missing + 61
    sink.opens()
    assert reader.late_at(fanout.time.now) == fanout.time.now + 60


def test_age_moves_on_with_what_was_taken() -> None:
    fanout, reader, sink = aged(Mode.DISCONNECT)
    sink.blocks()
    came = {}
    for seq in range(1, 41):
        fanout.feed(event(seq, 10_000))
        came[seq] = fanout.time.now
        fanout.move(0.3)
    while reader.place < 39:
        sink.opens(room=1)
        oldest = came[reader.place + 1]
        assert oldest + 59 <= reader.late_at(fanout.time.now) <= oldest + 61


def test_age_is_known_to_a_second_when_nothing_more_comes() -> None:
    fanout, reader, sink = aged(Mode.DISCONNECT)
    sink.blocks()
    fanout.feed(event(1, 40_000))
    fanout.move(0.5)
    fanout.feed(event(2, 40_000))
    second = fanout.time.now
    sink.opens(room=1)
    assert reader.place == 1
    fanout.move(30)
    assert reader.late_at(fanout.time.now) <= second + 61


def test_who_replays_and_gains_is_not_late() -> None:
    fanout, reader, sink = aged(Mode.MERGE, fanout=fed(4000, 1000))
    sink.blocks()
    for seq in range(4001, 4101):
        fanout.move(1)
        fanout.feed(event(seq, 1000))
        sink.opens(room=1)
        assert reader.place < 4000
        assert reader.late_at(fanout.time.now) > fanout.time.now, f"cut off after {seq - 4000} s of its replay"


@pytest.mark.parametrize("mode", [Mode.PAUSE, Mode.DROP])
def test_who_pauses_or_drops_is_never_late(mode: Mode) -> None:
    fanout, reader, sink = aged(mode)
    sink.blocks()
    fanout.feed(event(1))
    fanout.move(1000)
    assert reader.late_at(fanout.time.now) == 0


# pause


def test_the_producer_waits_above_the_high_mark_until_the_low_one() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.PAUSE)
    sink.blocks()
    seq = 0
    while not fanout.producer.paused:
        assert reader.waiting <= ANSWER.high
        seq += 1
        fanout.feed(event(seq, 10_000))
    assert ANSWER.high < reader.waiting <= ANSWER.high + 10_100
    while fanout.producer.paused:
        assert reader.waiting > ANSWER.low
        sink.opens(room=1)
        # Its last events may still be on their way to other readers: it is let go in a turn of its own.
        fanout.beat.turn()
    assert reader.waiting <= ANSWER.low
    sink.opens()
    assert sink.body == tagged(1, seq, 10_000)
    assert fanout.producer.switches == 1


def test_a_producer_is_let_go_with_the_reader_that_held_it() -> None:
    fanout = Told(keeps=False)
    reader, sink = follow(fanout, mode=Mode.PAUSE)
    sink.blocks()
    for seq in range(40):
        fanout.feed(event(seq, 10_000))
    assert fanout.producer.paused
    reader.detach()
    fanout.settle()
    assert not fanout.producer.paused
    assert fanout.log.kept == 0


def test_what_a_paused_reader_lacks_is_kept_whatever_still_comes() -> None:
    """One event of a mebibyte may be under way when the producer is held."""
    failures: list[RelayError] = []
    fanout = Told(keeps=False)
    _, sink = follow(fanout, mode=Mode.PAUSE, failures=failures)
    sink.blocks()
    events = feed_all(fanout, [event(seq, 25_000) for seq in range(1, 11)] + [event(11, MIB - 1000)] * 2)
    assert fanout.producer.paused
    sink.opens()
    fanout.settle()
    assert not failures
    assert sink.body == b"".join(events)


def test_ten_thousand_crumbs_hold_the_producer() -> None:
    fanout = Told()
    _, sink = follow(fanout, mode=Mode.PAUSE)
    sink.blocks()
    for _ in range(10_000):
        fanout.feed(b"data: x\n\n")
    assert not fanout.producer.paused
    fanout.feed(b"data: x\n\n")
    assert fanout.producer.paused
    sink.opens()
    fanout.settle()
    assert not fanout.producer.paused


# drop


def test_the_oldest_go_and_one_event_says_which() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.DROP)
    fanout.feed(event(1))
    sink.blocks()
    events = [event(1), *feed_all(fanout, [event(seq, 10_000) for seq in range(2, 202)])]
    assert reader.waiting <= ANSWER.high
    sink.opens()
    told = heard(sink, events)
    assert told.last == 201, "the newest arrive"
    assert len(told.gaps) == 1
    assert told.gaps[0][0] == 2
    assert reader.dropped == told.dropped == told.gaps[0][1] - 1
    assert reader.delivered + reader.dropped == 201
    assert not reader.merged


def test_each_time_that_events_are_dropped_is_told() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.DROP)
    events: list[bytes] = []
    for _ in range(3):
        sink.blocks()
        events += feed_all(fanout, [event(len(events) + number, 10_000) for number in range(50)])
        sink.opens(room=2)
        sink.opens()
    told = heard(sink, events)
    assert told.last == 150
    assert len(told.gaps) == 3
    assert reader.dropped == told.dropped


def test_crumbs_are_dropped_past_ten_thousand() -> None:
    fanout = Told()
    reader, sink = follow(fanout, mode=Mode.DROP)
    sink.blocks()
    events = feed_all(fanout, [b"data: x\n\n"] * 10_050)
    assert fanout.log.tail - reader.place <= 10_000
    sink.opens()
    fanout.settle()
    assert heard(sink, events).last == 10_050


@pytest.mark.parametrize("until", [5, 9, 10])
def test_what_the_log_has_forgotten_is_dropped_visibly(until: int) -> None:
    fanout = Told(log=Log(8 << 20))
    reader, sink = follow(fanout, mode=Mode.DROP)
    sink.blocks()
    events = feed_all(fanout, [event(seq, 1000) for seq in range(1, 11)])
    fanout.log.forget(until)
    events += feed_all(fanout, [event(seq, 1000) for seq in range(11, 500)])
    fanout.log.forget(490)
    sink.opens()
    told = heard(sink, events)
    assert told.last == 499
    assert reader.dropped == told.dropped
