"""Faults of DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, GOAWAY and CONTINUATION at a server (RFC 9113, 6;
h2spec: http2/6.1 to 6.4, 6.8, 6.10 and 8.2)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.frames import END_HEADERS, END_STREAM, PADDED, Code, Kind
from tests.http2.peers import MORE_FIELDS, NO_WINDOW, ClientPeer

# 6.1: DATA.


def test_data_on_stream_0(peer: ClientPeer) -> None:
    """6.1: DATA belongs to a stream."""
    peer.send(frames.data(0, b"test", END_STREAM))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_data_on_a_stream_that_is_not_open(peer: ClientPeer) -> None:
    """6.1: DATA on a stream that is neither open nor half-closed (local) is an error STREAM_CLOSED."""
    peer.send(frames.settings(NO_WINDOW), peer.get(1), frames.data(1, b"test", END_STREAM))
    peer.expect_stream_error(1, Code.STREAM_CLOSED)


def test_data_with_more_padding_than_payload(peer: ClientPeer) -> None:
    """6.1: padding as long as the payload or longer ends the connection, PROTOCOL_ERROR."""
    peer.send(peer.post(1, ("content-length", "4")), frames.data(1, b"\x06test", PADDED | END_STREAM))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


# 6.2: HEADERS.


def test_headers_without_end_then_priority(peer: ClientPeer) -> None:
    """6.2: HEADERS without END_HEADERS is followed by CONTINUATION alone."""
    peer.send(frames.headers(1, peer.upload(), 0), frames.priority(1), frames.continuation(1, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_headers_without_end_then_another_stream(peer: ClientPeer) -> None:
    """6.2: and by that of the same stream."""
    peer.send(frames.headers(1, peer.upload(), 0), frames.continuation(3, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_headers_on_stream_0(peer: ClientPeer) -> None:
    """6.2: HEADERS belongs to a stream."""
    peer.send(peer.get(0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_headers_with_more_padding_than_payload(peer: ClientPeer) -> None:
    """6.2: padding that leaves no room for the block ends the connection, PROTOCOL_ERROR."""
    block = peer.block()
    content = bytes([len(block) + 1]) + block
    peer.send(frames.headers(1, content, END_HEADERS | END_STREAM | PADDED))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


# 6.3: PRIORITY.


def test_priority_on_stream_0(peer: ClientPeer) -> None:
    """6.3: PRIORITY belongs to a stream."""
    peer.send(frames.priority(0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_priority_of_another_length(peer: ClientPeer) -> None:
    """6.3: PRIORITY of other than five octets is an error of its stream, FRAME_SIZE_ERROR."""
    peer.send(peer.post(1), frames.frame(Kind.PRIORITY, 0, 1, frames.dependency()[:4]))
    peer.expect_stream_error(1, Code.FRAME_SIZE_ERROR)


# 6.4: RST_STREAM.


def test_rst_stream_on_stream_0(peer: ClientPeer) -> None:
    """6.4: RST_STREAM belongs to a stream."""
    peer.send(frames.rst_stream(0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_rst_stream_on_an_idle_stream(peer: ClientPeer) -> None:
    """6.4: to one that was opened."""
    peer.send(frames.rst_stream(1))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_rst_stream_of_another_length(peer: ClientPeer) -> None:
    """6.4: RST_STREAM of other than four octets ends the connection, FRAME_SIZE_ERROR."""
    peer.send(peer.post(1), frames.frame(Kind.RST_STREAM, 0, 1, bytes(3)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


# 6.6: PUSH_PROMISE.


def test_push_promise_by_a_client(peer: ClientPeer) -> None:
    """8.4: a client does not push; PUSH_PROMISE at a server ends the connection."""
    peer.send(peer.post(1), frames.push_promise(1, 3, peer.block()))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


# 6.8: GOAWAY.


def test_goaway_on_a_stream(peer: ClientPeer) -> None:
    """6.8: GOAWAY is about the connection: its stream id is 0."""
    peer.send(frames.frame(Kind.GOAWAY, 0, 1, bytes(8)))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_goaway_of_another_length(peer: ClientPeer) -> None:
    """4.2: GOAWAY with less than its eight octets is too small for what it must say."""
    peer.send(frames.frame(Kind.GOAWAY, 0, 0, bytes(7)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


# 6.10: CONTINUATION.


def test_continuations_until_the_end(peer: ClientPeer) -> None:
    """6.10: any number of CONTINUATIONs, until one has END_HEADERS."""
    peer.send(
        frames.headers(1, peer.block(), END_STREAM),
        frames.continuation(1, MORE_FIELDS, 0),
        frames.continuation(1, MORE_FIELDS),
    )
    peer.expect_headers(1)


def test_continuation_without_end_then_data(peer: ClientPeer) -> None:
    """6.10: CONTINUATION without END_HEADERS is followed by CONTINUATION alone."""
    peer.send(
        frames.headers(1, peer.upload(), 0),
        frames.continuation(1, MORE_FIELDS, 0),
        frames.data(1, b"test", END_STREAM),
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_continuation_on_stream_0(peer: ClientPeer) -> None:
    """6.10: CONTINUATION belongs to a stream."""
    peer.send(frames.headers(1, peer.block(), END_STREAM), frames.continuation(0, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_continuation_after_headers_with_end(peer: ClientPeer) -> None:
    """6.10: CONTINUATION follows a frame whose block is not ended; here HEADERS ended it."""
    peer.send(peer.post(1), frames.continuation(1, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_continuation_after_continuation_with_end(peer: ClientPeer) -> None:
    """6.10: here CONTINUATION ended it."""
    peer.send(
        frames.headers(1, peer.upload(), 0),
        frames.continuation(1, MORE_FIELDS),
        frames.continuation(1, MORE_FIELDS),
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_continuation_after_data(peer: ClientPeer) -> None:
    """6.10: here DATA came between."""
    peer.send(peer.post(1), frames.data(1, b"test"), frames.continuation(1, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.HEADERS], ids=["data", "headers"])
def test_padded_frame_without_a_length(peer: ClientPeer, kind: Kind) -> None:
    """4.2: a frame that says PADDED and has not even the length is too small for what it must say."""
    peer.send(peer.post(1), frames.frame(kind, PADDED | END_HEADERS | END_STREAM, 1, b""))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)
