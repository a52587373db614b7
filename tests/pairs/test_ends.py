"""How answers end: cleanly if and only if they are whole. Before the client's first byte what fails is a real status,
in the dialect; later it is one error event between two events, and an abort of this answer alone."""

from __future__ import annotations

import json

import pytest

from tests.pairs.agent2 import Call2
from tests.pairs.calls import Agent, Outcome
from tests.pairs.pair import MOST, TIMED, UPSTREAM_2, Pair
from tests.robustness.peers import CHAT, DIALECTS, Dialect, refused
from tests.robustness.test_errors_midstream import _check_error, _events, _is_error

_BEFORE_HEAD = ["close", "reset", "garbage", "switch", "endless-head"]
_IN_HEAD = ["huge-head", "nul-header", "bare-lf", "cl-te", "two-lengths", "hints", "obs-fold"]
_AFTER_HEAD = ["head-close", "head-reset"]
_IN_STREAM = ["cut", "cut-reset", "reset", "bad-chunk", "half-event", "no-done"]
_IN_JSON = ["cut", "cut-reset", "reset", "bad-chunk", "short"]


def _lies(pair: Pair, lies: list[str]) -> list[str]:
    """Those that can be told in the provider's version, and there are told in the body."""
    if pair.upstream == "2":
        return [f"{lie}; at=3" for lie in lies]
    return [f"{lie}; at=3" for lie in lies if lie != "reset"]


def _serves(agent: Agent) -> None:
    answer = agent.post(CHAT.path, CHAT.asked(stream=True), "events=2; interval=0").answer()
    assert (answer.status, answer.clean) == (200, True)
    assert answer.body.endswith(CHAT.terminal)


# Whole


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_whole_stream_ends_cleanly(agent: Agent, dialect: Dialect) -> None:
    for simulate in ("events=0", "events=1", "events=20; burst=20; interval=0", "events=5; interval=5ms"):
        answer = agent.post(dialect.path, dialect.asked(stream=True), simulate).answer()
        assert (answer.status, answer.clean) == (200, True)
        assert dialect.terminal in answer.body
        assert not [event for event in _events(answer.body.replace(b"data: [DONE]\n\n", b"")) if _is_error(event)]


