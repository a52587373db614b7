"""Whose a stream is: who sends a credential has only his own; who knows an id and sends none may read it, as an
EventSource must; web pages of others may not."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.pairs.calls import Agent, Call
from tests.robustness.peers import CHAT
from tests.streams.ground import (
    AS_EVENTS,
    AS_JSON,
    RESUMABLE,
    SCRIPTED,
    STALLS,
    WHOLE,
    Ground,
    becomes,
    cancel,
    defer,
    poll,
    read,
    refusal,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import plain
from tests.streams.script import DONE, Script, delta

# A credential of its own for each test that looks at a list.
_NUMBERS = itertools.count()
_MINE = {"Authorization": "Bearer sk-mine"}
_THEIRS = {"Authorization": "Bearer sk-theirs"}
_CREDENTIALS = [
    {"Authorization": "Bearer sk-mine"},
    {"X-Api-Key": "sk-mine"},
    {"Api-Key": "sk-mine"},
    {"X-Goog-Api-Key": "sk-mine"},
]


def _list(agent: Agent, headers: dict[str, str]) -> list[dict[str, Any]]:
    answer = agent.ask(target="/v1/streams", headers=headers).answer()
    assert answer.status == 200
    document = json.loads(answer.body)
    assert document["object"] == "list"
    found: list[dict[str, Any]] = document["data"]
    return found


def _begin(agent: Agent, headers: dict[str, str], simulate: str = WHOLE) -> Call:
    return agent.post(CHAT.path, CHAT.asked(stream=True), simulate, {**RESUMABLE, **headers})


def _everything(agent: Agent, stream_id: str, headers: dict[str, str]) -> list[Call]:
    """All ways to a stream. (The cancels last.)"""
    target = f"/v1/streams/{stream_id}"
    resumes = {"Last-Event-ID": f"{stream_id}-1", **headers}
    return [
        agent.ask(target=target, headers={**AS_EVENTS, **headers}),
        agent.ask(target=target, headers={**AS_EVENTS, **resumes}),
        agent.ask(target=target, headers={**AS_JSON, **headers}),
        agent.ask(target=f"{target}?after=0&wait=5s", headers={**AS_JSON, **headers}),
        agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, resumes),
        agent.ask("POST", f"{target}/cancel", headers=headers),
        agent.ask("DELETE", target, headers=headers),
    ]


@pytest.mark.parametrize("mine", _CREDENTIALS, ids=lambda mine: next(iter(mine)))
def test_list_is_of_the_callers_own_credential(agent: Agent, mine: dict[str, str]) -> None:
    number = next(_NUMBERS)
    mine = {name: f"{value}-{number}" for name, value in mine.items()}
    theirs = {name: f"{value}-theirs" for name, value in mine.items()}
    own = [whole(_begin(agent, mine).answer()).stream_id for _ in range(3)]
    live = _begin(agent, mine, STALLS)
    own.append(stream_id_of(live))
    whole(_begin(agent, theirs).answer())
    whole(_begin(agent, {}).answer())
    found = _list(agent, mine)
    assert [document["id"] for document in found] == own
    assert [document["state"] for document in found] == ["finished"] * 3 + ["streaming"]
    assert all(document["object"] == "relay.stream" for document in found)
    assert len(_list(agent, theirs)) == 1
    assert _list(agent, {name: value + "x" for name, value in mine.items()}) == []
    cancel(agent, own[-1])
    live.answer()


def test_list_without_a_credential_is_empty(agent: Agent) -> None:
    whole(_begin(agent, {}).answer())
    assert _list(agent, {}) == []


def test_list_names_streams_that_cannot_be_read_again_while_they_run(agent: Agent) -> None:
    mine = {"Authorization": f"Bearer transparent-{next(_NUMBERS)}"}
    call = agent.post(CHAT.path, CHAT.asked(stream=True), STALLS, mine)
    stream_id = stream_id_of(call)
    [document] = _list(agent, mine)
    assert (document["id"], document["resumable"], document["oldest"]) == (stream_id, False, None)
    cancel(agent, stream_id)
    call.answer()
    assert _list(agent, mine) == []


def test_foreign_credential_finds_nothing(ground: Ground, agent: Agent, other: Agent) -> None:
    """Not even that there is something; and changes nothing."""
    live = _begin(agent, _MINE, "events=80; interval=10ms")
    for stream_id in (stream_id_of(live), whole(_begin(agent, _MINE).answer()).stream_id):
        for theirs in (_THEIRS, {"X-Api-Key": "sk-mine"}, {**_MINE, "X-Api-Key": "more"}):
            for call in _everything(other, stream_id, theirs):
                refusal(call.answer(), 404, "not_found")
    whole(live.answer())
    assert ground.stats()["requests"] == 2


def test_own_credential_finds_everything(agent: Agent, other: Agent) -> None:
    live = _begin(agent, _MINE, STALLS)
    stream_id = stream_id_of(live)
    *calls, cancelled, again = _everything(other, stream_id, _MINE)
    for call in (*calls, cancelled, again):
        assert call.answer().status == 200
    assert state(agent, stream_id, **_MINE)["state"] == "cancelled"
    live.answer()


def test_id_alone_is_enough_for_who_sends_no_credential(agent: Agent, other: Agent) -> None:
    """A browser's own EventSource can send none."""
    live = _begin(agent, _MINE, STALLS)
    stream_id = stream_id_of(live)
    for call in _everything(other, stream_id, {}):
        assert call.answer().status == 200
    live.answer()


