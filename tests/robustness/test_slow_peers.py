"""Peers that are slow, on purpose or not: no request lasts for ever, no stuck reader costs memory (B1 – B3)."""

from __future__ import annotations

import contextlib
import json
import select
import time

import pytest

from tests.conftest import RelayMaker
from tests.programs import PATIENCE, Client, Provider, Relay, chat
from tests.robustness.peers import CHAT, descriptors_return_to, serves, until

_KIB = 1024
_MIB = 1024 * _KIB


def _drip(client: Client, pieces: list[bytes], gap: float) -> bool:
    """Send piece by piece with gaps; True when the relay has said or ended something in between."""
    for piece in pieces:
        try:
            client.send(piece)
        except OSError:
            return True
        if select.select([client.socket], [], [], gap)[0]:
            return True
    return False


# B1: heads


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX-Fill: "])
def test_head_that_never_ends_is_answered_408(make_relay: RelayMaker, counted: Provider, sent: bytes) -> None:
    relay = make_relay(timeouts="request_head = 0.5")
    with Client(relay.address) as client:
        client.send(sent)
        answer = client.answer()
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert json.loads(answer.body)["error"]["code"] == "request_timeout"
        assert client.closed()
    assert relay.access_line(status=408)["reason"] == "client_timeout"
    assert counted.stats()["connections"] == 0


def test_bytes_do_not_prolong_a_head(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="request_head = 0.5")
    with Client(relay.address) as client:
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000
        assert _drip(client, [head[at : at + 1] for at in range(len(head))], 0.1), "dripped on for 100 s"
        assert client.answer().status == 408
        assert client.closed()


def test_empty_lines_do_not_keep_a_connection_open(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="request_head = 0.5")
    with Client(relay.address) as client:
        assert _drip(client, [b"\r\n"] * 20, 0.2), "empty lines alone held a connection for 4 s with a limit of 0.5 s"


def test_silent_connection_is_closed_without_a_word(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="request_head = 0.5")
    before = relay.descriptors()
    with Client(relay.address) as client:
        assert client.closed()
    descriptors_return_to(relay, before)


def test_idle_connection_is_closed_without_a_word(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="keep_alive = 0.5")
    with Client(relay.address) as client:
        client.request("GET", "/healthz")
        assert client.answer().status == 200
        assert client.closed()


def test_empty_line_after_a_request_begins_no_new_one(make_relay: RelayMaker) -> None:
    """Old clients send one behind a body (RFC 9112, 2.2): an idle connection must not be told 408 for it."""
    relay = make_relay(timeouts="keep_alive = 0.5\nrequest_head = 0.5")
    with Client(relay.address) as client:
        client.request("POST", "/echo", b"hello")
        client.send(b"\r\n")
        assert client.answer().status == 200
        assert client.closed()


def test_second_head_on_a_connection_has_the_same_limit(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="request_head = 0.5")
    with Client(relay.address) as client:
        client.request("GET", "/healthz")
        assert client.answer().status == 200
        client.send(b"GET /healthz HTTP/1.1\r\n")
        assert client.answer().status == 408
        assert client.closed()


# B2: bodies

_POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        _POST + b"Content-Length: 100\r\n\r\n",
        _POST + b'Content-Length: 100\r\n\r\n{"model": ',
        _POST + b"Transfer-Encoding: chunked\r\n\r\n",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n64\r\n{",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: y\r\n",
    ],
)
def test_body_that_stops_is_answered_408(make_relay: RelayMaker, counted: Provider, sent: bytes) -> None:
    relay = make_relay(timeouts="request_body = 0.5")
    with Client(relay.address) as client:
        client.send(sent)
        answer = client.answer()
        assert answer.status == 408
        assert json.loads(answer.body)["error"]["type"] == "timeout_error"
        assert client.closed()
    assert relay.access_line(status=408)["reason"] == "client_timeout"
    serves(relay.address)
    assert counted.stats()["requests"] == 1, "half a request was taken for a whole one"


