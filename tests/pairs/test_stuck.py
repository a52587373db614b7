"""Readers that do not read: each stream waits by itself, its provider is paused, and its neighbours do not notice."""

from __future__ import annotations

import hashlib

import pytest

from tests.pairs.agent2 import Call2
from tests.pairs.calls import Call
from tests.pairs.pair import CLIENT_2, MOST, Pair
from tests.programs import Relay, chat
from tests.robustness.peers import CHAT, until

_MIB = 1024 * 1024
# Less makes the kernel send by a timer: a segment of the loopback has 64 KiB.
_SMALL = 128 * 1024


def _events(pair: Pair) -> int:
    """32 KiB each: 25 MB where the kernel's buffers on the way take over ten at times, of HTTP/1.1; else 5 MB."""
    return 800 if pair.upstream == "1" else 160


def _long(pair: Pair) -> str:
    return f"seed=9; events={_events(pair)}; interval=0; size=32KiB; sndbuf=64KiB"


class _Still:
    """Whether the provider has said nothing more for a while."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._bytes = -1
        self._looks = 0

    def __call__(self) -> bool:
        said: int = self._pair.stats()["bytes"]
        self._looks = self._looks + 1 if said == self._bytes else 0
        self._bytes = said
        return self._looks >= 5 and said > 0


def _whole(call: Call, own: bytes) -> None:
    answer = call.answer()
    assert answer.clean
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(own).digest()


def _own(pair: Pair) -> bytes:
    """What the provider says directly."""
    with pair.direct() as direct:
        body = direct.post(CHAT.path, chat(), _long(pair)).answer().body
    pair.counts.reset()
    return body


def _grown(relay: Relay, before: int) -> int:
    return relay.resident() - before


def _bound(pair: Pair, streams: int) -> float:
    """Of memory. A connection over TLS has buffers of its own, on both sides: half a megabyte for a stream of 1-1."""
    return (streams + 1) * _MIB * (2 if pair.secure else 1)


def test_stuck_reader_pauses_its_provider_and_loses_nothing(pair: Pair) -> None:
    own = _own(pair)
    relay = pair.relay
    with pair.agent(relay, receive_buffer=_SMALL) as agent:
        assert agent.post(CHAT.path, chat(), "events=2; interval=0").answer().clean
        before = relay.resident()
        stuck = agent.post(CHAT.path, chat(), _long(pair))
        stuck.head()
        until(_Still(pair), "a provider that waits")
        stats = pair.stats()
        assert (stats["finished"], stats["aborted"]) == (1, 0)
        if pair.client == pair.upstream == "2":
            # Two windows, the ring and what is under way.
            assert stats["bytes"] < _MIB
        assert _grown(relay, before) < _bound(pair, 1)
        _whole(stuck, own)
        pair.counts.wait(finished=2)


def test_healthy_neighbour_of_stuck_streams_gets_everything(pair: Pair) -> None:
    """On the same connection where the version allows it: the others' bytes wait, each in a ring of its own."""
    relay = pair.relay
    number = 20
    with pair.agent(relay, receive_buffer=_SMALL) as agent:
        assert agent.post(CHAT.path, chat(), "events=2; interval=0").answer().clean
        before = relay.resident()
        stuck = [agent.post(CHAT.path, chat(), _long(pair)) for _ in range(number)]
        for call in stuck:
            call.head()
        healthy = agent.post(CHAT.path, chat(), "seed=4; events=100; interval=2ms")
        answer = healthy.answer()
        assert answer.clean
        assert answer.body.endswith(CHAT.terminal)
        assert answer.body.count(b'"content":"') >= 100
        until(_Still(pair), "providers that wait")
        stats = pair.stats()
        assert (stats["finished"], stats["aborted"]) == (2, 0), "the others were not stuck any more"
        assert _grown(relay, before) < _bound(pair, number)
        # One of them reads again, and the others stay as they are.
        answer = stuck[7].answer()
        assert answer.clean
        assert answer.body.count(b'"content":"') >= _events(pair)
        assert pair.stats()["aborted"] == 0
    pair.counts.wait(aborted=number - 1)


@MOST
def test_stuck_connection_pauses_all_its_streams(pair: Pair) -> None:
    """Not a byte of its socket is taken, of no stream; other connections are served."""
    own = _own(pair)
    relay = pair.relay
    with pair.agent(relay, receive_buffer=_SMALL) as stuck, pair.agent(relay) as other:
        assert other.post(CHAT.path, chat(), "events=20; interval=1ms").answer().clean
        before = relay.resident()
        calls = [stuck.post(CHAT.path, chat(), _long(pair)) for _ in range(3)]
        pair.counts.wait(opened=4)
        for _ in range(3):
            assert other.post(CHAT.path, chat(), "events=20; interval=1ms").answer().clean
        until(_Still(pair), "providers that wait")
        assert pair.stats()["finished"] == 4
        assert _grown(relay, before) < _bound(pair, 3)
        for call in calls:
            _whole(call, own)


@MOST
def test_stuck_reader_is_gone_after_the_limit(pair: Pair) -> None:
    """Its stream is, where the version allows it; neither its connection nor a slow neighbour."""
    relay = pair.relay_with(timeouts="write = 0.5")
    kinds = ("events", "bytes")
    with pair.agent(relay, receive_buffer=_SMALL) as agent:
        slow = agent.post(CHAT.path, chat(), "seed=5; events=30; interval=20ms")
        stuck = [
            agent.post(CHAT.path, chat(), _long(pair), {"X-Request-Id": "stuck-events"}),
            agent.ask(target="/raw/bytes", headers={"Simulate": _long(pair), "X-Request-Id": "stuck-bytes"}),
        ]
        for call in stuck:
            call.head()
        assert slow.answer().clean
        for kind in kinds:
            line = pair.line(relay, f"stuck-{kind}")
            assert (line["reason"], line["status"]) == ("client_stalled", 200)
        for call in stuck:
            answer = call.answer()
            assert not answer.clean
            if isinstance(call, Call2):
                assert answer.broken == "CANCEL"
                assert not call.client.goaways
        assert agent.ask(target="/healthz").answer().status == 200
    pair.counts.wait(aborted=1)


@CLIENT_2
@pytest.mark.parametrize("size", [100, 20_000])
def test_window_that_opens_by_crumbs_is_a_slow_reader(pair: Pair, size: int) -> None:
    """HTTP/2: small windows make a stream slow, not wrong."""
    simulate = "seed=6; events=60; interval=0; size=1000"
    with pair.direct() as direct:
        own = direct.post(CHAT.path, chat(), simulate).answer().body
    with pair.agent2(pair.relay, window=size) as agent:
        calls = [agent.post(CHAT.path, chat(), simulate) for _ in range(2)]
        for call in calls:
            _whole(call, own)
