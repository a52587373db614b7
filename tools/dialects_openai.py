"""OpenAI's dialects: chat completions, legacy completions, responses. The rules are those of dialects."""

from __future__ import annotations

from collections.abc import Iterator

from dialects import Delta, Json, Kind, Script, Step, identifier, sse, timestamp
from simulation import Simulation


class Chat(Script):
    """OpenAI `/v1/chat/completions`; reasoning as `reasoning_content`, as vLLM and DeepSeek send it."""

    one_choice = False
    object_name = "chat.completion"
    id_prefix = "chatcmpl-"

    def _head(self, suffix: str) -> Json:
        return {
            "id": identifier(self.simulation, self.id_prefix),
            "object": self.object_name + suffix,
            "created": timestamp(self.simulation),
            "model": self.model,
            "system_fingerprint": identifier(self.simulation, "fp_", 10),
        }

    def usage(self) -> Json:
        prompt, completion = 9 + self.simulation.seed % 90, self.simulation.events
        reasoning = sum(delta.kind == "reasoning" for _, delta in self.deltas()) if self.simulation.reasoning else 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def wants_usage(self) -> bool:
        options = self.request.get("stream_options")
        asked = isinstance(options, dict) and options.get("include_usage") is True
        return {"always": True, "never": False, "asked": asked}[self.simulation.usage]

    def first_choice(self, choice: int) -> Json | None:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}

    def tool_choice(self, choice: int) -> Json:
        function = {"name": "note", "arguments": ""}
        call = {"index": 0, "id": self.tool_id(f"call_{choice}"), "type": "function", "function": function}
        return {"index": choice, "delta": {"tool_calls": [call]}, "logprobs": None, "finish_reason": None}

    def choice(self, choice: int, delta: Delta) -> Json:
        content: Json = {"content": delta.text}
        if delta.kind == "reasoning":
            content = {"reasoning_content": delta.text}
        elif delta.kind == "tool":
            content = {"tool_calls": [{"index": 0, "function": {"arguments": delta.text}}]}
        return {"index": choice, "delta": content, "logprobs": None, "finish_reason": None}

    def last_choice(self, choice: int, reason: str) -> Json:
        return {"index": choice, "delta": {}, "logprobs": None, "finish_reason": reason}

    def steps(self) -> Iterator[Step]:
        usage = self.wants_usage()
        head = self._head(".chunk" if self.object_name == "chat.completion" else "")
        if usage:
            head["usage"] = None
        for number in range(self.choices):
            if (first := self.first_choice(number)) is not None:
                yield Step(Kind.FRAME, sse({**head, "choices": [first]}))
        calling: set[int] = set()
        for number, delta in self.deltas():
            if delta.kind == "tool" and number not in calling:
                calling.add(number)
                yield Step(Kind.FRAME, sse({**head, "choices": [self.tool_choice(number)]}))
            yield Step(Kind.CONTENT, sse({**head, "choices": [self.choice(number, delta)]}))
        for number in range(self.choices):
            last = self.last_choice(number, "tool_calls" if number in calling else "stop")
            yield Step(Kind.CLOSING, sse({**head, "choices": [last]}))
        if usage:
            yield Step(Kind.CLOSING, sse({**head, "choices": [], "usage": self.usage()}))
        if self.simulation.done:
            yield Step(Kind.CLOSING, b"data: [DONE]\n\n")

    def document(self) -> Json:
        choices = []
        for number, whole in enumerate(self.texts()):
            message: Json = {"role": "assistant", "content": whole.get("text"), "refusal": None}
            if "reasoning" in whole:
                message["reasoning_content"] = whole["reasoning"]
            if "tool" in whole:
                function = {"name": "note", "arguments": whole["tool"]}
                call_id = self.tool_id(f"call_{number}")
                message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
            reason = "tool_calls" if "tool" in whole else "stop"
            choices.append({"index": number, "message": message, "logprobs": None, "finish_reason": reason})
        return {**self._head(""), "choices": choices, "usage": self.usage()}


class Completions(Chat):
    """OpenAI `/v1/completions`: text alone, neither reasoning nor tools."""

    object_name = "text_completion"
    id_prefix = "cmpl-"
    text_only = True

    def first_choice(self, choice: int) -> Json | None:
        return None

    def choice(self, choice: int, delta: Delta) -> Json:
        return {"index": choice, "text": delta.text, "logprobs": None, "finish_reason": None}

    def last_choice(self, choice: int, reason: str) -> Json:
        return {"index": choice, "text": "", "logprobs": None, "finish_reason": reason}

    def document(self) -> Json:
        choices = [
            {"index": number, "text": whole.get("text", ""), "logprobs": None, "finish_reason": "stop"}
            for number, whole in enumerate(self.texts())
        ]
        return {**self._head(""), "choices": choices, "usage": self.usage()}