@MOST
@pytest.mark.parametrize("lie", ["hint", "trailers", "close-idle"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_harmless_lie_goes_unnoticed(agent: Agent, lie: str, stream: bool) -> None:
    for _ in range(2):
        answer = agent.post(CHAT.path, CHAT.asked(stream=stream), f"lie={lie}; events=3; interval=0").answer()
        assert (answer.status, answer.clean) == (200, True)
    _serves(agent)


@MOST
def test_bytes_behind_the_end_reach_nobody(agent: Agent) -> None:
    for lie in ("after-end", "long"):
        for stream in (True, False):
            answer = agent.post(CHAT.path, CHAT.asked(stream=stream), f"lie={lie}; events=3; interval=0").answer()
            assert b"behind the end" not in answer.body
            # Those that come only now meet the next request, which is then refused rather than answered by them.
            after = agent.post(CHAT.path, CHAT.asked(stream=True), "events=2; interval=0").answer()
            assert (after.status, after.clean) in ((200, True), (502, True))
            assert b"behind the end" not in after.body
    _serves(agent)


@TIMED
def test_stream_that_the_provider_leaves_open_ends_with_its_terminal_event(pair: Pair) -> None:
    """It has said everything but ends nothing: the client's answer ends cleanly all the same."""
    relay = pair.hasty
    with pair.agent(relay) as agent:
        calls = [
            agent.post(dialect.path, dialect.asked(stream=True), "lie=hold-open; events=3; interval=0")
            for dialect in DIALECTS
        ]
        for call, dialect in zip(calls, DIALECTS, strict=True):
            answer = call.answer()
            assert answer.clean
            assert dialect.terminal in answer.body
        _serves(agent)


# Before the client's first byte


@MOST
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("lie", [*_BEFORE_HEAD, *_IN_HEAD, *_AFTER_HEAD])
def test_lie_before_the_first_byte_is_502(pair: Pair, agent: Agent, lie: str, stream: bool) -> None:
    call = agent.post(CHAT.path, CHAT.asked(stream=stream), f"lie={lie}; events=3; interval=0")
    refused(call.answer(), 502)
    # Not the client's fault: its connection serves the next request.
    _serves(agent)
    if isinstance(call, Call2):
        assert not call.client.goaways
    # One generation was asked for, and one for the request after it, unless the connection had been in use before.
    assert pair.stats()["requests"] == 2 or lie in ("close", "reset")


@MOST
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_error_speaks_the_dialect_of_the_path(agent: Agent, dialect: Dialect, stream: bool) -> None:
    for lie in ("garbage", "head-reset", "close"):
        answer = agent.post(dialect.path, dialect.asked(stream=stream), f"lie={lie}").answer()
        refused(answer, 502, dialect)
        assert answer.headers["content-length"] == str(len(answer.body))


@UPSTREAM_2
def test_length_that_is_not_kept_breaks_its_stream_alone(pair: Pair, agent: Agent) -> None:
    """RFC 9113, 8.1.1: under HTTP/2 a length is told twice."""
    for lie in ("length_long", "length_short"):
        neighbour = agent.post(CHAT.path, CHAT.asked(stream=True), "events=20; interval=10ms")
        for _ in range(2):
            answer = agent.post(CHAT.path, CHAT.asked(stream=False), f"lie={lie}; events=30").answer()
            assert answer.status == 502 or not answer.clean
        assert neighbour.answer().clean
    assert pair.stats()["http2_connections"]["opened"] <= 1


# Later


def _abort(pair: Pair, answer: Outcome) -> None:
    assert answer.status == 200
    pair.broken_off(answer)


@MOST
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_broken_stream_ends_in_one_error_event(pair: Pair, agent: Agent, dialect: Dialect) -> None:
    for lie in _lies(pair, _IN_STREAM):
        simulate = f"events=8; interval=0; seed=4; lie={lie}"
        answer = agent.post(dialect.path, dialect.asked(stream=True), simulate).answer()
        _abort(pair, answer)
        assert dialect.terminal not in answer.body
        if "half-event" in lie:
            continue  # half of an event is either passed on or not, and no event of ours follows it
        events = _events(answer.body)
        _check_error(dialect, events)
        assert [_is_error(event) for event in events].count(True) == 1
        if lie.startswith("cut;"):
            # In front of it stands what the provider said, byte by byte.
            with pair.direct() as direct:
                own = (
                    direct.post(dialect.path, dialect.asked(stream=True), "events=8; interval=0; seed=4").answer().body
                )
            said = answer.body[: answer.body.rstrip(b"\n").rindex(b"\n\n") + 2]
            assert own.startswith(said)
            assert len(_events(said)) >= 3
    _serves(agent)


@MOST
@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_broken_compressed_stream_ends_in_one_error_event(pair: Pair, agent: Agent, encoding: str) -> None:
    for dialect in DIALECTS:
        simulate = f"lie=cut; at=3; events=8; interval=0; encoding={encoding}"
        answer = agent.post(dialect.path, dialect.asked(stream=True), simulate).answer()
        _abort(pair, answer)
        _check_error(dialect, _events(answer.body))


@MOST
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_error_of_the_provider_itself_is_passed_on_once(pair: Pair, agent: Agent, dialect: Dialect) -> None:
    simulate = "lie=error; at=3; events=8; interval=0"
    with pair.direct() as direct:
        own = direct.post(dialect.path, dialect.asked(stream=True), simulate).answer()
    answer = agent.post(dialect.path, dialect.asked(stream=True), simulate).answer()
    assert answer.body == own.body
    assert dialect.terminal not in answer.body
    # `response.failed` is how such a stream ends; no other dialect has a clean end for an error.
    assert answer.clean == (dialect.name == "responses")


@MOST
def test_stream_of_an_unknown_dialect_gets_no_event_of_ours(pair: Pair, agent: Agent) -> None:
    simulate = {"Simulate": "lie=cut; at=3; events=8; interval=0"}
    answer = agent.ask(target="/sse/ticker", headers=simulate).answer()
    _abort(pair, answer)
    assert b"error" not in answer.body


def test_broken_answer_never_ends_cleanly(pair: Pair, agent: Agent) -> None:
    for lie in _lies(pair, _IN_JSON):
        answer = agent.post(CHAT.path, CHAT.asked(stream=False), f"events=40; lie={lie}").answer()
        # What of it came in one piece with the fault may still be answered with a real status.
        if answer.status == 502:
            refused(answer, 502)
            continue
        _abort(pair, answer)
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(answer.body)
    _serves(agent)


def test_abort_of_one_answer_is_no_others(pair: Pair) -> None:
    """Over HTTP/2 it is RST_STREAM, and the connection's other streams live on."""
    with pair.agent() as agent:
        healthy = [agent.post(CHAT.path, CHAT.asked(stream=True), "events=60; interval=5ms") for _ in range(3)]
        for call in healthy:
            call.wait_for(b"\n\n")
        broken = [agent.post(CHAT.path, CHAT.asked(stream=True), "lie=cut; at=3; interval=0") for _ in range(5)]
        for call in broken:
            _abort(pair, call.answer())
        for call in healthy:
            answer = call.answer()
            assert answer.clean
            assert answer.body.endswith(CHAT.terminal)
    assert pair.stats()["finished"] == 3


def test_connection_of_the_provider_that_breaks_takes_its_streams_along(pair: Pair, agent: Agent) -> None:
    """Each of them is told so; the next request gets another connection."""
    calls = [agent.post(CHAT.path, CHAT.asked(stream=True), "events=1000; interval=20ms") for _ in range(4)]
    for call in calls:
        call.wait_for(b"\n\n")
    _abort(pair, agent.post(CHAT.path, CHAT.asked(stream=True), "lie=cut-reset; at=2; interval=0").answer())
    if pair.upstream == "2":
        for call in calls:
            answer = call.answer()
            _abort(pair, answer)
            _check_error(CHAT, _events(answer.body))
    else:
        assert pair.stats()["aborted"] == 0
    for call in calls:
        call.leave()
    _serves(agent)
