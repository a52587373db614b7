"""Which header fields cross the relay, and which it writes itself (RFC 9110, sections 7.6 and 7.7).

Fields that speak of one connection stay on it. Fields that speak of the caller's credentials stay with the relay where
it has credentials of its own. Fields by which a caller says who it is are believed from trusted networks alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.wire.head import Headers, RequestHead, ResponseHead, connection_options

# Each speaks of one connection, not of the message. Connection itself and what it names are the rule (RFC 9110,
# 7.6.1); the others are older than the rule and are dropped even where Connection does not name them.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",  # HTTP/1.0's persistent connections
        b"proxy-connection",  # never standard, sent by old clients to proxies
        b"proxy-authenticate",
        b"proxy-authorization",  # for a proxy in front of the caller; a provider must not see it
        b"te",  # names codings this hop can take; trailers are dropped here
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_FORWARDED = frozenset(
    {b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"x-original-url", b"x-rewrite-url"}
)
_FORWARDED_PREFIX = b"x-forwarded-"
# Where a caller may have put a credential; none of them may meet a provider key of ours.
# (The last two choose what is billed.)
CREDENTIALS = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"cookie",
        b"openai-organization",
        b"openai-project",
    }
)
# Written anew for each hop.
_REWRITTEN = frozenset({b"host", b"content-length", b"expect", b"x-request-id"})
# Of an answer: about the connection's framing or the provider's own origin, not about the message; and what a relay
# behind this one called its own stream.
_ANSWER_DROPPED = frozenset({b"content-length", b"alt-svc", b"x-accel-buffering", b"relay-stream-id"})
_STREAM_DROPPED = frozenset({b"content-type", b"cache-control", b"content-encoding", b"content-length", b"etag"})

# That a request with one of these has no body must be said (RFC 9110, 8.6).
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})

EVENT_STREAM = b"text/event-stream"
_EVENT_STREAM_FIELDS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
# What scripts of another origin may read, where they may read the answer at all (Fetch, 3.2.6).
_EXPOSED = (b"access-control-expose-headers", b"relay-stream-id, relay-last-disconnect, x-request-id")
_OF_ALL_STREAMS = [*_EVENT_STREAM_FIELDS, _EXPOSED]


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A field that carries a provider's key. It has no repr, so that no trace can show it."""

    name: bytes
    value: bytes


def to_upstream(
    request: RequestHead,
    *,
    authority: bytes,
    request_id: bytes,
    credential: Credential | None,
    identity: bool,
    client: bytes | None,
    forwarded: Headers,
) -> Headers:
    """The fields of the request that the provider gets.

    `identity`: ask for an uncompressed answer, because its events will be looked at. `client`: the caller's address if
    the provider shall be told it, with `forwarded` in front of it as trusted networks reported it.
    """
    dropped = HOP_BY_HOP | _REWRITTEN | _FORWARDED | connection_options(request.headers)
    if credential is not None:
        dropped |= CREDENTIALS
    if identity:
        dropped |= {b"accept-encoding"}
    fields: Headers = [(b"host", authority)]
    fields += [field for field in request.headers if not _is_dropped(field[0], dropped)]
    if credential is not None:
        fields.append((credential.name, credential.value))
    if identity:
        fields.append((b"accept-encoding", b"identity"))
    if client is not None:
        fields += _append_client(forwarded, client)
    fields.append((b"x-request-id", request_id))
    fields.append((b"via", b"%b relay" % request.version))
    # Of a body of unknown length each version of HTTP tells in its own way.
    length = request.framing.length
    if length or (length == 0 and (request.method in _WITH_BODY or request.get(b"content-length") is not None)):
        fields.append((b"content-length", b"%d" % length))
    return fields


def forwarded_fields(request: RequestHead) -> Headers:
    """What the caller says of those before it; to be believed only from a trusted network."""
    return [field for field in request.headers if field[0] in _FORWARDED or field[0].startswith(_FORWARDED_PREFIX)]


def to_client(
    response: ResponseHead, *, request_id: bytes, stream_id: bytes, event_stream: bool, cookies: bool
) -> Headers:
    """The fields of the answer that the client gets, its framing aside.

    `event_stream`: the answer is framed as events and gets the fields that keep buffers out of the way. `cookies`:
    whether Set-Cookie may pass; those of a shared provider account concern nobody downstream.
    """
    dropped = HOP_BY_HOP | _ANSWER_DROPPED | connection_options(response.headers)
    if event_stream:
        dropped |= _STREAM_DROPPED
    if not cookies:
        dropped |= {b"set-cookie"}
    fields = [field for field in response.headers if field[0] not in dropped]
    if event_stream:
        fields += _EVENT_STREAM_FIELDS
        vary = response.get(b"vary")
        if vary is None or b"accept-encoding" not in vary.lower():
            fields.append((b"vary", b"Accept-Encoding"))
    # A provider's own id is what its support asks for; ours is in the access line beside it.
    if response.get(b"x-request-id") is None:
        fields.append((b"x-request-id", request_id))
    fields.append((b"relay-stream-id", stream_id))
    if event_stream:
        fields.append(_EXPOSED)
    return fields


def packed(fields: Headers) -> bytes:
    """The fields of an event stream's answer as they are kept for those who come later, without those that all have:
    a list of them is five times as large, and would be the most of what a resumable stream keeps beside its log."""
    return b"".join([b"%b:%b\n" % field for field in fields if field not in _OF_ALL_STREAMS])


def unpacked(kept: bytes) -> Headers:
    """The fields that were packed. (No name has a colon in it, and no value a line's end.)"""
    lines = [line.partition(b":") for line in kept.splitlines()]
    return [*[(name, value) for name, _, value in lines], *_OF_ALL_STREAMS]


def for_others(fields: Headers) -> Headers:
    """Of an answer's fields, those for whoever reads it without having asked for it: a cookie is the asker's own."""
    return [field for field in fields if field[0] != b"set-cookie"]


def of_stream(stream_id: bytes) -> Headers:
    """The fields of an event stream that is read by its own name, before its provider has answered or without it."""
    return [*_EVENT_STREAM_FIELDS, (b"vary", b"Accept-Encoding"), (b"relay-stream-id", stream_id), _EXPOSED]


def is_event_stream(response: ResponseHead) -> bool:
    """Whether the answer is a successful event stream, to be framed; an error of any type passes as it is."""
    kind = response.get(b"content-type") or b""
    return (
        200 <= response.status < 300
        and not response.framing.empty
        and kind.partition(b";")[0].strip().lower() == EVENT_STREAM
    )


def _is_dropped(name: bytes, dropped: frozenset[bytes] | set[bytes]) -> bool:
    # To a provider behind CGI or WSGI an underscore is a dash.
    plain = name.replace(b"_", b"-")
    return plain in dropped or name in dropped or plain.startswith((_FORWARDED_PREFIX, b"relay-"))


def _append_client(forwarded: Headers, client: bytes) -> Headers:
    chain = b", ".join([value for name, value in forwarded if name == b"x-forwarded-for"] + [client])
    kept = [field for field in forwarded if field[0] in (b"x-forwarded-host", b"x-forwarded-proto")]
    return [*kept, (b"x-forwarded-for", chain)]
