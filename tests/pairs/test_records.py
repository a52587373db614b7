"""What is said of a request: one line in the log, the same whichever versions carried it, and never a secret."""

from __future__ import annotations

import json
from typing import Any

from tests.pairs.calls import Agent, Call
from tests.pairs.pair import MOST, Pair
from tests.programs import chat
from tests.robustness.peers import CHAT, DIALECTS

# What differs from request to request.
_OWN = {
    "http",
    "upstream_http",
    "time",
    "request_id",
    "stream_id",
    "upstream_request_id",
    "first_event_ms",
    "duration_ms",
    "detail",
}
_RELAYED = {"client": "127.0.0.1", "route": "/*", "upstream": "provider", "method": "POST", "attempts": 1}


def _ask(agent: Agent, name: str, simulate: str, *, stream: bool) -> Call:
    return agent.post(CHAT.path, CHAT.asked(stream=stream), simulate, {"X-Request-Id": name})


def _line(pair: Pair, name: str) -> dict[str, Any]:
    line = pair.line(pair.relay, name)
    # What tells the pairs apart, and nothing else does.
    assert line["http"] == ("1.1" if pair.client == "1" else "2")
    if line["attempts"]:
        assert line["upstream_http"] == ("1.1" if pair.upstream == "1" else "2")
    return {key: value for key, value in line.items() if key not in _OWN}


@MOST
def test_line_of_a_request_is_the_same_for_all_pairs(pair: Pair, agent: Agent) -> None:
    """Every value that is not the request's own stands here, once for the eight."""
    expected: dict[str, dict[str, object]] = {
        "stream": {"status": 200, "reason": "finished", "events": 13},
        "json": {"status": 200, "reason": "finished", "events": 0},
        "garbage": {"status": 502, "reason": "upstream_invalid", "error": "upstream_invalid", "events": 0},
        "cut": {"status": 200, "reason": "upstream_cut", "error": "upstream_cut", "events": 4},
        "reported": {"status": 200, "reason": "upstream_error", "error": "upstream_reported", "events": 5},
    }
    simulates = {
        "stream": "seed=8; events=10; interval=0",
        "json": "seed=8; events=10",
        "garbage": "lie=garbage",
        "cut": "seed=8; lie=cut; at=3; interval=10ms",
        "reported": "seed=8; lie=error; at=3; interval=10ms",
    }
    with pair.direct() as direct:
        own = _ask(direct, "direct", simulates["stream"], stream=True).answer().body
    sent = len(json.dumps(CHAT.asked(stream=True)))
    for kind, simulate in simulates.items():
        name = f"line-{kind}"
        answer = _ask(agent, name, simulate, stream=kind != "json").answer()
        line = _line(pair, name)
        said = line.pop("bytes")
        common = {**_RELAYED, "path": CHAT.path, "dialect": "chat", "bytes_in": sent + (kind == "json")}
        assert line == {**common, **expected[kind]}, kind
        # The provider's bytes, without what frames them and without what the relay has added.
        if kind == "stream":
            assert said == len(own) == len(answer.body)
        elif kind == "garbage":
            assert said == 0
        elif kind == "cut":
            assert said == answer.body.rstrip(b"\n").rindex(b"\n\n") + 2
        else:
            assert said == len(answer.body)


@MOST
def test_line_of_what_the_relay_answers_itself(pair: Pair, agent: Agent) -> None:
    for target, status in (("/healthz", 200), ("/readyz", 200)):
        name = f"own-{target[1:]}"
        assert agent.ask(target=target, headers={"X-Request-Id": name}).answer().status == status
        line = _line(pair, name)
        assert (line["status"], line["reason"], line["attempts"], line["upstream"]) == (status, "finished", 0, None)
    relay = pair.relay_with(path="/elsewhere/*")
    with pair.agent(relay) as other:
        for dialect in DIALECTS:
            name = f"lost-{dialect.name}"
            other.post(dialect.path, dialect.asked(stream=True), headers={"X-Request-Id": name}).answer()
            line = pair.line(relay, name)
            assert (line["status"], line["reason"], line["error"]) == (404, "refused", "not_found")
            assert (line["route"], line["dialect"]) == (None, dialect.name)


