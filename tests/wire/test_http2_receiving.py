"""The frame walker, inward: what h2 sends arrives, in whatever pieces, and one read is one feed per run of a stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import frames
from tests.wire.peer2 import REQUEST, RESPONSE, ROLES, Pair, Taker, frame
from tests.wire.splits import PLACES, cut, splits


def data(pair: Pair) -> None:
    pair.peer.send_data(1, b"hello")


def data_and_end(pair: Pair) -> None:
    pair.peer.send_data(1, b"hello", end_stream=True)


def data_and_empty_end(pair: Pair) -> None:
    pair.peer.send_data(1, b"hello")
    pair.peer.end_stream(1)


def empty_between(pair: Pair) -> None:
    pair.peer.send_data(1, b"he")
    pair.peer.send_data(1, b"")
    pair.peer.send_data(1, b"llo", end_stream=True)


def padded(pair: Pair) -> None:
    pair.peer.send_data(1, b"he", pad_length=7)
    pair.peer.send_data(1, b"llo", pad_length=0, end_stream=True)


def only_padding(pair: Pair) -> None:
    pair.peer.send_data(1, b"hello")
    pair.peer.send_data(1, b"", pad_length=9, end_stream=True)


def trailers(pair: Pair) -> None:
    pair.peer.send_data(1, b"hello")
    pair.peer.send_headers(1, [(b"x-sum", b"1")], end_stream=True)


def with_others_between(pair: Pair) -> None:
    pair.peer.ping(b"12345678")
    pair.peer.send_data(1, b"he")
    pair.peer.increment_flow_control_window(5)
    pair.peer.send_data(1, b"llo")
    pair.peer.prioritize(1, weight=5) if not pair.client else pair.peer.ping(b"abcdefgh")
    pair.peer.end_stream(1)


# What is played, and what it costs of the window.
PLAYS: dict[str, tuple[Callable[[Pair], None], bool, int]] = {
    "no end": (data, False, 5),
    "end with DATA": (data_and_end, True, 5),
    "end with empty DATA": (data_and_empty_end, True, 5),
    "empty DATA in between": (empty_between, True, 5),
    "padding": (padded, True, 5 + 7 + 2),
    "nothing but padding": (only_padding, True, 5 + 10),
    "trailers": (trailers, True, 5),
    "other frames in between": (with_others_between, True, 5),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", PLAYS)
def test_a_body_is_the_same_at_every_split(role: str, name: str) -> None:
    play, ends, cost = PLAYS[name]

    def start() -> tuple[Pair, Taker, bytes]:
        pair = Pair(role)
        taker = pair.open()
        play(pair)
        return pair, taker, pair.peer.data_to_send()

    for at, _ in enumerate(splits(start()[2])):
        pair, taker, script = start()
        pieces = next(piece for number, piece in enumerate(splits(script)) if number == at)
        pair.take(pieces)
        assert taker.body == b"hello"
        assert [entry for entry in pair.told if entry[0] != "window"] == [("end", 1)] * ends
        assert (1 in pair.engine.streams) is not ends
        assert taker.unacked == cost
        assert not pair.engine.partial
        pair.settle()
        pair.check()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ended", [True, False])
def test_a_head_is_the_same_at_every_split(role: str, ended: bool) -> None:
    fields = [*(RESPONSE if role == "client" else REQUEST), (b"x-long", bytes(range(97, 123)))]

    def start() -> tuple[Pair, bytes]:
        pair = Pair(role)
        if pair.client:
            pair.engine.send_head(1, REQUEST, end=True)
            pair.settle()
        pair.peer.send_headers(1, fields, end_stream=ended)
        return pair, pair.peer.data_to_send()

    for at in range(1, len(start()[1])):
        pair, script = start()
        pair.take([script[:at]])
        assert pair.told == []
        assert pair.engine.partial
        pair.take([script[at:]])
        assert pair.told == [("head", 1, ended)]
        assert not pair.engine.partial


@pytest.mark.parametrize("role", ROLES)
def test_a_head_in_many_frames_is_one_head(role: str) -> None:
    pair = Pair(role)
    taker = pair.open(head=[*(RESPONSE if pair.client else REQUEST), (b"x-long", b"\x7e" * 25_000)])
    assert 1 in pair.engine.streams
    pair.peer.send_data(1, b"hello", end_stream=True)
    pair.settle()
    assert taker.body == b"hello"


def since(pair: Pair) -> float | None:
    return pair.engine.head_since


def test_a_head_that_waits_for_its_end_is_known_since_when() -> None:
    pair = Pair("server")
    pair.peer.send_headers(1, REQUEST)
    head = pair.peer.data_to_send()
    assert since(pair) is None
    pair.clock.now = 5.0
    pair.take([head[:9]])
    pair.clock.now = 7.0
    pair.take([head[9:12]])
    assert (pair.engine.head_since, pair.engine.partial_at) == (5.0, 7.0)
    pair.take([head[12:]])
    assert pair.engine.head_since is None
    # A block that goes on in CONTINUATION waits as a whole, whatever of its frames is whole.
    pair.clock.now = 9.0
    pair.take([frame(frames.HEADERS, 0, 3, b"")])
    pair.clock.now = 11.0
    pair.take([frame(frames.CONTINUATION, 0, 3, b"")])
    assert (since(pair), pair.engine.partial) == (9.0, False)


def test_of_data_that_waits_for_its_end_no_head_is_expected() -> None:
    pair = Pair("server")
    pair.open()
    pair.take([frame(frames.DATA, 0, 1, b"hello")[:-1]])
    assert pair.engine.partial
    assert pair.engine.head_since is None


@pytest.mark.parametrize("role", ROLES)
def test_one_read_is_one_feed_per_run_of_a_stream(role: str) -> None:
    pair = Pair(role)
    one, three = pair.open(1), pair.open(3)
    for stream_id in (1, 1, 1, 3, 3, 1):
        pair.peer.send_data(stream_id, b"%d" % stream_id)
    pair.take()
    assert (one.pieces, three.pieces) == ([b"111", b"1"], [b"33"])


@pytest.mark.parametrize("role", ROLES)
def test_data_of_one_frame_is_not_copied_together(role: str) -> None:
    pair = Pair(role)
    taker = pair.open()
    pair.peer.send_data(1, b"x" * 16_384)
    pair.peer.send_data(1, b"y" * 16_384)
    script = pair.peer.data_to_send()
    pair.take([script[:20_000], script[20_000:]])
    assert [piece[:1] for piece in taker.pieces] == [b"x", b"y"]


PAYLOADS = st.lists(
    st.tuples(st.sampled_from([1, 3, 5]), st.binary(min_size=1, max_size=40), st.integers(0, 8) | st.none()),
    max_size=20,
)


@settings(deadline=None)
@given(st.sampled_from(ROLES), PAYLOADS, PLACES)
def test_any_interleaving_in_any_pieces_gives_each_stream_its_own(
    role: str, payloads: list[tuple[int, bytes, int | None]], places: list[int]
) -> None:
    pair = Pair(role)
    takers = {stream_id: pair.open(stream_id) for stream_id in (1, 3, 5)}
    for stream_id, payload, padding in payloads:
        pair.peer.send_data(stream_id, payload, pad_length=padding)
    for stream_id in takers:
        pair.peer.end_stream(stream_id)
    script = pair.peer.data_to_send()
    pair.take(cut(script, places))
    for stream_id, taker in takers.items():
        assert taker.body == b"".join(payload for of, payload, _ in payloads if of == stream_id)
        assert taker.unacked == sum(
            len(payload) + (0 if padding is None else padding + 1)
            for of, payload, padding in payloads
            if of == stream_id
        )
    assert pair.told == [("end", stream_id) for stream_id in takers]
    pair.settle()
    pair.check()


@settings(deadline=None)
@given(st.sampled_from(ROLES), st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.binary(min_size=1)), max_size=20))
def test_the_runs_of_one_read_are_the_feeds(role: str, payloads: list[tuple[int, bytes]]) -> None:
    pair = Pair(role)
    takers = {stream_id: pair.open(stream_id) for stream_id in (1, 3, 5)}
    for stream_id, payload in payloads:
        pair.peer.send_data(stream_id, payload)
    pair.take()
    runs = [(key, b"".join(payload for _, payload in run)) for key, run in groupby(payloads, lambda entry: entry[0])]
    for stream_id, taker in takers.items():
        assert taker.pieces == [payload for of, payload in runs if of == stream_id]


class Leaving(Taker):
    """Lets another stream go in the middle of a read, as an answer that is cancelled by what another brings."""

    def __init__(self, stream_id: int, pair: Pair, other: int) -> None:
        super().__init__(stream_id)
        self._pair = pair
        self._other = other

    def feed(self, payload: bytes) -> None:
        super().feed(payload)
        self._pair.engine.reset(self._other, frames.CANCEL)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("other", [1, 3])
def test_a_stream_that_is_given_up_in_the_middle_of_a_read_costs_the_others_nothing(role: str, other: int) -> None:
    pair = Pair(role)
    for stream_id in (1, 3, 5):
        pair.open(stream_id)
    pair.engine.streams[1] = Leaving(1, pair, other)
    for stream_id in (1, 3, 5, 1, 3, 5):
        pair.peer.send_data(stream_id, b"x")
    pair.take()
    assert other not in pair.engine.streams
    assert pair.takers[5].body == b"xx"
    pair.settle()
    assert not [entry for entry in pair.told if entry[0] in ("broke", "stream broke")]


def test_the_reserved_bit_of_a_stream_identifier_means_nothing() -> None:
    pair = Pair("server")
    taker = pair.open()
    pair.take([frame(frames.DATA, frames.END_STREAM, 1 | 1 << 31, b"hello")])
    assert taker.body == b"hello"
    assert pair.told == [("end", 1)]


def test_more_heads_than_one_turn_takes_wait_for_the_next() -> None:
    pair = Pair("server", streams=200)
    for number in range(70):
        pair.peer.send_headers(2 * number + 1, REQUEST, end_stream=True)
    script = pair.peer.data_to_send()
    pair.take([script])
    counts = []
    while pair.told and pair.told[-1] == ("crowded",):
        counts.append(len(pair.told) - 1)
        pair.told.clear()
        pair.take([])
        pair.engine.receive(b"")
    counts.append(len(pair.told))
    assert counts == [32, 32, 6]
    assert not pair.engine.partial


def test_heads_that_come_one_by_one_are_never_too_many() -> None:
    pair = Pair("server", streams=200)
    for number in range(150):
        pair.peer.send_headers(2 * number + 1, REQUEST, end_stream=True)
        pair.take()
    assert len(pair.told) == 150
    assert ("crowded",) not in pair.told


@pytest.mark.parametrize("role", ROLES)
def test_more_frames_than_one_turn_takes_wait_for_the_next(role: str) -> None:
    """Whatever their kind: a frame of one byte costs as much as one of 16 KiB."""
    pair = Pair(role)
    taker = pair.open()
    pair.take([b"".join([frame(frames.DATA, 0, 1, b"x")] * 2500 + [frames.ping(bytes(8), ack=True)])])
    counts = [len(taker.body)]
    while pair.told[-1:] == [("crowded",)]:
        pair.told.clear()
        pair.engine.receive(b"")
        counts.append(len(taker.body))
    assert counts == [1024, 2048, 2500]
    assert pair.told == [("pong", bytes(8))]
    assert len(taker.pieces) == 3
