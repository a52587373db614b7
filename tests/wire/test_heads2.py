"""HTTP/2 heads: what makes a message malformed (RFC 9113, 8.2 and 8.3), rule by rule; and what we write we read."""

from __future__ import annotations

import contextlib

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import RemoteProtocolError
from relay.wire.head import CHUNKED, EMPTY, Framing, Headers
from relay.wire.heads2 import (
    Malformed,
    check_trailers,
    parse_request,
    parse_response,
    request_fields,
    response_fields,
)

METHOD, SCHEME, AUTHORITY, PATH = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"h.example"),
    (b":path", b"/"),
)
REQUEST: Headers = [METHOD, SCHEME, AUTHORITY, PATH]
RESPONSE: Headers = [(b":status", b"200")]


def replaced(name: bytes, *values: bytes) -> Headers:
    """A request with other values of one pseudo-header field, or none."""
    return [
        entry for field in REQUEST for entry in ([(name, value) for value in values] if field[0] == name else [field])
    ]


# Fields that are malformed wherever they stand.
BAD_FIELDS: dict[str, tuple[bytes, bytes]] = {
    "a capital": (b"X-a", b"1"),
    "a capital at the end": (b"x-A", b"1"),
    "no name": (b"", b"1"),
    "a blank in the name": (b"x a", b"1"),
    "a blank behind the name": (b"x-a ", b"1"),
    "a colon in the name": (b"x:a", b"1"),
    "NUL in the name": (b"x\0a", b"1"),
    "CR LF in the name": (b"x-a: 1\r\ny", b"1"),
    "DEL in the name": (b"x\x7fa", b"1"),
    "beyond ASCII in the name": ("x-ä".encode(), b"1"),
    "NUL": (b"x-a", b"1\0"),
    "CR": (b"x-a", b"1\r2"),
    "LF": (b"x-a", b"1\n2"),
    "LF at the end": (b"x-a", b"1\n"),
    "CR LF and a field": (b"x-a", b"1\r\nx-b: 2"),
    "ESC": (b"x-a", b"\x1b[0m"),
    "DEL": (b"x-a", b"1\x7f"),
    "a blank before": (b"x-a", b" 1"),
    "a blank behind": (b"x-a", b"1 "),
    "a tab before": (b"x-a", b"\t1"),
    "a tab behind": (b"x-a", b"1\t"),
    "nothing but a blank": (b"x-a", b" "),
    "connection": (b"connection", b"keep-alive"),
    "proxy-connection": (b"proxy-connection", b"keep-alive"),
    "keep-alive": (b"keep-alive", b"timeout=5"),
    "transfer-encoding": (b"transfer-encoding", b"chunked"),
    "upgrade": (b"upgrade", b"h2c"),
    "te other than trailers": (b"te", b"gzip"),
    "te with more than trailers": (b"te", b"trailers, deflate"),
    "te without a value": (b"te", b""),
    "an unknown pseudo-header": (b":protocol", b"websocket"),
    "nothing but a colon": (b":", b"1"),
}
GOOD_FIELDS: dict[str, tuple[bytes, bytes]] = {
    "every sign of a token": (b"!#$%&'*+-.^_`|~09az", b"1"),
    "no value": (b"x-a", b""),
    "blanks and tabs inside": (b"x-a", b"1 \t 2"),
    "beyond ASCII": (b"x-a", bytes(range(0x80, 0x100))),
    "all that can be seen": (b"x-a", bytes(range(0x21, 0x7F))),
    "te: trailers": (b"te", b"Trailers"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_malformed_field_makes_any_message_malformed(name: str) -> None:
    field = BAD_FIELDS[name]
    good = (b"x-good", b"1")
    for fields in ([field], [good, field], [field, good]):
        with pytest.raises(Malformed):
            parse_request([*REQUEST, *fields], ended=True)
        with pytest.raises(Malformed):
            parse_response([*RESPONSE, *fields], b"GET", ended=False)
        with pytest.raises(Malformed):
            check_trailers(fields)


@pytest.mark.parametrize("name", GOOD_FIELDS)
def test_a_well_formed_field_goes_on_as_it_is(name: str) -> None:
    field = GOOD_FIELDS[name]
    assert parse_request([*REQUEST, field], ended=True).headers == [(b"host", b"h.example"), field]
    assert parse_response([*RESPONSE, field], b"GET", ended=False).headers == [field]
    check_trailers([field])


BAD_REQUESTS: dict[str, Headers] = {
    "nothing": [],
    "no :method": replaced(b":method"),
    "no :scheme": replaced(b":scheme"),
    "no :path": replaced(b":path"),
    "no authority at all": replaced(b":authority"),
    "two :method": replaced(b":method", b"GET", b"GET"),
    "two :scheme": replaced(b":scheme", b"https", b"https"),
    "two :path": replaced(b":path", b"/", b"/"),
    "two :authority": replaced(b":authority", b"h", b"h"),
    "empty :method": replaced(b":method", b""),
    "empty :scheme": replaced(b":scheme", b""),
    "empty :path": replaced(b":path", b""),
    "empty :authority": replaced(b":authority", b""),
    "a late :path": [METHOD, SCHEME, AUTHORITY, (b"x-a", b"1"), PATH],
    "a late :authority": [METHOD, SCHEME, PATH, (b"x-a", b"1"), AUTHORITY],
    ":status": [*REQUEST, (b":status", b"200")],
    "a blank in :method": replaced(b":method", b"GET /"),
    "CR LF in :method": replaced(b":method", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "NUL in :method": replaced(b":method", b"G\0T"),
    "a blank in :path": replaced(b":path", b"/a b"),
    "CR LF in :path": replaced(b":path", b"/ HTTP/1.1\r\nHost: x"),
    "NUL in :path": replaced(b":path", b"/\0"),
    "DEL in :path": replaced(b":path", b"/\x7f"),
    "beyond ASCII in :path": replaced(b":path", "/ä".encode()),
    "LF in :scheme": replaced(b":scheme", b"https\n"),
    "LF in :authority": replaced(b":authority", b"h\nx"),
    "a blank in :authority": replaced(b":authority", b"h x"),
    "user in :authority": replaced(b":authority", b"me@h"),
    "a path in :authority": replaced(b":authority", b"h/x"),
    "two names in :authority": replaced(b":authority", b"h, i"),
    "a letter in the port": replaced(b":authority", b"h:8o"),
    "a port too long": replaced(b":authority", b"h:123456"),
    "half an address": replaced(b":authority", b"[::1"),
    "host unlike :authority": [*REQUEST, (b"host", b"other.example")],
    "host with another port": [*REQUEST, (b"host", b"h.example:443")],
    "two hosts": [*REQUEST, (b"host", b"h.example"), (b"host", b"h.example")],
    "two hosts and no :authority": [METHOD, SCHEME, PATH, (b"host", b"h"), (b"host", b"h")],
    "a host that is none": [METHOD, SCHEME, PATH, (b"host", b"h/x")],
    "empty host": [METHOD, SCHEME, PATH, (b"host", b"")],
    "two lengths": [*REQUEST, (b"content-length", b"1"), (b"content-length", b"1")],
    "a list of lengths": [*REQUEST, (b"content-length", b"1, 1")],
    "a signed length": [*REQUEST, (b"content-length", b"+1")],
    "a negative length": [*REQUEST, (b"content-length", b"-1")],
    "a length with an underscore": [*REQUEST, (b"content-length", b"1_0")],
    "an empty length": [*REQUEST, (b"content-length", b"")],
    "a length in hex": [*REQUEST, (b"content-length", b"0x1")],
    "a length of 19 digits": [*REQUEST, (b"content-length", b"1" * 19)],
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
@pytest.mark.parametrize("ended", [True, False])
def test_a_malformed_request(name: str, ended: bool) -> None:
    with pytest.raises(Malformed):
        parse_request(BAD_REQUESTS[name], ended=ended)


REFUSED: dict[str, tuple[Headers, int]] = {
    "CONNECT": ([(b":method", b"CONNECT"), AUTHORITY], 501),
    "TRACE": (replaced(b":method", b"TRACE"), 501),
    "an absolute :path": (replaced(b":path", b"http://evil/"), 400),
    "a :path without a slash": (replaced(b":path", b"a"), 400),
    "* of a GET": (replaced(b":path", b"*"), 400),
    "an authority in :path": (replaced(b":path", b"//evil/"), 400),
    "a dot segment": (replaced(b":path", b"/a/../b"), 400),
    "a coded dot segment": (replaced(b":path", b"/a/%2E%2e/b"), 400),
    "a fragment": (replaced(b":path", b"/a#b"), 400),
    "a long :path": (replaced(b":path", b"/" + b"a" * 8192), 414),
    "101 fields": ([*REQUEST, *[(b"x-a", b"1")] * 101], 431),
    "an expectation": ([*REQUEST, (b"expect", b"the impossible")], 417),
    "two expectations": ([*REQUEST, (b"expect", b"100-continue"), (b"expect", b"200-ok")], 417),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_well_formed_request_that_is_not_served_is_answered(name: str) -> None:
    fields, status = REFUSED[name]
    with pytest.raises(RemoteProtocolError) as caught:
        parse_request(fields, ended=True)
    assert not isinstance(caught.value, Malformed)
    assert caught.value.status == status


def test_bounds_are_met_exactly() -> None:
    head = parse_request([*replaced(b":path", b"/" + b"a" * 8191), *[(b"x-a", b"1")] * 100], ended=True)
    assert len(head.target) == 8192
    assert len(head.headers) == 101, "and the host"
    assert parse_request([*REQUEST, (b"content-length", b"9" * 18)], ended=False).framing == Framing(length=10**18 - 1)


def test_a_request_as_it_is_known_from_there_on() -> None:
    head = parse_request(
        [PATH, AUTHORITY, METHOD, SCHEME, (b"accept", b"*/*"), (b"expect", b"100-Continue")], ended=False
    )
    assert (head.method, head.target, head.path, head.version) == (b"GET", b"/", b"/", b"2")
    assert head.headers == [(b"host", b"h.example"), (b"accept", b"*/*"), (b"expect", b"100-Continue")]
    assert (head.framing, head.keep_alive, head.expects_continue) == (CHUNKED, True, True)


AUTHORITIES: dict[str, tuple[Headers, bytes]] = {
    ":authority alone": (REQUEST, b"h.example"),
    "host alone": ([METHOD, SCHEME, PATH, (b"host", b"h.example:80")], b"h.example:80"),
    "both": ([*REQUEST, (b"host", b"h.example")], b"h.example"),
    "both, in other letters": ([*REQUEST, (b"host", b"H.Example")], b"h.example"),
    "an address": (replaced(b":authority", b"[2001:db8::1]:443"), b"[2001:db8::1]:443"),
    "an empty port": (replaced(b":authority", b"h:"), b"h:"),
}


@pytest.mark.parametrize("name", AUTHORITIES)
def test_the_authority_stands_in_host_and_once(name: str) -> None:
    fields, authority = AUTHORITIES[name]
    head = parse_request([*fields, (b"x-a", b"1")], ended=True)
    assert head.headers == [(b"host", authority), (b"x-a", b"1")]


def test_a_cookie_in_pieces_is_one() -> None:
    pieces = [(b"cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b"c=d"), (b"cookie", b"e=f")]
    assert parse_request([*REQUEST, *pieces], ended=True).headers[1:] == [(b"x-a", b"1"), (b"cookie", b"a=b; c=d; e=f")]
    assert parse_response([*RESPONSE, *pieces], b"GET", ended=True).headers == pieces


def test_options_of_the_whole_server() -> None:
    assert parse_request([(b":method", b"OPTIONS"), (b":path", b"*"), SCHEME, AUTHORITY], ended=True).target == b"*"


LENGTHS: list[tuple[bytes | None, bool, Framing | None]] = [
    (None, True, EMPTY),
    (None, False, CHUNKED),
    (b"0", True, EMPTY),
    (b"0", False, EMPTY),
    (b"5", False, Framing(length=5)),
    (b"005", False, Framing(length=5)),
    (b"5", True, None),
]


@pytest.mark.parametrize(("length", "ended", "framing"), LENGTHS)
def test_how_a_body_ends(length: bytes | None, ended: bool, framing: Framing | None) -> None:
    fields: Headers = [] if length is None else [(b"content-length", length)]
    if framing is None:
        with pytest.raises(Malformed):
            parse_request([*REQUEST, *fields], ended=ended)
        with pytest.raises(Malformed):
            parse_response([*RESPONSE, *fields], b"GET", ended=ended)
    else:
        assert parse_request([*REQUEST, *fields], ended=ended).framing == framing
        assert parse_response([*RESPONSE, *fields], b"GET", ended=ended).framing == framing


# Responses

BAD_RESPONSES: dict[str, Headers] = {
    "nothing": [],
    "no :status": [(b"x-a", b"1")],
    "two": [*RESPONSE, *RESPONSE],
    "late": [(b"x-a", b"1"), *RESPONSE],
    ":path": [*RESPONSE, PATH],
    "empty": [(b":status", b"")],
    "two digits": [(b":status", b"99")],
    "four digits": [(b":status", b"2000")],
    "a sign": [(b":status", b"+20")],
    "a blank": [(b":status", b"20 ")],
    "below all": [(b":status", b"099")],
    "above all": [(b":status", b"600")],
    "with a phrase": [(b":status", b"200 OK")],
    "digits of others": [(b":status", "２００".encode())],
    "two lengths": [*RESPONSE, (b"content-length", b"1"), (b"content-length", b"1")],
    "a length that is none": [*RESPONSE, (b"content-length", b"1 ")],
    "101 fields": [*RESPONSE, *[(b"x-a", b"1")] * 101],
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
@pytest.mark.parametrize("ended", [True, False])
def test_a_malformed_response(name: str, ended: bool) -> None:
    with pytest.raises(Malformed):
        parse_response(BAD_RESPONSES[name], b"GET", ended=ended)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"GET", 100), (b"POST", 103)]
)
def test_an_answer_without_a_body_may_say_a_length(method: bytes, status: int, ended: bool) -> None:
    fields = [(b":status", b"%d" % status), (b"content-length", b"5")]
    head = parse_response(fields, method, ended=ended)
    assert (head.status, head.framing, head.headers) == (status, EMPTY, fields[1:])


@pytest.mark.parametrize("status", [100, 200, 299, 404, 599])
def test_any_status_there_is(status: int) -> None:
    assert parse_response([(b":status", b"%d" % status)], b"GET", ended=False).status == status


# Trailers


@pytest.mark.parametrize("name", [b":status", b":path", b":method", b":x"])
def test_trailers_hold_no_pseudo_header(name: bytes) -> None:
    with pytest.raises(Malformed):
        check_trailers([(name, b"200")])


# Round trips

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12).map(str.encode)
RESERVED = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"expect"}
VALUE = st.binary(max_size=20).map(
    lambda value: bytes(byte for byte in value if byte == 9 or (byte > 31 and byte != 127)).strip(b" \t")
)
FIELDS = st.lists(
    st.tuples(
        TOKEN.filter(lambda name: name not in RESERVED | {b"host", b"content-length"})
        | st.sampled_from([b"authorization", b"x-api-key", b"cookie", b"set-cookie", b"content-type"]),
        VALUE,
    ),
    max_size=10,
)
SECRET = {b"authorization", b"x-api-key", b"cookie", b"set-cookie"}


def coded(fields: Headers, *, repeat: int = 1) -> tuple[Headers, bytes]:
    """Through hpack and back, as often as `repeat`: the fields, and the last block."""
    encoder, decoder = hpack.Encoder(), hpack.Decoder()
    decoded: Headers = []
    data = b""
    for _ in range(repeat):
        data = encoder.encode(fields)
        decoded = [(bytes(name), bytes(value)) for name, value in decoder.decode(data, raw=True)]
    return decoded, data


@settings(deadline=None)
@given(
    st.sampled_from([b"GET", b"POST", b"OPTIONS", b"x!"]),
    st.text("abcxyz019-_~!$&'()*+,;=:@%?", max_size=20).map(lambda text: b"/a" + text.encode().replace(b"%", b"%41")),
    st.sampled_from([b"h", b"api.example.com:8443", b"[::1]:80", b"127.0.0.1"]),
    FIELDS,
    st.booleans(),
)
def test_a_request_that_we_write_we_read(
    method: bytes, target: bytes, authority: bytes, fields: Headers, ended: bool
) -> None:
    headers = [*fields[:1], (b"host", authority), *fields[1:]]
    decoded, _ = coded(request_fields(method, b"https", target, headers), repeat=2)
    head = parse_request(decoded, ended=ended)
    assert (head.method, head.target) == (method, target)
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) > 1:
        fields = [*(field for field in fields if field[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]
    assert head.headers == [(b"host", authority), *fields]
    assert all(type(part) is bytes for field in head.headers for part in field)


@settings(deadline=None)
@given(st.integers(200, 599), FIELDS)
def test_a_response_that_we_write_we_read(status: int, fields: Headers) -> None:
    head = parse_response(coded(response_fields(status, fields), repeat=2)[0], b"GET", ended=False)
    assert (head.status, head.headers) == (status, fields)


@pytest.mark.parametrize("name", sorted(SECRET | {b"proxy-authorization", b"api-key", b"x-goog-api-key"}))
def test_a_secret_stays_out_of_the_compressions_memory(name: bytes) -> None:
    value = b"a secret that many share a connection with"
    for fields in (request_fields(b"GET", b"https", b"/", [(name, value)]), response_fields(200, [(name, value)])):
        (field,) = [field for field in fields if field[0] == name]
        assert isinstance(field, hpack.NeverIndexedHeaderTuple)
        # What is remembered costs a byte or two the next time.
        assert len(coded(fields, repeat=3)[1]) > len(value) // 2
    plain = request_fields(b"GET", b"https", b"/", [(b"x-plain", value)])
    assert len(coded(plain, repeat=3)[1]) < len(value) // 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=8) | st.sampled_from([b":path", b":status", b"host"]), st.binary(max_size=8)))
)
def test_no_list_of_fields_raises_anything_else(fields: Headers) -> None:
    for parse in (
        lambda: parse_request(fields, ended=True),
        lambda: parse_request([*REQUEST, *fields], ended=False),
        lambda: parse_response(fields, b"GET", ended=True),
        lambda: check_trailers(fields),
    ):
        with contextlib.suppress(RemoteProtocolError):
            parse()


def test_a_request_without_a_host_asks_nobody() -> None:
    assert (b":authority", b"") in request_fields(b"GET", b"http", b"/", [])
    with pytest.raises(Malformed):
        parse_request(request_fields(b"GET", b"http", b"/", []), ended=True)
