"""What the simulated provider says, in each dialect: events of a stream, the JSON answer, errors.

A script is one answer, made of steps in order; all of it follows from the simulation's seed and the request's
body, and no clock is read, so two answers to one request are equal byte by byte. The text of a stream and of
the JSON answer are the same. Here: what all dialects share, Anthropic's messages, Ollama's chat and the
opaque forms; OpenAI's stand in dialects_openai.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from random import Random
from typing import Any, NamedTuple

import orjson
from simulation import Simulation

Json = dict[str, Any]

ASCII_WORDS = """
    the relay carries every token from model to reader and keeps order while clients come or go under load
    with small buffers between sockets so that nothing waits longer than it must
""".split()
# Two-, three- and four-byte UTF-8, a combining accent, a joined emoji, a flag and a right-to-left word: what
# breaks when somebody cuts between bytes or between code points.
WIDE_WORDS = [
    "Zürich",
    "naïve",
    "e\u0301te\u0301",
    "日本語",
    "流式",
    "한국어",
    "Привет",
    "שלום",
    "🌍",
    "👩\u200d💻",
    "🇨🇭",
    "\U0001d4b3",
]
_BLOCKS: dict[bool, bytes] = {}


class Kind(Enum):
    FRAME = "frame"  # structure around content: goes out together with the content that follows it
    CONTENT = "content"  # what `events`, `interval` and `at` count
    CLOSING = "closing"  # after the last content


class Step(NamedTuple):
    kind: Kind
    payload: bytes


class Delta(NamedTuple):
    kind: str  # reasoning, text, tool
    text: str


def identifier(simulation: Simulation, prefix: str, length: int = 24) -> str:
    return prefix + hashlib.sha256(f"{prefix}{simulation.seed}".encode()).hexdigest()[:length]


def timestamp(simulation: Simulation) -> int:
    """A Unix time in seconds that depends on the seed alone."""
    return 1_750_000_000 + simulation.seed % 10_000_000


def _piece(simulation: Simulation, random: Random) -> str:
    """One event's text: a word, or exactly `size` bytes of UTF-8."""
    if not simulation.size:
        wide = simulation.unicode and random.random() < 0.2
        return random.choice(WIDE_WORDS if wide else ASCII_WORDS) + " "
    block = _BLOCKS.get(simulation.unicode)
    if block is None:
        words = ASCII_WORDS + (WIDE_WORDS if simulation.unicode else [])
        block = _BLOCKS[simulation.unicode] = " ".join(Random(0).choices(words, k=20_000)).encode()
    start = random.randrange(len(block))
    # A cut through a character loses its bytes on both sides; dots fill up to the exact size.
    text = (block[start:] + block * (simulation.size // len(block) + 1))[: simulation.size].decode(errors="ignore")
    return text + "." * (simulation.size - len(text.encode()))


def deltas(simulation: Simulation, choice: int, count: int) -> Iterator[Delta]:
    """`count` pieces of one choice: reasoning, text, then a tool call's arguments, together JSON."""
    random = Random(simulation.seed * 1_000_003 + choice)
    share = max(1, count // 4)
    reasoning = min(share, count) if simulation.reasoning else 0
    tool = min(share, count - reasoning) if simulation.tools else 0
    for number in range(count):
        piece = _piece(simulation, random)
        if number < reasoning:
            yield Delta("reasoning", piece)
        elif number < count - tool:
            yield Delta("text", piece)
        else:
            opening = '{"note": "' if number == count - tool else ""
            yield Delta("tool", opening + piece + ('"}' if number == count - 1 else ""))


def sse(data: Json, event: str | None = None) -> bytes:
    name = b"event: %b\n" % event.encode() if event else b""
    return b"%bdata: %b\n\n" % (name, orjson.dumps(data))


class Script:
    """One answer in one dialect; errors and header fields are OpenAI's where a dialect says nothing else.

    `steps()` may be asked for again and starts anew; `error_step()` continues where the last steps() stands.
    """

    content_type = "text/event-stream; charset=utf-8"
    status = 200
    text_only = False  # neither reasoning nor tool calls
    one_choice = True
    streams_by_default = False
    ping = b": ping\n\n"

    def __init__(self, simulation: Simulation, body: Json) -> None:
        self.simulation = replace(simulation, reasoning=False, tools=False) if self.text_only else simulation
        self.request = body
        self.streamed = body.get("stream", self.streams_by_default) is True
        self.model = str(body.get("model", "sim-1"))
        wanted = body.get("n")
        asked = wanted if isinstance(wanted, int) and 1 <= wanted <= 128 else 1
        self.choices = 1 if self.one_choice else simulation.n or asked

    def steps(self) -> Iterator[Step]:
        raise NotImplementedError

    def document(self) -> Json:
        raise NotImplementedError

    def error_step(self) -> bytes:
        return sse(self.error(500))

    def error(self, status: int) -> Json:
        kinds = {429: "rate_limit_error", 400: "invalid_request_error", 401: "authentication_error"}
        kind = kinds.get(status, "server_error")
        return {"error": {"message": f"simulated {status}", "type": kind, "param": None, "code": kind}}

    def headers(self) -> list[tuple[str, str]]:
        """OpenAI's own fields, seen on each of its answers."""
        return [
            ("x-request-id", identifier(self.simulation, "req_", 32)),
            ("openai-processing-ms", str(100 + self.simulation.seed % 400)),
            ("openai-version", "2020-10-01"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-remaining-tokens", "1999976"),
            ("x-ratelimit-reset-requests", "6ms"),
            ("x-ratelimit-reset-tokens", "0s"),
        ]

    def deltas(self) -> Iterator[tuple[int, Delta]]:
        """Content in the order of the stream: the choices take turns. Yields (choice, delta)."""
        events, choices = self.simulation.events, self.choices
        turns = [
            deltas(self.simulation, choice, events // choices + (choice < events % choices))
            for choice in range(choices)
        ]
        for number in range(events):
            yield number % choices, next(turns[number % choices])

    def texts(self) -> list[dict[str, str]]:
        """Per choice, the whole text of each kind that it has."""
        whole: list[dict[str, str]] = [{} for _ in range(self.choices)]
        for choice, (kind, text) in self.deltas():
            whole[choice][kind] = whole[choice].get(kind, "") + text
        return whole

    def tool_id(self, prefix: str) -> str:
        return identifier(self.simulation, prefix)

    def spoil(self, payload: bytes) -> bytes:
        """The same event with bytes in it that are no UTF-8, inside its last string where it has one."""
        at = payload.rfind(b'"}')
        at = at if at >= 0 else len(payload.rstrip())
        return payload[:at] + b"\xff\xc3(\xf0\x9f" + payload[at:]

    def rendered(self, payload: bytes) -> bytes:
        """The payload with the line ends that the simulation asks for."""
        if self.simulation.crlf:
            return payload.replace(b"\n", b"\r\n")
        return payload.replace(b"\n", b"\r") if self.simulation.cr else payload


class Messages(Script):
    """Anthropic `/v1/messages`."""

    ping = b': ping\n\nevent: ping\ndata: {"type": "ping"}\n\n'

    def headers(self) -> list[tuple[str, str]]:
        return [
            ("request-id", identifier(self.simulation, "req_")),
            ("anthropic-organization-id", identifier(self.simulation, "org-", 32)),
            ("anthropic-ratelimit-requests-limit", "4000"),
            ("anthropic-ratelimit-requests-remaining", "3999"),
            ("anthropic-ratelimit-tokens-limit", "2000000"),
            ("anthropic-ratelimit-tokens-remaining", "1999000"),
        ]

    def error(self, status: int) -> Json:
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        error = {"type": kinds.get(status, "api_error"), "message": f"simulated {status}"}
        return {"type": "error", "error": error, "request_id": identifier(self.simulation, "req_")}

    def error_step(self) -> bytes:
        overloaded = {"type": "overloaded_error", "message": "simulated overload"}
        return self._event({"type": "error", "error": overloaded})

    @staticmethod
    def _event(data: Json) -> bytes:
        return sse(data, str(data["type"]))

    def _message(self, content: list[Json], reason: str | None, tokens: int) -> Json:
        usage = {
            "input_tokens": 9 + self.simulation.seed % 90,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": tokens,
            "service_tier": "standard",
        }
        return {
            "id": identifier(self.simulation, "msg_"),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }

    def _signature(self) -> str:
        return identifier(self.simulation, "sig", 48)

    def _empty_block(self, kind: str) -> Json:
        if kind == "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        if kind == "tool":
            return {"type": "tool_use", "id": self.tool_id("toolu_"), "name": "note", "input": {}}
        return {"type": "text", "text": ""}

    def steps(self) -> Iterator[Step]:
        yield Step(Kind.FRAME, self._event({"type": "message_start", "message": self._message([], None, 1)}))
        block, open_kind = -1, ""
        for _, (kind, text) in self.deltas():
            if kind != open_kind:
                yield from self._close_block(block, open_kind, Kind.FRAME)
                block, open_kind = block + 1, kind
                start = {
                    "type": "content_block_start",
                    "index": block,
                    "content_block": self._empty_block(kind),
                }
                yield Step(Kind.FRAME, self._event(start))
                if block == 0:
                    yield Step(Kind.FRAME, self._event({"type": "ping"}))
            delta = {
                "reasoning": {"type": "thinking_delta", "thinking": text},
                "text": {"type": "text_delta", "text": text},
                "tool": {"type": "input_json_delta", "partial_json": text},
            }[kind]
            yield Step(Kind.CONTENT, self._event({"type": "content_block_delta", "index": block, "delta": delta}))
        yield from self._close_block(block, open_kind, Kind.CLOSING)
        reason = "tool_use" if open_kind == "tool" else "end_turn"
        ending = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": self.simulation.events},
        }
        yield Step(Kind.CLOSING, self._event(ending))
        if self.simulation.done:
            yield Step(Kind.CLOSING, self._event({"type": "message_stop"}))

    def _close_block(self, block: int, kind: str, step: Kind) -> Iterator[Step]:
        if kind == "reasoning":
            delta = {"type": "signature_delta", "signature": self._signature()}
            yield Step(step, self._event({"type": "content_block_delta", "index": block, "delta": delta}))
        if kind:
            yield Step(step, self._event({"type": "content_block_stop", "index": block}))

    def document(self) -> Json:
        [whole] = self.texts()
        content: list[Json] = []
        if "reasoning" in whole:
            content.append({"type": "thinking", "thinking": whole["reasoning"], "signature": self._signature()})
        if "text" in whole:
            content.append({"type": "text", "text": whole["text"]})
        if "tool" in whole:
            content.append({**self._empty_block("tool"), "input": orjson.loads(whole["tool"])})
        return self._message(content, "tool_use" if "tool" in whole else "end_turn", self.simulation.events)


class Ollama(Script):
    """Ollama `/api/chat`: one JSON object a line; streams unless told not to; a tool call comes whole."""

    content_type = "application/x-ndjson"
    streams_by_default = True
    ping = b""  # lines of JSON know no comments

    def headers(self) -> list[tuple[str, str]]:
        return []

    def error(self, status: int) -> Json:
        return {"error": f"simulated {status}"}

    def error_step(self) -> bytes:
        return orjson.dumps(self.error(500)) + b"\n"

    def rendered(self, payload: bytes) -> bytes:
        return payload

    def _line(self, message: Json, **more: object) -> Json:
        created = datetime.fromtimestamp(timestamp(self.simulation), UTC).isoformat().replace("+00:00", "Z")
        said = {"role": "assistant", **message}
        return {"model": self.model, "created_at": created, "message": said, "done": False, **more}

    def _last(self, message: Json) -> Json:
        events = self.simulation.events
        times = {
            "total_duration": 5_000_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_duration": 2_000_000,
        }
        counts = {"prompt_eval_count": 9, "eval_count": events, "eval_duration": events * 20_000_000}
        return self._line(message, done=True, done_reason="stop", **times, **counts)

    @staticmethod
    def _call(arguments: str) -> Json:
        return {"tool_calls": [{"function": {"name": "note", "arguments": orjson.loads(arguments)}}]}

    def steps(self) -> Iterator[Step]:
        arguments = ""
        for number, (_, (kind, text)) in enumerate(self.deltas(), 1):
            message: Json = {"content": text}
            if kind == "reasoning":
                message = {"content": "", "thinking": text}
            elif kind == "tool":
                arguments += text
                message = {
                    "content": "",
                    **(self._call(arguments) if number == self.simulation.events else {}),
                }
            yield Step(Kind.CONTENT, orjson.dumps(self._line(message)) + b"\n")
        if self.simulation.done:
            yield Step(Kind.CLOSING, orjson.dumps(self._last({"content": ""})) + b"\n")

    def document(self) -> Json:
        [whole] = self.texts()
        message: Json = {"content": whole.get("text", "")}
        if "reasoning" in whole:
            message["thinking"] = whole["reasoning"]
        if "tool" in whole:
            message |= self._call(whole["tool"])
        return self._last(message)


class Ticker(Script):
    """`/sse/ticker`: events of no known dialect, with ids, names and several data lines, and no terminal."""

    text_only = True
    streams_by_default = True

    def headers(self) -> list[tuple[str, str]]:
        return []

    def steps(self) -> Iterator[Step]:
        for number, (_, delta) in enumerate(self.deltas(), 1):
            second = b"data: second line\n" if number % 3 == 0 else b""
            text = delta.text.encode()
            yield Step(Kind.CONTENT, b"id: %d\nevent: tick\ndata: %d %b\n%b\n" % (number, number, text, second))


class Raw(Script):
    """`/raw/...`: bytes that mean nothing to anybody, `size` in a piece (64 unless told)."""

    content_type = "application/octet-stream"
    text_only = True
    streams_by_default = True
    ping = b""

    def headers(self) -> list[tuple[str, str]]:
        return []

    def error_step(self) -> bytes:
        return b""

    def rendered(self, payload: bytes) -> bytes:
        return payload

    def steps(self) -> Iterator[Step]:
        random = Random(self.simulation.seed)
        for _ in range(self.simulation.events):
            yield Step(Kind.CONTENT, random.randbytes(self.simulation.size or 64))


class Document(Script):
    """A JSON answer that is there at once: lists, the echo, what is wrong with a request."""

    def __init__(
        self,
        simulation: Simulation,
        content: Json,
        status: int = 200,
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(simulation, {})
        self.status = status
        self._content = content
        self._headers = headers or []

    def headers(self) -> list[tuple[str, str]]:
        return self._headers

    def steps(self) -> Iterator[Step]:
        return iter(())

    def document(self) -> Json:
        return self._content
