"""Events out of a compressed stream, and what is wrong with it told once."""

from __future__ import annotations

import gzip
import zlib

import pytest

from relay.core.inflated import InflatedStream
from relay.errors import RelayError, UpstreamCut, UpstreamInvalid
from relay.flow.overflow import ANSWER
from relay.wire.encoding import STEP, inflater
from tests.core.fakes import Producer
from tests.core.test_stream import CHATS, DONE, Run, chat
from tests.wire.splits import splits


class Inflated:
    """A stream behind its decoder; whoever is told that it is broken gives it up, as an exchange does."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.run, self.broken = Run(), list[RelayError]()
        decoder = inflater(b"gzip", limit)
        assert decoder is not None
        self.provider, self.parted = Producer(), 0
        reader_gate = self.run.producer.gate
        self.inflated = InflatedStream(
            self.run.stream, decoder, reader_gate, self.provider.gate, self._part, self._give_up
        )

    def _part(self) -> None:
        self.parted += 1

    def _give_up(self, error: RelayError) -> None:
        self.broken.append(error)
        self.run.stream.fail(error)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.inflated.feed(piece)
            if self.broken:
                return


def test_the_events_are_the_same_at_every_split() -> None:
    for pieces in splits(gzip.compress(CHATS)):
        made = Inflated()
        made.feed(*pieces)
        made.inflated.end()
        assert made.run.sink.body == CHATS
        assert made.run.stream.events == 5
        assert made.run.owner.ends == [None]


def test_events_leave_as_they_are_flushed() -> None:
    made, encoder = Inflated(), zlib.compressobj(wbits=31)
    for event in (chat("a"), chat("b"), DONE):
        made.feed(encoder.compress(event) + encoder.flush(zlib.Z_SYNC_FLUSH))
        assert made.run.sink.pieces[-1] == event


def test_a_coding_that_was_cut_is_no_clean_end() -> None:
    made = Inflated()
    encoder = zlib.compressobj(wbits=31)
    made.feed(encoder.compress(chat("a")) + encoder.flush(zlib.Z_SYNC_FLUSH))
    made.inflated.end()
    assert isinstance(made.run.owner.ends[0], UpstreamCut)
    assert made.run.sink.body == chat("a")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"not gzip at all, not by far"],
        [gzip.compress(chat("a"))[:-8] + b"\0" * 8],
        [gzip.compress(chat("a")) + b"junk"],
        [gzip.compress(chat("a")), b"junk"],
    ],
)
def test_broken_bytes_are_told_once(pieces: list[bytes]) -> None:
    made = Inflated()
    made.feed(*pieces)
    assert len(made.broken) == 1
    assert isinstance(made.broken[0], UpstreamInvalid)
    assert made.run.owner.ends == made.broken


def test_a_bomb_is_given_up_at_its_limit() -> None:
    made = Inflated(limit=100_000)
    made.feed(gzip.compress(b"data: x\n\n" * 1_000_000))
    assert len(made.broken) == 1
    assert len(made.run.sink.body) <= 100_000


def test_a_failure_goes_through() -> None:
    made = Inflated()
    made.feed(gzip.compress(chat("a")))
    error = UpstreamCut("cut")
    made.inflated.fail(error)
    assert made.run.owner.ends == [error]


BOMB = chat("0" * 1000) * 4000 + DONE


def unblock(made: Inflated) -> None:
    """The reader's socket takes everything again."""
    made.run.sink.room = None
    made.run.reader.unblock()


def test_what_the_reader_has_no_room_for_is_not_inflated() -> None:
    """4 MB in a few KB: the ring holds its high mark and one step, and the provider is held."""
    made = Inflated(limit=1 << 24)
    made.run.reader.block()
    made.feed(gzip.compress(BOMB))
    assert made.provider.paused
    assert made.run.reader.waiting < ANSWER.high + 2 * STEP
    unblock(made)
    assert not made.provider.paused
    assert made.run.sink.body == BOMB
    made.inflated.end()
    assert made.run.owner.ends == [None]


def test_a_provider_that_is_through_parts_before_its_stream_does() -> None:
    made = Inflated(limit=1 << 24)
    made.run.reader.block()
    made.feed(gzip.compress(BOMB))
    made.provider.gate.retire()
    made.inflated.end()
    assert made.parted == 1
    assert made.run.owner.ends == []
    unblock(made)
    assert made.run.sink.body == BOMB
    assert made.run.owner.ends == [None]


def test_a_reader_that_comes_and_goes_gets_all_of_it() -> None:
    """Blocked again by every second piece: each time a little is inflated, and the provider's pause is counted
    right."""
    made = Inflated(limit=1 << 24)
    made.run.reader.block()
    made.feed(gzip.compress(BOMB))
    while made.run.reader.blocked:
        made.run.sink.room = 2
        made.run.reader.unblock()
        assert made.run.reader.waiting < ANSWER.high + 2 * STEP
    assert not made.provider.paused
    assert made.run.sink.body == BOMB


def test_a_reader_that_leaves_costs_no_further_inflating() -> None:
    made = Inflated(limit=1 << 24)
    made.run.reader.block()
    made.feed(gzip.compress(BOMB))
    fed = made.run.stream.bytes
    made.run.reader.detach()
    assert made.run.stream.bytes == fed
    assert not made.provider.paused
