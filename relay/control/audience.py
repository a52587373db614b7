"""Who reads a generation, and how long it may be without a reader.

        read ----leave----> given up        nothing of it is kept, or nobody knows what it is called
          ^  ----leave----> orphaned ----grace is over, or too many are----> given up
          |------listen------|

What becomes of it then is generation.py's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

from relay.control.office import Office
from relay.errors import CloseReason, Orphaned, RelayError


class Listener(Protocol):
    """An exchange whose answer this is."""

    @property
    def takes_body(self) -> bool:
        """Whether a plain answer may still be passed on to it."""

    def opened(self) -> None:
        """The provider has answered: `status`, `fields` and what follows them are known."""

    def ended(self, error: RelayError | None) -> None:
        """There will be no more of it. What waits has yet to be delivered."""


class Audience(ABC):
    """The half of a Generation that knows its listeners: no object of its own, because each stream would have one more.
    `grace`: for how many seconds it may be without one, where the relay allows as many. `last_disconnect`: why
    the last one left, unless it had come to the end."""

    __slots__ = ("_listeners", "_office", "_orphaned_at", "grace", "last_disconnect")

    def __init__(self, office: Office, grace: float) -> None:
        self._office = office
        self.grace = grace
        self.last_disconnect: str | None = None
        self._listeners: tuple[Listener, ...] = ()
        self._orphaned_at = 0.0

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether it has ended."""

    @property
    @abstractmethod
    def outlives(self) -> bool:
        """Whether there is something that a reader could come back to."""

    @abstractmethod
    def give_up(self, error: RelayError) -> None:
        """Nobody will want the rest of it."""

    @abstractmethod
    def _watch(self, after: float) -> None:
        """Look at the time again in so many seconds."""

    @property
    def readers(self) -> int:
        return len(self._listeners)

    def listen(self, listener: Listener) -> None:
        self._orphaned_at = 0.0
        self._office.orphans.pop(self, None)
        self._listeners = (*self._listeners, listener)

    def leave(self, listener: Listener, reason: CloseReason, *, known: bool) -> None:
        """A listener has gone. `known`: it may come back, because it knows what this is called."""
        if listener not in self._listeners:
            return
        self._listeners = tuple(other for other in self._listeners if other is not listener)
        if reason is not CloseReason.FINISHED:
            self.last_disconnect = reason.value
        if self._listeners or self.over:
            return
        if self.outlives and self.grace and (known or self.grace == math.inf):
            self.expect()
        else:
            self.give_up(Orphaned("the reader has left"))

    def visit(self) -> None:
        """Somebody asks how it goes: that counts as a reader who comes back."""
        if self._orphaned_at:
            self._orphaned_at = self._office.wheel.now

    def expect(self) -> None:
        """Nobody reads it, but somebody knows its name. Of too many such, the one that has been so for longest ends."""
        orphans = self._office.orphans
        self._orphaned_at = self._office.wheel.now
        orphans.pop(self, None)
        orphans[self] = None
        if len(orphans) > self._office.retention.orphans:
            next(iter(orphans)).give_up(Orphaned("too many streams have no reader"))
        self._watch(self._orphan_left(self._orphaned_at))

    def _orphan_left(self, now: float) -> float:
        """Seconds that it may still be without a reader."""
        return self._orphaned_at + min(self.grace, self._office.retention.orphan) - now

    def _due_orphan(self, now: float) -> float:
        """End it if it has been without a reader for too long; when to look again, 0 for never."""
        if not self._orphaned_at:
            return 0
        left = self._orphan_left(now)
        if left <= 0:
            self.give_up(Orphaned("nobody has come back to read the stream"))
        return now + left
