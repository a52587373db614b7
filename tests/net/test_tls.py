"""TLS to the provider: the system's trust or a file's, SNI, and clear refusals of anything else (mission, M5)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RelayMaker
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
