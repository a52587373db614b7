"""When held-back events leave, so that bursts come out evenly and none later than its bound.

        provider   |||||           |            |||
        reader     | | | | |       |            | | |
                   <-bound->

An event that meets nobody waiting leaves at once. Of a burst, each leaves after an equal share of what is left of the
bound, and the share is that of the event with the least time, so that a new burst behind an old one delays nothing
past its own bound. Times in seconds, of any one clock.
"""

from __future__ import annotations

from collections import deque


class Smoother:
    """`bound`: how long an event may wait. `waiting`: how many do."""

    __slots__ = ("_bound", "_due", "next_at", "waiting")

    def __init__(self, bound: float) -> None:
        self._bound = bound
        # Of each burst: how many of it wait, and until when they must have left.
        self._due: deque[list[float]] = deque()
        self.waiting = 0
        self.next_at = 0.0

    def arrive(self, now: float, count: int) -> None:
        """So many events have come."""
        if not self.waiting:
            self.next_at = now
        self._due.append([count, now + self._bound])
        self.waiting += count

    def release(self, now: float) -> int:
        """How many may leave now; `next_at` is when the next may, if any wait."""
        if not self.waiting or now < self.next_at:
            return 0
        leaving = 1
        self._leave()
        # Those whose time is over, because this came late.
        while self._due and self._due[0][1] <= now:
            self._leave()
            leaving += 1
        self.next_at = now + self._share(now)
        return leaving

    def clear(self) -> None:
        """All have left by another way."""
        self._due.clear()
        self.waiting = 0

    def _leave(self) -> None:
        burst = self._due[0]
        burst[0] -= 1
        self.waiting -= 1
        if not burst[0]:
            self._due.popleft()

    def _share(self, now: float) -> float:
        """The wait between two events with which all leave in time, and the last of a burst a share before its time:
        what wakes us is never early."""
        share, before = self._bound, 1.0
        for count, until in self._due:
            before += count
            share = min(share, (until - now) / before)
        return share
