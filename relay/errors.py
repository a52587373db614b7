"""One tree of errors, and the one list of reasons why an exchange ended.

An error is raised at the edge where it is found and travels as a value from there on. Each class says the status
that a client gets if not a byte of the answer has left yet, the `code` and `type` of the error body, and whether the
same request may simply be sent again (`retryable`: the provider took none of it).

Messages are read by the client: they name what went wrong and never hold a key, a prompt or a provider's bytes.
"""

from __future__ import annotations

import enum


class CloseReason(enum.StrEnum):
    """Why an exchange ended; one word in the access line, one label in the metrics."""

    FINISHED = "finished"
    REFUSED = "refused"  # answered by the relay itself with an error
    CLIENT_LEFT = "client_left"
    CLIENT_STALLED = "client_stalled"
    CLIENT_BEHIND = "client_behind"  # the reader fell further behind than its overflow allows
    CLIENT_ERROR = "client_error"  # the client broke the protocol in mid-request
    CLIENT_TIMEOUT = "client_timeout"  # the client fell silent in mid-request
    UPSTREAM_CUT = "upstream_cut"  # the provider's answer stopped before its end
    UPSTREAM_ERROR = "upstream_error"  # the provider reported an error inside its stream
    UPSTREAM_INVALID = "upstream_invalid"  # the provider broke the protocol
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CANCELLED = "cancelled"  # somebody cancelled the stream by its id
    ORPHANED = "orphaned"  # nobody had read the stream for as long as it may be without a reader
    DRAINED = "drained"  # the relay stopped


class RelayError(Exception):
    """The root. `status` 400–599; `retry_after` in seconds, None for no such field. `detail` is for the log alone:
    addresses and the system's words, which are no business of a client's."""

    status = 500
    type = "api_error"
    code = "relay_error"
    reason = CloseReason.REFUSED
    retryable = False
    retry_after: int | None = None

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ConfigError(RelayError):
    """A mistake in the configuration or the command line. The message names the place and the way out."""

    code = "config"


class ProtocolError(RelayError):
    """Somebody broke HTTP."""


class RemoteProtocolError(ProtocolError):
    """A peer broke HTTP (RFC 9110, 9112) or said something ambiguous; its connection ends.

    The status is the one for a client; a provider's mistake is wrapped in UpstreamInvalid.
    """

    type = "invalid_request_error"
    code = "bad_request"
    reason = CloseReason.CLIENT_ERROR

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class RequestError(RelayError):
    """The request is well-formed HTTP, but the relay will not serve it."""

    type = "invalid_request_error"


