"""One stream of an HTTP/2 connection (RFC 9113, 5): a request, and what its answer writes.

Content waits for the windows that h2 keeps and for the socket; everything else is said at once. A stream is in the
counts unless it asks about the provider itself.
"""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import TYPE_CHECKING

from counts import Arrival
from intake import Request
from simulation import INTERNAL_ERROR

if TYPE_CHECKING:
    from serve2 import Connection2

Fields = list[tuple[str, str]]
FRAME_HEADER = 9  # bytes before a frame's payload (RFC 9113, 4.1)


class Stream:
    """The peer of one answer. `code` is that of the RST_STREAM which ends it, when one does."""

    __slots__ = ("_h2", "_outlet", "arrival", "code", "connection", "counted", "number", "request", "task")

    def __init__(self, connection: Connection2, number: int, request: Request, *, counted: bool) -> None:
        self._h2 = connection.h2
        self._outlet = connection.outlet
        self.connection = connection
        self.number = number
        self.request = request
        self.counted = counted
        self.arrival: Arrival | None = None  # of the counted request that is owed an answer
        self.task: asyncio.Task[None] | None = None
        self.code = INTERNAL_ERROR

    # For the answer

    def opened(self) -> None:
        self.connection.counts.add("opened")

    def told(self, events: int) -> None:
        self.connection.counts.add("events", events)

    def headers(self, fields: Fields, *, end: bool = False) -> None:
        """A head, an informational one, or trailers; names in lower case."""
        self._h2.send_headers(self.number, fields, end_stream=end)
        self._outlet.soon()

    async def slow_headers(self, fields: Fields, interval: float, *, end: bool = False) -> None:
        """A head byte by byte. Nothing else on the connection can pass it."""
        self._outlet.flush()
        self._outlet.drip(repeat(1), interval)
        try:
            self.headers(fields, end=end)
            self._outlet.flush()
            while self._outlet.full:
                await self.connection.change(self.number)
        finally:
            self._outlet.pour()

    async def data(self, content: bytes, *, most: int = 0, padding: int | None = None, end: bool = False) -> None:
        """Content in DATA frames of at most `most` bytes of it, 0: as many as the peer takes; each padded."""
        more = 0 if padding is None else padding + 1  # what padding costs of a window (6.1)
        start = 0
        while start < len(content) or end:
            room = await self._room(more, empty=start == len(content))
            size = min(len(content) - start, room, most or room)
            last = start + size == len(content)
            self._frame(content[start : start + size], more, padding, end=end and last)
            start += size
            if last:
                break

    def empty(self) -> None:
        """A DATA frame with nothing in it: no window is asked (6.9.1)."""
        self._frame(b"", 0, None, end=False)

    def raw(self, data: bytes, *, content: int = 0) -> None:
        """Bytes that h2 does not know of, behind those that it does; `content` of them count for windows."""
        self._outlet.flush()
        self._outlet.write(data)
        if content:
            self._h2.unaccounted(content)
        self._count(len(data))

    def _frame(self, content: bytes, more: int, padding: int | None, *, end: bool) -> None:
        self._h2.send_data(self.number, content, end_stream=end, pad_length=padding)
        size = FRAME_HEADER + more + len(content)
        self._outlet.soon(size)
        self._count(size)

    def _count(self, size: int) -> None:
        if self.counted:
            self.connection.counts.add("bytes", size)

    async def _room(self, more: int, *, empty: bool) -> int:
        """Waits until the windows and the socket take a byte, or nothing; gives how many bytes a frame may have."""
        least = more if empty else more + 1
        while True:
            window = self._h2.local_flow_control_window(self.number)
            if not self._outlet.full and (window >= least or not least):
                return max(0, min(window, self._h2.max_outbound_frame_size) - more)
            await self.connection.change(self.number)
