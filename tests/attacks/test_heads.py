"""Heads that could be read in two ways, or smuggle bytes into the next hop (A10): nothing of them reaches the provider.

Field by field, as bytes and without indexing; the same on the way to a provider of HTTP/1.1 and of HTTP/2.
"""

from __future__ import annotations

import pytest

from tests.attacks.ground import Ground
from tests.attacks.script import Attacker, Blocks, Fields, asking, streams
from tests.http2 import frames
from tests.http2.frames import END_HEADERS, Code, Frame, Kind

_CONTROLS = {"CR": "\r", "LF": "\n", "NUL": "\0", "DEL": "\x7f", "CR LF": "\r\nx: y", "ESC": "\x1b"}
_BASE = asking("/echo", "")


def _with(name: str, value: str) -> Fields:
    """The request with another value for one pseudo-header field."""
    return [(key, value if key == name else old) for key, old in _BASE]


def _without(name: str) -> Fields:
    return [field for field in _BASE if field[0] != name]


def _table() -> dict[str, Fields]:
    table: dict[str, Fields] = {}
    for what, bad in _CONTROLS.items():
        table[f"{what} in a name"] = [*_BASE, (f"x{bad}y", "z")]
        table[f"{what} in a value"] = [*_BASE, ("x", f"y{bad}z")]
        table[f"{what} at a value's start"] = [*_BASE, ("x", f"{bad}z")]
        table[f"{what} at a value's end"] = [*_BASE, ("x", f"y{bad}")]
        for pseudo, value in (("method", "GET"), ("path", "/echo"), ("authority", "a"), ("scheme", "http")):
            table[f"{what} in :{pseudo}"] = _with(f":{pseudo}", value + bad + "b")
    table |= {
        "space in a name": [*_BASE, ("x y", "z")],
        "space before a name": [*_BASE, (" x", "z")],
        "space behind a name": [*_BASE, ("x ", "z")],
        "tab in a name": [*_BASE, ("x\t", "z")],
        "colon in a name": [*_BASE, ("x:", "z")],
        "empty name": [*_BASE, ("", "z")],
        "capital in a name": [*_BASE, ("X-Large", "z")],
        "byte above ASCII in a name": [*_BASE, ("x\xe9", "z")],
        "space at a value's start": [*_BASE, ("x", " y")],
        "tab at a value's end": [*_BASE, ("x", "y\t")],
        "space in :method": _with(":method", "GET /other"),
        "space in :path": _with(":path", "/echo HTTP/1.1"),
        "space in :authority": _with(":authority", "a b"),
        "byte above ASCII in :path": _with(":path", "/echo\xe9"),
        "byte above ASCII in :authority": _with(":authority", "a\xe9"),
        ":path without slash": _with(":path", "echo"),
        ":path absolute": _with(":path", "http://evil/echo"),
        ":path of two slashes": _with(":path", "//evil/echo"),
        ":path with a fragment": _with(":path", "/echo#x"),
        ":path with dots": _with(":path", "/x/../echo"),
        ":path is *": _with(":path", "*"),
        ":path empty": _with(":path", ""),
        ":path missing": _without(":path"),
        ":method missing": _without(":method"),
        ":method empty": _with(":method", ""),
        ":scheme missing": _without(":scheme"),
        ":scheme empty": _with(":scheme", ""),
        ":authority empty": _with(":authority", ""),
        ":authority missing": _without(":authority"),
        ":authority with userinfo": _with(":authority", "user@a"),
        ":authority with a path": _with(":authority", "a/b"),
        ":path twice": [*_BASE[:4], (":path", "/other"), *_BASE[4:]],
        ":method twice": [(":method", "GET"), *_BASE],
        ":authority twice": [(":authority", "a"), *_BASE],
        ":status": [(":status", "200"), *_BASE],
        ":protocol": [(":protocol", "websocket"), *_with(":method", "CONNECT")],
        ":unknown": [(":unknown", "x"), *_BASE],
        "pseudo-header behind a field": [("x", "y"), *_BASE],
        "two Hosts": [*_BASE, ("host", "a"), ("host", "a")],
        "two Hosts that differ": [*_BASE, ("host", "a"), ("host", "b")],
        "Host unlike :authority": [*_BASE, ("host", "b")],
        "Host with a port unlike :authority": [*_BASE, ("host", "a:81")],
        "Host in place of :authority is none": [*_without(":authority"), ("host", "a b")],
        "CONNECT": _with(":method", "CONNECT"),
        "CONNECT by the book": [(":method", "CONNECT"), (":authority", "evil:443")],
        "TRACE": _with(":method", "TRACE"),
        "Connection": [*_BASE, ("connection", "close")],
        "Keep-Alive": [*_BASE, ("keep-alive", "1")],
        "Proxy-Connection": [*_BASE, ("proxy-connection", "close")],
        "Transfer-Encoding": [*_BASE, ("transfer-encoding", "chunked")],
        "Upgrade": [*_BASE, ("upgrade", "h2c")],
        "TE": [*_BASE, ("te", "chunked")],
        "two lengths": [*_BASE, ("content-length", "0"), ("content-length", "0")],
        "two lengths in one": [*_BASE, ("content-length", "0, 0")],
        "length with a sign": [*_BASE, ("content-length", "+0")],
        "length without a body": [*_BASE, ("content-length", "5")],
        "101 fields": [*_BASE, *([("x", "y")] * 101)],
        ":path of 8 KiB": _with(":path", "/" + "x" * 8192),
        "unknown expectation": [*_BASE, ("expect", "the-worst")],
    }
    return table


