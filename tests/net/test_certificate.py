"""The server's certificate: which hosts it is for, and its renewal, which a mistake must not spoil."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.net.certificate import Certificate
from tests.certificates import make_certificate

NAMES = ["relay.example", "Upper.Example", "*.wild.example", "127.0.0.1", "2001:db8::1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"), *NAMES)


def shown(
    context: ssl.SSLContext, *, alpn: list[str] | None = None, tls: ssl.TLSVersion | None = None
) -> ssl.SSLObject:
    """What a client sees of a handshake; both ends in memory."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        trusting.set_alpn_protocols(alpn)
    if tls is not None:
        trusting.minimum_version = trusting.maximum_version = tls
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="relay.example")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for end in waiting[:]:
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return client


def chain_of(context: ssl.SSLContext) -> bytes:
    found = shown(context).getpeercert(binary_form=True)
    assert found
    return found


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


# Names

COVERED = [
    "relay.example",
    "relay.example:443",
    "RELAY.Example:8443",
    "relay.example:",
    "upper.example",
    "a.wild.example",
    "A.WILD.EXAMPLE:1",
    "127.0.0.1",
    "127.0.0.1:8443",
    "[2001:db8::1]",
    "[2001:db8::1]:443",
    "[2001:DB8:0:0::1]",
]
NOT_COVERED = [
    "",
    "example",
    "other.example",
    "www.relay.example",
    "relay.example.evil.example",
    "xrelay.example",
    "wild.example",
    "a.b.wild.example",
    ".wild.example",
    "127.0.0.2",
    "127.1",
    "[::1]",
    "[2001:db8::2]",
    "2001:db8::1",
    "*",
    "\xff.example",
]


@pytest.mark.parametrize("authority", COVERED)
def test_what_it_is_for(made: tuple[Path, Path], authority: str) -> None:
    assert Certificate(*map(str, made)).covers(authority.encode("latin-1"))


@pytest.mark.parametrize("authority", NOT_COVERED)
def test_what_it_is_not_for(made: tuple[Path, Path], authority: str) -> None:
    assert not Certificate(*map(str, made)).covers(authority.encode("latin-1"))


def test_an_address_that_is_written_as_a_name_is_none(tmp_path: Path) -> None:
    certificate = Certificate(*map(str, make_certificate(tmp_path / "a", "relay.example", "*.0.0.1")))
    assert not certificate.covers(b"127.0.0.1")


# Handshakes


def test_http2_is_chosen_first(made: tuple[Path, Path]) -> None:
    context = Certificate(*map(str, made)).context
    assert shown(context, alpn=["http/1.1", "h2"]).selected_alpn_protocol() == "h2"
    assert shown(context, alpn=["http/1.1"]).selected_alpn_protocol() == "http/1.1"
    assert shown(context).selected_alpn_protocol() is None


def test_nothing_is_spoken_below_what_http2_allows(made: tuple[Path, Path]) -> None:
    context = Certificate(*map(str, made)).context
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        client = shown(context, tls=version)
        cipher = client.cipher()
        assert client.version() == name
        assert cipher is not None
        assert name == "TLSv1.3" or cipher[0].startswith("ECDHE-")
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# Renewal


def test_a_renewed_certificate_is_what_the_next_handshake_shows(tmp_path: Path) -> None:
    files = make_certificate(tmp_path / "a", "old.example")
    certificate = Certificate(*map(str, files))
    context = certificate.context
    assert chain_of(context) == der(files[0])
    make_certificate(tmp_path / "a", "new.example", "127.0.0.1")
    assert (certificate.covers(b"old.example"), certificate.covers(b"new.example")) == (True, False)
    certificate.reload()
    assert certificate.context is context, "listeners hold on to it"
    assert chain_of(context) == der(files[0])
    assert (certificate.covers(b"old.example"), certificate.covers(b"new.example")) == (False, True)
    assert certificate.covers(b"127.0.0.1:443")


SPOILED = [
    "no certificate",
    "no key",
    "another's key",
    "no PEM",
    "half a PEM",
    "empty",
    "no names",
    "key with a password",
]


def spoil(folder: Path, how: str) -> None:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    match how:
        case "no certificate":
            certificate.unlink()
        case "no key":
            key.unlink()
        case "another's key":
            shutil.copy(make_certificate(folder / "other", "b.example")[1], key)
        case "no PEM":
            certificate.write_bytes(der(certificate))
        case "half a PEM":
            certificate.write_bytes(certificate.read_bytes()[:200])
        case "empty":
            certificate.write_bytes(b"")
        case "no names":
            make_certificate(folder)
        case "key with a password":
            make_certificate(folder, "a.example", password=b"secret")


@pytest.mark.parametrize("how", SPOILED)
def test_a_renewal_that_fails_leaves_what_was_in_force(tmp_path: Path, how: str) -> None:
    files = make_certificate(tmp_path / "a", "old.example")
    before = der(files[0])
    certificate = Certificate(*map(str, files))
    spoil(tmp_path / "a", how)
    with pytest.raises(ConfigError) as caught:
        certificate.reload()
    assert str(files[0]) in caught.value.message or str(files[1]) in caught.value.message
    assert "PRIVATE" not in caught.value.message
    assert chain_of(certificate.context) == before
    assert certificate.covers(b"old.example")
    # And the next renewal is none the worse for it.
    make_certificate(tmp_path / "a", "new.example")
    certificate.reload()
    assert chain_of(certificate.context) == der(files[0])
    assert certificate.covers(b"new.example")


@pytest.mark.parametrize("how", SPOILED)
def test_a_start_with_a_bad_pair_is_a_mistake_of_the_configuration(tmp_path: Path, how: str) -> None:
    files = make_certificate(tmp_path / "a", "old.example")
    spoil(tmp_path / "a", how)
    with pytest.raises(ConfigError):
        Certificate(*map(str, files))
