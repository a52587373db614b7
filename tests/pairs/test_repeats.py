"""What is sent again, silently and once more: only what the provider has not taken, and only while its body is here."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest

from tests.pairs.calls import Outcome
from tests.pairs.pair import MOST, UPSTREAM_2, Pair
from tests.programs import Provider, Relay, chat, running
from tests.robustness.peers import CHAT, refused, unused_port

_KEYS = (f"key-{number}" for number in itertools.count())


@pytest.fixture
def fresh(pair: Pair) -> Relay:
    """A relay that has no connection to the provider: what there was of them, it has closed as stale or as new."""
    relay = pair.relay_with(limits="replay_body = 65536")
    with pair.agent(relay) as agent:
        assert agent.post(CHAT.path, chat(), "lie=close").answer().status == 502
    pair.counts.reset()
    return relay


def _code(answer: Outcome) -> str:
    code: str = json.loads(answer.body)["error"]["code"]
    return code


def _attempts(pair: Pair, relay: Relay, name: str) -> int:
    attempts: int = pair.line(relay, name)["attempts"]
    return attempts


# Connections that were closed while nobody used them


@MOST
def test_stale_connection_is_replaced_once_and_silently(pair: Pair, fresh: Relay) -> None:
    with pair.agent(fresh) as agent:
        assert agent.post(CHAT.path, chat(), "lie=stale; events=2; interval=0").answer().clean
        document = chat(messages=[{"role": "user", "content": "the whole body"}])
        answer = agent.post(CHAT.path, document, "events=2; interval=0", {"X-Request-Id": "again"}).answer()
        assert (answer.status, answer.clean) == (200, True)
        assert answer.body.endswith(CHAT.terminal)
        assert _attempts(pair, fresh, "again") == 2
    # One generation for each of the two, and in between the request that met a closed connection.
    stats = pair.stats()
    assert (stats["opened"], stats["finished"], stats["broken"]) == (2, 2, 1)
    _, lost, repeated = pair.counts.requests()
    assert lost["body_sha256"] == repeated["body_sha256"]
    assert lost["headers"] == repeated["headers"]


@MOST
def test_idle_connection_that_the_provider_closed_is_never_noticed(pair: Pair) -> None:
    files = pair.certificate
    arguments = ("--tls-cert", str(files[0]), "--tls-key", str(files[1])) if pair.secure else ()
    with running(Provider(*arguments)) as provider:
        url = f"https://localhost:{provider.port}" if pair.secure else provider.url
        relay = pair.make_relay(url=url)
        with pair.agent(relay) as agent:
            for number in range(1, 6):
                assert agent.post(CHAT.path, chat(), "lie=close-idle; events=2; interval=0").answer().clean
                provider.wait(connections_open=0)
                assert provider.stats()["requests"] == number
        assert relay.stop() == 0


@MOST
def test_two_stale_connections_in_a_row_are_not_repeated_twice(pair: Pair, fresh: Relay) -> None:
    with pair.agent(fresh) as agent:
        assert agent.post(CHAT.path, chat(), "lie=stale; events=2; interval=0").answer().clean
        refused(agent.post(CHAT.path, chat(), "lie=close").answer(), 502)
    assert pair.stats()["requests"] == 3


@MOST
def test_connection_that_broke_inside_its_answer_is_not_replaced(pair: Pair, fresh: Relay) -> None:
    with pair.agent(fresh) as agent:
        assert agent.post(CHAT.path, chat(), "lie=half-answer-stale; events=2; interval=0").answer().clean
        answer = agent.post(CHAT.path, chat()).answer()
        refused(answer, 502)
        assert "x-should-retry" not in answer.headers
    stats = pair.stats()
    assert (stats["opened"], stats["requests"]) == (1, 2)


@MOST
@pytest.mark.parametrize("lie", ["close", "reset"])
def test_new_connection_that_closes_without_an_answer_is_not_replaced(pair: Pair, fresh: Relay, lie: str) -> None:
    """The provider may have taken the request, and may be generating."""
    with pair.agent(fresh) as agent:
        answer = agent.post(CHAT.path, chat(), f"lie={lie}").answer()
        refused(answer, 502)
        assert "x-should-retry" not in answer.headers
    assert pair.stats()["requests"] == 1


@MOST
def test_nobody_there_is_502_and_may_be_tried_again(pair: Pair) -> None:
    scheme = "https" if pair.secure else "http"
    relay = pair.make_relay(url=f"{scheme}://127.0.0.1:{unused_port()}")
    with pair.agent(relay) as agent:
        for stream in (True, False):
            answer = agent.post(CHAT.path, chat(stream=stream)).answer()
            refused(answer, 502)
            assert _code(answer) == "upstream_unreachable"
            assert answer.headers["x-should-retry"] == "true"
    relay.stop()


# What an HTTP/2 provider says it has not taken. Over HTTP/1.1 it cannot say so.


@UPSTREAM_2
@pytest.mark.parametrize(("times", "status"), [(1, 200), (3, 200), (4, 503)])
def test_refused_stream_is_asked_again(pair: Pair, fresh: Relay, times: int, status: int) -> None:
    key = next(_KEYS)
    with pair.agent(fresh) as agent:
        simulate = f"lie=refuse; times={times}; key={key}; events=2; interval=0"
        answer = agent.post(CHAT.path, chat(), simulate, {"X-Request-Id": key}).answer()
        if status == 200:
            assert (answer.status, answer.clean) == (200, True)
            assert answer.body.endswith(CHAT.terminal)
        else:
            refused(answer, 503)
            assert _code(answer) == "upstream_refused"
            assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
        assert _attempts(pair, fresh, key) == min(times + 1, 4)
        assert agent.post(CHAT.path, chat(), "events=2; interval=0").answer().clean
    # It refuses by the head alone; whose body it has taken, it has taken whole.
    assert len({request["body_sha256"] for request in pair.counts.requests() if request["body_length"]}) == 1
    assert pair.stats()["refused"] == min(times, 4)


@UPSTREAM_2
@pytest.mark.parametrize("size", [40_000, 300_000])
def test_refused_body_is_repeated_entire_or_not_at_all(pair: Pair, fresh: Relay, size: int) -> None:
    """What no longer is here cannot be sent again; how much of a long one had been by then is a matter of time."""
    document = json.dumps(chat(filling="y" * size)).encode()
    with pair.agent(fresh) as agent:
        for more in (True, False):
            simulate = {"Simulate": f"lie=refuse; key={next(_KEYS)}; events=2; interval=0"}
            call = agent.ask("POST", CHAT.path, None if more else document, simulate, more=more)
            if more:
                call.send(document)
                call.end()
            answer = call.answer()
            assert answer.status == 200 or size > 65_536
            if answer.status != 200:
                refused(answer, 503)
                assert _code(answer) == "upstream_refused"
    stats = pair.stats()
    whole = [request["body_length"] for request in pair.counts.requests() if request["body_length"]]
    assert whole == [len(document)] * stats["finished"]


@UPSTREAM_2
def test_requests_above_the_last_of_a_goaway_are_asked_again(pair: Pair) -> None:
    """Those below it end on the old connection, those above it begin on a new one; nobody notices."""
    relay = pair.make_relay()
    with pair.agent(relay) as agent:
        first = agent.post(CHAT.path, chat(), "lie=goaway; at=10; events=30; interval=20ms")
        first.wait_for(b"\n\n")
        above = [agent.post(CHAT.path, chat(), f"seed={number}; delay=300ms; interval=0") for number in range(5)]
        pair.counts.wait(requests=6)
        for call in (*above, first):
            answer = call.answer()
            assert (answer.status, answer.clean) == (200, True)
            assert answer.body.endswith(CHAT.terminal)
    stats = pair.stats()
    assert (stats["finished"], stats["ignored"], stats["requests"]) == (6, 5, 11)
    assert stats["http2_connections"]["opened"] == 2
    assert stats["http2_errors"]["count"] == 0


@UPSTREAM_2
def test_graceful_goaway_is_never_noticed(pair: Pair) -> None:
    relay = pair.make_relay()
    with pair.agent(relay) as agent, contextlib.ExitStack() as stack:
        live = agent.post(CHAT.path, chat(), "lie=graceful; at=3; events=40; interval=10ms")
        live.wait_for(b"\n\n")
        others = [stack.enter_context(pair.agent(relay)) for _ in range(3)]
        for number in range(30):
            answer = others[number % 3].post(CHAT.path, chat(), "events=3; interval=5ms").answer()
            assert (answer.status, answer.clean) == (200, True)
        assert live.answer().clean
    stats = pair.stats()
    assert stats["finished"] == 31
    assert stats["http2_connections"]["opened"] == 2


@UPSTREAM_2
def test_provider_that_takes_few_streams_gets_no_more(pair: Pair) -> None:
    """As many as a connection carries, then another one: nobody is refused."""
    relay = pair.make_relay()
    with pair.agent(relay) as agent:
        calls = [agent.post(CHAT.path, chat(), "delay=50ms; events=3; interval=5ms") for _ in range(90)]
        assert all(call.answer().clean for call in calls)
        calls = [agent.post(CHAT.path, chat(), "delay=50ms; events=3; interval=5ms") for _ in range(90)]
        assert all(call.answer().clean for call in calls)
    stats = pair.stats()
    assert (stats["finished"], stats["refused"], stats["http2_errors"]["count"]) == (180, 0, 0)
    assert stats["http2_streams"]["most"] <= 100