def test_credential_may_read_what_was_begun_without_one(agent: Agent) -> None:
    stream_id = whole(_begin(agent, {}).answer()).stream_id
    whole(read(agent, stream_id, **_MINE).answer())


def test_last_state_of_a_stream_that_is_gone_is_its_owners_as_well(agent: Agent) -> None:
    call = agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, _MINE)
    stream_id = call.answer().headers["relay-stream-id"]
    target = f"/v1/streams/{stream_id}"
    refusal(agent.ask(target=target, headers={**AS_JSON, **_THEIRS}).answer(), 404, "not_found")
    refusal(agent.ask("DELETE", target, headers=_THEIRS).answer(), 404, "not_found")
    assert becomes(agent, stream_id, "finished")["id"] == stream_id


_FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    # It calls itself as the page does, but it is a name that nobody has said is ours.
    {"Origin": "http://relay.test"},
    {"Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("fields", _FOREIGN, ids=lambda fields: "-".join(fields.values()))
def test_web_pages_of_others_are_403(ground: Ground, agent: Agent, fields: dict[str, str]) -> None:
    live = _begin(agent, {}, STALLS)
    stream_id = stream_id_of(live)
    for call in _everything(agent, stream_id, fields):
        refusal(call.answer(), 403, "forbidden")
    refusal(agent.ask(target="/v1/streams", headers=fields).answer(), 403, "forbidden")
    assert state(agent, stream_id)["state"] == "streaming"
    cancel(agent, stream_id)
    live.answer()


def test_own_web_page_may_do_everything(ground: Ground) -> None:
    with ground.agent(ground.relay_with(server='hosts = ["relay.test"]')) as agent:
        for fields in (
            {"Origin": "http://relay.test"},
            {"Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "http://relay.test", "Sec-Fetch-Site": "same-origin"},
        ):
            live = _begin(agent, {}, STALLS)
            for call in _everything(agent, stream_id_of(live), fields):
                assert call.answer().status == 200
            assert agent.ask(target="/v1/streams", headers=fields).answer().status == 200
            live.answer()


def test_idempotency_key_and_polls_are_the_owners(ground: Ground, agent: Agent) -> None:
    headers = {"Idempotency-Key": "shared", **_MINE}
    first = whole(_begin(agent, headers).answer()).stream_id
    second = whole(_begin(agent, {**headers, **_THEIRS}).answer()).stream_id
    third = whole(_begin(agent, {"Idempotency-Key": "shared"}).answer()).stream_id
    assert len({first, second, third}) == 3
    assert whole(_begin(agent, headers).answer()).stream_id == first
    assert ground.stats()["requests"] == 3
    assert poll(agent, first).answer().status == 200


def _with_cookie(kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nSet-Cookie: a=b\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


@SCRIPTED
def test_cookie_is_for_nobody_but_the_asker(ground: Ground) -> None:
    with Script(head=False) as script, ground.agent(ground.make_relay(url=script.url)) as agent:
        call = _begin(agent, {}, "")
        script.asked()
        script.say(_with_cookie(b"text/event-stream", delta("a") + DONE))
        answer = call.answer()
        assert answer.headers["set-cookie"] == "a=b"
        late = read(agent, answer.headers["relay-stream-id"]).answer()
        assert whole(late).said == plain(delta("a") + DONE)
        assert "set-cookie" not in late.headers


@SCRIPTED
def test_cookie_of_a_plain_answer_is_for_nobody_who_has_but_its_name(ground: Ground) -> None:
    with Script(head=False) as script, ground.agent(ground.make_relay(url=script.url)) as agent:
        stream_id = defer(agent, "")
        script.asked()
        script.say(_with_cookie(b"application/json", b"{}"))
        late = read(agent, stream_id).answer()
        assert (late.status, late.body) == (200, b"{}")
        assert "set-cookie" not in late.headers
