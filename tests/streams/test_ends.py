"""Ends of a stream that many read: for each of them, early or late, cleanly if and only if the terminal event was
sent."""

from __future__ import annotations

import json

import pytest

from tests.pairs.calls import Agent
from tests.robustness.peers import CHAT, DIALECTS, Dialect
from tests.streams.ground import (
    AS_EVENTS,
    FOUR,
    SCRIPTED,
    Ground,
    becomes,
    begin,
    broken,
    read,
    read_by,
    refusal,
    stream_id_of,
    whole,
)
from tests.streams.heard import hear, plain
from tests.streams.script import Script, delta

_CUTS = ["cut", "cut-reset", "bad-chunk", "half-event", "no-done"]


@pytest.mark.parametrize("lie", _CUTS)
def test_cut_provider_is_an_error_and_an_abort_for_each_reader(
    ground: Ground, agent: Agent, other: Agent, lie: str
) -> None:
    simulate = f"lie={lie}; at=12; events=20; interval=10ms"
    first = begin(agent, simulate)
    stream_id = stream_id_of(first)
    readers = [first, *(read(reader, stream_id, after) for reader in (agent, other) for after in (None, 1))]
    codes = set()
    for reader, start in zip(readers, (1, 1, 2, 1, 2), strict=True):
        answer = reader.answer()
        ground.broken_off(answer)
        heard = hear(answer.body)
        heard.tiles(start)
        codes.add(heard.error()["code"])
        assert b"[DONE]" not in answer.body
    [code] = codes
    seen = becomes(agent, stream_id, "failed")
    assert seen["error"]["code"] == code
    # Who comes late gets the events, the error, the abort; who has all of them, the reason.
    late = broken(ground, read(other, stream_id).answer(), code)
    late.tiles(1, seen["tail"])
    broken(ground, read(other, stream_id, seen["tail"] - 1).answer(), code).tiles(seen["tail"], seen["tail"])
    refusal(read(other, stream_id, seen["tail"]).answer(), 410, code)
    assert ground.stats()["requests"] == 1


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_providers_own_error_is_the_one_that_is_told(ground: Ground, agent: Agent, dialect: Dialect) -> None:
    """It has an id like any event of his; no second one follows it."""
    simulate = "lie=error; at=3; interval=0"
    told = ground.told(simulate, dialect)
    call = begin(agent, simulate, dialect)
    stream_id = stream_id_of(call)
    for answer in (call.answer(), read(agent, stream_id).answer()):
        if dialect.name == "responses":
            assert answer.clean  # `response.failed` is an end of its own
        else:
            ground.broken_off(answer)
        heard = hear(answer.body)
        assert heard.said == told
        assert not heard.own


_HASTY = "idle = 0.6\nfirst_event = 0.6\nhead = 0.6\nheartbeat = 0.12"


def test_silent_provider_is_an_error_for_each_reader(ground: Ground) -> None:
    """Heartbeats come in the meantime, and are no activity of the provider's."""
    relay = ground.relay_with(timeouts=_HASTY)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        call = begin(agent, "lie=mid-stall; at=3; interval=0")
        headless, eventless = begin(other, "delay=60"), begin(other, "first=60")
        stream_id = stream_id_of(call)
        call.wait_for(b"-4\n\n")
        readers = [call, read(other, stream_id), read(other, stream_id, 4)]
        for reader in readers:
            assert broken(ground, reader.answer(), "upstream_timeout").beats > 0
        assert becomes(other, stream_id, "failed")["tail"] == 4
        # Before its head nothing has left: a real status. Behind it heartbeats have.
        refusal(headless.answer(), 504, "upstream_timeout")
        assert broken(ground, eventless.answer(), "upstream_timeout").events == []


@FOUR
def test_stream_that_the_provider_leaves_open_ends_cleanly_for_each_reader(ground: Ground) -> None:
    relay = ground.relay_with(timeouts=_HASTY)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        calls = [(begin(agent, "lie=hold-open; events=3; interval=0", dialect), dialect) for dialect in DIALECTS]
        late = [(read(other, stream_id_of(call)), dialect) for call, dialect in calls]
        for call, dialect in (*calls, *late):
            answer = call.answer()
            assert answer.clean
            assert dialect.terminal.strip() in answer.body
        for call, _ in calls:
            assert becomes(other, stream_id_of(call), "finished")


