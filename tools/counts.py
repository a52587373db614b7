"""What reached the provider: counters that can be waited for, and the form of recent requests; no polling.

What HTTP/2 adds stands in tables of the same document: `http2_connections` (open, opened), `http2_streams` (open, and
the most that were open at once on one connection), `http2_errors` (how many violations of RFC 9113, and the last one
in words), `resets_received` (by error code). Whoever waits names an entry with a dot: `http2_streams.open`,
`resets_received.CANCEL`; a table's name alone is its first entry's, and all of the resets.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dialects import Json

COUNTERS = (
    "connections",
    "connections_silent",
    "requests",
    "opened",
    "finished",
    "aborted",
    "broken",
    "events",
    "bytes",
    # Told to go elsewhere: by REFUSED_STREAM, by silence after a GOAWAY, by the close when only HTTP/2 is wanted.
    "refused",
    "ignored",
    "http1_refused",
    # Frames of HTTP/2.
    "goaways_received",
    "pings_received",
    "window_updates",
)
# Goals that are met by exactly that many, since they go down as well.
EXACT = frozenset({"connections_open", "http2_connections.open", "http2_streams.open"})
SHORT = {"http2_connections": "opened", "http2_streams": "most", "http2_errors": "count"}


@dataclass(slots=True)
class Arrival:
    """A request as it came; times in seconds of the monotonic clock, as the event loop's."""

    description: Json
    connection: int
    arrived: float
    gone: float | None = None

    def document(self) -> Json:
        return {**self.description, "connection": self.connection, "arrived": self.arrived, "gone": self.gone}


class Counts:
    """The counters, and those who wait for them; nobody polls."""

    def __init__(self) -> None:
        self._open = 0
        self._open2 = 0
        self._streams = 0
        self._waiting: list[tuple[dict[str, int], asyncio.Future[None]]] = []
        self.reset()

    def reset(self) -> None:
        """All to zero; the open connections and streams stay what they are."""
        self._values = dict.fromkeys(COUNTERS, 0)
        self._opened2 = self._most = self._errors = 0
        self._last_error: str | None = None
        self._resets: dict[str, int] = {}

    def add(self, name: str, number: int = 1) -> None:
        self._values[name] += number
        if self._waiting:
            self._wake()

    def add_open(self, number: int, *, http2: bool = False) -> None:
        """A counted connection has come (1) or gone (-1)."""
        self._open += number
        if http2:
            self._open2 += number
            self._opened2 += max(0, number)
        if self._waiting:
            self._wake()

    def add_stream(self, number: int, on_connection: int) -> None:
        """A stream has come (1) or gone (-1); its connection carries so many now."""
        self._streams += number
        self._most = max(self._most, on_connection)
        if self._waiting:
            self._wake()

    def add_reset(self, code: str) -> None:
        """A RST_STREAM from a reader."""
        self._resets[code] = self._resets.get(code, 0) + 1
        if self._waiting:
            self._wake()

    def add_error(self, message: str) -> None:
        """A reader has violated HTTP/2, or this provider was about to."""
        self._errors += 1
        self._last_error = message
        if self._waiting:
            self._wake()

    def document(self) -> Json:
        return {
            **self._values,
            "connections_open": self._open,
            "http2_connections": {"open": self._open2, "opened": self._opened2},
            "http2_streams": {"open": self._streams, "most": self._most},
            "http2_errors": {"count": self._errors, "last": self._last_error},
            "resets_received": dict(self._resets),
        }

    def knows(self, name: str) -> bool:
        """Whether the name may stand in a goal."""
        table, dot, entry = name.partition(".")
        if table == "resets_received":
            return True
        value = self.document().get(table)
        return (isinstance(value, dict) and entry in value) if dot else value is not None

    def _value(self, name: str) -> int:
        """As `knows` allows it; entries in words count for nothing."""
        table, dot, entry = name.partition(".")
        value = self._values.get(table)
        if value is None:
            value = self.document()[table]
        if isinstance(value, int):
            return value
        if table == "resets_received" and not dot:
            return sum(value.values())
        number = value.get(entry or SHORT[table], 0)
        return number if isinstance(number, int) else 0

    def _met(self, goals: dict[str, int]) -> bool:
        return all(
            self._value(name) == goal if name in EXACT else self._value(name) >= goal for name, goal in goals.items()
        )

    def _wake(self) -> None:
        for goals, met in self._waiting:
            if not met.done() and self._met(goals):
                met.set_result(None)

    async def reached(self, goals: dict[str, int], timeout: float) -> bool:
        """Whether all goals are met within `timeout` seconds: those of EXACT exactly, others at least."""
        if self._met(goals):
            return True
        entry = goals, asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout):
                await entry[1]
        except TimeoutError:
            return False
        finally:
            self._waiting.remove(entry)
        return True
