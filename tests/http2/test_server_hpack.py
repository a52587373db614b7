"""Field blocks that a server must take, and those that end the connection (RFC 7541; h2spec: generic/5 and hpack)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.frames import END_STREAM, Code, Setting, integer, string, table_size
from tests.http2.peers import ClientPeer

# Places in the static table (RFC 7541, appendix A), and the first behind both tables of a new connection.
USER_AGENT = 58
STATIC = 61
NOWHERE = STATIC + 9
# Patterns of the representations, with the bits that are left for an index (RFC 7541, 6).
INDEXED = (7, 0x80)
INCREMENTAL = (6, 0x40)
WITHOUT = (4, 0x00)
NEVER = (4, 0x10)
LITERALS = {"incremental": INCREMENTAL, "without-indexing": WITHOUT, "never-indexed": NEVER}


def indexed(place: int) -> bytes:
    return integer(INDEXED[0], place, INDEXED[1])


def literal(form: tuple[int, int], name: int | str, value: str, *, huffman: bool = False) -> bytes:
    """A literal field: its name from a table, or new."""
    prefix, pattern = form
    if isinstance(name, int):
        return integer(prefix, name, pattern) + string(value, huffman=huffman)
    return bytes([pattern]) + string(name, huffman=huffman) + string(value, huffman=huffman)


def test_indexed_field(peer: ClientPeer) -> None:
    """7541, 6.1: an indexed field stands for an entry of a table."""
    peer.send(frames.headers(1, peer.block() + indexed(USER_AGENT)))
    peer.expect_headers(1)


@pytest.mark.parametrize("huffman", [False, True], ids=["plain", "huffman"])
@pytest.mark.parametrize("name", [USER_AGENT, "x-test"], ids=["indexed-name", "new-name"])
@pytest.mark.parametrize("form", LITERALS.values(), ids=LITERALS.keys())
def test_literal_field(peer: ClientPeer, form: tuple[int, int], name: int | str, huffman: bool) -> None:
    """7541, 6.2: the three literal representations, with a name by index or by letters, coded or not."""
    peer.send(frames.headers(1, peer.block() + literal(form, name, "tests", huffman=huffman)))
    peer.expect_headers(1)


def test_the_dynamic_table_outlives_a_block(peer: ClientPeer) -> None:
    """7541, 2.2: what one block put into the dynamic table, the next may name."""
    peer.send(
        frames.headers(1, peer.block() + literal(INCREMENTAL, "x-test", "kept")),
        frames.headers(3, peer.block() + indexed(STATIC + 1)),
    )
    peer.expect_headers(3)


def test_the_dynamic_table_outlives_a_refused_request(peer: ClientPeer) -> None:
    """9113, 4.3: a field block is decoded even if its stream is refused, for the tables' sake."""
    peer.send(frames.headers(1, peer.block(("Upper", "case")) + literal(INCREMENTAL, "x-test", "kept")))
    peer.expect_reset(1, Code.PROTOCOL_ERROR)
    peer.send(frames.headers(3, peer.block() + indexed(STATIC + 1)))
    peer.expect_headers(3)


def test_table_size_update(peer: ClientPeer) -> None:
    """7541, 6.3: the encoder may make its table smaller at the start of a block."""
    peer.send(frames.headers(1, table_size(0) + peer.block()))
    peer.expect_headers(1)


def test_two_table_size_updates(peer: ClientPeer) -> None:
    """7541, 4.2: of several changes between two blocks the smallest and the last are said, both at the start."""
    peer.send(frames.headers(1, table_size(0) + table_size(100) + peer.block()))
    peer.expect_headers(1)


# Whatever cannot be decoded ends the connection, since both tables are then unknown.


def spoil(peer: ClientPeer, block: bytes) -> None:
    peer.send(frames.headers(1, block))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_index_behind_both_tables(peer: ClientPeer) -> None:
    """7541, 2.3.3: an index greater than both tables are long is a decoding error."""
    spoil(peer, peer.block() + indexed(NOWHERE))


def test_name_index_behind_both_tables(peer: ClientPeer) -> None:
    """7541, 2.3.3: so is the index of a literal's name."""
    spoil(peer, peer.block() + literal(INCREMENTAL, NOWHERE, "empty"))


def test_index_zero(peer: ClientPeer) -> None:
    """7541, 6.1: index 0 is not used."""
    spoil(peer, peer.block() + b"\x80")


def test_table_size_update_at_the_end_of_a_block(peer: ClientPeer) -> None:
    """7541, 4.2: a size update stands at the start of a block."""
    spoil(peer, peer.block() + table_size(1))


def test_table_size_update_above_the_setting(peer: ClientPeer) -> None:
    """7541, 6.3: the new size is at most what the decoder allows."""
    allowed = peer.settings.get(Setting.HEADER_TABLE_SIZE, 4096)
    spoil(peer, table_size(allowed + 1) + peer.block())


# "o" and "k" are the bits 00111 and 1110101; what follows them is padding.
@pytest.mark.parametrize(
    "coded",
    [
        pytest.param(b"\x3f\x5f\xff", id="longer-than-7-bits"),
        pytest.param(b"\x3f\x50", id="of-zeros"),
        pytest.param(b"\x3f\xff\xff\xff\xff", id="end-of-string"),
    ],
)
def test_huffman_padding(peer: ClientPeer, coded: bytes) -> None:
    """7541, 5.2: padding is at most 7 bits, all ones, and the end-of-string symbol is not in a string."""
    spoil(peer, peer.block() + b"\x00" + string("x-test") + integer(7, len(coded), 0x80) + coded)


@pytest.mark.parametrize(
    "coded",
    [
        pytest.param(b"\x40", id="no-name"),
        pytest.param(b"\x00\x06x-te", id="name-cut"),
        pytest.param(b"\x00\x06x-test\x7f", id="length-cut"),
        pytest.param(b"\x00\x06x-test\x7f" + b"\xff" * 12 + b"\x01", id="length-without-end"),
        pytest.param(b"\x00\x06x-test\x05test", id="value-cut"),
    ],
)
def test_block_that_ends_too_early(peer: ClientPeer, coded: bytes) -> None:
    """9113, 4.3: a decoding error in a field block ends the connection, COMPRESSION_ERROR."""
    spoil(peer, peer.block() + coded)


def test_trailers_that_cannot_be_decoded(peer: ClientPeer) -> None:
    """9113, 4.3: in a trailer section as well."""
    peer.send(peer.post(1), frames.data(1, b"test"), frames.headers(1, b"\x40"))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_decoding_error_after_continuation(peer: ClientPeer) -> None:
    """9113, 4.3: the block is whole with its last CONTINUATION, and judged then."""
    peer.send(frames.headers(1, peer.block(), END_STREAM), frames.continuation(1, b"\x80"))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)
