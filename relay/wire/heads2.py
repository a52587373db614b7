"""HTTP/2 heads (RFC 9113, sections 8.2 and 8.3): lists of fields in, heads out, and back again.

h2 decodes a block into a list; what makes a list malformed is decided here and nowhere else, for requests, responses
and trailers alike. A malformed message is an error of its stream, so that a mistake in one answer does not cost the
other streams of its connection theirs.
"""

from __future__ import annotations

import re

import hpack

from relay.errors import RemoteProtocolError
from relay.wire.head import (
    CHUNKED,
    EMPTY,
    FIELD_COUNT_LIMIT,
    TARGET_LIMIT,
    Framing,
    Headers,
    RequestHead,
    ResponseHead,
    check_target,
    content_length,
    is_authority,
)

# Section 8.2.1 asks for less; a token without capitals is what HTTP/1.1 can say (RFC 9110, section 5.1).
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_STATUS = re.compile(rb"[1-5]\d\d")
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_RESPONSE_PSEUDO = frozenset({b":status"})
_NO_PSEUDO: frozenset[bytes] = frozenset()
# Of one connection in HTTP/1.1; a message with one of these is malformed (section 8.2.2).
_CONNECTION_FIELDS = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
# What many callers share one connection for must not be guessed at by the size of somebody else's requests, so these
# stay out of the compression's memory (RFC 7541, section 7.1).
_NEVER_INDEXED = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie", b"set-cookie", b"proxy-authorization"}
)


class Malformed(RemoteProtocolError):
    """The message is malformed (section 8.1.1): a stream error, and no answer."""


def parse_request(fields: Headers, *, ended: bool) -> RequestHead:
    """The head of a request; `ended`: no body follows.

    Raises Malformed, or RemoteProtocolError with the status to answer for what is well-formed but not served.
    """
    pseudo, headers = _split(fields, _REQUEST_PSEUDO)
    method, target = pseudo.get(b":method"), pseudo.get(b":path")
    if method is None or not _METHOD.fullmatch(method):
        raise Malformed("no :method, or none that is a token")
    if method == b"CONNECT":
        raise RemoteProtocolError("method not served", 501)
    if not pseudo.get(b":scheme") or not target or not _TARGET.fullmatch(target):
        raise Malformed("no :scheme or no :path, or a :path that is none")
    authority = _authority(pseudo, headers)
    length = _length(headers)
    if len(headers) > FIELD_COUNT_LIMIT:
        raise RemoteProtocolError("too many header fields", 431)
    if len(target) > TARGET_LIMIT:
        raise RemoteProtocolError("request line too long", 414)
    check_target(method, target)
    expects = [value for name, value in headers if name == b"expect"]
    if any(value.lower() != b"100-continue" for value in expects):
        raise RemoteProtocolError("unknown expectation", 417)
    if ended and length:
        raise Malformed("the body is shorter than its content-length")
    return RequestHead(
        method=method,
        target=target,
        headers=[(b"host", authority), *_joined_cookies(headers)],
        framing=EMPTY if ended else CHUNKED if length is None else Framing(length=length),
        version=b"2",
        keep_alive=True,
        expects_continue=bool(expects),
    )


def parse_response(fields: Headers, method: bytes, *, ended: bool) -> ResponseHead:
    """The head of the answer to a request with this method, informational or final. Raises Malformed."""
    pseudo, headers = _split(fields, _RESPONSE_PSEUDO)
    status = pseudo.get(b":status")
    if status is None or not _STATUS.fullmatch(status):
        raise Malformed("no :status, or none that is a number")
    if len(headers) > FIELD_COUNT_LIMIT:
        raise Malformed("too many header fields")
    number = int(status)
    length = _length(headers)
    bodiless = method == b"HEAD" or number < 200 or number in (204, 304)
    if ended and length and not bodiless:
        raise Malformed("the body is shorter than its content-length")
    framing = EMPTY if ended or bodiless else CHUNKED if length is None else Framing(length=length)
    return ResponseHead(status=number, headers=headers, framing=framing, keep_alive=True)


def check_trailers(fields: Headers) -> None:
    """Trailers are dropped, but must be well-formed. Raises Malformed."""
    _split(fields, _NO_PSEUDO)


def request_fields(method: bytes, scheme: bytes, target: bytes, headers: Headers) -> Headers:
    """A request as HTTP/2 says it; of `headers`, Host becomes :authority."""
    authority = next((value for name, value in headers if name == b"host"), b"")
    fields = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", target)]
    return fields + [_guarded(field) for field in headers if field[0] != b"host"]


def response_fields(status: int, headers: Headers) -> Headers:
    return [(b":status", b"%d" % status), *map(_guarded, headers)]


def _guarded(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    return hpack.NeverIndexedHeaderTuple(*field) if field[0] in _NEVER_INDEXED else field


def _split(fields: Headers, known: frozenset[bytes]) -> tuple[dict[bytes, bytes], Headers]:
    """The pseudo-header fields, and the others."""
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    for name, value in fields:
        if name[:1] == b":":
            if headers or name in pseudo or name not in known:
                raise Malformed("a pseudo-header field is late, repeated, or does not belong here")
            pseudo[name] = value
        elif not _NAME.fullmatch(name):
            raise Malformed("a field name is no token in lower case")
        elif name in _CONNECTION_FIELDS or (name == b"te" and value.lower() != b"trailers"):
            raise Malformed("a field of the connection stands in a message")
        else:
            # Plain tuples and bytes: what HPACK hands out may be parts of larger objects.
            headers.append((bytes(name), bytes(value)))
        if _BAD_VALUE.search(value):
            raise Malformed("a field value holds a control byte, or white space around it")
    return pseudo, headers


def _authority(pseudo: dict[bytes, bytes], headers: Headers) -> bytes:
    """The one authority that a request names; Host is taken from `headers`."""
    hosts = [value for name, value in headers if name == b"host"]
    headers[:] = [field for field in headers if field[0] != b"host"]
    authority = pseudo.get(b":authority")
    # Section 8.3.1: a Host that differs makes a request malformed, and without either nobody knows whom it asks.
    named = [*hosts, *([] if authority is None else [authority])]
    if len(hosts) > 1 or not named or len({name.lower() for name in named}) > 1 or not is_authority(named[0]):
        raise Malformed("not one authority, or one that is malformed")
    return named[-1]


def _joined_cookies(headers: Headers) -> Headers:
    """Section 8.2.3: HTTP/2 may split a cookie into several fields; to everybody else it is one."""
    crumbs = [value for name, value in headers if name == b"cookie"]
    if len(crumbs) < 2:
        return headers
    return [field for field in headers if field[0] != b"cookie"] + [(b"cookie", b"; ".join(crumbs))]


def _length(headers: Headers) -> int | None:
    try:
        return content_length([value for name, value in headers if name == b"content-length"])
    except RemoteProtocolError as error:
        raise Malformed(error.message) from None
