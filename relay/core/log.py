"""What can still be replayed of one generation: its events, kept by reference while they are few, then packed.

        oldest                                            tail
          |  packed 64  |  packed 64  |  loose 64  | recent |
             one bytes, and where its events end       the very objects that came

An event is found by its number, without a search: a segment begins at every 64th. Packing costs one copy of an event,
after its delivery, and saves the 50 bytes that an object and its place in a list cost; large events are left as they
are. Nothing is forgotten below `limit`; above it the oldest go.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import accumulate, pairwise

SEGMENT = 64
# What the events of a segment may have together to be copied into one (bytes): above it their objects cost nothing.
_PACKED_LIMIT = 128 * 1024
# So many bytes may come before the log looks at its bounds.
_LOOK = 64 * 1024


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
        size = self.size(len(self.events))
        if size <= _PACKED_LIMIT:
            self.ends = array("I", accumulate(map(len, self.events), initial=0))
            self.data = b"".join(self.events)
            self.events = []


class EventLog:
    """`tail`: events so far; they count from 1. `oldest`: the first that is kept, tail + 1 for none. `total`: bytes of
    all events so far. `limit`: bytes below which nothing is forgotten. `looked` is called now and then, every 64 KiB or
    64 events at the latest, so that somebody may mind the sum over all logs."""

    __slots__ = ("_forgotten", "_limit", "_look_at", "_looked", "_recent", "_segments", "oldest", "tail", "total")

    def __init__(self, limit: int, looked: Callable[[], None] | None = None) -> None:
        self._limit = limit
        self._looked = looked
        self._segments: dict[int, _Segment] = {}
        self._recent = _Segment(1, 0)
        self._forgotten = 0
        self._look_at = _LOOK
        self.tail = 0
        self.oldest = 1
        self.total = 0

    @property
    def kept(self) -> int:
        """Bytes that can be replayed."""
        return self.total - self._forgotten

    def append(self, event: bytes) -> None:
        """Keep one whole event."""
        self.tail += 1
        self.total += len(event)
        self._recent.events.append(event)
        if self.total >= self._look_at or not self.tail % SEGMENT:
            self._look()

    def read(self, after: int, limit: int) -> list[bytes]:
        """The events behind number `after`, oldest first: as many as fit into `limit` bytes, but one at least where
        there is one. `after` must be from oldest - 1 to tail."""
        events: list[bytes] = []
        while after < self.tail:
            segment = self._segment(after + 1)
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
        segment = self._segment(seq)
        return segment.start + segment.size(seq + 1 - segment.first)

    def forget(self, until: int) -> None:
        """Let go of the events up to number `until`; of packed ones only where their whole segment may go."""
        while self.oldest <= until:
            segment = self._segment(self.oldest)
            if segment.ends is None:
                size = len(segment.events.pop(0))
                segment.first += 1
                segment.start += size
                self.oldest += 1
            elif segment.first + len(segment) - 1 <= until:
                size = len(segment.data)
                self.oldest += len(segment)
            else:
                return
            self._forgotten += size
            if self.oldest > segment.first + len(segment) - 1 and segment is not self._recent:
                del self._segments[(self.oldest - 2) // SEGMENT]

    def _segment(self, seq: int) -> _Segment:
        recent = self._recent
        return recent if seq >= recent.first else self._segments[(seq - 1) // SEGMENT]

    def _look(self) -> None:
        recent = self._recent
        if not self.tail % SEGMENT:
            if recent.events:
                recent.pack()
                self._segments[(self.tail - 1) // SEGMENT] = recent
            self._recent = _Segment(self.tail + 1, self.total)
        self._look_at = self.total + _LOOK
        while self.kept > self._limit:
            segment = self._segment(self.oldest)
            oldest = segment.data if segment.ends is not None else segment.events[0]
            if self.kept - len(oldest) < self._limit:
                break
            self.forget(self.oldest + (len(segment) if segment.ends is not None else 1) - 1)
        if self._looked is not None:
            self._looked()
