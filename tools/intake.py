"""Requests out of bytes, tolerantly: a provider that refuses little shows what a relay really sent.

Takes HTTP/1.0 and 1.1 heads with CR LF or bare LF, bodies by Content-Length or chunked (RFC 9112). It keeps
field names and values as they came. No socket and no clock here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

MAX_HEAD = 1024 * 1024
MAX_BODY = 256 * 1024 * 1024


class BadRequest(ValueError):
    """Bytes that are no request; `status` is what to answer before closing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request; `headers` in the order and spelling of the wire."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """The first value of `name` (in lower case), or None."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def keeps_alive(self) -> bool:
        tokens = [token.strip() for token in (self.header("connection") or "").lower().split(",")]
        return self.version != "HTTP/1.0" and "close" not in tokens

    def description(self) -> dict[str, object]:
        """What the echo and the list of recent requests tell about it."""
        return {
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body_length": len(self.body),
            "body_sha256": hashlib.sha256(self.body).hexdigest(),
        }


class Intake:
    """One connection's incoming bytes. Feed it, then ask `request()` until it gives None.

    `expects` is true while a reader waits for `100 Continue` before it sends the body.
    """

    __slots__ = ("_buffer", "_chunk_left", "_length", "_request", "_trailers", "expects")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._request: Request | None = None
        self._length: int | None = None  # of the body; None: chunked
        self._chunk_left: int | None = None  # None: a size line is next; else data and its CR LF
        self._trailers = False
        self.expects = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def waiting(self) -> int:
        """Bytes not yet read into a request."""
        return len(self._buffer)

    def request(self) -> Request | None:
        """The next complete request, or None. Raises BadRequest."""
        if self._request is None and not self._read_head():
            return None
        request = self._request
        assert request is not None
        complete = self._read_chunks(request.body) if self._length is None else self._read_length(request.body)
        if len(request.body) > MAX_BODY:
            raise BadRequest(413, f"a body over {MAX_BODY} bytes")
        if not complete:
            return None
        self._request = None
        self.expects = False
        return request

    def _read_head(self) -> bool:
        buffer = self._buffer
        # RFC 9112, 2.2: empty lines before the request line are skipped.
        while buffer.startswith((b"\r", b"\n")):
            del buffer[:1]
        ends = [(at, at + len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := buffer.find(mark, 0, MAX_HEAD)) >= 0]
        if not ends:
            if len(buffer) > MAX_HEAD:
                raise BadRequest(431, f"a head over {MAX_HEAD} bytes")
            return False
        end, body = min(ends)
        lines = bytes(buffer[:end]).decode("latin-1").replace("\r\n", "\n").split("\n")
        del buffer[:body]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            raise BadRequest(400, f"not a request line: {lines[0][:100]!r}")
        headers: list[tuple[str, str]] = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequest(400, f"not a header field: {line[:100]!r}")
            headers.append((name, value.strip(" \t")))
        request = self._request = Request(words[0], words[1], words[2], headers)
        self._chunk_left, self._trailers = None, False
        if "chunked" in (request.header("transfer-encoding") or "").lower():
            self._length = None
        else:
            length = request.header("content-length") or "0"
            if not (length.isascii() and length.isdigit()):
                raise BadRequest(400, f"not a content-length: {length[:100]!r}")
            self._length = int(length)
        self.expects = (request.header("expect") or "").lower() == "100-continue" and self._length != 0
        return True

    def _read_length(self, body: bytearray) -> bool:
        assert self._length is not None
        missing = self._length - len(body)
        body += self._buffer[:missing]
        del self._buffer[:missing]
        return len(body) == self._length

    def _read_chunks(self, body: bytearray) -> bool:
        buffer = self._buffer
        while True:
            if self._chunk_left is not None and not self._read_chunk_data(body):
                return False
            end = buffer.find(b"\n")
            if end < 0:
                if len(buffer) > MAX_HEAD:
                    raise BadRequest(400, "an endless line in a chunked body")
                return False
            line = bytes(buffer[:end]).rstrip(b"\r")
            del buffer[: end + 1]
            if self._trailers:
                if not line:
                    return True
                continue
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadRequest(400, f"not a chunk size: {line[:100]!r}") from None
            if size < 0:
                raise BadRequest(400, f"not a chunk size: {line[:100]!r}")
            self._trailers = size == 0
            self._chunk_left = size + 2 if size else None

    def _read_chunk_data(self, body: bytearray) -> bool:
        """Move what is there of the chunk; the CR LF that ends it stays until both bytes have come."""
        assert self._chunk_left is not None
        data = min(self._chunk_left - 2, len(self._buffer))
        body += self._buffer[:data]
        del self._buffer[:data]
        self._chunk_left -= data
        if self._chunk_left > 2 or len(self._buffer) < 2:
            return False
        del self._buffer[:2]
        self._chunk_left = None
        return True
