"""The relay as an HTTP/2 client: answers that are malformed (RFC 9113, 8.1 to 8.3). Each is an error of its stream, and
none of them reaches the caller as if it were an answer (8.1.1: an intermediary does not pass them on)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.asking import Asked
from tests.http2.frames import END_HEADERS, END_STREAM, Code, string, table_size
from tests.http2.peers import RESPONSE

STATUS = (":status", "200")
MALFORMED = {
    "no-status": [("content-type", "text/plain")],
    "empty-status": [(":status", "")],
    "status-of-two-digits": [(":status", "20")],
    "status-that-is-no-number": [(":status", "abc")],
    "two-statuses": [STATUS, STATUS],
    "pseudo-field-of-a-request": [STATUS, (":path", "/")],
    "unknown-pseudo-field": [STATUS, (":test", "ok")],
    "status-after-a-field": [("x-test", "ok"), STATUS],
    "name-in-upper-case": [STATUS, ("X-TEST", "ok")],
    "name-with-a-space": [STATUS, ("x test", "ok")],
    "empty-name": [STATUS, ("", "ok")],
    "line-end-in-a-value": [STATUS, ("x-test", "ok\r\nset-cookie: injected=1")],
    "nul-in-a-value": [STATUS, ("x-test", "o\x00k")],
    "connection": [STATUS, ("connection", "close")],
    "transfer-encoding": [STATUS, ("transfer-encoding", "chunked")],
    "keep-alive": [STATUS, ("keep-alive", "timeout=5")],
    "upgrade": [STATUS, ("upgrade", "h2c")],
    "switching-protocols": [(":status", "101")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_head(asked: Asked, fields: list[tuple[str, str]]) -> None:
    """8.2, 8.3: fields that make an answer malformed."""
    asked.peer.send(
        frames.headers(asked.stream, frames.block(fields), END_HEADERS),
        frames.data(asked.stream, b"answer", END_STREAM),
    )
    asked.peer.expect_stream_error(asked.stream, Code.PROTOCOL_ERROR)
    asked.failed()


@pytest.mark.parametrize(("length", "content"), [("1", b"test"), ("9", b"test"), ("4", b""), ("x", b"test")], ids=str)
def test_content_length_that_is_not_the_length(asked: Asked, length: str, content: bytes) -> None:
    """8.1.1: a content-length unlike the sum of the DATA makes an answer malformed, on a stream that is over then."""
    head = frames.block([STATUS, ("content-length", length)])
    asked.peer.send(frames.headers(asked.stream, head, END_HEADERS), frames.data(asked.stream, content, END_STREAM))
    asked.failed()


def test_data_before_headers(asked: Asked) -> None:
    """8.1: an answer begins with HEADERS."""
    asked.peer.send(frames.data(asked.stream, b"test", END_STREAM))
    asked.peer.expect_stream_error(asked.stream, Code.PROTOCOL_ERROR)
    asked.failed()


def test_second_headers_without_end(asked: Asked) -> None:
    """8.1: HEADERS after the final answer's is a trailer section, and ends the stream."""
    asked.begin(b"so far")
    asked.peer.send(frames.headers(asked.stream, RESPONSE, END_HEADERS))
    asked.peer.expect_stream_error(asked.stream, Code.PROTOCOL_ERROR)
    asked.failed()


def test_pseudo_field_in_trailers(asked: Asked) -> None:
    """8.3: trailers have no pseudo fields."""
    asked.begin(b"so far")
    asked.peer.send(frames.headers(asked.stream, frames.block([STATUS])))
    asked.failed()


def test_interim_answer_that_ends_the_stream(asked: Asked) -> None:
    """8.1: HEADERS with END_STREAM that carries an informational status is malformed."""
    asked.peer.send(frames.headers(asked.stream, frames.block([(":status", "103")])))
    asked.failed()


def test_interim_answers_come_before_the_final_one(asked: Asked) -> None:
    """8.1: any number of HEADERS with 1xx, then the answer."""
    interim = frames.headers(asked.stream, frames.block([(":status", "103"), ("link", "</x>")]), END_HEADERS)
    asked.peer.send(interim, interim)
    asked.peer.answer(asked.stream)
    asked.whole()


def test_trailers_end_an_answer(asked: Asked) -> None:
    """8.1: a trailer section with END_STREAM is a good end."""
    asked.begin(b"answer")
    asked.peer.send(frames.headers(asked.stream, frames.block([("x-test", "ok")])))
    asked.whole()


def test_an_answer_without_a_body(asked: Asked) -> None:
    """8.1: HEADERS with END_STREAM is a whole answer."""
    asked.peer.send(frames.headers(asked.stream, RESPONSE))
    asked.whole(b"")


def test_an_answer_before_its_end(asked: Asked) -> None:
    """8.1: an answer ends with END_STREAM; a connection that closes before has cut it."""
    asked.begin(b"so far")
    asked.peer.close()
    asked.failed()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(RESPONSE + b"\x80", id="index-0"),
        pytest.param(RESPONSE + b"\xc6", id="index-behind-both-tables"),
        pytest.param(RESPONSE + b"\x7f\x07" + string("ok"), id="name-index-behind-both-tables"),
        pytest.param(RESPONSE + table_size(1), id="table-size-at-the-end"),
        pytest.param(table_size(2**24) + RESPONSE, id="table-size-above-the-setting"),
        pytest.param(RESPONSE + b"\x00\x01x\x83\x3f\x5f\xff", id="huffman-padding-of-more-than-7-bits"),
        pytest.param(RESPONSE + b"\x00\x01x\x82\x3f\x50", id="huffman-padding-of-zeros"),
        pytest.param(RESPONSE + b"\x00\x01x\x85\x3f\xff\xff\xff\xff", id="huffman-end-of-string"),
        pytest.param(RESPONSE + b"\x00\x01x\x05ok", id="value-cut"),
    ],
)
def test_block_that_cannot_be_decoded(asked: Asked, block: bytes) -> None:
    """4.3 and RFC 7541: a decoding error ends the connection, COMPRESSION_ERROR."""
    asked.peer.send(frames.headers(asked.stream, block, END_HEADERS))
    asked.peer.expect_connection_error(Code.COMPRESSION_ERROR)
    asked.failed()
