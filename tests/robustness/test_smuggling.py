"""What two parsers could read differently is refused, and no framing but the relay's own goes on (B5, B9)."""

from __future__ import annotations

import json

import pytest

from tests.conftest import RelayMaker
from tests.programs import Client, Provider, Relay
from tests.robustness.peers import Scripted, only_request, refusal, serves

_HOST = b"Host: relay.test\r\n"
# Stands behind what is refused: whoever reads the framing in another way takes it for a request.
_SMUGGLED = b"GET /echo/smuggled HTTP/1.1\r\nHost: relay.test\r\n\r\n"


def _post(fields: bytes, body: bytes = b"", *, version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST /echo " + version + b"\r\n" + _HOST + fields + b"\r\n" + body


def _get(line: bytes = b"GET /echo HTTP/1.1", fields: bytes = _HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def _chunks(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked\r\n", body)


_TWO_FRAMINGS = {
    "cl-te": (_post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nG"), 400),
    "te-cl": (_post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), 400),
    "te-cl-0": (_post(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"), 400),
    "te-in-1.0": (_post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", version=b"HTTP/1.0"), 400),
    "te-twice": (_post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 501),
    "te-two-fields": (_post(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n"), 501),
    "te-identity-field": (_post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"), 501),
    "te-xchunked": (_post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 501),
    "te-gzip": (_post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "te-identity": (_post(b"Transfer-Encoding: identity\r\n"), 501),
    "te-empty": (_post(b"Transfer-Encoding:\r\n"), 501),
    "te-quoted": (_post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 501),
    "te-parameter": (_post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), 501),
    "te-comma": (_post(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n"), 501),
    "te-vertical-tab": (_post(b"Transfer-Encoding: chunked\x0b\r\n", b"0\r\n\r\n"), 400),
    "te-vertical-tab-before": (_post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    "te-nbsp": (_post(b"Transfer-Encoding: chunked\xa0\r\n", b"0\r\n\r\n"), 501),
    "te-space-colon": (_post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    "te-tab-colon": (_post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n"), 400),
    "te-first-line-indented": (b"POST /echo HTTP/1.1\r\n Transfer-Encoding: chunked\r\n" + _HOST + b"\r\n", 400),
    "te-folded": (_post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), 400),
    "te-in-fold": (_post(b"X: y\r\n\tTransfer-Encoding: chunked\r\n"), 400),
    "cl-equal": (_post(b"Content-Length: 5\r\n" * 2, b"hello"), 400),
    "cl-differ": (_post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), 400),
    "cl-equal-list": (_post(b"Content-Length: 5, 5\r\n", b"hello"), 400),
    "cl-list": (_post(b"Content-Length: 5, 6\r\n", b"hello"), 400),
    "cl-plus": (_post(b"Content-Length: +5\r\n", b"hello"), 400),
    "cl-minus": (_post(b"Content-Length: -5\r\n", b"hello"), 400),
    "cl-underscore": (_post(b"Content-Length: 5_0\r\n", b"hello"), 400),
    "cl-blank": (_post(b"Content-Length:  5 6\r\n", b"hello"), 400),
    "cl-hex": (_post(b"Content-Length: 0x5\r\n", b"hello"), 400),
    "cl-float": (_post(b"Content-Length: 5.0\r\n", b"hello"), 400),
    "cl-empty": (_post(b"Content-Length:\r\n", b"hello"), 400),
    "cl-comma": (_post(b"Content-Length: 5,\r\n", b"hello"), 400),
    "cl-19-digits": (_post(b"Content-Length: 1000000000000000000\r\n"), 400),
    "cl-leading-zeros": (_post(b"Content-Length: 000000000000000000005\r\n", b"hello"), 400),
    "cl-arabic-digit": (_post("Content-Length: ٥\r\n".encode(), b"hello"), 400),
    "cl-space-colon": (_post(b"Content-Length : 5\r\n", b"hello"), 400),
    "cl-nul": (_post(b"Content-Length: 5\x00\r\n", b"hello"), 400),
}

_LINES_AND_BYTES = {
    "lf-everywhere": (_get().replace(b"\r\n", b"\n"), 400),
    "lf-request-line": (b"GET /echo HTTP/1.1\n" + _HOST + b"\r\n", 400),
    "lf-one-field": (_get(fields=b"X: y\n" + _HOST), 400),
    "lf-last-line": (b"GET /echo HTTP/1.1\r\nHost: relay.test\n\r\n", 400),
    "lf-in-value": (_get(fields=_HOST + b"X: a\nTransfer-Encoding: chunked\r\n"), 400),
    "cr-in-value": (_get(fields=_HOST + b"X: a\rTransfer-Encoding: chunked\r\n"), 400),
    "cr-before-end": (_get(fields=_HOST + b"X: a\r\r\n"), 400),
    "fold-space": (_get(fields=_HOST + b"X: a\r\n b\r\n"), 400),
    "fold-tab": (_get(fields=_HOST + b"X: a\r\n\tb\r\n"), 400),
    "fold-empty": (_get(fields=_HOST + b"X: a\r\n \r\n"), 400),
    "two-empty-lines-before": (b"\r\n\r\n" + _get(), 400),
    "lf-before": (b"\n" + _get(), 400),
    "nul-in-value": (_get(fields=_HOST + b"X: a\x00b\r\n"), 400),
    "control-in-value": (_get(fields=_HOST + b"X: a\x01b\r\n"), 400),
    "escape-in-value": (_get(fields=_HOST + b"X: \x1b[2J\r\n"), 400),
    "del-in-value": (_get(fields=_HOST + b"X: a\x7fb\r\n"), 400),
    "nul-in-name": (_get(fields=_HOST + b"X\x00Y: a\r\n"), 400),
    "control-in-name": (_get(fields=_HOST + b"X\x08: a\r\n"), 400),
    "space-in-name": (_get(fields=_HOST + b"X Y: a\r\n"), 400),
    "bracket-in-name": (_get(fields=_HOST + b"X(: a\r\n"), 400),
    "latin-in-name": (_get(fields=_HOST + b"X\xe9: a\r\n"), 400),
    "no-name": (_get(fields=_HOST + b": a\r\n"), 400),
    "no-colon": (_get(fields=_HOST + b"Transfer-Encoding\r\n"), 400),
    "nul-in-target": (_get(b"GET /echo/\x00 HTTP/1.1"), 400),
    "control-in-target": (_get(b"GET /echo/\x0c HTTP/1.1"), 400),
    "cr-in-target": (_get(b"GET /echo/\rX HTTP/1.1"), 400),
    "del-in-target": (_get(b"GET /echo/\x7f HTTP/1.1"), 400),
    "latin-in-target": (_get(b"GET /echo/\xe9 HTTP/1.1"), 400),
    "space-in-target": (_get(b"GET /echo /x HTTP/1.1"), 400),
    "two-spaces": (_get(b"GET  /echo HTTP/1.1"), 400),
    "tab-in-line": (_get(b"GET\t/echo HTTP/1.1"), 400),
    "no-target": (_get(b"GET HTTP/1.1"), 400),
    "space-before": (_get(b" GET /echo HTTP/1.1"), 400),
    "control-in-method": (_get(b"GE\x00T /echo HTTP/1.1"), 400),
    "bracket-in-method": (_get(b"G(T /echo HTTP/1.1"), 400),
}

_HOSTS_AND_VERSIONS = {
    "host-none": (_get(fields=b"X: y\r\n"), 400),
    "host-twice": (_get(fields=_HOST * 2), 400),
    "host-two": (_get(fields=_HOST + b"Host: other.test\r\n"), 400),
    "host-two-in-1.0": (_get(b"GET /echo HTTP/1.0", _HOST + b"Host: other.test\r\n"), 400),
    "host-blank": (_get(fields=b"Host: a b\r\n"), 400),
    "host-path": (_get(fields=b"Host: a/b\r\n"), 400),
    "host-query": (_get(fields=b"Host: a?b\r\n"), 400),
    "host-user": (_get(fields=b"Host: user@a\r\n"), 400),
    "host-url": (_get(fields=b"Host: http://a\r\n"), 400),
    "host-two-ports": (_get(fields=b"Host: a:80:81\r\n"), 400),
    "host-long-port": (_get(fields=b"Host: a:123456\r\n"), 400),
    "host-bad-port": (_get(fields=b"Host: a:8x\r\n"), 400),
    "host-open-bracket": (_get(fields=b"Host: [::1\r\n"), 400),
    "host-space-colon": (_get(fields=b"Host : relay.test\r\n"), 400),
    "version-2.0": (_get(b"GET /echo HTTP/2.0"), 505),
    "version-2-no-preface": (b"PRI * HTTP/2.0\r\nHost: relay.test\r\n\r\n", 505),
    "version-9.9": (_get(b"GET /echo HTTP/9.9"), 505),
    "version-1.2": (_get(b"GET /echo HTTP/1.2"), 505),
    "version-0.9": (_get(b"GET /echo HTTP/0.9"), 505),
    "version-0.9-without": (b"GET /echo\r\n\r\n", 400),
    "version-lower-case": (_get(b"GET /echo http/1.1"), 400),
    "version-short": (_get(b"GET /echo HTTP/1"), 400),
    "version-long": (_get(b"GET /echo HTTP/1.10"), 400),
    "version-blank": (_get(b"GET /echo HTTP/1.1 "), 400),
    "version-other": (_get(b"GET /echo ICE/1.1"), 400),
    "expect-other": (_post(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello"), 417),
}

_TARGETS = {
    "absolute": (_get(b"GET http://relay.test/echo HTTP/1.1"), 400),
    "absolute-elsewhere": (_get(b"GET http://169.254.0.1/ HTTP/1.1"), 400),
    "authority": (_get(b"GET relay.test:80 HTTP/1.1"), 400),
    "connect": (_get(b"CONNECT relay.test:443 HTTP/1.1"), 501),
    "trace": (_get(b"TRACE /echo HTTP/1.1"), 501),
    "star": (_get(b"GET * HTTP/1.1"), 400),
    "fragment": (_get(b"GET /echo#x HTTP/1.1"), 400),
    "relative": (_get(b"GET echo HTTP/1.1"), 400),
    "dots": (_get(b"GET /echo/../v1/models HTTP/1.1"), 400),
    "dots-at-end": (_get(b"GET /echo/.. HTTP/1.1"), 400),
    "dots-before-query": (_get(b"GET /echo/..?x=y HTTP/1.1"), 400),
    "one-dot": (_get(b"GET /echo/./x HTTP/1.1"), 400),
    "dots-with-parameter": (_get(b"GET /echo/..;x/y HTTP/1.1"), 400),
    "dots-backslash": (_get(b"GET /echo\\..\\x HTTP/1.1"), 400),
    "dots-encoded": (_get(b"GET /echo/%2e%2E/x HTTP/1.1"), 400),
    "dots-half-encoded": (_get(b"GET /echo/.%2e/x HTTP/1.1"), 400),
    "dots-encoded-slash": (_get(b"GET /echo/..%2Fx HTTP/1.1"), 400),
    "dots-between-encoded-slashes": (_get(b"GET /echo%2f..%2fx HTTP/1.1"), 400),
    "dots-encoded-backslash": (_get(b"GET /echo/%2e%2e%5cx HTTP/1.1"), 400),
}

_CODINGS = {
    "size-0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size-space": b"5 \r\nhello\r\n0\r\n\r\n",
    "size-space-before": b" 5\r\nhello\r\n0\r\n\r\n",
    "size-tab": b"5\t\r\nhello\r\n0\r\n\r\n",
    "size-plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size-minus": b"-1\r\nhello\r\n0\r\n\r\n",
    "size-underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "size-17-digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-wraps": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-empty": b"\r\nhello\r\n0\r\n\r\n",
    "size-word": b"hello\r\nhello\r\n0\r\n\r\n",
    "size-comma": b"5,5\r\nhello\r\n0\r\n\r\n",
    "size-quoted": b'"5"\r\nhello\r\n0\r\n\r\n',
    "size-arabic-digit": "٥\r\nhello\r\n0\r\n\r\n".encode(),
    "size-semicolon-only": b";x\r\nhello\r\n0\r\n\r\n",
    "line-lf": b"5\nhello\r\n0\r\n\r\n",
    "extension-lf": b"5;\nhello\r\n0\r\n\r\n",
    "extension-cr": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension-cr-at-end": b"5;a\r\r\nhello\r\n0\r\n\r\n",
    "extension-nul": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "extension-quoted-lf": b'5;a="\n0\n\n"\r\nhello\r\n0\r\n\r\n',
    "data-longer": b"5\r\nhelloXX\r\n0\r\n\r\n",
    "data-longer-by-a-chunk": b"5\r\nhello0\r\n\r\n",
    "data-shorter": b"6\r\nhello\r\n0\r\n\r\n",
    "data-lf": b"5\r\nhello\n0\r\n\r\n",
    "data-cr": b"5\r\nhello\r0\r\n\r\n",
    "data-two-line-ends": b"5\r\nhello\r\n\r\n0\r\n\r\n",
    "last-space": b"5\r\nhello\r\n0 \r\n\r\n",
    "last-17-zeros": b"5\r\nhello\r\n00000000000000000\r\n\r\n",
    "last-lf": b"5\r\nhello\r\n0\n\r\n",
    "end-lf": b"5\r\nhello\r\n0\r\n\n",
    "trailer-lf": b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    "trailer-nul": b"5\r\nhello\r\n0\r\nX: \x00\r\n\r\n",
    "trailer-cr": b"5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
}


def _table(*tables: dict[str, tuple[bytes, int]]) -> list[object]:
    return [pytest.param(*form, id=name) for table in tables for name, form in table.items()]


@pytest.mark.parametrize(("sent", "status"), _table(_TWO_FRAMINGS, _LINES_AND_BYTES, _HOSTS_AND_VERSIONS, _TARGETS))
def test_ambiguous_head_is_refused(relay: Relay, counted: Provider, sent: bytes, status: int) -> None:
    answer = refusal(relay.address, sent + _SMUGGLED)
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    serves(relay.address)
    only_request(counted)


@pytest.mark.parametrize("body", _CODINGS.values(), ids=_CODINGS)
def test_ambiguous_chunk_is_refused(relay: Relay, counted: Provider, body: bytes) -> None:
    assert refusal(relay.address, _chunks(body + _SMUGGLED)).status == 400
    serves(relay.address)
    only_request(counted)


@pytest.mark.parametrize("body", _CODINGS.values(), ids=_CODINGS)
def test_ambiguous_chunk_behind_a_relayed_head_is_refused(relay: Relay, counted: Provider, body: bytes) -> None:
    """The same when the request is under way already: the provider never sees its end."""
    with Client(relay.address) as client:
        client.send(_post(b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"))
        assert client.read_head()[0] == 100
        client.send(body + _SMUGGLED)
        assert client.answer().status == 400
        assert client.closed()
    serves(relay.address)
    only_request(counted)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
        b'5 ; name="a b"\r\nhello\r\n0\r\n\r\n',
        b"0000000000000005\r\nhello\r\n000\r\n\r\n",
        b"1\r\nh\r\n4\r\nello\r\n0\r\nX: y\r\n\r\n",
    ],
)
def test_right_chunks_are_relayed_byte_by_byte_too(relay: Relay, body: bytes) -> None:
    with Client(relay.address) as client:
        client.send(_chunks(body))
        assert json.loads(client.answer().body)["body"] == "hello"
        client.send(_chunks(b"")[:-1])
        for byte in _chunks(b"")[-1:] + body:
            client.send(bytes([byte]))
        assert json.loads(client.answer().body)["body"] == "hello"


@pytest.mark.parametrize("pieces", [[b"\r\n" + _get()], [b"\r\n", _get()], [b"\r", b"\n" + _get()]])
def test_one_empty_line_before_a_request_is_ignored(relay: Relay, counted: Provider, pieces: list[bytes]) -> None:
    with Client(relay.address) as client:
        for _ in range(2):
            for piece in pieces:
                client.send(piece)
            assert client.answer().status == 200
    assert counted.stats()["requests"] == 2


# B9, and what the provider sees


def _fields(answer: bytes) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in json.loads(answer)["headers"]]


@pytest.mark.parametrize(
    ("sent", "framing"),
    [
        (_get(), []),
        (_post(b"Content-Length: 5\r\n", b"hello"), [("content-length", "5")]),
        (_post(b"Content-Length: 0\r\n"), [("content-length", "0")]),
        (_chunks(b"5;x\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"), [("transfer-encoding", "chunked")]),
        (
            _post(b"Connection: content-length\r\nContent-Length: 5\r\n", b"hello"),
            [("content-length", "5")],
        ),
        (
            _post(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            [("transfer-encoding", "chunked")],
        ),
        (
            _post(b"Content-Length: 5\r\n", b"hello", version=b"HTTP/1.0"),
            [("content-length", "5")],
        ),
    ],
)
def test_provider_sees_exactly_one_framing(relay: Relay, sent: bytes, framing: list[tuple[str, str]]) -> None:
    with Client(relay.address) as client:
        client.send(sent)
        fields = _fields(client.answer().body)
        assert [field for field in fields if field[0] in ("content-length", "transfer-encoding")] == framing
        assert [name for name, _ in fields].count("host") == 1


def test_fields_of_the_client_connection_stay_on_it(relay: Relay) -> None:
    hop = b"".join(
        b"%b: hop\r\n" % name
        for name in (
            *(b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authenticate", b"Proxy-Authorization", b"TE", b"Trailer"),
            *(b"Upgrade", b"HTTP2-Settings", b"X-Named", b"X-Other-Named"),
        )
    )
    with Client(relay.address) as client:
        named = b"Connection: X-Named, keep-alive ,x-OTHER-named\r\nConnection: upgrade\r\n"
        client.send(_get(fields=_HOST + named + hop + b"X-Kept: end\r\n"))
        fields = _fields(client.answer().body)
        assert ("x-kept", "end") in fields
        assert "hop" not in [value for _, value in fields]
        assert "connection" not in [name for name, _ in fields]


def test_fields_of_the_provider_connection_stay_on_it(make_relay: RelayMaker) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Named, keep-alive\r\nKeep-Alive: hop\r\nX-Named: hop\r\n"
        b"Proxy-Authenticate: hop\r\nTrailer: hop\r\nUpgrade: hop\r\nX-Kept: end\r\nContent-Length: 2\r\n\r\nok"
    )
    with Scripted(answer) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            client.request("GET", "/x")
            seen = client.answer()
        assert seen.headers["x-kept"] == "end"
        assert "hop" not in seen.headers.values()
        assert "connection" not in seen.headers
        assert seen.body == b"ok"


@pytest.mark.parametrize(
    "option", [b"host", b"authorization", b"content-length", b"x-request-id", b"via", b"close, authorization, host"]
)
def test_naming_a_field_in_connection_takes_nothing_from_the_relay(make_relay: RelayMaker, option: bytes) -> None:
    """A client may drop its own fields that way, never those that the relay writes."""
    relay = make_relay(upstream_extra='api_key_env = "RELAY_TEST_KEY"', env={"RELAY_TEST_KEY": "sk-relay"})
    with Client(relay.address) as client:
        client.send(
            _post(b"Authorization: Bearer mine\r\nConnection: " + option + b"\r\nContent-Length: 5\r\n", b"hello")
        )
        answer = client.answer()
        echo = json.loads(answer.body)
        assert echo["body"] == "hello"
        fields = _fields(answer.body)
        assert [value for name, value in fields if name == "authorization"] == ["Bearer sk-relay"]
        for name in ("host", "content-length", "x-request-id", "via"):
            assert [field for field, _ in fields].count(name) == 1, name
        assert ("content-length", "5") in fields
        assert "relay.test" not in [value for name, value in fields if name == "host"]
