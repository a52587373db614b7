"""The head of a message, whatever version of HTTP brought it (RFC 9110): its fields, its target, its body's framing.

http1.py and heads2.py parse heads into these and write them out again. What both versions have to refuse, because two
parties could read it differently, is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from relay.errors import RemoteProtocolError

Headers = list[tuple[bytes, bytes]]

FIELD_COUNT_LIMIT = 100
TARGET_LIMIT = 8 * 1024
INFORMATIONAL_LIMIT = 10

_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")
# A segment of one or two dots, it or its slashes plain or percent-encoded: another party may resolve it and so leave
# the route.
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\?;]|%2f|%5c|$)", re.IGNORECASE)
# What a party that decodes twice would read as a dot or a slash.
_DOUBLY_ENCODED = re.compile(rb"%25(?:2e|2f|5c)", re.IGNORECASE)

NO_FIELDS: Headers = []  # shared by all bare heads; nobody adds to a parsed head


@dataclass(frozen=True, slots=True)
class Framing:
    """How a body is delimited. `length` is None where the coding or the connection's end tells. `chunked`: it has no
    declared length, but an end that cannot be mistaken (in HTTP/2, END_STREAM)."""

    length: int | None = None
    chunked: bool = False

    @property
    def empty(self) -> bool:
        return self.length == 0

    @property
    def until_close(self) -> bool:
        return self.length is None and not self.chunked


EMPTY = Framing(length=0)
CHUNKED = Framing(chunked=True)
UNTIL_CLOSE = Framing()


@dataclass(frozen=True, slots=True)
class RequestHead:
    """`target` is in origin form (or `*`); header names are in lower case, the authority stands in Host; `framing` is
    of the body to come; `version` as the Via field names it: 1.0, 1.1 or 2."""

    method: bytes
    target: bytes
    headers: Headers
    framing: Framing
    version: bytes
    keep_alive: bool
    expects_continue: bool
    _bare: RequestHead | None = field(default=None, init=False, repr=False, compare=False)

    def get(self, name: bytes) -> bytes | None:
        return find(self.headers, name)

    def bare(self) -> RequestHead:
        """The head without its fields: what is worth keeping while an answer streams (they are most of its size). The
        same one for all who ask."""
        if not self.headers:
            return self
        if self._bare is None:
            object.__setattr__(self, "_bare", replace(self, headers=NO_FIELDS))
        assert self._bare is not None
        return self._bare

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]


@dataclass(frozen=True, slots=True)
class ResponseHead:
    status: int
    headers: Headers
    framing: Framing
    keep_alive: bool

    def get(self, name: bytes) -> bytes | None:
        return find(self.headers, name)


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a field; `name` in lower case."""
    for key, value in headers:
        if key == name:
            return value
    return None


def connection_options(headers: Headers) -> set[bytes]:
    """The options of the Connection field, in lower case (RFC 9110, section 7.6.1)."""
    return {option.strip().lower() for name, value in headers if name == b"connection" for option in value.split(b",")}


def check_target(method: bytes, target: bytes) -> None:
    """Raises RemoteProtocolError for a method that is not served, and for a target that could be read in two ways."""
    if method in (b"CONNECT", b"TRACE"):
        raise RemoteProtocolError("method not served", 501)
    if target == b"*" and method == b"OPTIONS":
        return
    if not target.startswith(b"/"):
        raise RemoteProtocolError("the target must be a path")
    if target.startswith(b"//") or _DOUBLY_ENCODED.search(target.partition(b"?")[0]):
        raise RemoteProtocolError("the path can be read in two ways")
    if b"#" in target:
        raise RemoteProtocolError("the target holds a fragment")
    if _DOT_SEGMENT.search(target.partition(b"?")[0]):
        raise RemoteProtocolError("the path holds a dot segment")


def is_authority(value: bytes) -> bool:
    """Whether a Host field or :authority is a host, with a port or without (RFC 9110, section 7.2)."""
    return _AUTHORITY.fullmatch(value) is not None


def content_length(values: list[bytes]) -> int | None:
    """The one length that the Content-Length fields declare, None for none. Raises RemoteProtocolError."""
    if not values:
        return None
    if len(values) > 1:
        raise RemoteProtocolError("more than one Content-Length")
    # Digits by the ABNF; int() would take signs, underscores and blanks.
    if not values[0].isdigit() or len(values[0]) > 18:
        raise RemoteProtocolError("malformed Content-Length")
    return int(values[0])
