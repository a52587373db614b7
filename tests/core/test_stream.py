"""A generation's events: the same bytes out, counted exactly, and a clean end only behind a terminal event."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.reader import Reader
from relay.core.stream import Stream
from relay.errors import RelayError, UpstreamCut, UpstreamReported
from relay.flow.overflow import ANSWER
from relay.wire import dialect
from relay.wire.dialect import CHAT, MESSAGES, OPAQUE, RESPONSES, Dialect, Ending
from tests.core.fakes import Clock, Owner, Producer, Sink
from tests.wire.splits import PLACES, cut, splits

DONE = b"data: [DONE]\n\n"


class Run:
    """One stream and those around it."""

    def __init__(self, spoken: Dialect = CHAT, limit: int = 1 << 20) -> None:
        self.owner, self.clock = Owner(), Clock()
        self.producer = Producer()
        self.reader = Reader(ANSWER, self.producer.gate)
        self.sink = Sink(self.reader)
        self.reader.attach(self.sink, blocked=False)
        self.stream = Stream(self.reader, self.owner, self.clock, spoken, limit)

    def feed(self, *pieces: bytes) -> Run:
        for piece in pieces:
            self.stream.feed(piece)
        return self

    def end(self) -> RelayError | None:
        self.stream.end()
        return self.owner.ends[0]

    def fail(self) -> RelayError | None:
        self.stream.fail(UpstreamCut("cut"))
        return self.owner.ends[0]


def chat(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


CHATS = b"".join(map(chat, ["", "Hello", " żółw", " 🐢"])) + b": keep-alive\n\n" + DONE
ANSWER_EVENTS = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":1}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","sequence_number":2}\n\n'
)
MESSAGE_EVENTS = (
    b'event: message_start\ndata: {"type":"message_start"}\n\nevent: ping\ndata: {"type":"ping"}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
STREAMS = [(CHAT, CHATS, 5), (RESPONSES, ANSWER_EVENTS, 3), (MESSAGES, MESSAGE_EVENTS, 3)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize(("spoken", "events", "count"), STREAMS, ids=["chat", "responses", "messages"])
def test_a_finished_stream_is_the_same_at_every_split(spoken: Dialect, events: bytes, count: int, end: bytes) -> None:
    events = events.replace(b"\n", end)
    for pieces in splits(events):
        run = Run(spoken).feed(*pieces)
        assert run.stream.ending() is Ending.DONE
        assert run.end() is None
        assert run.sink.body == events
        assert (run.stream.events, run.stream.bytes, run.owner.began) == (count, len(events), 1)
        assert run.stream.at_border
        assert run.sink.ends == [], "how the answer ends is its owner's business"


EVENT = st.sampled_from(
    [b"data: x", b"event: e\ndata: y\ndata: z", b": c", b"data", b"id: 1", b"retry: 5", b"\xc3\xa9"]
)
END = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\n\n\n"])
EVENTS = st.lists(st.tuples(EVENT, END).map(b"".join), max_size=8)


@given(EVENTS, PLACES, st.integers(8, 64))
@example([b"data: x\r\r", b"\n\n"], [], 64)
def test_any_events_in_any_pieces_within_any_limit(events: list[bytes], places: list[int], limit: int) -> None:
    everything = b"".join(events)
    run = Run(OPAQUE, limit).feed(*cut(everything, places))
    assert run.end() is None
    assert run.sink.body == everything
    assert run.stream.bytes == len(everything)
    count = sum(b"data" in event for event in events)
    # Of an event past the limit it must show in time that it has data.
    assert run.stream.events == count if limit >= 32 else run.stream.events <= count


@given(EVENTS.filter(bool), PLACES)
def test_every_piece_that_is_sent_ends_at_an_events_end(events: list[bytes], places: list[int]) -> None:
    everything = b"".join(events)
    borders = {0}
    for event in events:
        borders.add(max(borders) + len(event))
    # A line end that nothing follows may stay behind: "\n\n\n" is an event and an empty line.
    borders |= {border - 1 for border in borders}
    run, sent = Run(), 0
    for piece in cut(everything, places):
        before = len(run.sink.pieces)
        run.feed(piece)
        assert len(run.sink.pieces) - before <= 1, "one read is at most one write"
        for whole in run.sink.pieces[before:]:
            sent += len(whole)
            assert sent in borders or everything[:sent].endswith((b"\r\r", b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"))


@pytest.mark.parametrize(
    "payload", [chat("x"), chat("x") + chat("y"), b": c\n\n", b"data: a\r\n\r\n", chat("x" * 5000), DONE], ids=range(6)
)
def test_whole_events_go_on_as_the_object_they_came_in(payload: bytes) -> None:
    run = Run().feed(chat("first"), payload, payload)
    assert run.sink.pieces[1] is payload
    assert run.sink.pieces[2] is payload


def test_an_unfinished_event_waits_and_the_next_one_is_free_of_it() -> None:
    run = Run().feed(chat("a"), b"data: b", b"c\n")
    assert run.sink.pieces == [chat("a")]
    run.feed(b"\n")
    assert run.sink.pieces == [chat("a"), b"data: bc\n\n"]
    payload = chat("d")
    assert run.feed(payload).sink.pieces[2] is payload


def test_a_read_without_a_border_counts_as_activity_all_the_same() -> None:
    run = Run()
    run.clock.now = 7.0
    run.feed(b"data: b")
    assert run.stream.active == 7.0
    assert not run.stream.began


CUT: list[tuple[Dialect, bytes]] = [
    (CHAT, chat("x")),
    (CHAT, b""),
    (CHAT, b": only a comment\n\n"),
    (CHAT, chat("x") + b"data: [DON"),
    (RESPONSES, ANSWER_EVENTS[:90]),
    (MESSAGES, b'event: content_block_stop\ndata: {"type":"content_block_stop"}\n\n'),
]


@pytest.mark.parametrize(("spoken", "events"), CUT)
def test_a_clean_end_before_the_terminal_event_is_a_cut(spoken: Dialect, events: bytes) -> None:
    run = Run(spoken).feed(*([events] if events else []))
    assert isinstance(run.end(), UpstreamCut)
    assert run.sink.body == events[: events.rfind(b"\n\n") + 2 if b"\n\n" in events else 0], "and no half event"
    assert run.stream.at_border, "an error event may follow"


def test_what_stands_behind_the_terminal_event_goes_on() -> None:
    for rest in (b"\n", b"\r\n", b": bye", b"data: half"):
        run = Run().feed(chat("x") + DONE + rest)
        assert run.end() is None
        assert run.sink.body == chat("x") + DONE + rest


def test_of_an_unknown_dialect_a_clean_end_is_an_end() -> None:
    assert Run(OPAQUE).feed(b"data: x\n\n").end() is None
    assert Run(OPAQUE).end() is None
    assert isinstance(Run(OPAQUE).feed(b"data: x\n\n").fail(), UpstreamCut)


@pytest.mark.parametrize(("spoken", "events", "_count"), STREAMS)
def test_behind_its_terminal_event_a_stream_may_break_off(spoken: Dialect, events: bytes, _count: int) -> None:
    assert Run(spoken).feed(events).fail() is None
    assert Run(spoken).feed(events, b": bye\n\n").fail() is None
    assert Run(spoken).feed(events, b"half").fail() is None
    # Without it, it may not.
    last = events.rstrip().rfind(b"\n\n") + 2
    assert isinstance(Run(spoken).feed(events[:last]).fail(), UpstreamCut)
    assert isinstance(Run(spoken).feed(events[:-1]).fail(), UpstreamCut), "its empty line never came"


def test_a_terminal_event_without_its_empty_line_is_one_where_the_body_ended_cleanly() -> None:
    for missing in (1, 2):
        run = Run().feed(chat("x") + DONE[:-missing])
        assert run.end() is None
        assert run.sink.body == chat("x") + DONE[:-missing]


@pytest.mark.parametrize(
    ("spoken", "event"),
    [
        (CHAT, b'data: {"error":{"message":"overloaded"}}\n\n'),
        (RESPONSES, b'event: error\ndata: {"type":"error"}\n\n'),
        (MESSAGES, b'event: error\ndata: {"type":"error"}\n\n'),
    ],
)
def test_a_providers_own_error_is_told_from_a_cut(spoken: Dialect, event: bytes) -> None:
    assert isinstance(Run(spoken).feed(event).end(), UpstreamReported)
    assert isinstance(Run(spoken).feed(event).fail(), UpstreamReported)
    assert Run(spoken).feed(event).sink.body == event


def test_the_first_event_is_kept_where_an_error_has_to_repeat_its_id() -> None:
    first = ANSWER_EVENTS[: ANSWER_EVENTS.index(b"\n\n") + 2]
    assert Run(RESPONSES).feed(ANSWER_EVENTS).stream.first == first
    assert Run(RESPONSES).feed(b": hello\n\n", first, b"data: x\n\n").stream.first == first
    assert Run(RESPONSES).feed(b": hello\n\n" + first).stream.first == first
    long = Run(RESPONSES, 100).feed(first[:-2] + b" " * 5000, b"\n\n", b"data: x\n\n")
    assert long.stream.first == first[:-2] + b" " * (dialect.HEAD - len(first) + 2)
    assert Run(CHAT).feed(chat("x")).stream.first == b""


def test_what_is_kept_of_a_stream_is_bounded() -> None:
    run = Run(RESPONSES)
    for size in (10, 5000, 50_000):
        run.feed(b"event: e\ndata: " + b"x" * size + b"\n\n")
        assert len(run.stream.first) <= dialect.HEAD
        assert len(run.stream.last) <= dialect.HEAD
    run.feed(b"data: y\n\n" * 1000)
    assert len(run.stream.last) <= dialect.HEAD


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_oversized_event_goes_in_pieces_and_counts_once(size: int, end: bytes) -> None:
    event = b"data: " + b"x" * 3000 + end
    everything = b"data: a" + end + event + b"data: b" + end + DONE
    run = Run(limit=100)
    counts = []
    for at in range(0, len(everything), size):
        run.feed(everything[at : at + size])
        counts.append(run.stream.events)
    assert counts == sorted(counts)
    assert run.stream.events == 4
    assert run.sink.body == everything
    assert run.end() is None


def test_nothing_may_be_inserted_into_an_oversized_event() -> None:
    run = Run(limit=100).feed(chat("a"))
    assert run.stream.at_border
    run.feed(b"data: " + b"x" * 200)
    assert not run.stream.at_border
    run.feed(b"y\n\n")
    assert run.stream.at_border


def test_an_oversized_comment_is_no_event() -> None:
    run = Run(limit=100).feed(b":" + b"x" * 200, b"x\n\n")
    assert run.stream.events == 0


def test_half_an_oversized_terminal_event_is_no_end() -> None:
    half = b'event: response.completed\ndata: {"type":"response.completed","response":{"output":"' + b"x" * 500
    run = Run(RESPONSES, limit=100).feed(half)
    assert run.sink.body == half[: len(run.sink.body)] != b""
    assert run.stream.ending() is Ending.OPEN
    assert isinstance(run.fail(), UpstreamCut)
    assert isinstance(Run(RESPONSES, limit=100).feed(half).end(), UpstreamCut)
    assert Run(RESPONSES, limit=100).feed(half, b'"}}\n\n').end() is None


def test_a_reader_that_has_left_costs_the_stream_nothing() -> None:
    run = Run().feed(chat("a"))
    run.reader.detach()
    run.feed(chat("b"), DONE)
    assert run.sink.pieces == [chat("a")]
    assert run.stream.events == 3
    assert run.end() is None
