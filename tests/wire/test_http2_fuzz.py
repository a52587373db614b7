"""Frames that nobody sends on purpose. The engine never raises; it goes on, or says GOAWAY and `broke` once and is
silent; and it keeps little of what it was told (10 bytes for each that came, and a constant)."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import frames
from relay.wire.head import Headers
from tests.wire.peer2 import REQUEST, RESPONSE, ROLES, Pair, block, frame, split_frames
from tests.wire.splits import PLACES, cut


class Victim(Pair):
    """Does with its streams what a listener does: some it refuses, some it ends, of others it takes the DATA."""

    waits = False

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        assert isinstance(fields, list)
        if stream_id % 8 == 7 and not self.client:
            self.told.append(("head", stream_id, ended))
            self.engine.reset(stream_id, frames.REFUSED_STREAM, charge=True)
            return
        super().head_came(stream_id, fields or [(b"", b"")], ended)
        if ended and not self.client and stream_id % 8 == 5:
            self.engine.send_head(stream_id, RESPONSE, end=True)

    def crowded(self) -> None:
        self.waits = True

    def catch_up(self) -> None:
        """What was more than a turn takes, in further ones."""
        while self.waits:
            self.waits = False
            self.engine.receive(b"")

    def check_end(self) -> None:
        """Told of an end once, and last; and it was said first."""
        sent = split_frames(b"".join(self.out))
        ends = [at for at, entry in enumerate(self.told) if entry[0] == "broke"]
        if ends:
            assert ends == [len(self.told) - 1]
            kind, _, _, payload = sent[-1]
            assert kind == frames.GOAWAY
            assert frames.parse_long(payload, 4) == self.told[-1][1]
            assert not self.engine.streams
            assert not self.engine.partial
        else:
            assert not [entry for entry in sent if entry[0] == frames.GOAWAY]
        assert self.engine.over is bool(ends)


def make(role: str) -> Victim:
    """With a stream that is open, one that the peer has ended, one that we have reset."""
    victim = Victim(role)
    for stream_id in (1, 3, 5):
        victim.open(stream_id)
    victim.peer.end_stream(3)
    victim.settle()
    victim.engine.reset(5, frames.CANCEL)
    victim.settle()
    victim.told.clear()
    victim.out.clear()
    return victim


def script(client: bool) -> list[bytes]:
    """What a peer may well send, frame by frame."""
    head = block([*(RESPONSE if client else REQUEST), (b"x-a", b"1")])
    streams = [] if client else [(7, 4), (9, 5), (11, 4)]
    return [
        frames.settings({frames.INITIAL_WINDOW_SIZE: 70_000, frames.MAX_FRAME_SIZE: 20_000, 0x77: 1}),
        frame(frames.SETTINGS, frames.ACK, 0),
        *(frame(frames.HEADERS, flags, stream_id, head) for stream_id, flags in streams),
        frame(frames.DATA, 0, 1, b"hello"),
        frame(frames.DATA, 0, 1, b"x" * 3000),
        frame(frames.DATA, frames.PADDED, 1, b"\3hello\0\0\0"),
        frame(frames.HEADERS, 0, 13, head[:5]) if not client else frames.ping(bytes(8)),
        frame(frames.CONTINUATION, 4, 13, head[5:]) if not client else frames.ping(bytes(8), ack=True),
        frames.window_update(0, 1000),
        frames.window_update(1, 1000),
        frame(frames.DATA, 0, 5, b"late"),
        frame(frames.PRIORITY, 0, 1, b"\0\0\0\3\x10"),
        frames.ping(b"12345678"),
        frames.rst_stream(11 if not client else 1, frames.CANCEL),
        frame(99, 0xFF, 1, b"unknown"),
        frame(frames.HEADERS, 5, 7 if not client else 1, block([(b"x-sum", b"1")])),
        frames.goaway(5, 0),
    ]


@pytest.mark.parametrize("role", ROLES)
def test_the_script_is_well_formed(role: str) -> None:
    victim = make(role)
    victim.take(script(victim.client)[:-3] if victim.client else script(victim.client))
    victim.check_end()
    assert not [entry for entry in victim.told if entry[0] in ("broke", "stream broke")]


MUTATION = st.tuples(
    st.sampled_from(["flip", "drop", "double", "swap", "truncate", "insert", "retype", "restream", "reflag"]),
    st.integers(0, 1000),
    st.integers(0, 1 << 20),
)


def mutate(parts: list[bytes], how: str, where: int, what: int) -> None:
    if not parts:
        return
    at = where % len(parts)
    part = bytearray(parts[at])
    match how:
        case "flip" if part:
            part[what % len(part)] ^= 1 << what % 8
        case "drop":
            part.clear()
        case "double":
            part *= 2 + what % 3
        case "swap":
            other = what % len(parts)
            part, parts[other] = bytearray(parts[other]), bytes(part)
        case "truncate":
            del part[what % (len(part) + 1) :]
        case "insert":
            place = what % (len(part) + 1)
            part[place:place] = bytes([what % 256])
        case "retype" if len(part) > 3:
            part[3] = what % 12
        case "restream" if len(part) > 8:
            part[8] = what % 20
        case "reflag" if len(part) > 4:
            part[4] = what % 256
    parts[at] = bytes(part)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(ROLES), st.lists(MUTATION, max_size=8), PLACES)
def test_a_script_that_was_tampered_with(role: str, mutations: list[tuple[str, int, int]], places: list[int]) -> None:
    victim = make(role)
    parts = script(victim.client)
    for mutation in mutations:
        mutate(parts, *mutation)
    data = b"".join(parts)
    for piece in cut(data, places):
        victim.engine.receive(piece)
        victim.check_end()
    victim.catch_up()
    victim.check_end()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ROLES), st.lists(MUTATION, max_size=5), PLACES)
def test_how_the_bytes_are_cut_changes_nothing(
    role: str, mutations: list[tuple[str, int, int]], places: list[int]
) -> None:
    """But for the moment at which windows are opened again, which is a read's end."""
    heard = []
    for by_piece in (False, True):
        victim = make(role)
        parts = script(victim.client)
        for mutation in mutations:
            mutate(parts, *mutation)
        data = b"".join(parts)
        for piece in cut(data, places if by_piece else []):
            victim.engine.receive(piece)
            victim.catch_up()
        heard.append((victim.told, {key: taker.body for key, taker in victim.takers.items()}))
    assert heard[0] == heard[1]


