"""The access line: one JSON object, or one line for people, per request.

What a line holds is said in `Line`; a key, a prompt, a query string or an Authorization is nowhere in it. Lines are
collected and written by a thread, so that a terminal or a pipe that does not take them holds nobody up; what is past
its bound is dropped and counted.
"""

from __future__ import annotations

import datetime
import os
import queue
import threading
import time
from typing import TypedDict

import orjson

from relay.errors import CloseReason, RelayError
from relay.wire.head import RequestHead

# As much memory as a stuck log may cost: some 5 MB, at 1 KB for the longest line there is 10 MB.
LINES_LIMIT = 10_000
# So long (seconds) the first line waits for others.
GATHER = 0.05
_METHOD_LIMIT = 32
_PATH_LIMIT = 256
_ID_LIMIT = 128


class Line(TypedDict, total=False):
    """Times in milliseconds from the request's head on; `http` and `upstream_http` are the versions spoken; `bytes` and
    `events` came from the provider for the client, `bytes_in` from the client; `merged`
    of the events went inside another, `dropped` not at all. A resumable stream has a line of its own
    when it ends, with `generation`: its readers' lines say how far each of them came."""

    time: str
    request_id: str
    stream_id: str
    generation: str
    upstream_request_id: str
    client: str
    http: str
    method: str
    path: str
    route: str | None
    upstream: str | None
    status: int
    dialect: str
    bytes_in: int
    bytes: int
    events: int
    merged: int
    dropped: int
    upstream_http: str | None
    attempts: int
    first_event_ms: float | None
    duration_ms: float
    reason: str
    error: str
    detail: str


class Record:
    """What is known of an exchange so far; its line when it has ended. Times by the monotonic clock, 0 for not yet."""

    __slots__ = (
        "attempts",
        "client",
        "dialect",
        "error",
        "first_at",
        "http",
        "method",
        "path",
        "request_id",
        "route",
        "started_at",
        "status",
        "stream_id",
        "upstream",
        "upstream_http",
        "upstream_request_id",
    )

    def __init__(self, request: RequestHead, client: str, request_id: str, stream_id: str, dialect: str) -> None:
        self.started_at = time.monotonic()
        self.first_at = 0.0
        self.request_id = request_id
        self.stream_id = stream_id
        self.client = client
        self.http = request.version
        self.method = request.method[:_METHOD_LIMIT]
        self.path = request.path[:_PATH_LIMIT]
        self.dialect = dialect
        self.route: str | None = None
        self.upstream: str | None = None
        self.upstream_http: str | None = None
        self.upstream_request_id: bytes | None = None
        self.attempts = 0
        self.status = 0
        self.error: RelayError | None = None

    def line(self, reason: CloseReason, *, bytes_in: int, bytes_out: int, events: int) -> Line:
        # Who joins late finds the first event there.
        first = _ms(max(self.first_at - self.started_at, 0.0)) if self.first_at else None
        line: Line = {
            "time": "",
            "request_id": self.request_id,
            "stream_id": self.stream_id,
            "client": self.client,
            "http": self.http.decode(),
            "method": self.method.decode("ascii", "replace"),
            "path": self.path.decode("ascii", "replace"),
            "route": self.route,
            "upstream": self.upstream,
            "status": self.status,
            "dialect": self.dialect,
            "bytes_in": bytes_in,
            "bytes": bytes_out,
            "events": events,
            "upstream_http": self.upstream_http,
            "attempts": self.attempts,
            "first_event_ms": first,
            "duration_ms": _ms(time.monotonic() - self.started_at),
            "reason": reason.value,
        }
        if self.upstream_request_id is not None:
            line["upstream_request_id"] = self.upstream_request_id[:_ID_LIMIT].decode("ascii", "replace")
        if self.error is not None:
            line["error"] = self.error.code
            line["detail"] = self.error.detail or self.error.message
        return line

    def end_line(
        self,
        reason: CloseReason,
        error: RelayError | None,
        *,
        generation: str,
        status: int,
        bytes_out: int,
        events: int,
    ) -> Line:
        """Of a stream that outlives its readers, when it has ended."""
        line: Line = {
            "request_id": self.request_id,
            "stream_id": self.stream_id,
            "generation": generation,
            "route": self.route,
            "upstream": self.upstream,
            "status": status,
            "dialect": self.dialect,
            "bytes": bytes_out,
            "events": events,
            "upstream_http": self.upstream_http,
            "attempts": self.attempts,
            "duration_ms": _ms(time.monotonic() - self.started_at),
            "reason": reason.value,
        }
        if error is not None:
            line["error"] = error.code
            line["detail"] = error.detail or error.message
        return line


class AccessLog:
    """`form` is "json", "text" or "off"; `fd` where lines go. Lines are gathered here and written by a thread of their
    own, many at once; `dropped` counts those that nobody took."""

    def __init__(self, form: str, fd: int = 1) -> None:
        self._form = form
        self._fd = fd
        # One buffer: lines that wait as objects of their own leave holes in the heap, which cost 4 MB.
        self._waiting = bytearray()
        self._lines = 0
        self._lock = threading.Lock()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()  # false: it is the end
        self.dropped = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._form != "off":
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, for at most two seconds."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join(timeout=2)

    def write(self, line: Line) -> None:
        if self._form == "off":
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        whole: Line = {**line, "time": now} if "time" in line else {"time": now, **line}
        data = _json(whole) if self._form == "json" else _text(whole)
        with self._lock:
            if self._lines >= LINES_LIMIT:
                self.dropped += 1
                return
            self._waiting += data
            self._lines += 1
            first = self._lines == 1
        if first:
            self._wake.put(True)

    def _run(self) -> None:
        while self._wake.get():
            # Others follow where there are many: a thread that is woken for each takes the loop's core from it.
            time.sleep(GATHER)
            self._put()
        self._put()

    def _put(self) -> None:
        with self._lock:
            data, self._waiting = memoryview(self._waiting), bytearray()
            lines, self._lines = self._lines, 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # a full disk, a closed pipe: requests go on, the loss is counted
            with self._lock:
                self.dropped += lines


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _json(line: Line) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _text(line: Line) -> bytes:
    first = line.get("first_event_ms")
    parts = [
        line["time"],
        line.get("client", "-"),
        str(line.get("status", 0)),
        line.get("method", "-"),
        # Printable ASCII by the parser; a refused head never gets here with its path.
        line.get("path", "-"),
        f"upstream={line.get('upstream') or '-'}",
        f"events={line.get('events', 0)}",
        f"bytes={line.get('bytes', 0)}",
        f"first={first:.1f}ms" if first is not None else "first=-",
        f"total={line.get('duration_ms', 0.0) / 1000:.3f}s",
        f"request={line.get('request_id', '-')}",
        f"stream={line.get('stream_id', '-')}",
        line.get("error") or line.get("reason", "-"),
    ]
    if "detail" in line:
        parts.append(f"({line['detail']})")
    return (" ".join(parts) + "\n").encode()
