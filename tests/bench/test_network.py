"""benchmarks/network.c over real sockets: what arrives, in which order, what a cut does, what it holds."""

from __future__ import annotations

import contextlib
import json
import random
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.processes import free_port
from benchmarks.subjects import build, flags
from tests.programs import PATIENCE, ROOT

BUILT = ROOT / ".venv" / "bench"
HELD_MOST = 256 << 10  # as network.c has it
READ_MOST = 16384  # what one read may add to it, with what each segment costs beside its bytes


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build(BUILT)


class Network:
    """The proxy in front of a listening socket of ours."""

    def __init__(self, **arguments: object) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(PATIENCE)
        self.port = free_port()
        behind = self.server.getsockname()[1]
        command = [str(BUILT / "network"), *flags(listen=self.port, connect=behind, **arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection through it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
                break
            except ConnectionRefusedError:  # it does not listen yet
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.01)
        server, _ = self.server.accept()
        server.settimeout(PATIENCE)
        return client, server

    def counters(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGUSR1)
        assert self.process.stdout is not None
        counted: dict[str, Any] = json.loads(self.process.stdout.readline())
        return counted


@contextlib.contextmanager
def network(**arguments: object) -> Iterator[Network]:
    made = Network(**arguments)
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.communicate(timeout=PATIENCE)
        made.server.close()


def read_all(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_bytes_arrive_whole_and_in_order_both_ways() -> None:
    up, down = random.Random(1).randbytes(100_000), random.Random(2).randbytes(150_000)
    with network(delay_ms=2, jitter_ms=5, loss=3, bandwidth=2_000_000, seed=1) as made:
        client, server = made.pair()
        with client, server:

            def send(end: socket.socket, what: bytes) -> None:
                end.sendall(what)
                end.shutdown(socket.SHUT_WR)

            senders = [threading.Thread(target=send, args=pair) for pair in ((client, up), (server, down))]
            for sender in senders:
                sender.start()
            assert read_all(server) == up
            assert read_all(client) == down
            for sender in senders:
                sender.join()
        counted = made.counters()
    assert counted["connections"] == 1
    assert counted["bytes"] == len(up) + len(down)
    assert counted["lost"] > 0
    assert counted["cuts"] == 0


def test_nothing_arrives_before_the_delay() -> None:
    with network(delay_ms=30) as made:
        client, server = made.pair()
        with client, server:
            begun = time.monotonic()
            client.sendall(b"there")
            assert server.recv(10) == b"there"
            assert time.monotonic() - begun >= 0.030
            server.sendall(b"back")
            assert client.recv(10) == b"back"
            assert time.monotonic() - begun >= 0.060


def test_a_narrow_link_takes_its_time() -> None:
    with network(bandwidth=100_000) as made:
        client, server = made.pair()
        with client, server:
            begun = time.monotonic()
            client.sendall(bytes(20_000))
            client.shutdown(socket.SHUT_WR)
            assert len(read_all(server)) == 20_000
            assert time.monotonic() - begun >= (20_000 - 1448) / 100_000  # a segment of burst


def test_the_same_seed_loses_the_same() -> None:
    lost = []
    for seed in (3, 3):
        with network(loss=5, seed=seed) as made:
            client, server = made.pair()
            with client, server:
                for _ in range(40):  # each read by itself, so that each is one segment
                    client.sendall(b"x")
                    assert server.recv(1) == b"x"
                    if made.counters()["lost"] == 2:
                        break
                counted = made.counters()
                lost.append((counted["segments"], counted["lost"]))
    assert lost[0] == lost[1]


def test_a_cut_resets_both_ends() -> None:
    with network(break_every_s=0.02, seed=1) as made:
        client, server = made.pair()
        with client, server:
            for end in (client, server):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
        counted = made.counters()
    assert (counted["cuts"], counted["open"]) == (1, 0)


def test_a_reset_of_one_end_reaches_the_other() -> None:
    with network(delay_ms=1) as made:
        client, server = made.pair()
        with server:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            client.close()
            with pytest.raises(ConnectionResetError):
                server.recv(1)


def test_nobody_behind_it_closes_the_client() -> None:
    with network() as made:
        first = made.pair()
        made.server.close()
        with contextlib.closing(first[0]), contextlib.closing(first[1]):
            with (
                pytest.raises(ConnectionResetError),  # from either, as fast as it is
                socket.create_connection(("127.0.0.1", made.port), PATIENCE) as client,
            ):
                client.recv(1)
            assert made.counters()["refused"] == 1


def test_it_holds_so_much_and_no_more_for_who_does_not_read() -> None:
    with network() as made:
        client, server = made.pair()
        with client, server:
            server.setblocking(False)
            sent = 0
            while select.select([], [server], [], 0.3)[1]:
                sent += server.send(bytes(65536))
                assert sent < 64 << 20
            counted = made.counters()
            assert HELD_MOST <= counted["held_most"] <= HELD_MOST + 2 * READ_MOST
            server.setblocking(True)
            server.shutdown(socket.SHUT_WR)
            assert len(read_all(client)) == sent


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--listen and --connect are needed"),
        (["--listen", "0"], "--listen must be a number from 1 to 65535"),
        (["--listen", "1", "--connect", "x"], "--connect must be a number"),
        (["--loss", "101"], "--loss must be a number from 0 to 100"),
        (["--break-every-s", "0"], "--break-every-s must be"),
        (["--speed", "1"], "unknown or incomplete option: --speed"),
        (["--seed"], "unknown or incomplete option: --seed"),
        (["more"], "unexpected argument: more"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [str(BUILT / "network"), *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert done.stderr.startswith("network: ")
    assert said in done.stderr
