"""What can still be replayed of one generation: its events, kept by reference, small ones packed behind their delivery.

        oldest                                            tail
          |  packed 64  |  packed 64  |  loose 64  | recent |
             one bytes, and where its events end       the very objects that came

An event is found by its number, without a search: a segment begins at every 64th. Packing costs one copy of an event,
and saves the 50 bytes that an object and its place in a list cost; where events are large, they are left as they are.
Nothing is forgotten below `limit`; above it the oldest go.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, pairwise
from typing import Protocol

SEGMENT = 64
# Events of so many bytes on average are not worth a copy: their objects cost less than a third of what they are.
_LOOSE = 192
# The log looks at its bounds where a segment ends; and behind an event of so many bytes, because such fill it sooner,
LARGE = 1024
# if so many bytes have come since it did.
_LOOK = SEGMENT * LARGE


class _Segment:
    """Events from number `first` on; `start` bytes of the stream came before them. Either packed into `data` with
    their `ends`, or loose in `events`."""

    __slots__ = ("data", "ends", "events", "first", "start")

    def __init__(self, first: int, start: int) -> None:
        self.first = first
        self.start = start
        self.events: list[bytes] = []
        self.data = b""
        self.ends: array[int] | None = None

    def __len__(self) -> int:
        return len(self.events) if self.ends is None else len(self.ends) - 1

    def size(self, count: int) -> int:
        """Bytes of its first `count` events."""
        return self.ends[count] if self.ends is not None else sum(map(len, self.events[:count]))

    def since(self, skip: int) -> list[bytes]:
        """Its events but the first `skip`."""
        if self.ends is None:
            return self.events[skip:] if skip else self.events
        data = self.data
        return [data[start:end] for start, end in pairwise(self.ends[skip:])]

    def pack(self) -> None:
        if self.size(len(self.events)) < _LOOSE * len(self.events):
            self.ends = array("I", accumulate(map(len, self.events), initial=0))
            self.data = b"".join(self.events)
            self.events = []


class Keeper(Protocol):
    """Who minds how much all logs keep together."""

    def looked(self) -> None:
        """The log has grown, or lost something."""


class EventLog:
    """`oldest`: the first event that is kept, tail + 1 for none. `limit`: bytes below which nothing is forgotten.
    `keeper` is told now and then, behind 64 events and 128 KiB at the latest. `recent` are the newest events, from
    number `base` + 1 on: who appends to it himself calls `settle` behind every event of LARGE bytes and every one whose
    number is a multiple of SEGMENT."""

    __slots__ = (
        "_counted",
        "_forgotten",
        "_keeper",
        "_limit",
        "_look_at",
        "_segment",
        "_segments",
        "_total",
        "base",
        "oldest",
        "recent",
    )

    def __init__(self, limit: int, keeper: Keeper | None = None) -> None:
        self._limit = limit
        self._keeper = keeper
        self._segments: dict[int, _Segment] = {}
        self._segment = _Segment(1, 0)
        self.recent = self._segment.events
        self.base = 0
        self._total = self._counted = 0  # bytes of all events but the newest: of `recent`, so many are in it
        self._forgotten = 0
        self._look_at = _LOOK
        self.oldest = 1

    @property
    def tail(self) -> int:
        """Events so far; they count from 1."""
        return self.base + len(self.recent)

    @property
    def total(self) -> int:
        """Bytes of all events so far."""
        if self._counted != len(self.recent):
            self._total += sum(map(len, self.recent[self._counted :]))
            self._counted = len(self.recent)
        return self._total

    @property
    def kept(self) -> int:
        """Bytes that can be replayed."""
        return self.total - self._forgotten

    def append(self, event: bytes) -> None:
        """Keep one whole event."""
        self.recent.append(event)
        if len(event) >= LARGE or not self.tail % SEGMENT:
            self.settle()

    def read(self, after: int, limit: int) -> list[bytes]:
        """The events behind number `after`, oldest first: as many as fit into `limit` bytes, but one at least where
        there is one. `after` must be from oldest - 1 to tail."""
        events: list[bytes] = []
        while after < self.tail:
            segment = self._find(after + 1)
            for event in segment.since(after + 1 - segment.first):
                limit -= len(event)
                if limit < 0 and events:
                    return events
                events.append(event)
                after += 1
        return events

    def position(self, seq: int) -> int:
        """Bytes of the stream up to the end of event `seq`, which is kept, or the last that was forgotten."""
        if seq == self.tail:
            return self.total
        if seq < self.oldest:
            return self._forgotten
        segment = self._find(seq)
        return segment.start + segment.size(seq + 1 - segment.first)

    def quarter(self, spared: int) -> int:
        """The event up to which about the oldest quarter stands, but for the newest `spared` bytes; oldest - 1 for
        none."""
        most = min(self.oldest + (self.tail - self.oldest) // 4 + SEGMENT, self.tail)
        least = self.oldest - 1
        while least < most:
            middle = (least + most + 1) // 2
            if self.total - self.position(middle) >= spared:
                least = middle
            else:
                most = middle - 1
        return least

    def forget(self, until: int) -> None:
        """Let go of the events up to number `until`; of packed ones only where their whole segment may go."""
        while self.oldest <= until:
            segment = self._find(self.oldest)
            if segment.ends is None:
                size = self._pop(segment)
            elif segment.first + len(segment) - 1 <= until:
                size = len(segment.data)
                self.oldest += len(segment)
            else:
                return
            self._forgotten += size
            if self.oldest > segment.first + len(segment) - 1 and segment is not self._segment:
                del self._segments[(self.oldest - 2) // SEGMENT]

    def _pop(self, segment: _Segment) -> int:
        """The oldest event, which is loose, goes; its size."""
        if segment is self._segment:
            _ = self.total  # which has counted it by now
            self._counted -= 1
            self.base += 1
        size = len(segment.events.pop(0))
        segment.first += 1
        segment.start += size
        self.oldest += 1
        return size

    def _find(self, seq: int) -> _Segment:
        return self._segment if seq >= self._segment.first else self._segments[(seq - 1) // SEGMENT]

    def settle(self) -> None:
        """Look at the bounds; and begin a new segment behind every SEGMENT events."""
        tail, total = self.tail, self.total
        if not tail % SEGMENT:
            segment = self._segment
            if segment.events:
                segment.pack()
                self._segments[(tail - 1) // SEGMENT] = segment
            self._segment = _Segment(tail + 1, total)
            self.recent, self.base, self._counted = self._segment.events, tail, 0
        elif total < self._look_at:
            return
        self._look_at = total + _LOOK
        while self.kept > self._limit:
            segment = self._find(self.oldest)
            oldest = segment.data if segment.ends is not None else segment.events[0]
            if self.kept - len(oldest) < self._limit:
                break
            self.forget(self.oldest + (len(segment) if segment.ends is not None else 1) - 1)
        if self._keeper is not None:
            self._keeper.looked()
