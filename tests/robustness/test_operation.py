"""The relay as a process: out of descriptors, told to stop, left by everybody at once (E2, E8, E11)."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.conftest import RelayMaker
from tests.programs import BIN, PATIENCE, Client, Program, Provider, Relay, chat, running
from tests.robustness.peers import CHAT, descriptors_return_to, serves, until

_LIVE = "events=100000; interval=50ms"
_READY = r"relay listening on http://127\.0\.0\.1:(\d+)"


def _exit_code(program: Program) -> int:
    """The code of a program that ends by itself."""
    return program.process.wait(timeout=PATIENCE)


def _begin(relay: Program, simulate: str = _LIVE) -> Client:
    """A client in the middle of a stream."""
    client = Client(relay.address)
    client.post(CHAT.path, chat(), simulate)
    client.read_until(b"data: ")
    return client


# E2


@pytest.fixture(params=[40, 100, 300])
def few_descriptors(request: pytest.FixtureRequest, provider: Provider) -> Iterator[tuple[Program, int]]:
    """A relay that may hold so many files open, and that number."""
    limit: int = request.param
    command = [str(BIN / "relay"), "serve", "--upstream", provider.url, "--listen", "127.0.0.1:0"]
    program = Program(["sh", "-c", f'ulimit -n {limit}; exec "$@"', "relay", *command], _READY)
    yield program, limit
    assert program.stop() == 0
    assert not [line for line in program.lines if "internal" in line or "Traceback" in line]


def test_flood_of_connections_past_the_descriptors_is_survived(few_descriptors: tuple[Program, int]) -> None:
    relay, limit = few_descriptors
    # Said once, at the start, so that nobody is surprised.
    assert [line for line in relay.lines if f"limit of {limit} open files" in line]
    serves(relay.address)
    before = relay.descriptors()
    with contextlib.ExitStack() as stack:
        for _ in range(3 * limit):
            client = stack.enter_context(Client(relay.address))
            with contextlib.suppress(OSError):
                client.send(b"GET /v1/models HTTP/1.1\r\n")
        assert relay.descriptors() <= limit
        # Whoever asks now is served or turned away, not left waiting.
        with Client(relay.address) as client, contextlib.suppress(OSError):
            client.request("GET", "/healthz")
            assert client.receive()[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 503", b"")
    descriptors_return_to(relay, before)
    # Those that still wait to be accepted, and have gone, are turned away one after the other.
    with until(lambda: _let_in(relay), "a client that is let in") as client:
        serves(relay.address, client)


def _let_in(relay: Program) -> Client | None:
    client = Client(relay.address)
    with contextlib.suppress(OSError, AssertionError):
        client.request("GET", "/readyz")
        if client.answer().status == 200:
            return client
    client.close()
    return None


def test_stream_goes_on_while_connections_are_turned_away(
    few_descriptors: tuple[Program, int], counted: Provider
) -> None:
    relay, limit = few_descriptors
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(relay.address))
        client.post(CHAT.path, chat(), "events=100; interval=10ms")
        client.read_until(b"data: ")
        for _ in range(3 * limit):
            stack.enter_context(Client(relay.address))
        assert client.read_until(CHAT.terminal)
    assert counted.stats()["finished"] == 1


# E8


def test_sigterm_lets_live_streams_end(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay()
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(_begin(relay, "events=60; interval=20ms"))
        waiting = stack.enter_context(Client(relay.address))
        waiting.post(CHAT.path, chat(), "delay=1s; events=2; interval=0")
        probe = stack.enter_context(Client(relay.address))
        probe.send(b"GET /readyz HTTP/1.1\r\n")
        idle = stack.enter_context(Client(relay.address))
        idle.request("GET", "/readyz")
        assert idle.answer().status == 200
        counted.wait(requests=2)

        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining")
        assert idle.closed(), "an idle connection was kept"
        # Those that probe it hear that it takes nothing more, and nobody new is let in.
        probe.send(b"Host: a\r\n\r\n")
        ready = probe.answer()
        assert (ready.status, ready.body) == (503, b"draining\n")
        assert ready.headers["connection"] == "close"
        assert probe.closed()
        with pytest.raises(ConnectionRefusedError):
            Client(relay.address)
        # What was under way ends as it would have ended.
        late = waiting.answer()
        assert late.clean
        assert late.headers["connection"] == "close"
        assert waiting.closed()
        live.read_until(CHAT.terminal)
        assert live.read_until(b"0\r\n\r\n")
        assert live.closed()
    assert _exit_code(relay) == 0
    assert counted.stats()["finished"] == 2
    assert counted.stats()["aborted"] == 0


def test_request_whose_body_is_still_coming_is_served_in_the_drain(make_relay: RelayMaker) -> None:
    relay = make_relay()
    with Client(relay.address) as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.read_head()[0] == 100
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining")
        client.send(b"hello")
        answer = client.answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
    assert _exit_code(relay) == 0


def _broken_off(relay: Program, live: Client, waiting: Client, provider: Provider) -> None:
    """The drain is over: what has begun says why it breaks off, what has not gets a status."""
    assert b'{"error":{' in live.read_until(b'"draining"}}\n\n')
    assert not live.read_to_end().endswith(b"0\r\n\r\n")
    refused = waiting.answer()
    assert refused.status == 503
    assert refused.clean
    provider.wait(aborted=2)
    for _ in range(2):
        assert relay.access_line(reason="drained")["error"] == "draining"
    assert _exit_code(relay) == 0


def test_drain_has_an_end(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(timeouts="drain = 1")
    with _begin(relay) as live, Client(relay.address) as waiting:
        waiting.post(CHAT.path, chat(), "delay=60")
        counted.wait(requests=2)
        relay.send_signal(signal.SIGTERM)
        _broken_off(relay, live, waiting, counted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_drain(make_relay: RelayMaker, counted: Provider, number: int) -> None:
    relay = make_relay(timeouts="drain = 3600")
    with _begin(relay) as live, Client(relay.address) as waiting:
        waiting.post(CHAT.path, chat(), "delay=60")
        counted.wait(requests=2)
        relay.send_signal(number)
        relay.wait_for("draining: 2 requests")
        relay.send_signal(number)
        relay.wait_for("breaking off 2 requests")
        _broken_off(relay, live, waiting, counted)


def test_reader_that_is_stuck_does_not_hold_up_the_end(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(timeouts="drain = 1")
    with Client(relay.address, receive_buffer=4096) as client:
        client.post(CHAT.path, chat(), "events=1000; interval=0; size=64KiB; sndbuf=64KiB")
        counted.wait(opened=1)
        relay.send_signal(signal.SIGTERM)
        assert _exit_code(relay) == 0
        assert not client.answer().clean


def test_idle_relay_ends_at_once(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="drain = 3600")
    with Client(relay.address) as idle, Client(relay.address) as silent:
        idle.request("GET", "/healthz")
        assert idle.answer().status == 200
        relay.send_signal(signal.SIGTERM)
        assert _exit_code(relay) == 0
        assert idle.closed()
        assert silent.closed()


def test_taken_port_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [str(BIN / "relay"), "serve", "--upstream", "http://127.0.0.1:9", "--listen", address]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert f"{address} is taken" in line


# E11


def test_everybody_leaves_at_once(make_relay: RelayMaker, counted: Provider) -> None:
    """Every generation is cancelled, whether it has begun or not, and nothing is left of any of them."""
    number = 500
    relay = make_relay()
    serves(relay.address)
    until(lambda: counted.stats()["finished"] == 1, "the first stream")
    before = relay.descriptors()
    counted.reset()
    clients = []
    for index in range(number):
        client = Client(relay.address)
        client.post(CHAT.path, chat(), "delay=60" if index % 5 == 0 else "events=1000; interval=1s")
        clients.append(client)
    counted.wait(requests=number)
    started = time.monotonic()
    for client in clients:
        client.close()
    counted.wait(aborted=number)
    # Promised: nothing is left after five seconds.
    descriptors_return_to(relay, before)
    assert time.monotonic() - started < 5
    assert counted.stats()["finished"] == 0
    for _ in range(number):
        relay.access_line(reason="client_left")
    serves(relay.address)


def test_relay_that_restarts_on_its_port_serves(provider: Provider) -> None:
    """Connections of the one before still lie in TIME_WAIT."""
    with running(Relay(upstream=provider.url)) as relay, _begin(relay):
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining")
        relay.send_signal(signal.SIGTERM)
        assert _exit_code(relay) == 0
    address = f"127.0.0.1:{relay.port}"
    command = [str(BIN / "relay"), "serve", "--upstream", provider.url, "--listen", address]
    with running(Program(command, _READY)) as again:
        serves(again.address)