KINDS = st.integers(0, 11)
FRAMES = st.builds(
    frame,
    KINDS,
    st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x25, 0x2D]) | st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, 9, 2**31 - 1, 2**31]) | st.integers(0, 2**32 - 1),
    st.binary(max_size=40)
    | st.sampled_from([bytes(4), bytes(8), b"\0\4\0\1\0\0", b"\0\3\0\0\0\0", b"\0\5\0\0\0\1", b"\x82\x86\x84\x41\1h"])
    | st.sampled_from([block(REQUEST), block(RESPONSE), block([(b"x", b"y")]), b"x" * 16_384]),
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(ROLES), st.lists(FRAMES | st.binary(max_size=30), max_size=15), PLACES)
def test_random_frames(role: str, parts: list[bytes], places: list[int]) -> None:
    victim = make(role)
    for piece in cut(b"".join(parts), places):
        victim.engine.receive(piece)
        victim.check_end()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ROLES), st.binary(max_size=300), PLACES)
def test_garbage(role: str, data: bytes, places: list[int]) -> None:
    victim = make(role)
    for piece in cut(data, places):
        victim.engine.receive(piece)
        victim.check_end()


# Memory

SIZE = 120_000


class Forgetful(Victim):
    """Keeps nothing of what it is told, but for the streams that it takes DATA for. (A listener that keeps requests
    refuses those that are too many.)"""

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        super().head_came(stream_id, fields, ended)
        if not ended and len(self.engine.streams) > 100:
            self.engine.reset(stream_id, frames.REFUSED_STREAM)

    def forget(self) -> None:
        self.told.clear()
        self.out.clear()
        for taker in self.takers.values():
            taker.pieces.clear()
        for stream_id in [stream_id for stream_id in self.takers if stream_id not in self.engine.streams]:
            del self.takers[stream_id]
        self.clock.now += 1.0  # as slow as no budget minds


def numbered(make: Callable[[int], bytes]) -> Iterator[bytes]:
    return (make(number) for number in itertools.count())


