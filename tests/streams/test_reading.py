"""Resume and late join: from any event on, by any number of readers, replayed and then live, no hole and no repeat."""

from __future__ import annotations

import re

import pytest

from tests.pairs.calls import Agent
from tests.robustness.peers import CHAT, DIALECTS, Dialect
from tests.streams.ground import (
    AS_EVENTS,
    FOUR,
    RESUMABLE,
    SCRIPTED,
    STALLS,
    Ground,
    becomes,
    begin,
    broken,
    cancel,
    defer,
    read,
    read_by,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import hear
from tests.streams.script import DONE, Script, delta

_LONG = "events=300; interval=0; seed=2"


@pytest.fixture
def stream_id(agent: Agent) -> str:
    """A stream of 300 words that has ended."""
    return whole(begin(agent, _LONG).answer()).stream_id


def test_stream_is_read_from_behind_any_event_on(agent: Agent, stream_id: str) -> None:
    """By its id or its bare number, in the field or in the query."""
    all_of_it = whole(read(agent, stream_id).answer())
    last = all_of_it.seqs[-1]
    for after in (1, 2, 31, 63, 64, 65, 127, 128, 129, 200, last - 1):
        for position in (str(after), f"{stream_id}-{after}"):
            for call in (
                read(agent, stream_id, position),
                agent.ask(target=f"/v1/streams/{stream_id}?last_event_id={position}", headers=AS_EVENTS),
                agent.ask(target=f"/v1/streams/{stream_id}?after={position}", headers=AS_EVENTS),
            ):
                heard = whole(call.answer(), first=after + 1, last=last)
                assert heard.said == all_of_it.said[after:]


@FOUR
def test_head_comes_at_once_however_long_the_next_event_takes(ground: Ground) -> None:
    with ground.agent(ground.relay_with(timeouts="heartbeat = 0")) as agent:
        first = begin(agent, STALLS)
        first.wait_for(b"-3\n\n")
        stream_id = stream_id_of(first)
        for position in ("latest", 3):
            joined = read(agent, stream_id, position)
            assert joined.head() == 200
            joined.leave()
        cancel(agent, stream_id)
        broken(ground, first.answer(), "cancelled")


def test_without_a_position_or_from_0_it_is_read_from_the_start(agent: Agent, stream_id: str) -> None:
    for query, after in (("", None), ("", 0), ("", "000"), ("", f"{stream_id}-0"), ("?last_event_id=0", None)):
        fields = AS_EVENTS if after is None else {**AS_EVENTS, "Last-Event-ID": str(after)}
        whole(agent.ask(target=f"/v1/streams/{stream_id}{query}", headers=fields).answer(), first=1)


def test_last_event_id_wins_over_the_query(agent: Agent, stream_id: str) -> None:
    """An EventSource that reconnects sends both, and the field is the newer."""
    headers = {**AS_EVENTS, "Last-Event-ID": f"{stream_id}-250"}
    for query in ("10", "latest", "999999", "rubbish", "x" * 22 + "-3"):
        target = f"/v1/streams/{stream_id}?last_event_id={query}"
        whole(agent.ask(target=target, headers=headers).answer(), first=251)


def test_query_may_hold_what_others_put_there(agent: Agent, stream_id: str) -> None:
    target = f"/v1/streams/{stream_id}?_=1&utm_source=x&last_event_id={stream_id}%2D250&t"
    whole(agent.ask(target=target, headers=AS_EVENTS).answer(), first=251)


def test_latest_is_the_tail_only(ground: Ground, agent: Agent, other: Agent) -> None:
    first = begin(agent, "events=40; interval=10ms")
    stream_id = stream_id_of(first)
    first.wait_for(b"-5\n\n")
    heard = hear(read(other, stream_id, "latest").answer().body)
    assert heard.seqs[0] > 5
    heard.tiles(heard.seqs[0], whole(first.answer()).seqs[-1])
    assert read(other, stream_id, "latest").answer().status == 204


@SCRIPTED
def test_latest_begins_with_the_next_event(ground: Ground) -> None:
    with Script(delta("a") + delta("b")) as script, ground.agent(ground.make_relay(url=script.url)) as agent:
        first = begin(agent)
        stream_id = stream_id_of(first)
        first.wait_for(b"-2\n\n")
        calls = [
            read(agent, stream_id, "latest"),
            agent.ask(target=f"/v1/streams/{stream_id}?last_event_id=latest"),
            read(agent, stream_id, 2),
        ]
        read_by(agent, stream_id, 4)
        script.tell(delta("c"))
        script.tell(DONE)
        script.end()
        for call in calls:
            whole(call.answer(), first=3, last=4)
        whole(first.answer(), last=4)


@FOUR
def test_replay_goes_over_into_live_without_a_hole_or_a_repeat(ground: Ground, agent: Agent, other: Agent) -> None:
    first = begin(agent, "events=150; interval=3ms")
    stream_id = stream_id_of(first)
    calls = []
    for seen in range(5, 140, 12):
        first.wait_for(b"-%d\n\n" % seen)
        # Who comes now has much, something, or hardly anything to catch up on.
        calls += [(0, read(other, stream_id)), (seen // 2, read(other, stream_id, seen // 2))]
        calls += [(seen, read(agent, stream_id, f"{stream_id}-{seen}"))]
    all_of_it = whole(first.answer())
    for after, call in calls:
        assert whole(call.answer(), first=after + 1).said == all_of_it.said[after:]
    stats = ground.stats()
    assert (stats["requests"], stats["finished"]) == (1, 1)


def test_any_number_reads_at_once(ground: Ground) -> None:
    """Over either version of HTTP, whatever the first reader speaks."""
    relay = ground.relay
    with ground.agent(relay) as agent, ground.agent1(relay) as one, ground.agent2(relay) as two:
        first = begin(agent, "events=60; interval=5ms")
        stream_id = stream_id_of(first)
        calls = [read(reader, stream_id) for reader in (one, two) * 25]
        read_by(agent, stream_id, 51)
        body = first.answer().body
        for call in calls:
            answer = call.answer()
            assert (answer.clean, answer.body) == (True, body)
    assert ground.stats()["requests"] == 1


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_chain_of_resumes_tiles_the_stream(ground: Ground, dialect: Dialect) -> None:
    """Cut off again and again, at whatever byte that is, and told of the last whole event."""
    told = ground.told("events=60; interval=4ms; seed=5", dialect)
    relay = ground.relay
    with ground.agent(relay) as agent:
        call = begin(agent, "events=60; interval=4ms; seed=5", dialect)
        stream_id = stream_id_of(call)
        heard = hear(b"")
        for stop in range(7, 60, 7):
            seen = call.wait_for(b"-%d\n" % stop)
            call.leave()
            # The last event lacks its empty line, so that nobody has been given it.
            heard.events += hear(seen[: seen.rindex(b"\n\n") + 2]).events
            call = read(agent, stream_id, f"{stream_id}-{heard.seqs[-1]}" if heard.events else None)
        heard.events += hear(call.answer().body).events
    heard.tiles(1, len(told))
    assert heard.said == told
    stats = ground.stats()
    assert (stats["requests"], stats["finished"], stats["aborted"]) == (1, 1, 0)


def test_stream_that_stalls_is_replayed_as_far_as_it_came(ground: Ground, agent: Agent, other: Agent) -> None:
    first = begin(agent, STALLS)
    stream_id = stream_id_of(first)
    first.wait_for(b"-4\n\n")
    late = read(other, stream_id, 1)
    late.wait_for(b"-4\n\n")
    assert state(other, stream_id)["state"] == "streaming"
    cancel(other, stream_id)
    assert broken(ground, late.answer(), "cancelled").seqs == [2, 3, 4]


def test_end_is_found_at_once_in_a_long_log(agent: Agent) -> None:
    """Nothing before the position is sent again."""
    stream_id = defer(agent, "events=20000; interval=0; burst=200")
    tail = becomes(agent, stream_id, "finished")["tail"]
    assert tail > 20000
    for after in (tail - 1, tail - 10, 10_000):
        answer = read(agent, stream_id, after).answer()
        whole(answer, first=after + 1, last=tail)
        assert len(answer.body) < (tail - after) * 400


def test_state_is_told_as_json(ground: Ground, agent: Agent, other: Agent) -> None:
    first = begin(agent, STALLS)
    stream_id = stream_id_of(first)
    first.wait_for(b"-4\n\n")
    late = read(other, stream_id)
    late.wait_for(b"-4\n\n")
    seen = state(agent, stream_id)
    assert seen["bytes"] > 0
    expected = {
        "id": stream_id,
        "object": "relay.stream",
        "state": "streaming",
        "dialect": "chat",
        "resumable": True,
        "status": 200,
        "events": 4,
        "oldest": 1,
        "tail": 4,
        "readers": 2,
        "last_disconnect": None,
        "error": None,
    }
    assert {key: seen[key] for key in expected} == expected
    cancel(agent, stream_id)
    late.answer()
    seen = state(agent, stream_id)
    assert (seen["state"], seen["error"]["code"], seen["tail"]) == ("cancelled", "cancelled", 4)


def test_who_accepts_events_as_well_gets_events(agent: Agent, stream_id: str) -> None:
    for accept in ("text/event-stream", "application/json, text/event-stream", "*/*", "text/html"):
        answer = agent.ask(target=f"/v1/streams/{stream_id}", headers={"Accept": accept}).answer()
        assert answer.headers["content-type"].startswith("text/event-stream")
    for accept in ("application/json", "Application/JSON;q=0.9, */*"):
        answer = agent.ask(target=f"/v1/streams/{stream_id}", headers={"Accept": accept}).answer()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"


def test_reader_of_a_finished_stream_finds_it_under_the_fields_of_the_first(agent: Agent) -> None:
    """The provider's own fields and status as well, so that an SDK may read it again."""
    first = agent.post(CHAT.path, CHAT.asked(stream=True), _LONG, RESUMABLE).answer()
    again = read(agent, first.headers["relay-stream-id"]).answer()
    for name in ("openai-version", "x-ratelimit-limit-tokens", "x-request-id"):
        assert first.headers[name] == again.headers[name]
    assert re.fullmatch(r"req_[0-9a-f]{32}", again.headers["x-request-id"])
