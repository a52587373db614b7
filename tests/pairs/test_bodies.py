"""Requests' bodies: of any size and of none that is known, slowly taken, waited for, too large."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import pytest

from tests.pairs.agent2 import Call2
from tests.pairs.calls import Agent, Call, Outcome
from tests.pairs.origin import Reply
from tests.pairs.pair import MOST, TIMED, Pair
from tests.robustness.peers import CHAT, until

_KIB = 1024
_MIB = 1024 * _KIB
_LIMIT = 64 * _KIB
_SIZES = [0, 1, 5, 16 * _KIB, 16 * _KIB + 1, 65_535, 65_536, 300_000, _MIB + 1]


def _body(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _echoed(answer: Outcome) -> dict[str, Any]:
    assert (answer.status, answer.clean) == (200, True), answer
    echo: dict[str, Any] = json.loads(answer.body)
    return echo


def _fields(echo: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in echo["headers"]}


@MOST
@pytest.mark.parametrize("size", _SIZES)
def test_body_arrives_whole_with_its_length(agent: Agent, size: int) -> None:
    body = _body(size)
    echo = _echoed(agent.ask("POST", "/echo", body).answer())
    assert (echo["body_length"], echo["body_sha256"]) == (size, _digest(body))
    assert _fields(echo)["content-length"] == str(size)
    assert "transfer-encoding" not in _fields(echo)


@MOST
@pytest.mark.parametrize("size", _SIZES[1:])
def test_body_of_unknown_length_arrives_whole(pair: Pair, agent: Agent, size: int) -> None:
    body = _body(size)
    call = agent.ask("POST", "/echo", more=True)
    for at in range(0, size, 10_000):
        assert call.send(body[at : at + 10_000])
    call.end()
    echo = _echoed(call.answer())
    assert (echo["body_length"], echo["body_sha256"]) == (size, _digest(body))
    assert "content-length" not in _fields(echo)
    assert _fields(echo).get("transfer-encoding") == ("chunked" if pair.upstream == "1" else None)


@MOST
def test_body_of_unknown_length_may_be_empty(agent: Agent) -> None:
    call = agent.ask("POST", "/echo", more=True)
    call.end()
    assert _echoed(call.answer())["body_length"] == 0


@MOST
def test_body_in_crumbs_arrives_whole(agent: Agent) -> None:
    document = json.dumps(CHAT.asked(stream=True)).encode()
    call = agent.ask("POST", CHAT.path, headers={"Simulate": "events=2; interval=0"}, more=True)
    for at in range(len(document)):
        call.send(document[at : at + 1])
    call.end()
    answer = call.answer()
    assert (answer.status, answer.clean) == (200, True)
    assert answer.body.endswith(CHAT.terminal)


@MOST
@pytest.mark.parametrize("known", [True, False], ids=["length", "unknown"])
def test_several_bodies_at_once_are_not_mixed_up(agent: Agent, known: bool) -> None:
    """Piece by piece in turn, on one connection or on several."""
    bodies = [bytes([65 + number]) * (40_000 + number) for number in range(8)]
    calls = [agent.ask("POST", "/echo", more=True, length=len(body) if known else None) for body in bodies]
    for at in range(0, 40_100, 7_000):
        for call, body in zip(calls, bodies, strict=True):
            assert call.send(body[at : at + 7_000])
    for call in calls:
        call.end()
    for call, body in zip(calls, bodies, strict=True):
        assert _echoed(call.answer())["body_sha256"] == _digest(body)


# A provider that takes its time


class _Sender:
    """Sends a body from a thread of its own; `sent` is how much of it the other side has let go."""

    def __init__(self, call: Call, body: bytes) -> None:
        self.sent = 0
        self._call = call
        self._body = body
        self._seen = -1
        self._quiet = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def stands_still(self) -> bool:
        """Whether nothing more was let go for a while, or all of it was."""
        self._quiet = self._quiet + 1 if self.sent == self._seen else 0
        self._seen = self.sent
        return self._quiet >= 10 or self.sent == len(self._body)

    def _run(self) -> None:
        for at in range(0, len(self._body), 16_384):
            if not self._call.send(self._body[at : at + 16_384]):
                return
            self.sent = min(at + 16_384, len(self._body))
        self._call.end()


@pytest.mark.parametrize("known", [True, False], ids=["length", "unknown"])
def test_large_body_waits_for_a_provider_that_reads_slowly(pair: Pair, known: bool) -> None:
    """5 MB of it are 5 MB nowhere but in the kernel's buffers, which are its own business over HTTP/1.1."""
    body = _body(5 * _MIB if pair.client == "2" else 24 * _MIB)
    with pair.origin() as origin:
        relay = pair.relay_with(url=origin.url)
        with pair.agent(relay) as agent:
            assert agent.ask("POST", "/warm", b"x").answer().status == 200
            before = relay.resident()
            origin.reading.clear()
            # What was waited for before this is still read.
            agent.ask("POST", "/warm", b"x")
            call = agent.ask("POST", "/large", more=True, length=len(body) if known else None)
            sender = _Sender(call, body)
            until(sender.stands_still, "a sender that waits")
            assert sender.sent < len(body), "all of it was let go, and nobody has taken it"
            assert relay.resident() - before < 4 * _MIB
            origin.reading.set()
            sender.thread.join()
            assert call.answer().status == 200
        large = next(request for request in origin.requests if request.target == "/large")
    assert _digest(bytes(large.body)) == _digest(body)


