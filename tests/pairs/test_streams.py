"""Event streams: every byte is the provider's, whatever its dialect, its form and how it is cut; and heartbeats."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.clients.test_identity import AROUND, ASKED, FORMS, SLOW
from tests.pairs.calls import Agent, Call
from tests.pairs.pair import MOST, TIMED, Pair
from tests.programs import PATIENCE, chat
from tests.robustness.peers import CHAT, DIALECTS

_MIB = 1024 * 1024
# Not as many as there are forms, so that each kind begins with another.
_SEEDS = range(len(FORMS) // 2 + 1)
_BEAT = b":\n"


def _ask(agent: Agent, kind: str, simulate: str) -> Call:
    method, target, document = ASKED[kind]
    body = None if document is None else json.dumps(document).encode()
    return agent.ask(method, target, body, {"Content-Type": "application/json", "Simulate": simulate})


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@MOST
@pytest.mark.parametrize("kind", ASKED)
def test_body_through_the_relay_is_the_providers_wherever_it_is_cut(pair: Pair, agent: Agent, kind: str) -> None:
    first = list(ASKED).index(kind) * len(_SEEDS)
    with pair.direct() as direct:
        for seed in range(first, first + len(_SEEDS)):
            form = f"seed={seed}; events=8; interval=0; {FORMS[seed % len(FORMS)]}"
            cuts = f"split={seed}; gap={'1ms' if seed % SLOW == 0 else '0'}; lie={AROUND[seed % len(AROUND)]}"
            # Where HTTP/1.1 ends a body by the connection, the direct answer has no length.
            own = _ask(direct, kind, form.replace("framing=close", "framing=chunked")).answer()
            answer = _ask(agent, kind, f"{form}; {cuts}").answer()
            assert (answer.status, answer.clean) == (own.status, True) == (200, own.clean), (form, cuts)
            assert own.body, form
            assert _digest(answer.body) == _digest(own.body), (form, cuts, answer.body)


@MOST
@pytest.mark.parametrize(
    "form",
    ["padding=0", "padding=255; frame=100", "empty=5", "join=1", "frame=1", "window=1", "window=100000", "trailers=1"],
)
def test_form_of_the_providers_frames_is_its_own_business(pair: Pair, agent: Agent, form: str) -> None:
    """What it means over HTTP/1.1, if anything, changes no byte either."""
    simulate = "seed=77; events=12; interval=0"
    with pair.direct() as direct:
        own = direct.post(CHAT.path, CHAT.asked(stream=True), simulate).answer()
    for _ in range(2):
        answer = agent.post(CHAT.path, CHAT.asked(stream=True), f"{simulate}; {form}").answer()
        assert (answer.status, answer.clean) == (200, True)
        assert answer.body == own.body


@MOST
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_compressed_stream_is_inflated(pair: Pair, agent: Agent, encoding: str) -> None:
    simulate = "seed=78; events=200; interval=0; size=100"
    with pair.direct() as direct:
        own = direct.post(CHAT.path, CHAT.asked(stream=True), simulate).answer()
    answer = agent.post(CHAT.path, CHAT.asked(stream=True), f"{simulate}; encoding={encoding}; split=3").answer()
    assert answer.clean
    assert answer.body == own.body
    assert "content-encoding" not in answer.headers


def test_large_events_arrive_whole(pair: Pair, agent: Agent) -> None:
    """Each larger than a frame, than a window, and than what may wait."""
    for size in (16_384, 65_536, 300_000, 2 * _MIB):
        simulate = f"seed=79; events=4; interval=0; size={size}"
        with pair.direct() as direct:
            own = direct.post(CHAT.path, CHAT.asked(stream=True), simulate).answer()
        answer = agent.post(CHAT.path, CHAT.asked(stream=True), simulate).answer()
        assert answer.clean
        assert _digest(answer.body) == _digest(own.body)


@pytest.mark.parametrize("kind", [name for name in ASKED if name != "json"])
def test_first_event_arrives_while_the_provider_has_more_to_say(pair: Pair, agent: Agent, kind: str) -> None:
    """The next event comes after more than any test waits: what can be read was not held back for it."""
    call = _ask(agent, kind, f"events=2; interval={PATIENCE * 3:g}s")
    assert call.head() == 200
    if kind == "bytes":
        while not call.pieces:
            assert call._more()
    else:
        call.wait_for({"ndjson": b"}\n"}.get(kind, b"\n\n"))
    assert pair.stats()["finished"] == 0
    call.leave()
    pair.counts.wait(aborted=1)


@pytest.mark.parametrize("interval", ["0", "1ms"])
def test_many_streams_at_once_are_not_mixed_up(pair: Pair, interval: str) -> None:
    """Over HTTP/2 they share a connection, which is read and written in turns."""
    simulates = [f"seed={seed}; events=40; interval=0" for seed in range(30)]
    with pair.direct() as direct:
        own = [direct.post(CHAT.path, chat(), simulate).answer().body for simulate in simulates]
    with pair.agent() as agent:
        calls = [agent.post(CHAT.path, chat(), f"{simulate}; interval={interval}; split=7") for simulate in simulates]
        for call, body in zip(calls, own, strict=True):
            answer = call.answer()
            assert answer.clean
            assert answer.body == body


# Heartbeats


def _without_beats(pieces: list[bytes]) -> bytes:
    """The body less its heartbeats, each of which must stand where an event may begin."""
    body = b""
    for piece in pieces:
        if piece == _BEAT:
            assert body == b"" or body.endswith(b"\n\n"), f"a heartbeat inside an event: {body[-100:]!r}"
        else:
            body += piece
    return body


@TIMED
def test_heartbeats_are_all_that_is_added(pair: Pair) -> None:
    relay = pair.hasty
    simulate = "first=300ms; events=2; interval=300ms"
    with pair.agent(relay) as agent, pair.direct() as direct:
        owns = [direct.post(dialect.path, dialect.asked(stream=True), simulate) for dialect in DIALECTS]
        calls = [agent.post(dialect.path, dialect.asked(stream=True), simulate) for dialect in DIALECTS]
        for own, call in zip(owns, calls, strict=True):
            answer = call.answer()
            assert answer.clean
            assert answer.chunks.count(_BEAT) >= 2
            # Before the first event, where the model thinks longest, too.
            assert answer.chunks[0] == _BEAT
            assert _without_beats(answer.chunks) == own.answer().body


@TIMED
def test_plain_answer_gets_no_heartbeat(pair: Pair) -> None:
    relay = pair.hasty
    with pair.agent(relay) as agent:
        calls = [agent.post(dialect.path, dialect.asked(stream=False), "delay=250ms") for dialect in DIALECTS]
        for call in calls:
            answer = call.answer()
            assert answer.clean
            assert json.loads(answer.body)
            assert _BEAT not in answer.chunks


@TIMED
def test_nothing_is_sent_before_the_provider_has_answered(pair: Pair) -> None:
    """Its status is not known yet, and a real error must still be possible."""
    relay = pair.hasty
    with pair.agent(relay) as agent:
        call = agent.post(CHAT.path, CHAT.asked(stream=True), "delay=300ms; lie=garbage")
        assert call.answer().status == 502