def unique(number: int) -> bytes:
    return block([*REQUEST, (b"x-%d" % number, b"%d" % number * 20)])


def remembered(number: int) -> bytes:
    """A literal that goes into the table."""
    name = b"x-%06d" % number
    return block(REQUEST) + b"\x40" + bytes([len(name)]) + name + b"\x7f\x00" + b"y" * 127


STORIES: dict[str, Callable[[], Iterator[bytes]]] = {
    "settings": lambda: numbered(lambda n: frames.settings({(n * 32 + k) % 65_536: n for k in range(32)})),
    "settings we know": lambda: numbered(lambda n: frames.settings({1 + n % 6: 16_384 if n % 6 == 4 else n % 2})),
    "requests": lambda: numbered(lambda n: frame(frames.HEADERS, 5, 15 + 2 * n, unique(n))),
    "requests that go on": lambda: numbered(lambda n: frame(frames.HEADERS, 4, 15 + 2 * n, unique(n))),
    "requests reset": lambda: numbered(
        lambda n: frame(frames.HEADERS, 4, 15 + 2 * n, unique(n)) + frames.rst_stream(15 + 2 * n, 8)
    ),
    "fields to be remembered": lambda: numbered(lambda n: frame(frames.HEADERS, 5, 15 + 2 * n, remembered(n))),
    "requests out of step": lambda: numbered(lambda n: frame(frames.HEADERS, 5, 1001 + 1000 * n, block(REQUEST))),
    "priorities": lambda: numbered(lambda n: frame(frames.PRIORITY, 0, 2 * n + 1, b"\0\0\0\0\1")),
    "unknown": lambda: numbered(lambda n: frame(10 + n % 200, 0, n, b"u" * 100)),
    "windows": lambda: numbered(lambda n: frames.window_update(2 * (n % 3) + 1, 1)),
    "resets": lambda: numbered(lambda n: frames.rst_stream(1 + 2 * (n % 3), n)),
    "pings": lambda: numbered(lambda n: frames.ping(b"%8d" % n)),
    "answers to pings": lambda: numbered(lambda n: frames.ping(b"%8d" % n, ack=True)),
    "DATA in crumbs": lambda: numbered(lambda n: frame(frames.DATA, 0, 1, b"x")),
    "DATA behind a reset": lambda: numbered(lambda n: frame(frames.DATA, 0, 5, b"x" * 1000)),
    "DATA behind an end": lambda: numbered(lambda n: frame(frames.DATA, 0, 3, b"x")),
    "padding": lambda: numbered(lambda n: frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(255))),
    "a block without end": lambda: itertools.chain(
        [frame(frames.HEADERS, 0, 15, b"\0" * 10_000)],
        numbered(lambda n: frame(frames.CONTINUATION, 0, 15, b"\0" * 10_000)),
    ),
    "empty CONTINUATIONs": lambda: itertools.chain(
        [frame(frames.HEADERS, 0, 15)], numbered(lambda n: frame(frames.CONTINUATION, 0, 15))
    ),
    "a frame in crumbs": lambda: iter([frames.header(16_384, frames.HEADERS, 4, 15), *[b"\0"] * 16_000]),
    "GOAWAYs": lambda: numbered(lambda n: frame(frames.GOAWAY, 0, 0, bytes(8) + b"d" * 1000)),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("reads", [1, 50])
@pytest.mark.parametrize("name", STORIES)
def test_what_is_kept_is_in_proportion(role: str, reads: int, name: str) -> None:
    victim = Forgetful(role)
    for stream_id in (1, 3, 5):
        victim.open(stream_id)
    victim.engine.reset(5, frames.CANCEL)
    victim.engine.receive(frame(frames.DATA, frames.END_STREAM, 3))
    victim.forget()
    gc.collect()
    came = 0
    tracemalloc.start()
    try:
        story = STORIES[name]()
        while came < SIZE:
            read = b"".join(itertools.islice(story, reads))
            if not read:
                break
            came += len(read)
            victim.engine.receive(read)
            victim.catch_up()
            if victim.told and victim.told[-1][0] == "broke":
                break
            victim.forget()
        victim.forget()
        del read, story
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept <= 10 * came + 100_000
    assert kept <= 600_000, "however long it goes on"
    assert peak <= 10 * came + 400_000
