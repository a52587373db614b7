"""How much may wait for a reader, and what happens then: the one place that decides.

`pause` is the overflow of transparent streams and of plain bodies, which have one reader: above the high mark the
producer is no longer read, below the low one it is again. Between the marks nothing changes, so that a reader at the
edge does not switch the producer at every piece.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.flow.ring import RingBuffer

KIB = 1024


@dataclass(frozen=True, slots=True)
class Overflow:
    """Marks in bytes, `low` < `high`; and at most so many `pieces`, because crumbs cost more than their bytes."""

    high: int
    low: int
    pieces: int

    def holds(self, ring: RingBuffer, held: bool) -> bool:
        """Whether the producer shall wait now, given whether it waits already."""
        size, pieces = (self.low, self.pieces // 4) if held else (self.high, self.pieces)
        return ring.size > size or len(ring) > pieces


# What one write gives to a socket that has fallen behind: the size of a socket's default buffer, roughly.
DRAIN_BYTES = 64 * KIB
ANSWER = Overflow(high=256 * KIB, low=64 * KIB, pieces=10_000)
# A request's body is waiting for a provider connection or for a provider that reads slowly.
REQUEST = Overflow(high=64 * KIB, low=16 * KIB, pieces=1000)
