"""What is kept of a stream, for how long, and what goes first when there is too much."""

from __future__ import annotations

import json

import pytest

from tests.pairs.calls import Agent
from tests.robustness.peers import CHAT, until
from tests.streams.ground import (
    AS_EVENTS,
    DEFERRED,
    ENDLESS,
    RESUMABLE,
    SCRIPTED,
    STALLS,
    WHOLE,
    Ground,
    becomes,
    begin,
    broken,
    cancel,
    defer,
    gone,
    over,
    poll,
    read,
    refusal,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import hear
from tests.streams.script import DONE, Script, delta

_SHORT = 'finished = "300ms"'
_SMALL = 'stream = "4KiB"'


def test_finished_stream_is_gone_when_its_time_is_over(ground: Ground) -> None:
    with ground.agent(ground.relay_with(retention=_SHORT)) as agent:
        mine = {"Authorization": "Bearer short"}
        call = begin(agent, WHOLE, **mine)
        stream_id = whole(call.answer()).stream_id
        gone(agent, stream_id)
        refusal(poll(agent, stream_id).answer(), 404, "not_found")
        assert json.loads(agent.ask(target="/v1/streams", headers=mine).answer().body)["data"] == []
        fields = {**RESUMABLE, "Last-Event-ID": f"{stream_id}-3"}
        refusal(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, fields).answer(), 404, "not_found")
        # How it ended is still known, and a cancel is answered as before.
        assert state(agent, stream_id)["state"] == "finished"
        assert json.loads(cancel(agent, stream_id).body)["state"] == "finished"


def test_failed_and_cancelled_ones_go_as_well(ground: Ground) -> None:
    with ground.agent(ground.relay_with(retention=_SHORT)) as agent:
        failed = begin(agent, "lie=cut; at=3; interval=0")
        ids = [stream_id_of(failed)]
        failed.answer()
        cancelled = begin(agent, STALLS)
        cancelled.wait_for(b"-4\n\n")
        ids.append(stream_id_of(cancelled))
        cancel(agent, ids[1])
        cancelled.answer()
        for stream_id in ids:
            gone(agent, stream_id)


def test_one_that_ended_unread_is_kept_longer(ground: Ground) -> None:
    """Its reader may yet come back."""
    with ground.agent(ground.relay_with(retention=_SHORT)) as agent:
        orphan = begin(agent, "events=10; interval=20ms")
        orphan.wait_for(b"-2\n\n")
        orphan_id = stream_id_of(orphan)
        orphan.leave()
        ground.counts.wait(finished=1)
        read_one = whole(begin(agent).answer()).stream_id
        gone(agent, read_one)
        whole(read(agent, orphan_id, 2).answer(), first=3)


def test_reader_of_one_whose_time_is_over_reads_on(ground: Ground) -> None:
    relay = ground.relay_with(retention=_SHORT)
    with ground.agent(relay) as agent, ground.agent(relay, receive_buffer=4096) as slow:
        stream_id = defer(agent, "lie=mid-stall; at=700; events=800; interval=0; size=1000")
        late = read(slow, stream_id)
        late.wait_for(b"-2\n\n")
        until(lambda: state(agent, stream_id)["tail"] == 701, "all of it")
        cancel(agent, stream_id)
        gone(agent, stream_id)
        broken(ground, late.answer(), "cancelled").tiles(1, 701)


def test_oldest_events_of_a_long_stream_go(ground: Ground) -> None:
    """What is left is said, and is read without a hole."""
    with ground.agent(ground.relay_with(retention=_SMALL)) as agent:
        stream_id = defer(agent, "events=500; interval=0; seed=6")
        seen = becomes(agent, stream_id, "finished")
        oldest, tail = seen["oldest"], seen["tail"]
        assert 1 < oldest < tail
        for after in (0, 1, oldest - 2):
            for call in (read(agent, stream_id, after), poll(agent, stream_id, after)):
                error = refusal(call.answer(), 410, "events_gone")
                assert error["oldest"] == oldest
        refusal(read(agent, stream_id).answer(), 410, "events_gone")
        fields = {**RESUMABLE, "Last-Event-ID": f"{stream_id}-1"}
        refusal(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, fields).answer(), 410, "events_gone")
        for after in (oldest - 1, oldest, tail - 1):
            whole(read(agent, stream_id, after).answer(), first=after + 1, last=tail)
        assert read(agent, stream_id, tail).answer().status == 204


def test_nothing_of_a_stream_goes_below_the_bound(ground: Ground) -> None:
    """8 MiB unless told."""
    with ground.agent(ground.relay) as agent:
        stream_id = defer(agent, "events=700; interval=0; size=10000")
        seen = becomes(agent, stream_id, "finished")
        assert 7_000_000 < seen["bytes"] < 8 * 1024**2
        assert seen["oldest"] == 1
        stream_id = defer(agent, "events=1000; interval=0; size=10000")
        seen = becomes(agent, stream_id, "finished")
        assert seen["oldest"] > 1
        kept = read(agent, stream_id, seen["oldest"] - 1).answer().body
        assert 8 * 1024**2 * 0.95 < len(kept) < 8 * 1024**2 * 1.05


