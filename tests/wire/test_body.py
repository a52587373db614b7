"""Bodies that a length or the connection's end delimits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.wire.body import Body, ConnectionBody, LengthBody
from tests.wire.splits import PLACES, cut, splits
from tests.wire.test_chunked import Consumer


def receive(body: Body, consumer: Consumer, pieces: list[bytes]) -> bytes:
    """Feed the pieces until the end; returns what the body did not want."""
    body.pour(consumer)
    for at, piece in enumerate(pieces):
        body.receive(piece)
        if consumer.told:
            assert consumer.rest is not None
            return consumer.rest + b"".join(pieces[at + 1 :])
    return b""


def test_a_length_ends_the_body_at_every_split() -> None:
    for pieces in splits(b"hello" + b"HTTP/1.1"):
        consumer = Consumer()
        body = LengthBody(consumer, 5)
        assert receive(body, consumer, pieces) == b"HTTP/1.1"
        assert consumer.body == b"hello"
        assert all(consumer.payloads)
        body.eof()
        assert (consumer.told, consumer.error) == (1, None)


@given(st.binary(min_size=1, max_size=100), st.binary(max_size=20), PLACES)
def test_length_in_any_pieces(data: bytes, behind: bytes, places: list[int]) -> None:
    consumer = Consumer()
    assert receive(LengthBody(consumer, len(data)), consumer, cut(data + behind, places)) == behind
    assert consumer.body == data


def test_a_read_that_lies_within_the_body_goes_on_as_the_same_object() -> None:
    consumer = Consumer()
    body = LengthBody(consumer, 10)
    body.pour(consumer)
    pieces = [bytes([65]) * 6, bytes([66]) * 4]
    for piece in pieces:
        body.receive(piece)
    assert [payload is piece for payload, piece in zip(consumer.payloads, pieces, strict=True)] == [True, True]


def test_an_end_before_the_length_is_a_mistake() -> None:
    for size in range(5):
        consumer = Consumer()
        body = LengthBody(consumer, 5)
        receive(body, consumer, [b"hello"[:size]] if size else [])
        body.eof()
        assert consumer.error is not None
        assert (consumer.told, consumer.body) == (1, b"hello"[:size])


def test_the_connections_end_ends_a_body_without_a_length() -> None:
    for pieces in splits(b"anything\r\n\r\n at all"):
        consumer = Consumer()
        body = ConnectionBody(consumer)
        receive(body, consumer, pieces)
        assert consumer.told == 0
        body.eof()
        assert (consumer.payloads, consumer.rest, consumer.told) == (pieces, b"", 1)


def test_a_spilled_body_still_knows_its_end() -> None:
    consumer = Consumer()
    body = LengthBody(consumer, 6)
    body.pour(consumer)
    body.receive(b"abc")
    body.spill()
    body.receive(b"defG")
    assert (consumer.payloads, consumer.rest) == ([b"abc"], b"G")
