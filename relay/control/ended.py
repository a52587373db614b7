"""What is remembered of streams that are gone: their last state, so that a cancel that comes late is answered as the
first was, and a caller that asks is told how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.control.state import describe

if TYPE_CHECKING:
    from relay.control.generation import Generation

# How many, the latest: about 1 KiB each.
_LIMIT = 1024


class Final(NamedTuple):
    owner: bytes
    document: dict[str, object]


class Ended:
    __slots__ = ("_streams",)

    def __init__(self) -> None:
        self._streams: dict[str, Final] = {}

    def note(self, generation: Generation) -> None:
        """A generation has ended. Of plain answers only those that were cancelled are remembered: who did may ask
        again."""
        if not generation.is_stream and generation.error is None:
            return
        if len(self._streams) >= _LIMIT:
            del self._streams[next(iter(self._streams))]
        self._streams[generation.stream_id] = Final(generation.owner, describe(generation))

    def find(self, stream_id: str) -> Final | None:
        return self._streams.get(stream_id)
