"""Who may call. There are no accounts yet; what is here keeps other people's web pages from spending a provider key.

A relay on a developer's machine listens on loopback, where every page in that developer's browser can reach it. A
route with a key of its own therefore refuses what a browser sends for another origin: no CORS header would let the page
read the answer, but the generation would be paid for. A page may also bring its own name along, by pointing that name
at 127.0.0.1 (DNS rebinding); so a browser's request has to use a name that nobody else can have: an address,
localhost, or one that the configuration knows.
"""

from __future__ import annotations

import ipaddress

from relay.errors import Forbidden, Misdirected
from relay.net.certificate import Certificate
from relay.wire.head import RequestHead

_NOT_OURS = "browsers may not use this relay's provider key by this name; see hosts in [server]"
# Sent by browsers alone: with every cross-origin request but plain GETs of images and scripts, and with every request.
_BROWSER_FIELDS = (b"origin", b"sec-fetch-site")


def check_origin(request: RequestHead, hosts: frozenset[bytes]) -> None:
    """Raises Forbidden for a browser's request that is not from a page of our own (Fetch, 3.2; Fetch Metadata, 2.2).

    `hosts`: names of ours, without ports, in lower case.
    """
    origin, site = (request.get(name) for name in _BROWSER_FIELDS)
    host = (request.get(b"host") or b"").lower()
    if origin is None and site is None:
        # To a name that is not localhost, without TLS, a browser says neither with a GET of the page's own.
        if (request.get(b"user-agent") or b"").startswith(b"Mozilla/") and not _is_ours(host, hosts):
            raise Forbidden(_NOT_OURS)
        return
    if origin is not None and (not host or origin.lower().partition(b"://")[2] != host):
        raise Forbidden("cross-origin requests may not use this relay's provider key")
    if site is not None and site not in (b"same-origin", b"none"):
        raise Forbidden("cross-site requests may not use this relay's provider key")
    if not _is_ours(host, hosts):
        raise Forbidden(_NOT_OURS)


def check_authority(request: RequestHead, certificate: Certificate) -> None:
    """Raises Misdirected for a request over TLS whose authority is not the certificate's: it was meant for another
    server, which its client believes to share the connection (RFC 9110, 7.4)."""
    host = request.get(b"host")
    if host and not certificate.covers(host):
        raise Misdirected(
            "this server's certificate is not for that host", f"{host.decode()} was asked; it is {certificate}"
        )


def _is_ours(host: bytes, hosts: frozenset[bytes]) -> bool:
    name = host.partition(b"]")[0][1:] if host.startswith(b"[") else host.partition(b":")[0]
    if name == b"localhost" or name in hosts:
        return True
    try:
        ipaddress.ip_address(name.decode("latin-1"))
    except ValueError:
        return False
    return True
