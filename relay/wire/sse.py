"""Server-Sent Events: where events begin and end (WHATWG HTML, 9.2.5 and 9.2.6).

    stream = *event          event = *line empty-line          line ends: CRLF / LF / CR

The relay does not interpret a stream; it only needs to know where it may stop, insert or drop something, and that is
behind an empty line. `Framer` cuts there, whatever way the bytes arrived in, and changes none of them.

Must never: parse JSON, copy an event that came whole, hold more than `limit` bytes of an unfinished one.
"""

from __future__ import annotations

import re

# What follows one of these is the start of a line at the start of an event, whatever stood before: two line ends in
# a row are an empty line. (A single LF after CR belongs to that CR, so CR LF LF is covered by the first.)
BORDERS = (b"\n\n", b"\r\n\r\n")

# Two line ends. A CR that is the last byte so far may be half of a CRLF; it counts at once only in a stream whose
# lines end in CR alone, where waiting for a LF would hold every event back until the next.
_BORDER = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?!\n|\Z))|\r(?:\r\n|\r(?!\n))")
_ID_LINE = re.compile(rb"^(?:id|retry)(?::[^\r\n]*)?(?:\r\n|\n|\r)|(?<=[\r\n])(?:id|retry)(?::[^\r\n]*)?(?:\r\n|\n|\r)")
_FIRST_FIELD = re.compile(rb"(?:^|[\r\n])(event|data)(?:[:\r\n]|\Z)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
_DATA_LINE = re.compile(rb"(?:^(?:\xef\xbb\xbf)?|[\r\n])data(?:[:\r\n]|\Z)")
# The longest border, less its last byte: as much of the old end can belong to a border that the new bytes complete.
_OVERLAP = 3


class Framer:
    """Cuts a stream behind its last whole event.

    `feed` answers the bytes that may go on now and keeps the unfinished rest. An event of more than `limit` bytes is
    given up in pieces, so that memory stays flat; until its end has come, `inside` is true and nothing may be
    inserted.
    """

    __slots__ = ("_limit", "_rest", "_scan", "inside")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._scan = 0
        self.inside = False

    @property
    def pending(self) -> bool:
        """Whether the next bytes continue an event, so that they must pass through `feed`."""
        return self.inside or bool(self._rest)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those up to the last event border, perhaps none."""
        rest = self._rest
        rest += data
        end = _last_border(rest, self._scan)
        if end:
            self.inside = False
        elif len(rest) > self._limit or self.inside:
            # All but the bytes that a border may still be made of.
            end = max(len(rest) - _OVERLAP, 0)
            self.inside = True
        whole = bytes(rest[:end])
        del rest[:end]
        self._scan = max(len(rest) - _OVERLAP, 0)
        return whole

    def close(self) -> bytes:
        """The stream is over: return what is left of an event that never ended."""
        rest = bytes(self._rest)
        self._rest.clear()
        self._scan = 0
        return rest


def _last_border(rest: bytearray, start: int) -> int:
    """Position behind the last empty line at or after `start`, 0 for none."""
    end = rest.rfind(b"\n\n", start) + 2
    if end == 1:
        end = 0
    # Only streams with a CR need the closer look.
    if rest.find(b"\r", start) >= 0:
        for match in _BORDER.finditer(rest, max(start, end)):
            end = match.end()
    return end


def split(payload: bytes) -> list[bytes]:
    """Cut whole events apart. Joined, the result is the payload; an unfinished rest is the last item."""
    if b"\r" not in payload:
        blocks = payload.split(b"\n\n")
        rest = blocks.pop()
        whole = [block + b"\n\n" for block in blocks]
        return [*whole, rest] if rest else whole
    blocks = []
    start = 0
    for match in _BORDER.finditer(payload):
        blocks.append(payload[start : match.end()])
        start = match.end()
    if start < len(payload):
        blocks.append(payload[start:])
    return blocks


def has_data(block: bytes) -> bool:
    """Whether a reader would be given this block as an event: one without a data field is not dispatched."""
    return _DATA_LINE.search(block) is not None


def anonymous(block: bytes) -> bytes:
    """An event without what stands before its first line and without ids of its own, so that one may be put in front of
    it; empty for a block that is no event."""
    if not has_data(block):
        return b""
    block = block.removeprefix(_BOM).lstrip(b"\r\n")
    return _ID_LINE.sub(b"", block) if b"id" in block else block


def completed(event: bytes) -> bytes:
    """An event that lacks its empty line, with it."""
    return event.rstrip(b"\r\n") + b"\n\n"


def head(block: bytes, size: int) -> bytes:
    """The first bytes of one event from its `event` or `data` field on: what says of which kind it is."""
    if len(block) < size:
        return block
    found = _FIRST_FIELD.search(block)
    start = found.start(1) if found else 0
    return block[start : start + size]


def count(payload: bytes) -> int:
    """How many events with data stand in these whole events."""
    if b"\r" not in payload:
        # Each begins with its data, as nearly everybody writes them: a fast provider may have a thousand in one read,
        # and a look at each of them would hold up all other streams.
        events = payload.count(b"\n\n")
        if payload.startswith(b"data:") + payload.count(b"\n\ndata:") == events and payload.endswith(b"\n\n"):
            return events
    return sum(map(has_data, split(payload)))


def last(payload: bytes) -> bytes:
    """The last event with data in these whole events; empty for none."""
    if b"\r" not in payload:
        border = payload.rfind(b"\n\n", 0, -2)
        block = payload[border + 2 :] if border >= 0 else payload
        if has_data(block):
            return block
    return next(filter(has_data, reversed(split(payload))), b"")


def fields(block: bytes) -> dict[bytes, bytes]:
    """The fields of one event: the last value of each name, `data` lines joined by LF."""
    found: dict[bytes, bytes] = {}
    data: list[bytes] = []
    for line in _LINE_END.split(block.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if not name:
            continue
        value = value.removeprefix(b" ")
        found[name] = value
        if name == b"data":
            data.append(value)
    if len(data) > 1:
        found[b"data"] = b"\n".join(data)
    return found
