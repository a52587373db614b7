"""A stream that cannot go on says so once, in its dialect and between two events, and then breaks off visibly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import RelayMaker
from tests.programs import Answer, Client, Provider, Relay
from tests.robustness.peers import CHAT, DIALECTS, Dialect, Scripted

_NAMES = [dialect.name for dialect in DIALECTS]
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_EVENT = b'data: {"choices":[]}\n\n'
_HALF = b'data: {"choices":[{"delta":{"con'


def _ask(address: tuple[str, int], dialect: Dialect, simulate: str) -> Answer:
    with Client(address) as client:
        client.post(dialect.path, dialect.asked(stream=True), simulate)
        answer = client.answer()
        assert not answer.clean
        assert client.closed()
        return answer


def _events(body: bytes) -> list[dict[str, Any]]:
    """Every event's data as JSON, as an SDK reads it; fails for half of one. An `event` field is added as `__name`."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b"", f"the stream ends inside an event: {body[-200:]!r}"
    events = []
    for block in blocks:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        events.append({**json.loads(fields[b"data"]), "__name": fields.get(b"event", b"").decode()})
    return events


def _check_error(dialect: Dialect, events: list[dict[str, Any]]) -> None:
    """The last event is the relay's error, as the dialect's SDKs expect one."""
    error = events[-1]
    match dialect.name:
        case "responses":
            assert error["__name"] == error["type"] == "response.failed"
            assert error["sequence_number"] == events[-2]["sequence_number"] + 1
            assert error["response"]["id"] == events[0]["response"]["id"]
            assert error["response"]["status"] == "failed"
            assert error["response"]["error"]["message"]
        case "messages":
            assert error["__name"] == error["type"] == "error"
            assert set(error["error"]) == {"type", "message"}
        case _:
            assert set(error["error"]) == {"message", "type", "param", "code"}
            assert error["__name"] == ""


def _is_error(event: dict[str, Any]) -> bool:
    return "error" in event or event.get("type") in ("error", "response.failed")


