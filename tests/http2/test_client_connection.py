"""The relay as an HTTP/2 client: preface, frame layout, sizes, field blocks, connection errors (RFC 9113, 3.4, 4, 5.4,
5.5; h2spec's client tests 1, 4, 5.4.1, 5.5)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.asking import Asked, Origin
from tests.http2.frames import END_HEADERS, END_STREAM, MAX_FRAME, Code, Kind
from tests.http2.peers import MORE_FIELDS, RESPONSE

UNKNOWN = 0x16
OF_A_CONNECTION = ("connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
FAULTY_PING = frames.frame(Kind.PING, 0, 3, bytes(8))


def test_an_exchange(asked: Asked) -> None:
    """3.4, 8.1 to 8.3: preface, SETTINGS, acknowledgment, a request with its pseudo fields first, and its answer."""
    names = [name for name, _ in asked.head.fields]
    pseudo = [name for name in names if name.startswith(":")]
    assert sorted(pseudo) == [":authority", ":method", ":path", ":scheme"]
    assert names[:4] == pseudo
    assert not [name for name in names if name != name.lower() or name in OF_A_CONNECTION]
    asked.peer.answer(asked.stream)
    asked.whole()


def test_the_client_does_not_want_pushes(asked: Asked) -> None:
    """6.5.2: who has no use for PUSH_PROMISE says so in its SETTINGS."""
    assert asked.peer.settings.get(frames.Setting.ENABLE_PUSH) == 0
    asked.peer.answer(asked.stream)
    asked.whole()


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", id="http/1.1"),
        pytest.param(frames.ping(b"too soon"), id="ping"),
    ],
)
def test_a_server_that_does_not_begin_with_settings(origin: Origin, first: bytes) -> None:
    """3.4: a server's preface is a SETTINGS frame; anything else is a connection error."""
    call = origin.call()
    peer = origin.accept()
    peer.expect_preface()
    peer.send(first)
    peer.expect_connection_error(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)
    outcome = call.outcome()
    assert outcome.status in (502, 504) or not outcome.clean, outcome


# 4.1: the frame format.


@pytest.mark.parametrize("stream", [0, 1])
def test_frame_of_unknown_type(asked: Asked, stream: int) -> None:
    """4.1 and 5.5: a frame of unknown type is ignored."""
    asked.peer.send(frames.frame(UNKNOWN, 0, stream, bytes(8)))
    asked.peer.expect_alive()
    asked.peer.answer(asked.stream)
    asked.whole()


def test_undefined_flags(asked: Asked) -> None:
    """4.1: flags without a meaning for this type are ignored."""
    asked.peer.send(frames.ping(b"with bit", 0x16))
    asked.peer.expect_ping_ack(b"with bit")
    asked.peer.answer(asked.stream)
    asked.whole()


def test_reserved_bit(asked: Asked) -> None:
    """4.1: the bit in front of the stream id is ignored."""
    asked.peer.send(frames.frame(Kind.PING, 0, 0x80000000, b"with bit"))
    asked.peer.expect_ping_ack(b"with bit")
    asked.peer.answer(asked.stream)
    asked.whole()


# 4.2: the frame size.


def test_data_of_the_greatest_size(asked: Asked) -> None:
    """4.2: everybody takes frames of 2^14 octets."""
    content = b"x" * MAX_FRAME
    asked.begin(content)
    asked.peer.expect_alive()
    asked.peer.send(frames.data(asked.stream, b"", END_STREAM))
    asked.whole(content)


def test_data_above_the_greatest_size(asked: Asked) -> None:
    """4.2: a frame above SETTINGS_MAX_FRAME_SIZE is a FRAME_SIZE_ERROR."""
    greatest = asked.peer.settings.get(frames.Setting.MAX_FRAME_SIZE, MAX_FRAME)
    asked.peer.answer(asked.stream, bytes(greatest + 1))
    asked.peer.expect_stream_error(asked.stream, Code.FRAME_SIZE_ERROR)
    asked.failed()


def test_headers_above_the_greatest_size(asked: Asked) -> None:
    """4.2: where it changes the connection's state, as a field block does, it ends the connection."""
    greatest = asked.peer.settings.get(frames.Setting.MAX_FRAME_SIZE, MAX_FRAME)
    asked.peer.send(frames.headers(asked.stream, RESPONSE + frames.block([("x-long", "y" * greatest)])))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


# 4.3: field blocks. More of them are in test_client_messages.


def test_block_that_cannot_be_decoded(asked: Asked) -> None:
    """4.3: a decoding error in a field block ends the connection, COMPRESSION_ERROR."""
    asked.peer.send(frames.headers(asked.stream, b"\x40"))
    asked.peer.expect_connection_error(Code.COMPRESSION_ERROR)
    asked.failed()


# 5.4.1: how a connection ends in error.


def test_the_connection_is_closed_after_an_error(asked: Asked) -> None:
    """5.4.1: after GOAWAY for an error the endpoint closes the TCP connection."""
    asked.peer.send(FAULTY_PING)
    asked.peer.expect_close()
    asked.failed()


def test_goaway_names_the_error(asked: Asked) -> None:
    """5.4.1: GOAWAY comes first, with the error's code."""
    asked.peer.send(FAULTY_PING)
    asked.peer.expect_goaway(Code.PROTOCOL_ERROR)
    asked.failed()


def test_an_answer_under_way_is_cut_by_an_error(asked: Asked) -> None:
    """5.4.1: streams end with their connection; what was relayed of them does not look whole."""
    asked.begin(b"so far")
    asked.peer.send(FAULTY_PING)
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


# 6.10: field blocks in pieces.


def test_continuations(asked: Asked) -> None:
    """6.10: any number of CONTINUATIONs, until one has END_HEADERS."""
    asked.peer.send(
        frames.headers(asked.stream, RESPONSE, 0),
        frames.continuation(asked.stream, MORE_FIELDS, 0),
        frames.continuation(asked.stream, MORE_FIELDS),
    )
    asked.peer.expect_alive()
    asked.peer.send(frames.data(asked.stream, b"answer", END_STREAM))
    asked.whole()


def test_continuation_without_end_then_data(asked: Asked) -> None:
    """6.10: CONTINUATION without END_HEADERS is followed by CONTINUATION alone."""
    asked.peer.send(
        frames.headers(asked.stream, RESPONSE, 0),
        frames.continuation(asked.stream, MORE_FIELDS, 0),
        frames.data(asked.stream, b"test", END_STREAM),
    )
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_continuation_on_stream_0(asked: Asked) -> None:
    """6.10: CONTINUATION belongs to a stream."""
    asked.peer.send(frames.headers(asked.stream, RESPONSE, END_STREAM), frames.continuation(0, MORE_FIELDS))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_continuation_after_headers_with_end(asked: Asked) -> None:
    """6.10: CONTINUATION follows a frame whose block is not ended; here HEADERS ended it."""
    asked.peer.send(frames.headers(asked.stream, RESPONSE, END_HEADERS), frames.continuation(asked.stream, MORE_FIELDS))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_continuation_after_continuation_with_end(asked: Asked) -> None:
    """6.10: here CONTINUATION ended it."""
    asked.peer.send(
        frames.headers(asked.stream, RESPONSE, 0),
        frames.continuation(asked.stream, MORE_FIELDS),
        frames.continuation(asked.stream, MORE_FIELDS),
    )
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_continuation_after_data(asked: Asked) -> None:
    """6.10: here DATA came between."""
    asked.begin(b"test")
    asked.peer.send(frames.continuation(asked.stream, MORE_FIELDS))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()
