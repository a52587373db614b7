"""The chunked coding, both ways, with h11 as a peer that nobody here wrote."""

from __future__ import annotations

from collections.abc import Callable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RemoteProtocolError
from relay.wire import chunked
from relay.wire.body import Body
from relay.wire.chunked import ChunkedBody
from relay.wire.input import INPUT
from tests.wire.splits import PLACES, cut, splits


class Consumer:
    """Who reads a body, and stops reading when told of its end, as a connection does."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.rest: bytes | None = None
        self.error: RemoteProtocolError | None = None
        self.told = 0

    def feed(self, payload: bytes) -> None:
        self.payloads.append(payload)

    def body_ended(self, rest: bytes) -> None:
        self.told += 1
        self.rest = rest

    def body_failed(self, error: RemoteProtocolError) -> None:
        self.told += 1
        self.error = error

    @property
    def body(self) -> bytes:
        return b"".join(self.payloads)


def receive(pieces: list[bytes], *, eof: bool = False) -> Consumer:
    """What comes of it, whether the pieces are given or stand in the buffer, in front of what earlier reads left."""
    given, stood = _receive(pieces, ChunkedBody.receive, eof), _receive(pieces, _take, eof)
    assert (stood.body, stood.rest, stood.told) == (given.body, given.rest, given.told)
    assert str(stood.error) == str(given.error)
    return stood


def _take(body: Body, piece: bytes) -> None:
    left = piece + b"\r\n" + WHOLE["one"]
    INPUT[: len(left)] = left
    body.take(len(piece))


def _receive(pieces: list[bytes], read: Callable[[ChunkedBody, bytes], None], eof: bool) -> Consumer:
    consumer = Consumer()
    body = ChunkedBody(consumer)
    body.pour(consumer)
    for at, piece in enumerate(pieces):
        read(body, piece)
        if consumer.told:
            if consumer.rest is not None:
                consumer.rest += b"".join(pieces[at + 1 :])
            break
    else:
        if eof:
            body.eof()
    return consumer


WHOLE = {
    "one": b"5\r\nhello\r\n0\r\n\r\n",
    "two": b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
    "upper case and zeros": b"000A\r\n0123456789\r\n0000\r\n\r\n",
    "extensions": b'5;a=b;c="d e"\r\nhello\r\n1 \t;x\r\n!\r\n0;last\r\n\r\n',
    "trailers": b"5\r\nhello\r\n0\r\nA: 1\r\nContent-Length: 7\r\n\r\n",
    "line ends in data": b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
    "empty": b"0\r\n\r\n",
}


@pytest.mark.parametrize("coded", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_body_is_the_same_at_every_split(coded: bytes, behind: bytes) -> None:
    expected = receive([coded]).body
    for pieces in splits(coded + behind):
        consumer = receive(pieces, eof=True)
        assert (consumer.body, consumer.rest, consumer.error, consumer.told) == (expected, behind, None, 1)


TOKEN = st.text("abcxyz019-_", min_size=1, max_size=8).map(str.encode)
EXTENSION = st.one_of(st.just(b""), TOKEN.map(lambda token: b";" + token), TOKEN.map(lambda t: b' ; a="' + t + b'"'))
CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=60), EXTENSION, st.integers(0, 4), st.booleans()), max_size=8
)
TRAILERS = st.lists(TOKEN.map(lambda token: b"x-" + token + b": v\r\n"), max_size=3)


@given(CHUNKS, EXTENSION, TRAILERS, PLACES, st.binary(max_size=20))
def test_any_layout_in_any_pieces_gives_the_payloads(
    chunks: list[tuple[bytes, bytes, int, bool]], last: bytes, trailers: list[bytes], places: list[int], behind: bytes
) -> None:
    coded = b"".join(
        b"0" * zeros + (b"%X" if upper else b"%x") % len(data) + extension + b"\r\n" + data + b"\r\n"
        for data, extension, zeros, upper in chunks
    )
    coded += b"0" + last + b"\r\n" + b"".join(trailers) + b"\r\n"
    consumer = receive(cut(coded + behind, places), eof=True)
    assert consumer.body == b"".join(chunk[0] for chunk in chunks)
    assert all(consumer.payloads), "a payload is never empty"
    assert (consumer.rest, consumer.told) == (behind, 1)


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1), PLACES)
def test_a_read_that_holds_several_chunks_is_one_payload(payloads: list[bytes], places: list[int]) -> None:
    coded = b"".join(map(chunked.encode, payloads))
    assert receive([coded]).payloads == [b"".join(payloads)]
    pieces = cut(coded, places)
    assert len(receive(pieces).payloads) <= len(pieces)


BROKEN = {
    "no size": b"\r\nhello\r\n",
    "sign": b"+5\r\nhello\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "underscore": b"1_0\r\nhello\r\n",
    "blank before": b" 5\r\nhello\r\n",
    "blank behind": b"5 \r\nhello\r\n",
    "17 digits": b"00000000000000005\r\nhello\r\n",
    "bare LF": b"5\nhello\r\n",
    "CR in extension": b"5;a\rb\r\nhello\r\n",
    "NUL in extension": b"5;a\0b\r\nhello\r\n",
    "longer than its size": b"5\r\nhello!\r\n",
    "LF behind data": b"5\r\nhello\n0\r\n\r\n",
    "other bytes in the place of CRLF": b"5\r\nhelloXX",
    "no CRLF behind data": b"5\r\nhello0\r\n\r\n",
    "control byte in a trailer": b"0\r\na: \x01\r\n\r\n",
    "bare LF in a trailer": b"0\r\na: b\n\r\n",
    "not a chunk at all": b"<html>",
}


@pytest.mark.parametrize("coded", BROKEN.values(), ids=BROKEN)
def test_what_two_readers_could_read_differently_is_refused(coded: bytes) -> None:
    good = chunked.encode(b"good")
    for pieces in splits(good + coded):
        consumer = receive(pieces)
        assert consumer.error is not None
        assert consumer.told == 1
        assert consumer.body in (b"good", b"goodhello"), "what came before the mistake is delivered, and no more"


@pytest.mark.parametrize("cut_at", range(1, len(WHOLE["trailers"])))
def test_an_end_inside_the_body_is_a_mistake(cut_at: int) -> None:
    consumer = receive([WHOLE["trailers"][:cut_at]], eof=True)
    assert consumer.error is not None
    assert consumer.told == 1


@given(st.binary(max_size=200) | st.text("0123456789abcdef;= \r\n", max_size=200).map(str.encode), PLACES)
def test_garbage_never_raises_and_says_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    whole, pieces = receive([data] if data else [], eof=True), receive(cut(data, places), eof=True)
    assert whole.told == pieces.told == 1
    assert whole.rest == pieces.rest
    assert (whole.error is None) == (pieces.error is None)
    assert whole.body == pieces.body


def test_size_lines_may_not_cost_more_than_their_data_justifies() -> None:
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    consumer = receive([chunk] * 17)
    assert consumer.error is not None
    assert 15 <= len(consumer.body) <= 17
    fair = b"1f4;" + b"e" * 1000 + b"\r\n" + b"x" * 500 + b"\r\n"
    assert receive([fair] * 100).error is None


@pytest.mark.parametrize("start", [b"5;", b"0\r\na: "])
def test_a_line_is_refused_before_it_has_grown_long(start: bytes) -> None:
    for size in (1, 100, 10_000):
        consumer = receive([start] + [b"a" * size] * (5000 // size + 1))
        assert consumer.error is not None


def test_trailers_are_bounded() -> None:
    assert receive([b"0\r\n", *[b"a: " + b"b" * 1000 + b"\r\n"] * 20]).error is not None


def test_a_body_that_nobody_waits_for_is_read_to_its_end() -> None:
    consumer = Consumer()
    body = ChunkedBody(consumer)
    body.receive(chunked.encode(b"before"))
    body.pour(consumer)
    body.receive(chunked.encode(b"between"))
    body.spill()
    body.receive(chunked.encode(b"after") + chunked.LAST_CHUNK + b"rest")
    assert (consumer.payloads, consumer.rest) == ([b"between"], b"rest")


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=6))
def test_h11_reads_what_is_encoded_here(payloads: list[bytes]) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.receive_data(b"".join(map(chunked.encode, payloads)) + chunked.LAST_CHUNK)
    assert isinstance(client.next_event(), h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"".join(payloads)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=6), PLACES)
def test_what_h11_encodes_is_read_here(payloads: list[bytes], places: list[int]) -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    server.next_event()
    server.next_event()
    server.send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")]))
    coded = b"".join(server.send(h11.Data(data=payload)) or b"" for payload in payloads)
    coded += server.send(h11.EndOfMessage(headers=[("Trailer", "t")])) or b""
    consumer = receive(cut(coded, places))
    assert (consumer.body, consumer.rest) == (b"".join(payloads), b"")


@pytest.mark.parametrize("coded", [WHOLE["one"], BROKEN["no size"], b"5\r\nhel"])
@pytest.mark.parametrize("late", [b"5\r\nhello\r\n", b"0\r\n\r\n", b"x"])
def test_nothing_follows_the_end(coded: bytes, late: bytes) -> None:
    consumer = Consumer()
    body = ChunkedBody(consumer)
    body.pour(consumer)
    body.receive(coded)
    body.eof()
    told = (consumer.body, consumer.rest, consumer.error)
    body.receive(late)
    body.eof()
    assert consumer.told == 1
    assert (consumer.body, consumer.rest, consumer.error) == told
