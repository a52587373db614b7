"""HTTP/1.1 heads (RFC 9110, RFC 9112): parsed by h11, behind a check that refuses what h11 lets pass.

Everything here is a function of bytes. A head is looked for in the connection's buffer (`find_head`), checked for what
two parsers could read differently (bare LF, folded lines, control bytes, two framings, two lengths), cut into lines,
and only then given to h11, whose events check each part of it. They are made without h11's connection: its second
buffer and its states, which would last for one call, cost 9 us of a request's 34 and 15 of an answer's 30 (CPython
3.11). Bodies are not h11's business: body.py, chunked.py.

Refused although RFC 9112 would let a recipient repair it: obs-fold, bare LF, repeated Content-Length of equal value,
Transfer-Encoding beside Content-Length, absolute-form targets. A relay that repairs a message sends on something that
another party has read differently.
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterable

import h11

from relay.errors import RemoteProtocolError
from relay.wire.head import (
    CHUNKED,
    EMPTY,
    FIELD_COUNT_LIMIT,
    TARGET_LIMIT,
    UNTIL_CLOSE,
    Framing,
    Headers,
    RequestHead,
    ResponseHead,
    check_target,
    connection_options,
    content_length,
    find,
    is_authority,
)

REQUEST_LINE_LIMIT = TARGET_LIMIT
REQUEST_HEAD_LIMIT = 32 * 1024
RESPONSE_HEAD_LIMIT = 64 * 1024

_CONTROL = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: |\r\n)")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")

_QUOTED = re.compile(r":| b['\"]")

# One object each for all connections.
_METHODS = {method: method for method in (b"GET", b"POST", b"DELETE", b"OPTIONS", b"HEAD", b"PUT", b"PATCH")}
_VERSIONS = (b"1.0", b"1.1")

REASONS = {int(status): status.phrase.encode() for status in http.HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def find_head(buffer: bytearray, limit: int, start: int = 0) -> int:
    """Length of the head that stands complete at the buffer's start, 0 if more must come. `start`: how much of the
    buffer has been looked through before.

    Refuses at once what can no longer become a head, so that no buffer fills with garbage: over `limit` bytes, or a
    line that ends in a bare LF.
    """
    end = buffer.find(b"\r\n\r\n", max(start - 3, 0), limit) + 4
    if end >= 4:
        return end
    if len(buffer) >= limit:
        raise RemoteProtocolError("header section too large", 431)
    # Of the bytes that are new, and the last before them.
    if _BARE.search(buffer, max(start - 1, 0)):
        raise RemoteProtocolError("bare CR or LF")
    return 0


def check_request_line(buffer: bytearray, start: int = 0) -> None:
    """Refuse a request line that is too long, before or after its end has come. `start`: where it begins."""
    end = buffer.find(b"\r\n", start, start + REQUEST_LINE_LIMIT + 2)
    if end < 0 and len(buffer) - start > REQUEST_LINE_LIMIT:
        raise RemoteProtocolError("request line too long", 414)


def parse_request(head: bytes) -> RequestHead:
    """Parse one request head, empty line included. Raises RemoteProtocolError with the status to answer."""
    line = _REQUEST_LINE.match(head)
    if not line:
        raise RemoteProtocolError("malformed request line")
    if line[3] != b"1" or line[4] not in b"01":
        raise RemoteProtocolError("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
    _refuse_ambiguous(head)
    minor = int(line[4])
    try:
        event = h11.Request(method=line[1], target=line[2], headers=_fields(head), http_version=_VERSIONS[minor])
    except h11.LocalProtocolError as error:
        raise RemoteProtocolError(_plain(error), _status_hint(error)) from None
    headers = _lower(event)
    check_target(event.method, event.target)
    _check_host(headers, minor)
    expects = find(headers, b"expect")
    if expects is not None and expects.lower() != b"100-continue":
        raise RemoteProtocolError("unknown expectation", 417)
    return RequestHead(
        method=_METHODS.get(event.method, event.method),
        target=event.target,
        headers=headers,
        framing=_framing_fields(headers, minor) or EMPTY,
        version=_VERSIONS[minor],
        keep_alive=minor == 1 and b"close" not in connection_options(headers),
        expects_continue=expects is not None and minor == 1,
    )


def parse_response(head: bytes, method: bytes) -> ResponseHead:
    """Parse one response head, empty line included, of the answer to a request with this method.

    Raises RemoteProtocolError; its status means nothing here.
    """
    line = _STATUS_LINE.match(head)
    if not line:
        raise RemoteProtocolError("malformed status line")
    _refuse_ambiguous(head)
    minor, status = int(line[1]), int(line[2])
    kind = h11.InformationalResponse if status < 200 else h11.Response
    try:
        event = kind(status_code=status, headers=_fields(head), http_version=_VERSIONS[minor])
    except h11.LocalProtocolError as error:
        raise RemoteProtocolError(_plain(error)) from None
    headers = _lower(event)
    return ResponseHead(
        status=status,
        headers=headers,
        framing=_response_framing(headers, status, method, minor),
        keep_alive=minor == 1 and b"close" not in connection_options(headers),
    )


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Serialise a head whose parts have all been parsed or configured, so that nothing in them ends a line."""
    return _serialise(b"%b %b HTTP/1.1\r\n" % (method, target), headers)


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return _serialise(b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"")), headers)


