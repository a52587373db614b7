"""How streams and connections end before their time: RST_STREAM both ways, and what is under way behind it; GOAWAY,
which h2 never sees; refusals (RFC 9113, 5.4, 6.4, 6.8)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from h2.events import ConnectionTerminated, InformationalResponseReceived, StreamReset

from relay.wire import frames
from relay.wire.state2 import _RESET_KNOWN
from tests.wire.peer2 import REQUEST, RESPONSE, ROLES, Pair, block, codes, frame

GET = [(b":method", b"GET"), *REQUEST[1:]]


def broken(pair: Pair) -> bool:
    return any(entry[0] in ("broke", "stream broke") for entry in pair.told)


# The peer's resets


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("code", [frames.NO_ERROR, frames.CANCEL, frames.REFUSED_STREAM, 0xDEADBEEF])
def test_a_reset_by_the_peer_is_told_once(role: str, code: int) -> None:
    pair = Pair(role)
    taker, other = pair.open(1), pair.open(3)
    pair.peer.send_data(1, b"before")
    pair.peer.send_data(3, b"before")
    pair.take([pair.peer.data_to_send() + frames.rst_stream(1, code) * 3])
    assert pair.told == [("reset", 1, code)]
    assert taker.body == other.body == b"before"
    assert list(pair.engine.streams) == [3]
    pair.engine.reset(1, frames.CANCEL)
    pair.engine.send_end(1)
    pair.settle()
    assert pair.sent == [], "nothing is said on a stream that the peer has closed"


@pytest.mark.parametrize("role", ROLES)
def test_data_behind_the_peers_own_reset_is_refused(role: str) -> None:
    pair = Pair(role)
    pair.open()
    pair.take([frames.rst_stream(1, frames.CANCEL), frame(frames.DATA, 0, 1, b"late")])
    assert pair.told == [("reset", 1, frames.CANCEL)]
    assert codes(pair, frames.RST_STREAM) == [(1, frames.STREAM_CLOSED)]


@pytest.mark.parametrize("role", ROLES)
def test_data_behind_the_end_is_refused(role: str) -> None:
    pair = Pair(role)
    taker = pair.open()
    pair.peer.send_data(1, b"hello", end_stream=True)
    pair.take()
    pair.take([frame(frames.DATA, 0, 1, b"late")])
    assert pair.told == [("end", 1), ("stream broke", 1, frames.STREAM_CLOSED)]
    assert codes(pair, frames.RST_STREAM) == [(1, frames.STREAM_CLOSED)]
    assert taker.body == b"hello"


def test_data_before_the_head_of_an_answer_is_refused() -> None:
    pair = Pair("client")
    pair.engine.send_head(1, GET, end=True)
    pair.settle()
    pair.take([frame(frames.DATA, 0, 1, b"early")])
    assert pair.told == [("stream broke", 1, frames.PROTOCOL_ERROR)]


# Our resets, and what is under way behind them

UNDER_WAY: dict[str, Callable[[Pair], bytes]] = {
    "DATA": lambda pair: frame(frames.DATA, 0, 1, b"x" * 100),
    "padded DATA": lambda pair: frame(frames.DATA, frames.PADDED, 1, b"\5" + b"x" * 100),
    "END_STREAM": lambda pair: frame(frames.DATA, frames.END_STREAM, 1, b"x"),
    "trailers": lambda pair: frame(frames.HEADERS, 5, 1, block([(b"x-sum", b"1")])),
    "WINDOW_UPDATE": lambda pair: frames.window_update(1, 5),
    "WINDOW_UPDATE by nothing": lambda pair: frame(frames.WINDOW_UPDATE, 0, 1, bytes(4)),
    "RST_STREAM": lambda pair: frames.rst_stream(1, frames.CANCEL),
    "PRIORITY": lambda pair: frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\1"),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", UNDER_WAY)
@pytest.mark.parametrize("forgotten", [False, True])
def test_what_was_under_way_on_a_stream_that_was_reset_is_no_mistake(role: str, name: str, forgotten: bool) -> None:
    """`forgotten`: h2 has put the stream away, as it does when another is opened."""
    pair = Pair(role)
    taker = pair.open()
    pair.engine.reset(1, frames.CANCEL)
    assert codes(pair, frames.RST_STREAM) == [(1, frames.CANCEL)]
    script = UNDER_WAY[name](pair)
    if forgotten:
        pair.peer.reset_stream(1)
        pair.peer.clear_outbound_data_buffer()
        pair.open(3)
    pair.out.clear()
    pair.take([script])
    assert not broken(pair)
    assert taker.pieces == []
    assert codes(pair, frames.GOAWAY) == []
    # Whoever hears of a stream that it has not given up would stop what it does with the others.
    assert not [entry for entry in pair.told if entry[0] in ("head", "end")]
    pair.peer.clear_outbound_data_buffer()
    other = pair.open(5)
    pair.peer.send_data(5, b"hello")
    pair.take()
    assert other.body == b"hello"


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_the_answer_to_a_request_that_was_given_up_costs_no_other_its_connection(forgotten: bool, ended: bool) -> None:
    pair = Pair("client")
    pair.engine.send_head(1, GET, end=True)
    pair.settle()
    # The header tables must stay in step, so it is decoded, though nobody wants it.
    pair.peer.send_headers(1, [*RESPONSE, (b"x-id", b"one of a kind")], end_stream=ended)
    under_way = pair.peer.data_to_send()
    pair.engine.reset(1, frames.CANCEL)
    if forgotten:
        pair.engine.send_head(3, GET, end=True)
    pair.take([under_way])
    assert pair.told == []
    if not forgotten:
        pair.engine.send_head(3, GET, end=True)
    pair.settle()
    pair.peer.send_headers(3, [*RESPONSE, (b"x-id", b"one of a kind")])
    pair.peer.send_data(3, b"hello", end_stream=True)
    pair.settle()
    assert pair.told == [("head", 3, False), ("end", 3)]
    assert pair.takers[3].body == b"hello"


@pytest.mark.parametrize("role", ROLES)
def test_h2_takes_our_reset_and_our_end(role: str) -> None:
    pair = Pair(role)
    for stream_id in (1, 3):
        pair.open(stream_id)
        if not pair.client:
            pair.engine.send_head(stream_id, RESPONSE, end=False)
    pair.engine.send_end(1)
    pair.engine.reset(3, 0xDEADBEEF)
    events = pair.give()
    assert [(event.stream_id, event.error_code) for event in events if isinstance(event, StreamReset)] == [
        (3, 0xDEADBEEF)
    ]
    assert not pair.peer.streams[1].closed
    pair.peer.end_stream(1)
    pair.settle()
    assert pair.told == [("end", 1)]
    assert 1 not in dict(pair.peer.streams) or pair.peer.streams[1].closed
    pair.engine.send_end(1)
    pair.engine.reset(1, frames.CANCEL)
    pair.engine.reset(99, frames.CANCEL)
    assert pair.out == [], "what has ended is not ended again"


def test_only_the_latest_of_the_streams_that_we_reset_are_known() -> None:
    count = _RESET_KNOWN + 50
    pair = Pair("server", streams=2 * count)
    for number in range(count):
        pair.clock.now += 1
        pair.open(2 * number + 1)
        pair.engine.reset(2 * number + 1, frames.CANCEL)
        pair.settle()
    pair.sent.clear()
    pair.take([frame(frames.DATA, 0, 2 * count - 1, b"late")])
    assert codes(pair, frames.RST_STREAM) == []
    pair.take([frame(frames.DATA, 0, 1, b"very late")])
    assert codes(pair, frames.RST_STREAM) == [(1, frames.STREAM_CLOSED)]
    assert not broken(pair)


# Refused streams, informational heads


def test_a_refused_stream_is_told_so_and_costs_no_other() -> None:
    pair = Pair("server", streams=2)
    other = pair.open(1)
    pair.open(3)
    # The peer was told of two; a third may be under way before it has heard of it.
    pair.peer.remote_settings.max_concurrent_streams = 10
    pair.peer.remote_settings.acknowledge()
    pair.peer.send_headers(5, REQUEST)
    pair.peer.send_data(5, b"under way")
    pair.take()
    assert pair.told == [("head", 5, False)]
    pair.engine.reset(5, frames.REFUSED_STREAM, charge=True)
    pair.peer.send_data(5, b"and more")
    pair.take()
    events = pair.give()
    assert [event.error_code for event in events if isinstance(event, StreamReset)] == [frames.REFUSED_STREAM]
    pair.peer.send_data(1, b"hello")
    pair.settle()
    assert other.body == b"hello"
    assert not broken(pair)


def test_informational_heads_come_before_the_final_one() -> None:
    pair = Pair("client")
    pair.engine.send_head(1, GET, end=True)
    pair.settle()
    for status in (b"100", b"103", b"199"):
        pair.peer.send_headers(1, [(b":status", status)])
    pair.peer.send_headers(1, RESPONSE)
    pair.peer.send_data(1, b"hello", end_stream=True)
    pair.settle()
    assert pair.told == [*[("head", 1, False)] * 4, ("end", 1)]
    assert pair.engine.opened == 1
    assert pair.takers[1].body == b"hello"


def test_h2_takes_our_informational_head() -> None:
    pair = Pair("server")
    pair.open()
    pair.engine.send_head(1, [(b":status", b"100")], end=False)
    pair.engine.send_head(1, RESPONSE, end=True)
    events = pair.give()
    assert [type(event) for event in events[:1]] == [InformationalResponseReceived]


# GOAWAY


@pytest.mark.parametrize("role", ROLES)
def test_streams_live_on_behind_the_peers_goaway(role: str) -> None:
    pair = Pair(role)
    one, three = pair.open(1), pair.open(3)
    pair.take([frames.goaway(1 << 31 | 3, frames.NO_ERROR)])
    pair.take([frames.goaway(1, 0xDEADBEEF)])
    assert pair.told == [("goaway", 3, frames.NO_ERROR), ("goaway", 1, 0xDEADBEEF)]
    pair.told.clear()
    pair.peer.send_data(1, b"hello", end_stream=True)
    pair.peer.send_headers(3, [(b"x-sum", b"1")], end_stream=True)
    pair.settle()
    assert (one.body, three.body) == (b"hello", b"")
    assert pair.told == [("end", 1), ("end", 3)]
    if not pair.client:
        pair.engine.send_head(1, RESPONSE, end=False)
    pair.engine.send_end(1)
    assert not [event for event in pair.give() if isinstance(event, ConnectionTerminated)]


def test_debug_data_in_goaway_is_no_mistake() -> None:
    pair = Pair("client")
    pair.take([frame(frames.GOAWAY, 0, 0, bytes(8) + b"see you")])
    assert pair.told == [("goaway", 0, 0)]


@pytest.mark.parametrize("role", ROLES)
def test_streams_live_on_behind_our_goaway(role: str) -> None:
    pair = Pair(role)
    taker = pair.open()
    pair.engine.goaway(frames.STREAM_ID_LIMIT, frames.NO_ERROR)
    pair.engine.goaway(1, frames.NO_ERROR)
    assert codes(pair, frames.GOAWAY) == [(frames.STREAM_ID_LIMIT, 0), (1, 0)]
    pair.out.clear()  # h2 would stop here
    pair.peer.send_data(1, b"hello", end_stream=True)
    pair.take()
    assert taker.body == b"hello"
    assert pair.told == [("end", 1)]
    if not pair.client:
        # Whatever crosses the first of two GOAWAYs is served.
        pair.peer.send_headers(3, REQUEST, end_stream=True)
        pair.take()
        assert pair.told[1:] == [("head", 3, True)]
        pair.engine.send_head(3, RESPONSE, end=True)
        assert pair.give()


def test_h2_reads_our_goaway() -> None:
    pair = Pair("server")
    pair.engine.goaway(7, frames.ENHANCE_YOUR_CALM)
    (event,) = pair.give()
    assert isinstance(event, ConnectionTerminated)
    assert (event.last_stream_id, event.error_code) == (7, frames.ENHANCE_YOUR_CALM)
