"""How long a provider may take: to begin its answer, to its first event, between two, and in all.

A silence that is not the provider's does not count: while the client sends its request, and while the provider is held
because a reader does not take what there is.
"""

from __future__ import annotations

import time
from typing import Protocol

from relay.control.asking import Asking
from relay.control.office import Timing
from relay.core.stream import Stream
from relay.errors import RelayError, UpstreamCut, UpstreamTimeout
from relay.wire.dialect import Ending

# How long a stream may be silent before its last event is looked at (seconds): one whose provider has sent the
# terminal event, but not closed, ends then.
SETTLE = 5.0


class Watched(Protocol):
    """A body on its way: whether it has begun, and when the last of it came, by the wheel's clock."""

    began: bool
    active: float


class Patience:
    """`started_at`: when the request came, by the monotonic clock; `answered_at`: when the answer's head did, by the
    wheel's."""

    __slots__ = ("_held_at", "_started_at", "_timing", "answered_at")

    def __init__(self, timing: Timing, started_at: float) -> None:
        self._timing = timing
        self._started_at = started_at
        self.answered_at = 0.0
        self._held_at = 0.0  # when it was not being read, at the last look

    @property
    def first_look(self) -> float:
        """Seconds from the answer's head until the first of its deadlines may have come."""
        timing = self._timing
        return min(limit for limit in (timing.first_event, timing.idle, SETTLE) if limit)

    def look(self, now: float, asking: Asking, transfer: Watched | None) -> tuple[RelayError | None, float]:
        """What has lasted too long, if anything; and when to look again, 0 for never."""
        looks = [
            self._total(now),
            self._asked(now, asking) if transfer is None else self._streaming(now, asking, transfer),
        ]
        error = next((found for found, _ in looks if found is not None), None)
        return error, min((when for _, when in looks if when), default=0)

    def _total(self, now: float) -> tuple[RelayError | None, float]:
        total = self._timing.total
        if not total:
            return None, 0
        left = self._started_at + total - time.monotonic()
        late = UpstreamTimeout(f"the exchange took longer than {total:g} s") if left <= 0 else None
        return late, now + left

    def _asked(self, now: float, asking: Asking) -> tuple[RelayError | None, float]:
        limit = self._timing.head
        since = asking.since(now) if limit else None
        if since is None:
            return None, 0
        if now - since >= limit:
            return UpstreamTimeout(f"the provider did not begin its answer in {limit:g} s"), 0
        return None, since + limit

    def _streaming(self, now: float, asking: Asking, transfer: Watched) -> tuple[RelayError | None, float]:
        if asking.gate is None:
            return None, 0
        timing = self._timing
        if asking.gate.closed:
            self._held_at = now
        heard_at = max(transfer.active, self._held_at)
        limit = timing.idle if transfer.began else timing.first_event
        # Comments keep a stream alive, but are no first event.
        since = heard_at if transfer.began else max(self.answered_at, self._held_at)
        if limit and now - since >= limit:
            what = "was silent for" if transfer.began else "sent no event for"
            return UpstreamTimeout(f"the provider {what} {limit:g} s"), 0
        when = since + limit if limit else now + SETTLE
        if isinstance(transfer, Stream):
            if now - heard_at >= SETTLE and transfer.began and transfer.ending() is not Ending.OPEN:
                return UpstreamCut("the provider did not end its answer"), 0
            when = min(when, now + min(timing.idle or SETTLE, SETTLE))
        return None, when
