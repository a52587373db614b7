"""What a peer may not do: mistakes of the connection end it once, with the code of the RFC; those of a stream cost that
stream alone (RFC 9113, 5.4)."""

from __future__ import annotations

import pytest

from relay.wire import frames
from relay.wire.head import Headers
from tests.wire.peer2 import REQUEST, RESPONSE, ROLES, Pair, block, codes, frame

GET = [(b":method", b"GET"), *REQUEST[1:]]

HEADERS_1 = frame(frames.HEADERS, 4, 1, block(REQUEST))
MISTAKES: dict[str, tuple[bytes, int]] = {
    "too long, seen at its header": (frames.header(16_385, frames.DATA, 0, 1), frames.FRAME_SIZE_ERROR),
    "too long, of an unknown type": (frames.header(1 << 20, 99, 0, 0), frames.FRAME_SIZE_ERROR),
    "DATA on 0": (frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(frames.DATA, 0, 9, b"x"), frames.PROTOCOL_ERROR),
    "DATA on a stream of the server": (frame(frames.DATA, 0, 2, b"x"), frames.PROTOCOL_ERROR),
    "DATA with too much padding": (frame(frames.DATA, 8, 1, b"\4abc"), frames.PROTOCOL_ERROR),
    "DATA with no pad length": (frame(frames.DATA, 8, 1, b""), frames.PROTOCOL_ERROR),
    "HEADERS on 0": (frame(frames.HEADERS, 4, 0, block(REQUEST)), frames.PROTOCOL_ERROR),
    "HEADERS that are no HPACK": (frame(frames.HEADERS, 5, 1, b"\xff\xff\xff"), frames.COMPRESSION_ERROR),
    "HEADERS that name nothing": (frame(frames.HEADERS, 5, 1, b"\x80"), frames.COMPRESSION_ERROR),
    "CONTINUATION of nothing": (frame(frames.CONTINUATION, 4, 1, b""), frames.PROTOCOL_ERROR),
    "a block interrupted by PING": (frame(frames.HEADERS, 0, 3) + frames.ping(bytes(8)), frames.PROTOCOL_ERROR),
    "a block interrupted by DATA": (frame(frames.HEADERS, 0, 3) + frame(0, 0, 1, b"x"), frames.PROTOCOL_ERROR),
    "a block interrupted by another": (
        frame(frames.HEADERS, 0, 3) + frame(frames.CONTINUATION, 4, 5, b""),
        frames.PROTOCOL_ERROR,
    ),
    "a block interrupted by the unknown": (frame(frames.HEADERS, 0, 3) + frame(99, 0, 0), frames.PROTOCOL_ERROR),
    "RST_STREAM on 0": (frames.rst_stream(0, 8), frames.PROTOCOL_ERROR),
    "RST_STREAM of an idle stream": (frames.rst_stream(9, 8), frames.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (frame(frames.RST_STREAM, 0, 1, bytes(3)), frames.FRAME_SIZE_ERROR),
    "PRIORITY of 4 bytes": (frame(frames.PRIORITY, 0, 1, bytes(4)), frames.FRAME_SIZE_ERROR),
    "SETTINGS on 1": (frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (frame(frames.SETTINGS, 0, 0, bytes(5)), frames.FRAME_SIZE_ERROR),
    "SETTINGS ACK of 6 bytes": (frame(frames.SETTINGS, 1, 0, bytes(6)), frames.FRAME_SIZE_ERROR),
    "SETTINGS with small frames": (frames.settings({frames.MAX_FRAME_SIZE: 16_383}), frames.PROTOCOL_ERROR),
    "SETTINGS with large frames": (frames.settings({frames.MAX_FRAME_SIZE: 1 << 24}), frames.PROTOCOL_ERROR),
    "SETTINGS with a push of 2": (frames.settings({frames.ENABLE_PUSH: 2}), frames.PROTOCOL_ERROR),
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + block(REQUEST)), frames.PROTOCOL_ERROR),
    "PING on 1": (frame(frames.PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
    "PING of 7 bytes": (frame(frames.PING, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
    "GOAWAY on 1": (frame(frames.GOAWAY, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
    "GOAWAY of 7 bytes": (frame(frames.GOAWAY, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_connection_ends_it_once(role: str, name: str) -> None:
    mistake, code = MISTAKES[name]
    pair = Pair(role)
    taker = pair.open()
    pair.take([mistake + frame(frames.DATA, 0, 1, b"behind it")])
    assert pair.told[-1:] == [("broke", code)]
    # Of a client's connection the highest stream that came, for it may repeat those above; a provider opens none.
    assert codes(pair, frames.GOAWAY) == [(0 if pair.client else pair.engine.h2.highest_inbound_stream_id, code)]
    assert taker.pieces == []
    said = len(pair.out)
    for late in (b"", frame(frames.DATA, 0, 1, b"x"), frames.ping(bytes(8))):
        pair.engine.receive(late)
    pair.engine.goaway(1, frames.NO_ERROR)
    pair.engine.reset(1, frames.CANCEL)
    assert [entry for entry in pair.told if entry[0] == "broke"] == [("broke", code)]
    assert len(pair.out) == said
    assert (pair.engine.partial, pair.engine.streams) == (False, {})


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("late", [frames.header(1 << 20, 0, 0, 1), frames.header(16_385, 99, 0, 0)])
def test_nothing_that_comes_behind_the_end_is_looked_at(role: str, late: bytes) -> None:
    pair = Pair(role)
    pair.engine.end_connection()
    pair.engine.receive(late)
    assert (pair.told, pair.out) == ([], [])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "first", [frames.ping(bytes(8)), frame(frames.SETTINGS, 1, 0), frame(frames.DATA, 0, 1, b"x"), HEADERS_1]
)
def test_a_connection_begins_with_settings(role: str, first: bytes) -> None:
    pair = Pair(role)
    pair.engine.greeted = False
    pair.take([first])
    assert pair.told == [("broke", frames.PROTOCOL_ERROR)]


def test_a_server_may_not_allow_push() -> None:
    for value, told in ((0, ("settings",)), (1, ("broke", frames.PROTOCOL_ERROR))):
        pair = Pair("client")
        pair.take([frames.settings({frames.ENABLE_PUSH: value})])
        assert pair.told == [told]


def test_settings_that_nobody_knows_are_not_kept() -> None:
    pair = Pair("server")
    known = len(pair.engine.h2.remote_settings)
    pair.take([frames.settings(dict.fromkeys(range(7, 39), 7))])
    assert pair.told == [("settings",)]
    assert len(pair.engine.h2.remote_settings) == known


def test_a_header_table_is_never_larger_than_ours() -> None:
    pair = Pair("server")
    for asked, given in ((1 << 31, 4096), (100, 100), (0, 0), (4096, 4096)):
        pair.take([frames.settings({frames.HEADER_TABLE_SIZE: asked})])
        assert pair.engine.h2.encoder.header_table_size == given


@pytest.mark.parametrize("role", ROLES)
def test_pings_are_answered_and_answers_told(role: str) -> None:
    pair = Pair(role)
    pair.take([frames.ping(b"12345678"), frames.ping(b"abcdefgh", ack=True)])
    assert pair.out == [frames.ping(b"12345678", ack=True)]
    assert pair.told == [("pong", b"abcdefgh")]


TRAILERS: dict[str, Headers] = {
    "a pseudo-header": [(b":status", b"200")],
    "a capital": [(b"X-Sum", b"1")],
    "a field of the connection": [(b"connection", b"close")],
    "a control byte": [(b"x-sum", b"1\r\n2")],
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", TRAILERS)
def test_malformed_trailers_break_their_stream_alone(role: str, name: str) -> None:
    pair = Pair(role)
    pair.open()
    other = pair.open(3)
    pair.take([frame(frames.HEADERS, 5, 1, block(TRAILERS[name]))])
    assert pair.told == [("stream broke", 1, frames.PROTOCOL_ERROR)]
    assert codes(pair, frames.RST_STREAM) == [(1, frames.PROTOCOL_ERROR)]
    pair.peer.send_data(3, b"hello")
    pair.settle()
    assert other.body == b"hello"


LENGTHS: dict[str, Headers] = {
    "no number": [(b"content-length", b"x")],
    "signed": [(b"content-length", b"+5")],
    "two": [(b"content-length", b"5"), (b"content-length", b"6")],
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", LENGTHS)
def test_a_malformed_length_breaks_its_stream_alone(role: str, name: str) -> None:
    """What makes it malformed is the listener's to say (heads2.py): it must get to see it."""
    pair = Pair(role)
    other = pair.open(1)
    if pair.client:
        pair.engine.send_head(3, GET, end=True)
        pair.settle()
    pair.take([frame(frames.HEADERS, 4, 3, block([*(RESPONSE if pair.client else REQUEST), *LENGTHS[name]]))])
    assert not [entry for entry in pair.told if entry[0] == "broke"]
    pair.peer.send_data(1, b"hello")
    pair.settle()
    assert other.body == b"hello"


def test_a_late_pseudo_header_is_late_behind_a_cookie_too() -> None:
    seen: list[Headers] = []

    class Seeing(Pair):
        def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
            seen.append(list(fields))

    fields: Headers = [*REQUEST[:3], (b"cookie", b"a=b"), REQUEST[3]]
    Seeing("server").take([frame(frames.HEADERS, 5, 1, block(fields))])
    assert seen == [] or [name for name, _ in seen[0]] == [name for name, _ in fields]