@SCRIPTED
def test_reader_that_was_overtaken_by_the_bound_is_cut_off_and_told(ground: Ground) -> None:
    """Never a replay with a hole."""
    with Script(delta("a")) as script:
        relay = ground.make_relay(url=script.url, retention='stream = "256KiB"')
        with ground.agent(relay) as agent, ground.agent(relay, receive_buffer=4096) as stuck:
            first = begin(agent)
            stream_id = stream_id_of(first)
            first.wait_for(b"-1\n\n")
            late = read(stuck, stream_id)
            late.wait_for(b"-1\n\n")
            # More than any buffer between the two takes.
            for number in range(2, 250):
                script.tell(delta("x" * 30_000))
                first.wait_for(b"-%d\n\n" % number)
            script.tell(DONE)
            script.end()
            whole(first.answer(), last=250)
            answer = late.answer()
            assert not answer.clean
            last = hear(answer.body[: answer.body.rindex(b"\n\n") + 2])
            last.tiles(1)
            refusal(read(agent, stream_id, last.seqs[-1]).answer(), 410, "events_gone")


def test_all_together_the_finished_go_first_and_of_those_the_oldest(ground: Ground) -> None:
    with ground.agent(ground.relay_with(retention='total = "160KiB"')) as agent:
        live = begin(agent, "events=20; interval=0; size=500; lie=mid-stall; at=18")
        live.wait_for(b"-18\n\n")
        live_id = stream_id_of(live)
        ids = [whole(begin(agent, "events=40; interval=0; size=500").answer()).stream_id for _ in range(12)]
        statuses = [read(agent, stream_id).answer().status for stream_id in ids]
        assert statuses == sorted(statuses, reverse=True)
        assert (statuses[0], statuses[-1]) == (404, 200)
        kept = sum(state(agent, one)["bytes"] for one, status in zip(ids, statuses, strict=True) if status == 200)
        assert 60 * 1024 < kept < 160 * 1024
        # The one that runs is older than all of them.
        late = read(agent, live_id)
        late.wait_for(b"-18\n\n")
        cancel(agent, live_id)
        for call in (live, late):
            hear(call.answer().body).tiles(1)


def test_where_nothing_is_kept_nothing_has_an_id(ground: Ground) -> None:
    never = ground.relay_with(route='resumable = "never"')
    for relay in (never, ground.relay_with(retention='finished = "0s"')):
        with ground.agent(relay) as agent:
            told = ground.told(WHOLE)
            for headers in (RESUMABLE, {**RESUMABLE, "Idempotency-Key": "k"}, DEFERRED):
                answer = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, headers).answer()
                assert (answer.status, answer.clean) == (200, True)
                assert b"\nid:" not in answer.body
                assert answer.body.count(b"data: ") == len(told)
                stream_id = answer.headers["relay-stream-id"]
                refusal(read(agent, stream_id).answer(), 404, "not_found")
            # Nor is its reader waited for.
            ground.counts.reset()
            call = agent.post(CHAT.path, CHAT.asked(stream=True), ENDLESS, RESUMABLE)
            call.wait_for(b"\n\n")
            refusal(read(agent, stream_id_of(call)).answer(), 410, "not_kept")
            call.leave()
            ground.counts.wait(aborted=1)


def test_always_needs_no_field(ground: Ground) -> None:
    with ground.agent(ground.relay_with(route='resumable = "always"')) as agent:
        for headers in ({}, {"Relay-Resumable": "0"}):
            stream_id = whole(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, headers).answer()).stream_id
            whole(read(agent, stream_id, 3).answer(), first=4)
        # What is no stream is what it would be anyway.
        plain = agent.post(CHAT.path, CHAT.asked(stream=False), WHOLE).answer()
        assert (plain.status, plain.clean) == (200, True)
        with ground.source() as source:
            told = source.post(CHAT.path, CHAT.asked(stream=False), WHOLE).answer()
        assert plain.body == told.body


@pytest.mark.parametrize("headers", [{}, {"Relay-Overflow": "merge"}, {"Relay-Flush": "5ms"}, {"Relay-Resumable": "0"}])
def test_stream_that_asks_for_nothing_is_not_kept(ground: Ground, agent: Agent, headers: dict[str, str]) -> None:
    """Also where a log stands between, because its reader may lag: nobody else reads it."""
    call = agent.post(CHAT.path, CHAT.asked(stream=True), STALLS, headers)
    stream_id = stream_id_of(call)
    call.wait_for(b"data: ")
    for position in (None, 0, 1, "latest"):
        refusal(read(agent, stream_id, position).answer(), 410, "not_kept")
    cancel(agent, stream_id)
    body = call.answer().body
    assert b"\nid:" not in body
    finished = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, headers).answer()
    for one in (stream_id, finished.headers["relay-stream-id"]):
        refusal(agent.ask(target=f"/v1/streams/{one}", headers=AS_EVENTS).answer(), 404, "not_found")


def test_plain_answer_is_not_kept(agent: Agent) -> None:
    for headers in ({}, RESUMABLE):
        answer = agent.post(CHAT.path, CHAT.asked(stream=False), WHOLE, headers).answer()
        stream_id = answer.headers["relay-stream-id"]
        refusal(read(agent, stream_id).answer(), 404, "not_found")


def test_switch_is_0_or_1(ground: Ground, agent: Agent) -> None:
    for value in ("yes", "true", "2", "", "1, 1"):
        refusal(begin(agent, WHOLE, Relay_Resumable=value).answer(), 400, "bad_request")
        refusal(begin(agent, WHOLE, Relay_Placeholder=value).answer(), 400, "bad_request")
    assert ground.stats()["requests"] == 0


@over("1-1")
def test_memory_of_streams_that_are_gone_is_given_back(ground: Ground) -> None:
    """As many as come: `total` bounds what they hold; what the allocator keeps besides is a part of what has passed."""
    relay = ground.make_relay(retention='total = "4MiB"')
    with ground.agent(relay) as agent:
        before = relay.resident()
        for _ in range(15):
            becomes(agent, defer(agent, "events=150; interval=0; size=20000"), "finished")
        assert relay.resident() - before < 32 * 1024**2
    assert relay.stop() == 0
