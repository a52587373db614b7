"""Where events begin and end, held against a reader that knows nothing but WHATWG HTML, 9.2.6, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.wire import sse
from tests.wire.splits import PLACES, cut, splits

BOM = b"\xef\xbb\xbf"
LIMIT = 1 << 20


@dataclass
class Block:
    """What stands between two empty lines: where it ends, its fields, and whether it holds anything at all."""

    end: int = 0
    filled: bool = False
    data: list[bytes] = field(default_factory=list)
    event: bytes | None = None

    @property
    def dispatched(self) -> bool:
        return bool(self.data)


def reference(stream: bytes) -> list[Block]:
    """All blocks that an empty line has ended. A CR at the very end ends its line."""
    blocks: list[Block] = []
    block, line, at = Block(), bytearray(), 0
    while at < len(stream):
        if stream[at] not in b"\r\n":
            line.append(stream[at])
            at += 1
            continue
        at += 2 if stream[at : at + 2] == b"\r\n" else 1
        if line:
            block.filled = True
            _field(block, bytes(line), first=at - len(line) <= 2)
            line.clear()
        else:
            block.end = at
            blocks.append(block)
            block = Block()
    return blocks


def _field(block: Block, line: bytes, *, first: bool) -> None:
    if first:
        line = line.removeprefix(BOM)
    name, colon, value = line.partition(b":")
    value = value[1:] if value[:1] == b" " else value
    if name == b"data" and (colon or line == b"data"):
        block.data.append(value)
    elif name == b"event":
        block.event = value


def last_border(seen: bytes) -> int:
    """Behind the last block that holds anything; but what a CR at the very end says, its successor may tell."""
    ends = [block.end for block in reference(seen) if block.filled]
    if ends and ends[-1] == len(seen) and seen.endswith(b"\r"):
        ends.pop()
    return ends[-1] if ends else 0


def run(framer: sse.Framer, pieces: list[bytes]) -> list[bytes]:
    return [framer.feed(piece) for piece in pieces]


TOKENS = [
    b"data",
    b"data:",
    b"data: x",
    b":",
    b": keep",
    b" ",
    b"event: e",
    b"id:1",
    b"datax:",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
]
ENDS = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"]
ANY = st.tuples(st.sampled_from([b"", BOM]), st.lists(st.sampled_from(TOKENS + ENDS * 2), max_size=24)).map(
    lambda parts: parts[0] + b"".join(parts[1])
)
ONE_KIND = st.sampled_from([b"\n", b"\r\n", b"\r"]).flatmap(
    lambda end: st.lists(st.sampled_from([*TOKENS, end, end + end]), max_size=24).map(b"".join)
)

STREAMS = {
    "lf": b"data: one\n\ndata: two\n\n",
    "crlf": b"data: one\r\n\r\ndata: two\r\n\r\n",
    "cr": b"data: one\r\rdata: two\r\r",
    "mixed": b"data: one\r\n\ndata: two\n\r\n: c\r\r\ndata: three\n\n",
    "bom": BOM + b"data: one\n\ndata: two\n\n",
    "comments": b": hello\n\ndata: one\n\n:\n\n:\ndata: two\n\n",
    "multi-line": b"event: e\ndata: one\ndata: two\nid: 1\n\ndata\ndata:\n\n",
    "empty blocks": b"\n\ndata: one\n\n\n\ndata: two\n\n\r\n",
    "utf-8": "data: żółw 🐢\n\ndata: 漢字\r\n\r\n".encode(),
    "unfinished": b"data: one\n\ndata: tw",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("rest", [b"", b"data: [DONE]", b"\r"])
def test_nothing_is_lost_or_reordered_at_any_split(stream: bytes, rest: bytes) -> None:
    for pieces in splits(stream + rest):
        framer = sse.Framer(LIMIT)
        assert b"".join(run(framer, pieces)) + framer.close() == stream + rest


@pytest.mark.parametrize("name", ["lf", "crlf", "cr", "mixed", "bom", "comments", "multi-line", "utf-8"])
def test_whole_events_leave_at_once(name: str) -> None:
    framer = sse.Framer(LIMIT)
    assert framer.feed(STREAMS[name]) == STREAMS[name]
    assert not framer.pending


@given(ANY | ONE_KIND, PLACES)
@example(b"a\r\r\n\ndata: x\n\n", [3])
@example(b"data: a\n\r", [8])
def test_every_output_ends_at_the_last_border_so_far(stream: bytes, places: list[int]) -> None:
    framer, seen, sent = sse.Framer(LIMIT), b"", b""
    for piece in cut(stream, places):
        seen += piece
        whole = framer.feed(piece)
        sent += whole
        assert seen.startswith(sent)
        if whole:
            assert len(sent) in {block.end for block in reference(seen)}
        # A LF whose CR has gone already waits for the next event: it says nothing.
        assert len(sent) + (seen[max(len(sent) - 1, 0) :][:2] == b"\r\n") >= last_border(seen)
        assert not framer.inside
        assert framer.pending == (len(sent) < len(seen))
    assert sent + framer.close() == stream
    assert not framer.pending


@given(ANY | ONE_KIND)
def test_count_is_what_a_reader_would_be_given(stream: bytes) -> None:
    blocks = reference(stream)
    whole = stream[: blocks[-1].end] if blocks else b""
    assert sse.count(whole) == sum(block.dispatched for block in blocks)


# Events as a fast provider sends them, with what may stand between.
MANY = st.lists(
    st.sampled_from(
        [b"data: a\n\n", b"data: a\ndata: b\n\n", b": c\n\n", b"event: e\ndata: d\n\n", b"event: e\n\n", b"\n"]
    )
).map(b"".join)


@given(MANY | ANY | ONE_KIND)
@example(b"data: a\n\n\ndata: b\n\n")
@example(b"data: a\n\n\n\ndata: b\n\n")
def test_last_is_the_last_that_a_reader_would_be_given(stream: bytes) -> None:
    blocks = reference(stream)
    whole = stream[: blocks[-1].end] if blocks else b""
    given_out = [block for block in blocks if block.dispatched]
    assert sse.count(whole) == len(given_out)
    found = reference(sse.last(whole))
    assert [block.data for block in found if block.dispatched] == [block.data for block in given_out[-1:]]


@given(ANY | ONE_KIND)
def test_split_cuts_at_borders_and_fields_are_those_of_the_reference(stream: bytes) -> None:
    pieces = sse.split(stream)
    assert b"".join(pieces) == stream
    assert all(pieces)
    borders = {block.end for block in reference(stream)}
    at = 0
    for piece in pieces[:-1]:
        at += len(piece)
        assert at in borders
    events = [block for block in reference(stream) if block.dispatched]
    found = [sse.fields(piece) for piece in pieces if sse.has_data(piece)]
    for event, fields in zip(events, found, strict=False):
        assert fields[b"data"] == b"\n".join(event.data)
        assert fields.get(b"event") == event.event
    # What no empty line has ended may hold data too, but only as the last.
    assert len(found) - len(events) in (0, 1)


@given(ANY | ONE_KIND, PLACES, st.integers(4, 40))
def test_a_limit_loses_nothing_and_memory_stays_under_it(stream: bytes, places: list[int], limit: int) -> None:
    framer, seen, sent = sse.Framer(limit), b"", b""
    for piece in cut(stream, places):
        inside = framer.inside
        seen += piece
        whole = framer.feed(piece)
        sent += whole
        assert len(seen) - len(sent) <= limit + len(piece)
        if whole and not inside and not framer.inside:
            assert len(sent) in {block.end for block in reference(seen)}
    assert sent + framer.close() == stream


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_past_the_limit_goes_in_pieces_until_its_end(end: bytes) -> None:
    event = b"data: " + b"x" * 100 + end
    following = b"data: y" + end
    for size in range(1, 30):
        framer, sent = sse.Framer(32), b""
        stream = event + following
        for at in range(0, len(stream), size):
            sent += framer.feed(stream[at : at + size])
            if 32 + size < at + size < len(event):
                assert framer.inside
                assert framer.pending
            if len(sent) >= len(event):
                assert not framer.inside, "the event's end has come: something may be inserted again"
        assert sent + framer.close() == stream


def test_what_follows_a_border_may_be_as_long_as_one_read_before_it_is_given_up() -> None:
    framer = sse.Framer(16)
    assert framer.feed(b"data: 1\n\n" + b"x" * 100) == b"data: 1\n\n"
    assert not framer.inside
    assert framer.feed(b"y") == b"x" * 98
    assert framer.inside


@pytest.mark.parametrize(
    ("block", "has"),
    [
        (b"data: x\n\n", True),
        (b"data\n\n", True),
        (b"data:\n\n", True),
        (BOM + b"data: x\n\n", True),
        (b"event: e\rdata: x\r\r", True),
        (b"datax: x\n\n", False),
        (b": data: x\n\n", False),
        (b"id: data:\n\n", False),
        (b" data: x\n\n", False),
        (b"retry: 1\n\n", False),
        (b"\n\n", False),
    ],
)
def test_only_a_block_with_a_data_field_is_an_event(block: bytes, has: bool) -> None:
    assert sse.has_data(block) is has
    assert sse.count(block) == has
    assert (b"data" in sse.fields(block)) is has


def test_fields_keep_the_last_value_and_join_data_lines() -> None:
    assert sse.fields(b"event: a\nevent:b\ndata: 1\ndata:2\ndata\n: c\nid\n\n") == {
        b"event": b"b",
        b"data": b"1\n2\n",
        b"id": b"",
    }


# What an event must be for an id to be put into it


@pytest.mark.parametrize(
    ("block", "event"),
    [
        (b"data: x\n\n", b"data: x\n\n"),
        (b"id: 1\ndata: x\n\n", b"data: x\n\n"),
        (b"id\ndata: x\nid:\n\n", b"data: x\n\n"),
        (b"\n\r\ndata: x\n\n", b"data: x\n\n"),
        (BOM + b"data: x\n\n", b"data: x\n\n"),
        (b"data: id: 1\n\n", b"data: id: 1\n\n"),
        (b"idea: 1\ndata: x\n\n", b"idea: 1\ndata: x\n\n"),
        (b"data: x\r\nid: 1\r\n\r\n", b"data: x\r\n\r\n"),
        (b": c\nevent: e\nid: 1\ndata: x\n\n", b": c\nevent: e\ndata: x\n\n"),
        (b"id: 1\n\n", b""),
        (b": ping\n\n", b""),
        (b"retry: 5\n\n", b""),
        (b"\n\n", b""),
        (b"", b""),
    ],
)
def test_an_anonymous_event_has_no_id_and_one_without_data_is_none(block: bytes, event: bytes) -> None:
    assert sse.anonymous(block) == event


@given(ANY | ONE_KIND)
def test_an_anonymous_event_says_what_it_said(stream: bytes) -> None:
    for rest in sse.split(stream):
        block = rest if rest.endswith((*sse.BORDERS, b"\r\r")) else sse.completed(rest)
        anonymous = sse.anonymous(block)
        if not sse.has_data(block):
            assert anonymous == b""
            continue
        before, after = sse.fields(block), sse.fields(anonymous)
        assert after.get(b"data") == before[b"data"]
        assert after.get(b"event") == before.get(b"event")
        assert b"id" not in after
        assert anonymous[:1] not in (b"\r", b"\n")


@given(ANY | ONE_KIND)
def test_a_completed_event_is_whole(stream: bytes) -> None:
    for block in sse.split(stream):
        if sse.has_data(block):
            completed = sse.completed(block)
            assert completed.endswith(b"\n\n")
            assert len([found for found in reference(completed) if found.dispatched]) == 1
            assert sse.fields(completed) == sse.fields(block)


@pytest.mark.parametrize("rest", [b"data: x", b"data: x\n", b"data: x\r\n", b"data: x\r"])
def test_an_event_that_lacks_its_empty_line_gets_it(rest: bytes) -> None:
    assert sse.completed(rest) == b"data: x\n\n"
