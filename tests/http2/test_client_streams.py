"""The relay as an HTTP/2 client: stream states and ids, faulty DATA, HEADERS, PRIORITY, RST_STREAM and PUSH_PROMISE
(RFC 9113, 5.1, 6.1 to 6.4, 6.6; h2spec's client tests 5.1, 6.1 to 6.4)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.asking import Asked
from tests.http2.frames import END_HEADERS, END_STREAM, PADDED, Code, Kind
from tests.http2.peers import MORE_FIELDS, RESPONSE

# What a stream may not carry any more. CONTINUATION without a block before it is a fault of its own.
CLOSED_OR_FAULT = (Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frames.data(2, b"test", END_STREAM), id="data"),
        pytest.param(frames.rst_stream(2), id="rst_stream"),
        pytest.param(frames.window_update(2, 100), id="window_update"),
        pytest.param(frames.continuation(2, MORE_FIELDS), id="continuation"),
    ],
)
def test_idle(asked: Asked, sent: bytes) -> None:
    """5.1, idle: anything but HEADERS and PRIORITY ends the connection, PROTOCOL_ERROR."""
    asked.peer.send(sent)
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


# A stream that the server itself has reset.


def begun_and_reset(asked: Asked) -> bytes:
    return frames.headers(asked.stream, RESPONSE, END_HEADERS) + frames.rst_stream(asked.stream, Code.CANCEL)


def test_data_after_rst_stream(asked: Asked) -> None:
    """5.1, closed: who has sent RST_STREAM sends nothing but PRIORITY; DATA is an error STREAM_CLOSED."""
    asked.peer.send(begun_and_reset(asked), frames.data(asked.stream, b"test", END_STREAM))
    asked.peer.expect_stream_error(asked.stream, Code.STREAM_CLOSED)
    asked.failed()


def test_headers_after_rst_stream(asked: Asked) -> None:
    """5.1, closed: who has sent RST_STREAM sends no HEADERS there."""
    asked.peer.send(begun_and_reset(asked), frames.headers(asked.stream, RESPONSE))
    asked.peer.expect_stream_error(asked.stream, Code.STREAM_CLOSED)
    asked.failed()


def test_continuation_after_rst_stream(asked: Asked) -> None:
    """5.1, closed: who has sent RST_STREAM sends no CONTINUATION there."""
    asked.peer.send(begun_and_reset(asked), frames.continuation(asked.stream, MORE_FIELDS))
    asked.peer.expect_stream_error(asked.stream, *CLOSED_OR_FAULT)
    asked.failed()


# A stream that has ended. Both come in one read: whether the answer got through is not the point.


def test_data_on_a_closed_stream(asked: Asked) -> None:
    """5.1, closed: DATA after both sides ended the stream is STREAM_CLOSED, of the stream (6.1) or the connection."""
    asked.peer.send(frames.headers(asked.stream, RESPONSE), frames.data(asked.stream, b"test", END_STREAM))
    asked.peer.expect_stream_error(asked.stream, Code.STREAM_CLOSED)
    asked.settled()


def test_headers_on_a_closed_stream(asked: Asked) -> None:
    """5.1, closed: HEADERS after both sides ended the stream end the connection, STREAM_CLOSED."""
    asked.peer.send(frames.headers(asked.stream, RESPONSE), frames.headers(asked.stream, RESPONSE))
    asked.peer.expect_connection_error(Code.STREAM_CLOSED)
    asked.settled()


def test_continuation_on_a_closed_stream(asked: Asked) -> None:
    """5.1, closed: CONTINUATION after both sides ended the stream ends the connection."""
    asked.peer.send(frames.headers(asked.stream, RESPONSE), frames.continuation(asked.stream, MORE_FIELDS))
    asked.peer.expect_connection_error(*CLOSED_OR_FAULT)
    asked.settled()


@pytest.mark.parametrize("late", [False, True], ids=["in-one-read", "when-the-answer-is-through"])
def test_an_answer_is_not_longer_than_it_said(asked: Asked, late: bool) -> None:
    """5.1, closed: DATA behind END_STREAM is no part of the answer, whenever it comes."""
    whole = frames.headers(asked.stream, RESPONSE, END_HEADERS) + frames.data(asked.stream, b"answer", END_STREAM)
    if late:
        asked.peer.send(whole)
        asked.whole()
        asked.peer.send(frames.data(asked.stream, b" and more", END_STREAM))
        asked.peer.expect_stream_error(asked.stream, Code.STREAM_CLOSED)
        return
    asked.peer.send(whole, frames.data(asked.stream, b" and more", END_STREAM))
    outcome = asked.call.outcome()
    assert outcome.body in (b"", b"answer") or outcome.status != 200


def test_unexpected_stream_id(asked: Asked) -> None:
    """5.1.1: a server answers streams that the client opened; any other id ends the connection."""
    asked.peer.send(frames.headers(101, RESPONSE))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


# 6.1: DATA.


def test_data_on_stream_0(asked: Asked) -> None:
    """6.1: DATA belongs to a stream."""
    asked.peer.send(frames.data(0, b"test", END_STREAM))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_data_on_a_stream_that_is_not_open(asked: Asked) -> None:
    """6.1: DATA on a stream that is neither open nor half-closed (local) is an error STREAM_CLOSED."""
    asked.peer.answer(asked.stream)
    asked.peer.send(frames.data(asked.stream, b"test", END_STREAM))
    asked.peer.expect_stream_error(asked.stream, Code.STREAM_CLOSED)
    asked.settled()


def test_data_with_more_padding_than_payload(asked: Asked) -> None:
    """6.1: padding as long as the payload or longer ends the connection, PROTOCOL_ERROR."""
    asked.begin()
    asked.peer.send(frames.data(asked.stream, b"\x06test", PADDED | END_STREAM))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_padding_is_no_part_of_the_body(asked: Asked) -> None:
    """6.1: DATA may be padded."""
    asked.begin()
    asked.peer.send(frames.data(asked.stream, frames.padded(b"answer", 9), PADDED | END_STREAM))
    asked.whole()


# 6.2: HEADERS.


def test_headers_without_end_then_priority(asked: Asked) -> None:
    """6.2: HEADERS without END_HEADERS is followed by CONTINUATION alone."""
    asked.peer.send(
        frames.headers(asked.stream, RESPONSE, 0),
        frames.priority(asked.stream),
        frames.continuation(asked.stream, MORE_FIELDS),
    )
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_headers_on_stream_0(asked: Asked) -> None:
    """6.2: HEADERS belongs to a stream."""
    asked.peer.send(frames.headers(0, RESPONSE))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_headers_with_more_padding_than_payload(asked: Asked) -> None:
    """6.2: padding that leaves no room for the block ends the connection, PROTOCOL_ERROR."""
    content = bytes([len(RESPONSE) + 1]) + RESPONSE
    asked.peer.send(frames.headers(asked.stream, content, END_HEADERS | PADDED))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


# 6.3: PRIORITY.


def test_priority_on_stream_0(asked: Asked) -> None:
    """6.3: PRIORITY belongs to a stream."""
    asked.peer.send(frames.priority(0))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_priority_of_another_length(asked: Asked) -> None:
    """6.3: PRIORITY of other than five octets is an error of its stream, FRAME_SIZE_ERROR."""
    asked.begin()
    asked.peer.send(frames.frame(Kind.PRIORITY, 0, asked.stream, frames.dependency()[:4]))
    asked.peer.expect_stream_error(asked.stream, Code.FRAME_SIZE_ERROR)
    asked.failed()


# 6.4: RST_STREAM.


def test_rst_stream_on_stream_0(asked: Asked) -> None:
    """6.4: RST_STREAM belongs to a stream."""
    asked.peer.send(frames.rst_stream(0))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_rst_stream_on_an_idle_stream(asked: Asked) -> None:
    """6.4: to one that was opened."""
    asked.peer.send(frames.rst_stream(asked.stream + 2))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_rst_stream_of_another_length(asked: Asked) -> None:
    """6.4: RST_STREAM of other than four octets ends the connection, FRAME_SIZE_ERROR."""
    asked.begin()
    asked.peer.send(frames.frame(Kind.RST_STREAM, 0, asked.stream, bytes(3)))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


@pytest.mark.parametrize("code", [*Code, 0xFF], ids=lambda code: Code(code).name if code in list(Code) else "unknown")
def test_an_answer_that_was_reset_is_not_whole(asked: Asked, code: int) -> None:
    """6.4, 7: RST_STREAM ends a stream early, whatever its code says; NO_ERROR too."""
    asked.begin(b"so far")
    asked.peer.send(frames.rst_stream(asked.stream, code), frames.ping(b"still on"))
    asked.failed()
    asked.peer.expect_close_or_ping_ack(b"still on")
    assert not [came for came in asked.peer.seen if came.kind == Kind.RST_STREAM]


# 6.6: PUSH_PROMISE.


def test_push_that_nobody_wanted(asked: Asked) -> None:
    """6.6: after SETTINGS_ENABLE_PUSH of 0 was acknowledged, PUSH_PROMISE ends the connection."""
    request = frames.block([(":method", "GET"), (":scheme", "http"), (":path", "/pushed"), (":authority", "x")])
    asked.peer.send(frames.push_promise(asked.stream, 2, request))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()
