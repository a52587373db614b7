"""What is refused: no route, heads that are too large or too slow, more at once than may be, other origins."""

from __future__ import annotations

import contextlib
import json

import pytest
from h2.settings import SettingCodes

from tests.pairs.agent1 import Agent1
from tests.pairs.agent2 import Call2, Client2
from tests.pairs.calls import Agent
from tests.pairs.pair import CLIENT_2, MOST, TIMED, Pair
from tests.programs import chat
from tests.robustness.peers import CHAT, DIALECTS, Dialect, refused, until

_FEW = "max_streams = 3\nmax_connections = 2"
_LINE, _HEAD, _FIELDS = 8 * 1024, 32 * 1024, 100


@MOST
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_path_without_a_route_is_404_in_its_dialect(pair: Pair, dialect: Dialect) -> None:
    relay = pair.relay_with(path="/elsewhere/*")
    with pair.agent(relay) as agent:
        for stream in (True, False):
            answer = agent.post(dialect.path, dialect.asked(stream=stream)).answer()
            refused(answer, 404, dialect)
            assert answer.broken == ""
        assert agent.ask(target="/healthz").answer().status == 200
    assert pair.stats()["requests"] == 0


def _heads(pair: Pair) -> list[tuple[str, dict[str, str], list[tuple[str, str]], int]]:
    """Targets and fields just past a limit, and the status for each; HTTP/2 has a limit of its own on whole heads."""
    long: tuple[str, dict[str, str], list[tuple[str, str]], int] = ("/" + "x" * _LINE, {}, [], 414)
    many: list[tuple[str, str]] = [("X-Field", "y")] * (_FIELDS + 1)
    return [long, ("/v1/models", {}, many, 431)]


@MOST
def test_head_past_a_limit_is_refused(pair: Pair) -> None:
    for target, _, fields, status in _heads(pair):
        with pair.agent() as agent:
            answer = agent.ask(target=target, headers=fields).answer()
            assert (answer.status, answer.clean) == (status, True)
            assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
            if pair.client == "2":
                # The mistake is one request's: its connection serves the next.
                assert agent.ask(target="/healthz").answer().status == 200
    assert pair.stats()["requests"] == 0


@MOST
def test_head_past_all_limits_is_never_read(pair: Pair) -> None:
    """HTTP/1.1 says 431; over HTTP/2 it may cost the connection, whose compression nobody can follow any more."""
    with pair.agent() as agent:
        call = agent.ask(target="/v1/models", headers={"X-Huge": "h" * 2 * _HEAD})
        answer = call.answer()
        assert answer.status == 431 or not answer.clean
        assert answer.status in (0, 431)
    assert pair.stats()["requests"] == 0
    with pair.agent() as agent:
        assert agent.post(CHAT.path, chat(), "events=1; interval=0").answer().clean


@MOST
def test_head_at_its_limits_is_relayed(pair: Pair, agent: Agent) -> None:
    line = len("GET  HTTP/1.1")
    assert agent.ask(target="/" + "x" * (_LINE - line - 1)).answer().status == 404  # the provider's own
    own = 1  # Host
    fields = [("X-Field", "y")] * (_FIELDS - own)
    assert agent.ask(target="/v1/models", headers=fields).answer().status == 200
    assert agent.ask(target="/v1/models", headers={"X-Large": "h" * (_HEAD - 500)}).answer().status == 200
    assert pair.stats()["requests"] == 3


@TIMED
def test_head_that_never_ends_has_a_limit(pair: Pair) -> None:
    """HTTP/1.1 has a status for it, HTTP/2 ends the connection; a live stream of another client's is not concerned."""
    relay = pair.hasty
    with pair.agent(relay) as other, pair.agent(relay) as agent:
        live = other.post(CHAT.path, chat(), "events=30; interval=20ms")
        live.wait_for(b"\n\n")
        if isinstance(agent, Client2):
            agent.ping()
            # HEADERS with half of its block, and no CONTINUATION.
            agent.put(b"\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82")
            assert agent.closed()
            assert [code.name for _, code in agent.goaways] == ["ENHANCE_YOUR_CALM"]
        else:
            assert isinstance(agent, Agent1)
            client = agent.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Fill: ")
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert client.closed()
        assert live.answer().clean
    assert pair.stats()["requests"] == 1


