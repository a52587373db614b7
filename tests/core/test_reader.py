"""One reader's place: everything in order, the end once and last, the producer held no longer than it must be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.core.reader import Reader
from relay.flow.overflow import DRAIN_BYTES, Overflow
from tests.core.fakes import Producer, Sink

SMALL = Overflow(high=20, low=5, pieces=1000)


def pair(overflow: Overflow = SMALL, *, attach: bool = True) -> tuple[Reader, Sink, Producer]:
    producer = Producer()
    reader = Reader(overflow, producer.gate)
    sink = Sink(reader)
    if attach:
        reader.attach(sink, blocked=False)
    return reader, sink, producer


def test_while_the_sink_takes_everything_nothing_stands_between() -> None:
    reader, sink, _ = pair()
    assert reader.out is sink
    piece = bytes(10)
    reader.out.send(piece)
    assert sink.pieces[0] is piece
    assert reader.waiting == 0


def test_what_came_before_the_sink_waits_for_it() -> None:
    reader, sink, producer = pair(attach=False)
    reader.out.send(b"a" * 15)
    assert not producer.paused
    reader.out.send(b"b" * 15)
    assert producer.paused
    reader.attach(sink, blocked=False)
    assert sink.body == b"a" * 15 + b"b" * 15
    assert not producer.paused
    assert reader.out is sink


def test_a_sink_that_has_other_things_to_send_first_gets_nothing_yet() -> None:
    reader, sink, _ = pair(attach=False)
    reader.out.send(b"a")
    reader.attach(sink, blocked=True)
    reader.finish()
    assert (sink.pieces, sink.ends) == ([], [])
    reader.unblock()
    assert (sink.pieces, sink.ends) == ([b"a"], ["finish"])


def test_what_waits_goes_in_few_large_writes() -> None:
    reader, sink, _ = pair(Overflow(high=1 << 20, low=1, pieces=1000))
    reader.block()
    for _ in range(1000):
        reader.out.send(b"x" * 200)
    reader.unblock()
    assert sink.body == b"x" * 200_000
    assert len(sink.pieces) == -(-200_000 // (DRAIN_BYTES // 200 * 200))


def test_a_sink_that_blocks_in_the_middle_keeps_the_order() -> None:
    reader, sink, producer = pair()
    reader.block()
    big = [bytes([65 + at]) * DRAIN_BYTES for at in range(3)]
    for piece in big:
        reader.out.send(piece)
    sink.room = 1
    reader.unblock()
    assert sink.pieces == big[:1]
    assert producer.paused
    reader.out.send(b"later")
    sink.room = 1
    reader.unblock()
    sink.room = None
    reader.unblock()
    assert sink.body == b"".join(big) + b"later"
    assert not producer.paused


def test_the_producer_is_not_switched_between_the_marks() -> None:
    reader, sink, producer = pair()
    for _ in range(50):
        reader.block()
        reader.out.send(b"x" * 10)
        reader.out.send(b"y" * 10)
        assert not producer.paused
        reader.unblock()
    assert producer.switches == 0
    assert len(sink.body) == 1000


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_the_end_comes_when_everything_was_taken(end: str) -> None:
    reader, sink, _ = pair()
    reader.block()
    reader.out.send(b"a")
    getattr(reader, end)()
    assert sink.ends == []
    sink.room = 1
    reader.unblock()
    assert (sink.pieces, sink.ends) == ([b"a"], []), "the last piece may still fill the socket"
    sink.room = None
    reader.unblock()
    reader.unblock()
    assert sink.ends == [end]


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_an_open_reader_ends_at_once(end: str) -> None:
    reader, sink, _ = pair()
    reader.out.send(b"a")
    getattr(reader, end)()
    assert (sink.pieces, sink.ends) == ([b"a"], [end])


def test_a_blocked_reader_with_nothing_waiting_ends_when_it_is_unblocked() -> None:
    reader, sink, _ = pair()
    reader.block()
    reader.finish()
    assert sink.ends == []
    reader.unblock()
    assert sink.ends == ["finish"]


def test_a_failure_while_the_end_waits_makes_it_an_abort() -> None:
    reader, sink, _ = pair()
    reader.block()
    reader.out.send(b"a")
    reader.finish()
    reader.abort()
    reader.unblock()
    assert (sink.pieces, sink.ends) == ([b"a"], ["abort"])


@pytest.mark.parametrize("order", list(itertools.permutations(["detach", "block", "unblock", "finish", "send"])))
def test_nothing_reaches_a_sink_that_has_gone(order: tuple[str, ...]) -> None:
    reader, sink, producer = pair()
    reader.block()
    reader.out.send(b"x" * 30)
    assert producer.paused
    seen: tuple[list[bytes], list[str]] | None = None
    for step in order:
        if step == "send":
            if not sink.ends:
                reader.out.send(b"y")
        else:
            getattr(reader, step)()
        if step == "detach":
            seen = (list(sink.pieces), list(sink.ends))
            assert not producer.gate.closed
    assert seen == (sink.pieces, sink.ends)
    assert not producer.gate.closed
    assert reader.waiting == 0


def test_a_sink_may_go_in_the_middle_of_a_write() -> None:
    reader, sink, producer = pair()
    reader.block()
    for _ in range(3):
        reader.out.send(bytes(DRAIN_BYTES))

    class Leaving(Sink):
        def _send(self, piece: bytes) -> None:
            super()._send(piece)
            reader.detach()

    leaving = Leaving()
    reader.attach(leaving, blocked=False)
    assert len(leaving.pieces) == 1
    assert not producer.paused
    reader.out.send(b"late")
    assert len(leaving.pieces) == 1
    assert sink.pieces == []


def test_leaving_does_not_undo_the_pause_of_another() -> None:
    reader, _, producer = pair()
    producer.gate.hold()
    reader.block()
    reader.out.send(b"x" * 30)
    reader.detach()
    reader.detach()
    assert producer.paused
    producer.gate.release()
    assert not producer.paused


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, the sink has a prefix of what was sent, and all of it before the end."""

    def __init__(self) -> None:
        super().__init__()
        self.producer = Producer()
        self.reader = Reader(SMALL, self.producer.gate)
        self.sink = Sink(self.reader)
        self.sent = b""
        self.attached = self.gone = False
        self.end = ""
        self.frozen = 0

    @precondition(lambda self: not self.end)
    @rule(size=st.integers(1, 12), letter=st.integers(65, 90))
    def send(self, size: int, letter: int) -> None:
        piece = bytes([letter]) * size
        self.sent += piece
        self.reader.out.send(piece)

    @precondition(lambda self: not self.attached)
    @rule(blocked=st.booleans())
    def attach(self, blocked: bool) -> None:
        self.attached = True
        if not self.gone:
            self.reader.attach(self.sink, blocked=blocked)

    @precondition(lambda self: self.attached and not self.gone and not self.sink.ends)
    @rule()
    def block(self) -> None:
        self.reader.block()

    @precondition(lambda self: self.attached)
    @rule(room=st.none() | st.integers(1, 3))
    def unblock(self, room: int | None) -> None:
        self.sink.room = room
        self.reader.unblock()

    @precondition(lambda self: not self.end)
    @rule(end=st.sampled_from(["finish", "abort"]))
    def close(self, end: str) -> None:
        self.end = end
        getattr(self.reader, end)()

    @rule()
    def detach(self) -> None:
        self.reader.detach()
        self.gone = True
        self.frozen = len(self.sink.pieces)

    @invariant()
    def what_the_sink_has(self) -> None:
        assert self.sent.startswith(self.sink.body)
        assert self.sink.ends in ([], [self.end])
        if self.gone:
            assert len(self.sink.pieces) == self.frozen
            assert self.reader.waiting == 0
            assert not self.producer.gate.closed
        else:
            assert len(self.sink.body) + self.reader.waiting == len(self.sent)
            if self.sink.ends:
                assert self.sink.body == self.sent
                assert not self.producer.gate.closed
            assert self.producer.gate.closed <= (self.reader.waiting > SMALL.low)
            assert self.producer.gate.closed >= (self.reader.waiting > SMALL.high)

    def teardown(self) -> None:
        if self.gone:
            return
        self.sink.room = None
        if not self.attached:
            self.reader.attach(self.sink, blocked=True)
        if not self.end:
            self.end = "finish"
            self.reader.finish()
        self.reader.unblock()
        self.what_the_sink_has()
        assert self.sink.ends == [self.end]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=25)
