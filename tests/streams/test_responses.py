"""OpenAI's own resources: what began at /v1/responses is read again and cancelled by the provider's name, as an
unmodified SDK asks; what the relay does not know is the provider's."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.pairs.calls import Agent, Call, Outcome
from tests.robustness.peers import DIALECTS
from tests.streams.ground import (
    AS_EVENTS,
    FOUR,
    STALLS,
    Ground,
    becomes,
    begin,
    refusal,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import Heard, hear

_RESPONSES = DIALECTS[2]
_SEEDS = itertools.count(1000)


def _seed() -> int:
    """A provider's name of a response follows from it; each is used once."""
    return next(_SEEDS)


def _name(call: Call) -> str:
    """The provider's name for it."""
    first = call.wait_for(b"\n\n")
    name: str = json.loads(first.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
    return name


def _retrieve(agent: Agent, name: str, query: str = "stream=true", **headers: str) -> Call:
    return agent.ask(target=f"/v1/responses/{name}?{query}", headers={**AS_EVENTS, **headers})


def _cancel(agent: Agent, name: str, **headers: str) -> Outcome:
    return agent.ask("POST", f"/v1/responses/{name}/cancel", b"", headers).answer()


def _numbers(heard: Heard) -> list[int]:
    return [json.loads(event.data)["sequence_number"] for event in heard.events]


@FOUR
def test_response_is_read_again_from_behind_a_sequence_number(ground: Ground, agent: Agent, other: Agent) -> None:
    call = begin(agent, f"events=30; interval=5ms; seed={_seed()}", _RESPONSES)
    name = _name(call)
    live = [(after, _retrieve(other, name, f"stream=true&starting_after={after}")) for after in (0, 1)]
    live.append((-1, _retrieve(other, name)))
    heard = whole(call.answer())
    numbers = _numbers(heard)
    assert numbers == list(range(len(numbers)))
    for after, reader in live:
        assert _numbers(whole(reader.answer(), first=after + 2)) == numbers[after + 1 :]
    for after in (0, 3, numbers[-2]):
        again = whole(_retrieve(other, name, f"stream=true&starting_after={after}").answer(), first=after + 2)
        assert again.said == heard.said[after + 1 :]
        assert again.stream_id == heard.stream_id
    assert ground.stats()["requests"] == 1


def test_response_that_was_read_to_its_end_has_nothing_more(ground: Ground, agent: Agent) -> None:
    """An empty stream: of a 204 SDKs make an error."""
    call = begin(agent, f"events=5; interval=0; seed={_seed()}", _RESPONSES)
    name = _name(call)
    last = _numbers(whole(call.answer()))[-1]
    answer = _retrieve(agent, name, f"stream=true&starting_after={last}").answer()
    assert (answer.status, answer.clean, answer.body) == (200, True, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    refusal(_retrieve(agent, name, f"stream=true&starting_after={last + 1}").answer(), 409, "ahead_of_stream")
    for number in ("x", "-1", "", "1.5", "%D9%A3"):
        refusal(_retrieve(agent, name, f"stream=true&starting_after={number}").answer(), 400, "bad_request")


@FOUR
def test_response_is_cancelled_by_its_name(ground: Ground, agent: Agent, other: Agent) -> None:
    call = begin(agent, f"{STALLS}; seed={_seed()}", _RESPONSES)
    name = _name(call)
    for _ in range(3):
        answer = _cancel(other, name)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        document: dict[str, Any] = json.loads(answer.body)
        assert (document["id"], document["object"], document["status"]) == (name, "response", "cancelled")
    ground.counts.wait(aborted=1)
    answer = call.answer()
    ground.broken_off(answer)
    [error] = hear(answer.body).own
    failed = json.loads(error.data)
    assert failed["type"] == error.name == "response.failed"
    assert failed["response"]["id"] == name
    assert failed["sequence_number"] == _numbers(hear(answer.body))[-1] + 1
    # What came stays readable.
    again = _retrieve(other, name).answer()
    assert again.body == answer.body
    assert state(other, stream_id_of(call))["state"] == "cancelled"
    assert ground.stats()["requests"] == 1


def test_finished_response_is_cancelled_in_vain(ground: Ground, agent: Agent) -> None:
    call = begin(agent, f"events=5; interval=0; seed={_seed()}", _RESPONSES)
    name = _name(call)
    whole(call.answer())
    assert json.loads(_cancel(agent, name).body)["status"] == "completed"
    whole(_retrieve(agent, name).answer())


def test_response_that_cannot_be_resumed_can_be_cancelled(ground: Ground, agent: Agent, other: Agent) -> None:
    call = agent.post(_RESPONSES.path, _RESPONSES.asked(stream=True), f"{STALLS}; seed={_seed()}")
    name = _name(call)
    # To read it again is the provider's affair.
    assert _retrieve(other, name).answer().status == 404
    assert ground.counts.requests()[-1]["target" if "target" in ground.counts.requests()[-1] else "path"].startswith(
        f"/v1/responses/{name}"
    )
    assert json.loads(_cancel(other, name).body)["status"] == "cancelled"
    ground.counts.wait(aborted=1)
    ground.broken_off(call.answer())


def test_unknown_responses_are_the_providers(ground: Ground, agent: Agent) -> None:
    for number, (method, target) in enumerate(
        [
            ("GET", "/v1/responses/resp_unknown?stream=true&starting_after=5"),
            ("GET", "/v1/responses/resp_unknown"),
            ("POST", "/v1/responses/resp_unknown/cancel"),
            ("DELETE", "/v1/responses/resp_unknown"),
            ("GET", "/v1/responses/resp_unknown/input_items"),
            ("GET", "/v1/responses/other?stream=true"),
        ],
        1,
    ):
        answer = agent.ask(method, target).answer()
        assert answer.status == 404
        assert b"no such path" in answer.body
        assert ground.stats()["requests"] == number
        assert target in str(ground.counts.requests()[-1])


def test_what_is_no_resume_of_a_known_response_is_the_providers(ground: Ground, agent: Agent) -> None:
    call = begin(agent, f"events=5; interval=0; seed={_seed()}", _RESPONSES)
    name = _name(call)
    whole(call.answer())
    for number, (method, target) in enumerate(
        [
            ("GET", f"/v1/responses/{name}"),
            ("GET", f"/v1/responses/{name}?stream=false"),
            ("GET", f"/v1/responses/{name}?starting_after=1"),
            ("DELETE", f"/v1/responses/{name}"),
            ("GET", f"/v1/responses/{name}/cancel"),
            ("GET", f"/v1/responses/{name}/input_items"),
        ],
        2,
    ):
        assert b"no such path" in agent.ask(method, target).answer().body
        assert ground.stats()["requests"] == number


def test_response_of_another_caller_is_the_providers(ground: Ground, agent: Agent, other: Agent) -> None:
    mine, theirs = {"Authorization": "Bearer mine"}, {"Authorization": "Bearer theirs"}
    call = begin(agent, f"{STALLS}; seed={_seed()}", _RESPONSES, **mine)
    name = _name(call)
    for fields in (theirs, {}):
        assert b"no such path" in _retrieve(other, name, **fields).answer().body
        assert b"no such path" in _cancel(other, name, **fields).body
    assert state(other, stream_id_of(call))["state"] == "streaming"
    assert _cancel(other, name, **mine).status == 200
    assert becomes(other, stream_id_of(call), "cancelled")
    ground.broken_off(call.answer())


@pytest.mark.parametrize("fields", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_web_page_of_others_gets_no_response(agent: Agent, other: Agent, fields: dict[str, str]) -> None:
    call = begin(agent, f"{STALLS}; seed={_seed()}", _RESPONSES)
    name = _name(call)
    refusal(_retrieve(other, name, **fields).answer(), 403, "forbidden")
    refusal(_cancel(other, name, **fields), 403, "forbidden")
    assert state(other, stream_id_of(call))["state"] == "streaming"
    assert _cancel(other, name).status == 200
    call.answer()


@FOUR
def test_failed_response_is_replayed_with_its_error(ground: Ground, agent: Agent) -> None:
    call = begin(agent, f"lie=cut; at=3; interval=0; seed={_seed()}", _RESPONSES)
    name = _name(call)
    answer = call.answer()
    ground.broken_off(answer)
    again = _retrieve(agent, name).answer()
    ground.broken_off(again)
    assert again.body == answer.body
