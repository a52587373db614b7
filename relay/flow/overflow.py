"""How much may wait for a reader, and what happens then: the one place that decides.

`pause` is the overflow of transparent streams and of plain bodies, which have one reader: above the high mark the
producer is no longer read, below the low one it is again. Between the marks nothing changes, so that a reader at the
edge does not switch the producer at every piece.

The others are for readers of a log, whose place in it is all that they cost:

    merge        adjacent text deltas become one event; past the bounds as `disconnect`
    disconnect   past the bounds the reader is cut off, and may resume
    drop         past the high mark the oldest go, down to the low one, and the reader is told which
"""

from __future__ import annotations

import enum
import functools
import math
from dataclasses import dataclass

from relay.flow.ring import RingBuffer

KIB = 1024


class Mode(enum.StrEnum):
    """What is done for a reader that lags; the values of `Relay-Overflow` and of a route's `overflow`."""

    MERGE = "merge"
    DISCONNECT = "disconnect"
    PAUSE = "pause"
    DROP = "drop"


class Verdict(enum.Enum):
    """What follows from how far a reader lags."""

    KEEP = enum.auto()
    PAUSE = enum.auto()  # hold the producer
    RESUME = enum.auto()  # let it go on
    DROP = enum.auto()  # drop the oldest that wait, down to the low mark
    END = enum.auto()  # the reader is too far behind


@dataclass(frozen=True, slots=True)
class Overflow:
    """Marks in bytes, `low` < `high`; and at most so many `pieces`, because crumbs cost more than their bytes."""

    high: int
    low: int
    pieces: int

    def holds(self, ring: RingBuffer, held: bool) -> bool:
        """Whether the producer shall wait now, given whether it waits already."""
        return self.exceeds(ring.size, len(ring), held)

    def exceeds(self, size: int, pieces: int, held: bool) -> bool:
        most, count = (self.low, self.pieces // 4) if held else (self.high, self.pieces)
        return size > most or pieces > count


# How long events may be held back to leave together or evenly (seconds), and how many.
MOST_HELD = 5.0
MOST_EVENTS_HELD = 1000
# What one write gives to a socket that has fallen behind: the size of a socket's default buffer, roughly.
DRAIN_BYTES = 64 * KIB
ANSWER = Overflow(high=256 * KIB, low=64 * KIB, pieces=10_000)
# A request's body is waiting for a provider connection or for a provider that reads slowly.
REQUEST = Overflow(high=64 * KIB, low=16 * KIB, pieces=1000)


# How far a reader may lag before he is cut off.
LAG_BYTES = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a reader of a log may lag: `bytes`, `events`, or its oldest missing event `age` seconds old; and for how
    many seconds its socket may take nothing (`stall`, or its connection's own limit if that is shorter)."""

    mode: Mode
    bytes: int = LAG_BYTES
    events: int = 10_000
    age: float = 60.0
    stall: float = 30.0

    def verdict(self, size: int, events: int, held: bool) -> Verdict:
        """What to do for a reader that lacks so many bytes and events; `held`: it holds the producer already."""
        match self.mode:
            case Mode.PAUSE:
                hold = ANSWER.exceeds(size, events, held)
                if hold == held:
                    return Verdict.KEEP
                return Verdict.PAUSE if hold else Verdict.RESUME
            case Mode.DROP:
                return Verdict.DROP if ANSWER.exceeds(size, events, held=False) else Verdict.KEEP
            case _:
                return Verdict.END if size > self.bytes or events > self.events else Verdict.KEEP

    @property
    def age_limit(self) -> float:
        """For how many seconds an event may wait; 0 where it may for ever."""
        return self.age if self.mode in (Mode.MERGE, Mode.DISCONNECT) else 0.0


@functools.cache
def lag(mode: Mode) -> Lag:
    """The bounds of a mode. A paused provider is the connection's to end, as it is for a transparent stream."""
    return Lag(mode, stall=math.inf) if mode is Mode.PAUSE else Lag(mode)


def chosen(asked: Mode | None, *, kept: bool, first: bool, merges: bool) -> Lag:
    """What holds for a reader who, or whose route, has asked for this, or for nothing. `kept`: he could come back for
    what he lacks. `first`: he began the stream; only then may he hold it up: others have no claim on its other readers'
    time. `merges`: the stream has text that can be merged."""
    mode = asked or (None if kept else Mode.PAUSE)
    if mode is None or (mode is Mode.PAUSE and not first):
        mode = Mode.MERGE if merges else Mode.DISCONNECT
    return lag(mode)
