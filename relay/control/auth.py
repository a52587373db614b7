"""Who may call. There are no accounts yet; what is here keeps other people's web pages from spending a provider key.

A relay on a developer's machine listens on loopback, where every page in that developer's browser can reach it. A
route with a key of its own therefore refuses requests that a browser sent for another origin: no CORS header would
let the page read the answer, but the generation would be paid for.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from relay.control.router import Upstream
from relay.errors import Forbidden
from relay.wire.http1 import RequestHead


def check_origin(request: RequestHead, upstream: Upstream) -> None:
    """Raises Forbidden for a browser's cross-origin request to an upstream whose key we hold (Fetch, 3.2)."""
    if upstream.credential is None:
        return
    origin = request.get(b"origin")
    if origin is None:
        return
    host = request.get(b"host") or b""
    if urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") != host:
        raise Forbidden("cross-origin requests may not use this relay's provider key")
