"""Header blocks: padding and priority taken off, CONTINUATIONs joined, bounds to the byte (RFC 9113, 4.3 and 6.2)."""

from __future__ import annotations

import pytest
from hpack.hpack import encode_integer
from hyperframe.frame import HeadersFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import flood, frames
from relay.wire.block2 import BLOCK_LIMIT, Block
from relay.wire.listener2 import Broken
from relay.wire.state2 import LIST_LIMIT
from tests.wire.peer2 import REQUEST, RESPONSE, ROLES, Pair, block, frame

END_STREAM, END_HEADERS, PADDED, PRIORITIZED = (
    frames.END_STREAM,
    frames.END_HEADERS,
    frames.PADDED,
    frames.PRIORITIZED,
)


@settings(deadline=None)
@given(
    st.binary(max_size=60),
    st.integers(0, 255) | st.none(),
    st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 255), st.booleans()) | st.none(),
    st.booleans(),
    st.booleans(),
)
def test_what_hyperframe_writes_is_read(
    fields: bytes, padding: int | None, priority: tuple[int, int, bool] | None, end: bool, whole: bool
) -> None:
    written = HeadersFrame(5, data=fields)
    if padding is not None:
        written.flags.add("PADDED")
        written.pad_length = padding
    if priority is not None:
        written.flags.add("PRIORITY")
        written.depends_on, written.stream_weight, written.exclusive = priority
    for name, here in (("END_STREAM", end), ("END_HEADERS", whole)):
        if here:
            written.flags.add(name)
    data = written.serialize()
    made = Block(data[4], 5, data[frames.HEADER_SIZE :], 3.0)
    assert (made.stream_id, made.whole, made.since) == (5, whole, 3.0)
    assert made.flags == (END_STREAM if end else 0) | (PRIORITIZED if priority else 0)
    if fields[:1] < b"\x20" or fields[:1] >= b"\x40":  # else it begins with changes of the table
        assert made.payload == (b"" if priority is None else made.payload[:5]) + fields
        if priority is not None:
            depends_on, weight, exclusive = priority
            assert made.payload[:5] == (depends_on | exclusive << 31).to_bytes(4, "big") + bytes([weight])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda data: b"\0" + data), min_size=1, max_size=8))
def test_fragments_are_joined(fragments: list[bytes]) -> None:
    made = Block(0, 1, fragments[0], 0.0)
    for fragment in fragments[1:]:
        assert not made.whole
        made.go_on(0, fragment)
    made.go_on(END_HEADERS, b"")
    assert made.whole
    assert made.payload == b"".join(fragments)


SHORT = {
    "stream 0": (0, 0, b"", frames.PROTOCOL_ERROR),
    "no pad length": (PADDED, 1, b"", frames.PROTOCOL_ERROR),
    "as much padding as payload": (PADDED, 1, b"\4abc", frames.PROTOCOL_ERROR),
    "more padding than payload": (PADDED, 1, b"\xffabc", frames.PROTOCOL_ERROR),
    "no priority": (PRIORITIZED, 1, b"", frames.FRAME_SIZE_ERROR),
    "half a priority": (PRIORITIZED, 1, b"\0\0\0\0", frames.FRAME_SIZE_ERROR),
    "padding into the priority": (PADDED | PRIORITIZED, 1, b"\1\0\0\0\0\0", frames.FRAME_SIZE_ERROR),
    "padding in the place of the priority": (PADDED | PRIORITIZED, 1, b"\0\0\0\0\0", frames.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_frame_that_is_too_short(name: str) -> None:
    flags, stream_id, payload, code = SHORT[name]
    with pytest.raises(Broken) as caught:
        Block(flags, stream_id, payload, 0.0)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        (PADDED, b"\3abc"),
        (PADDED, b"\0"),
        (PRIORITIZED, b"\0\0\0\0\1"),
        (PADDED | PRIORITIZED, b"\2\0\0\0\0\1\0\0"),
    ],
)
def test_a_frame_that_holds_nothing_but_what_it_must(flags: int, payload: bytes) -> None:
    made = Block(flags, 1, payload, 0.0)
    assert made.payload == (b"\0\0\0\0\1" if flags & PRIORITIZED else b"")


