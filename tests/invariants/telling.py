"""What a reader makes of bytes, by the standard and not by the relay's code: events, and the text in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Place = tuple[object, ...]
Texts = dict[Place, str]

_BEAT = re.compile(rb"(?:(?<=[\r\n])|\A):\n")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One that was dispatched. `mark` is the id that stood in its own block, None for none; `size` its block's."""

    name: str
    data: bytes
    mark: str | None
    size: int


def parse(body: bytes) -> list[Event]:
    """WHATWG HTML, 9.2.6; an event without its empty line is none. A block must not set an id without being an event:
    that kills SDKs."""
    events: list[Event] = []
    name, mark, size = "", None, 0
    data: list[bytes] = []
    # Of bytes, this knows the same three line ends as the standard.
    for line in body.removeprefix(_BOM).splitlines(keepends=True):
        text = line.rstrip(b"\r\n")
        size += len(line)
        if len(text) == len(line):
            break  # it has no end
        if text:
            field, _, value = text.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode()
            elif field == b"data":
                data.append(value)
            elif field == b"id" and b"\0" not in value:
                mark = value.decode()
            continue
        if data:
            events.append(Event(name or "message", b"\n".join(data), mark, size))
        else:
            assert mark is None, f"an id without an event: {mark}"
        name, mark, size = "", None, 0
        data = []
    return events


def without_beats(body: bytes) -> bytes:
    """The body less the relay's heartbeats, which the provider's own comments are not like."""
    return _BEAT.sub(b"", body)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _split_chat(event: dict[str, Any]) -> Iterator[tuple[Place, str, dict[str, Any], str]]:
    for choice in event.get("choices", []):
        delta = choice.get("delta", {})
        for name in ("content", "reasoning_content"):
            if isinstance(delta.get(name), str):
                yield (choice["index"], name), delta[name], delta, name
        for call in delta.get("tool_calls", []):
            yield (choice["index"], "tool", call["index"]), call["function"]["arguments"], call["function"], "arguments"


def _split_completions(event: dict[str, Any]) -> Iterator[tuple[Place, str, dict[str, Any], str]]:
    for choice in event.get("choices", []):
        yield (choice["index"],), choice["text"], choice, "text"


def _split_responses(event: dict[str, Any]) -> Iterator[tuple[Place, str, dict[str, Any], str]]:
    if str(event.get("type")).endswith(".delta"):
        yield (event["type"], event["item_id"], event["output_index"]), event["delta"], event, "delta"


def _split_messages(event: dict[str, Any]) -> Iterator[tuple[Place, str, dict[str, Any], str]]:
    if event.get("type") == "content_block_delta":
        delta = event["delta"]
        for name in ("text", "thinking", "partial_json"):
            if name in delta:
                yield (event["index"], name), delta[name], delta, name


_SPLIT = {
    "chat": _split_chat,
    "completions": _split_completions,
    "responses": _split_responses,
    "messages": _split_messages,
}


def texts(dialect: str, event: Event) -> list[tuple[Place, str]]:
    """What an event adds to which place: a choice, a block, a tool call. Of an unknown dialect, everything it says."""
    if dialect == "opaque":
        return [(("data",), event.data.decode(errors="replace") + "\n")]
    document = _json(event.data)
    if not isinstance(document, dict) or "error" in document:
        return []
    return [(place, text) for place, text, _, _ in _SPLIT[dialect](document)]


def spoken(dialect: str, events: list[Event]) -> Texts:
    """The whole text of these, by place."""
    whole: dict[Place, list[str]] = {}
    for event in events:
        for place, text in texts(dialect, event):
            whole.setdefault(place, []).append(text)
    return {place: "".join(parts) for place, parts in whole.items() if any(parts)}


def is_prefix(some: Texts, whole: Texts) -> bool:
    return all(whole.get(place, "").startswith(text) for place, text in some.items())


def _bare(dialect: str, event: Event) -> tuple[Place, str, dict[str, Any]] | None:
    """The one text of an event, and all else that it says."""
    document = _json(event.data)
    if dialect == "opaque" or not isinstance(document, dict) or "error" in document:
        return None
    found = list(_SPLIT[dialect](document))
    if len(found) != 1:
        return None
    place, text, holder, name = found[0]
    holder[name] = None
    document.pop("sequence_number", None)
    return place, text, document


def is_merge(dialect: str, members: list[Event], event: Event) -> bool:
    """Whether an event stands for these and loses nothing: the same place, the same other words, all of the text."""
    found = _bare(dialect, event)
    parts = [_bare(dialect, member) for member in members]
    if found is None:
        return False
    place, text, rest = found
    whole = ""
    for member, part in zip(members, parts, strict=True):
        if part is None or member.name != event.name or part[0] != place or part[2] != rest:
            return False
        whole += part[1]
    # The last one's number is kept.
    own, last = _json(event.data).get("sequence_number"), _json(members[-1].data).get("sequence_number")
    return whole == text and own == last and event.size <= 17 * 1024


def is_terminal(dialect: str, event: Event) -> bool:
    match dialect:
        case "chat" | "completions":
            return event.data == b"[DONE]"
        case "responses":
            return event.name in ("response.completed", "response.failed", "response.incomplete")
        case "messages":
            return event.name == "message_stop"
    return False


def is_error(dialect: str, event: Event) -> bool:
    """Whether it says, in its dialect, that the stream has failed."""
    document = _json(event.data)
    match dialect:
        case "chat" | "completions":
            error = document.get("error") if isinstance(document, dict) else None
            return isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys()
        case "responses":
            return event.name == "response.failed" and document["response"]["status"] == "failed"
        case "messages":
            return event.name == "error" and {"type", "message"} <= document["error"].keys()
    return False
