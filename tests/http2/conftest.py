"""What is held against the scripts: one relay as a server, one as a client, for the whole run.

H2_TARGET=host:port[/tls][,…] aims the server scripts at another server (it must answer /healthz and /echo as the relay
and its provider do), H2_CLIENT=curl the client scripts at curl.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.http2.asking import Asked, Origin, url_of
from tests.http2.frames import Fields
from tests.http2.peers import DEADLINE, ClientPeer
from tests.programs import Client, Provider, Relay, config_text

TARGET = os.environ.get("H2_TARGET", "")
CLIENT = os.environ.get("H2_CLIENT", "relay")


@dataclass(frozen=True)
class Target:
    """A server under test, and the request that it answers with "ok" and a line feed."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    method: str = "GET"
    path: str = "/healthz"

    @property
    def head(self) -> Fields:
        return (
            (":method", self.method),
            (":scheme", "https" if self.tls else "http"),
            (":path", self.path),
            (":authority", f"localhost:{self.port}"),
        )

    def connect(self) -> ClientPeer:
        """A connection on which nothing was said yet."""
        connection = socket.create_connection((self.host, self.port), timeout=DEADLINE)
        # A script's writes are its reads on the other side, as far as that is ours to say.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is None:
            return ClientPeer(connection, self.head)
        secured = self.tls.wrap_socket(connection, server_hostname="localhost")
        assert secured.selected_alpn_protocol() == "h2"
        return ClientPeer(secured, self.head)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and 127.0.0.1, and its key."""
    return make_certificate(tmp_path_factory.mktemp("http2"), "localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def targets(request: pytest.FixtureRequest) -> dict[str, Target]:
    """The servers under test by how they are reached."""
    if TARGET:
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        unverified.set_alpn_protocols(["h2"])
        found = {}
        for address in TARGET.split(","):
            place, _, secured = address.partition("/")
            host, _, port = place.rpartition(":")
            name = "tls" if secured else "cleartext"
            found[name] = Target(host, int(port), unverified if secured else None)
        return found
    relay: Relay = request.getfixturevalue("http2_relay")
    certificate: tuple[Path, Path] = request.getfixturevalue("certificate")
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    trusting.set_alpn_protocols(["h2"])
    secured_line = r"relay listening on https://127\.0\.0\.1:(\d+)"
    match = next(filter(None, (re.search(secured_line, line) for line in relay.lines)), None)
    match = match or relay.wait_for(secured_line)
    return {
        "cleartext": Target("127.0.0.1", relay.port),
        "tls": Target("127.0.0.1", int(match[1]), trusting),
    }


@pytest.fixture(scope="session")
def http2_relay(
    provider: Provider, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    file = tmp_path_factory.mktemp("http2") / "relay.toml"
    secured = f"""listen_tls = ["127.0.0.1:0"]
certificate = "{certificate[0]}"
certificate_key = "{certificate[1]}"
"""
    file.write_text(config_text(provider.url, server=secured))
    program = Relay(file)
    yield program
    _ended_well(program)


@pytest.fixture(params=["cleartext", "tls"])
def server(request: pytest.FixtureRequest, targets: dict[str, Target]) -> Target:
    if request.param not in targets:
        pytest.skip(f"H2_TARGET names no server for {request.param}")
    return targets[request.param]


@pytest.fixture
def peer(server: Target) -> Iterator[ClientPeer]:
    """A client of the server under test, past the handshake."""
    with server.connect() as connected:
        connected.handshake()
        yield connected


# The client side.


@pytest.fixture(scope="session")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        listening.settimeout(DEADLINE)
        yield listening


@pytest.fixture(scope="session")
def client_relay(listener: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay | None]:
    """The relay whose provider the scripts play; None while curl is the client."""
    if CLIENT == "curl":
        yield None
        return
    file = tmp_path_factory.mktemp("http2") / "client.toml"
    file.write_text(config_text(url_of(listener), upstream_extra='http = "2"'))
    program = Relay(file)
    yield program
    _ended_well(program)


@pytest.fixture
def origin(listener: socket.socket, client_relay: Relay | None) -> Iterator[Origin]:
    """Nothing asked, nothing connected; and the relay serves on when the script is over."""
    made = Origin(listener, client_relay)
    yield made
    made.forget()
    if client_relay is not None:
        with Client(client_relay.address) as client:
            client.request(target="/healthz")
            assert client.answer().status == 200


@pytest.fixture
def asked(origin: Origin) -> Asked:
    """A request on stream 1 of a new connection, past the handshake."""
    call = origin.call()
    peer = origin.accept()
    peer.handshake()
    return Asked(origin, peer, call, peer.take_request())


def _ended_well(program: Relay) -> None:
    assert program.stop() == 0
    assert not [line for line in program.lines if "internal" in line or "Traceback" in line]
