"""What a server does in each state of a stream, and with its ids (RFC 9113, 5.1, 5.3; h2spec: http2/5.1 and 5.3)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.frames import END_HEADERS, END_STREAM, WITH_PRIORITY, Code, Setting
from tests.http2.peers import MORE_FIELDS, NO_WINDOW, ClientPeer

# What a stream may not carry any more. CONTINUATION without a block before it is a fault of its own.
CLOSED_OR_FAULT = (Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)
# How many streams a script opens at most to find the bound.
MOST_STREAMS = 1000


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frames.data(1, b"test", END_STREAM), id="data"),
        pytest.param(frames.rst_stream(1), id="rst_stream"),
        pytest.param(frames.window_update(1, 100), id="window_update"),
        pytest.param(frames.continuation(1, MORE_FIELDS), id="continuation"),
    ],
)
def test_idle(peer: ClientPeer, sent: bytes) -> None:
    """5.1, idle: anything but HEADERS and PRIORITY ends the connection, PROTOCOL_ERROR."""
    peer.send(sent)
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def half_closed(peer: ClientPeer) -> bytes:
    """A stream that cannot be closed by its answer: there is no window for it."""
    return frames.settings(NO_WINDOW) + peer.get(1)


def test_data_on_a_half_closed_stream(peer: ClientPeer) -> None:
    """5.1, half-closed (remote): DATA after END_STREAM is an error of the stream, STREAM_CLOSED."""
    peer.send(half_closed(peer), frames.data(1, b"test", END_STREAM))
    peer.expect_stream_error(1, Code.STREAM_CLOSED)


def test_headers_on_a_half_closed_stream(peer: ClientPeer) -> None:
    """5.1, half-closed (remote): HEADERS after END_STREAM is an error of the stream, STREAM_CLOSED."""
    peer.send(half_closed(peer), peer.get(1))
    peer.expect_stream_error(1, Code.STREAM_CLOSED)


def test_continuation_on_a_half_closed_stream(peer: ClientPeer) -> None:
    """5.1, half-closed (remote): so is CONTINUATION, which also has no block to go on with."""
    peer.send(half_closed(peer), frames.continuation(1, MORE_FIELDS))
    peer.expect_stream_error(1, *CLOSED_OR_FAULT)


def reset(peer: ClientPeer) -> bytes:
    return peer.post(1) + frames.rst_stream(1, Code.CANCEL)


def test_data_after_rst_stream(peer: ClientPeer) -> None:
    """5.1, closed: who has sent RST_STREAM sends nothing but PRIORITY; DATA is an error STREAM_CLOSED."""
    peer.send(reset(peer), frames.data(1, b"test", END_STREAM))
    peer.expect_stream_error(1, Code.STREAM_CLOSED)


def test_headers_after_rst_stream(peer: ClientPeer) -> None:
    """5.1, closed: who has sent RST_STREAM sends no HEADERS there."""
    peer.send(reset(peer), peer.get(1))
    peer.expect_stream_error(1, Code.STREAM_CLOSED)


def test_continuation_after_rst_stream(peer: ClientPeer) -> None:
    """5.1, closed: who has sent RST_STREAM sends no CONTINUATION there."""
    peer.send(reset(peer), frames.continuation(1, MORE_FIELDS))
    peer.expect_stream_error(1, *CLOSED_OR_FAULT)


def test_data_on_a_closed_stream(peer: ClientPeer) -> None:
    """5.1, closed: DATA after both sides ended the stream is STREAM_CLOSED, of the stream (6.1) or the connection."""
    peer.send(peer.get(1))
    peer.expect_end(1)
    peer.send(frames.data(1, b"test", END_STREAM))
    peer.expect_stream_error(1, Code.STREAM_CLOSED)


def test_headers_on_a_closed_stream(peer: ClientPeer) -> None:
    """5.1, closed: HEADERS after both sides ended the stream end the connection, STREAM_CLOSED."""
    peer.send(peer.get(1))
    peer.expect_end(1)
    peer.send(peer.get(1))
    peer.expect_connection_error(Code.STREAM_CLOSED)


def test_continuation_on_a_closed_stream(peer: ClientPeer) -> None:
    """5.1, closed: CONTINUATION after both sides ended the stream ends the connection."""
    peer.send(peer.get(1))
    peer.expect_end(1)
    peer.send(frames.continuation(1, MORE_FIELDS))
    peer.expect_connection_error(*CLOSED_OR_FAULT)


# 5.1.1: stream ids.


def test_even_stream_id(peer: ClientPeer) -> None:
    """5.1.1: a client's streams have odd ids."""
    peer.send(peer.get(2))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_lower_stream_id(peer: ClientPeer) -> None:
    """5.1.1: a new stream's id is greater than all before."""
    peer.send(peer.get(5))
    peer.expect_end(5)
    peer.send(peer.get(3))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_stream_above_the_concurrent_ones(peer: ClientPeer) -> None:
    """5.1.2: a stream too many is refused, by PROTOCOL_ERROR or REFUSED_STREAM."""
    most = peer.settings.get(Setting.MAX_CONCURRENT_STREAMS)
    assert most is not None, "the server does not bound its streams"
    assert most <= MOST_STREAMS
    ids = range(1, 2 * most + 2, 2)
    # No window: no answer ends.
    peer.send(frames.settings(NO_WINDOW), *(peer.get(stream) for stream in ids))
    peer.expect_stream_error(ids[-1], Code.PROTOCOL_ERROR, Code.REFUSED_STREAM)


# The old priority scheme (RFC 7540, 5.3.1, which 9113 deprecates): nobody needs it, its one rule is still held.


def test_headers_that_depend_on_themselves(peer: ClientPeer) -> None:
    """7540, 5.3.1: a stream cannot depend on itself."""
    content = frames.dependency(1) + peer.block()
    peer.send(frames.headers(1, content, END_HEADERS | END_STREAM | WITH_PRIORITY))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def test_priority_that_depends_on_itself(peer: ClientPeer) -> None:
    """7540, 5.3.1: not by PRIORITY either."""
    peer.send(frames.priority(1, on=1))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)
