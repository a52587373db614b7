"""May a request be sent again? The one place that says so.

Only if the provider took none of it: a connection that had been idle closed without one byte of an answer, so the
request met a closed socket. Never after a byte has gone to the client, never more than once, and only while the whole
body so far is still here.
"""

from __future__ import annotations

from relay.core.request import RequestBody
from relay.errors import UpstreamClosed, UpstreamError

ATTEMPTS = 2


def may_repeat(error: UpstreamError, body: RequestBody, attempts: int) -> bool:
    """`attempts` have been made so far."""
    return isinstance(error, UpstreamClosed) and error.untouched and body.repeatable and attempts < ATTEMPTS
