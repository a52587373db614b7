"""An error as the answer to a request: its status, its fields, its body in the client's dialect."""

from __future__ import annotations

import orjson

from relay.errors import EventsGone, MethodNotAllowed, RelayError
from relay.wire.dialect import Dialect
from relay.wire.head import Headers


def answer(error: RelayError, dialect: Dialect, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, fields and body."""
    fields: Headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        fields.append((b"retry-after", b"%d" % error.retry_after))
    if error.retryable:
        fields.append((b"x-should-retry", b"true"))
    if isinstance(error, MethodNotAllowed):
        fields.append((b"allow", error.allow.encode()))
    body = dialect.error_body(error, request_id)
    if isinstance(error, EventsGone):
        # Where a reader may begin instead.
        document = orjson.loads(body)
        document["error"]["oldest"] = error.oldest
        body = orjson.dumps(document)
    return error.status, fields, body
