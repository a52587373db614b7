"""An HTTP/1.1 response as bytes: head, content coding, framing (RFC 9112, 6 and 7), cuts at random places."""

from __future__ import annotations

import asyncio
import importlib
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from random import Random
from typing import Protocol

from simulation import Simulation

# Cuts are small enough to fall inside a character, a field name, a CR LF and a chunk's size line, and at
# times large.
CUTS = (1, 1, 2, 3, 5, 8, 13, 34, 144)


class Peer(Protocol):
    """The connection as an answer sees it."""

    async def write(self, data: bytes) -> None:
        """Hand bytes to the socket; returns when the socket has taken them all."""

    def opened(self) -> None:
        """The response starts."""

    def told(self, events: int) -> None:
        """That many content events have been written."""


class Coder(Protocol):
    def put(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class Identity:
    def put(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class Deflate:
    """gzip (RFC 1952) or zlib (what HTTP calls deflate), flushed at each put."""

    def __init__(self, window_bits: int) -> None:
        self._compressor = zlib.compressobj(wbits=window_bits)

    def put(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH) if data else b""

    def finish(self) -> bytes:
        return self._compressor.flush()


class Brotli:
    """br (RFC 7932), flushed at each put; the only user of the package, so that the rest runs without it."""

    def __init__(self) -> None:
        self._compressor = importlib.import_module("brotli").Compressor(quality=4)

    def put(self, data: bytes) -> bytes:
        if not data:
            return b""
        encoded: bytes = self._compressor.process(data) + self._compressor.flush()
        return encoded

    def finish(self) -> bytes:
        last: bytes = self._compressor.finish()
        return last


CODERS: dict[str, Callable[[], Coder]] = {
    "identity": Identity,
    "gzip": lambda: Deflate(31),
    "deflate": lambda: Deflate(15),
    "br": Brotli,
}


def head(status: int, fields: list[tuple[str, str]], version: str = "HTTP/1.1") -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Simulated"
    lines = [f"{version} {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def cut(data: bytes, random: Random) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + random.choice(CUTS)
        yield data[start:end]
        start = end


class Body:
    """Encodes, frames and writes one body. With an `extension`, chunks hold one byte and carry it."""

    def __init__(self, peer: Peer, simulation: Simulation, framing: str) -> None:
        self._peer = peer
        self._coder = CODERS[simulation.coding()]()
        self._chunked = framing == "chunked"
        self._random = None if simulation.split is None else Random(simulation.split)
        self._gap = simulation.gap
        self.extension = b""

    async def put(self, payload: bytes) -> None:
        """Write a part of the body, at once and flushed."""
        await self._frame(self._coder.put(payload))

    async def end(self, trailers: bytes = b"", surplus: bytes = b"", *, last_chunk: bool = True) -> None:
        """End the body; `surplus` follows in the same write, where no byte should be."""
        await self._frame(self._coder.finish())
        ending = b"0\r\n" + trailers + b"\r\n" if self._chunked and last_chunk else b""
        if ending or surplus:
            await self._write(ending + surplus)

    async def _frame(self, data: bytes) -> None:
        if not data:
            return
        if not self._chunked:
            await self._write(data)
        elif self.extension:
            for byte in data:
                await self._peer.write(b"1%b\r\n%c\r\n" % (self.extension, byte))
        elif self._random is None:
            await self._peer.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            chunks = cut(data, self._random)
            await self._write(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks))

    async def _write(self, data: bytes) -> None:
        if self._random is None:
            await self._peer.write(data)
            return
        for piece in cut(data, self._random):
            await self._peer.write(piece)
            await asyncio.sleep(self._gap)
