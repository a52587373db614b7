"""Ids: `{stream}-{seq}`, last in the block that holds the data, from 1 without holes; and only where asked for."""

from __future__ import annotations

import re

import pytest

from tests.pairs.calls import Agent
from tests.robustness.peers import CHAT, DIALECTS, Dialect
from tests.streams.ground import AS_EVENTS, RESUMABLE, WHOLE, Ground, begin, read, stream_id_of, whole
from tests.streams.heard import hear, plain

_KINDS = {
    "words": "events=40; interval=0; seed=3; unicode=1; reasoning=1; tools=1",
    "pings": "events=40; interval=0; seed=4; ping=3",
    "burst": "events=40; interval=1ms; burst=40; seed=5",
    "split": "events=40; interval=0; seed=6; unicode=1; split=7",
    "crlf": "events=40; interval=0; seed=7; crlf=1; ping=5; split=8",
    "cr": "events=40; interval=0; seed=8; cr=1; ping=5",
    "large": "events=6; interval=0; seed=9; size=20000",
    "gzip": "encoding=gzip; events=40; interval=0; seed=10; split=3",
    "none": "events=0",
    "one": "events=1; interval=0",
}


@pytest.mark.parametrize("kind", _KINDS)
def test_ids_count_the_providers_events_from_1_without_holes(ground: Ground, agent: Agent, kind: str) -> None:
    for dialect in DIALECTS:
        told = ground.told(_KINDS[kind].replace("encoding=gzip", ""), dialect)
        answer = begin(agent, _KINDS[kind], dialect).answer()
        heard = whole(answer, last=len(told))
        assert heard.said == told
        assert heard.stream_id == answer.headers["relay-stream-id"]
        # As they are read again: the same bytes.
        assert read(agent, heard.stream_id).answer().body == answer.body


def test_stream_id_is_of_one_generation_and_never_used_again(agent: Agent) -> None:
    seen = set()
    for headers in (RESUMABLE, {}):
        for _ in range(20):
            answer = agent.post(CHAT.path, CHAT.asked(stream=True), "events=1; interval=0", headers).answer()
            stream_id = answer.headers["relay-stream-id"]
            assert re.fullmatch(r"[A-Za-z0-9_-]{22}", stream_id)
            seen.add(stream_id)
    assert len(seen) == 40


def test_providers_own_ids_are_not_the_readers(ground: Ground, agent: Agent) -> None:
    """Of two ids in one event the last would count. Here of a stream that no dialect knows."""
    simulate = "events=30; interval=0; ping=4"
    with ground.source() as direct:
        told = direct.ask(target="/sse/ticker", headers={"Simulate": simulate}).answer().body
    assert b"\nid: 3\n" in told
    answer = agent.ask(target="/sse/ticker", headers={"Simulate": simulate, **RESUMABLE}).answer()
    heard = whole(answer, last=30)
    assert heard.said == plain(told)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_transparent_stream_has_no_ids_and_every_byte_of_the_providers(
    ground: Ground, agent: Agent, dialect: Dialect
) -> None:
    headers: list[dict[str, str]] = [{}, {"Relay-Resumable": "0"}, {"Idempotency-Key": "some-key"}]
    with ground.source() as source:
        for number, kind in enumerate(("words", "pings", "split", "crlf", "cr", "none")):
            told = source.post(dialect.path, dialect.asked(stream=True), _KINDS[kind]).answer()
            answer = agent.post(dialect.path, dialect.asked(stream=True), _KINDS[kind], headers[number % 3]).answer()
            assert answer.clean
            assert answer.body == told.body
            assert b"\nid:" not in answer.body
            assert answer.headers["relay-stream-id"]


def test_transparent_stream_keeps_the_providers_own_ids(ground: Ground, agent: Agent) -> None:
    headers = {"Simulate": "events=30; interval=0; ping=4; split=5"}
    with ground.source() as direct:
        told = direct.ask(target="/sse/ticker", headers=headers).answer().body
    assert agent.ask(target="/sse/ticker", headers=headers).answer().body == told


def test_head_of_a_stream_names_it_and_keeps_buffers_out_of_the_way(agent: Agent) -> None:
    first = begin(agent)
    stream_id = stream_id_of(first)
    first.answer()
    transparent = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE)
    for call in (first, read(agent, stream_id), transparent):
        answer = call.answer()
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "accept-encoding" in answer.headers["vary"].lower()
        assert answer.headers["x-request-id"]
        assert (answer.headers["relay-stream-id"] == stream_id) is (call is not transparent)
        exposed = answer.headers["access-control-expose-headers"].lower().replace(" ", "").split(",")
        assert {"relay-stream-id", "x-request-id"} <= set(exposed)
        for name in ("relay-stream-id", "content-type", "cache-control", "access-control-expose-headers"):
            assert len(answer.values(name)) == 1


def test_head_of_a_stream_that_is_read_before_its_provider_answers_is_the_same(ground: Ground, agent: Agent) -> None:
    fields = {"Prefer": "respond-async"}
    accepted = agent.post(CHAT.path, CHAT.asked(stream=True), "delay=200ms; events=3; interval=0", fields).answer()
    early = agent.ask(target=accepted.headers["location"], headers=AS_EVENTS)
    answer = early.answer()
    heard = hear(answer.body)
    heard.tiles(1)
    late = agent.ask(target=accepted.headers["location"], headers=AS_EVENTS).answer()
    assert late.body == answer.body
    for name in ("content-type", "cache-control", "x-accel-buffering", "relay-stream-id", "vary"):
        assert answer.headers[name].lower() == late.headers[name].lower()
    assert ground.stats()["requests"] == 1


def test_fields_to_the_relay_stay_with_it(ground: Ground, agent: Agent) -> None:
    headers = {
        "Relay-Overflow": "merge",
        "Relay-Flush": "1ms",
        "Relay-Placeholder": "1",
        "Relay-On-Disconnect": "continue",
    }
    begin(agent, WHOLE, **{name.replace("-", "_"): value for name, value in headers.items()}).answer()
    [head] = ground.counts.requests()
    assert "relay-" not in str(head).lower()