@MOST
def test_body_that_is_not_taken_keeps_no_other_waiting(pair: Pair) -> None:
    """A request whose provider does not read holds its own window back, not its connection's."""
    with pair.origin() as origin:
        relay = pair.relay_with(url=origin.url)
        with pair.agent(relay) as agent:
            origin.reading.clear()
            call = agent.ask("POST", "/large", more=True, length=8 * _MIB)
            for _ in range(30):
                if isinstance(call, Call2):
                    call.send(bytes(max(call.room, 0)))
                assert agent.ask(target="/healthz").answer().body == b"ok\n"
            if isinstance(call, Call2) and pair.upstream == "2":
                assert call.room <= 0, "nobody takes it, and more of it may come"
            call.leave()


# Expect: 100-continue (RFC 9110, 10.1.1)

_EXPECT = {"Expect": "100-continue"}


@MOST
@pytest.mark.parametrize("known", [True, False], ids=["length", "unknown"])
def test_body_that_waits_for_leave_gets_it(agent: Agent, known: bool) -> None:
    for _ in range(2):
        call = agent.ask("POST", "/echo", headers=_EXPECT, more=True, length=5 if known else None)
        call.continues()
        call.send(b"hello")
        call.end()
        answer = call.answer()
        echo = _echoed(answer)
        assert (echo["body"], answer.informational) == ("hello", [100])
        assert "expect" not in _fields(echo)


@MOST
def test_body_that_does_not_wait_for_its_leave_is_taken(agent: Agent) -> None:
    answer = agent.ask("POST", "/echo", b"hello", _EXPECT).answer()
    assert _echoed(answer)["body"] == "hello"
    assert answer.informational in ([], [100])


@MOST
def test_unknown_expectation_is_417(agent: Agent) -> None:
    answer = agent.ask("POST", "/echo", b"", {"Expect": "wonders"}).answer()
    assert (answer.status, answer.clean) == (417, True)


# Too large


def _too_large(answer: Outcome) -> None:
    assert (answer.status, answer.clean) == (413, True)
    assert json.loads(answer.body)["error"]["code"] == "payload_too_large"


@MOST
@pytest.mark.parametrize("headers", [{}, _EXPECT], ids=["plain", "expect"])
def test_announced_body_past_the_limit_is_refused_before_it_is_read(pair: Pair, headers: dict[str, str]) -> None:
    relay = pair.relay_with(limits=f"request_body = {_LIMIT}")
    with pair.agent(relay) as agent:
        # Not one byte of it follows, and the answer comes all the same: no 100 in front of it.
        answer = agent.ask("POST", CHAT.path, headers=headers, more=True, length=_LIMIT + 1).answer()
        _too_large(answer)
        assert answer.informational == []
        if pair.client == "1":
            assert answer.headers["connection"] == "close"
        assert agent.post(CHAT.path, CHAT.asked(stream=False)).answer().status == 200
    assert pair.stats()["requests"] == 1


