"""A comment line while the provider is silent: between events only, and no sign of life of the provider's."""

from __future__ import annotations

import select

import pytest

from tests.conftest import RelayMaker
from tests.programs import Answer, Client, Provider
from tests.robustness.peers import CHAT, DIALECTS, Dialect, Scripted

_BEAT = b":\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_NAMES = [dialect.name for dialect in DIALECTS]
_OFTEN = "heartbeat = 0.3"


def _ask(address: tuple[str, int], simulate: str, dialect: Dialect = CHAT, *, stream: bool = True) -> Answer:
    with Client(address) as client:
        client.post(dialect.path, dialect.asked(stream=stream), simulate)
        return client.answer()


def _without_beats(answer: Answer) -> bytes:
    """The body less its heartbeats, each of which must stand where an event may begin."""
    body = b""
    for chunk in answer.chunks:
        if chunk == _BEAT:
            assert body == b"" or body.endswith(b"\n\n"), f"a heartbeat inside an event: {body[-100:]!r}"
        else:
            body += chunk
    return body


@pytest.mark.parametrize("dialect", DIALECTS, ids=_NAMES)
def test_heartbeats_are_all_that_is_added(make_relay: RelayMaker, provider: Provider, dialect: Dialect) -> None:
    relay = make_relay(timeouts=_OFTEN)
    with Client(relay.address) as client, Client(provider.address) as direct:
        for side in (client, direct):
            side.post(dialect.path, dialect.asked(stream=True), "first=700ms; events=2; interval=700ms")
        answer, own = client.answer(), direct.answer()
    assert answer.clean
    assert answer.chunks.count(_BEAT) >= 2
    # Before the first event, where the model thinks longest, too.
    assert answer.chunks[0] == _BEAT
    assert _without_beats(answer) == own.body


def test_provider_that_talks_gets_no_heartbeat(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="heartbeat = 1")
    answer = _ask(relay.address, "events=30; interval=50ms")
    assert answer.clean
    assert _BEAT not in answer.chunks


@pytest.mark.parametrize("timeouts", ["heartbeat = 0", "heartbeat = 15"])
def test_silence_shorter_than_the_heartbeat_gets_none(make_relay: RelayMaker, timeouts: str) -> None:
    relay = make_relay(timeouts=timeouts)
    answer = _ask(relay.address, "first=700ms; events=2; interval=300ms")
    assert answer.clean
    assert _BEAT not in answer.chunks


def test_plain_answer_gets_no_heartbeat(make_relay: RelayMaker) -> None:
    with Scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{ ") as upstream:
        relay = make_relay(timeouts=_OFTEN, upstream=upstream.url)
        with Client(relay.address) as client:
            client.post(CHAT.path, CHAT.asked(stream=False))
            assert client.read_head()[0] == 200
            assert client.read_until(b"{ ") == b"{ "
            assert not select.select([client.socket], [], [], 1.0)[0]
            upstream.say(b" }")
            assert client.read_until(b" }") == b" }"


def test_nothing_is_sent_before_the_provider_has_answered(make_relay: RelayMaker) -> None:
    """Its status is not known yet, and a real error must still be possible."""
    relay = make_relay(timeouts=_OFTEN)
    assert _ask(relay.address, "delay=1s; lie=garbage").status == 502


def test_heartbeat_waits_for_the_end_of_an_event(make_relay: RelayMaker) -> None:
    """Half an event is kept back by the relay, so that a heartbeat stands in front of it, never in it."""
    first, event = b"data: 0\n\n", b'data: {"text":"whole"}\n\n'
    with Scripted(_HEAD + b"Content-Length: %d\r\n\r\n" % (len(first + event) + 14) + first + event[:12]) as upstream:
        relay = make_relay(timeouts=_OFTEN, upstream=upstream.url)
        with Client(relay.address) as client:
            client.post(CHAT.path, CHAT.asked(stream=True))
            client.read_until(b"2\r\n:\n\r\n")
            client.read_until(b"2\r\n:\n\r\n")
            upstream.say(event[12:] + b"data: [DONE]\n\n")
            rest = client.read_until(b"0\r\n\r\n")
            assert event in rest


def test_heartbeat_waits_for_the_end_of_an_event_passed_on_in_pieces(make_relay: RelayMaker) -> None:
    half, rest = b"data: " + b"x" * 10_000, b"x\n\n"
    with Scripted(_HEAD + b"Content-Length: %d\r\n\r\n" % (len(half + rest) + 14) + half) as upstream:
        relay = make_relay(timeouts=_OFTEN, upstream=upstream.url, limits="event = 1024")
        with Client(relay.address) as client:
            client.post(CHAT.path, CHAT.asked(stream=True))
            client.read_until(b"x" * 9_000)
            while select.select([client.socket], [], [], 1.0)[0]:
                data = client.receive()
                assert data
                assert _BEAT not in data
            upstream.say(rest + b"data: [DONE]\n\n")
            assert _BEAT not in client.read_until(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("simulate", "timeouts"),
    [
        ("lie=mid-stall; at=2; events=4; interval=0", "idle = 1.5"),
        ("lie=head-stall", "first_event = 1.5"),
    ],
)
def test_heartbeat_resets_no_timeout(make_relay: RelayMaker, counted: Provider, simulate: str, timeouts: str) -> None:
    relay = make_relay(timeouts=f"{_OFTEN}\n{timeouts}")
    answer = _ask(relay.address, simulate)
    assert answer.chunks.count(_BEAT) >= 2
    assert not answer.clean
    assert relay.access_line()["reason"] == "upstream_timeout"
    counted.wait(aborted=1)
