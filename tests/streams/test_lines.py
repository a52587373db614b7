"""What the access log says of streams: a line for each reader and each request, one for the generation when it ends;
and in none of them a secret."""

from __future__ import annotations

import itertools
import json
from typing import Any

from tests.pairs.calls import Agent, Call
from tests.programs import Relay
from tests.robustness.peers import CHAT, DIALECTS, until
from tests.streams.ground import (
    AS_EVENTS,
    AS_JSON,
    DEFERRED,
    ENDLESS,
    FOUR,
    RESUMABLE,
    STALLS,
    WHOLE,
    Ground,
    begin,
    cancel,
    defer,
    poll,
    read,
    state,
    stream_id_of,
    whole,
)

_NAMES = (f"line-{number}" for number in itertools.count())


def _lines(relay: Relay, **wanted: object) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in relay.output[:]]
    return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]


def _line(relay: Relay, name: str, method: str) -> dict[str, Any]:
    """The line of a request; a generation's has the same name, and no method."""
    [line] = until(lambda: _lines(relay, request_id=name, method=method), f"the line of {name}")
    return line


def _generation(relay: Relay, stream_id: str) -> dict[str, Any]:
    """The line of a generation, of which there is one."""

    def find() -> list[dict[str, Any]]:
        return [line for line in _lines(relay, stream_id=stream_id) if "generation" in line]

    [line] = until(find, f"the generation's line of {stream_id}")
    return line


@FOUR
def test_every_reader_has_a_line_and_the_generation_has_one(ground: Ground, agent: Agent, other: Agent) -> None:
    relay, names = ground.relay, [next(_NAMES) for _ in range(3)]
    first = begin(agent, "events=20; interval=5ms", X_Request_Id=names[0])
    stream_id = stream_id_of(first)
    first.wait_for(b"-6\n\n")
    second = read(other, stream_id, 4, X_Request_Id=names[1])
    heard = whole(first.answer())
    whole(second.answer(), first=5)
    tail = heard.seqs[-1]
    whole(read(other, stream_id, tail - 2, X_Request_Id=names[2]).answer(), first=tail - 1)
    seen = state(agent, stream_id)
    for name, method, events in zip(names, ("POST", "GET", "GET"), (tail, tail - 4, 2), strict=True):
        line = _line(relay, name, method)
        assert (line["stream_id"], line["method"], line["status"]) == (stream_id, method, 200)
        assert (line["events"], line["merged"], line["dropped"]) == (events, 0, 0)
        assert (line["reason"], line["http"]) == ("finished", "1.1" if ground.client == "1" else "2")
        assert line["dialect"] == "chat"
        assert line["bytes"] <= seen["bytes"]
        assert "error" not in line
        # The reader who joins has asked no provider.
        assert line["attempts"] == (1 if method == "POST" else 0)
    line = _generation(relay, stream_id)
    expected = {
        "request_id": names[0],
        "generation": "finished",
        "route": "/*",
        "upstream": "provider",
        "upstream_http": "1.1" if ground.upstream == "1" else "2",
        "attempts": 1,
        "status": 200,
        "dialect": "chat",
        "bytes": seen["bytes"],
        "events": tail,
        "reason": "finished",
    }
    assert {key: line.get(key) for key in expected} == expected


def test_line_of_a_generation_says_how_it_ended(ground: Ground) -> None:
    relay = ground.relay_with(retention='orphan_grace = "300ms"')
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        failed = begin(agent, "lie=cut; at=3; interval=0")
        failed.answer()
        cancelled = begin(agent, STALLS)
        cancelled.wait_for(b"-4\n\n")
        cancel(other, stream_id_of(cancelled))
        cancelled.answer()
        orphan_name = next(_NAMES)
        orphaned = begin(agent, ENDLESS, X_Request_Id=orphan_name)
        orphaned.wait_for(b"-2\n\n")
        orphaned.leave()
        for call, ended, reason in (
            (failed, "failed", "upstream_cut"),
            (cancelled, "cancelled", "cancelled"),
            (orphaned, "cancelled", "orphaned"),
        ):
            line = _generation(relay, stream_id_of(call))
            assert (line["generation"], line["reason"], line["error"]) == (ended, reason, reason)
        line = _line(relay, orphan_name, "POST")
        assert (line["reason"], line["error"], line["events"] > 0) == ("client_left", "client_left", True)
        stream_id = stream_id_of(failed)
        for call, name, status in (
            (agent.ask("PUT", f"/v1/streams/{stream_id}", headers={"X-Request-Id": "refused-put"}), "put", 405),
            (read(agent, "A" * 22, X_Request_Id="refused-unknown"), "unknown", 404),
            (read(agent, stream_id, "x", X_Request_Id="refused-x"), "x", 400),
            (read(agent, stream_id, 99, X_Request_Id="refused-ahead"), "ahead", 409),
        ):
            assert call.answer().status == status
            line = ground.line(relay, f"refused-{name}")
            assert (line["status"], line["reason"]) == (status, "refused")