@MOST
def test_times_of_a_line_are_in_their_order(pair: Pair, agent: Agent) -> None:
    assert _ask(agent, "timed", "delay=50ms; first=50ms; events=3; interval=20ms", stream=True).answer().clean
    line = pair.line(pair.relay, "timed")
    assert 0 < line["first_event_ms"] < line["duration_ms"]


_CANARY_FIELDS = {
    "Authorization": "Bearer CANARY-bearer",
    "X-Api-Key": "CANARY-key",
    "Cookie": "session=CANARY-cookie",
    "X-Request-Id": "CANARY id with spaces",
    "X-Note": "CANARY-note",
}
_CANARY_LIES = "close reset garbage switch huge-head nul-header obs-fold cl-te head-close".split()
_CANARY_CUTS = "cut bad-chunk error half-event mid-stall".split()
_OTHERS = (
    "status=400",
    "status=500",
    "status=429; retry_after=1",
    "lie=stall",
    "encoding=gzip",
    "events=2; interval=0",
)


@MOST
def test_no_secret_is_in_any_output_or_error(pair: Pair) -> None:
    """Every way a request can go wrong, and some in which it goes right, each with a canary in every place."""
    relay = pair.make_relay(
        upstream_extra='api_key_env = "RELAY_TEST_KEY"',
        env={"RELAY_TEST_KEY": "sk-CANARY-own"},
        path="/v1/*",
        timeouts='request_body = 0.3\nhead = 0.3\nidle = 0.3\nheartbeat = "200ms"',
        limits="request_body = 4096",
    )
    simulates = (*(f"lie={lie}" for lie in _CANARY_LIES), *(f"lie={lie}; at=2; interval=0" for lie in _CANARY_CUTS))
    document = chat(messages=[{"role": "user", "content": "CANARY-prompt"}])
    calls: list[Call] = []
    agents: list[Agent] = []
    for simulate in (*simulates, *_OTHERS):
        # Each on a connection of its own, so that none is cut short by another's.
        agents.append(pair.agent(relay))
        calls.append(agents[-1].post(f"{CHAT.path}?key=CANARY-query", document, simulate, _CANARY_FIELDS))
    agent = pair.agent(relay)
    agents.append(agent)
    calls += [
        agent.ask("GET", "/elsewhere?key=CANARY", headers=_CANARY_FIELDS),
        agent.ask("POST", f"{CHAT.path}?key=CANARY", headers=_CANARY_FIELDS, more=True, length=99_999),
        agent.ask("POST", f"{CHAT.path}?key=CANARY", headers={**_CANARY_FIELDS, "Expect": "CANARY"}, more=True),
        agent.ask("GET", "/v1/models?key=CANARY" + "x" * 9000, headers=_CANARY_FIELDS),
        agent.ask("GET", "/v1/models", headers={**_CANARY_FIELDS, "X Y": "CANARY"}),
        agent.ask("GET", "/v1/models", headers={**_CANARY_FIELDS, "X-Bad": "CANARY\x00"}),
    ]
    unfinished = agent.ask("POST", CHAT.path, headers=_CANARY_FIELDS, more=True, length=50)
    unfinished.send(b"CANARY")
    calls.append(unfinished)
    statuses = []
    for call in calls:
        answer = call.answer()
        statuses.append(answer.status)
        assert "CANARY" not in f"{answer.fields}{answer.body!r}"
    for made in agents:
        made.close()
    assert relay.stop() == 0
    # Over HTTP/2, a malformed request has no answer.
    assert statuses.count(0) == (2 if pair.client == "2" else 0)
    lines = b"".join(relay.output)
    assert lines.count(b"\n") >= len(calls)
    assert b"CANARY" not in lines
    assert "CANARY" not in "\n".join(relay.lines)