def test_stream_of_an_unknown_dialect_ends_as_its_provider_does(ground: Ground, agent: Agent) -> None:
    for simulate, clean in (("events=5; interval=0", True), ("lie=cut; at=3; interval=0", False)):
        headers = {**AS_EVENTS, "Simulate": simulate, "Relay-Resumable": "1"}
        first = agent.ask(target="/sse/ticker", headers=headers).answer()
        again = read(agent, first.headers["relay-stream-id"]).answer()
        for answer in (first, again):
            assert answer.status == 200
            assert answer.clean == clean
            hear(answer.body).tiles(1, 5 if clean else 3)
            if not clean:
                ground.broken_off(answer)


@FOUR
def test_compressed_stream_is_kept_as_its_text(ground: Ground, agent: Agent) -> None:
    for encoding in ("gzip", "br"):
        told = ground.told("events=20; interval=2ms; unicode=1")
        call = begin(agent, f"events=20; interval=2ms; unicode=1; encoding={encoding}", Accept_Encoding=encoding)
        answer = call.answer()
        assert "content-encoding" not in answer.headers
        heard = whole(answer, last=len(told))
        assert heard.said == told
        assert whole(read(agent, heard.stream_id).answer()).said == told


@SCRIPTED
def test_reader_of_a_stream_that_still_waits_gets_a_real_status(ground: Ground) -> None:
    """Nothing of an answer has left: an error is an error."""
    with Script(head=False) as script, ground.agent(ground.make_relay(url=script.url)) as agent:
        accepted = agent.post(CHAT.path, CHAT.asked(stream=True), "", {"Prefer": "respond-async"}).answer()
        stream_id = accepted.headers["relay-stream-id"]
        script.asked()
        waiting = read(agent, stream_id)
        read_by(agent, stream_id, 1)
        script.hang_up()
        refusal(waiting.answer(), 502, "upstream_closed")
        refusal(read(agent, stream_id).answer(), 410, "upstream_closed")


@SCRIPTED
def test_providers_error_behind_a_heartbeat_is_told_and_no_clean_end(ground: Ground) -> None:
    """A head has left by then, so that no status can be: never a clean end without the terminal event."""
    body = json.dumps({"error": {"message": "no", "type": "authentication_error", "param": None, "code": "k"}}).encode()
    with Script(head=False) as script:
        relay = ground.make_relay(url=script.url, timeouts="heartbeat = 0.12")
        with ground.agent(relay) as agent:
            accepted = agent.post(CHAT.path, CHAT.asked(stream=True), "", {"Prefer": "respond-async"}).answer()
            stream_id = accepted.headers["relay-stream-id"]
            script.asked()
            waiting = read(agent, stream_id)
            assert waiting.head() == 200
            waiting.wait_for(b":\n")
            script.say(
                b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            answer = waiting.answer()
            ground.broken_off(answer)
            [(_, data)] = plain(answer.body)
            assert "error" in json.loads(data)
            # Who comes later gets it as it was.
            late = read(agent, stream_id).answer()
            assert (late.status, late.body) == (401, body)


@SCRIPTED
def test_plain_answer_behind_a_heartbeat_is_no_clean_end(ground: Ground) -> None:
    with Script(head=False) as script:
        relay = ground.make_relay(url=script.url, timeouts="heartbeat = 0.12")
        with ground.agent(relay) as agent:
            accepted = agent.post(CHAT.path, CHAT.asked(stream=True), "", {"Prefer": "respond-async"}).answer()
            script.asked()
            waiting = read(agent, accepted.headers["relay-stream-id"])
            waiting.wait_for(b":\n")
            script.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            ground.broken_off(waiting.answer())


@SCRIPTED
def test_error_event_stands_between_two_events(ground: Ground) -> None:
    with Script(delta("a")) as script, ground.agent(ground.make_relay(url=script.url)) as agent:
        call = begin(agent)
        call.wait_for(b"-1\n\n")
        script.tell(b'data: {"choices":[{"del')
        script.hang_up()
        heard = broken(ground, call.answer(), "upstream_cut")
        assert heard.said == plain(delta("a"))
