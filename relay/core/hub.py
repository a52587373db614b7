"""Which streams there are, by their names; and which of them are let go when all together keep too much.

A stream has its own id; what else it is known by (a provider's id of the response, a caller's key) is an alias. A
finished one stays until its time is over or its room is needed: then the finished go, those that ended first before
the others. Of those that still run, only what can be replayed goes, the largest one's first, and as long as it will do
nothing of its newest part, which readers who lag may still lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

# What a stream costs that is kept, besides its events (bytes).
OVERHEAD = 6144


class Kept(Protocol):
    """What has a name here."""

    stream_id: str

    @property
    def weight(self) -> int:
        """What can be read of it again, in bytes; 0 where nothing is kept."""

    def forget(self, *, all_of_it: bool) -> None:
        """It still runs, but the oldest of what has come cannot be read again, or nothing of it."""

    def removed(self) -> None:
        """It will not be found any more: nothing here refers to it."""


K = TypeVar("K", bound=Kept)


class Hub(Generic[K]):
    """`limit`: bytes that all logs may keep together."""

    __slots__ = ("_aliases", "_finished", "_limit", "_names", "_sizes", "_streams", "bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._streams: dict[str, K] = {}
        self._finished: dict[str, K] = {}
        self._aliases: dict[tuple[object, ...], K] = {}
        self._names: dict[str, list[tuple[object, ...]]] = {}
        self._sizes: dict[str, int] = {}
        self.bytes = 0

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: K) -> None:
        self._streams[stream.stream_id] = stream

    def find(self, stream_id: str) -> K | None:
        return self._streams.get(stream_id)

    def alias(self, name: tuple[object, ...], stream: K) -> None:
        """Let it be known by this as well; the first to have a name keeps it."""
        if name not in self._aliases and stream.stream_id in self._streams:
            self._aliases[name] = stream
            self._names.setdefault(stream.stream_id, []).append(name)

    def known_as(self, name: tuple[object, ...]) -> K | None:
        return self._aliases.get(name)

    def finished(self, stream: K) -> None:
        """It will not grow any more, and may go when room is needed."""
        if stream.stream_id in self._streams:
            self._finished[stream.stream_id] = stream
            self.looked(stream)

    def looked(self, stream: K) -> None:
        """Its log has grown, or lost something."""
        if stream.stream_id not in self._streams:
            return
        self._weigh(stream)
        if self.bytes > self._limit:
            self._make_room()

    def remove(self, stream: K) -> None:
        """Nobody will find it any more."""
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self._finished.pop(stream.stream_id, None)
        self.bytes -= self._sizes.pop(stream.stream_id, 0)
        for name in self._names.pop(stream.stream_id, ()):
            del self._aliases[name]
        stream.removed()

    def _weigh(self, stream: K) -> None:
        size = stream.weight + OVERHEAD
        self.bytes += size - self._sizes.get(stream.stream_id, 0)
        self._sizes[stream.stream_id] = size

    def _make_room(self) -> None:
        while self.bytes > self._limit and self._finished:
            self.remove(next(iter(self._finished.values())))
        for all_of_it in (False, True):
            while self.bytes > self._limit and self._sizes:
                largest = self._streams[max(self._sizes, key=self._sizes.__getitem__)]
                before = self.bytes
                largest.forget(all_of_it=all_of_it)
                self._weigh(largest)
                if self.bytes >= before:
                    break
