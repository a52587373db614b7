"""A client that leaves, by cancelling or by ending its connection: its generation is cancelled, nobody else's is, and
nothing is left."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.pairs.agent2 import Call2
from tests.pairs.calls import Agent, Call
from tests.pairs.pair import MOST, Pair
from tests.programs import Relay, chat
from tests.robustness.peers import CHAT, descriptors_return_to

_NAMES = (f"leaves-{number}" for number in itertools.count())
Leave = Callable[[Agent, Call], None]


def _cancel(agent: Agent, call: Call) -> None:
    call.leave()


def _close(agent: Agent, call: Call) -> None:
    agent.close()


def _reset(agent: Agent, call: Call) -> None:
    agent.reset()


_WAYS = pytest.mark.parametrize("leave", [_cancel, _close, _reset], ids=["cancel", "fin", "rst"])
_STATES = [
    ("delay=60", True, 0, 499),
    ("delay=60", False, 0, 499),
    ("first=60", True, 0, 499),
    ("events=10000; interval=20ms", True, 3, 200),
    ("events=3; lie=mid-stall; interval=0", True, 3, 200),
    ("lie=head-stall", False, 0, 499),
    ("encoding=gzip; events=10000; interval=20ms", True, 3, 200),
]


@_WAYS
def test_provider_is_cancelled_when_the_client_leaves(pair: Pair, leave: Leave) -> None:
    opened = 0
    for number, (simulate, stream, events, status) in enumerate(_STATES, 1):
        name = next(_NAMES)
        with pair.agent() as agent:
            call = agent.post(CHAT.path, CHAT.asked(stream=stream), simulate, {"X-Request-Id": name})
            opened += "delay" not in simulate
            pair.counts.wait(requests=number, opened=opened)
            if events:
                call.wait_for(b"data: ")
            leave(agent, call)
            pair.counts.wait(aborted=number)
            line = pair.line(pair.relay, name)
            assert (line["reason"], line["status"]) == ("client_left", status), simulate
            if pair.upstream == "2":
                assert pair.stats()["resets_received"]["CANCEL"] == number
    stats = pair.stats()
    assert (stats["finished"], stats["http2_errors"]["count"]) == (0, 0)


def test_cancel_is_one_streams_alone(pair: Pair) -> None:
    """Both connections live on where they are of HTTP/2, with all the other streams on them."""
    with pair.agent() as agent:
        others = [agent.post(CHAT.path, chat(), "events=60; interval=10ms") for _ in range(3)]
        for call in others:
            call.wait_for(b"\n\n")
        before = pair.stats()
        for number in range(20):
            call = agent.post(CHAT.path, chat(), "events=10000; interval=0; size=1000")
            call.wait_for(b"\n\n")
            call.leave()
            pair.counts.wait(aborted=number + 1)
        for call in others:
            answer = call.answer()
            assert answer.clean
            assert answer.body.endswith(CHAT.terminal)
            if isinstance(call, Call2):
                assert not call.client.goaways
    stats = pair.stats()
    assert (stats["finished"], stats["aborted"]) == (3, 20)
    if pair.upstream == "2":
        assert stats["http2_connections"] == before["http2_connections"]
        assert stats["resets_received"]["CANCEL"] == 20
        assert stats["http2_streams"]["open"] == 0


@MOST
def test_end_of_a_connection_ends_all_that_was_on_it(pair: Pair) -> None:
    agent, other = pair.agent(), pair.agent()
    with other:
        neighbour = other.post(CHAT.path, chat(), "events=40; interval=10ms")
        neighbour.wait_for(b"\n\n")
        for simulate in ("delay=60", "first=60", "events=10000; interval=10ms") * 5:
            agent.post(CHAT.path, chat(), simulate)
        pair.counts.wait(requests=16)
        agent.close()
        pair.counts.wait(aborted=15)
        assert neighbour.answer().clean
    stats = pair.stats()
    assert (stats["finished"], stats["http2_errors"]["count"]) == (1, 0)


@MOST
def test_client_leaves_in_the_queue(pair: Pair) -> None:
    """Its place in it goes with it, whatever the provider's version makes of a place."""
    extra = "max_connections = 1" + ("\nmax_streams = 1" if pair.upstream == "2" else "")
    relay = pair.relay_with(upstream_extra=extra)
    name = next(_NAMES)
    with pair.agent(relay) as agent:
        first = agent.post(CHAT.path, chat(), "events=100000; interval=50ms")
        first.wait_for(b"\n\n")
        second = agent.post(CHAT.path, chat(), "", {"X-Request-Id": name})
        third = agent.ask("POST", "/echo", b"third")
        second.leave()
        line = pair.line(relay, name)
        assert (line["reason"], line["status"], line["attempts"]) == ("client_left", 499, 0)
        assert pair.stats()["requests"] == 1
        first.leave()
        assert third.answer().status == 200
    assert pair.stats()["requests"] == 2


@MOST
def test_client_leaves_inside_its_body(pair: Pair) -> None:
    with pair.agent() as agent:
        for length in (1000, None):
            name = next(_NAMES)
            call = agent.ask("POST", CHAT.path, headers={"X-Request-Id": name}, more=True, length=length)
            call.send(b"{")
            call.leave()
            line = pair.line(pair.relay, name)
            assert (line["reason"], line["status"]) == ("client_left", 499)
    assert pair.stats()["finished"] == 0


@MOST
def test_nothing_is_left_of_those_that_left(pair: Pair) -> None:
    """In every state; then the relay holds as many descriptors as before, and serves."""
    relay: Relay = pair.relay_with(timeouts="upstream_idle = 0.3")
    simulates = ("delay=60", "first=60", "events=10000; interval=5ms", "lie=head-stall", "lie=mid-stall; at=1")
    before = relay.descriptors()
    for number in range(30):
        agent = pair.agent(relay)
        call = agent.post(CHAT.path, chat(), simulates[number % len(simulates)])
        pair.counts.wait(requests=number + 1)
        (_cancel, _close, _reset)[number % 3](agent, call)
        agent.close()
    pair.counts.wait(aborted=30)
    descriptors_return_to(relay, before)
    with pair.agent(relay) as agent:
        assert agent.post(CHAT.path, chat(), "events=2; interval=0").answer().clean
