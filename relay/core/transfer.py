"""A body on its way from one side to the other, as it comes: requests upstream, plain answers downstream.

`feed` is the hot path of everything that is not an event stream. A Stream (stream.py) is the transfer that knows what
an event is.
"""

from __future__ import annotations

from typing import Protocol

from relay.core.reader import Out
from relay.errors import RelayError


class Clock(Protocol):
    """`now` in seconds, monotonic, as coarse as the wheel that turns it: reading an attribute costs no call."""

    now: float


class Receiver(Protocol):
    """What a provider's connection pours an answer's body into."""

    def feed(self, payload: bytes) -> None:
        """The next bytes; never empty."""

    def end(self) -> None:
        """The body ended as its framing says."""

    def fail(self, error: RelayError) -> None:
        """The body stopped before its end."""


class Owner(Protocol):
    """Who wants to know how a transfer went."""

    def transfer_began(self) -> None:
        """The first byte is about to go on."""

    def transfer_ended(self, error: RelayError | None) -> None:
        """The producer is through: cleanly, or not whole for this reason. What waits has yet to be delivered."""


class Target(Protocol):
    """Where pieces go on to: a Reader, or what has many."""

    @property
    def out(self) -> Out:
        """What takes them at the moment."""

    @property
    def gone(self) -> bool:
        """Whether pieces are dropped, because nobody takes them any more."""


class Transfer:
    """`bytes` have been fed; `active` is when the last of them came, by the clock."""

    __slots__ = ("_clock", "_owner", "active", "began", "bytes", "reader")

    def __init__(self, reader: Target, owner: Owner, clock: Clock) -> None:
        self.reader = reader
        self._owner = owner
        self._clock = clock
        self.active = clock.now
        self.bytes = 0
        self.began = False

    def feed(self, payload: bytes) -> None:
        """Pass on the next bytes of the body; never empty."""
        if not self.began:
            self._begin()
        self.bytes += len(payload)
        self.active = self._clock.now
        self.reader.out.send(payload)

    def end(self) -> None:
        """The producer's body ended as its framing says."""
        self._owner.transfer_ended(None)

    def fail(self, error: RelayError) -> None:
        """The producer's body stopped before its end."""
        self._owner.transfer_ended(error)

    def _begin(self) -> None:
        self.began = True
        self._owner.transfer_began()
