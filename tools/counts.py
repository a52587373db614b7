"""What reached the provider: counters that can be waited for, and the form of recent requests; no polling."""

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
)


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
        self._values = dict.fromkeys(COUNTERS, 0)
        self._open = 0
        self._waiting: list[tuple[dict[str, int], asyncio.Future[None]]] = []

    def add(self, name: str, number: int = 1) -> None:
        self._values[name] += number
        if self._waiting:
            self._wake()

    def add_open(self, number: int) -> None:
        self._open += number
        if self._waiting:
            self._wake()

    def document(self) -> dict[str, int]:
        return {**self._values, "connections_open": self._open}

    def reset(self) -> None:
        """All to zero; the open connections stay what they are."""
        self._values = dict.fromkeys(COUNTERS, 0)

    def _met(self, goals: dict[str, int]) -> bool:
        return all(
            self._open == goal if name == "connections_open" else self._values[name] >= goal
            for name, goal in goals.items()
        )

    def _wake(self) -> None:
        for goals, met in self._waiting:
            if not met.done() and self._met(goals):
                met.set_result(None)

    async def reached(self, goals: dict[str, int], timeout: float) -> bool:
        """Whether all goals are met within `timeout` seconds: `connections_open` exactly, others at least."""
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
