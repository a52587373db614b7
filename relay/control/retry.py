"""May a request be sent again? The one place that says so.

Only if the provider took none of it: a connection that had been idle closed without one byte of an answer, so the
request met a closed socket; or the provider says so itself, by REFUSED_STREAM or GOAWAY. Never after a byte has gone
to the client, only so often, and only while the whole body so far is still here.
"""

from __future__ import annotations

from relay.core.request import RequestBody
from relay.errors import UpstreamClosed, UpstreamError, UpstreamRefused

# A closed connection tells of one that is worn out; a refusal, which may come from each of several connections that a
# provider is about to close, costs nobody anything.
ATTEMPTS = 2
ATTEMPTS_REFUSED = 4


def may_repeat(error: UpstreamError, body: RequestBody, attempts: int) -> bool:
    """`attempts` have been made so far."""
    if isinstance(error, UpstreamRefused):
        return body.repeatable and attempts < ATTEMPTS_REFUSED
    return isinstance(error, UpstreamClosed) and error.untouched and body.repeatable and attempts < ATTEMPTS
