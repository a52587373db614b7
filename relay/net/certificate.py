"""The server's certificate: its TLS context, the names it is for, and its renewal without dropping a connection.

Connections keep what they were opened with; a renewed certificate is what the next handshake shows. TLS 1.2 and up,
and of 1.2 only what HTTP/2 allows (RFC 9113, 9.2.2).
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509

from relay.errors import ConfigError

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PROTOCOLS = ["h2", "http/1.1"]


class Certificate:
    """`context` is used for every handshake, `until` is when the certificate ends. Raises ConfigError for files that
    are no certificate and its key."""

    def __init__(self, chain: str, key: str) -> None:
        self._chain = chain
        self._key = key
        self.context = _context()
        self.until = datetime.datetime.min
        self._names: frozenset[str] = frozenset()
        self._addresses: frozenset[str] = frozenset()
        self.reload()

    def reload(self) -> None:
        """Read the files again. Raises ConfigError; what was in force then stays."""
        trial = _context()
        _load(trial, self._chain, self._key)
        names, addresses, until = _subjects(self._chain)
        # Only now: half of a pair in the context would break every handshake.
        _load(self.context, self._chain, self._key)
        self._names, self._addresses, self.until = names, addresses, until

    def __str__(self) -> str:
        """The hosts that it is for, and its last day."""
        return f"for {', '.join(sorted(self._names | self._addresses))}, until {self.until:%Y-%m-%d}"

    def covers(self, authority: bytes) -> bool:
        """Whether a request for this authority may be answered on a connection with this certificate (RFC 9110,
        7.4: if not, 421). A name matches as in RFC 6125: `*` is one whole label, the first."""
        host = authority.decode("latin-1").lower()
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        try:
            return str(ipaddress.ip_address(host)) in self._addresses
        except ValueError:
            label, _, parent = host.partition(".")
            return host in self._names or (bool(label) and f"*.{parent}" in self._names)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(_PROTOCOLS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _load(context: ssl.SSLContext, chain: str, key: str) -> None:
    _look_into("certificate", chain, b"-----BEGIN CERTIFICATE-----", "certificate")
    if b"ENCRYPTED" in _look_into("certificate_key", key, b"PRIVATE KEY-----", "private key"):
        raise ConfigError(
            f"[server] certificate_key {key!r} is encrypted, and nobody is there to be asked for its password; "
            f"decrypt it: openssl pkey -in {key} -out FILE"
        )
    try:
        context.load_cert_chain(chain, key, password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        # OpenSSL's word does not quote the files.
        why = getattr(error, "reason", None) or "not in PEM form"
        if why == "KEY_VALUES_MISMATCH":
            why = "the key is not the certificate's"
        raise ConfigError(f"[server] certificate {chain!r} and certificate_key {key!r} cannot be used: {why}") from None


def _look_into(name: str, file: str, mark: bytes, what: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"[server] {name} {file!r} cannot be read: {error.strerror}") from None
    if mark not in content:
        raise ConfigError(f"[server] {name} {file!r} holds no {what} in PEM form")
    return content


def _subjects(chain: str) -> tuple[frozenset[str], frozenset[str], datetime.datetime]:
    """The DNS names and the addresses that a chain's first certificate is for, and its end (UTC)."""
    try:
        leaf = x509.load_pem_x509_certificates(Path(chain).read_bytes())[0]
    except ValueError:
        raise ConfigError(f"[server] certificate {chain!r} holds no certificate that can be read") from None
    try:
        subjects = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ConfigError(
            f"[server] certificate {chain!r} names no host (subjectAltName), so no client would accept it"
        ) from None
    names = frozenset(name.lower() for name in subjects.get_values_for_type(x509.DNSName))
    addresses = frozenset(str(address) for address in subjects.get_values_for_type(x509.IPAddress))
    return names, addresses, leaf.not_valid_after_utc
