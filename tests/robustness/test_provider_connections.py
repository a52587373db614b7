"""Connections to a provider: none to be had, too few of them, and what is sent again when one breaks (C9)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.conftest import RelayMaker
from tests.programs import Answer, Client, Provider, Relay, chat, config_text, running
from tests.robustness.peers import CHAT, Scripted, blackhole, serves, until, unused_port

_KIB = 1024


def _ask(client: Client, simulate: str = "", **extra: object) -> Answer:
    client.post(CHAT.path, chat(**extra), f"events=2; interval=0; {simulate}")
    return client.answer()


def _code(answer: Answer) -> str:
    code: str = json.loads(answer.body)["error"]["code"]
    return code


# Nobody there


def test_refused_connection_is_502_and_may_be_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(config_text(f"http://127.0.0.1:{unused_port()}"))
    with running(Relay(file)) as relay, Client(relay.address) as client:
        for _ in range(2):  # on one client connection: it is not the client's fault
            answer = _ask(client)
            assert answer.status == 502
            assert _code(answer) == "upstream_unreachable"
            assert answer.headers["x-should-retry"] == "true"
        assert relay.access_line()["reason"] == "upstream_unreachable"


def test_connection_that_is_never_made_is_504(make_relay: RelayMaker) -> None:
    with blackhole() as url:
        relay = make_relay(upstream=url, timeouts="connect = 1")
        before = relay.descriptors()
        with Client(relay.address) as client:
            answer = _ask(client)
            assert answer.status == 504
            assert _code(answer) == "upstream_connect_timeout"
            assert answer.headers["x-should-retry"] == "true"
            until(lambda: relay.descriptors() == before + 1, "the end of the attempt")


def test_connect_timeout_gives_its_place_back(make_relay: RelayMaker) -> None:
    with blackhole() as url:
        relay = make_relay(upstream=url, upstream_extra="max_connections = 1", timeouts="connect = 1")
        with Client(relay.address) as first, Client(relay.address) as second:
            first.post(CHAT.path, chat())
            second.post(CHAT.path, chat())
            # The second one waits for the first one's place, takes it, and meets the same fate.
            assert first.answer().status == 504
            assert second.answer().status == 504


# Too few


def test_request_waits_for_the_one_connection(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(upstream_extra="max_connections = 1")
    with Client(relay.address) as first, Client(relay.address) as second:
        first.post(CHAT.path, chat(), "events=20; interval=20ms")
        first.read_until(b"data: ")
        second.post(CHAT.path, chat(), "events=2; interval=0")
        counted.wait(events=10)
        assert counted.stats()["requests"] == 1
        assert first.read_until(b"\r\n0\r\n\r\n")
        assert second.answer().clean
    stats = counted.stats()
    assert (stats["requests"], stats["connections"]) == (2, 1)


@pytest.mark.parametrize("simulate", ["lie=cut; at=10", "lie=reset; delay=300ms", "lie=close-idle", "framing=close"])
def test_who_waits_gets_a_new_connection_when_the_one_ends(
    make_relay: RelayMaker, counted: Provider, simulate: str
) -> None:
    relay = make_relay(upstream_extra="max_connections = 1")
    with contextlib.ExitStack() as stack:
        first, *others = [stack.enter_context(Client(relay.address)) for _ in range(5)]
        first.post(CHAT.path, chat(), f"events=20; interval=10ms; {simulate}")
        counted.wait(requests=1)
        for client in others:
            client.post(CHAT.path, chat(), "events=2; interval=0")
        for client in others:
            assert client.answer().clean
    assert counted.stats()["requests"] == 5


def test_waiting_for_too_long_is_503(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(upstream_extra="max_connections = 1", timeouts="queue = 1")
    with Client(relay.address) as first, Client(relay.address) as second:
        first.post(CHAT.path, chat(), "events=100000; interval=50ms")
        first.read_until(b"data: ")
        answer = _ask(second)
        assert answer.status == 503
        assert _code(answer) == "queue_timeout"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-should-retry"] == "true"
        first.close()
        serves(relay.address, second)
    assert counted.stats()["requests"] == 2


def test_more_waiting_than_may_is_429(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(upstream_extra="max_connections = 1", limits="waiting = 2")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Client(relay.address))
        first.post(CHAT.path, chat(), "events=100000; interval=50ms")
        first.read_until(b"data: ")
        waiting = [stack.enter_context(Client(relay.address)) for _ in range(3)]
        for client in waiting:
            client.post(CHAT.path, chat(), "events=2; interval=0")
        # Whichever of the three came last is refused at once, and its connection may ask again.
        line = relay.access_line(status=429)
        assert line["error"] == "queue_full"
        first.close()
        answers = sorted((client.answer() for client in waiting), key=lambda answer: answer.status)
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["retry-after"] == "1"
        assert _code(answers[-1]) == "queue_full"


# C9: what is sent again


def test_stale_connection_is_replaced_once_and_silently(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay()
    with Client(relay.address) as client:
        assert _ask(client, "lie=stale").clean
        relay.access_line(status=200)
        answer = _ask(client, messages=[{"role": "user", "content": "the whole body"}])
        assert answer.status == 200
        assert answer.body.endswith(CHAT.terminal)
        assert relay.access_line(status=200)["attempts"] == 2
    # One generation for each of the two, and in between the request that met a closed connection.
    stats = counted.stats()
    assert (stats["opened"], stats["finished"], stats["broken"]) == (2, 2, 1)
    _, lost, repeated = counted.requests()
    assert lost["body_sha256"] == repeated["body_sha256"]
    assert lost["headers"] == repeated["headers"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_is_repeated_entire(make_relay: RelayMaker, counted: Provider, framing: str) -> None:
    relay = make_relay()
    body = json.dumps(chat(filling="y" * 200 * _KIB)).encode()
    with Client(relay.address) as client:
        assert _ask(client, "lie=stale").clean
        if framing == "length":
            client.request("POST", CHAT.path, body, {"Simulate": "events=2; interval=0"})
        else:
            client.send(
                b"POST %b HTTP/1.1\r\nHost: a\r\nSimulate: events=2; interval=0\r\n" % CHAT.path.encode()
                + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            )
        assert client.answer().clean
    assert counted.requests()[-1]["body_length"] == len(body)


def test_body_that_was_not_kept_is_not_repeated(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(limits="replay_body = 1024")
    with Client(relay.address) as client:
        assert _ask(client, "lie=stale").clean
        answer = _ask(client, filling="y" * 4096)
        assert answer.status == 502
        assert _code(answer) == "upstream_closed"
        serves(relay.address, client)
    assert counted.stats()["finished"] == 2


def test_two_stale_connections_in_a_row_are_not_repeated_twice(make_relay: RelayMaker, counted: Provider) -> None:
    """The second attempt is made on a connection that has served nobody: what closes there is an answer."""
    relay = make_relay()
    with Client(relay.address) as client:
        assert _ask(client, "lie=stale").clean
        answer = _ask(client, "lie=close")
        assert answer.status == 502
    assert counted.stats()["requests"] == 3


def test_connection_that_broke_inside_its_answer_is_not_replaced(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay()
    with Client(relay.address) as client:
        assert _ask(client, "lie=half-answer-stale").clean
        answer = _ask(client)
        assert answer.status == 502
        assert "x-should-retry" not in answer.headers
    assert counted.stats()["opened"] == 1
    assert counted.stats()["requests"] == 2


@pytest.mark.parametrize("lie", ["close", "reset"])
def test_new_connection_that_closes_without_an_answer_is_not_replaced(
    make_relay: RelayMaker, counted: Provider, lie: str
) -> None:
    """The provider may have taken the request, and may be generating: only a reused connection tells otherwise."""
    relay = make_relay()
    with Client(relay.address) as client:
        answer = _ask(client, f"lie={lie}")
        assert answer.status == 502
        assert _code(answer) == "upstream_closed"
        assert "x-should-retry" not in answer.headers
    assert counted.stats()["requests"] == 1


def test_hint_before_the_break_forbids_a_repeat(make_relay: RelayMaker) -> None:
    """A 103 says that the request was taken."""
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with Scripted(good, b"HTTP/1.1 103 Early Hints\r\n\r\n") as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            assert _ask(client).body == b"{}"
            client.post(CHAT.path, chat())
            until(lambda: len(provider.heads) == 2, "the second request")
            provider.hang_up()
            assert client.answer().status == 502
        assert len(provider.heads) == 2


def test_provider_that_closes_idle_connections_is_never_noticed(make_relay: RelayMaker) -> None:
    with running(Provider()) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            for number in range(1, 6):
                assert _ask(client, "lie=close-idle").clean
                provider.wait(connections_open=0)
                assert provider.stats()["requests"] == number
