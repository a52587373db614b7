"""A client that leaves, by FIN or RST, whenever it likes: its generation is cancelled and nothing is left (B8)."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RelayMaker
from tests.programs import Client, Provider, Relay, chat
from tests.robustness.peers import CHAT, blackhole, descriptors_return_to, until

_KIB = 1024
# Promised: from the client's leaving to the end of the provider's work (seconds).
_BOUND = 0.1
_TRIES = 5
Leave = Callable[[Client], None]
_WAYS = [pytest.param(Client.close, id="fin"), pytest.param(Client.reset, id="rst")]


@pytest.fixture
def quiet(relay: Relay) -> Relay:
    """The shared relay with no client connection left over from a test before."""
    until(lambda: _clients(relay) == 0, "a relay without clients")
    return relay


def _clients(relay: Relay) -> int:
    """Established connections from clients, by the kernel's own table (state 01, our port as the local one)."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state, *rest = line.split()[1:]
        if int(local.rpartition(":")[2], 16) == relay.port and state in ("01", "08"):
            inodes.add(rest[5])
    return len(inodes)


def _gone(relay: Relay) -> None:
    until(lambda: _clients(relay) == 0, "no client connection at the relay")


# Before anything is asked


@pytest.mark.parametrize("leave", _WAYS)
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET /v1/mod",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
    ],
    ids=["nothing", "empty-line", "line", "head", "no-body", "body", "chunk", "trailers"],
)
def test_client_leaves_inside_its_request(quiet: Relay, counted: Provider, leave: Leave, sent: bytes) -> None:
    client = Client(quiet.address)
    name = f"leaves-{time.monotonic_ns()}"
    client.send(sent.replace(b"Host: a\r\n", b"Host: a\r\nX-Request-Id: %b\r\n" % name.encode()))
    # Else a RST might come before the relay has read a byte.
    until(lambda: _clients(quiet) == 1, "the connection")
    leave(client)
    _gone(quiet)
    if b"POST" in sent:
        line = quiet.access_line(request_id=name)
        assert (line["reason"], line["status"]) == ("client_left", 499)
    assert counted.stats()["requests"] == 0


# While the relay looks for a connection


@pytest.mark.parametrize("leave", _WAYS)
@pytest.mark.parametrize("size", [10, 100 * _KIB], ids=["short-body", "long-body"])
def test_client_leaves_in_the_queue(make_relay: RelayMaker, counted: Provider, leave: Leave, size: int) -> None:
    """With a long body as with a short one: the relay does not read such a body to its end, and must hear all the
    same that nobody waits for its answer."""
    body = json.dumps(chat(prompt="x" * size)).encode()
    relay = make_relay(upstream_extra="max_connections = 1")
    with Client(relay.address) as first:
        first.post(CHAT.path, chat(), "events=100000; interval=50ms")
        first.read_until(b"data: ")
        second = Client(relay.address)
        second.send(b"POST %b HTTP/1.1\r\nHost: a\r\n" % CHAT.path.encode())
        second.send(b"Content-Length: %d\r\n\r\n" % len(body) + body[: 80 * _KIB])
        until(lambda: _clients(relay) == 2, "the second connection")
        second.send(body[80 * _KIB :])
        leave(second)
        line = relay.access_line(reason="client_left")
        assert line["status"] == 499
        assert line["attempts"] == 0
        assert counted.stats()["requests"] == 1
    counted.wait(aborted=1)
    # Its place in the queue went with it: the next one is served.
    with Client(relay.address) as third:
        third.request("POST", "/echo", b"third")
        assert json.loads(third.answer().body)["body"] == "third"


@pytest.mark.parametrize("leave", _WAYS)
def test_client_leaves_while_the_relay_connects(make_relay: RelayMaker, leave: Leave) -> None:
    with blackhole() as url:
        relay = make_relay(upstream=url, timeouts="connect = 30")
        before = relay.descriptors()
        client = Client(relay.address)
        client.post(CHAT.path, chat())
        until(lambda: relay.descriptors() == before + 2, "a connection being made")
        leave(client)
        line = relay.access_line(reason="client_left")
        assert line["status"] == 499
        descriptors_return_to(relay, before)


# While the provider works


