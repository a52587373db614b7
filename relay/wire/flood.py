"""How often a peer may say what costs us more than it: a budget for each kind of HTTP/2 frame.

HTTP/2 lets a peer ask for work in a few bytes: a reset stream, a PING to be answered, a setting to be remembered. Each
kind has a bucket that refills with time; a peer that empties one is flooding, and its connection ends with
ENHANCE_YOUR_CALM (RFC 9113, section 10.5). The numbers are those that Envoy, Go and nghttp2 arrived at after their
own floods, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """`now` in seconds, monotonic."""

    now: float


class Bucket:
    """Holds `size` tokens, refilled by `rate` a second."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, size: int, rate: float) -> None:
        self._size = self._level = float(size)
        self._rate = rate
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take a token; False if that was the last one, or there was none."""
        if now > self._at:
            self._level = min(self._size, self._level + (now - self._at) * self._rate)
            self._at = now
        self._level -= 1
        return self._level > 0


@dataclass(slots=True)
class Budgets:
    """One connection's. Sizes are tokens; rates are tokens a second."""

    # Streams that were reset, by the peer or for its mistakes: rapid reset and MadeYouReset are the same attack.
    resets: Bucket = field(default_factory=lambda: Bucket(100, 10))
    pings: Bucket = field(default_factory=lambda: Bucket(20, 10))
    settings: Bucket = field(default_factory=lambda: Bucket(20, 10))
    unknown: Bucket = field(default_factory=lambda: Bucket(100, 10))


# WINDOW_UPDATE and PRIORITY are no work of their own; they must be in proportion to what they are about.
WINDOW_UPDATES_FREE = 5
WINDOW_UPDATES_PER_STREAM = 2
WINDOW_UPDATES_PER_DATA = 20
PRIORITIES_PER_STREAM = 100
# Frames behind a HEADERS frame that only carry more of its block.
CONTINUATIONS = 8
# DATA frames without a byte, one after the other.
EMPTY_IN_A_ROW = 10
# Settings in one frame; a peer knows six, and a few of extensions.
SETTINGS_IN_A_FRAME = 32
