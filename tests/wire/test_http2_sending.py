"""DATA outward, by hand (net/stream2.py, net/connection2.py), to an h2 that counts: no byte more than it allows, none
lost where it allows little, and the windows of both in step."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest
from h2.events import DataReceived
from h2.settings import SettingCodes

from relay.flow.overflow import DRAIN_BYTES
from relay.net.connection2 import WRITE_FRAMES
from relay.net.service import ClientLimits
from relay.net.stream2 import SHARE
from relay.wire import frames
from tests.net.pair2 import Both
from tests.wire.peer2 import ROLES, may_send, split_frames

INITIAL = frames.DEFAULT_WINDOW
LARGE = bytes(range(256)) * 4096  # 1 MiB


def data_frames(both: Both) -> list[tuple[int, int]]:
    """The stream and the size of each DATA frame that was written and not yet given."""
    found = split_frames(b"".join(both.transport.writes))
    return [(stream_id, len(payload)) for kind, _, stream_id, payload in found if kind == frames.DATA]


def update_settings(both: Both, **values: int) -> None:
    both.peer.update_settings({SettingCodes[name]: value for name, value in values.items()})
    both.wheel.now += 1
    both.settle()


@pytest.mark.parametrize("role", ROLES)
def test_events_leave_as_they_are_in_one_write_a_turn(role: str) -> None:
    both = Both(role)
    lanes = [both.open() for _ in range(3)]
    for lane in lanes * 2:
        lane.send(b"data: %d\n\n" % lane.stream_id)
    assert both.transport.writes == []
    both.loop.turn()
    assert len(both.transport.writes) == 1
    assert data_frames(both) == [(stream_id, 9) for stream_id in (1, 3, 5, 1, 3, 5)]
    both.settle()
    both.check()
    assert bytes(both.got[3]) == b"data: 3\n\n" * 2
    both.loop.turn()
    assert both.transport.writes == []


@pytest.mark.parametrize("role", ROLES)
def test_many_frames_do_not_wait_for_the_end_of_the_turn(role: str) -> None:
    both = Both(role)
    lane = both.open()
    for _ in range(WRITE_FRAMES + 1):
        lane.send(b"x")
    assert len(both.transport.writes) == 1
    assert len(data_frames(both)) == WRITE_FRAMES + 1
    lane.send(b"x")
    both.loop.turn()
    assert len(both.transport.writes) == 2


@pytest.mark.parametrize("role", ROLES)
def test_a_stuck_socket_is_given_one_large_write_however_many_streams_have_one(role: str) -> None:
    """What came for the others in the same turn waits where it can be let go: not in the transport."""
    both = Both(role)
    both.peer.increment_flow_control_window(1 << 20)
    lanes = [both.open() for _ in range(8)]
    both.settle()
    both.transport.room = False
    for lane in lanes:
        lane.send(LARGE[:SHARE])
    both.loop.turn()
    assert data_frames(both) == [(1, frames.FRAME_LIMIT)] * 2
    both.transport.room = True
    both.connection.resume_writing()
    both.settle()
    assert all(both.got[lane.stream_id] == LARGE[:SHARE] for lane in lanes)
    both.check()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, INITIAL - 1, INITIAL])
def test_what_a_window_allows_goes_in_frames_that_everybody_takes(role: str, size: int) -> None:
    both = Both(role)
    lane = both.open()
    lane.send(LARGE[:size])
    sizes = []
    while both.loop.soon:
        both.loop.turn()
        sizes += [size for _, size in data_frames(both)]
        both.give()
    assert sum(sizes) == size
    assert max(sizes) <= frames.FRAME_LIMIT
    assert len(sizes) <= size // frames.FRAME_LIMIT + 2
    assert both.got[1] == LARGE[:size]
    both.check()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("settings", [{SettingCodes.MAX_FRAME_SIZE: 1 << 20}, {SettingCodes.INITIAL_WINDOW_SIZE: 1}])
def test_whatever_the_peer_would_take_a_stream_of_bytes_is_the_same(role: str, settings: dict[int, int]) -> None:
    both = Both(role, settings)
    lane = both.open()
    lane.send(LARGE[:100])
    lane.finish()
    both.settle()
    while len(both.got.get(1, b"")) < 100:
        both.peer.increment_flow_control_window(7, 1)
        both.settle()
        both.check()
    assert both.got[1] == LARGE[:100]
    assert both.over[1] == "ended"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("narrow", ["stream", "connection"])
def test_what_a_window_does_not_allow_waits_and_follows_in_order(role: str, narrow: str) -> None:
    both = Both(role, {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20} if narrow == "connection" else None)
    if narrow == "stream":
        both.peer.increment_flow_control_window(1 << 20)
    lane, other = both.open(), both.open()
    pieces = [LARGE[at : at + 5000] for at in range(0, 200_000, 5000)]
    for piece in pieces:
        lane.send(piece)
    lane.finish()
    both.settle()
    assert len(both.got[1]) == INITIAL
    both.check()
    other.send(b"hello")
    both.settle()
    assert (3 in both.got) is (narrow == "stream"), "only what all share keeps the other waiting"
    while 1 not in both.over:
        before = len(both.got[1])
        if narrow == "stream":
            both.peer.increment_flow_control_window(9999, 1)
        else:
            both.peer.increment_flow_control_window(9999)
        both.settle()
        both.check()
        assert len(both.got[1]) > before
    assert both.got[1] == LARGE[:200_000]
    assert both.got[3] == b"hello"


@pytest.mark.parametrize("role", ROLES)
def test_a_producer_waits_when_much_does(role: str) -> None:
    both = Both(role)
    lane = both.open()
    for at in range(0, 1 << 20, 8192):
        lane.send(LARGE[at : at + 8192])
    assert lane.producer.paused
    both.settle()
    while len(both.got[1]) < 1 << 20:
        both.peer.increment_flow_control_window(20_000)
        both.peer.increment_flow_control_window(20_000, 1)
        both.settle()
    assert not lane.producer.paused
    assert both.got[1] == LARGE


@pytest.mark.parametrize("role", ROLES)
def test_a_huge_body_delays_no_other(role: str) -> None:
    both = Both(role, {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
    both.peer.increment_flow_control_window(1 << 24)
    huge, small = both.open(), both.open()
    both.settle()
    huge.send(LARGE[: 16 * SHARE])
    small.send(b"hello")
    order = []
    while both.loop.soon:
        both.loop.turn()
        order += data_frames(both)
        both.give()
    assert sum(size for stream_id, size in order[: order.index((3, 5))]) <= SHARE + DRAIN_BYTES
    assert both.got[1] == LARGE[: 16 * SHARE]


@pytest.mark.parametrize("role", ROLES)
def test_several_that_wait_are_served_in_turn_a_share_each(role: str) -> None:
    both = Both(role, {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
    lanes = [both.open() for _ in range(3)]
    for lane in lanes:
        lane.send(LARGE[: 4 * SHARE])
    both.settle()
    both.peer.increment_flow_control_window(1 << 24)
    both.take()
    order = []
    while both.loop.soon or both.transport.writes:
        both.loop.turn()
        order += data_frames(both)
        both.give()
    runs = [(stream_id, sum(size for _, size in run)) for stream_id, run in groupby(order, lambda entry: entry[0])]
    assert all(size <= SHARE for _, size in runs)
    assert {stream_id for stream_id, _ in runs[:3]} == {1, 3, 5}
    assert all(both.got[stream_id] == LARGE[: 4 * SHARE] for stream_id in (1, 3, 5))


# SETTINGS_INITIAL_WINDOW_SIZE in the middle of it


@pytest.mark.parametrize("role", ROLES)
def test_a_window_that_shrinks_below_zero_is_waited_for(role: str) -> None:
    both = Both(role)
    lane = both.open()
    lane.send(LARGE[:50_000])
    both.settle()
    update_settings(both, INITIAL_WINDOW_SIZE=10_000)
    window = both.connection.engine.h2.streams[1].outbound_flow_control_window
    assert window == 10_000 - 50_000
    both.check()
    lane.send(LARGE[50_000:60_000])
    both.settle()
    assert len(both.got[1]) == 50_000
    both.peer.increment_flow_control_window(40_000, 1)
    both.settle()
    assert len(both.got[1]) == 50_000, "the window is 0, and no more"
    both.peer.increment_flow_control_window(1, 1)
    both.settle()
    assert len(both.got[1]) == 50_001
    update_settings(both, INITIAL_WINDOW_SIZE=INITIAL)
    both.check()
    lane.finish()
    both.settle()
    assert both.got[1] == LARGE[:60_000]
    assert both.over[1] == "ended"


@pytest.mark.parametrize("role", ROLES)
def test_a_window_that_grows_lets_all_go_on(role: str) -> None:
    both = Both(role, {SettingCodes.INITIAL_WINDOW_SIZE: 0})
    lanes = [both.open() for _ in range(3)]
    for lane in lanes:
        lane.send(LARGE[:20_000])
        lane.finish()
    both.settle()
    assert both.got == {}
    for now, total in ((1, 3), (10_000, 30_000), (5_000, 30_000), (20_000, 60_000)):
        update_settings(both, INITIAL_WINDOW_SIZE=now)
        both.check()
        assert sum(map(len, both.got.values())) == total
    assert both.over == {1: "ended", 3: "ended", 5: "ended"}


@pytest.mark.parametrize("role", ROLES)
def test_heads_and_ends_need_no_window(role: str) -> None:
    both = Both(role, {SettingCodes.INITIAL_WINDOW_SIZE: 0})
    lane = both.open()
    lane.finish()
    both.settle()
    assert both.over[1] == "ended"


# The socket's own pace


@pytest.mark.parametrize("role", ROLES)
def test_a_socket_that_takes_nothing_holds_every_stream_and_loses_nothing(role: str) -> None:
    both = Both(role)
    lanes = [both.open(), both.open()]
    both.transport.room = False
    for lane in lanes:
        lane.send(b"first ")
    both.loop.turn()
    assert both.connection.blocked
    for lane in lanes:
        lane.send(b"second ")
        lane.send(b"third")
        lane.finish()
    both.loop.turn()
    assert both.connection.out == [], "it waits where the overflow is counted"
    assert [lane.reader.waiting for lane in lanes] == [len(b"second third")] * 2
    writes = len(both.transport.writes)
    both.loop.turn()
    assert len(both.transport.writes) == writes, "what was begun is all that is written"
    both.transport.room = True
    both.connection.resume_writing()
    both.settle()
    assert both.got[1] == both.got[3] == b"first second third"
    assert both.over == {1: "ended", 3: "ended"}
    both.check()


def test_a_peer_that_asks_and_does_not_read_is_given_up() -> None:
    both = Both("server")
    both.open()
    both.transport.room = False
    both.peer.ping(b"12345678")
    both.take()
    both.loop.turn()
    assert both.connection.blocked
    for _ in range(1001):
        both.wheel.now += 1
        both.peer.ping(b"12345678")
        both.take()
        both.loop.turn()
    assert "abort" in both.transport.ends
    assert len(both.complaints) == 1
    assert len(both.connection.out) <= 1
    assert both.lanes[0].gone


# Resets while something waits


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("who", ["peer", "relay"])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_stream_that_is_given_up_lets_go_of_what_waits(role: str, who: str, waiting: bool) -> None:
    both = Both(role)
    lane, other = both.open(), both.open()
    for _ in range(40 if waiting else 1):
        lane.send(LARGE[:10_000])
    both.settle()
    assert lane.producer.paused is waiting
    if who == "peer":
        both.peer.reset_stream(1, frames.CANCEL)
    else:
        lane.cancel()
    both.settle()
    assert not lane.producer.paused
    assert lane.gone
    assert lane.reader.gone
    assert 1 not in both.connection.open_streams
    lane.send(b"nobody wants it")
    both.settle()
    assert both.over.get(1, "reset") == "reset"
    other.send(b"hello")
    both.peer.increment_flow_control_window(1 << 20)
    both.settle()
    assert both.got[3] == b"hello"


def test_one_stream_more_than_may_be_is_refused_and_the_others_live() -> None:
    both = Both("server", limits=replace(ClientLimits(), streams=2))
    lanes = [both.open(), both.open()]
    both.peer.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10
    both.peer.remote_settings.acknowledge()
    both.peer.send_headers(5, [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/")])
    both.peer.send_data(5, b"under way", end_stream=True)
    both.settle()
    assert both.over == {5: "reset"}
    assert len(both.lanes) == 2
    for lane in lanes:
        lane.send(b"hello")
    both.settle()
    assert both.got[1] == both.got[3] == b"hello"
    both.check()


def test_padding_and_trailers_from_a_provider_are_not_passed_on() -> None:
    both = Both("client")
    lane = both.open()
    both.peer.send_data(1, b"hello", pad_length=50)
    both.peer.send_data(1, b"", pad_length=50)
    both.peer.send_data(1, b"!", pad_length=0)
    both.peer.send_headers(1, [(b"x-sum", b"1")], end_stream=True)
    both.settle()
    assert lane.sink.body == b"hello!"
    assert lane.sink.ends == ["finish"]
    assert both.over[1] == "reset", "the rest of the request is not wanted"
    assert not may_send(both.peer, 1)
    assert [event.data for event in both.events if isinstance(event, DataReceived)] == []
