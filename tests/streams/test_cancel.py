"""Cancel: from any connection, as often as one likes, at any time. No content follows; what came stays readable."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.pairs.calls import Agent, Outcome
from tests.robustness.peers import CHAT, DIALECTS, Dialect, blackhole, until
from tests.streams.ground import (
    AS_JSON,
    ENDLESS,
    FOUR,
    STALLS,
    Ground,
    begin,
    broken,
    cancel,
    defer,
    read,
    read_by,
    refusal,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import hear, plain

Way = Callable[[Agent, str], Outcome]


def _post(agent: Agent, stream_id: str) -> Outcome:
    return agent.ask("POST", f"/v1/streams/{stream_id}/cancel").answer()


def _post_with_body(agent: Agent, stream_id: str) -> Outcome:
    return agent.ask("POST", f"/v1/streams/{stream_id}/cancel", b"{}", {"Content-Type": "application/json"}).answer()


_WAYS = pytest.mark.parametrize("way", [cancel, _post, _post_with_body], ids=["delete", "post", "post-body"])


def _state(answer: Outcome) -> dict[str, Any]:
    assert (answer.status, answer.clean) == (200, True), answer.body[:300]
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = json.loads(answer.body)
    return document


def _aborted(ground: Ground, times: int = 1) -> None:
    """The provider has seen it, and nothing else of it."""
    ground.counts.wait(aborted=times)
    stats = ground.stats()
    assert (stats["finished"], stats["aborted"]) == (0, times)
    if ground.upstream == "2":
        assert stats["resets_received"] == {"CANCEL": times}
        assert stats["http2_errors"]["count"] == 0


@FOUR
def test_every_reader_is_told_and_broken_off(ground: Ground, agent: Agent, other: Agent) -> None:
    first = begin(agent, "events=100000; interval=5ms")
    stream_id = stream_id_of(first)
    first.wait_for(b"-5\n\n")
    readers = [first, *(read(reader, stream_id, after) for reader in (agent, other) for after in (None, 2, "latest"))]
    read_by(other, stream_id, 7)
    said = _state(cancel(other, stream_id))
    assert (said["state"], said["error"]["code"]) == ("cancelled", "cancelled")
    tail = said["tail"]
    for reader, start in zip(readers, (1, 1, 3, None, 1, 3, None), strict=True):
        answer = reader.answer()
        if answer.status != 200:
            assert start is None  # nothing had left for who wanted only what comes next
            refusal(answer, 410, "cancelled")
            continue
        heard = hear(answer.body)
        if heard.events:
            # After it no event follows.
            heard.tiles(start or heard.seqs[0], tail)
        ground.broken_off(answer)
        assert heard.error()["code"] == "cancelled"
        assert answer.body.endswith(b"\n\n")
        assert answer.body.rfind(b'"error"') > answer.body.rfind(b"\nid: ")
    _aborted(ground)
    # What came stays readable, and is followed by the same end.
    late = broken(ground, read(other, stream_id).answer(), "cancelled")
    late.tiles(1, tail)
    assert state(agent, stream_id)["tail"] == tail


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_reader_is_told_in_his_dialect(ground: Ground, agent: Agent, other: Agent, dialect: Dialect) -> None:
    for headers in ({}, {"Relay-Resumable": "1"}):
        call = agent.post(dialect.path, dialect.asked(stream=True), STALLS, headers)
        call.wait_for(b"data: ")
        cancel(other, stream_id_of(call))
        answer = call.answer()
        ground.broken_off(answer)
        name, data = plain(answer.body)[-1]
        error = json.loads(data)
        match dialect.name:
            case "responses":
                assert name == error["type"] == "response.failed"
                assert error["response"]["status"] == "failed"
            case "messages":
                assert name == error["type"] == "error"
                assert set(error["error"]) == {"type", "message"}
            case _:
                assert error["error"]["code"] == "cancelled"
        assert dialect.terminal not in answer.body


@FOUR
def test_transparent_stream_is_cancelled_as_well(ground: Ground, agent: Agent, other: Agent) -> None:
    call = agent.post(CHAT.path, CHAT.asked(stream=True), ENDLESS)
    stream_id = stream_id_of(call)
    call.wait_for(b"\n\n")
    for _ in range(3):
        said = _state(cancel(other, stream_id))
        assert (said["state"], said["resumable"]) == ("cancelled", False)
    answer = call.answer()
    ground.broken_off(answer)
    assert json.loads(plain(answer.body)[-1][1])["error"]["code"] == "cancelled"
    _aborted(ground)
    # Its state is remembered, nothing else of it is.
    assert state(other, stream_id)["state"] == "cancelled"
    refusal(read(other, stream_id).answer(), 404, "not_found")


def test_opaque_stream_is_only_broken_off(ground: Ground, agent: Agent, other: Agent) -> None:
    """Nobody knows how its reader would understand an error."""
    headers = {"Simulate": "events=100000; interval=10ms", "Relay-Resumable": "1"}
    call = agent.ask(target="/sse/ticker", headers=headers)
    stream_id = stream_id_of(call)
    call.wait_for(b"-3\n\n")
    tail = _state(cancel(other, stream_id))["tail"]
    answer = call.answer()
    ground.broken_off(answer)
    heard = hear(answer.body)
    heard.tiles(1, tail)
    assert not heard.own
    _aborted(ground)


def test_again_and_from_anywhere_it_is_the_same(ground: Ground, agent: Agent, other: Agent) -> None:
    call = begin(agent, STALLS)
    stream_id = stream_id_of(call)
    call.wait_for(b"-4\n\n")
    first = _state(cancel(other, stream_id))
    assert (first["state"], first["tail"]) == ("cancelled", 4)
    call.answer()
    for way in (cancel, _post, _post_with_body) * 2:
        for reader in (agent, other):
            said = _state(way(reader, stream_id))
            assert {**said, "readers": 0} == {**first, "readers": 0}
    _aborted(ground)


@_WAYS
def test_after_the_end_it_changes_nothing(ground: Ground, agent: Agent, way: Way) -> None:
    stream_id = whole(begin(agent).answer()).stream_id
    transparent = agent.post(CHAT.path, CHAT.asked(stream=True), "events=2; interval=0").answer()
    for one in (stream_id, transparent.headers["relay-stream-id"]):
        assert _state(way(agent, one))["state"] == "finished"
    whole(read(agent, stream_id).answer())
    failed = begin(agent, "lie=cut; at=3; interval=0")
    one = stream_id_of(failed)
    failed.answer()
    said = _state(way(agent, one))
    assert (said["state"], said["error"]["code"]) == ("failed", "upstream_cut")


@FOUR
def test_cancelled_between_the_terminal_event_and_the_end_it_is_finished(ground: Ground, agent: Agent) -> None:
    """The provider has said everything: nothing is lost, and the reader has a whole answer."""
    call = begin(agent, "lie=hold-open; events=3; interval=0")
    stream_id = stream_id_of(call)
    call.wait_for(b"data: [DONE]")
    assert _state(cancel(agent, stream_id))["state"] == "finished"
    whole(call.answer())
    assert read(agent, stream_id, "latest").answer().status == 204


# Before there is anything


@_WAYS
def test_before_the_provider_answers(ground: Ground, agent: Agent, other: Agent, way: Way) -> None:
    for number, simulate in enumerate(("delay=60", "first=60", "lie=head-stall"), 1):
        stream_id = defer(agent, simulate)
        waiting = read(agent, stream_id)
        ground.counts.wait(requests=number)
        read_by(other, stream_id, 1)
        assert _state(way(other, stream_id))["state"] == "cancelled"
        refusal(waiting.answer(), 410, "cancelled")
        refusal(read(other, stream_id).answer(), 410, "cancelled")
        assert _state(way(other, stream_id))["state"] == "cancelled"
        ground.counts.wait(aborted=number)


def _own(agent: Agent, headers: dict[str, str]) -> list[dict[str, Any]]:
    answer = agent.ask(target="/v1/streams", headers=headers).answer()
    found: list[dict[str, Any]] = json.loads(answer.body)["data"]
    return found


def _waiting(agent: Agent, headers: dict[str, str]) -> str:
    """The one stream of this caller that waits."""

    def find() -> str:
        return next((one["id"] for one in _own(agent, headers) if one["state"] == "waiting"), "")

    return until(find, "a stream that waits")


@FOUR
def test_in_the_queue_for_a_connection(ground: Ground) -> None:
    """Its place goes with it; the provider never hears of it."""
    extra = "max_connections = 1" + ("\nmax_streams = 1" if ground.upstream == "2" else "")
    relay = ground.relay_with(upstream_extra=extra)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        first = begin(agent, STALLS)
        first.wait_for(b"-4\n\n")
        deferred = defer(agent)
        late = read(agent, deferred)
        for _ in range(2):
            assert _state(cancel(other, deferred))["state"] == "cancelled"
        refusal(late.answer(), 410, "cancelled")
        third = begin(agent, "events=2; interval=0")
        assert ground.stats()["requests"] == 1
        cancel(other, stream_id_of(first))
        whole(third.answer())
        first.answer()
    assert ground.stats()["requests"] == 2


@pytest.mark.parametrize("resumable", ["0", "1"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_whoever_waits_is_answered(ground: Ground, agent: Agent, other: Agent, resumable: str, stream: bool) -> None:
    """His credential's list says what his request is called; cancelled twice, it is cancelled."""
    mine = {"Authorization": f"Bearer waits-{resumable}-{stream}", "Relay-Resumable": resumable}
    call = agent.post(CHAT.path, CHAT.asked(stream=stream), "delay=60", mine)
    ground.counts.wait(requests=1)
    stream_id = _waiting(other, {"Authorization": mine["Authorization"]})
    said = [_state(cancel(other, stream_id)) for _ in range(2)]
    assert [one["state"] for one in said] == ["cancelled"] * 2
    refusal(call.answer(), 410, "cancelled")
    _aborted(ground)


