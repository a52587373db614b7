"""TLS as clients see it: a certificate renewed under open streams, names that are not ours, versions of old."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.peers.conftest import SecuredMaker
from tests.peers.secured import SecuredRelay, make_pair
from tests.programs import PATIENCE, Provider

_EVENTS = 40
_SLOW = {"Simulate": f"events={_EVENTS}; interval=75ms"}


def _context(**settings: object) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def _connect(relay: SecuredRelay, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", relay.secure_port), timeout=PATIENCE)
    return context.wrap_socket(raw, server_hostname="localhost")


def _serial(relay: SecuredRelay) -> int:
    """Of the certificate that a new connection sees."""
    with _connect(relay, _context()) as connection:
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


@pytest.mark.parametrize("http2", [True, False], ids=["http2", "http1"])
def test_renewed_certificate_drops_no_stream(
    make_secured: SecuredMaker, tmp_path: Path, counted: Provider, http2: bool
) -> None:
    old = make_pair(tmp_path)
    relay = make_secured(own=old)
    assert _serial(relay) == old.serial
    with (
        httpx.Client(verify=old.trust, base_url=relay.secure_url, http2=http2, timeout=PATIENCE) as client,
        contextlib.ExitStack() as stack,
    ):
        # One after the other: httpx is not made for threads that share a connection of HTTP/2.
        open_ones = [stack.enter_context(client.stream("GET", "/sse/ticker", headers=_SLOW)) for _ in range(20)]
        new = make_pair(tmp_path)
        assert new.serial != old.serial
        relay.send_signal(signal.SIGHUP)
        relay.wait_for("relay certificate reloaded")
        assert _serial(relay) == new.serial
        # The connections that were there go on, and are good for further requests.
        if http2:
            assert client.get("/healthz").text == "ok\n"
        assert counted.stats()["finished"] == 0
        for response in open_ones:
            assert sum(line == "event: tick" for line in response.iter_lines()) == _EVENTS
        assert client.get("/healthz").text == "ok\n"
    with httpx.Client(verify=new.trust, base_url=relay.secure_url, http2=True) as client:
        assert client.get("/healthz").http_version == "HTTP/2"


@pytest.mark.parametrize("mistake", ["no key", "other key", "no certificate"])
def test_mistake_in_the_renewal_leaves_the_old_one(make_secured: SecuredMaker, tmp_path: Path, mistake: str) -> None:
    old = make_pair(tmp_path)
    relay = make_secured(own=old)
    if mistake == "no key":
        old.key.unlink()
    elif mistake == "other key":
        old.key.write_bytes(make_pair(tmp_path, "other").key.read_bytes())
    else:
        old.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    relay.send_signal(signal.SIGHUP)
    relay.wait_for("the old certificate stays in force")
    assert _serial(relay) == old.serial
    # And when it is put right, it is taken.
    new = make_pair(tmp_path)
    relay.send_signal(signal.SIGHUP)
    relay.wait_for("relay certificate reloaded")
    assert _serial(relay) == new.serial


@pytest.mark.parametrize("http2", [True, False], ids=["http2", "http1"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("provider.example", 421),
        ("localhost.example", 421),
        ("127.0.0.2", 421),
        ("[::1]", 421),
    ],
)
def test_authority_that_is_not_the_certificates_is_misdirected(
    secured: SecuredRelay, counted: Provider, http2: bool, host: str, status: int
) -> None:
    with httpx.Client(verify=secured.pair.trust, base_url=secured.secure_url, http2=http2) as client:
        response = client.get("/v1/models", headers={"Host": host})
        assert response.status_code == status
        # One stream's mistake: the connection is good for others.
        assert client.get("/healthz").status_code == 200
    assert counted.stats()["requests"] == (status == 200)
    # In cleartext, anybody may call us what he likes.
    assert httpx.get(f"{secured.url}/v1/models", headers={"Host": host}).status_code == 200


def test_old_tls_is_refused(secured: SecuredRelay) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old = _context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    # Debian's OpenSSL would not even ask.
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        _connect(secured, old)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_tls_is_spoken(secured: SecuredRelay, version: ssl.TLSVersion) -> None:
    context = _context(minimum_version=version, maximum_version=version)
    context.set_alpn_protocols(["h2"])
    with _connect(secured, context) as connection:
        assert connection.version() == ("TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
        assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"])
def test_ciphers_that_http2_forbids_are_refused(secured: SecuredRelay, cipher: str) -> None:
    """RFC 9113, appendix A: without forward secrecy, or in CBC mode."""
    context = _context(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _connect(secured, context)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["h3"], None),
        ([], None),
    ],
)
def test_protocol_that_is_chosen(secured: SecuredRelay, offered: list[str], chosen: str | None) -> None:
    context = _context()
    context.set_alpn_protocols(offered)
    with _connect(secured, context) as connection:
        assert connection.selected_alpn_protocol() == chosen
        if chosen != "h2":
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_http1_where_http2_was_chosen_is_closed(secured: SecuredRelay) -> None:
    context = _context()
    context.set_alpn_protocols(["h2"])
    with _connect(secured, context) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            assert connection.recv(100) == b""
        except (ssl.SSLError, ConnectionError):
            return


def test_half_a_handshake_is_given_up(make_secured: SecuredMaker) -> None:
    relay = make_secured(more='[timeouts]\nrequest_head = "500ms"')
    for sent in (b"", b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection(("127.0.0.1", relay.secure_port), timeout=PATIENCE) as connection:
            connection.sendall(sent)
            try:
                assert connection.recv(100) == b""
            except ConnectionError:
                continue