def test_body_announced_and_never_sent_is_answered_408(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="request_body = 0.5")
    with Client(relay.address) as client:
        client.send(_POST + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert client.read_head()[0] == 100
        assert client.answer().status == 408
        assert client.closed()


def test_slow_body_that_goes_on_is_served(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="request_body = 1\nhead = 1")
    body = json.dumps({"model": "sim-1", "messages": []}).encode()
    with Client(relay.address) as client:
        client.send(_POST + b"Content-Length: %d\r\n\r\n" % len(body))
        *pieces, last = [body[at : at + 8] for at in range(0, len(body), 8)]
        assert not _drip(client, pieces, 0.4)
        client.send(last)
        assert client.answer().status == 200


# B3: readers


def _peak_until_aborted(relay: Relay, provider: Provider, aborted: int) -> int:
    """The relay's largest resident size until the provider has lost so many readers."""
    peak = 0
    deadline = time.monotonic() + PATIENCE
    while provider.stats()["aborted"] < aborted:
        assert time.monotonic() < deadline, f"never aborted: {provider.stats()}"
        peak = max(peak, relay.resident())
        select.select([], [], [], 0.02)
    return peak


def _stick(relay: Relay, simulate: str) -> Client:
    """A reader that asks for a stream and never takes a byte of it."""
    client = Client(relay.address, receive_buffer=4096)
    client.post(CHAT.path, chat(), simulate)
    return client


def test_stuck_readers_cost_little_memory_and_are_gone_after_the_limit(
    make_relay: RelayMaker, counted: Provider
) -> None:
    """Of a stream of 100 MB each. Of several, because one alone cannot be told from what the allocator keeps."""
    relay = make_relay(timeouts="write = 2")
    descriptors = relay.descriptors()
    number = 10
    with _stick(relay, "events=1600; interval=0; size=64KiB"):  # what a relay in use has allocated anyway
        until(lambda: counted.stats()["bytes"] > _MIB, "the first stuck reader's bytes")
    counted.wait(aborted=1)
    counted.reset()
    before = relay.resident()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_stick(relay, "events=1600; interval=0; size=64KiB")) for _ in range(number)]
        counted.wait(opened=number)
        peak = _peak_until_aborted(relay, counted, number)
        assert relay.access_line(reason="client_stalled")["status"] == 200
        # Most of what is left of their 1 GB was never even asked for.
        assert counted.stats()["bytes"] < 20 * number * _MIB
        assert peak - before < number * _MIB
        # The kernel still holds what it had taken; the client finds no clean end behind it.
        assert not clients[0].answer().clean
    descriptors_return_to(relay, descriptors)


def test_stuck_reader_of_a_plain_answer_is_gone_after_the_limit(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(timeouts="write = 1")
    before = relay.descriptors()
    with Client(relay.address, receive_buffer=4096) as client:
        # More than all the sockets on the way may take.
        client.post(CHAT.path, chat(stream=False), "events=260; size=64KiB")
        assert relay.access_line(reason="client_stalled")["status"] == 200
        answer = client.answer()
        assert not answer.clean
    counted.wait(aborted=1)
    descriptors_return_to(relay, before)


def test_reader_that_takes_a_little_now_and_then_is_kept(make_relay: RelayMaker, counted: Provider) -> None:
    """The limit is on taking nothing at all: a slow reader gets everything, at its own pace."""
    relay = make_relay(timeouts="write = 2")
    with _stick(relay, "events=60; interval=0; size=64KiB") as client:
        started = time.monotonic()
        while time.monotonic() < started + 3.5:
            client.buffer += client.socket.recv(32 * _KIB)
            select.select([], [], [], 0.2)
        answer = client.answer()
        assert answer.clean
        assert answer.body.count(b'"content":"') >= 60


def test_hundred_stuck_readers_change_nothing_for_a_healthy_one(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(timeouts="write = 8")
    serves(relay.address)
    counted.reset()
    before = relay.resident()
    stuck = 100
    with contextlib.ExitStack() as stack:
        for _ in range(stuck):
            stack.enter_context(_stick(relay, "events=1600; interval=0; size=64KiB; sndbuf=64KiB"))
        counted.wait(opened=stuck)
        with Client(relay.address) as client:
            client.post(CHAT.path, chat(), "events=200; interval=5ms")
            answer = client.answer()
        assert answer.clean
        assert answer.body.endswith(CHAT.terminal)
        assert answer.body.count(b'"content":"') >= 200
        stats = counted.stats()
        assert stats["aborted"] == 0, "the others were not stuck any more"
        assert stats["finished"] == 1
        assert relay.resident() - before < stuck * _MIB / 2
        counted.wait(aborted=stuck)
    assert counted.stats()["requests"] == stuck + 1
