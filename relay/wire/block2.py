"""Header blocks (RFC 9113, section 4.3): one HEADERS frame and the CONTINUATIONs behind it, put together.

h2 gets a block when it is whole, so that what of it is too long, too fragmented or too slow is refused before HPACK
has seen any of it.
"""

from __future__ import annotations

from relay.wire import flood, frames
from relay.wire.listener2 import Broken

# Compressed; as a list, the decoder limits it (http2.py).
BLOCK_LIMIT = 64 * 1024
# RFC 7541, 4.2: two changes of the table's size can be needed at the start of a block; hpack takes any number.
_SIZE_UPDATES = 2


class Block:
    """A header block that has begun. `flags` are END_STREAM and PRIORITY; `since` is when it began, by the clock."""

    __slots__ = ("_fragments", "_priority", "_size", "flags", "since", "stream_id", "whole")

    def __init__(self, flags: int, stream_id: int, payload: bytes, since: float) -> None:
        """From a HEADERS frame. Raises Broken."""
        if not stream_id:
            raise Broken(frames.PROTOCOL_ERROR, "HEADERS outside of any stream")
        start, end = 0, len(payload)
        if flags & frames.PADDED:
            if not payload or payload[0] >= len(payload):
                raise Broken(frames.PROTOCOL_ERROR, "more padding than payload")
            start, end = 1, end - payload[0]
        self._priority = b""
        if flags & frames.PRIORITIZED:
            self._priority = payload[start : start + 5]
            start += 5
        if start > end:
            raise Broken(frames.FRAME_SIZE_ERROR, "HEADERS are too short")
        self.flags = flags & (frames.END_STREAM | frames.PRIORITIZED)
        self.since = since
        self.stream_id = stream_id
        self.whole = False
        self._fragments: list[bytes] = []
        self._size = 0
        self._add(flags, payload[start:end])

    def go_on(self, flags: int, payload: bytes) -> None:
        """A CONTINUATION frame. Raises Broken."""
        if len(self._fragments) > flood.CONTINUATIONS:
            raise Broken(frames.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        self._add(flags, payload)

    def _add(self, flags: int, fragment: bytes) -> None:
        self._fragments.append(fragment)
        self._size += len(fragment)
        if self._size > BLOCK_LIMIT:
            raise Broken(frames.ENHANCE_YOUR_CALM, "a header block is longer than may be")
        self.whole = bool(flags & frames.END_HEADERS)

    @property
    def fields(self) -> bytes:
        """The whole block, compressed. Raises Broken."""
        fields = b"".join(self._fragments)
        if _size_updates(fields) > _SIZE_UPDATES:
            raise Broken(frames.COMPRESSION_ERROR, "too many changes of the header table's size")
        return fields

    @property
    def payload(self) -> bytes:
        """Of one HEADERS frame with the whole block, without padding. Raises Broken."""
        return self._priority + self.fields


def _size_updates(block: bytes) -> int:
    """How many changes of the table's size stand at a block's start (RFC 7541, 6.3)."""
    found = at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        found += 1
        more = block[at] & 0x1F == 0x1F
        at += 1
        while more and at < len(block):
            more = block[at] & 0x80 != 0
            at += 1
    return found
