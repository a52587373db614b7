"""A relay with TLS, and certificates for it and for providers."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.programs import Relay


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for localhost and 127.0.0.1, and its key, as files."""

    certificate: Path
    key: Path
    serial: int

    @property
    def trust(self) -> ssl.SSLContext:
        """Trusts this certificate alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_pair(folder: Path, name: str = "relay") -> Pair:
    """Written to folder/name.pem and folder/name.key, over what was there."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    serial = x509.random_serial_number()
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key", serial)
    pair.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


class SecuredRelay(Relay):
    """Listens in cleartext at `url` and over TLS at `secure_url`; requests under /two/ go to the upstream over HTTP/2,
    all others over HTTP/1.1."""

    def __init__(self, file: Path, upstream: str, pair: Pair, *, more: str = "", http: str = "1.1") -> None:
        self.pair = pair
        tls = f'listen_tls = ["127.0.0.1:0"]\ncertificate = "{pair.certificate}"\ncertificate_key = "{pair.key}"'
        file.write_text(_CONFIG.format(tls=tls, url=upstream, http=http, ca_file=pair.certificate, more=more))
        super().__init__(file)
        self.secure_port = int(self.wait_for(r"relay listening on https://127\.0\.0\.1:(\d+)")[1])

    @property
    def secure_url(self) -> str:
        return f"https://127.0.0.1:{self.secure_port}"

    def base(self, how: str) -> str:
        """The url for "tls" or "cleartext"."""
        return self.secure_url if how == "tls" else self.url


_CONFIG = """
[server]
listen = ["127.0.0.1:0"]
{tls}
[[upstream]]
name = "one"
url = "{url}"
http = "{http}"
ca_file = "{ca_file}"
[[upstream]]
name = "two"
url = "{url}"
http = "2"
ca_file = "{ca_file}"
{more}
[[route]]
path = "/two/*"
upstream = "two"
strip_prefix = "/two"
[[route]]
path = "/*"
upstream = "one"
"""
