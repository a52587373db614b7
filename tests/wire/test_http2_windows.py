"""Flow control inward: a peer gets back what it gave, never more, never too late; and what it may not do costs it its
stream or its connection (RFC 9113, 5.2 and 6.9)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import frames
from tests.wire.peer2 import ROLES, Pair, alive, codes, frame

FRAME = 16 * 1024


def update(stream_id: int, increment: int) -> bytes:
    return frame(frames.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def returned(pair: Pair, stream_id: int) -> int:
    """By how much the engine has opened a window."""
    return sum(
        frames.parse_long(payload)
        for kind, _, of, payload in pair.sent
        if kind == frames.WINDOW_UPDATE and of == stream_id
    )


def cheat(pair: Pair, *stream_ids: int) -> None:
    """The peer's own count no longer holds it back."""
    pair.peer.outbound_flow_control_window = frames.WINDOW_LIMIT
    for stream_id in stream_ids:
        pair.peer.streams[stream_id].outbound_flow_control_window = frames.WINDOW_LIMIT


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("padding", [None, 0, 255])
def test_a_peer_that_sends_without_end_never_waits(role: str, padding: int | None) -> None:
    pair = Pair(role)
    taker = pair.open()
    taken = 0
    for _ in range(300):
        size = min(FRAME - 256, pair.peer.local_flow_control_window(1) - 256)
        assert size >= FRAME // 2
        pair.peer.send_data(1, b"x" * size, pad_length=padding)
        taken += size + (0 if padding is None else padding + 1)
        pair.settle()
        pair.check()
        taker.pieces.clear()
    assert taken - pair.window // 2 <= returned(pair, 1) == taken - taker.unacked
    assert taken - pair.connection_window // 2 <= returned(pair, 0) <= taken


@pytest.mark.parametrize("role", ROLES)
def test_little_is_not_answered_with_a_window_each(role: str) -> None:
    pair = Pair(role)
    pair.open()
    for _ in range(500):
        pair.peer.send_data(1, b"a token, or so")
        pair.settle()
    assert pair.sent == []


@pytest.mark.parametrize("role", ROLES)
def test_a_paused_stream_withholds_its_own_window_alone(role: str) -> None:
    pair = Pair(role)
    paused, other = pair.open(1), pair.open(3)
    paused.paused = True
    for _ in range(4):
        pair.peer.send_data(1, b"x" * FRAME)
        pair.settle()
    assert pair.peer.streams[1].outbound_flow_control_window == 0
    assert returned(pair, 1) == 0
    for _ in range(200):
        pair.peer.send_data(3, b"y" * FRAME)
        pair.settle()
        pair.check()
    assert len(other.body) == 200 * FRAME
    # It goes on as if nothing had been.
    paused.paused = False
    pair.engine.top_up(paused)
    pair.engine.top_up(paused)
    pair.settle()
    assert returned(pair, 1) == pair.window
    assert paused.unacked == 0
    assert pair.peer.streams[1].outbound_flow_control_window == pair.window
    pair.check()


@pytest.mark.parametrize("role", ROLES)
def test_many_paused_streams_do_not_stall_the_connection(role: str) -> None:
    """All their windows together are several times the connection's."""
    pair = Pair(role)
    for number in range(64):
        pair.open(2 * number + 1).paused = True
        for _ in range(4):
            pair.peer.send_data(2 * number + 1, b"x" * FRAME)
            pair.settle()
            pair.check()
    assert sum(len(taker.body) for taker in pair.takers.values()) == 4 * pair.connection_window


@pytest.mark.parametrize("role", ROLES)
def test_data_of_streams_that_were_given_up_is_returned_to_the_connection(role: str) -> None:
    pair = Pair(role)
    pair.open()
    pair.engine.reset(1, frames.CANCEL)
    for _ in range(4):
        pair.peer.send_data(1, b"x" * FRAME)
    pair.take()
    pair.settle()
    for number in range(1, 40):
        pair.open(2 * number + 1)
        pair.engine.reset(2 * number + 1, frames.CANCEL)
        for _ in range(4):
            pair.peer.send_data(2 * number + 1, b"x" * FRAME)
        pair.take()
        pair.settle()
        pair.clock.now += 1
        assert pair.peer.outbound_flow_control_window >= pair.connection_window // 2
    assert not [entry for entry in pair.told if entry[0] == "broke"]