def test_line_of_the_202_the_poll_and_the_cancel(ground: Ground, agent: Agent) -> None:
    relay, names = ground.relay, [next(_NAMES) for _ in range(4)]
    stream_id = defer(agent, STALLS, X_Request_Id=names[0])
    poll(agent, stream_id, wait="10s").answer()
    agent.ask(target=f"/v1/streams/{stream_id}?after=0", headers={**AS_JSON, "X-Request-Id": names[1]}).answer()
    agent.ask(target="/v1/streams", headers={"X-Request-Id": names[2]}).answer()
    cancel(agent, stream_id, X_Request_Id=names[3])
    for name, method, status in zip(names, ("POST", "GET", "GET", "DELETE"), (202, 200, 200, 200), strict=True):
        line = _line(relay, name, method)
        assert (line["status"], line["reason"]) == (status, "finished")
    assert _generation(relay, stream_id)["request_id"] == names[0]


_CANARY = {
    "Authorization": "Bearer sk-CANARY-token",
    "X-Api-Key": "sk-CANARY-key",
    "Cookie": "session=CANARY",
    "Idempotency-Key": "CANARY-key",
    "Referer": "https://x/CANARY",
    "User-Agent": "CANARY-agent",
}


def test_no_secret_is_in_any_line(ground: Ground) -> None:
    """A canary in every place of everything that can be asked of a stream."""
    relay = ground.make_relay(
        upstream_extra='api_key_env = "RELAY_TEST_KEY"',
        env={"RELAY_TEST_KEY": "sk-CANARY-own"},
        retention='orphan_grace = "200ms"',
        timeouts="heartbeat = 0.2\nplaceholder = 0.1",
    )
    calls: list[Call] = []
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        for number, dialect in enumerate(DIALECTS):
            document = {**dialect.asked(stream=True), "user": "CANARY-prompt"}
            for simulate in (WHOLE, "lie=cut; at=3; interval=0", "delay=100ms; status=401"):
                fields = {**RESUMABLE, **_CANARY, "Idempotency-Key": f"CANARY-{number}-{simulate}"}
                for _ in range(2):
                    call = agent.post(f"{dialect.path}?key=CANARY-query", document, simulate, fields)
                    call.answer()
                    calls.append(call)
        stream_id = dict(calls[0].fields)["relay-stream-id"]
        last = {**AS_EVENTS, **_CANARY}
        for position in (f"{stream_id}-3", "CANARY", f"{'A' * 22}-3", "99999"):
            fields = {**last, "Last-Event-ID": position}
            calls.append(agent.ask(target=f"/v1/streams/{stream_id}?key=CANARY", headers=fields))
            calls.append(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, {**RESUMABLE, **fields}))
        for query in ("last_event_id=CANARY", "after=CANARY", "after=0&wait=CANARY", "x=CANARY&after=0"):
            calls.append(agent.ask(target=f"/v1/streams/{stream_id}?{query}", headers={**AS_JSON, **_CANARY}))
        for field in ("Relay-Resumable", "Relay-On-Disconnect", "Relay-Flush", "Relay-Overflow", "Relay-Placeholder"):
            calls.append(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, {**_CANARY, field: "CANARY"}))
        calls.append(agent.ask("PUT", f"/v1/streams/{stream_id}?CANARY", b"CANARY", _CANARY))
        calls.append(agent.ask(target="/v1/streams?CANARY", headers=_CANARY))
        calls.append(agent.ask("DELETE", f"/v1/streams/{stream_id}?CANARY", headers=_CANARY))
        for call in calls:
            answer = call.answer()
            if answer.status >= 400:
                assert "CANARY" not in f"{answer.fields}{answer.body!r}"
        fields = {**DEFERRED, **_CANARY, "Idempotency-Key": "CANARY-deferred"}
        accepted = other.post(CHAT.path, CHAT.asked(stream=True), ENDLESS, fields).answer()
        late = other.ask(target=accepted.headers["location"], headers={**last, "Relay-On-Disconnect": "cancel"})
        late.wait_for(b"-2\n\n")
        late.leave()
        _generation(relay, accepted.headers["relay-stream-id"])
    assert relay.stop() == 0
    lines = b"".join(relay.output)
    assert lines.count(b"\n") > len(calls)
    assert b"CANARY" not in lines
    assert "CANARY" not in "\n".join(relay.lines)
