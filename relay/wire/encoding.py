"""Content codings: a provider's compressed event stream, decoded in bounded steps (RFC 9110, 8.4).

The relay asks for `identity` where it will look at events; this is for providers that compress all the same. A step
gives about STEP bytes however small its input was, and a whole stream at most the limit it was made with, so that a
compression bomb costs one step of memory and no more CPU than its limit is worth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import brotli

from relay.errors import RemoteProtocolError

STEP = 64 * 1024


class Inflater:
    """One of the decoders below, with the bound on what it gives in all."""

    __slots__ = ("_limit", "_total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the coded bytes hold, in pieces of about STEP bytes.

        Raises RemoteProtocolError for bytes that are not of this coding and for a stream past its limit.
        """
        try:
            for piece in self._steps(data):
                self._total += len(piece)
                if self._total > self._limit:
                    raise RemoteProtocolError("the compressed answer inflates past its limit")
                if piece:
                    yield piece
        except (zlib.error, brotli.error):
            raise RemoteProtocolError("the answer is not of its content coding") from None

    @property
    def whole(self) -> bool:
        """Whether the coding's own end has come; a stream cut before it is cut, however its connection ended."""
        raise NotImplementedError

    def _steps(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError


class _Zlib(Inflater):
    __slots__ = ("_decoder", "_head", "_wbits")

    def __init__(self, limit: int, *, wbits: int) -> None:
        super().__init__(limit)
        self._wbits = wbits
        self._decoder = zlib.decompressobj(wbits)
        # "deflate" is the zlib format; senders that give the bare one are old and many. The first two bytes tell, so
        # they wait for each other.
        self._head: bytes | None = b"" if wbits == zlib.MAX_WBITS else None

    @property
    def whole(self) -> bool:
        return self._decoder.eof

    def _steps(self, data: bytes) -> Iterator[bytes]:
        if self._head is not None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            self._head = None
            if not _is_zlib(data):
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._decoder.eof:
                self._next_member()
            decoder = self._decoder
            piece = decoder.decompress(data, STEP)
            yield piece
            # A full step may leave output behind in the decoder even where it has taken all of the input.
            while (decoder.unconsumed_tail or len(piece) >= STEP) and not decoder.eof:
                piece = decoder.decompress(decoder.unconsumed_tail, STEP)
                yield piece
            data = decoder.unused_data

    def _next_member(self) -> None:
        """RFC 1952, 2.2: a gzip file is a series of members. Nothing may follow the end of the other codings."""
        if self._wbits <= zlib.MAX_WBITS:
            raise RemoteProtocolError("bytes behind the end of the compressed answer")
        self._decoder = zlib.decompressobj(self._wbits)


def _is_zlib(data: bytes) -> bool:
    """Whether the first two bytes are a zlib header (RFC 1950, 2.2); no encoder begins bare deflate like that."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0


class _Brotli(Inflater):
    __slots__ = ("_decoder",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._decoder = brotli.Decompressor()

    @property
    def whole(self) -> bool:
        return bool(self._decoder.is_finished())

    def _steps(self, data: bytes) -> Iterator[bytes]:
        # The library stops some way past its limit (measured: 96 KiB for 64), and says that it takes more input
        # while output still waits; only a short piece tells that nothing does.
        piece = self._decoder.process(data, output_buffer_limit=STEP)
        yield piece
        while len(piece) >= STEP and not self._decoder.is_finished():
            piece = self._decoder.process(b"", output_buffer_limit=STEP)
            yield piece


def _gzip(limit: int) -> Inflater:
    return _Zlib(limit, wbits=zlib.MAX_WBITS | 16)


def _deflate(limit: int) -> Inflater:
    return _Zlib(limit, wbits=zlib.MAX_WBITS)


_DECODERS: dict[bytes, Callable[[int], Inflater]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"br": _Brotli,
}


def inflater(coding: bytes | None, limit: int) -> Inflater | None:
    """The decoder of a Content-Encoding, None for identity; `limit` in decoded bytes.

    Raises RemoteProtocolError for a coding that is not known here; nobody asked for one.
    """
    coding = (coding or b"identity").strip().lower()
    if coding in (b"identity", b""):
        return None
    make = _DECODERS.get(coding)
    if make is None:
        raise RemoteProtocolError("the event stream has a content coding that was not asked for")
    return make(limit)