def _serialise(start: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"%b%b\r\n" % (start, b"".join([b"%b: %b\r\n" % field for field in headers]))


def _refuse_ambiguous(head: bytes) -> None:
    # Counted, not searched by one expression for all of it, which would take a fifth of the whole head's time.
    lines = head.count(b"\n")
    bare = head.count(b"\r\n") != lines or head.count(b"\r") != lines
    if bare or b"\n " in head or b"\n\t" in head or head.translate(None, _CONTROL) != head:
        raise RemoteProtocolError("control byte, bare CR or LF, or folded line in the header section")
    if lines > FIELD_COUNT_LIMIT + 2:
        raise RemoteProtocolError("too many header fields", 431)


def _fields(head: bytes) -> Headers:
    """The field lines behind the first line, as they stand: h11 judges names and values (RFC 9112, section 5)."""
    fields = []
    has_length = False
    for line in head[:-4].split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise RemoteProtocolError("a header line without a colon")
        if len(name) == len(b"content-length") and name.lower() == b"content-length":
            # h11 merges lengths that are equal, in fields and in lists; who stands behind us may take another.
            if has_length or b"," in value:
                raise RemoteProtocolError("more than one Content-Length")
            has_length = True
        fields.append((name, value.strip(b" \t")))
    return fields


def _lower(event: h11.Request | h11.Response | h11.InformationalResponse) -> Headers:
    """Names in lower case; the values as h11 has them. (Its own list of the same takes half as long again.)"""
    return [(name.lower(), value) for name, value in event.headers.raw_items()]


def _check_host(headers: Headers, minor: int) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (minor == 1 or hosts):
        raise RemoteProtocolError("one Host field is needed")
    if hosts and hosts[0] and not is_authority(hosts[0]):
        raise RemoteProtocolError("malformed Host")


def _response_framing(headers: Headers, status: int, method: bytes, minor: int) -> Framing:
    # RFC 9112, section 6.3, in its order.
    coding = _framing_fields(headers, minor)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return EMPTY
    return UNTIL_CLOSE if coding is None else coding


def _framing_fields(headers: Headers, minor: int) -> Framing | None:
    """What the fields say of a body, None for nothing. Two answers are one too many."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if codings:
        if lengths:
            raise RemoteProtocolError("Transfer-Encoding beside Content-Length")
        if minor == 0:
            raise RemoteProtocolError("Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise RemoteProtocolError("only the chunked transfer coding is understood", 501)
        return CHUNKED
    length = content_length(lengths)
    return None if length is None else Framing(length=length)


def _status_hint(error: h11.ProtocolError) -> int:
    return error.error_status_hint or 400


def _plain(error: h11.ProtocolError) -> str:
    """h11's own words, less what it quotes of the peer's bytes: those may hold a key."""
    return _QUOTED.split(str(error), maxsplit=1)[0] or "malformed message"
