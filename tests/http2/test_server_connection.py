"""The preface, the frame layout, sizes and connection errors at a server (RFC 9113, 3.4, 4, 5.4, 5.5; h2spec:
http2/3.5, 4, 5.4.1, 5.5)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.conftest import Target
from tests.http2.frames import END_HEADERS, END_STREAM, MAX_FRAME, Code, Kind
from tests.http2.peers import MORE_FIELDS, ClientPeer

UNKNOWN = 0x16
FAULTY_PING = frames.frame(Kind.PING, 0, 3, bytes(8))


def test_settings_are_the_first_frame(server: Target) -> None:
    """3.4: the server's preface is a SETTINGS frame, its first frame."""
    with server.connect() as peer:
        peer.send(frames.PREFACE, frames.settings())
        peer.expect_settings()


@pytest.mark.parametrize(
    "preface",
    [
        pytest.param(b"INVALID CONNECTION PREFACE\r\n\r\n", id="other-words"),
        pytest.param(frames.PREFACE[:-6] + b"XX\r\n\r\n", id="other-end"),
        pytest.param(bytes(20) + b"\r\n\r\n", id="zeros"),
    ],
)
def test_invalid_preface(server: Target, preface: bytes) -> None:
    """3.4: what is not the preface is a connection error; GOAWAY may be left out. HTTP/1.1 may be said instead, 400."""
    with server.connect() as peer:
        peer.send(preface, frames.settings())
        said = peer.read_to_end()
    assert b" 200" not in said
    if said.startswith(b"HTTP/1."):
        assert said[9:12] in (b"400", b"505")


def test_other_frame_instead_of_settings(server: Target) -> None:
    """3.4: the client's preface goes on with SETTINGS; a PING in its place is a connection error."""
    with server.connect() as peer:
        peer.send(frames.PREFACE, frames.ping(b"too soon"))
        peer.expect_connection_error(Code.PROTOCOL_ERROR)


# 4.1: the frame format.


def test_frame_of_unknown_type(peer: ClientPeer) -> None:
    """4.1: a frame of unknown type is ignored."""
    peer.send(frames.frame(UNKNOWN, 0, 0, bytes(8)))
    peer.expect_alive()


def test_undefined_flags(peer: ClientPeer) -> None:
    """4.1: flags without a meaning for this type are ignored."""
    peer.send(frames.ping(b"with bit", 0x16))
    peer.expect_ping_ack(b"with bit")


def test_reserved_bit(peer: ClientPeer) -> None:
    """4.1: the bit in front of the stream id is ignored."""
    peer.send(frames.frame(Kind.PING, 0, 0x80000000, b"with bit"))
    peer.expect_ping_ack(b"with bit")


# 4.2: the frame size.


def test_data_of_the_greatest_size(peer: ClientPeer) -> None:
    """4.2: everybody takes frames of 2^14 octets."""
    peer.send(peer.post(1), frames.data(1, bytes(MAX_FRAME), END_STREAM))
    peer.expect_headers(1)


def test_data_above_the_greatest_size(peer: ClientPeer) -> None:
    """4.2: a frame above SETTINGS_MAX_FRAME_SIZE is a FRAME_SIZE_ERROR."""
    greatest = peer.settings.get(frames.Setting.MAX_FRAME_SIZE, MAX_FRAME)
    peer.send(peer.post(1), frames.data(1, bytes(greatest + 1), END_STREAM))
    peer.expect_stream_error(1, Code.FRAME_SIZE_ERROR)


def test_headers_above_the_greatest_size(peer: ClientPeer) -> None:
    """4.2: where it changes the connection's state, as a field block does, it ends the connection."""
    greatest = peer.settings.get(frames.Setting.MAX_FRAME_SIZE, MAX_FRAME)
    peer.send(frames.headers(1, peer.block(("x-long", "y" * greatest))))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


def test_a_frame_is_refused_at_its_header(peer: ClientPeer) -> None:
    """4.2: its nine octets say that it is too long; the rest need not come."""
    announced = b"\xff\xff\xff" + bytes([Kind.DATA, 0, 0, 0, 0, 1])
    peer.send(peer.post(1), announced)
    peer.expect_stream_error(1, Code.FRAME_SIZE_ERROR)


# 4.3: a field block is one piece.


def test_block_that_cannot_be_decoded(peer: ClientPeer) -> None:
    """4.3: a decoding error in a field block ends the connection, COMPRESSION_ERROR."""
    peer.send(frames.headers(1, b"\x40"))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_priority_inside_a_block(peer: ClientPeer) -> None:
    """4.3: no frame of another type comes between the frames of a field block."""
    peer.send(frames.headers(1, peer.block(), END_STREAM), frames.priority(1), frames.continuation(1, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_headers_of_another_stream_inside_a_block(peer: ClientPeer) -> None:
    """4.3: nor one of another stream."""
    peer.send(frames.headers(1, peer.block(), END_STREAM), peer.get(3), frames.continuation(1, MORE_FIELDS))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_ping_inside_a_block(peer: ClientPeer) -> None:
    """4.3: nor one of the connection."""
    peer.send(
        frames.headers(1, peer.block(), END_STREAM), frames.ping(b"too soon"), frames.continuation(1, MORE_FIELDS)
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


# 5.4.1: how a connection ends in error.


def test_the_connection_is_closed_after_an_error(peer: ClientPeer) -> None:
    """5.4.1: after GOAWAY for an error the endpoint closes the TCP connection."""
    peer.send(FAULTY_PING)
    peer.expect_close()


def test_goaway_names_the_error(peer: ClientPeer) -> None:
    """5.4.1: GOAWAY comes first, with the error's code and the last stream that was taken."""
    peer.send(peer.get(1))
    peer.expect_end(1)
    peer.send(FAULTY_PING)
    assert peer.expect_goaway(Code.PROTOCOL_ERROR).last_stream == 1


# 5.5: extensions.


def test_extension_frame(peer: ClientPeer) -> None:
    """5.5: frames of unknown extensions are discarded, on a stream as well."""
    peer.send(peer.post(1), frames.frame(UNKNOWN, 0xFF, 1, b"whatever"), frames.data(1, b"test", END_STREAM))
    peer.expect_headers(1)


def test_extension_frame_inside_a_block(peer: ClientPeer) -> None:
    """5.5: but inside a field block they are a connection error."""
    peer.send(
        frames.headers(1, peer.block(), END_STREAM & ~END_HEADERS),
        frames.frame(UNKNOWN, 0, 0, bytes(8)),
        frames.continuation(1, MORE_FIELDS),
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
