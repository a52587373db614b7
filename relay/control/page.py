"""The relay's own page, and the module that browsers read streams with (relay/web): files of the package, served as
they are."""

from __future__ import annotations

from importlib import resources

from relay.wire.head import Headers, RequestHead

_SECURE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"),
    (b"referrer-policy", b"no-referrer"),
]
_PAGE: Headers = [
    *_SECURE,
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
]
_SCRIPT = b"text/javascript; charset=utf-8"
_FILES = {
    b"/": ("page.html", b"text/html; charset=utf-8"),
    b"/relay-page.js": ("page.js", _SCRIPT),
    b"/relay-page.css": ("page.css", b"text/css; charset=utf-8"),
    b"/relay.js": ("relay.js", _SCRIPT),
    b"/relay.d.ts": ("relay.d.ts", b"text/plain; charset=utf-8"),
}
_content: dict[str, bytes] = {}


def answer(request: RequestHead) -> tuple[int, Headers, bytes] | None:
    """Status, fields and body; None for a request that is not for these files. `/` is the page only to who wants HTML:
    to programs it is the provider's."""
    found = _FILES.get(request.path)
    if found is None or request.method not in (b"GET", b"HEAD"):
        return None
    name, kind = found
    if request.path == b"/" and b"text/html" not in (request.get(b"accept") or b""):
        return None
    if name not in _content:
        _content[name] = resources.files("relay").joinpath("web", name).read_bytes()
    return 200, [(b"content-type", kind), *(_PAGE if request.path == b"/" else _SECURE)], _content[name]
