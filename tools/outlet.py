"""The bytes of one HTTP/2 connection on their way to its socket.

What is said in one turn of the event loop leaves in one write, whichever streams it is from. A connection can also be
made to drip: its bytes then leave in many small writes, cut wherever a cut falls, frame headers included. Nothing here
knows frames.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator

# Past that much said in one turn, it is written at once: a fast stream to a reader with an endless window would pile up
# megabytes before anybody has asked the socket whether it takes them.
ENOUGH = 256 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Outlet:
    """`take` gives the bytes that are to be sent; `room` is called when `full` has become false."""

    def __init__(self, transport: asyncio.Transport, take: Callable[[], bytes], room: Callable[[], None]) -> None:
        self._transport = transport
        self._take = take
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._due = False  # a write at the end of this turn is arranged
        self._said = 0  # bytes of content since the last write
        self._paused = False
        self._closing = False
        self._held = False
        self._silent = False
        self._drips = 0  # who wants a drip
        self._sizes: Iterator[int] | None = None  # of the writes of a drip
        self._gap = 0.0
        self._tail = bytearray()  # what is still to drip
        self._next_drop: asyncio.Handle | None = None

    @property
    def full(self) -> bool:
        """Whether who has more to say should wait."""
        return self._paused or self._held or bool(self._tail)

    def soon(self, size: int = 0) -> None:
        """There is something to take, `size` bytes of it content: write it with the rest of this turn."""
        self._said += size
        if self._said >= ENOUGH:
            self.flush()
        elif not self._due:
            self._due = True
            self._loop.call_soon(self._turn_over)

    def flush(self) -> None:
        """Write what there is, now."""
        if self._held:
            return
        self._said = 0
        data = self._take()
        if data:
            self.write(data)

    def write(self, data: bytes) -> None:
        """Bytes past `take`, behind what was written before."""
        if self._closing or self._silent:
            return
        if self._sizes is None:
            self._transport.write(data)
            return
        self._tail += data
        if self._next_drop is None:
            self._drop()

    def drip(self, sizes: Iterator[int], gap: float) -> None:
        """Write that many bytes at a time, until `pour`; `gap` in seconds between writes, 0: a turn of the loop."""
        self._drips += 1
        self._sizes, self._gap = sizes, gap

    def pour(self) -> None:
        """One who wanted a drip wants it no more. What is still to drip does so."""
        self._drips -= 1
        if not self._drips and not self._tail:
            self._sizes = None

    def hold(self) -> None:
        """From now on only what `write` is given leaves; whoever has more to say waits for ever."""
        self.flush()
        self._held = True

    def silence(self) -> None:
        """Never write again; the socket stays open."""
        self.hold()
        self._silent = True

    def close(self) -> None:
        """Close by FIN, when everything has been written."""
        if self._closing:
            return
        self.flush()
        self._closing = True
        if not self._tail:
            self._transport.close()

    def abort(self) -> None:
        """Close by RST, when everything has been handed to the kernel."""
        self.flush()
        self._transport.write(bytes(self._tail))
        self.lost()
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    def lost(self) -> None:
        """The connection is gone."""
        self._closing = True
        self._tail.clear()
        if self._next_drop is not None:
            self._next_drop.cancel()

    def paused(self, paused: bool) -> None:
        """From the transport: whether the kernel takes no more."""
        self._paused = paused
        if not self.full:
            self._room()

    def _turn_over(self) -> None:
        self._due = False
        if not self._closing:
            self.flush()

    def _drop(self) -> None:
        assert self._sizes is not None
        self._next_drop = None
        size = next(self._sizes)
        piece = bytes(self._tail[:size])
        del self._tail[:size]
        self._transport.write(piece)
        if self._tail:
            self._next_drop = self._loop.call_later(self._gap, self._drop)
            return
        if not self._drips:
            self._sizes = None
        if self._closing:
            self._transport.close()
        elif not self.full:
            self._room()
