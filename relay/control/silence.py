"""What the relay itself says to a reader while the provider says nothing: heartbeats, and before the first token a
placeholder where the reader has asked for one.

A heartbeat is one line of a comment: two line ends behind an id kill an SDK that was measured. Neither is stored,
numbered or counted, and neither is activity of the provider's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from relay.control.office import Timing
from relay.net.service import Client

if TYPE_CHECKING:
    from relay.control.generation import Generation


class Silence:
    """`began_at`: when the reader began to wait, by the wheel. `placeholder`: whether it gets one; there is one at the
    most."""

    __slots__ = ("_beat_at", "_began_at", "_timing", "placeholder")

    def __init__(self, timing: Timing, began_at: float) -> None:
        self._timing = timing
        self._began_at = began_at
        self._beat_at = began_at
        self.placeholder = False

    def look(self, now: float, generation: Generation, client: Client) -> float:
        """Say what is due; return when to look again, 0 for never."""
        looks = (self._beat(now, generation, client), self._hold_up(now, generation, client))
        return min((when for when in looks if when), default=0)

    def _beat(self, now: float, generation: Generation, client: Client) -> float:
        every = self._timing.heartbeat
        if not every:
            return 0
        spoke_at = generation.spoke_at
        if now - max(spoke_at, self._beat_at) >= every:
            self._beat_at = now
            if generation.at_border:
                client.insert(b":\n")
        return max(spoke_at, self._beat_at) + every

    def _hold_up(self, now: float, generation: Generation, client: Client) -> float:
        after = self._timing.placeholder
        if not self.placeholder or not after or generation.events or not generation.at_border:
            return 0
        if now < self._began_at + after:
            return self._began_at + after
        self.placeholder = False
        document = {"id": generation.stream_id, "waited_ms": round((now - self._began_at) * 1000)}
        client.insert(b"event: relay.waiting\ndata: %b\n\n" % orjson.dumps(document))
        return 0
