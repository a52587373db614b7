"""Names that nobody guesses, for requests and streams: base64url of the system's random bytes (RFC 4648, section 5).

The bytes are taken from the system in large pieces: two names for each request, and a call of the kernel for each, were
4 % of what a plain request costs.
"""

from __future__ import annotations

import base64
import os

_PIECE = 4096

_random = b""
_at = 0


def token(size: int) -> str:
    """A name of so many random bytes, at most a piece; each byte is used once."""
    global _random, _at
    end = _at + size
    if end > len(_random):
        _random = os.urandom(_PIECE)
        _at, end = 0, size
    taken = _random[_at:end]
    _at = end
    return base64.urlsafe_b64encode(taken).rstrip(b"=").decode()
