"""Time finer than the wheel's, for what is held back by milliseconds: one timer for all who wait.

The wheel (timers.py) is coarse because nothing it knows of is exact; a flush after 20 ms is. Whoever waits is in a
heap, and the loop has one timer, for the first of them.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count


class Pulse:
    """`at` cannot be taken back: who is called looks whether it still matters. Nobody waits for more than seconds, so
    what is left of a stream that has ended is soon gone."""

    __slots__ = ("_loop", "_numbers", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._numbers = count()  # of two with the same time the first comes first
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return self._loop.time()

    def soon(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._waiting, (when, next(self._numbers), call))
        if self._waiting[0][0] == when:
            self._arm()

    def close(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._waiting[0][0], self._turn)

    def _turn(self) -> None:
        self._timer = None
        waiting = self._waiting
        now = self._loop.time()
        try:
            # No more than there were when this began: who asks again for a time that is over must not hold the loop.
            for _ in range(len(waiting)):
                if not waiting or waiting[0][0] > now:
                    break
                heapq.heappop(waiting)[2]()
        finally:
            if waiting and self._timer is None:
                self._arm()
