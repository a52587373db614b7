"""Who is calling, as far as it can be known: the client's address, and the id it gave its request.

What a client says of itself is believed only as far as a network that is trusted vouches for it (RFC 7239, section 8).
"""

from __future__ import annotations

import hashlib
import ipaddress

from relay.control.tokens import token
from relay.wire import headers
from relay.wire.head import Headers, RequestHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Cookies aside: they change while their owner stays.
_CREDENTIALS = headers.CREDENTIALS - {b"cookie"}
_REQUEST_ID_LIMIT = 128
_REQUEST_ID_MARKS = frozenset("-_.:/+=")


def request_id(request: RequestHead) -> str:
    """The caller's own id if it is fit to be logged and sent on, else a new one."""
    given = request.get(b"x-request-id")
    if given and len(given) <= _REQUEST_ID_LIMIT and given.isascii():
        text = given.decode()
        if all(char.isalnum() or char in _REQUEST_ID_MARKS for char in text):
            return text
    return token(12)


def owner(request: RequestHead) -> bytes:
    """Whose request it is, as far as its credentials tell: a digest of them, so that none is kept; empty for none."""
    given = [value for name, value in request.headers if name in _CREDENTIALS]
    return hashlib.sha256(b"\0".join(given)).digest() if given else b""


def forwarded(peer: str, request: RequestHead, trusted: tuple[Network, ...]) -> Headers:
    """What may be believed of what the request says about those before the peer."""
    return headers.forwarded_fields(request) if _is_trusted(peer, trusted) else []


def client_address(peer: str, request: RequestHead, trusted: tuple[Network, ...]) -> str:
    """The nearest address that is not a proxy of ours: read from the right, since everything to the left of it is that
    client's own word."""
    address = peer
    hops = [
        hop.strip()
        for name, value in forwarded(peer, request, trusted)
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ]
    while hops and _is_trusted(address, trusted):
        hop = hops.pop()
        if not _is_address(hop):
            break
        address = hop
    return address


def _is_trusted(text: str, trusted: tuple[Network, ...]) -> bool:
    if not trusted or not _is_address(text):
        return False
    address = ipaddress.ip_address(text)
    return any(address in network for network in trusted)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
