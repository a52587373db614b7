"""Content codings: every coding at every split, and what a bomb may cost."""

from __future__ import annotations

import contextlib
import gzip
import random
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RemoteProtocolError
from relay.wire.encoding import STEP, Inflater, inflater
from tests.wire.splits import PLACES, cut, splits

LIMIT = 1 << 24


def _bare(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def _brotli(data: bytes) -> bytes:
    coded = brotli.compress(data)
    assert isinstance(coded, bytes)
    return coded


Encode = Callable[[bytes], bytes]
CODINGS: dict[str, tuple[bytes, Encode]] = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"X-GZIP ", gzip.compress),
    "deflate": (b"deflate", zlib.compress),
    "deflate without its header": (b"deflate", _bare),
    "br": (b"br", _brotli),
}
every_coding = pytest.mark.parametrize(("name", "encode"), CODINGS.values(), ids=CODINGS)


def decoder(name: bytes, limit: int = LIMIT) -> Inflater:
    made = inflater(name, limit)
    assert made is not None
    return made


def feed(decoder: Inflater, pieces: list[bytes]) -> bytes:
    return b"".join(step for piece in pieces for step in decoder.feed(piece))


@every_coding
def test_a_stream_is_the_same_at_every_split(name: bytes, encode: Encode) -> None:
    data = b'data: {"delta": "hello"}\n\n' * 8 + "data: żółw 🐢\n\n".encode()
    for pieces in splits(encode(data)):
        decode = decoder(name)
        assert feed(decode, pieces) == data
        assert decode.whole


@given(st.sampled_from(list(CODINGS)), st.binary(max_size=300), PLACES)
def test_any_bytes_in_any_pieces(coding: str, data: bytes, places: list[int]) -> None:
    name, encode = CODINGS[coding]
    decode = decoder(name)
    assert feed(decode, cut(encode(data), places)) == data
    assert decode.whole


@pytest.mark.parametrize("coding", list(CODINGS))
def test_no_output_stays_behind_where_a_step_is_just_full(coding: str) -> None:
    name, encode = CODINGS[coding]
    for size in [STEP - 1, *range(STEP, STEP + 300, 23), 2 * STEP + 5, 96 * 1024]:
        decode = decoder(name)
        assert feed(decode, [encode(b"a" * size)]) == b"a" * size
        assert decode.whole


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
@pytest.mark.parametrize("wbits", [31, 15, -15])
def test_a_flushed_event_is_given_at_once(flush: int, wbits: int) -> None:
    encoder = zlib.compressobj(wbits=wbits)
    decode = decoder(b"gzip" if wbits == 31 else b"deflate")
    for event in (b"data: one\n\n", b"data: two\n\n", b"data: " + b"x" * (STEP + 40) + b"\n\n"):
        assert feed(decode, [encoder.compress(event) + encoder.flush(flush)]) == event
        assert not decode.whole


def test_a_flushed_brotli_event_is_given_at_once() -> None:
    encoder, decode = brotli.Compressor(), decoder(b"br")
    for event in (b"data: one\n\n", b"data: two\n\n"):
        assert feed(decode, [encoder.process(event) + encoder.flush()]) == event
        assert not decode.whole


@every_coding
def test_a_cut_stream_is_not_whole(name: bytes, encode: Encode) -> None:
    coded = encode(bytes(random.Random(1).choices(b"data: x\n", k=200)))
    for end in range(len(coded)):
        decode = decoder(name)
        feed(decode, [coded[:end]])
        assert not decode.whole


@every_coding
def test_bytes_behind_the_end_are_refused_in_the_same_read_and_later(name: bytes, encode: Encode) -> None:
    coded = encode(b"data: x\n\n")
    for pieces in ([coded + b"junk"], [coded, b"junk"], [coded[:3], coded[3:] + b"junk"]):
        with pytest.raises(RemoteProtocolError):
            feed(decoder(name), pieces)


def test_gzip_may_come_in_several_members() -> None:
    """RFC 1952, 2.2; and a member that was cut is no whole answer."""
    first, second = gzip.compress(b"data: x\n\n"), gzip.compress(b"data: y\n\n")
    for pieces in ([first + second], [first, second], [bytes([byte]) for byte in first + second]):
        made = decoder(b"gzip")
        assert feed(made, pieces) == b"data: x\n\ndata: y\n\n"
        assert made.whole
    made = decoder(b"gzip")
    feed(made, [first + second[:-1]])
    assert not made.whole


@pytest.mark.parametrize("coding", ["gzip", "deflate", "deflate without its header"])
def test_good_bytes_before_a_mistake_are_given(coding: str) -> None:
    name, encode = CODINGS[coding]
    steps = decoder(name).feed(encode(b"data: x\n\n") + b"junk")
    assert next(steps) == b"data: x\n\n"
    with pytest.raises(RemoteProtocolError):
        next(steps)


@every_coding
def test_a_bomb_costs_one_step_of_memory_and_stops_at_the_limit(name: bytes, encode: Encode) -> None:
    bomb = encode(b"\0" * (2 * LIMIT))
    sizes: list[int] = []
    with pytest.raises(RemoteProtocolError, match="limit"):
        sizes.extend(map(len, decoder(name).feed(bomb)))
    assert max(sizes) <= 2 * STEP
    assert LIMIT - 2 * STEP <= sum(sizes) <= LIMIT


@every_coding
def test_the_limit_counts_over_all_reads(name: bytes, encode: Encode) -> None:
    data = random.Random(2).randbytes(3000)
    coded = encode(data)
    assert feed(decoder(name, 3000), [coded]) == data
    with pytest.raises(RemoteProtocolError):
        feed(decoder(name, 2999), cut(coded, list(range(0, len(coded), 100))))


@given(st.sampled_from([b"gzip", b"deflate", b"br"]), st.binary(max_size=100), PLACES)
def test_garbage_raises_nothing_else(name: bytes, data: bytes, places: list[int]) -> None:
    decode = decoder(name, 10_000)
    with contextlib.suppress(RemoteProtocolError):
        feed(decode, cut(data, places))


def test_only_known_codings_are_taken() -> None:
    assert inflater(None, 1) is inflater(b" Identity", 1) is inflater(b"", 1) is None
    for coding in (b"zstd", b"gzip, br", b"compress", b"aws-chunked"):
        with pytest.raises(RemoteProtocolError):
            inflater(coding, 1)
