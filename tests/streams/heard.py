"""A body of events, taken apart as an EventSource does it (WHATWG HTML, 9.2.6), with what the relay promises about ids
on the way: an id stands last in a block that has data (where no client takes the event for had before it is whole), and
no block is there for the sake of an id or a retry."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)")
_ID = re.compile(rb"id: ([A-Za-z0-9_-]{22})-([1-9][0-9]*)\n")
_BEAT = b":\n"


class Event(NamedTuple):
    """`seq` is 0 where the block had no id."""

    seq: int
    name: str
    data: str


@dataclass
class Heard:
    """`events` have ids, `own` are the relay's words without one, `beats` its heartbeats; `stream_id` is what all ids
    begin with."""

    stream_id: str = ""
    events: list[Event] = field(default_factory=list)
    own: list[Event] = field(default_factory=list)
    beats: int = 0

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]

    @property
    def said(self) -> list[tuple[str, str]]:
        """What the provider said: names and data."""
        return [(event.name, event.data) for event in self.events]

    def tiles(self, first: int = 1, last: int | None = None) -> None:
        """Its ids are all from the first to the last, each once and in order."""
        last = first + len(self.events) - 1 if last is None else last
        assert self.seqs == list(range(first, last + 1))

    def error(self) -> dict[str, Any]:
        """The one error that the relay told, in OpenAI's form."""
        [event] = self.own
        error: dict[str, Any] = json.loads(event.data)["error"]
        return error


def hear(body: bytes) -> Heard:
    """Everything of a body that the relay has numbered."""
    heard = Heard()
    for lines in _blocks(body, heard):
        names = [line.partition(b":")[0].strip(b"\r\n") for line in lines]
        found = _ID.fullmatch(lines[-1])
        assert b"data" in names, f"a block without data: {lines}"
        assert names.count(b"id") == (found is not None), f"an id that is not ours, or not last: {lines}"
        event = Event(int(found[2]) if found else 0, *_dispatched(lines))
        if found is None:
            heard.own.append(event)
            continue
        assert heard.stream_id in ("", found[1].decode())
        heard.stream_id = found[1].decode()
        heard.events.append(event)
    return heard


def plain(body: bytes) -> list[tuple[str, str]]:
    """The events of a provider's own body."""
    blocks = _blocks(body.removeprefix(b"\xef\xbb\xbf"), Heard())
    return [_dispatched(lines) for lines in blocks if any(line.startswith(b"data") for line in lines)]


def _blocks(body: bytes, heard: Heard) -> list[list[bytes]]:
    lines = _LINE.findall(body)
    assert b"".join(lines) == body, f"half a line at the end: {body[-100:]!r}"
    blocks: list[list[bytes]] = []
    block: list[bytes] = []
    for line in lines:
        if line == _BEAT:
            assert not block, f"a heartbeat inside an event: {block}"
            heard.beats += 1
        elif line.strip(b"\r\n"):
            block.append(line)
        elif block:
            blocks.append(block)
            block = []
    assert not block, f"half an event at the end: {block}"
    return blocks


def _dispatched(lines: list[bytes]) -> tuple[str, str]:
    name, data = "", []
    for line in lines:
        key, _, value = line.rstrip(b"\r\n").partition(b":")
        text = value.removeprefix(b" ").decode()
        if key == b"event":
            name = text
        elif key == b"data":
            data.append(text)
    return name or "message", "\n".join(data)
