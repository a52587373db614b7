"""Heads of HTTP/1.1: what is read, what is refused, and that h11 reads what is written."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RemoteProtocolError
from relay.wire import http1
from relay.wire.head import CHUNKED, EMPTY, UNTIL_CLOSE, Framing, RequestHead
from tests.wire.splits import PLACES, cut, splits


def request(*fields: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *fields, b"", b""])


def answer(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


def arrive(pieces: list[bytes]) -> RequestHead | None:
    """Read a head as a connection does: None if more must come."""
    buffer = bytearray()
    scanned = 0
    for piece in pieces:
        buffer += piece
        http1.check_request_line(buffer)
        end = http1.find_head(buffer, http1.REQUEST_HEAD_LIMIT, scanned)
        scanned = len(buffer)
        if end:
            return http1.parse_request(bytes(buffer[:end]))
    return None


def refusal(pieces: list[bytes]) -> int:
    with pytest.raises(RemoteProtocolError) as caught:
        arrive(pieces)
    return caught.value.status


GOOD = {
    "no body": (request(), EMPTY),
    "a length": (request(b"Content-Length: 12"), Framing(length=12)),
    "length 0": (request(b"Content-Length: 0"), EMPTY),
    "chunked": (request(b"Transfer-Encoding: Chunked"), CHUNKED),
    "no host in 1.0": (request(line=b"GET / HTTP/1.0", host=b""), EMPTY),
    "blanks around a value": (request(b"A: \t b c \t"), EMPTY),
    "an empty value": (request(b"A:"), EMPTY),
    "bytes above ASCII in a value": (request(b"A: \xc3\xa9"), EMPTY),
    "asterisk": (request(line=b"OPTIONS * HTTP/1.1"), EMPTY),
    "query with dots": (request(line=b"GET /a?b=/../c HTTP/1.1"), EMPTY),
    "dots in a name": (request(line=b"GET /a..b/...c/.d HTTP/1.1"), EMPTY),
    "an IPv6 host": (request(host=b"Host: [::1]:8080"), EMPTY),
    "an empty host": (request(host=b"Host:"), EMPTY),
    "100 fields": (request(*[b"A: b"] * 99), EMPTY),
}


@pytest.mark.parametrize(("head", "framing"), GOOD.values(), ids=GOOD)
def test_a_good_head_is_the_same_at_every_split(head: bytes, framing: Framing) -> None:
    whole = arrive([head])
    assert whole is not None
    assert whole.framing == framing
    for pieces in splits(head) if len(head) < 300 else [cut(head, list(range(0, len(head), 7)))]:
        assert arrive(pieces) == whole
        assert arrive([*pieces[:-1], pieces[-1] + b"GET / HTTP/1.1\r\n\r\n"]) == whole


REFUSED = {
    "garbage": (b"\x16\x03\x01\x02\r\n\r\n", 400),
    "no version": (request(line=b"GET /"), 400),
    "lower-case version": (request(line=b"GET / http/1.1"), 400),
    "HTTP/2.0": (request(line=b"GET / HTTP/2.0"), 505),
    "HTTP/1.2": (request(line=b"GET / HTTP/1.2"), 505),
    "two blanks": (request(line=b"GET  / HTTP/1.1"), 400),
    "tab": (request(line=b"GET\t/ HTTP/1.1"), 400),
    "method not a token": (request(line=b"G(T / HTTP/1.1"), 400),
    "byte above ASCII in the target": (request(line=b"GET /\xe9 HTTP/1.1"), 400),
    "absolute target": (request(line=b"GET http://evil/ HTTP/1.1"), 400),
    "authority target": (request(line=b"GET evil:80 HTTP/1.1"), 400),
    "CONNECT": (request(line=b"CONNECT evil:80 HTTP/1.1"), 501),
    "TRACE": (request(line=b"TRACE / HTTP/1.1"), 501),
    "asterisk for GET": (request(line=b"GET * HTTP/1.1"), 400),
    "fragment": (request(line=b"GET /a#b HTTP/1.1"), 400),
    "dot segment": (request(line=b"GET /v1/../admin HTTP/1.1"), 400),
    "encoded dot segment": (request(line=b"GET /v1/%2E%2e/admin HTTP/1.1"), 400),
    "dot segment at the end": (request(line=b"GET /v1/.. HTTP/1.1"), 400),
    "dot segment behind a backslash": (request(line=b"GET /v1\\..\\admin HTTP/1.1"), 400),
    "no host": (request(host=b""), 400),
    "two hosts": (request(b"Host: h"), 400),
    "host with a path": (request(host=b"Host: h/evil"), 400),
    "host with a user": (request(host=b"Host: a@h"), 400),
    "host list": (request(host=b"Host: a b"), 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    "bare LF in the middle": (b"GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n", 400),
    "bare CR": (request(b"A: b\rc"), 400),
    "NUL": (request(b"A: b\0c"), 400),
    "DEL": (request(b"A: b\x7fc"), 400),
    "folded": (request(b"A: b\r\n c"), 400),
    "blank before the colon": (request(b"A : b"), 400),
    "no colon": (request(b"A"), 400),
    "blank name": (request(b": b"), 400),
    "name not a token": (request(b"A(: b"), 400),
    "length and coding": (request(b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400),
    "two lengths": (request(b"Content-Length: 3", b"Content-Length: 4"), 400),
    "two equal lengths": (request(b"Content-Length: 3", b"content-length : 3".replace(b" :", b":")), 400),
    "signed length": (request(b"Content-Length: +3"), 400),
    "length with an underscore": (request(b"Content-Length: 1_0"), 400),
    "huge length": (request(b"Content-Length: " + b"9" * 19), 400),
    "other coding": (request(b"Transfer-Encoding: gzip"), 501),
    "coding twice": (request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 501),
    "codings": (request(b"Transfer-Encoding: gzip, chunked"), 501),
    "coding in 1.0": (request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"), 400),
    "unknown expectation": (request(b"Expect: 200-maybe"), 417),
    "too many fields": (request(*[b"A: b"] * 101), 431),
    "long line": (request(line=b"GET /" + b"a" * http1.REQUEST_LINE_LIMIT + b" HTTP/1.1"), 414),
    "long head": (request(*[b"A: " + b"b" * 4000] * 9), 431),
}


@pytest.mark.parametrize(("head", "status"), REFUSED.values(), ids=REFUSED)
def test_a_head_that_could_be_read_in_two_ways_is_refused_at_every_split(head: bytes, status: int) -> None:
    assert refusal([head]) == status
    for pieces in splits(head) if len(head) < 300 else [cut(head, list(range(0, len(head), 1000)))]:
        assert refusal(pieces) == status


def test_garbage_is_refused_before_its_end() -> None:
    assert refusal([b"a" * (http1.REQUEST_LINE_LIMIT + 1)]) == 414
    assert refusal([b"GET / HTTP/1.1\r\n"] + [b"A: " + b"b" * 1000 + b"\r\n"] * 40) == 431
    assert refusal([b"GET / HTTP/1.1\n"]) == 400
    assert refusal([b"\n"]) == 400


@pytest.mark.parametrize(
    ("head", "keep_alive", "expects"),
    [
        (request(), True, False),
        (request(b"Connection: close"), False, False),
        (request(b"Connection: a, CLOSE"), False, False),
        (request(line=b"GET / HTTP/1.0"), False, False),
        (request(b"Expect: 100-Continue", b"Content-Length: 1"), True, True),
        (request(b"Expect: 100-continue", line=b"GET / HTTP/1.0"), False, False),
    ],
)
def test_what_a_request_says_of_its_connection(head: bytes, keep_alive: bool, expects: bool) -> None:
    parsed = http1.parse_request(head)
    assert (parsed.keep_alive, parsed.expects_continue) == (keep_alive, expects)


@pytest.mark.parametrize(
    ("head", "method", "framing"),
    [
        (answer(b"Content-Length: 5"), b"GET", Framing(length=5)),
        (answer(b"Transfer-Encoding: chunked"), b"GET", CHUNKED),
        (answer(), b"GET", UNTIL_CLOSE),
        (answer(line=b"HTTP/1.0 200"), b"GET", UNTIL_CLOSE),
        (answer(b"Content-Length: 5"), b"HEAD", EMPTY),
        (answer(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified"), b"GET", EMPTY),
        (answer(line=b"HTTP/1.1 204 No Content"), b"GET", EMPTY),
        (answer(line=b"HTTP/1.1 100 Continue"), b"GET", EMPTY),
        (answer(line=b"HTTP/1.1 103 Early Hints"), b"GET", EMPTY),
        (answer(line=b"HTTP/1.1 599 \xe9"), b"GET", UNTIL_CLOSE),
    ],
)
def test_how_an_answers_body_ends(head: bytes, method: bytes, framing: Framing) -> None:
    assert http1.parse_response(head, method).framing == framing


@pytest.mark.parametrize(
    "head",
    [
        answer(line=b"HTTP/2 200 OK"),
        answer(line=b"HTTP/1.1 600 X"),
        answer(line=b"HTTP/1.1 20 OK"),
        answer(line=b"HTTP/1.1  200 OK"),
        answer(line=b"ICY 200 OK"),
        answer(b"Content-Length: 5", b"Content-Length: 5"),
        answer(b"Content-Length: 5", b"Content-Length: 6"),
        answer(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        answer(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"),
        answer(b"Transfer-Encoding: gzip, chunked"),
        answer(b"A: b\0"),
        answer(b"A: b\r\n c"),
        answer(b"A: b").replace(b"\r\n", b"\n"),
        answer(*[b"A: b"] * 102),
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        http1.parse_response(head, b"GET")


LIKELY = st.lists(
    st.sampled_from(
        [
            *[b"GET ", b"POST ", b"CONNECT ", b"/", b"*", b" HTTP/1.1", b"HTTP/1.1 ", b"200 OK", b"101 X", b"\r\n\r\n"],
            *[b"Host: h", b"Upgrade: x", b"Connection: upgrade", b"Content-Length: ", b"Transfer-Encoding: chunked"],
            *[b"Expect: ", b"1", b":", b" ", b"\r\n", b"\n", b"\0", b"\xff"],
        ]
    ),
    max_size=20,
).map(b"".join)


@given(LIKELY | st.binary(max_size=200), PLACES)
def test_any_bytes_raise_nothing_else_and_mean_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> RequestHead | str | None:
        try:
            return arrive(pieces)
        except RemoteProtocolError:
            return "refused"

    whole, pieces = outcome([data]), outcome(cut(data, places))
    # A mistake shows the sooner the more is there, but never turns into a head.
    assert whole == pieces or {type(whole), type(pieces)} == {str, type(None)}


@given(LIKELY | st.binary(max_size=200), st.sampled_from([b"GET", b"HEAD", b"OPTIONS"]))
def test_any_answer_raises_nothing_else(data: bytes, method: bytes) -> None:
    for head in (data, b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n", b"HTTP/1.1 " + data + b"\r\n\r\n"):
        try:
            parsed = http1.parse_response(head, method)
        except RemoteProtocolError:
            continue
        assert 100 <= parsed.status < 600


def test_a_refusal_quotes_nothing_of_the_peer() -> None:
    for field in (
        b"Authorization(: sk-canary",
        b"Authorization sk-canary",
        b"A: sk-canary\0",
        b"Content-Length: sk-canary",
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            http1.parse_request(request(field))
        assert "canary" not in caught.value.message


NAME = st.text("abcdefghij-", min_size=1, max_size=10).map(lambda text: b"x-" + text.encode())
VALUE = st.text("abc XYZ,;=\"'/\xe9", max_size=20).map(lambda text: text.strip().encode("latin-1"))
FIELDS = st.lists(st.tuples(NAME, VALUE), max_size=10)


@given(st.sampled_from([b"GET", b"POST", b"PATCH"]), FIELDS, st.text("/abc?=&%20.", max_size=20))
def test_h11_reads_the_requests_written_here(method: bytes, fields: list[tuple[bytes, bytes]], path: str) -> None:
    target = b"/x" + path.encode()
    head = http1.request_head(method, target, [(b"host", b"h"), *fields])
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, list(event.headers)) == (method, target, [(b"host", b"h"), *fields])


@given(st.sampled_from([200, 204, 404, 502, 599]), FIELDS)
def test_h11_reads_the_answers_written_here(status: int, fields: list[tuple[bytes, bytes]]) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    client.receive_data(http1.response_head(status, fields))
    event = client.next_event()
    assert isinstance(event, h11.Response)
    assert (event.status_code, list(event.headers)) == (status, fields)
    assert http1.parse_response(http1.response_head(status, fields), b"GET").headers == fields


_LINE = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda name, gap, value, end: name + gap + value + end,
        st.sampled_from([b"a", b"Host", b"X-Y", b"Accept", b"", b"b\x80", b"c d", b"e "]),
        st.sampled_from([b":", b": ", b":\t", b" :", b""]),
        st.binary(max_size=8),
        st.sampled_from([b"", b" ", b"\t "]),
    ),
)


@given(st.lists(_LINE, max_size=5), st.sampled_from([b"1.1", b"1.0"]))
def test_what_is_taken_is_what_h11s_connection_takes(lines: list[bytes], version: bytes) -> None:
    """Its events are made here without its connection: that lets nothing more in, and reads nothing differently."""
    head = b"\r\n".join([b"GET / HTTP/" + version, b"Host: h", *lines, b"", b""])
    if head.count(b"\r\n\r\n") != 1:
        return
    try:
        ours = http1.parse_request(head)
    except RemoteProtocolError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    theirs = connection.next_event()
    assert isinstance(theirs, h11.Request)
    assert ours.headers == list(theirs.headers)
    answer = head.replace(b"GET / HTTP/" + version, b"HTTP/" + version + b" 200 OK", 1)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    client.receive_data(answer)
    theirs_too = client.next_event()
    assert isinstance(theirs_too, h11.Response)
    assert http1.parse_response(answer, b"GET").headers == list(theirs_too.headers)
