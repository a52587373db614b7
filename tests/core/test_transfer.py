"""A body passed on as it comes."""

from __future__ import annotations

from relay.core.reader import Reader
from relay.core.transfer import Transfer
from relay.errors import UpstreamCut
from relay.flow.overflow import ANSWER
from tests.core.fakes import Clock, Owner, Producer, Sink


def make() -> tuple[Transfer, Sink, Owner, Clock]:
    reader, owner, clock = Reader(ANSWER, Producer().gate), Owner(), Clock()
    sink = Sink(reader)
    reader.attach(sink, blocked=False)
    return Transfer(reader, owner, clock), sink, owner, clock


def test_every_piece_goes_on_as_it_is() -> None:
    transfer, sink, owner, clock = make()
    pieces = [bytes([65]) * 3, bytes([66]) * 4]
    assert (transfer.began, owner.began) == (False, 0)
    for now, piece in enumerate(pieces, 10):
        clock.now = now
        transfer.feed(piece)
        assert transfer.active == now
    assert all(sent is piece for sent, piece in zip(sink.pieces, pieces, strict=True))
    assert (transfer.bytes, transfer.began, owner.began) == (7, True, 1)


def test_the_owner_hears_of_the_beginning_before_the_first_byte_leaves() -> None:
    order: list[str] = []

    class Early(Owner):
        def transfer_began(self) -> None:
            order.append("began")

    class Noting(Sink):
        def _send(self, piece: bytes) -> None:
            order.append("piece")

    reader = Reader(ANSWER, Producer().gate)
    reader.attach(Noting(), blocked=False)
    Transfer(reader, Early(), Clock()).feed(b"x")
    assert order == ["began", "piece"]


def test_the_owner_decides_how_the_answer_ends() -> None:
    transfer, sink, owner, _ = make()
    transfer.feed(b"x")
    transfer.end()
    assert (owner.ends, sink.ends) == ([None], [])
    transfer, sink, owner, _ = make()
    error = UpstreamCut("cut")
    transfer.fail(error)
    assert (owner.ends, sink.ends) == ([error], [])


def test_a_body_without_a_byte_has_not_begun() -> None:
    transfer, _, owner, _ = make()
    transfer.end()
    assert (transfer.began, owner.began, transfer.bytes) == (False, 0, 0)