_TABLE = _table()
# Well-formed HTTP/2 that is not served is answered; all else is a stream error.
_ANSWERED = {
    ":path without slash": "400",
    ":path absolute": "400",
    ":path of two slashes": "400",
    ":path with a fragment": "400",
    ":path with dots": "400",
    ":path is *": "400",
    "CONNECT": "501",
    "CONNECT by the book": "501",
    "TRACE": "501",
    "101 fields": "431",
    ":path of 8 KiB": "414",
    "unknown expectation": "417",
}


def _said(attacker: Attacker, stream: int, what: str) -> Frame:
    """What the relay says of a stream first; that the connection ends is no way to refuse one head."""
    said = attacker.until(lambda frame: frame.stream == stream or frame.kind == Kind.GOAWAY, what)
    assert said.kind != Kind.GOAWAY, f"{what}: the connection ended"
    return said


@pytest.mark.parametrize("route", ["", "/two"], ids=["http1", "http2"])
def test_heads_that_reach_nobody(ground: Ground, route: str) -> None:
    """Two connections live through the whole table: it has too many mistakes for one."""
    rows = list(_TABLE.items())
    with ground.attack(f"A10 {len(rows)} heads, provider {route or '/one'}") as case:
        for rows_of_one in (rows[:60], rows[60:]):
            attacker = case.connect()
            for stream, (what, fields) in zip(streams(60), rows_of_one, strict=False):
                block = frames.block(
                    (name, value.replace("/echo", f"{route}/echo") if name == ":path" else value)
                    for name, value in fields
                )
                attacker.send(frames.headers(stream, block))
                said = _said(attacker, stream, what)
                if what in _ANSWERED:
                    assert said.fields[:1] == ((":status", _ANSWERED[what]),), (what, said)
                else:
                    assert said.kind == Kind.RST_STREAM, (what, said)
                    assert said.code == Code.PROTOCOL_ERROR, (what, said)
            attacker.alive()
            attacker.send(frames.goaway())
            attacker.read_to_end()
    assert case.stats["requests"] == case.stats["connections"] == 0, ground.provider.requests()
    refused = [line for line in case.lines if line["reason"] in ("client_error", "refused")]
    assert len(refused) == len(rows)


@pytest.mark.parametrize("route", ["", "/two"], ids=["http1", "http2"])
def test_heads_that_are_fine(ground: Ground, route: str) -> None:
    """What is near the table and allowed arrives, and arrives as it was."""
    kept = [("x", "a b\tc"), ("x-bytes", "\xe9\xff"), ("x-empty", ""), ("x!#$%&'*+-.^_`|~", "y"), ("te", "trailers")]
    accepted: list[Fields] = [
        [*asking(f"{route}/echo", "")],
        [*asking(f"{route}/echo", ""), ("host", "A")],
        [field for field in asking(f"{route}/echo", "") if field[0] != ":authority"] + [("host", "a:80")],
        [*asking(f"{route}/echo?a=%0d%0a&b=[]|", ""), *kept],
    ]
    with ground.attack("A10 heads that are fine") as case:
        attacker = case.connect()
        for number, fields in enumerate(accepted):
            attacker.send(frames.headers(2 * number + 1, frames.block(fields)))
            assert attacker.of(2 * number + 1, Kind.HEADERS).fields[0] == (":status", "200"), fields
        requests = ground.provider.requests()
        attacker.alive()
    assert len(requests) == len(accepted)
    came = [(name.lower(), value) for name, value in requests[-1]["headers"]]
    for name, value in kept[:4]:
        assert (name, value) in came, (name, came)
    assert requests[-1]["target"] == "/echo?a=%0d%0a&b=[]|"
    assert case.stats["finished"] == len(accepted)


def test_a_refused_head_gets_its_answer_whatever_its_body_does(ground: Ground) -> None:
    """A head that is well-formed but not served is no attack, and its body that is under way is no mistake."""
    fields = [*asking("/echo", "", method="POST"), ("expect", "something")]
    with ground.attack("417 with a body, a hundred and thirty times") as case:
        attacker, blocks = case.connect(), Blocks()
        for stream in streams(130):
            attacker.send(frames.headers(stream, blocks(fields), END_HEADERS), frames.data(stream, b"x" * 400))
            attacker.of(stream, Kind.HEADERS)
            attacker.of(stream, Kind.DATA)
        attacker.alive()
    assert not [frame for frame in attacker.frames if frame.kind == Kind.GOAWAY]