def _leaves(
    relay: Relay, provider: Provider, simulate: str, leave: Leave, *, stream: bool, tokens: bool
) -> tuple[float, int]:
    """Ask, leave, and tell how many seconds later the provider's work ended, and the status in the log. Both clocks
    are the system's monotonic one."""
    provider.reset()
    client = Client(relay.address)
    name = f"leaves-{time.monotonic_ns()}"
    client.post(CHAT.path, CHAT.asked(stream=stream), simulate, {"X-Request-Id": name})
    if tokens:
        client.read_until(b"data: ")
        provider.wait(events=3)
    elif "delay" in simulate:
        provider.wait(requests=1)
    else:
        provider.wait(opened=1)
    left = time.monotonic()
    leave(client)
    provider.wait(aborted=1)
    gone: float = provider.requests()[-1]["gone"]
    line = relay.access_line(request_id=name)
    assert line["reason"] == "client_left"
    return gone - left, line["status"]


@pytest.mark.parametrize("leave", _WAYS)
@pytest.mark.parametrize(
    ("simulate", "stream", "tokens", "status"),
    [
        ("delay=60", True, False, 499),
        ("delay=60", False, False, 499),
        ("first=60", True, False, 499),
        ("events=10000; interval=20ms", True, True, 200),
        ("events=3; lie=mid-stall; interval=0", True, True, 200),
        ("lie=head-stall", False, False, 499),
        ("lie=mid-stall", False, False, 200),
        ("encoding=gzip; events=10000; interval=20ms", True, True, 200),
    ],
    ids=[
        *("before-head", "before-json-head", "before-first-token", "between-tokens", "in-silence"),
        *("after-json-head", "inside-json", "between-compressed-tokens"),
    ],
)
def test_provider_is_cancelled_when_the_client_leaves(
    quiet: Relay, counted: Provider, leave: Leave, simulate: str, stream: bool, tokens: bool, status: int
) -> None:
    tries = [_leaves(quiet, counted, simulate, leave, stream=stream, tokens=tokens) for _ in range(_TRIES)]
    assert min(took for took, _ in tries) < _BOUND
    # The head of a JSON answer leaves with its first bytes, which may just not have come.
    allowed = {status, 499} if simulate == "lie=mid-stall" else {status}
    assert {logged for _, logged in tries} <= allowed
    _gone(quiet)


def test_client_that_ends_its_side_has_left(relay: Relay, counted: Provider) -> None:
    """A half-closed connection cannot be told from a reader that is gone."""
    with Client(relay.address) as client:
        client.post(CHAT.path, chat(), "events=10000; interval=20ms")
        client.read_until(b"data: ")
        client.socket.shutdown(socket.SHUT_WR)
        counted.wait(aborted=1)
        assert not client.read_to_end().endswith(b"0\r\n\r\n")


def test_client_resets_while_its_long_body_is_not_taken(make_relay: RelayMaker) -> None:
    """The provider does not read, so the relay does not read the client either; it must hear that it has left. (A FIN
    would wait behind the bytes that nobody reads.)"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = make_relay(upstream=f"http://127.0.0.1:{listener.getsockname()[1]}")
        client = Client(relay.address)
        client.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            client.request("POST", "/v1/x", b"x" * (16 * 1024 * _KIB))
        client.reset()
        line = relay.access_line(reason="client_left")
        assert line["status"] == 499


def test_nothing_is_left_of_those_that_left(make_relay: RelayMaker, counted: Provider) -> None:
    """One after the other, in every state; then the relay holds as many descriptors as before, and serves."""
    relay = make_relay()
    with Client(relay.address) as client:
        client.request("GET", "/healthz")
        assert client.answer().status == 200
    before = until(lambda: relay.descriptors() if _clients(relay) == 0 else 0, "a quiet relay")
    simulations = ("delay=60", "first=60", "events=10000; interval=5ms", "lie=head-stall", "lie=mid-stall; at=1")
    for number in range(40):
        leave = Client.close if number % 2 else Client.reset
        client = Client(relay.address)
        client.post(CHAT.path, chat(), simulations[number % len(simulations)])
        counted.wait(requests=number + 1)
        leave(client)
    counted.wait(aborted=40)
    descriptors_return_to(relay, before)
    for _ in range(40):
        relay.access_line(reason="client_left")
