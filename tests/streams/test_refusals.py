"""What a read that cannot be served is told, so that whoever reads again and again knows whether to stop."""

from __future__ import annotations

import pytest

from tests.pairs.calls import Agent
from tests.robustness.peers import DIALECTS
from tests.streams.ground import (
    AS_JSON,
    FOUR,
    STALLS,
    Ground,
    begin,
    broken,
    cancel,
    poll,
    read,
    refusal,
    state,
    stream_id_of,
    whole,
)

_UNKNOWN = "A" * 22
_MALFORMED = [
    "x",
    "-1",
    "1.5",
    "1 2",
    "1,2",
    "0x1",
    "Latest",
    "latest2",
    f"{_UNKNOWN}",
    f"{_UNKNOWN}-",
    f"{_UNKNOWN}--1",
    f"{_UNKNOWN}-x",
    "9" * 16,
    "9" * 5000,
    "\u00b2",
]


@pytest.fixture
def stream_id(agent: Agent) -> str:
    """A stream that has ended."""
    return whole(begin(agent).answer()).stream_id


def test_malformed_position_is_400(agent: Agent, stream_id: str) -> None:
    for position in _MALFORMED:
        if position.isascii():
            refusal(read(agent, stream_id, position).answer(), 400, "bad_request")
    for position in (*_MALFORMED, "", "%D9%A3", "%EF%BC%93", "%00", "%FF", "1%0A", "+1"):
        if position.isascii():
            target = f"/v1/streams/{stream_id}?last_event_id={position.replace(' ', '%20')}"
            refusal(agent.ask(target=target).answer(), 400, "bad_request")
            refusal(poll(agent, stream_id, position.replace(" ", "%20")).answer(), 400, "bad_request")


def test_another_streams_event_is_400(agent: Agent, stream_id: str) -> None:
    another = whole(begin(agent).answer()).stream_id
    for call in (
        read(agent, stream_id, f"{another}-1"),
        agent.ask(target=f"/v1/streams/{stream_id}?last_event_id={another}-1"),
        poll(agent, stream_id, f"{another}-1"),
    ):
        refusal(call.answer(), 400, "bad_request")


def test_query_that_cannot_be_read_is_400(agent: Agent, stream_id: str) -> None:
    query = "&".join(f"a{number}=1" for number in range(100))
    for headers in ({}, AS_JSON):
        answer = agent.ask(target=f"/v1/streams/{stream_id}?{query}", headers=headers).answer()
        refusal(answer, 400, "bad_request")


def test_unknown_stream_is_404(ground: Ground, agent: Agent) -> None:
    """And no provider hears of it."""
    for stream_id in (_UNKNOWN, "short", "A" * 23, "A" * 21 + "!", "A" * 5000, "%41" * 22):
        for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/")):
            answer = agent.ask(method, f"/v1/streams/{stream_id}{end}").answer()
            refusal(answer, 404, "not_found")
        refusal(read(agent, stream_id, 1).answer(), 404, "not_found")
        refusal(poll(agent, stream_id).answer(), 404, "not_found")
        refusal(agent.ask(target=f"/v1/streams/{stream_id}", headers=AS_JSON).answer(), 404, "not_found")
    for target in ("/v1/streams/", f"/v1/streams/{_UNKNOWN}/events", f"/v1/streams/{_UNKNOWN}/cancel/"):
        refusal(agent.ask(target=target).answer(), 404, "not_found")
    assert ground.stats()["requests"] == 0


def test_position_ahead_of_the_tail_is_409(agent: Agent, other: Agent) -> None:
    finished = whole(begin(agent).answer()).stream_id
    first = begin(agent, STALLS)
    first.wait_for(b"-4\n\n")
    for stream_id in (finished, stream_id_of(first)):
        tail = state(other, stream_id)["tail"]
        for after in (tail + 1, tail + 1000, 10**15 - 1):
            refusal(read(other, stream_id, after).answer(), 409, "ahead_of_stream")
            refusal(poll(other, stream_id, after).answer(), 409, "ahead_of_stream")
    cancel(other, stream_id_of(first))