@pytest.mark.parametrize("role", ROLES)
def test_a_stream_that_has_been_given_up_gets_no_window(role: str) -> None:
    pair = Pair(role)
    taker = pair.open()
    pair.peer.send_data(1, b"x" * 100)
    pair.take()
    pair.engine.reset(1, frames.CANCEL)
    pair.settle()
    pair.sent.clear()
    pair.engine.top_up(taker)
    pair.settle()
    assert pair.sent == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("split", [True, False])
def test_a_stream_window_holds_to_the_byte(role: str, ends: bool, split: bool) -> None:
    for excess in (0, 1):
        pair = Pair(role, window=70_000)
        taker, other = pair.open(), pair.open(3)
        taker.paused = True
        cheat(pair, 1)
        left = 70_000 + excess
        while left:
            size = min(left, FRAME)
            left -= size
            pair.peer.send_data(1, b"x" * size, end_stream=ends and not left)
            if split:
                pair.take()
        pair.take()
        broken = [("stream broke", 1, frames.FLOW_CONTROL_ERROR)]
        assert pair.told == (broken if excess else [("end", 1)] * ends)
        assert codes(pair, frames.RST_STREAM) == ([(1, frames.FLOW_CONTROL_ERROR)] if excess else [])
        assert (1 in pair.engine.streams) is (not excess and not ends)
        # The others live on.
        pair.peer.send_data(3, b"hello")
        pair.settle()
        assert other.body == b"hello"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("padded", [True, False])
def test_the_connection_window_holds_to_the_byte(role: str, padded: bool) -> None:
    for excess in (0, 1):
        pair = Pair(role, window=1 << 20, connection_window=70_000)
        pair.open()
        cheat(pair, 1)
        left = 70_000 + excess
        while left:
            size = min(left, FRAME)
            left -= size
            if padded:
                pair.peer.send_data(1, b"x" * (size - 11), pad_length=10)
            else:
                pair.peer.send_data(1, b"x" * size)
        pair.take()
        assert pair.told == ([("broke", frames.FLOW_CONTROL_ERROR)] if excess else [])
        if not excess:
            pair.give()
            assert returned(pair, 0) == 70_000


@settings(deadline=None)
@given(
    st.sampled_from(ROLES),
    st.lists(
        st.tuples(
            st.sampled_from([1, 3]), st.sampled_from(["send", "pause", "go on"]), st.integers(1, 40_000), st.booleans()
        ),
        max_size=40,
    ),
)
def test_windows_agree_after_every_step(role: str, steps: list[tuple[int, str, int, bool]]) -> None:
    pair = Pair(role)
    takers = {stream_id: pair.open(stream_id) for stream_id in (1, 3)}
    taken = {1: 0, 3: 0}
    for stream_id, what, size, pad in steps:
        taker = takers[stream_id]
        if what == "send":
            size = min(size, FRAME - 8, pair.peer.local_flow_control_window(stream_id) - 8)
            if size > 0:
                pair.peer.send_data(stream_id, b"x" * size, pad_length=7 if pad else None)
                taken[stream_id] += size + 8 * pad
            else:
                assert taker.paused
        elif what == "pause":
            taker.paused = True
        else:
            taker.paused = False
            pair.engine.top_up(taker)
        pair.settle()
        pair.check()
        assert returned(pair, stream_id) + taker.unacked == taken[stream_id]
        assert returned(pair, 0) <= sum(taken.values())


# WINDOW_UPDATE


