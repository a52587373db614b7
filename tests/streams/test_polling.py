"""Long polling, for whoever can have no stream: the events behind a position, as soon as there is one, or when the wait
is over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pairs.calls import Agent, Call
from tests.robustness.peers import descriptors_return_to
from tests.streams.ground import (
    AS_JSON,
    FOUR,
    SCRIPTED,
    STALLS,
    Ground,
    becomes,
    begin,
    cancel,
    defer,
    poll,
    read,
    refusal,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import Event
from tests.streams.script import DONE, Script, delta


def _said(call: Call) -> dict[str, Any]:
    answer = call.answer()
    assert (answer.status, answer.clean) == (200, True), answer.body[:300]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    document: dict[str, Any] = json.loads(answer.body)
    assert {"state", "tail", "events"} <= set(document)
    return document


def _seqs(document: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in document["events"]]


@pytest.fixture
def stalled(agent: Agent) -> Any:
    """A stream of four events that says no more; its id."""
    call = begin(agent, STALLS)
    call.wait_for(b"-4\n\n")
    yield stream_id_of(call)
    cancel(agent, stream_id_of(call))
    call.answer()


def test_what_is_there_is_answered_at_once(other: Agent, stalled: str) -> None:
    heard = None
    for after in range(4):
        said = _said(poll(other, stalled, after, wait="60s"))
        assert (said["state"], said["tail"], _seqs(said)) == ("streaming", 4, list(range(after + 1, 5)))
        if heard is None:
            heard = said["events"]
        assert said["events"] == heard[after:]
        assert all(set(event) == {"seq", "event", "data"} for event in said["events"])
    assert _seqs(_said(poll(other, stalled, f"{stalled}-2", wait="60s"))) == [3, 4]


def test_events_are_those_that_a_reader_gets(agent: Agent) -> None:
    """Names and all; `message` where there is none."""
    for target in ("/sse/ticker",):
        simulate = "events=12; interval=0"
        call = agent.ask(target=target, headers={"Simulate": simulate, "Relay-Resumable": "1"})
        heard = whole(call.answer())
        said = _said(poll(agent, heard.stream_id))
        assert [Event(name=e["event"], seq=e["seq"], data=e["data"]) for e in said["events"]] == heard.events


def test_without_a_wait_nothing_is_waited_for(other: Agent, stalled: str) -> None:
    for after in ("4", "latest", f"{stalled}-4"):
        for wait in ("", "0", "0s", "0ms"):
            said = _said(poll(other, stalled, after, wait))
            assert (said["state"], said["tail"], said["events"]) == ("streaming", 4, [])


def test_when_the_wait_is_over_there_are_no_events(other: Agent, stalled: str) -> None:
    for wait in ("100ms", "0.1s", "0.1"):
        said = _said(poll(other, stalled, 4, wait))
        assert (said["state"], said["tail"], said["events"]) == ("streaming", 4, [])


@SCRIPTED
def test_event_that_comes_is_answered_to_all_who_wait(ground: Ground) -> None:
    with Script(delta("a")) as script, ground.agent(ground.make_relay(url=script.url)) as agent:
        call = begin(agent)
        stream_id = stream_id_of(call)
        calls = [poll(agent, stream_id, after, wait="60s") for after in (1, "latest", f"{stream_id}-1", 1, 1)]
        # They have been read, one after the other, before this is answered on a connection of its own or behind them.
        assert state(agent, stream_id)["tail"] == 1
        script.tell(delta("b"))
        for waiting in calls:
            said = _said(waiting)
            assert (said["state"], _seqs(said)) == ("streaming", [2])
        last = [poll(agent, stream_id, 2, wait="60s") for _ in range(3)]
        script.tell(DONE)
        for waiting in last:
            assert _seqs(_said(waiting)) == [3]
        end = [poll(agent, stream_id, 3, wait="60s") for _ in range(3)]
        script.end()
        for waiting in end:
            said = _said(waiting)
            assert (said["state"], said["tail"], said["events"]) == ("finished", 3, [])
        # After the end nobody waits.
        said = _said(poll(agent, stream_id, 3, wait="60s"))
        assert (said["state"], said["events"]) == ("finished", [])
        whole(call.answer(), last=3)


@FOUR
def test_who_polls_again_and_again_has_every_event_once(ground: Ground, agent: Agent) -> None:
    told = ground.told("delay=30ms; events=60; interval=3ms; seed=4")
    stream_id = defer(agent, "delay=30ms; events=60; interval=3ms; seed=4")
    events: list[dict[str, Any]] = []
    said: dict[str, Any] = {"state": "waiting"}
    while said["state"] in ("waiting", "streaming") or events[-1]["seq"] < said["tail"]:
        said = _said(poll(agent, stream_id, events[-1]["seq"] if events else 0, wait="20s"))
        events += said["events"]
    assert said["state"] == "finished"
    assert [event["seq"] for event in events] == list(range(1, len(told) + 1))
    assert [(event["event"], event["data"]) for event in events] == told


def test_long_log_comes_in_parts(agent: Agent) -> None:
    stream_id = defer(agent, "events=3000; interval=0; burst=100")
    tail = becomes(agent, stream_id, "finished")["tail"]
    seqs: list[int] = []
    while len(seqs) < tail:
        part = _seqs(_said(poll(agent, stream_id, len(seqs))))
        assert 0 < len(part) <= 1000
        seqs += part
    assert seqs == list(range(1, tail + 1))


def test_end_is_told_to_who_waits(ground: Ground, agent: Agent, other: Agent) -> None:
    for simulate, expected in ((STALLS, "cancelled"), ("lie=cut; at=3; interval=50ms", "failed")):
        call = begin(agent, simulate)
        stream_id = stream_id_of(call)
        call.wait_for(b"-4\n\n")
        waiting = poll(other, stream_id, 4, wait="60s")
        assert state(other, stream_id)["tail"] == 4
        if expected == "cancelled":
            cancel(agent, stream_id)
        said = _said(waiting)
        assert (said["state"], said["events"]) == (expected, [])
        ground.broken_off(call.answer())


def test_poll_of_a_stream_that_still_waits_for_its_provider(ground: Ground, agent: Agent) -> None:
    stream_id = defer(agent, "delay=200ms; events=2; interval=0")
    assert _said(poll(agent, stream_id))["state"] == "waiting"
    assert _seqs(_said(poll(agent, stream_id, wait="60s")))[0] == 1
    stream_id = defer(agent, "delay=200ms; status=401")
    said = _said(poll(agent, stream_id, wait="60s"))
    assert (said["state"], said["events"]) == ("failed", [])


@pytest.mark.parametrize("wait", ["x", "-1s", "1m", "1h", "s", "1 s", "1e3", "inf", "%D9%A3s", "999999s", ".5s"])
def test_malformed_wait_is_400(agent: Agent, other: Agent, stalled: str, wait: str) -> None:
    refusal(poll(other, stalled, 4, wait.replace(" ", "%20")).answer(), 400, "bad_request")


def test_wait_may_be_longer_than_the_relay_waits(agent: Agent, other: Agent, stalled: str) -> None:
    """It is a wish; here the end comes first."""
    waiting = poll(other, stalled, 4, wait="86400s")
    assert state(other, stalled)["tail"] == 4
    cancel(agent, stalled)
    assert _said(waiting)["state"] == "cancelled"


def test_leaving_poller_costs_nothing(ground: Ground) -> None:
    """Nor does one whose wait is over, however often they come back while the provider is silent."""
    relay = ground.make_relay()
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        call = begin(agent, STALLS)
        stream_id = stream_id_of(call)
        call.wait_for(b"-4\n\n")
        for ending in (_leave, _wait):
            ending(ground, relay, stream_id, 200)
            descriptors, before = relay.descriptors(), relay.resident()
            ending(ground, relay, stream_id, 1000)
            descriptors_return_to(relay, descriptors)
            assert relay.resident() - before < 1_500_000
        assert state(other, stream_id)["readers"] == 1
        cancel(other, stream_id)
        call.answer()
    assert relay.stop() == 0


def _leave(ground: Ground, relay: Any, stream_id: str, times: int) -> None:
    for _ in range(times // 50):
        with ground.agent(relay) as agent:
            calls = [poll(agent, stream_id, 4, wait="60s") for _ in range(50)]
            assert agent.ask(target="/healthz").answer().status == 200
            for call in calls:
                call.leave()


def _wait(ground: Ground, relay: Any, stream_id: str, times: int) -> None:
    with ground.agent(relay) as agent:
        for _ in range(times // 50):
            for call in [poll(agent, stream_id, 4, wait="1ms") for _ in range(50)]:
                assert call.answer().status == 200


@SCRIPTED
def test_what_was_trimmed_while_one_waited_is_410_or_whole(ground: Ground) -> None:
    """A burst that is larger than what is kept: never events with a hole, nor a poll that nobody answers."""
    with Script(delta("a")) as script:
        relay = ground.make_relay(url=script.url, retention='stream = "4KiB"')
        with ground.agent(relay) as agent:
            call = begin(agent)
            stream_id = stream_id_of(call)
            waiting = poll(agent, stream_id, 1, wait="5s")
            assert state(agent, stream_id)["tail"] == 1
            script.tell(b"".join(delta(f"{number}") for number in range(1000)))
            answer = waiting.answer()
            if answer.status == 200:
                seqs = _seqs(json.loads(answer.body))
                assert seqs == list(range(2, 2 + len(seqs)))
                assert seqs
            else:
                error = refusal(answer, 410, "events_gone")
                assert error["oldest"] > 2
            assert state(agent, stream_id)["tail"] == 1001
            call.leave()


def test_position_that_cannot_be_had_is_refused_as_for_a_reader(agent: Agent, stalled: str) -> None:
    refusal(poll(agent, stalled, 5).answer(), 409, "ahead_of_stream")
    refusal(poll(agent, stalled, "x").answer(), 400, "bad_request")
    refusal(poll(agent, "A" * 22).answer(), 404, "not_found")
    assert read(agent, stalled, 5).answer().status == 409
    assert agent.ask(target=f"/v1/streams/{stalled}?wait=5s", headers=AS_JSON).answer().status == 200
