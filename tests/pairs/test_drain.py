"""Told to stop: what is under way ends whole, nothing new begins, nobody idle holds up the end (RFC 9113, 6.8)."""

from __future__ import annotations

import contextlib
import signal

import pytest

from tests.pairs.agent1 import Agent1
from tests.pairs.agent2 import Client2
from tests.pairs.calls import Agent, Call
from tests.pairs.pair import MOST, TIMED, Pair, over
from tests.programs import PATIENCE, Relay, chat
from tests.robustness.peers import CHAT, refused
from tests.robustness.test_errors_midstream import _check_error, _events

_HIGHEST = 2**31 - 1


def _exit_code(relay: Relay) -> int:
    return relay.process.wait(timeout=PATIENCE)


def test_live_streams_end_whole_and_new_ones_are_refused(pair: Pair) -> None:
    relay = pair.make_relay()
    with pair.agent(relay) as agent, pair.agent(relay) as idle, pair.agent(relay) as sending:
        half = sending.ask("POST", "/echo", headers={"Expect": "100-continue"}, more=True, length=5)
        half.continues()
        live = agent.post(CHAT.path, chat(), "events=20; interval=20ms")
        live.wait_for(b"\n\n")
        waiting = agent.post(CHAT.path, chat(), "delay=300ms; events=2; interval=0")
        assert idle.ask(target="/readyz").answer().status == 200
        pair.counts.wait(requests=2)

        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining: 3 requests")
        assert idle.closed()
        with pytest.raises(ConnectionRefusedError):
            pair.agent(relay).ask(target="/readyz")
        if isinstance(agent, Client2):
            # Two steps: no last stream is named before all that was under way can have come.
            while len(agent.goaways) < 2:
                assert agent.pump()
            assert [(last, code.name) for last, code in agent.goaways] == [(_HIGHEST, "NO_ERROR"), (3, "NO_ERROR")]
            late = agent.ask(target="/readyz").answer()
            assert (late.status, late.broken) == (0, "REFUSED_STREAM")
        for call in (waiting, live):
            answer = call.answer()
            assert (answer.status, answer.clean) == (200, True)
            assert answer.body.endswith(CHAT.terminal)
            if pair.client == "1" and call is waiting:
                assert answer.headers["connection"] == "close"
        assert agent.closed()
        # A request whose body is still coming is served as well.
        assert half.send(b"hello")
        half.end()
        assert half.answer().status == 200
        assert sending.closed()
    assert _exit_code(relay) == 0
    stats = pair.stats()
    assert (stats["finished"], stats["aborted"]) == (3, 0)


@MOST
def test_request_between_the_two_steps_is_served(pair: Pair) -> None:
    """HTTP/2: a client that has not heard of it yet loses nothing. (Of HTTP/1.1, one whose head was under way.)"""
    relay = pair.make_relay()
    with pair.agent(relay) as agent:
        live = agent.post(CHAT.path, chat(), "events=20; interval=20ms")
        live.wait_for(b"\n\n")
        call: Call | None = None
        if isinstance(agent, Client2):
            relay.send_signal(signal.SIGTERM)
            relay.wait_for("draining")
            # Its PING is not answered before this, since nothing has been read since.
            call = agent.ask("POST", "/echo", b"late")
            answer = call.answer()
            assert (answer.status, answer.clean) == (200, True)
            assert [last for last, _ in agent.goaways] in ([_HIGHEST], [_HIGHEST, 3])
        else:
            assert isinstance(agent, Agent1)
            probe = agent.connect()
            probe.send(b"GET /readyz HTTP/1.1\r\n")
            # Answered in its turn, so that what was sent before has been read.
            assert agent.ask(target="/healthz").answer().status == 200
            relay.send_signal(signal.SIGTERM)
            relay.wait_for("draining")
            probe.send(b"Host: a\r\n\r\n")
            said = probe.answer()
            assert (said.status, said.body, said.headers["connection"]) == (503, b"draining\n", "close")
        assert live.answer().clean
    assert _exit_code(relay) == 0


def _broken_off(pair: Pair, relay: Relay, live: Call, waiting: Call, requests: int) -> None:
    """The drain is over: what has begun says why it breaks off, what has not gets a status."""
    refused(waiting.answer(), 503)
    answer = live.answer()
    pair.broken_off(answer)
    events = _events(answer.body)
    _check_error(CHAT, events)
    assert events[-1]["error"]["code"] == "draining"
    pair.counts.wait(aborted=requests)
    assert _exit_code(relay) == 0
    assert sum(b'"reason":"drained"' in line for line in relay.output) == requests


def _begin(pair: Pair, agent: Agent) -> tuple[Call, Call]:
    live = agent.post(CHAT.path, chat(), "events=100000; interval=50ms")
    live.wait_for(b"\n\n")
    waiting = agent.post(CHAT.path, chat(), "delay=60")
    pair.counts.wait(requests=2)
    return live, waiting


@TIMED
def test_drain_has_an_end(pair: Pair) -> None:
    """Nor does a reader that is stuck hold it up."""
    relay = pair.make_relay(timeouts="drain = 0.3")
    with pair.agent(relay) as agent, pair.agent(relay, receive_buffer=128 * 1024) as other:
        live, waiting = _begin(pair, agent)
        stuck = other.post(CHAT.path, chat(), "events=1000; interval=0; size=64KiB; sndbuf=64KiB")
        stuck.head()
        relay.send_signal(signal.SIGTERM)
        _broken_off(pair, relay, live, waiting, 3)
        assert not stuck.answer().clean


@TIMED
def test_second_signal_ends_the_drain(pair: Pair) -> None:
    relay = pair.make_relay(timeouts="drain = 3600")
    with pair.agent(relay) as agent:
        live, waiting = _begin(pair, agent)
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining: 2 requests")
        relay.send_signal(signal.SIGTERM)
        _broken_off(pair, relay, live, waiting, 2)


@over("1-1", "2-1", without=("2-1-clear",))
def test_idle_relay_ends_at_once(pair: Pair) -> None:
    """Its clients are idle, and do not look at their sockets, as blocking ones with a pool do not."""
    relay = pair.make_relay(timeouts="drain = 3600")
    with contextlib.ExitStack() as stack:
        idle, silent = (stack.enter_context(pair.agent(relay)) for _ in range(2))
        assert idle.ask("POST", "/echo", b"x").answer().status == 200
        if isinstance(silent, Agent1):
            silent.connect()
        relay.send_signal(signal.SIGTERM)
        assert _exit_code(relay) == 0
        assert idle.closed()
        assert silent.closed()
