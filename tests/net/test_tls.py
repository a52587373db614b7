"""TLS to the provider: the system's trust or a file's, SNI, and clear refusals of anything else (mission, M5)."""

from __future__ import annotations

import asyncio
import gc
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from relay.net.dial import Origin, PoolLimits
from relay.net.poller import Poller
from relay.net.timers import Wheel
from relay.net.upstream1 import Upstream1
from tests.conftest import RelayMaker
from tests.net.pooling import Pool1, run, until
from tests.net.test_timers import Loop
from tests.programs import Client, Provider, chat


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def tls_provider(certificate: tuple[Path, Path]) -> Iterator[Provider]:
    cert, key = certificate
    program = Provider("--tls-cert", str(cert), "--tls-key", str(key))
    yield program
    assert program.stop() == 0


def test_trusted_provider_is_relayed(
    make_relay: RelayMaker, tls_provider: Provider, certificate: tuple[Path, Path]
) -> None:
    relay = make_relay(
        upstream=f"https://localhost:{tls_provider.port}", upstream_extra=f'ca_file = "{certificate[0]}"'
    )
    bodies = []
    with Client(relay.address) as client:
        for simulate in ("seed=1; events=30; interval=0; split=7", "seed=1; events=30; interval=0"):
            client.post("/v1/chat/completions", chat(), simulate)
            answer = client.answer()
            assert (answer.status, answer.clean) == (200, True)
            bodies.append(answer.body)
    assert bodies[0] == bodies[1]
    assert bodies[0].endswith(b"data: [DONE]\n\n")


def test_connection_is_reused(make_relay: RelayMaker, tls_provider: Provider, certificate: tuple[Path, Path]) -> None:
    relay = make_relay(
        upstream=f"https://localhost:{tls_provider.port}", upstream_extra=f'ca_file = "{certificate[0]}"'
    )
    with Client(relay.address) as client:
        for _ in range(5):
            client.request(target="/v1/models")
            assert client.answer().status == 200
    lines = [relay.access_line(status=200) for _ in range(5)]
    assert len(lines) == 5
    sockets = relay.descriptors()
    with Client(relay.address) as client:
        client.request(target="/v1/models")
        assert client.answer().status == 200
        assert relay.descriptors() <= sockets + 1  # the client's own


def test_stranger_is_refused(make_relay: RelayMaker, tls_provider: Provider) -> None:
    """A certificate that the system does not trust: 502, and not a byte of the request is sent."""
    relay = make_relay(upstream=f"https://localhost:{tls_provider.port}")
    with Client(relay.address) as client:
        client.post("/v1/chat/completions", chat())
        answer = client.answer()
    assert answer.status == 502
    assert b"TLS" in answer.body


def test_other_name_is_refused(make_relay: RelayMaker, tls_provider: Provider, certificate: tuple[Path, Path]) -> None:
    """A trusted certificate, but of another host than the one in the url."""
    relay = make_relay(
        upstream=f"https://127.0.0.1:{tls_provider.port}", upstream_extra=f'ca_file = "{certificate[0]}"'
    )
    with Client(relay.address) as client:
        client.post("/v1/chat/completions", chat())
        assert client.answer().status == 502


def test_client_that_leaves_frees_the_provider(
    make_relay: RelayMaker, tls_provider: Provider, certificate: tuple[Path, Path]
) -> None:
    relay = make_relay(
        upstream=f"https://localhost:{tls_provider.port}", upstream_extra=f'ca_file = "{certificate[0]}"'
    )
    tls_provider.reset()
    with Client(relay.address) as client:
        client.post("/v1/chat/completions", chat(), "events=1000; interval=20ms")
        client.read_until(b"\n\n")
    tls_provider.wait(aborted=1)


def test_stuck_reader_pauses_the_provider(
    make_relay: RelayMaker, tls_provider: Provider, certificate: tuple[Path, Path]
) -> None:
    """Flow control must hold through the TLS layer's own buffers, in both directions of the pause."""
    relay = make_relay(
        upstream=f"https://localhost:{tls_provider.port}", upstream_extra=f'ca_file = "{certificate[0]}"'
    )
    tls_provider.reset()
    with Client(relay.address, receive_buffer=4096) as client:
        client.post("/v1/chat/completions", chat(), "events=20000; size=1000; interval=0; seed=3")
        answer = client.answer()
    assert answer.clean
    assert answer.body.count(b"data: ") > 20_000
    tls_provider.wait(finished=1)


def connections() -> int:
    return sum(isinstance(each, Upstream1) for each in gc.get_objects())


def test_connection_that_was_cut_is_freed_without_the_collector(certificate: tuple[Path, Path]) -> None:
    """What the loop keeps for TLS is a quarter of a megabyte for each."""
    left: list[int] = []

    async def cut_ten(pool: Pool1) -> None:
        for _ in range(10):
            connection = await pool.acquire()
            connection.cancel()
            await until(lambda connection=connection: connection.closed)  # type: ignore[misc]

    async def test() -> None:
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(*certificate)
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=own)
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        wheel = Wheel(cast(asyncio.AbstractEventLoop, Loop()))
        wheel.start()
        port = server.sockets[0].getsockname()[1]
        poller = Poller(asyncio.get_running_loop())
        pool = Pool1(Origin("p", "localhost", port, tls=trust, http="1.1"), PoolLimits(), wheel, poller)
        gc.collect()
        gc.disable()
        try:
            before = connections()
            await cut_ten(pool)
            await until(lambda: connections() <= before + 1)  # the last one may still be somebody's local variable
            left.append(connections() - before)
        finally:
            gc.enable()
            server.close()

    run(test)
    assert left[0] <= 1
