"""One coarse wheel for all timeouts, monotonic.

Nobody owns a timer object. Something that has deadlines registers itself with the wheel for the nearest of them; when
that tick comes, it looks at its own state and answers when it wants to be asked again. So a deadline that every event
would push back costs nothing per event: the event leaves a mark, and the next look finds it.

        tick 17:  [connection, connection, exchange]
        tick 18:  [exchange]                              due(now) -> seconds until the next look, or 0 for none
        tick 52:  [pool]

Deadlines are met late by at most TICK, never early. A loop that was held up goes through the ticks it missed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

# Coarse enough that 10,000 streams cost nothing, fine enough for the shortest timeouts (seconds).
TICK = 0.05
# A time that is a tick's own must not fall behind it for a floating-point error (ticks).
_ROUNDING = 1e-6


class Timed(Protocol):
    """What may be registered. `tick` belongs to the wheel and begins as 0."""

    tick: int

    def due(self, now: float) -> float:
        """Look at the deadlines. Return when to look again, in the clock's seconds; 0 for never."""


class Wheel:
    """`now` is the clock of everything that needs none better: seconds, monotonic, at most TICK old between `start`
    and `close` (older while the loop is held up)."""

    __slots__ = ("_done", "_loop", "_ticks", "_timer", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Sets in the order of their registration: what is forgotten must not stay in memory until its tick comes.
        # Each with its own number, which all in it share: an object less for every stream.
        self._ticks: dict[int, tuple[int, dict[Timed, None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.now = loop.time()
        self._done = int(self.now / TICK)

    def start(self) -> None:
        self._timer = self._loop.call_later(TICK, self._turn)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ticks.clear()

    def watch(self, timed: Timed, when: float) -> None:
        """See to it that `due` is called at `when` at the latest; an earlier look that is planned already stays."""
        tick = max(math.ceil(when / TICK - _ROUNDING), self._done + 1)
        if 0 < timed.tick <= tick:
            return
        self.forget(timed)
        timed.tick, planned = self._ticks.setdefault(tick, (tick, {}))
        planned[timed] = None

    def forget(self, timed: Timed) -> None:
        """It wants no further look."""
        planned = self._ticks.get(timed.tick)
        if planned is not None:
            planned[1].pop(timed, None)
            if not planned[1]:
                del self._ticks[timed.tick]
        timed.tick = 0

    def _turn(self) -> None:
        # First of all, so that nothing below can stop the wheel.
        self._timer = self._loop.call_later(TICK, self._turn)
        self.now = now = self._loop.time()
        reached = int(now / TICK + _ROUNDING)
        # After a long halt (a suspended machine) it is cheaper to ask which ticks exist than to count through all.
        missed = range(self._done + 1, reached + 1)
        late = missed if len(missed) < len(self._ticks) else sorted(tick for tick in self._ticks if tick <= reached)
        self._done = reached
        for tick in late:
            for timed in self._ticks.pop(tick, (tick, {}))[1]:
                if timed.tick == tick:  # else one looked at before it in this tick has made it forget
                    timed.tick = 0
                    self._look(timed, now)

    def _look(self, timed: Timed, now: float) -> None:
        try:
            when = timed.due(now)
        except Exception as error:  # a defect in one must not cost the others their timeouts
            self._loop.call_exception_handler({"message": f"a timeout of {timed!r} failed", "exception": error})
            return
        if when:
            self.watch(timed, when)


class Alarm:
    """A single deadline with a callback, for what has no object of its own to register."""

    __slots__ = ("_call", "_wheel", "_when", "tick")

    def __init__(self, wheel: Wheel, after: float, call: Callable[[], None]) -> None:
        self.tick = 0
        self._call: Callable[[], None] | None = call
        self._wheel = wheel
        self._when = wheel.now + after
        wheel.watch(self, self._when)

    def cancel(self) -> None:
        self._call = None
        self._wheel.forget(self)

    def due(self, now: float) -> float:
        if self._call is None:
            return 0
        if now < self._when:
            return self._when
        call, self._call = self._call, None
        call()
        return 0


async def within(wheel: Wheel, seconds: float, work: Coroutine[Any, Any, T], undo: Callable[[T], None]) -> T:
    """Await `work` for at most so many seconds; TimeoutError past them. Whatever way this is left, `work` has ended:
    `undo` gets a result that came too late to be returned."""
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        task.cancel()

    task = asyncio.ensure_future(work)
    alarm = Alarm(wheel, seconds, expire)
    try:
        return await task
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            undo(task.result())
        current = asyncio.current_task()
        if late and (current is None or not current.cancelling()):
            raise TimeoutError from None
        raise
    finally:
        alarm.cancel()