def test_a_block_may_be_so_long_and_no_longer() -> None:
    for excess in (0, 1):
        made = Block(0, 1, b"\0" * 16_384, 0.0)
        for _ in range(2):
            made.go_on(0, b"\0" * 16_384)
        last = b"\0" * (BLOCK_LIMIT - 3 * 16_384 + excess)
        if excess:
            with pytest.raises(Broken) as caught:
                made.go_on(END_HEADERS, last)
            assert caught.value.code == frames.ENHANCE_YOUR_CALM
        else:
            made.go_on(END_HEADERS, last)
            assert len(made.payload) == BLOCK_LIMIT


def test_a_block_may_come_in_so_many_frames_and_no_more() -> None:
    made = Block(0, 1, b"", 0.0)
    for _ in range(flood.CONTINUATIONS):
        made.go_on(0, b"")
    with pytest.raises(Broken) as caught:
        made.go_on(END_HEADERS, b"")
    assert caught.value.code == frames.ENHANCE_YOUR_CALM


UPDATES = {
    "none": (b"\x82", True),
    "two": (b"\x20\x3f\xe1\x1f\x82", True),
    "three": (b"\x20\x20\x20\x82", False),
    "three with long numbers": (b"\x3f\xe1\x1f\x3f\xe1\x1f\x3f\xe1\x1f\x82", False),
    "a number without end": (b"\x3f" + b"\xff" * 50, True),  # for HPACK to refuse
    "three and nothing more": (b"\x20\x20\x20", False),
}


@pytest.mark.parametrize("name", UPDATES)
def test_changes_of_the_tables_size_are_counted(name: str) -> None:
    fields, fair = UPDATES[name]
    for cut_at in range(len(fields) + 1):
        made = Block(0, 1, fields[:cut_at], 0.0)
        made.go_on(END_HEADERS, fields[cut_at:])
        if fair:
            assert made.payload == fields
        else:
            with pytest.raises(Broken) as caught:
                assert made.payload
            assert caught.value.code == frames.COMPRESSION_ERROR


# In the engine


def head_of(pair: Pair) -> list[tuple[bytes, bytes]]:
    if pair.client:
        pair.engine.send_head(1, REQUEST, end=True)
        pair.settle()
    return RESPONSE if pair.client else REQUEST


@pytest.mark.parametrize("role", ROLES)
def test_a_block_is_one_head_however_it_is_cut(role: str) -> None:
    pair = Pair(role)
    coded = block(head_of(pair))
    for at in range(len(coded) + 1):
        pair = Pair(role)
        head_of(pair)
        padded = b"\3" + coded[:at] + bytes(3)
        pair.take(
            [
                frame(frames.HEADERS, PADDED | END_STREAM, 1, padded)
                + frame(frames.CONTINUATION, 0, 1)
                + frame(frames.CONTINUATION, END_HEADERS, 1, coded[at:])
            ]
        )
        assert pair.told == [("head", 1, True)]


@pytest.mark.parametrize("role", ROLES)
def test_a_list_may_be_so_long_and_no_longer(role: str) -> None:
    """RFC 9113, 6.5.2: a field counts 32 bytes more than its name and value."""
    for excess in (0, 1):
        pair = Pair(role)
        fields = head_of(pair)
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        fields = [*fields, (b"x-long", b"y" * (LIST_LIMIT - size - 32 - len(b"x-long") + excess))]
        pair.peer.send_headers(1, fields, end_stream=True)
        pair.take()
        assert pair.told == ([("broke", frames.ENHANCE_YOUR_CALM)] if excess else [("head", 1, True)])


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    """One long field, remembered, then named as often as fits."""
    long = b"\x40\x01x" + bytes(encode_integer(4000, 7)) + b"y" * 4000
    for count, told in ((7, ("head", 1, True)), (12_000, ("broke", frames.ENHANCE_YOUR_CALM))):
        pair = Pair("server")
        pair.take([frame(frames.HEADERS, 5, 1, block(REQUEST) + long + b"\xbe" * count)])
        assert pair.told == [told]
