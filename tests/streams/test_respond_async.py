"""`Prefer: respond-async` (RFC 7240, 4.1): 202 and a Location that anybody may read, also a browser's own EventSource;
what the provider answers later is what is read there, whatever it is."""

from __future__ import annotations

import json

import pytest

from tests.pairs.calls import Agent
from tests.robustness.peers import CHAT, DIALECTS, Dialect, until, unused_port
from tests.streams.ground import (
    AS_EVENTS,
    DEFERRED,
    ENDLESS,
    FOUR,
    WHOLE,
    Ground,
    becomes,
    cancel,
    defer,
    read,
    refusal,
    state,
    whole,
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_answer_is_202_and_the_stream_is_at_its_location(
    ground: Ground, agent: Agent, other: Agent, dialect: Dialect
) -> None:
    told = ground.told("delay=50ms; events=20; interval=2ms", dialect)
    document = dialect.asked(stream=True)
    answer = agent.post(dialect.path, document, "delay=50ms; events=20; interval=2ms", DEFERRED).answer()
    assert (answer.status, answer.clean) == (202, True)
    stream_id = answer.headers["relay-stream-id"]
    assert answer.headers["location"] == f"/v1/streams/{stream_id}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["content-type"] == "application/json"
    said = json.loads(answer.body)
    assert (said["id"], said["object"], said["url"]) == (stream_id, "relay.stream", answer.headers["location"])
    heard = whole(other.ask(target=answer.headers["location"], headers=AS_EVENTS).answer(), last=len(told))
    assert heard.said == told
    assert heard.stream_id == stream_id
    assert ground.stats()["requests"] == 1


@pytest.mark.parametrize("value", ["respond-async", "Respond-Async", "wait=10, respond-async", "respond-async;x=1,a"])
def test_preference_is_understood_in_all_its_forms(agent: Agent, value: str) -> None:
    answer = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, {"Prefer": value}).answer()
    assert answer.status == 202
    whole(agent.ask(target=answer.headers["location"], headers=AS_EVENTS).answer())


@pytest.mark.parametrize("value", ["return=minimal", "wait=10", "respond-asynchronously", "", "handling=lenient"])
def test_other_preferences_change_nothing(agent: Agent, value: str) -> None:
    answer = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, {"Prefer": value}).answer()
    assert (answer.status, answer.clean) == (200, True)
    assert "preference-applied" not in answer.headers
    assert b"\nid:" not in answer.body


def test_preference_is_not_applied_where_nothing_is_kept(ground: Ground) -> None:
    never = ground.relay_with(route='resumable = "never"')
    for relay in (never, ground.relay_with(retention='finished = "0s"')):
        with ground.agent(relay) as agent:
            answer = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, DEFERRED).answer()
            assert (answer.status, answer.clean) == (200, True)
            assert answer.body.endswith(CHAT.terminal)
            assert "preference-applied" not in answer.headers


def test_with_cancel_nobody_could_ever_read_it(ground: Ground, agent: Agent) -> None:
    fields = {**DEFERRED, "Relay-On-Disconnect": "cancel"}
    refusal(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, fields).answer(), 400, "bad_request")
    assert ground.stats()["requests"] == 0


@pytest.mark.parametrize(("status", "dialect"), [(401, DIALECTS[0]), (429, DIALECTS[3]), (500, DIALECTS[2])])
def test_providers_error_is_what_is_read(
    ground: Ground, agent: Agent, other: Agent, status: int, dialect: Dialect
) -> None:
    """By who waits for it, and by who comes later, again and again."""
    simulate = f"delay=100ms; status={status}; retry_after=9"
    with ground.source() as source:
        told = source.post(dialect.path, dialect.asked(stream=True), simulate).answer()
    stream_id = defer(agent, simulate, dialect)
    waiting = read(other, stream_id)
    answers = [waiting.answer(), read(other, stream_id).answer(), read(agent, stream_id, "latest").answer()]
    for answer in answers:
        assert (answer.status, answer.clean) == (status, True)
        assert answer.headers["content-type"] == told.headers["content-type"]
        assert answer.headers["retry-after"] == "9"
        assert answer.body == told.body
    assert state(agent, stream_id)["state"] == "failed"


def test_relays_own_error_is_what_is_read(ground: Ground) -> None:
    relay = ground.make_relay(url=f"http://127.0.0.1:{unused_port()}", timeouts='connect = "1s"')
    with ground.agent(relay) as agent:
        stream_id = defer(agent)
        assert becomes(agent, stream_id, "failed")["error"]["code"] == "upstream_unreachable"
        refusal(read(agent, stream_id).answer(), 410, "upstream_unreachable")


@FOUR
def test_plain_answer_is_what_is_read(ground: Ground, agent: Agent, other: Agent) -> None:
    simulate = "delay=100ms; events=50; split=4"
    fields = {**DEFERRED, "Simulate": simulate, "Content-Type": "application/json"}
    with ground.source() as source:
        told = source.post(CHAT.path, CHAT.asked(stream=False), simulate).answer()
    accepted = agent.ask("POST", CHAT.path, json.dumps(CHAT.asked(stream=False)).encode(), fields).answer()
    assert accepted.status == 202
    waiting = [read(other, accepted.headers["relay-stream-id"]) for _ in range(3)]
    for call in (*waiting, agent.ask(target=accepted.headers["location"])):
        answer = call.answer()
        assert (answer.status, answer.clean) == (200, True)
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.body) == json.loads(told.body)
    assert state(agent, accepted.headers["relay-stream-id"])["state"] == "finished"


def test_plain_answer_that_is_too_large_is_refused(ground: Ground, agent: Agent) -> None:
    accepted = agent.ask("POST", "/raw/x", b"", {**DEFERRED, "Simulate": "events=40; size=65536; interval=0"}).answer()
    stream_id = accepted.headers["relay-stream-id"]
    assert becomes(agent, stream_id, "failed")["error"]["code"] == "upstream_invalid"
    refusal(read(agent, stream_id).answer(), 410, "upstream_invalid")


@FOUR
def test_nobody_reads_it_for_the_grace_and_it_is_cancelled(ground: Ground) -> None:
    with ground.agent(ground.relay_with(retention='orphan_grace = "300ms"')) as agent:
        stream_id = defer(agent, ENDLESS)
        ground.counts.wait(aborted=1)
        assert becomes(agent, stream_id, "cancelled")["error"]["code"] == "orphaned"
        assert ground.stats()["finished"] == 0


def test_it_can_be_cancelled_before_anybody_reads_it(ground: Ground, agent: Agent, other: Agent) -> None:
    for simulate in ("delay=60", "first=60", ENDLESS):
        before = ground.stats()["requests"]
        stream_id = defer(agent, simulate)
        ground.counts.wait(requests=before + 1)
        answer = cancel(other, stream_id)
        assert json.loads(answer.body)["state"] == "cancelled"
        ground.counts.wait(aborted=before + 1)


def test_request_that_is_not_whole_is_not_accepted(ground: Ground, agent: Agent, other: Agent) -> None:
    """Nobody would ever send the rest."""
    mine = {"Authorization": f"Bearer half-{ground.client}"}
    call = agent.ask("POST", CHAT.path, headers={**DEFERRED, **mine, "Expect": "100-continue"}, more=True, length=100)
    call.continues()
    call.send(b"{")
    [document] = json.loads(other.ask(target="/v1/streams", headers=mine).answer().body)["data"]
    assert document["state"] == "waiting"
    call.leave()
    until(lambda: state(other, document["id"])["state"] in ("failed", "cancelled"), "the end of half a request")
