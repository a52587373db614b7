"""What waits for a reader: whole pieces, in order, counted to the byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.flow.ring import RingBuffer


class Ring(RuleBasedStateMachine):
    """Beside a plain list of the same pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = RingBuffer()
        self.pieces: list[bytes] = []

    @rule(piece=st.binary(min_size=1, max_size=20))
    def push(self, piece: bytes) -> None:
        self.ring.push(piece)
        self.pieces.append(piece)

    @precondition(lambda self: self.pieces)
    @rule(limit=st.integers(0, 50))
    def take(self, limit: int) -> None:
        before = len(self.pieces)
        taken = self.ring.take(limit)
        joined = self.pieces.pop(0)
        while self.pieces and len(joined) + len(self.pieces[0]) <= limit:
            joined += self.pieces.pop(0)
        assert taken == joined
        assert len(taken) <= limit or before - len(self.pieces) == 1

    @invariant()
    def sizes(self) -> None:
        assert self.ring.size == sum(map(len, self.pieces))
        assert len(self.ring) == len(self.pieces)


TestRing = Ring.TestCase


def test_a_piece_that_leaves_alone_is_the_object_that_came() -> None:
    ring = RingBuffer()
    pieces = [bytes([65 + at]) * 10 for at in range(3)]
    for piece in pieces:
        ring.push(piece)
    assert all(ring.take(15) is piece for piece in pieces)


@given(st.lists(st.binary(min_size=1, max_size=30)), st.integers(0, 60))
def test_everything_leaves_in_order(pieces: list[bytes], limit: int) -> None:
    ring, taken = RingBuffer(), b""
    for piece in pieces:
        ring.push(piece)
    while ring:
        taken += ring.take(limit)
    assert taken == b"".join(pieces)
    assert ring.size == 0