# Per kind of item: the events of its part, and how its text is called in the event that ends it.
PARTS = {
    "reasoning": ("response.reasoning_summary_part", "response.reasoning_summary_text", "text"),
    "text": ("response.content_part", "response.output_text", "text"),
    "tool": ("", "response.function_call_arguments", "arguments"),
}


class Responses(Script):
    """OpenAI `/v1/responses`; each event carries its `sequence_number`, from 0."""

    def __init__(self, simulation: Simulation, body: Json) -> None:
        super().__init__(simulation, body)
        self._sequence = 0

    def _event(self, kind: str, **fields: object) -> bytes:
        event = {"type": kind, **fields, "sequence_number": self._sequence}
        self._sequence += 1
        return sse(event, kind)

    def _response(self, status: str, output: list[Json], error: Json | None = None) -> Json:
        usage = None
        if status == "completed":
            prompt, tokens = 9 + self.simulation.seed % 90, self.simulation.events
            usage = {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + tokens,
            }
        return {
            "id": identifier(self.simulation, "resp_", 48),
            "object": "response",
            "created_at": timestamp(self.simulation),
            "status": status,
            "error": error,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "metadata": {},
        }

    def _item(self, kind: str, text: str | None) -> Json:
        """An output item; `text` None: as it is when it is added, else complete."""
        status = "in_progress" if text is None else "completed"
        if kind == "reasoning":
            summary = [] if text is None else [{"type": "summary_text", "text": text}]
            return {"id": self.tool_id("rs_"), "type": "reasoning", "summary": summary}
        if kind == "tool":
            return {
                "id": self.tool_id("fc_"),
                "type": "function_call",
                "status": status,
                "arguments": text or "",
                "call_id": self.tool_id("call_"),
                "name": "note",
            }
        content = [] if text is None else [self._part(kind, text)]
        return {
            "id": self.tool_id("msg_"),
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    @staticmethod
    def _part(kind: str, text: str) -> Json:
        if kind == "reasoning":
            return {"type": "summary_text", "text": text}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def _place(self, kind: str, output: int) -> Json:
        place: Json = {"item_id": self._item(kind, None)["id"], "output_index": output}
        if kind != "tool":
            place["summary_index" if kind == "reasoning" else "content_index"] = 0
        return place

    def _open(self, kind: str, output: int) -> Iterator[Step]:
        added = self._event("response.output_item.added", output_index=output, item=self._item(kind, None))
        yield Step(Kind.FRAME, added)
        if part := PARTS[kind][0]:
            place = self._place(kind, output)
            yield Step(Kind.FRAME, self._event(f"{part}.added", **place, part=self._part(kind, "")))

    def _close(self, kind: str, output: int, text: str, step: Kind) -> Iterator[Step]:
        part, content, name = PARTS[kind]
        place = self._place(kind, output)
        logprobs: Json = {"logprobs": []} if kind == "text" else {}
        yield Step(step, self._event(f"{content}.done", **place, **{name: text}, **logprobs))
        if part:
            yield Step(step, self._event(f"{part}.done", **place, part=self._part(kind, text)))
        yield Step(step, self._event("response.output_item.done", output_index=output, item=self._item(kind, text)))

    def steps(self) -> Iterator[Step]:
        self._sequence = 0
        for kind in ("created", "in_progress"):
            yield Step(Kind.FRAME, self._event(f"response.{kind}", response=self._response("in_progress", [])))
        items: list[tuple[str, list[str]]] = []
        place: Json = {}
        for _, (kind, text) in self.deltas():
            if not items or items[-1][0] != kind:
                if items:
                    before, said = items[-1]
                    yield from self._close(before, len(items) - 1, "".join(said), Kind.FRAME)
                items.append((kind, []))
                place = self._place(kind, len(items) - 1)
                yield from self._open(kind, len(items) - 1)
            items[-1][1].append(text)
            logprobs: Json = {"logprobs": []} if kind == "text" else {}
            yield Step(Kind.CONTENT, self._event(f"{PARTS[kind][1]}.delta", **place, **logprobs, delta=text))
        if items:
            last, said = items[-1]
            yield from self._close(last, len(items) - 1, "".join(said), Kind.CLOSING)
        if self.simulation.done:
            output = [self._item(kind, "".join(said)) for kind, said in items]
            completed = self._event("response.completed", response=self._response("completed", output))
            yield Step(Kind.CLOSING, completed)

    def error_step(self) -> bytes:
        error = {"code": "server_error", "message": "simulated failure"}
        return self._event("response.failed", response=self._response("failed", [], error))

    def document(self) -> Json:
        [whole] = self.texts()
        return self._response("completed", [self._item(kind, text) for kind, text in whole.items()])