class Forbidden(RequestError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(RequestError):
    status = 404
    type = "not_found_error"
    code = "not_found"


class BadRequest(RequestError):
    """A field or a query that the relay reads itself says something that it cannot mean."""

    status = 400
    code = "bad_request"


class EventsGone(RequestError):
    """The event that is asked for was not kept. `oldest`: the first that is."""

    status = 410
    code = "events_gone"

    def __init__(self, oldest: int) -> None:
        super().__init__(f"that event is no longer kept; the oldest is {oldest}")
        self.oldest = oldest


class NotKept(RequestError):
    """Of the stream that is asked for nothing is kept."""

    status = 410
    code = "not_kept"


class MethodNotAllowed(RequestError):
    """`allow`: the methods that the resource has, as the Allow field lists them."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"this resource has {allow}")
        self.allow = allow


class AheadOfTail(RequestError):
    """The event that is asked for is one that has not come."""

    status = 409
    code = "ahead_of_stream"


class KeyReused(RequestError):
    """An Idempotency-Key that was sent with another body before."""

    status = 422
    code = "idempotency_key_reused"


class RequestPending(RequestError):
    """A request with the same Idempotency-Key is still coming in."""

    status = 409
    code = "request_pending"
    retryable = True
    retry_after = 1


class TooManyOrphans(RequestError):
    """As many streams as may go on without a reader do."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_orphans"
    retryable = True
    retry_after = 1


class Cancelled(RequestError):
    """Somebody cancelled the stream by its id; there will be no more of it."""

    status = 410
    code = "cancelled"
    reason = CloseReason.CANCELLED


class StreamFailed(RequestError):
    """All that came of a stream has been read, and it had failed, by `cause`: asking again changes nothing."""

    status = 410

    def __init__(self, cause: RelayError) -> None:
        super().__init__(f"the stream has ended: {cause.message}")
        self.code = cause.code
        self.type = cause.type


class Orphaned(Cancelled):
    """Nobody was there to read the stream."""

    code = "orphaned"
    reason = CloseReason.ORPHANED


class Misdirected(RequestError):
    status = 421
    code = "misdirected_request"


class RequestTimeout(RequestError):
    status = 408
    type = "timeout_error"
    code = "request_timeout"
    reason = CloseReason.CLIENT_TIMEOUT


class PayloadTooLarge(RequestError):
    status = 413
    type = "request_too_large"
    code = "payload_too_large"


class ClientGone(RelayError):
    """Nobody is there to be told. 499 exists in logs only."""

    status = 499


class ClientLeft(ClientGone):
    """The client's connection ended, or it has cancelled."""

    code = "client_left"
    reason = CloseReason.CLIENT_LEFT


class ClientBroke(ClientGone):
    """The client broke the rules of HTTP/2, which ends its stream or its connection without an answer."""

    code = "client_broke_protocol"
    reason = CloseReason.CLIENT_ERROR


class ClientStalled(ClientGone):
    code = "client_stalled"
    reason = CloseReason.CLIENT_STALLED


class ClientBehind(ClientGone):
    """A reader of a stream that others may still read, or that it may resume."""

    code = "client_behind"
    reason = CloseReason.CLIENT_BEHIND


class UpstreamError(RelayError):
    """The provider, by the phase in which it failed."""

    status = 502
    type = "api_error"
    code = "upstream_error"
    reason = CloseReason.UPSTREAM_INVALID


class PoolFull(UpstreamError):
    """As many requests wait for a provider connection as may."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"
    reason = CloseReason.REFUSED
    retryable = True
    retry_after = 1


class PoolTimeout(UpstreamError):
    """No provider connection became free in time."""

    status = 503
    type = "overloaded_error"
    code = "queue_timeout"
    reason = CloseReason.REFUSED
    retryable = True
    retry_after = 1


class OutOfDescriptors(UpstreamError):
    """The process may open no further socket."""

    status = 503
    type = "overloaded_error"
    code = "out_of_descriptors"
    reason = CloseReason.REFUSED
    retryable = True
    retry_after = 1


class ConnectFailed(UpstreamError):
    code = "upstream_unreachable"
    reason = CloseReason.UPSTREAM_UNREACHABLE
    retryable = True


class ConnectTimeout(ConnectFailed):
    status = 504
    code = "upstream_connect_timeout"
    reason = CloseReason.UPSTREAM_TIMEOUT


class UpstreamClosed(UpstreamError):
    """The provider closed before its answer's head was complete.

    `untouched`: not one byte of an answer had come, on a connection that had served a request before. The provider
    closed it while it was idle, so this request never reached it and may be sent again on a new one.
    """

    code = "upstream_closed"
    reason = CloseReason.UPSTREAM_CUT

    def __init__(self, message: str, *, untouched: bool = False) -> None:
        super().__init__(message)
        self.untouched = untouched


class UpstreamRefused(UpstreamError):
    """The provider says that it took nothing of the request (RFC 9113, 8.7): it may be sent again."""

    status = 503
    type = "overloaded_error"
    code = "upstream_refused"
    reason = CloseReason.UPSTREAM_CUT
    retryable = True
    retry_after = 1


class UpstreamInvalid(UpstreamError):
    """The provider's answer is not HTTP that may be passed on."""

    code = "upstream_invalid"


class UpstreamCut(UpstreamError):
    """The provider's answer stopped before its end."""

    code = "upstream_cut"
    reason = CloseReason.UPSTREAM_CUT


class UpstreamReported(UpstreamError):
    """The provider sent its own error event; it has already reached the client."""

    code = "upstream_reported"
    reason = CloseReason.UPSTREAM_ERROR


class UpstreamTimeout(UpstreamError):
    """The provider was silent for too long: before its head, before its first event, or between two."""

    status = 504
    type = "timeout_error"
    code = "upstream_timeout"
    reason = CloseReason.UPSTREAM_TIMEOUT


class Drained(RelayError):
    """The relay stops and waits no longer."""

    status = 503
    type = "overloaded_error"
    code = "draining"
    reason = CloseReason.DRAINED