def test_while_it_connects(ground: Ground) -> None:
    with blackhole() as url:
        relay = ground.make_relay(url=url, timeouts='connect = "60s"')
        with ground.agent(relay) as agent, ground.agent(relay) as other:
            mine = {"Authorization": "Bearer connects"}
            call = agent.post(CHAT.path, CHAT.asked(stream=True), "", mine)
            deferred = defer(other)
            for stream_id in (_waiting(other, mine), deferred):
                assert _state(cancel(other, stream_id))["state"] == "cancelled"
            refusal(call.answer(), 410, "cancelled")
            refusal(read(other, deferred).answer(), 410, "cancelled")
        assert relay.stop() == 0


@FOUR
def test_plain_answer_that_is_under_way_is_broken_off(ground: Ground, agent: Agent, other: Agent) -> None:
    call = agent.post(CHAT.path, CHAT.asked(stream=False), "lie=mid-stall; events=4000")
    stream_id = stream_id_of(call)
    for _ in range(2):
        assert _state(cancel(other, stream_id))["state"] == "cancelled"
    answer = call.answer()
    # Its head leaves with its first bytes, which may just not have come.
    assert answer.status == 410 or not answer.clean
    ground.counts.wait(aborted=1)


def test_unknown_stream_cannot_be_cancelled(agent: Agent) -> None:
    for way in (cancel, _post, _post_with_body):
        refusal(way(agent, "A" * 22), 404, "not_found")
    assert agent.ask(target="/v1/streams/" + "A" * 22, headers=AS_JSON).answer().status == 404