@TIMED
def test_silent_connection_is_closed(pair: Pair) -> None:
    """Before the first request, and when the last is long ago."""
    relay = pair.hasty
    with pair.agent(relay) as silent, pair.agent(relay) as idle:
        if isinstance(silent, Agent1):
            silent.connect()
        assert idle.ask(target="/healthz").answer().status == 200
        assert idle.closed()
        assert silent.closed()
        if isinstance(idle, Client2):
            # It was told which of its requests were served: none is lost.
            assert [code.name for _, code in idle.goaways] == ["NO_ERROR"]
            assert idle.goaways[0][0] == 1


@CLIENT_2
def test_more_streams_than_may_be_are_refused(pair: Pair) -> None:
    """HTTP/2: by REFUSED_STREAM, which says that they may be asked again; as many as may be live on."""
    relay = pair.relay_with(server=_FEW)
    with pair.agent2(relay) as agent:
        agent.ping()
        # A client that does not care for what it was told, or has not been told yet.
        agent.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        agent.h2.remote_settings.acknowledge()
        live = [agent.post(CHAT.path, chat(), "events=1000; interval=20ms") for _ in range(3)]
        pair.counts.wait(requests=3)
        for _ in range(2):
            answer = agent.post(CHAT.path, chat()).answer()
            assert (answer.status, answer.broken) == (0, "REFUSED_STREAM")
        live[0].leave()
        pair.counts.wait(aborted=1)
        assert agent.post(CHAT.path, chat(), "events=2; interval=0").answer().clean
        for call in live[1:]:
            call.wait_for(b"\n\n")
            assert isinstance(call, Call2)
            assert not call.reset_by
        assert not agent.goaways
    assert pair.stats()["requests"] == 4


@MOST
def test_more_connections_than_may_be_are_turned_away(pair: Pair) -> None:
    relay = pair.relay_with(server=_FEW)
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(pair.agent(relay)) for _ in range(2)]
        for agent in served:
            assert agent.ask(target="/healthz").answer().status == 200
        with contextlib.suppress(OSError), pair.agent(relay) as third:
            assert third.ask(target="/healthz").answer().status == 0
        served[0].close()

        def has_place() -> bool:
            with contextlib.suppress(OSError), pair.agent(relay) as agent:
                return agent.ask(target="/healthz").answer().status == 200
            return False

        until(has_place, "a place for another client")


# Waiting for the provider

_ONE = "max_connections = 1\nmax_streams = 1"


@MOST
def test_request_waits_for_the_one_place(pair: Pair) -> None:
    relay = pair.relay_with(upstream_extra=_ONE)
    with pair.agent(relay) as agent:
        first = agent.post(CHAT.path, chat(), "events=20; interval=10ms")
        first.wait_for(b"\n\n")
        others = [agent.ask("POST", "/echo", str(number).encode()) for number in range(5)]
        assert pair.stats()["requests"] == 1
        assert first.answer().clean
        for number, call in enumerate(others):
            assert json.loads(call.answer().body)["body"] == str(number)
    stats = pair.stats()
    assert stats["requests"] == 6
    assert stats["connections"] <= 1


@TIMED
def test_waiting_for_too_long_is_503_and_too_many_are_429(pair: Pair) -> None:
    relay = pair.relay_with(upstream_extra=_ONE, timeouts="queue = 0.3", limits="waiting = 2")
    with pair.agent(relay) as agent:
        first = agent.post(CHAT.path, chat(), "events=100000; interval=50ms")
        first.wait_for(b"\n\n")
        waiting = [agent.post(CHAT.path, chat()) for _ in range(3)]
        answers = sorted((call.answer() for call in waiting), key=lambda answer: answer.status)
        for answer, status, code in zip(
            answers, (429, 503, 503), ("queue_full", "queue_timeout", "queue_timeout"), strict=True
        ):
            refused(answer, status)
            assert json.loads(answer.body)["error"]["code"] == code
            assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
        first.leave()
        assert agent.post(CHAT.path, chat(), "events=2; interval=0").answer().clean


# Whose page may spend a key


@MOST
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"Origin": "http://relay.test"}, 200),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_no_foreign_page_spends_the_key(pair: Pair, fields: dict[str, str], status: int) -> None:
    relay = pair.relay_with(
        server='hosts = ["relay.test"]',
        upstream_extra='api_key_env = "RELAY_TEST_KEY"',
        env={"RELAY_TEST_KEY": "sk-test"},
    )
    if pair.secure and "Origin" in fields:
        fields = {"Origin": fields["Origin"].replace("http://", "https://")}
    with pair.agent(relay) as agent:
        assert agent.ask(target="/v1/models", headers=fields).answer().status == status
    assert pair.stats()["requests"] == (1 if status == 200 else 0)
