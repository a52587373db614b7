"""What a provider's events and errors mean, as far as the relay must know: which event ends a stream, how to say that
something failed.

A dialect is known by the request's path. Nothing is parsed while a stream runs; when it has ended or fallen silent,
its last event is looked at once.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from relay.errors import RelayError
from relay.wire import sse


class Ending(enum.Enum):
    """What the last event of a stream says about its end."""

    OPEN = enum.auto()  # more must come
    DONE = enum.auto()  # the dialect's terminal event
    ERROR = enum.auto()  # the provider said in its own words that it failed


_DONE = b"[DONE]"
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_.]{1,64})"')
_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
_RESPONSE_ID = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,128})"')
_ERROR = re.compile(rb'\s*\{\s*"error"\s*:\s*[{"]')
_RESPONSES_DONE = frozenset({b"response.completed", b"response.failed", b"response.incomplete"})

# Every type and its `response` begin within so many bytes of an event; what is behind is never needed at the end.
HEAD = 1024


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider's way of speaking.

    `ending` judges an event by its fields. `error_event` is written where a stream breaks off, given the error and the
    stream's first and last event. `error_body` is the body of an answer that never began. `names_itself`: the first
    event holds an id that an error event has to repeat. Events that begin with `passing` end nothing, and no error
    event needs to know of them: b"" for all events, () for none. (But for an event with two names, which nobody sends.)
    """

    name: str
    ending: Callable[[dict[bytes, bytes]], Ending]
    error_event: Callable[[RelayError, bytes, bytes], bytes]
    error_body: Callable[[RelayError, str], bytes]
    names_itself: bool = False
    passing: bytes | tuple[()] = ()

    @property
    def opaque(self) -> bool:
        return self is OPAQUE

    def verdict(self, last: bytes) -> Ending:
        """What the last whole events, at least one with data, say about the stream's end."""
        for block in reversed(sse.split(last)):
            if sse.has_data(block):
                return self.ending(sse.fields(block))
        return Ending.OPEN

    def response_id(self, first: bytes) -> str:
        """The provider's own name for the stream, from its first event; empty where there is none."""
        found = _RESPONSE_ID.search(first) if self.names_itself else None
        return found[1].decode() if found else ""

    def sequence(self, event: bytes) -> int | None:
        """The provider's own number of an event, if it has one."""
        found = _SEQUENCE.search(event) if self.names_itself else None
        return int(found[1]) if found else None

    def closes(self, rest: bytes) -> bool:
        """Whether the rest of a stream, an event that lacks its empty line, is the stream's last one all the same:
        senders that forget the line exist, but half an event must not pass for a whole one."""
        if self.verdict(rest) is Ending.OPEN:
            return False
        data = sse.fields(rest)[b"data"]
        return data.strip() == _DONE or _is_json(data)


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _event_type(fields: dict[bytes, bytes]) -> bytes:
    if b"event" in fields:
        return fields[b"event"]
    found = _TYPE.search(fields[b"data"])
    return found[1] if found else b""


def _openai_ending(fields: dict[bytes, bytes]) -> Ending:
    data = fields[b"data"]
    if data.strip() == _DONE:
        return Ending.DONE
    return Ending.ERROR if _ERROR.match(data) else Ending.OPEN


def _responses_ending(fields: dict[bytes, bytes]) -> Ending:
    kind = _event_type(fields)
    if kind in _RESPONSES_DONE:
        return Ending.DONE
    return Ending.ERROR if kind == b"error" else Ending.OPEN


def _messages_ending(fields: dict[bytes, bytes]) -> Ending:
    kind = _event_type(fields)
    if kind == b"message_stop":
        return Ending.DONE
    return Ending.ERROR if kind == b"error" else Ending.OPEN


def _opaque_ending(fields: dict[bytes, bytes]) -> Ending:
    return Ending.OPEN


def _openai_error(error: RelayError) -> dict[str, object]:
    return {"message": error.message, "type": error.type, "param": None, "code": error.code}


def _openai_error_event(error: RelayError, first: bytes, last: bytes) -> bytes:
    return b"data: %b\n\n" % orjson.dumps({"error": _openai_error(error)})


def _openai_error_body(error: RelayError, request_id: str) -> bytes:
    return orjson.dumps({"error": _openai_error(error)})


def _responses_error_event(error: RelayError, first: bytes, last: bytes) -> bytes:
    """`response.failed`, with the id and the sequence number that a reader of this stream expects next."""
    identity = _RESPONSE_ID.search(first)
    sequences = _SEQUENCE.findall(last)
    event = {
        "type": "response.failed",
        "sequence_number": int(sequences[-1]) + 1 if sequences else 0,
        "response": {
            "id": identity[1].decode() if identity else "",
            "object": "response",
            "created_at": 0,
            "status": "failed",
            "error": {"code": "server_error", "message": error.message},
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": "",
            "output": [],
            "parallel_tool_calls": False,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None,
        },
    }
    return b"event: response.failed\ndata: %b\n\n" % orjson.dumps(event)


def _messages_error(error: RelayError) -> dict[str, object]:
    return {"type": "error", "error": {"type": error.type, "message": error.message}}


def _messages_error_event(error: RelayError, first: bytes, last: bytes) -> bytes:
    return b"event: error\ndata: %b\n\n" % orjson.dumps(_messages_error(error))


def _messages_error_body(error: RelayError, request_id: str) -> bytes:
    return orjson.dumps(_messages_error(error) | {"request_id": request_id})


def _no_error_event(error: RelayError, first: bytes, last: bytes) -> bytes:
    """A stream of unknown events gets no event of ours; its abort says enough."""
    return b""


CHAT = Dialect("chat", _openai_ending, _openai_error_event, _openai_error_body, passing=b'data: {"id":')
COMPLETIONS = Dialect("completions", _openai_ending, _openai_error_event, _openai_error_body, passing=b'data: {"id":')
RESPONSES = Dialect("responses", _responses_ending, _responses_error_event, _openai_error_body, names_itself=True)
MESSAGES = Dialect(
    "messages", _messages_ending, _messages_error_event, _messages_error_body, passing=b"event: content_block_delta\n"
)
OPAQUE = Dialect("opaque", _opaque_ending, _no_error_event, _openai_error_body, passing=b"")

_BY_PATH = (
    # Azure, Gemini and others keep these below paths of their own; nobody else has such names.
    (b"/chat/completions", CHAT),
    (b"/completions", COMPLETIONS),
    (b"/v1/responses", RESPONSES),
    (b"/v1/messages", MESSAGES),
)


def of(path: bytes) -> Dialect:
    """The dialect spoken at a path; a provider may keep it below a prefix of its own. Opaque for any not known."""
    path = path.rstrip(b"/")
    for end, dialect in _BY_PATH:
        if path.endswith(end):
            return dialect
    return OPAQUE
