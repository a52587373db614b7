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
from typing import TypedDict

import orjson

# At 200 bytes a line, as much memory as a stuck log may cost: some 2 MB.
LINES_LIMIT = 10_000


class Line(TypedDict, total=False):
    """Times in milliseconds from the request's head on; `bytes` and `events` went to the client, `bytes_in` came."""

    time: str
    request_id: str
    stream_id: str
    upstream_request_id: str
    client: str
    method: str
    path: str
    route: str | None
    upstream: str | None
    status: int
    dialect: str
    bytes_in: int
    bytes: int
    events: int
    attempts: int
    first_event_ms: float | None
    duration_ms: float
    reason: str
    error: str


class AccessLog:
    """`form` is "json", "text" or "off"; `fd` where lines go."""

    def __init__(self, form: str, fd: int = 1) -> None:
        self._form = form
        self._fd = fd
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.dropped = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._form != "off":
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, for at most two seconds."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=2)

    def write(self, line: Line) -> None:
        if self._form == "off":
            return
        if self._queue.qsize() >= LINES_LIMIT:
            self.dropped += 1
            return
        line["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._queue.put(_json(line) if self._form == "json" else _text(line))

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            lines = [line]
            last = False
            while not self._queue.empty() and len(lines) < 1000:
                more = self._queue.get()
                if more is None:
                    last = True
                    break
                lines.append(more)
            self._put(b"".join(lines), len(lines))
            if last:
                return

    def _put(self, data: bytes, lines: int) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # a full disk, a closed pipe: requests go on, the loss is counted
            self.dropped += lines


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
        f"total={line.get('duration_ms', 0.0):.1f}ms",
        line.get("reason", "-"),
        line.get("request_id", "-"),
    ]
    if "error" in line:
        parts.append(line["error"])
    return (" ".join(parts) + "\n").encode()
