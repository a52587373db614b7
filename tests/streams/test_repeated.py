"""A request that is sent twice is answered by one generation: by the id of the last event, as fetch-event-source
reconnects, or by an Idempotency-Key."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.pairs.calls import Agent, Call
from tests.robustness.peers import CHAT, DIALECTS, Dialect
from tests.streams.ground import (
    FOUR,
    RESUMABLE,
    STALLS,
    WHOLE,
    Ground,
    begin,
    broken,
    cancel,
    gone,
    read,
    refusal,
    state,
    stream_id_of,
    whole,
)

_KEYS = (f"key-{number}" for number in itertools.count())


def _repeat(agent: Agent, last: str, simulate: str = WHOLE, dialect: Dialect = CHAT) -> Call:
    fields = {**RESUMABLE, "Last-Event-ID": last}
    return agent.post(dialect.path, dialect.asked(stream=True), simulate, fields)


@pytest.fixture
def key() -> str:
    """One that no other test uses."""
    return next(_KEYS)


# Last-Event-ID


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_repeated_post_resumes_the_stream(ground: Ground, agent: Agent, other: Agent, dialect: Dialect) -> None:
    call = begin(agent, "events=40; interval=5ms", dialect)
    stream_id = stream_id_of(call)
    call.wait_for(b"-7\n\n")
    call.leave()
    resumed = whole(_repeat(other, f"{stream_id}-7", dialect=dialect).answer(), first=8)
    assert resumed.stream_id == stream_id
    stats = ground.stats()
    assert (stats["requests"], stats["finished"]) == (1, 1)
    # And once it has ended: to somebody who lacks something, and to somebody who has it all.
    last = resumed.seqs[-1]
    assert whole(_repeat(other, f"{stream_id}-7", dialect=dialect).answer(), first=8).said == resumed.said
    assert _repeat(other, f"{stream_id}-{last}", dialect=dialect).answer().status == 204
    refusal(_repeat(other, f"{stream_id}-{last + 1}").answer(), 409, "ahead_of_stream")
    assert ground.stats()["requests"] == 1


def test_repeated_post_needs_no_further_field(ground: Ground, agent: Agent) -> None:
    stream_id = whole(begin(agent).answer()).stream_id
    fields = {"Last-Event-ID": f"{stream_id}-2"}
    whole(agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, fields).answer(), first=3)
    assert ground.stats()["requests"] == 1


def test_repeated_post_of_an_unknown_stream_is_404(ground: Ground, agent: Agent) -> None:
    """Another generation would put another answer behind what the reader has of this one."""
    for last in ("A" * 22 + "-1", "A" * 22 + "-0", "-_" * 11 + "-999999"):
        refusal(_repeat(agent, last).answer(), 404, "not_found")
    assert ground.stats()["requests"] == 0


def test_repeated_post_of_a_foreign_form_is_the_providers(ground: Ground, agent: Agent) -> None:
    """Untouched: its own streams may have ids of their own."""
    foreign = ("7", "evt_123", "A" * 21 + "-1", "A" * 23 + "-1", "A" * 22, "A" * 22 + "-x", "A" * 22 + ":1", "latest")
    for number, last in enumerate(foreign, 1):
        assert agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, {"Last-Event-ID": last}).answer().clean
        assert ground.stats()["requests"] == number
        assert last in str(ground.counts.requests()[-1])


# Idempotency-Key


@FOUR
def test_same_key_and_body_join_whenever_they_come(ground: Ground, agent: Agent, other: Agent, key: str) -> None:
    simulate = "delay=150ms; events=40; interval=5ms"
    first = begin(agent, simulate, Idempotency_Key=key)
    ground.counts.wait(requests=1)
    # The first still waits for the provider; then it is under way; then it has ended.
    waiting = begin(other, simulate, Idempotency_Key=key)
    stream_id = stream_id_of(first)
    first.wait_for(b"-9\n\n")
    live = begin(other, simulate, Idempotency_Key=key)
    answers = [call.answer() for call in (first, waiting, live)]
    answers.append(begin(other, simulate, Idempotency_Key=key).answer())
    for answer in answers:
        assert whole(answer).stream_id == stream_id
        assert answer.body == answers[0].body
    stats = ground.stats()
    assert (stats["requests"], stats["finished"]) == (1, 1)


def test_first_may_leave_while_it_waits(ground: Ground, agent: Agent, other: Agent, key: str) -> None:
    """It may come back by its key."""
    first = begin(agent, "delay=300ms; events=5; interval=0", Idempotency_Key=key)
    ground.counts.wait(requests=1)
    first.leave()
    whole(begin(other, "delay=300ms; events=5; interval=0", Idempotency_Key=key).answer())
    stats = ground.stats()
    assert (stats["requests"], stats["finished"], stats["aborted"]) == (1, 1, 0)


def test_other_body_is_422(ground: Ground, agent: Agent, key: str) -> None:
    whole(begin(agent, Idempotency_Key=key).answer())
    bodies = [b"{}", b"", json.dumps(CHAT.asked(stream=True)).encode() + b" ", json.dumps({"stream": True}).encode()]
    for body in bodies:
        fields = {**RESUMABLE, "Idempotency-Key": key}
        refusal(agent.ask("POST", CHAT.path, body, fields).answer(), 422, "idempotency_key_reused")
    # Also while the first is under way.
    live = begin(agent, STALLS, Idempotency_Key=f"{key}-live")
    live.wait_for(b"-4\n\n")
    fields = {**RESUMABLE, "Idempotency-Key": f"{key}-live"}
    refusal(agent.ask("POST", CHAT.path, b"{}", fields).answer(), 422, "idempotency_key_reused")
    assert ground.stats()["requests"] == 2
    cancel(agent, stream_id_of(live))
    live.answer()


def test_key_is_of_one_caller_and_one_path(ground: Ground, agent: Agent, key: str) -> None:
    ids = set()
    for credential in ("Bearer a", "Bearer b", ""):
        for dialect in DIALECTS:
            fields = {"Authorization": credential} if credential else {}
            ids.add(whole(begin(agent, WHOLE, dialect, Idempotency_Key=key, **fields).answer()).stream_id)
    assert len(ids) == ground.stats()["requests"] == 3 * len(DIALECTS)


@pytest.mark.parametrize("simulate", ["lie=close", "lie=head-reset", "lie=garbage", "status=500", "status=429"])
def test_what_failed_with_nothing_is_tried_anew(ground: Ground, agent: Agent, key: str, simulate: str) -> None:
    assert begin(agent, simulate, Idempotency_Key=key).answer().status >= 400
    before = ground.stats()["requests"]
    whole(begin(agent, Idempotency_Key=key).answer())
    assert ground.stats()["requests"] == before + 1
    # From now on it is known.
    whole(begin(agent, Idempotency_Key=key).answer())
    assert ground.stats()["requests"] == before + 1


def test_who_joined_what_failed_with_nothing_gets_the_same_error(
    ground: Ground, agent: Agent, other: Agent, key: str
) -> None:
    simulate = "delay=200ms; status=429; retry_after=7"
    calls = [begin(agent, simulate, Idempotency_Key=key)]
    ground.counts.wait(requests=1)
    calls.append(begin(other, simulate, Idempotency_Key=key))
    answers = [call.answer() for call in calls]
    for answer in answers:
        assert (answer.status, answer.clean, answer.headers["retry-after"]) == (429, True, "7")
        assert answer.body == answers[0].body
    assert ground.stats()["requests"] == 1
    whole(begin(agent, Idempotency_Key=key).answer())


def test_what_failed_with_something_is_not_paid_for_again(ground: Ground, agent: Agent, key: str) -> None:
    simulate = "lie=cut; at=3; interval=0"
    first = broken(ground, begin(agent, simulate, Idempotency_Key=key).answer(), "upstream_cut")
    again = broken(ground, begin(agent, simulate, Idempotency_Key=key).answer(), "upstream_cut")
    assert first == again
    assert ground.stats()["requests"] == 1


def test_first_that_is_still_being_sent_is_409(agent: Agent, other: Agent, key: str) -> None:
    body = json.dumps(CHAT.asked(stream=True)).encode()
    fields = {**RESUMABLE, "Idempotency-Key": key, "Simulate": WHOLE, "Expect": "100-continue"}
    first = agent.ask("POST", CHAT.path, headers=fields, more=True, length=len(body))
    first.continues()
    second = {name: value for name, value in fields.items() if name != "Expect"}
    answer = other.ask("POST", CHAT.path, body, second).answer()
    refusal(answer, 409, "request_pending")
    assert int(answer.headers["retry-after"]) > 0
    first.send(body)
    first.end()
    stream_id = whole(first.answer()).stream_id
    assert whole(other.ask("POST", CHAT.path, body, second).answer()).stream_id == stream_id


def test_key_is_1_to_255_bytes(ground: Ground, agent: Agent) -> None:
    for key in ("", "k" * 256):
        refusal(begin(agent, Idempotency_Key=key).answer(), 400, "bad_request")
    assert ground.stats()["requests"] == 0
    whole(begin(agent, Idempotency_Key="k" * 255).answer())


def test_key_without_a_stream_that_can_be_resumed_is_the_providers(ground: Ground, agent: Agent, key: str) -> None:
    for number in (1, 2):
        assert agent.post(CHAT.path, CHAT.asked(stream=True), WHOLE, {"Idempotency-Key": key}).answer().clean
        assert ground.stats()["requests"] == number
        assert key in str(ground.counts.requests()[-1])


@FOUR
def test_key_of_an_answer_that_is_no_stream(ground: Ground, agent: Agent, other: Agent, key: str) -> None:
    """The first gets it, whole. Who comes while it passes through gets it as well, or a refusal; nobody gets a part."""
    simulate = "delay=100ms; events=400; split=3; gap=5ms"
    fields = {**RESUMABLE, "Idempotency-Key": key}
    first = agent.post(CHAT.path, CHAT.asked(stream=False), simulate, fields)
    first.head()
    second = other.post(CHAT.path, CHAT.asked(stream=False), simulate, fields).answer()
    answer = first.answer()
    assert (answer.status, answer.clean) == (200, True)
    assert json.loads(answer.body)["choices"]
    assert second.clean
    assert second.body == answer.body or 400 <= second.status < 500, (second.status, second.body[:200])


def test_key_of_a_cancelled_stream_is_cancelled(ground: Ground, agent: Agent, key: str) -> None:
    call = begin(agent, STALLS, Idempotency_Key=key)
    call.wait_for(b"-4\n\n")
    cancel(agent, stream_id_of(call))
    first = broken(ground, call.answer(), "cancelled")
    assert broken(ground, begin(agent, STALLS, Idempotency_Key=key).answer(), "cancelled") == first
    assert ground.stats()["requests"] == 1


def test_key_outlives_its_stream_by_nothing(ground: Ground, key: str) -> None:
    with ground.agent(ground.relay_with(retention='finished = "300ms"\norphan = "300ms"')) as agent:
        stream_id = whole(begin(agent, Idempotency_Key=key).answer()).stream_id
        gone(agent, stream_id)
        assert whole(begin(agent, Idempotency_Key=key).answer()).stream_id != stream_id
    assert ground.stats()["requests"] == 2


def test_key_of_a_stream_whose_beginning_is_no_longer_kept_is_410(ground: Ground, key: str) -> None:
    """Never a replay with a hole, nor a cut that says nothing."""
    with ground.agent(ground.relay_with(retention='stream = "4KiB"')) as agent:
        # No more than its first reader's windows and buffers take, however slow it is.
        stream_id = whole(begin(agent, "events=150; interval=0", Idempotency_Key=key).answer()).stream_id
        oldest = state(agent, stream_id)["oldest"]
        assert oldest > 1
        error = refusal(begin(agent, "events=150; interval=0", Idempotency_Key=key).answer(), 410, "events_gone")
        assert error["oldest"] == oldest
        whole(read(agent, stream_id, oldest - 1).answer(), first=oldest)
