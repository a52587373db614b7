"""Requests that are malformed (RFC 9113, 8.1 to 8.3; h2spec: http2/8.1). Each is an error of its stream alone."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.frames import END_HEADERS, END_STREAM, Code
from tests.http2.peers import ClientPeer

# As it is written after the pseudo fields of a request that is otherwise good.
CONNECTION_FIELDS = [
    ("connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
]
FORBIDDEN_OCTETS = [
    ("x test", "name with a space"),
    ("x:test", "name with a colon"),
    ("x-tést", "name above ASCII"),
    ("x-test", "value\r\nx-injected: yes"),
    ("x-test", "value\nlf"),
    ("x-test", "value\x00nul"),
    ("x-test", " value that begins with a space"),
    ("x-test", "value that ends with a tab\t"),
    ("", "no name"),
]


def refused(peer: ClientPeer, block: bytes) -> None:
    """The request is an error of its stream, and the connection serves on, unless it ended with that error."""
    peer.send(frames.headers(1, block))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def test_second_headers_without_end(peer: ClientPeer) -> None:
    """8.1: HEADERS after the body has begun is a trailer section, and ends the stream."""
    peer.send(peer.post(1), peer.post(1))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def test_name_in_upper_case(peer: ClientPeer) -> None:
    """8.2.1: field names are in lower case."""
    refused(peer, peer.block(("X-TEST", "ok")))


@pytest.mark.parametrize(("name", "value"), FORBIDDEN_OCTETS, ids=[repr(pair) for pair in FORBIDDEN_OCTETS])
def test_octets_that_no_field_may_have(peer: ClientPeer, name: str, value: str) -> None:
    """8.2.1: the least that is looked at: names are tokens, values have no NUL, CR, LF, and no space around them."""
    refused(peer, peer.block((name, value)))


# 8.3: pseudo fields.


def test_unknown_pseudo_field(peer: ClientPeer) -> None:
    """8.3: a pseudo field that is not defined makes a request malformed."""
    refused(peer, peer.block((":test", "ok")))


def test_pseudo_field_of_an_answer(peer: ClientPeer) -> None:
    """8.3: so does one that is defined for answers."""
    refused(peer, peer.block((":status", "200")))


def test_pseudo_field_in_trailers(peer: ClientPeer) -> None:
    """8.3: trailers have no pseudo fields."""
    peer.send(
        peer.post(1, ("trailer", "x-test")),
        frames.data(1, b"test"),
        frames.headers(1, frames.block([(":method", "GET"), ("x-test", "ok")])),
    )
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def test_pseudo_field_after_a_regular_one(peer: ClientPeer) -> None:
    """8.3: pseudo fields come before all others."""
    head = peer.head(without=":path")
    refused(peer, frames.block([*head, ("x-test", "ok"), (":path", "/healthz")]))


# 8.2.2: fields of a connection.


@pytest.mark.parametrize("field", CONNECTION_FIELDS, ids=[name for name, _ in CONNECTION_FIELDS])
def test_field_of_a_connection(peer: ClientPeer, field: tuple[str, str]) -> None:
    """8.2.2: what speaks of an HTTP/1.1 connection makes a request malformed."""
    refused(peer, peer.block(field))


def test_te_other_than_trailers(peer: ClientPeer) -> None:
    """8.2.2: TE may say trailers and nothing else."""
    refused(peer, peer.block(("trailers", "test"), ("te", "trailers, deflate")))


def test_te_trailers(peer: ClientPeer) -> None:
    """8.2.2: that it may say."""
    peer.send(frames.headers(1, peer.block(("te", "trailers"))))
    assert peer.expect_headers(1).fields[0] == (":status", "200")


# 8.3.1: the request's pseudo fields.


def test_empty_path(peer: ClientPeer) -> None:
    """8.3.1: :path is not empty."""
    refused(peer, peer.block(path=""))


@pytest.mark.parametrize("missing", [":method", ":scheme", ":path"])
def test_missing_pseudo_field(peer: ClientPeer, missing: str) -> None:
    """8.3.1: a request has one :method, one :scheme and one :path."""
    refused(peer, peer.block(without=missing))


@pytest.mark.parametrize("twice", [":method", ":scheme", ":path"])
def test_pseudo_field_twice(peer: ClientPeer, twice: str) -> None:
    """8.3.1: and not two, not even the same."""
    again = next(field for field in peer.head() if field[0] == twice)
    refused(peer, peer.block(again))


# 8.1.1: what a message says of its own length.


@pytest.mark.parametrize(
    "sizes",
    [pytest.param([4], id="one-frame"), pytest.param([2, 2], id="several-frames"), pytest.param([0], id="no-body")],
)
@pytest.mark.parametrize("length", ["1", "5"], ids=["shorter", "longer"])
def test_content_length_that_is_not_the_length(peer: ClientPeer, sizes: list[int], length: str) -> None:
    """8.1.1: a content-length unlike the sum of the DATA makes a request malformed."""
    pieces = [frames.data(1, b"x" * size, END_STREAM if at == len(sizes) - 1 else 0) for at, size in enumerate(sizes)]
    peer.send(peer.post(1, ("content-length", length)), *pieces)
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def test_content_length_without_a_body(peer: ClientPeer) -> None:
    """8.1.1: also when HEADERS ends the stream."""
    peer.send(frames.headers(1, peer.upload(("content-length", "4")), END_HEADERS | END_STREAM))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def test_the_connection_outlives_a_malformed_request(peer: ClientPeer) -> None:
    """8.1.1: a malformed request is an error of its stream: others are served on."""
    peer.send(frames.headers(1, peer.block(("connection", "close"))))
    peer.expect_reset(1, Code.PROTOCOL_ERROR)
    peer.send(peer.get(3))
    peer.expect_headers(3)
