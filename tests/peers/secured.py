"""A relay with TLS, and certificates for it and for providers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.certificates import make_certificate
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
    made = make_certificate(folder / f"{name}.made", "localhost", "127.0.0.1")
    serial = x509.load_pem_x509_certificate(made[0].read_bytes()).serial_number
    return Pair(made[0].replace(folder / f"{name}.pem"), made[1].replace(folder / f"{name}.key"), serial)


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
