"""One reader's place behind a producer: straight to its socket while that takes everything, through a ring when not.

        producer -> reader.out.send,  out  is  the sink       the socket takes everything; the ring does not exist
                                           is  the reader     the sink said `block`; pieces wait in the ring
                                           is  NOBODY         the sink has gone

`out` is one of these, so that the usual way costs no test and no call of its own. (An object whose method is called,
not a bound method: that would be one object more to be fetched for every event, and whatever belongs to one stream
alone has left the processor's caches by the time of its next event.) The sink says `block` when its socket is full and
`unblock` when it has taken all it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from relay.flow.gate import Gate
from relay.flow.overflow import DRAIN_BYTES, Overflow
from relay.flow.ring import RingBuffer


class Out(Protocol):
    """What takes pieces."""

    def send(self, piece: bytes, /) -> None:
        """Take one; never empty."""


class Sink(Out, Protocol):
    """Where a reader's pieces go: one message on a connection. `net` implements it. What it is sent it frames and
    writes, at once or at the end of the loop's turn; then, or while another is sent something, it may say `block`."""

    def finish(self) -> None:
        """Everything was sent: end the message cleanly."""

    def abort(self) -> None:
        """End the message so that the peer sees that it is not whole. What was sent still arrives where it can."""


class Reader:
    """`gate` is the producer's. Until a sink is attached, pieces wait in the ring. `stall`: for how many seconds its
    socket may take nothing, if its connection allows no less."""

    __slots__ = ("_closing", "_gate", "_holding", "_overflow", "_ring", "_sink", "out", "stall")

    def __init__(self, overflow: Overflow, gate: Gate) -> None:
        self._overflow = overflow
        self._gate = gate
        self._sink: Sink | None = None
        self._ring: RingBuffer | None = None
        self._holding = False
        self._closing: Callable[[], None] | None = None
        self.out: Out = self
        self.stall = math.inf

    @property
    def waiting(self) -> int:
        """Bytes that wait in the ring."""
        return self._ring.size if self._ring is not None else 0

    @property
    def gone(self) -> bool:
        """Whether pieces are dropped, because nobody takes them any more."""
        return self.out is NOBODY

    @property
    def blocked(self) -> bool:
        return self.out is self

    def attach(self, sink: Sink, *, blocked: bool) -> None:
        """The sink is there at last: give it what has waited, unless it must first get rid of something else."""
        self._sink = sink
        if not blocked:
            self.unblock()

    def block(self) -> None:
        if not self.gone:
            self.out = self

    def unblock(self) -> None:
        """The sink takes bytes again. What waits goes first, in few large writes, until the sink blocks again."""
        sink = self._sink
        if sink is None:
            return
        self.out = sink
        ring = self._ring
        if ring is not None:
            while ring and not self.blocked:
                sink.send(ring.take(DRAIN_BYTES))
                if self._ring is not ring:
                    return  # the sink has gone in that very call
            self._consult()
            if ring:
                # Later pieces must not overtake those that still wait.
                self.out = self
                return
            self._ring = None
        if self._closing is not None and not self.blocked:
            closing, self._closing = self._closing, None
            closing()

    def finish(self) -> None:
        """No piece follows: end the message when the last one has been taken."""
        self._close(self._finish)

    def abort(self, last: bytes = b"") -> None:
        """As `finish`, but the end is an abort, behind a last piece that says why."""
        if last:
            self.out.send(last)
        self._close(self._abort)

    def detach(self) -> None:
        """The sink is gone: drop what waits and let the producer go."""
        self._sink = None
        self._ring = None
        self._closing = None
        self.out = NOBODY
        if self._holding:
            self._holding = False
            self._gate.release()

    def _close(self, closing: Callable[[], None]) -> None:
        if self._ring or self.blocked:
            self._closing = closing
        else:
            closing()

    def _finish(self) -> None:
        if self._sink is not None:
            self._sink.finish()

    def _abort(self) -> None:
        if self._sink is not None:
            self._sink.abort()

    def send(self, piece: bytes) -> None:
        """Keep a piece until the sink takes it. Producers call `out.send`, which is this while the sink is blocked."""
        if self._ring is None:
            self._ring = RingBuffer()
        self._ring.push(piece)
        self._consult()

    def _consult(self) -> None:
        assert self._ring is not None
        hold = self._overflow.holds(self._ring, self._holding)
        if hold and not self._holding:
            self._holding = True
            self._gate.hold()
        elif self._holding and not hold:
            self._holding = False
            self._gate.release()


class _Nobody:
    __slots__ = ()

    def send(self, piece: bytes) -> None:
        """Drop it."""


# Where pieces go whose reader has left.
NOBODY: Out = _Nobody()