@pytest.mark.parametrize("lie", ["cut", "cut-reset", "bad-chunk", "no-done"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=_NAMES)
def test_broken_stream_ends_in_one_error_event(relay: Relay, provider: Provider, dialect: Dialect, lie: str) -> None:
    simulate = f"lie={lie}; at=3; events=8; interval=0"
    answer = _ask(relay.address, dialect, simulate)
    events = _events(answer.body)
    _check_error(dialect, events)
    assert [_is_error(event) for event in events].count(True) == 1
    assert dialect.terminal not in answer.body
    if lie == "cut":
        # In front of it stands what the provider said, byte by byte.
        with Client(provider.address) as direct:
            direct.post(dialect.path, dialect.asked(stream=True), simulate)
            own = direct.answer().body
        assert answer.body.startswith(own)
        assert len(_events(answer.body[len(own) :])) == 1


@pytest.mark.parametrize("dialect", DIALECTS, ids=_NAMES)
def test_broken_compressed_stream_ends_in_one_error_event(relay: Relay, dialect: Dialect) -> None:
    answer = _ask(relay.address, dialect, "lie=cut; at=3; events=8; interval=0; encoding=gzip")
    assert "content-encoding" not in answer.headers
    _check_error(dialect, _events(answer.body))


@pytest.mark.parametrize("dialect", DIALECTS, ids=_NAMES)
def test_silent_stream_ends_in_one_error_event(make_relay: RelayMaker, dialect: Dialect) -> None:
    # The heartbeat makes the relay look at the stream's deadlines.
    relay = make_relay(timeouts="idle = 1\nheartbeat = 0.5")
    answer = _ask(relay.address, dialect, "lie=mid-stall; at=3; events=8; interval=0")
    _check_error(dialect, _events(b"".join(chunk for chunk in answer.chunks if chunk != b":\n")))


@pytest.mark.parametrize("dialect", DIALECTS, ids=_NAMES)
def test_error_of_the_provider_itself_is_passed_on_once(relay: Relay, provider: Provider, dialect: Dialect) -> None:
    with Client(relay.address) as client, Client(provider.address) as direct:
        for side in (client, direct):
            side.post(dialect.path, dialect.asked(stream=True), "lie=error; at=3; events=8; interval=0")
        answer, own = client.answer(), direct.answer()
    assert answer.body == own.body
    assert dialect.terminal not in answer.body
    # `response.failed` is how such a stream ends; no other dialect has a clean end for an error.
    assert answer.clean == (dialect.name == "responses")


def test_stream_of_an_unknown_dialect_gets_no_event_of_ours(relay: Relay) -> None:
    with Client(relay.address) as client:
        client.request("GET", "/sse/ticker", headers={"Simulate": "lie=cut; at=3; events=8; interval=0"})
        answer = client.answer()
        assert answer.status == 200
        assert not answer.clean
        assert b"error" not in answer.body


# Never inside an event


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (_HEAD + b"Content-Length: 1000\r\n\r\n" + _EVENT + _HALF, "close"),
        (_HEAD + b"Content-Length: 1000\r\n\r\n" + _EVENT + _HALF, "reset"),
        (_HEAD + b"Content-Length: %d\r\n\r\n" % len(_EVENT + _HALF) + _EVENT + _HALF, "keep"),
        (_HEAD + b"\r\n" + _EVENT + _HALF, "close"),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n100\r\n" + _EVENT + _HALF, "close"),
        (
            _HEAD
            + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(_EVENT + _HALF)
            + _EVENT
            + _HALF
            + b"\r\nnot a size\r\n",
            "keep",
        ),
        (
            _HEAD
            + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(_EVENT + _HALF)
            + _EVENT
            + _HALF
            + b"\r\n0\r\n\r\n",
            "keep",
        ),
    ],
    ids=["length-cut", "length-reset", "length-whole", "until-close", "chunk-cut", "chunk-bad", "chunks-whole"],
)
def test_error_event_never_stands_inside_half_an_event(make_relay: RelayMaker, answer: bytes, ending: str) -> None:
    with Scripted(answer, ending=ending) as provider:
        relay = make_relay(upstream=provider.url)
        seen = _ask(relay.address, CHAT, "")
        assert seen.status == 200
        assert seen.body.startswith(_EVENT)
        rest = seen.body[len(_EVENT) :]
        # Either the half is kept back and an error follows, or it is passed on and nothing follows: never both.
        assert rest == _HALF or _is_error(_events(rest)[0]), rest


def test_error_event_never_stands_inside_an_event_that_was_passed_on_in_pieces(make_relay: RelayMaker) -> None:
    half = b'data: {"filling":"' + b"x" * 10_000
    with Scripted(_HEAD + b"Content-Length: 100000\r\n\r\n" + half, ending="close") as provider:
        relay = make_relay(upstream=provider.url, limits="event = 1024")
        seen = _ask(relay.address, CHAT, "")
        assert len(seen.body) > 9_000
        assert half.startswith(seen.body)
        assert b'"error"' not in seen.body


# Clients that know no chunks


def _old_client(address: tuple[str, int], simulate: str, *, stream: bool) -> tuple[bytes, bool]:
    """What an HTTP/1.0 client receives, and whether a RST ended it."""
    body = json.dumps(CHAT.asked(stream=stream)).encode()
    with Client(address) as client:
        client.send(b"POST %b HTTP/1.0\r\nSimulate: %b\r\n" % (CHAT.path.encode(), simulate.encode()))
        client.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        received = b""
        try:
            while data := client.socket.recv(65536):
                received += data
        except ConnectionResetError:
            return received, True
        return received, False


def test_http10_client_is_told_of_a_broken_stream_by_a_reset(relay: Relay) -> None:
    received, reset = _old_client(relay.address, "lie=cut; at=3; events=8; interval=20ms", stream=True)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert reset, "the end of a cut stream looked like the end of a whole one"
    assert CHAT.terminal not in received


def test_http10_client_gets_a_whole_stream_with_a_clean_end(relay: Relay) -> None:
    received, reset = _old_client(relay.address, "events=8; interval=20ms", stream=True)
    assert not reset
    assert received.endswith(CHAT.terminal)
    assert b"transfer-encoding" not in received.lower()
