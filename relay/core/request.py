"""A request's body on its way to the provider, and kept for one repeat while nothing of an answer has come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from relay.core.reader import Reader
from relay.core.transfer import Clock
from relay.flow.gate import Gate
from relay.flow.overflow import REQUEST


class RequestBody:
    """`limit`: bytes it may have in all; past them `overrun` is called and the rest is dropped. `keep`: up to so many
    bytes the body is kept for a repeat. `gate` is the client's: it is not read while the provider does not take."""

    __slots__ = (
        "_clock",
        "_gate",
        "_hash",
        "_keep",
        "_kept",
        "_limit",
        "_overrun",
        "_then",
        "active",
        "bytes",
        "ended",
        "reader",
    )

    def __init__(self, gate: Gate, clock: Clock, *, limit: int, keep: int, overrun: Callable[[], None]) -> None:
        self._gate = gate
        self._clock = clock
        self._limit = limit
        self._keep = keep
        self._overrun = overrun
        # One buffer: a body that comes in crumbs must not cost an object for each.
        self._kept: bytearray | None = bytearray()
        self._hash: hashlib._Hash | None = None
        self._then: Callable[[], None] | None = None
        self.reader = Reader(REQUEST, gate)
        self.bytes = 0
        self.active = clock.now
        self.ended = False

    def feed(self, payload: bytes) -> None:
        """The next bytes from the client."""
        self.active = self._clock.now
        self.bytes += len(payload)
        if self.bytes > self._limit:
            self._kept = None
            self._overrun()
            return
        if self._hash is not None:
            self._hash.update(payload)
        if self._kept is not None:
            if self.bytes > self._keep:
                self._kept = None
            else:
                self._kept += payload
        self.reader.out.send(payload)

    def end(self) -> None:
        """The body is whole."""
        self.ended = True
        self.active = self._clock.now
        self.reader.finish()
        self._rest()
        then, self._then = self._then, None
        if then is not None:
            then()

    def then(self, call: Callable[[], None]) -> None:
        """Do this when the body is whole."""
        if self.ended:
            call()
        else:
            self._then = call

    def skim(self, then: Callable[[], None]) -> None:
        """The body goes nowhere, but something happens when it is whole."""
        self.drop()
        self.then(then)

    def digest(self) -> None:
        """Make it comparable. Before its first byte."""
        self._hash = hashlib.sha256()

    def same_as(self, other: RequestBody) -> bool:
        """Whether both are whole, and the same bytes."""
        mine, theirs = self._hash, other._hash
        return (
            self.ended and other.ended and mine is not None and theirs is not None and mine.digest() == theirs.digest()
        )

    @property
    def repeatable(self) -> bool:
        """Whether all that has come is still here."""
        return self._kept is not None

    def rewind(self) -> None:
        """Make ready to be sent from its start once more."""
        assert self._kept is not None
        self.reader.detach()
        self.reader = Reader(REQUEST, self._gate)
        if self._kept:
            self.reader.out.send(bytes(self._kept))
        if self.ended:
            self.reader.finish()

    def settle(self) -> None:
        """An answer has begun: no repeat will be wanted."""
        self._kept = None
        self._rest()

    def _rest(self) -> None:
        """What is sent and will not be sent again needs nothing more for the time that the answer takes."""
        if self.ended and self._kept is None and not self.reader.waiting:
            self._overrun = _nothing
            self.reader = _NO_READER

    def drop(self) -> None:
        """Nobody takes the body any more. What is left of this knows nobody: it may be kept for its digest."""
        self._kept = None
        self.reader.detach()
        self._gate = Gate(None)
        self.reader = _NO_READER

    def part(self) -> None:
        """Whoever sent it has gone, or has his answer."""
        self._overrun = _nothing
        self._then = None


def _nothing() -> None:
    """Of a body whose sender has parted, nobody needs to know that it is too large."""


_NO_READER = Reader(REQUEST, Gate(None))
_NO_READER.detach()