LIMIT = frames.WINDOW_LIMIT
DEFAULT = frames.DEFAULT_WINDOW
BAD_UPDATES: dict[str, tuple[bytes, list[tuple[int | str, ...]]]] = {
    "stream by nothing": (update(1, 0), [("stream broke", 1, frames.PROTOCOL_ERROR)]),
    "stream by the reserved bit alone": (update(1, 1 << 31), [("stream broke", 1, frames.PROTOCOL_ERROR)]),
    "stream too far": (update(1, LIMIT - DEFAULT + 1), [("stream broke", 1, frames.FLOW_CONTROL_ERROR)]),
    "connection by nothing": (update(0, 0), [("broke", frames.PROTOCOL_ERROR)]),
    "connection too far": (update(0, LIMIT - DEFAULT + 1), [("broke", frames.FLOW_CONTROL_ERROR)]),
    "idle stream": (update(9, 1), [("broke", frames.PROTOCOL_ERROR)]),
    "stream of the other side": (update(2, 1), [("broke", frames.PROTOCOL_ERROR)]),
    "short": (frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\1"), [("broke", frames.FRAME_SIZE_ERROR)]),
    "long": (frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\0\1"), [("broke", frames.FRAME_SIZE_ERROR)]),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", BAD_UPDATES)
def test_a_window_that_may_not_be(role: str, name: str) -> None:
    bad, expected = BAD_UPDATES[name]
    pair = Pair(role)
    pair.open()
    other = pair.open(3)
    pair.take([bad])
    assert pair.told == expected
    kind = frames.RST_STREAM if expected[0][0] == "stream broke" else frames.GOAWAY
    assert [code for _, code in codes(pair, kind)] == [expected[0][-1]]
    if kind == frames.RST_STREAM:
        pair.peer.send_data(3, b"hello")
        pair.settle()
        assert other.body == b"hello"


@pytest.mark.parametrize("role", ROLES)
def test_a_window_may_grow_to_its_limit(role: str) -> None:
    pair = Pair(role)
    pair.open()
    pair.take([update(1, LIMIT - DEFAULT), update(0, (LIMIT - DEFAULT) | 1 << 31)])
    assert pair.told == [("window", 1), ("window", 0)]
    assert pair.engine.h2.local_flow_control_window(1) == LIMIT


@pytest.mark.parametrize("role", ROLES)
def test_a_window_for_a_stream_that_has_ended_means_nothing(role: str) -> None:
    pair = Pair(role)
    pair.open()
    pair.engine.reset(1, frames.CANCEL)
    pair.take([update(1, 5), update(1, 0), update(1, LIMIT)])
    assert pair.told == []


# SETTINGS_INITIAL_WINDOW_SIZE


@pytest.mark.parametrize("role", ROLES)
def test_the_initial_window_moves_all_streams_below_zero_too(role: str) -> None:
    pair = Pair(role)
    for stream_id in (1, 3):
        pair.open(stream_id)
    pair.take([update(3, 1000)])
    initial = DEFAULT
    for now in (0, 5, 100_000, 1, LIMIT - 1000, 65_535):
        # As if all of the window had been used before it shrinks.
        used = {stream_id: stream.outbound_flow_control_window for stream_id, stream in alive(pair.engine.h2)}
        pair.take([frames.settings({frames.INITIAL_WINDOW_SIZE: now})])
        for stream_id, stream in alive(pair.engine.h2):
            assert stream.outbound_flow_control_window == used[stream_id] + now - initial
            stream.outbound_flow_control_window -= 10
        initial = now
        assert pair.told.pop() == ("settings",)
    assert pair.engine.h2.outbound_flow_control_window == DEFAULT, "the connection's is not concerned"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", [LIMIT + 1, 2**32 - 1])
def test_an_initial_window_that_is_none(role: str, value: int) -> None:
    pair = Pair(role)
    pair.take([frames.settings({frames.INITIAL_WINDOW_SIZE: value})])
    assert pair.told == [("broke", frames.FLOW_CONTROL_ERROR)]


@pytest.mark.parametrize("role", ROLES)
def test_an_initial_window_that_makes_one_too_large(role: str) -> None:
    pair = Pair(role)
    pair.open()
    pair.take([update(1, 1), frames.settings({frames.INITIAL_WINDOW_SIZE: LIMIT})])
    assert pair.told == [("window", 1), ("broke", frames.FLOW_CONTROL_ERROR)]