@MOST
def test_body_of_unknown_length_past_the_limit_is_refused_where_it_passes(pair: Pair) -> None:
    relay = pair.relay_with(limits=f"request_body = {_LIMIT}")
    with pair.agent(relay) as agent:
        call = agent.ask("POST", CHAT.path, more=True)
        for _ in range(_LIMIT // 4096 + 1):
            call.send(b" " * 4096)
        answer = call.answer()
        _too_large(answer)
        if isinstance(call, Call2):
            # The rest is not wanted (RFC 9113, 8.1), and the connection serves on.
            while not call.reset_by:
                assert call.client.pump()
            assert call.reset_by == "NO_ERROR"
        assert agent.post(CHAT.path, CHAT.asked(stream=False)).answer().status == 200
    stats = pair.stats()
    assert stats["finished"] == 1, "half a request was taken for a whole one"


@MOST
def test_body_at_the_limit_is_relayed(pair: Pair) -> None:
    relay = pair.relay_with(limits=f"request_body = {_LIMIT}")
    with pair.agent(relay) as agent:
        assert _echoed(agent.ask("POST", "/echo", _body(_LIMIT)).answer())["body_length"] == _LIMIT
        call = agent.ask("POST", "/echo", more=True)
        call.send(_body(_LIMIT))
        call.end()
        assert _echoed(call.answer())["body_length"] == _LIMIT


@pytest.mark.parametrize("known", [True, False], ids=["length", "unknown"])
def test_refusal_reaches_a_client_that_is_still_sending(pair: Pair, known: bool) -> None:
    """What it had sent by then must not cost it the answer."""
    relay = pair.relay_with(limits=f"request_body = {_LIMIT}")
    for _ in range(2):
        with pair.agent(relay) as agent:
            call = agent.ask("POST", CHAT.path, more=True, length=768 * _KIB if known else None)
            call.send(bytes(768 * _KIB))
            call.end()
            _too_large(call.answer())


# Ends


def test_answer_before_the_end_of_the_body_is_passed_on(pair: Pair) -> None:
    """A provider that refuses need not read all of it."""
    with pair.origin(Reply(429, body=b"slow down"), early=True) as origin:
        relay = pair.relay_with(url=origin.url)
        with pair.agent(relay) as agent:
            call = agent.ask("POST", CHAT.path, more=True, length=2 * _MIB)
            call.send(bytes(10_000))
            answer = call.answer()
            assert (answer.status, answer.clean, answer.body) == (429, True, b"slow down")
        with pair.agent(relay) as agent:
            assert agent.ask("POST", CHAT.path, b"{}").answer().status == 429


@MOST
def test_body_that_breaks_off_is_no_request(pair: Pair, agent: Agent) -> None:
    call = agent.ask("POST", "/echo", headers={"X-Request-Id": "breaks-off"}, more=True, length=1000)
    call.send(b"x" * 500)
    call.leave()
    line = pair.line(pair.relay, "breaks-off")
    assert (line["reason"], line["status"]) == ("client_left", 499)
    assert pair.stats()["finished"] == 0


@TIMED
def test_body_that_stops_is_answered_408(pair: Pair) -> None:
    relay = pair.hasty
    with pair.agent(relay) as agent:
        calls = [agent.ask("POST", CHAT.path, more=True, length=length) for length in (100, None)]
        for call in calls:
            call.send(b"{")
        for call in calls:
            answer = call.answer()
            assert (answer.status, answer.clean) == (408, True)
            assert json.loads(answer.body)["error"]["type"] == "timeout_error"
        assert agent.post(CHAT.path, CHAT.asked(stream=False)).answer().status == 200
    assert pair.stats()["finished"] == 1
