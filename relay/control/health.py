"""The requests that the relay answers itself: is it alive, does it take requests, what does it speak."""

from __future__ import annotations

from relay.wire.head import Headers, RequestHead

_TEXT: Headers = [(b"content-type", b"text/plain")]
_ALLOW: Headers = [(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]


def answer(request: RequestHead, *, draining: bool) -> tuple[int, Headers, bytes] | None:
    """Status, fields and body; None for a request that is a provider's."""
    if request.target == b"*":
        return 200, _ALLOW, b""
    if request.method not in (b"GET", b"HEAD"):
        return None
    if request.path == b"/healthz":
        return 200, _TEXT, b"ok\n"
    if request.path == b"/readyz":
        return (503, _TEXT, b"draining\n") if draining else (200, _TEXT, b"ok\n")
    return None
