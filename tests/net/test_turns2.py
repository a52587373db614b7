"""Whose turn it is on an HTTP/2 connection: what blocks stays blocked, what needs no window waits for none, and a reset
stays apart from the answer before it. Real connections and streams on a transport that says what was written."""

from __future__ import annotations

from h2.settings import SettingCodes

from relay.net.upstream2 import Upstream2
from relay.wire import frames
from relay.wire.head import EMPTY
from tests.net.pair2 import Asked, Both
from tests.wire.peer2 import frame

_WIDE: dict[int, int] = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24}


def _kinds(write: bytes) -> list[tuple[int, int]]:
    """Type and stream of each frame."""
    found, at = [], 0
    while at < len(write):
        high, low, kind, _, stream_id = frames.HEADER.unpack_from(write, at)
        found.append((kind, stream_id))
        at += frames.HEADER_SIZE + (high << 8 | low)
    return found


def test_what_fills_the_socket_in_its_own_turn_stays_blocked() -> None:
    both = Both("server", settings=_WIDE)
    lanes = [both.open() for _ in range(80)]
    for lane in lanes:
        lane.send(b"x" * 17_000)  # more than the connection's window for all of them
    both.settle()
    assert sum(lane.reader.blocked for lane in lanes) > 64
    both.transport.room = False
    both.peer.increment_flow_control_window(1 << 24)
    both.take()
    assert both.connection.blocked
    assert [lane for lane in lanes if not lane.reader.blocked] == []
    for _ in range(1200):
        lanes[-1].send(b"token\n")
        both.loop.turn()
    assert both.complaints == [], "a client that pauses was taken for one that asks and does not read"


def test_an_end_needs_no_window() -> None:
    both = Both("server", settings=_WIDE)
    greedy, done = both.open(), both.open()
    done.send(b"done")
    greedy.send(b"x" * (frames.DEFAULT_WINDOW - 4))
    both.loop.turn()
    both.give()
    assert both.connection.engine.h2.outbound_flow_control_window == 0
    both.connection.pause_writing()
    done.finish()
    both.loop.turn()
    assert both.transport.writes == []
    both.connection.resume_writing()
    both.loop.turn()
    both.give()
    assert both.over == {done.stream_id: "ended"}


def test_resets_that_come_by_the_dozen_stay_apart_from_what_is_before_them() -> None:
    both = Both("server")
    lanes = [both.open() for _ in range(80)]
    for lane in lanes:
        lane.send(b"why it ends")
        lane.reader.abort()
    both.loop.turn()
    written = [kind for write in both.transport.writes for kind in _kinds(write)]
    assert sorted(stream for kind, stream in written if kind == frames.DATA) == [lane.stream_id for lane in lanes]
    assert not [stream for kind, stream in written if kind == frames.RST_STREAM]


def test_a_draining_connection_waits_for_the_resets_that_are_due() -> None:
    both = Both("server")
    lane = both.open()
    # The client opens no more, so the end of the last stream is the connection's.
    both.connection.goaway_came(0, frames.NO_ERROR)
    lane.send(b"why it ends")
    lane.reader.abort()
    for _ in range(3):
        both.loop.turn()
    assert both.transport.ends == []
    assert [kind for write in both.transport.writes for kind, _ in _kinds(write)] == [frames.DATA]


def test_a_request_that_was_sent_beside_others_is_not_untouched() -> None:
    both = Both("client")
    first = both.open()
    both.peer.end_stream(first.stream_id)
    first.finish()
    both.settle()
    connection = both.connection
    assert isinstance(connection, Upstream2)
    assert connection.served == 1
    both.open()
    place = connection.call()
    late = Asked(place, both.wheel)
    place.ask(b"POST", b"/pay", [(b"host", b"h")], EMPTY, late, late.reader)
    both.connection.connection_lost(None)
    assert [getattr(error, "untouched", None) for error in late.errors] == [False]


def test_a_broken_connection_that_takes_nothing_is_cut_after_the_stall_limit() -> None:
    """What was left for it waits in the transport, which would wait for ever."""
    both = Both("server")
    lane = both.open()
    both.transport.room = False
    lane.send(b"x" * 1000)
    with both.loop.running():
        both.loop.turn()
        assert both.connection.blocked
        both.transport.room = True  # it says so once
        both.connection.data_received(frame(frames.CONTINUATION, 0, 1, b""))
        assert both.transport.ends == ["close"]
        assert both.connection.due(both.wheel.now + 30) > 0
        assert both.transport.ends == ["close"]
        both.connection.due(both.wheel.now + 61)
    assert both.transport.ends == ["close", "abort"]
