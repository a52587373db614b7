"""One generation to all its readers: numbered without holes, cleaned of what speaks against a number, kept once."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.fanout import WRITE_BYTES
from relay.wire import dialect
from tests.core.fakes import DONE, FINISH, ROLE, STREAM_ID, Told, delta, numbered
from tests.wire.splits import PLACES, cut
from tests.wire.test_sse import ANY, BOM, ONE_KIND, reference


class Member:
    """A reader that has everything; `lacks` says how many of the last events it still needs."""

    def __init__(self, fanout: Told) -> None:
        self.fanout = fanout
        self.lacks = 0
        self.pieces: list[bytes] = []
        self.send: Callable[[bytes], None] = self.pieces.append
        fanout.join(self)

    @property
    def out(self) -> Member:
        return self

    @property
    def place(self) -> int:
        return self.fanout.log.tail - self.lacks

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def told(payload: bytes, *, keeps: bool = True) -> bytes:
    """What a reader gets of one payload."""
    fanout = Told(keeps=keeps)
    member = Member(fanout)
    fanout.feed(payload)
    fanout.source.end()
    return member.body


def events_of(fanout: Told) -> list[bytes]:
    return fanout.log.read(0, 1 << 30)


def _lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


# Numbers


def test_events_are_numbered_from_one_without_holes() -> None:
    fanout = Told()
    member = Member(fanout)
    for seq in range(1, 200):
        fanout.feed(delta(f"{seq}"))
        assert member.pieces[-1] == numbered(seq, delta(f"{seq}"))
    assert fanout.log.tail == 199
    assert events_of(fanout) == [delta(f"{seq}") for seq in range(1, 200)]


def test_several_events_of_one_read_are_one_write_with_a_number_each() -> None:
    fanout = Told()
    member = Member(fanout)
    fanout.feed(ROLE)
    fanout.feed(delta("a") + delta("b") + FINISH)
    fanout.feed(DONE)
    assert len(member.pieces) == 3
    assert member.pieces[1] == numbered(2, delta("a")) + numbered(3, delta("b")) + numbered(4, FINISH)
    assert fanout.log.tail == 5
    assert (fanout.before, list(fanout.latest)) == (4, [DONE])


def test_a_read_of_much_leaves_in_several_writes() -> None:
    """What a socket takes none of is what its reader costs."""
    fanout = Told()
    member = Member(fanout)
    fanout.feed(ROLE)
    events = [delta("x" * 1000) for _ in range(300)]
    fanout.feed(b"".join(events))
    assert member.body == b"".join(numbered(seq, event) for seq, event in enumerate([ROLE, *events], 1))
    framed = len(numbered(100, events[0])) - len(events[0])
    assert max(map(len, member.pieces)) <= WRITE_BYTES * (1 + framed / len(events[0]))
    assert len(member.pieces) - 1 == -(-300 // (WRITE_BYTES // len(events[0])))
    assert (fanout.log.tail, fanout.before) == (301, 301 - len(fanout.latest))


def test_all_readers_get_the_same_object() -> None:
    fanout = Told()
    members = [Member(fanout) for _ in range(10)]
    for payload in (delta("a"), delta("b") + delta("c")):
        fanout.feed(payload)
        assert all(member.pieces[-1] is members[0].pieces[-1] for member in members)
    assert [len(member.pieces) for member in members] == [2] * 10


def test_unnumbered_events_are_the_objects_that_came() -> None:
    fanout = Told(keeps=False)
    member = Member(fanout)
    fanout.feed(delta("a"))
    event = delta("b")
    fanout.feed(event)
    assert member.pieces[-1] is event


# Blocks


@pytest.mark.parametrize(
    ("block", "clean"),
    [
        (b"id: 7\ndata: x\n\n", b"data: x\n\n"),
        (b"data: x\nid: 7\n\n", b"data: x\n\n"),
        (b"data: x\nid\n\n", b"data: x\n\n"),
        (b"id:\nevent: e\nid: 8\ndata: x\n\n", b"event: e\ndata: x\n\n"),
        (b"id: 7\nretry: 10\ndata: x\n\n", b"data: x\n\n"),
        (b"data: id: 7\n\n", b"data: id: 7\n\n"),
        (b"data: x\nidentity: 7\n\n", b"data: x\nidentity: 7\n\n"),
        (b"event: e\r\nid: 7\r\ndata: x\r\n\r\n", b"event: e\r\ndata: x\r\n\r\n"),
        (b"id: 7\rdata: x\r\r", b"data: x\r\r"),
        (b"\r\n\ndata: x\n\n", b"data: x\n\n"),
        (BOM + b"id: 7\ndata: x\n\n", b"data: x\n\n"),
        (BOM + b"data: x\n\n", b"data: x\n\n"),
        (b": comment\ndata: x\n\n", b": comment\ndata: x\n\n"),
        (b"event: e\ndata: x\n\n", b"event: e\ndata: x\n\n"),
        (b"data: x\rid: 7\r\n\r\n", b"data: x\r\r"),
        (b"data: x\rid: 7\n\n", b"data: x\n\n"),
        (b"data: x\rretry: 7\nid: 7\n\n", b"data: x\n\n"),
    ],
)
def test_a_providers_own_ids_are_taken_out(block: bytes, clean: bytes) -> None:
    assert _lf(told(block)) == numbered(1, _lf(clean))


@pytest.mark.parametrize(
    "block", [b": ping\n\n", b":\n\n", b"id: 7\n\n", b"retry: 10\n\n", b"event: ping\n\n", b"\n\n", b"\r\n", b": a\r\r"]
)
def test_a_block_without_data_is_not_passed_on_and_has_no_number(block: bytes) -> None:
    assert told(block) == b""
    assert told(delta("a") + block + delta("b")) == numbered(1, delta("a")) + numbered(2, delta("b"))


def test_what_is_no_event_changes_nothing() -> None:
    fanout = Told()
    member = Member(fanout)
    fanout.feed(delta("a"))
    fanout.time.now += 9
    fanout.feed(b": ping\n\n")
    assert fanout.log.tail == 1
    assert len(member.pieces) == 1
    assert fanout.source.spoke == 1.0, "nobody heard it"
    fanout.feed(delta("b"))
    assert fanout.source.spoke == 10.0


@given(st.one_of(ANY, ONE_KIND), PLACES)
def test_readers_are_given_the_events_of_a_stream_wherever_it_is_cut(stream: bytes, places: list[int]) -> None:
    """By what a reader that knows nothing but the standard makes of them: its events, each under its number."""
    wanted = [(block.event, block.data) for block in reference(stream) if block.dispatched]
    fanout = Told()
    member = Member(fanout)
    for piece in cut(stream, places):
        fanout.feed(piece)
    found = [(block.event, block.data) for block in reference(member.body) if block.dispatched]
    blocks = [block for block in reference(member.body) if block.filled]
    assert len(found) == len(blocks) == fanout.log.tail, "an id without data"
    # What a CR at the end has ended may still wait for its LF.
    assert found in (wanted, wanted[:-1])
    starts = [0, *(block.end for block in blocks[:-1])]
    for seq, start in enumerate(starts[: len(blocks)], 1):
        body = member.body[start : blocks[seq - 1].end]
        lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        ids = [line for line in lines if line == b"id" or line.startswith(b"id:")]
        assert ids == [b"id: %b-%d" % (STREAM_ID.encode(), seq)]


@given(st.one_of(ANY, ONE_KIND), PLACES)
def test_a_stream_without_numbers_passes_byte_by_byte(stream: bytes, places: list[int]) -> None:
    fanout = Told(keeps=False)
    member = Member(fanout)
    rest = stream + b"\n\ndata: [DONE]\n\n"
    for piece in cut(rest, places):
        fanout.feed(piece)
    fanout.source.end()
    assert member.body == rest


# Ends, and what is too long


@pytest.mark.parametrize("rest", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n", b"id: 5\ndata: [DONE]"])
def test_the_last_event_may_lack_its_empty_line(rest: bytes) -> None:
    fanout = Told()
    member = Member(fanout)
    fanout.feed(delta("a") + rest)
    fanout.source.end()
    assert fanout.owner.ends == [None]
    assert member.body == numbered(1, delta("a")) + numbered(2, DONE)


@pytest.mark.parametrize("field", [b"id: 5", b"id", b"id:", b"retry: 5\nid: 5"])
def test_an_id_in_the_very_last_line_does_not_win(field: bytes) -> None:
    """WHATWG HTML, 9.2.6: of two ids in an event the last counts."""
    assert told(delta("a") + b"data: [DONE]\n" + field) == numbered(1, delta("a")) + numbered(2, DONE)


@pytest.mark.parametrize("before", [b"", b"id: 12345\n", b"retry: 3\nid: 1\n", b"\r\n", b"event: e\n", b": c\n"])
@pytest.mark.parametrize("reads", [1, 7, 500, 1001, 1002, 1003, 1004, 1010])
def test_an_event_that_is_too_long_is_never_passed_as_a_whole_one(before: bytes, reads: int) -> None:
    """It cannot be kept, and half of it must not look like an event."""
    fanout = Told(event_limit=1000)
    member = Member(fanout)
    limits: list[str] = []
    source = fanout.source
    source.overlong = lambda: limits.append("overlong")
    stream = delta("a") + before + b"data: " + b"x" * 3000 + b"\n\n"
    at = len(delta("a"))
    source.feed(stream[:at])
    while at < len(stream) and not limits:
        source.feed(stream[at : at + reads])
        at += reads
    if reads < 3000:
        assert limits == ["overlong"]
    assert member.body == numbered(1, delta("a"))
    assert fanout.log.tail == 1


def test_data_that_begins_behind_the_limit_is_too_long_as_well() -> None:
    fanout = Told(event_limit=1000)
    member = Member(fanout)
    limits: list[str] = []
    source = fanout.source
    source.overlong = lambda: limits.append("overlong")
    stream = b"event: x\n: " + b"c" * 1500 + b"\ndata: y\n\n"
    source.feed(stream[:1200])
    assert limits == ["overlong"]
    assert member.body == b""


# Readers


def test_a_reader_that_leaves_gets_nothing_more_and_the_others_do() -> None:
    fanout = Told()
    first, leaving, last = (Member(fanout) for _ in range(3))

    def leave(piece: bytes) -> None:
        leaving.pieces.append(piece)
        fanout.leave(leaving)

    leaving.send = leave
    for text in "abc":
        fanout.feed(delta(text))
    assert [len(member.pieces) for member in (first, leaving, last)] == [3, 1, 3]


def test_a_reader_that_joins_while_another_is_told_waits_for_the_next() -> None:
    fanout = Told()
    late: list[Member] = []
    first = Member(fanout)

    def bring(piece: bytes) -> None:
        first.pieces.append(piece)
        if not late:
            late.append(Member(fanout))

    first.send = bring
    fanout.feed(delta("a"))
    fanout.feed(delta("b"))
    assert late[0].body == numbered(2, delta("b"))


@pytest.mark.parametrize("payload", [delta("a"), delta("a") + delta("b"), b": ping\n\n", b"data: a\r\n\r\n"])
def test_nothing_is_kept_that_every_reader_has_had(payload: bytes) -> None:
    fanout = Told(keeps=False)
    fanout.feed(payload)
    assert fanout.log.kept == 0
    member = Member(fanout)
    for _ in range(200):
        fanout.feed(payload)
        assert fanout.log.kept == 0
        assert fanout.log.oldest == fanout.log.tail + 1
    del member


def test_what_one_reader_lacks_is_kept_until_it_has_it_or_leaves() -> None:
    fanout = Told(keeps=False)
    slow, _ = Member(fanout), Member(fanout)
    for seq in range(1, 101):
        slow.lacks = seq
        fanout.feed(delta("x" * 10))
        assert fanout.log.read(0, 1 << 30) == [delta("x" * 10)] * seq
    slow.lacks = 40
    fanout.tidy()
    assert fanout.log.tail - 40 - 64 < fanout.log.oldest - 1 <= fanout.log.tail - 40
    fanout.leave(slow)
    assert fanout.log.kept == 0


def test_an_event_that_nobody_lacks_leaves_no_memory() -> None:
    fanout = Told(keeps=False)
    member = Member(fanout)
    member.send = lambda piece: None
    payloads = [delta(f"{number}") for number in range(500)]

    def pass_all() -> None:
        for payload in payloads:
            fanout.feed(payload)

    pass_all()
    tracemalloc.start()
    try:
        pass_all()
        before, _ = tracemalloc.get_traced_memory()
        pass_all()
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()


def test_a_kept_event_is_the_object_that_came() -> None:
    fanout = Told()
    Member(fanout)
    fanout.feed(ROLE)
    event = delta("x" * 100)
    references = sys.getrefcount(event)
    fanout.feed(event)
    assert fanout.log.read(1, 1)[0] is event
    # The log's, and the stream's last.
    assert sys.getrefcount(event) - references == 2


# Those who wait


def test_those_who_wait_are_woken_whatever_stands_behind_a_large_event() -> None:
    fanout = Told()
    woken: list[int] = []
    fanout.wait(lambda: woken.append(1))
    fanout.feed(delta("x" * 40_000) + b": comment\n\n")
    fanout.settle()
    assert woken == [1]


def test_who_waits_is_told_once_and_in_another_turn() -> None:
    fanout = Told()
    told_: list[str] = []
    fanout.wait(lambda: told_.append("a"))
    fanout.wait(lambda: told_.append("b"))
    fanout.feed(b": ping\n\n")
    fanout.beat.turn()
    assert told_ == [], "no event has come"
    fanout.feed(delta("a"))
    assert told_ == []
    fanout.beat.turn()
    assert told_ == ["a", "b"]
    fanout.feed(delta("b"))
    fanout.beat.turn()
    assert told_ == ["a", "b"]


def test_who_waits_is_told_of_the_end_and_may_stop_waiting() -> None:
    fanout = Told()
    told_: list[str] = []

    def one() -> None:
        told_.append("one")

    def other() -> None:
        told_.append("other")

    fanout.wait(one)
    fanout.wait(other)
    fanout.stop_waiting(one)
    fanout.stop_waiting(one)
    fanout.wake()
    fanout.beat.turn()
    assert told_ == ["other"]


# What events are


@pytest.mark.parametrize(
    ("spoken", "event", "content"),
    [
        (dialect.CHAT, ROLE, False),
        (dialect.CHAT, delta(""), False),
        (dialect.CHAT, delta("a"), True),
        (dialect.CHAT, FINISH, False),
        (dialect.CHAT, DONE, False),
        (dialect.CHAT, b": ping\n\n", False),
        (dialect.MESSAGES, b'event: message_start\ndata: {"type":"message_start"}\n\n', False),
        (dialect.OPAQUE, b"data: anything\n\n", True),
    ],
)
def test_content_is_what_a_person_reads(spoken: dialect.Dialect, event: bytes, content: bool) -> None:
    assert Told(dialect=spoken).has_content([event]) is content


@pytest.mark.parametrize(("last", "terminal"), [(DONE, True), (delta("a"), False), (b'data: {"error":{}}\n\n', True)])
def test_the_terminal_event_is_known(last: bytes, terminal: bool) -> None:
    fanout = Told()
    fanout.feed(delta("a") + last)
    assert fanout.is_terminal is terminal