def test_finished_and_fully_read_is_204_and_has_no_body(agent: Agent, stream_id: str) -> None:
    """It is what stops an EventSource (WHATWG HTML, 9.2.3). A 204 has no length (RFC 9110, 8.6)."""
    tail = state(agent, stream_id)["tail"]
    for position in (tail, f"{stream_id}-{tail}", "latest"):
        answer = read(agent, stream_id, position).answer()
        assert (answer.status, answer.clean, answer.body) == (204, True, b"")
        assert "content-length" not in answer.headers
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["relay-stream-id"] == stream_id
        assert answer.headers["x-request-id"]
    # Its connection serves on.
    whole(read(agent, stream_id, tail - 1).answer(), first=tail, last=tail)


@FOUR
def test_failed_and_fully_read_is_410_with_the_failures_code(ground: Ground, agent: Agent) -> None:
    for lie, code in (("cut", "upstream_cut"), ("error", "upstream_reported")):
        for dialect in DIALECTS:
            if (lie, dialect.name) == ("error", "responses"):
                continue  # `response.failed` is one of its ends
            simulate = f"lie={lie}; at=3; interval=0"
            call = begin(agent, simulate, dialect)
            stream_id = stream_id_of(call)
            ground.broken_off(call.answer())
            seen = state(agent, stream_id)
            assert seen["state"] == "failed"
            for position in (seen["tail"], "latest"):
                refusal(read(agent, stream_id, position).answer(), 410, code)


def test_cancelled_and_fully_read_is_410(ground: Ground, agent: Agent) -> None:
    call = begin(agent, STALLS)
    call.wait_for(b"-4\n\n")
    stream_id = stream_id_of(call)
    cancel(agent, stream_id)
    broken(ground, call.answer(), "cancelled")
    refusal(read(agent, stream_id, 4).answer(), 410, "cancelled")
    refusal(read(agent, stream_id, "latest").answer(), 410, "cancelled")


@pytest.mark.parametrize(
    ("method", "end", "allowed"),
    [
        ("POST", "", "GET, DELETE"),
        ("PUT", "", "GET, DELETE"),
        ("PATCH", "", "GET, DELETE"),
        ("GET", "/cancel", "POST"),
        ("DELETE", "/cancel", "POST"),
        ("PUT", "/cancel", "POST"),
    ],
)
def test_other_methods_are_405_and_the_right_ones_are_named(
    agent: Agent, stream_id: str, method: str, end: str, allowed: str
) -> None:
    answer = agent.ask(method, f"/v1/streams/{stream_id}{end}").answer()
    refusal(answer, 405, "method_not_allowed")
    names = set(answer.headers["allow"].replace(" ", "").split(","))
    assert names - {"HEAD"} == set(allowed.split(", "))
    answer = agent.ask("DELETE", "/v1/streams").answer()
    refusal(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


def test_head_is_answered_without_a_body(agent: Agent, stream_id: str) -> None:
    """As GET, or as a method that is not there; its connection serves on either way."""
    for target in (f"/v1/streams/{stream_id}", "/v1/streams", f"/v1/streams/{_UNKNOWN}"):
        answer = agent.ask("HEAD", target).answer()
        assert answer.status in (200, 404, 405)
        assert (answer.clean, answer.body) == (True, b"")
        assert answer.headers["x-request-id"]
        assert answer.status != 405 or "GET" in answer.headers["allow"]
    whole(read(agent, stream_id).answer())


def test_refusal_speaks_openais_form_and_leaves_the_stream_alone(ground: Ground, agent: Agent) -> None:
    call = begin(agent, "events=30; interval=10ms")
    stream_id = stream_id_of(call)
    for position in ("x", 10**6, f"{_UNKNOWN}-1"):
        error = refusal(read(agent, stream_id, position).answer(), 409 if position == 10**6 else 400, _code(position))
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
    whole(call.answer())
    assert ground.stats()["finished"] == 1
    assert ground.stats()["requests"] == 1


def _code(position: object) -> str:
    return "ahead_of_stream" if position == 10**6 else "bad_request"
