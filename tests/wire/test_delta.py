"""Text deltas: which events are merged and which never, and that merging loses nothing that any reader could see."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.wire import delta, sse
from relay.wire.delta import MERGED_LIMIT, Delta
from relay.wire.dialect import CHAT, COMPLETIONS, MESSAGES, OPAQUE, RESPONSES, Dialect

# The simulated provider's programs import each other by file name.
sys.path.append(str(Path(__file__).parents[2] / "tools"))

from dialects import Messages, Script
from dialects_openai import Chat, Completions, Responses
from simulation import Simulation

Json = dict[str, Any]

SCRIPTS: dict[Dialect, type[Script]] = {
    CHAT: Chat,
    COMPLETIONS: Completions,
    RESPONSES: Responses,
    MESSAGES: Messages,
}
SPOKEN = pytest.mark.parametrize("spoken", SCRIPTS, ids=lambda spoken: spoken.name)


def reader(spoken: Dialect) -> delta.Read:
    read = delta.reader(spoken)
    assert read is not None
    return read


def read(spoken: Dialect, block: bytes) -> Delta | None:
    assert sse.split(block) == [block]
    return reader(spoken)(block)


def merged(spoken: Dialect, *blocks: bytes) -> list[tuple[bytes, int]]:
    return list(delta.merge(reader(spoken), blocks))


def script(spoken: Dialect, **keys: Any) -> list[bytes]:
    simulation = Simulation(**keys)
    told = SCRIPTS[spoken](simulation, {"stream": True, "stream_options": {"include_usage": True}})
    return [told.rendered(step.payload) for step in told.steps()]


def event(data: Json, name: str | None = None, end: str = "\n") -> bytes:
    line = f"event: {name}{end}" if name else ""
    return f"{line}data: {json.dumps(data, ensure_ascii=False)}{end}{end}".encode()


def data(block: bytes) -> Json:
    found: Json = json.loads(sse.fields(block)[b"data"])
    return found


# --- Events as providers send them. `text` stands for the text.


def openai_chat(text: str, **fields: Any) -> Json:
    return {
        "id": "chatcmpl-B9M",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-5.1",
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        "usage": None,
    } | fields


def said(said: Json, **fields: Any) -> Json:
    """A chunk with this delta, as vLLM sends it; `fields` are the choice's."""
    choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": None, "token_ids": None} | fields
    return {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def called(text: str, index: Any = 0, **fields: Any) -> Json:
    return said({"tool_calls": [{"index": index, "function": {"arguments": text}} | fields]})


def completion(text: str, **fields: Any) -> Json:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": None} | fields
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "choices": [choice], "model": "m"}


def response(text: Any, kind: str = "response.output_text.delta", **fields: Any) -> Json:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return {"type": kind, **place, "delta": text, "logprobs": []} | fields


def block(said: Json, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": 0, "delta": said} | fields


TEXTS: list[tuple[Dialect, Any, str | None]] = [
    (CHAT, openai_chat, None),
    (CHAT, lambda text: openai_chat(text, obfuscation="aZ3"), None),
    (CHAT, openai_chat, "message"),
    (CHAT, lambda text: said({"content": text}), None),
    (CHAT, lambda text: said({"content": text, "role": None, "refusal": None, "tool_calls": []}), None),
    (CHAT, lambda text: said({"content": text}, content_filter_results={"hate": {"filtered": False}}), None),
    (CHAT, lambda text: said({"content": None, "reasoning_content": text}), None),
    (CHAT, lambda text: said({"reasoning_content": text}), None),
    (CHAT, lambda text: said({"reasoning": text}), None),
    (CHAT, lambda text: said({"refusal": text}), None),
    (CHAT, called, None),
    (CHAT, lambda text: called(text, index=3, id=None, type=None), None),
    (CHAT, lambda text: called(text, id="", function={"name": None, "arguments": text}), None),
    (COMPLETIONS, completion, None),
    (MESSAGES, lambda text: block({"type": "text_delta", "text": text}), "content_block_delta"),
    (MESSAGES, lambda text: block({"type": "thinking_delta", "thinking": text}), "content_block_delta"),
    (MESSAGES, lambda text: block({"type": "input_json_delta", "partial_json": text}), "content_block_delta"),
    (MESSAGES, lambda text: block({"type": "text_delta", "text": text}, index=7), None),
    *(
        (RESPONSES, lambda text, kind=kind: response(text, kind), kind)
        for kind in (
            "response.output_text.delta",
            "response.refusal.delta",
            "response.reasoning_text.delta",
            "response.reasoning_summary_text.delta",
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
            "response.mcp_call_arguments.delta",
            "response.code_interpreter_call_code.delta",
            "response.shell_call_command.delta",
        )
    ),
    (RESPONSES, lambda text: response(text, logprobs=None), None),
    (RESPONSES, lambda text: {"type": "response.output_text.delta", "delta": text}, None),
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("spoken", "said", "name"), TEXTS)
def test_adjacent_deltas_of_one_place_become_one(spoken: Dialect, said: Any, name: str | None, end: str) -> None:
    texts = ["Hel", 'lo "you"\\', "", "\n日本語 \U0001f30d", "content", "delta", "text", '{"content":"x"}', " "]
    blocks = [event(said(text), name, end) for text in texts]
    assert merged(spoken, *blocks) == [(event(said("".join(texts)), name, end), len(texts))]


@SPOKEN
@pytest.mark.parametrize("lines", [{}, {"crlf": True}, {"cr": True}])
def test_a_whole_stream_becomes_a_few_events(spoken: Dialect, lines: Json) -> None:
    blocks = script(spoken, events=400, reasoning=True, tools=True, **lines)
    out = merged(spoken, *blocks)
    assert len(out) < len(blocks) / 10
    assert sum(count for _, count in out) == len(blocks)


def test_choices_that_take_turns_are_not_mixed() -> None:
    blocks = script(CHAT, events=40, n=2)
    assert merged(CHAT, *blocks) == [(block, 1) for block in blocks]


@SPOKEN
def test_an_event_alone_is_the_same_object(spoken: Dialect) -> None:
    blocks = script(spoken, events=1)
    out = merged(spoken, *blocks)
    assert [one for one, _ in out] == blocks
    assert all(one is original for (one, _), original in zip(out, blocks, strict=True))


def test_no_events_are_none() -> None:
    assert merged(CHAT) == []


def test_an_unknown_dialect_has_no_deltas() -> None:
    assert delta.reader(OPAQUE) is None


def test_a_delta_says_its_text_and_where_it_stands() -> None:
    one = event(openai_chat("a\n日"))
    found = read(CHAT, one)
    assert found
    assert (found.text, one[found.start : found.end]) == ("a\n日", b"a\\n" + "日".encode())
    assert (one[: found.start], one[found.end :]) == found.shell
    other = read(CHAT, event(openai_chat("b")))
    assert other
    assert other.shell == found.shell
    assert other != found


# --- Barriers

ENDED = {"index": 1, "delta": {}, "logprobs": None, "finish_reason": "stop"}

BARRIERS: list[tuple[str, Dialect, Json]] = [
    ("a finish", CHAT, said({"content": "a"}, finish_reason="stop")),
    ("usage", CHAT, openai_chat("a", usage={"total_tokens": 1})),
    ("logprobs", CHAT, said({"content": "a"}, logprobs={"content": []})),
    ("an error", CHAT, openai_chat("a", error={"message": "no"})),
    ("an error alone", CHAT, {"error": {"message": "no"}}),
    ("a role", CHAT, said({"role": "assistant", "content": "a"})),
    ("two texts", CHAT, said({"content": "a", "reasoning_content": "b"})),
    ("two empty texts", CHAT, said({"content": "", "refusal": ""})),
    ("nothing", CHAT, said({})),
    ("no text", CHAT, said({"content": None})),
    ("a text that is none", CHAT, said({"content": [{"type": "text", "text": "a"}]})),
    ("text and a call", CHAT, said({"content": "a", "tool_calls": [{"index": 0, "function": {"arguments": "b"}}]})),
    ("an unknown text", CHAT, said({"thoughts": "a"})),
    ("an unknown number beside the text", CHAT, said({"content": "a", "tokens": 0})),
    ("tokens of the choice", CHAT, said({"content": "a"}, token_ids=[7])),
    ("an unknown flag of the event", CHAT, openai_chat("a", safe=False)),
    ("an audio", CHAT, said({"content": "a", "audio": {"data": "AA=="}})),
    ("reasoning with a signature", CHAT, said({"reasoning": "a", "reasoning_details": [{"text": "a"}]})),
    ("the old function call", CHAT, said({"function_call": {"arguments": "a"}})),
    ("two choices", CHAT, openai_chat("", choices=said({"content": "a"})["choices"] * 2)),
    ("a text and another choice's end", CHAT, openai_chat("", choices=[*said({"content": "a"})["choices"], ENDED])),
    ("no choice", CHAT, openai_chat("", choices=[])),
    ("a choice without index", CHAT, said({"content": "a"}, index=None)),
    ("a choice that is none", CHAT, openai_chat("", choices=["a"])),
    ("choices that are none", CHAT, openai_chat("", choices={"index": 0, "delta": {"content": "a"}})),
    ("a delta that is none", CHAT, openai_chat("", choices=[{"index": 0, "delta": "a"}])),
    ("a call's id", CHAT, called("a", id="call_1")),
    ("a call's type", CHAT, called("a", type="function")),
    ("a call's name", CHAT, called("a", function={"name": "f", "arguments": "a"})),
    ("a call without index", CHAT, called("a", index=None)),
    ("two calls", CHAT, said({"tool_calls": called("a")["choices"][0]["delta"]["tool_calls"] * 2})),
    ("a type that goes with nothing", CHAT, openai_chat("a", type="chunk")),
    ("a finish", COMPLETIONS, completion("a", finish_reason="length")),
    ("logprobs", COMPLETIONS, completion("a", logprobs={"tokens": []})),
    ("tokens", COMPLETIONS, completion("a", token_ids=[1])),
    ("usage", COMPLETIONS, completion("a") | {"usage": {"total_tokens": 1}}),
    ("a chat's delta", COMPLETIONS, openai_chat("a")),
    ("a completion", CHAT, completion("a")),
    ("a signature", MESSAGES, block({"type": "signature_delta", "signature": "a"})),
    ("a citation", MESSAGES, block({"type": "citations_delta", "citation": {"cited_text": "a"}})),
    ("an unknown delta", MESSAGES, block({"type": "poem_delta", "text": "a"})),
    ("an unknown field of the delta", MESSAGES, block({"type": "text_delta", "text": "a", "tokens": 1})),
    ("an unknown field of the event", MESSAGES, block({"type": "text_delta", "text": "a"}, usage={"tokens": 1})),
    ("the text of another delta", MESSAGES, block({"type": "text_delta", "thinking": "a"})),
    ("no index", MESSAGES, block({"type": "text_delta", "text": "a"}, index=None)),
    ("a type that is none", MESSAGES, block({"type": ["text_delta"], "text": "a"})),
    ("a ping", MESSAGES, {"type": "ping"}),
    ("a start", MESSAGES, {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ("logprobs", RESPONSES, response("a", logprobs=[{"token": "a", "logprob": -0.1}])),
    ("audio", RESPONSES, response("AA==", "response.audio.delta")),
    ("an audio's words", RESPONSES, response("a", "response.audio.transcript.delta")),
    ("a text that is none", RESPONSES, response({"stdout": "a"}, "response.shell_call_output_content.delta")),
    ("a text that is none", RESPONSES, response({"a": 1})),
    ("an unknown type", RESPONSES, response("a", "response.poem.delta")),
    ("a type that is none", RESPONSES, response("a", type=["response.output_text.delta"])),
    ("no type", RESPONSES, response("a", type=None)),
    ("an unknown field", RESPONSES, response("a", tokens=1)),
    ("an end", RESPONSES, {"type": "response.output_text.done", "text": "a"}),
]


@pytest.mark.parametrize(("what", "spoken", "said"), BARRIERS, ids=[f"{s.name}: {w}" for w, s, _ in BARRIERS])
def test_an_event_that_says_more_than_its_text_is_a_barrier(what: str, spoken: Dialect, said: Json) -> None:
    barrier = event(said)
    assert read(spoken, barrier) is None
    assert merged(spoken, barrier, barrier) == [(barrier, 1), (barrier, 1)]


CHUNK = event(openai_chat("a"))
TEXT = event(response("a"))


@pytest.mark.parametrize(
    "barrier",
    [
        b"id: 7\n" + CHUNK,
        b"retry: 7\n" + CHUNK,
        b": ping\n\n",
        b": ping\n" + CHUNK,
        b"\xef\xbb\xbf" + CHUNK,
        b"event: error\n" + CHUNK,
        CHUNK[:-1] + b"data: 2\n\n",
        CHUNK[:-1] + b": ping\n\n",
        CHUNK[:-1] + b"\r\n",
        CHUNK.replace(b", ", b",\ndata:", 1),
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        b'data: {"choices":[\n\n',
        b"data\n\n",
    ],
)
def test_an_event_in_another_form_than_a_name_and_one_line_is_a_barrier(barrier: bytes) -> None:
    assert merged(CHAT, CHUNK, CHUNK, barrier, CHUNK)[1:] == [(barrier, 1), (CHUNK, 1)]
    assert merged(CHAT, barrier, barrier) == [(barrier, 1), (barrier, 1)]


def test_an_event_whose_name_is_not_its_type_is_a_barrier() -> None:
    for name in ("error", "response.refusal.delta", " response.output_text.delta", "None"):
        assert read(RESPONSES, event(response("a"), name)) is None
    assert read(CHAT, event(openai_chat("a"), "None")) is None


@pytest.mark.parametrize(
    "text",
    [
        rb"\ud83c",  # the one half of a character whose other is in the next event
        rb"\udf0d",
        b"\xf0\x9f",
        b"\xff",
        rb"\x",
        b"\x01",
        b'"',
        b'"}, "content": "b',
        b'a", "content": "b',
        rb'a", "\u0063ontent": "b',
        rb'a", "x\"content": "b',
        rb'a", "\u0066inish_reason": "stop',
    ],
)
def test_a_text_that_cannot_be_cut_out_for_certain_is_a_barrier(text: bytes) -> None:
    barrier = CHUNK.replace(b'"a"', b'"%b"' % text)
    assert merged(CHAT, CHUNK, barrier, barrier, CHUNK) == [(CHUNK, 1), (barrier, 1), (barrier, 1), (CHUNK, 1)]


@pytest.mark.parametrize("number", [b"NaN", b"1e999", b"01", b"-"])
def test_json_that_is_not_valid_is_a_barrier(number: bytes) -> None:
    barrier = CHUNK.replace(b"1741569952", number)
    assert merged(CHAT, barrier, barrier) == [(barrier, 1), (barrier, 1)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"1741569952", b"123456789012345678901234567890"),
        (b"1741569952", b"1.10"),
        (b"1741569952", b"1E+2"),
        (b'"gpt-5.1"', b'"m1", "model": "m2"'),
        (b'"gpt-5.1",', b'"m"\t ,  '),
        (b"data: ", b"data:"),
    ],
)
def test_all_but_the_text_is_kept_byte_by_byte(before: bytes, after: bytes) -> None:
    first, last, both = (event(openai_chat(text)).replace(before, after) for text in ("a", "b", "ab"))
    assert after in both
    assert merged(CHAT, first, last) == [(both, 2)]


def test_escapes_are_kept_as_they_came() -> None:
    first, last = (CHUNK.replace(b'"a"', b'"%b"' % text) for text in (rb"\u00e9\/", "é/\\\\".encode()))
    assert merged(CHAT, first, last) == [(CHUNK.replace(b'"a"', b'"' + "\\u00e9\\/é/\\\\".encode() + b'"'), 2)]


@pytest.mark.parametrize(
    ("spoken", "one", "other"),
    [
        (CHAT, openai_chat("a"), openai_chat("a", created=2)),
        (CHAT, openai_chat("a"), openai_chat("a", model="gpt-5.2")),
        (CHAT, openai_chat("a"), said({"content": "a"})),
        (CHAT, said({"content": "a"}), said({"content": "a"}, index=1)),
        (CHAT, said({"content": "a"}), said({"refusal": "a"})),
        (CHAT, said({"content": "a", "refusal": ""}), said({"content": "", "refusal": "a"})),
        (CHAT, said({"content": "a"}), said({"content": "a", "refusal": None})),
        (CHAT, said({"content": "a"}), called("a")),
        (CHAT, called("a"), called("a", index=1)),
        (COMPLETIONS, completion("a"), completion("a", index=1)),
        (RESPONSES, response("a"), response("a", item_id="msg_2")),
        (RESPONSES, response("a"), response("a", content_index=1)),
        (RESPONSES, response("a"), response("a", "response.refusal.delta")),
        (RESPONSES, response("a", sequence_number=1), response("a")),
        (RESPONSES, response("a", sequence_number=1), response("a", sequence_number=-1)),
        (RESPONSES, response("a", sequence_number=1), response("a", sequence_number="1")),
        (MESSAGES, block({"type": "text_delta", "text": "a"}), block({"type": "text_delta", "text": "a"}, index=1)),
    ],
)
def test_deltas_of_two_places_stay_two(spoken: Dialect, one: Json, other: Json) -> None:
    first, last = event(one), event(other)
    assert read(spoken, first)
    assert read(spoken, last)
    assert merged(spoken, first, last) == [(first, 1), (last, 1)]
    assert merged(spoken, last, first) == [(last, 1), (first, 1)]


def test_a_name_and_none_stay_two() -> None:
    named = event(response("a"), "response.output_text.delta")
    assert merged(RESPONSES, TEXT, named, named.replace(b"event: ", b"event:")) == [
        (TEXT, 1),
        (named, 1),
        (named.replace(b"event: ", b"event:"), 1),
    ]


@pytest.mark.parametrize("names", [("sequence_number", "obfuscation"), ("obfuscation", "sequence_number")])
def test_the_last_ones_number_and_padding_are_kept(names: tuple[str, str]) -> None:
    first = {name: {"sequence_number": 9, "obfuscation": "aZ3k"}[name] for name in names}
    last = {name: {"sequence_number": 10, "obfuscation": "q"}[name] for name in names}
    out = merged(RESPONSES, event(first | response("a")), event(last | response("b")), event(last | response("c")))
    assert out == [(event(last | response("abc")), 3)]
    out = merged(CHAT, event(openai_chat("a", obfuscation="delta")), event(openai_chat("b", obfuscation="content")))
    assert out == [(event(openai_chat("ab", obfuscation="content")), 2)]


@pytest.mark.parametrize("text", [r'"a","obfuscation":"%s","obfuscation":"c"', r'"a","obf\u0075scation":"%s"'])
def test_a_padding_that_cannot_be_cut_out_for_certain_must_be_equal(text: str) -> None:
    first, last = (TEXT.replace(b'"a"', (text % padding).encode()) for padding in "xy")
    assert merged(RESPONSES, first, last) == [(first, 1), (last, 1)]


def test_what_is_called_like_a_number_or_padding_inside_is_not() -> None:
    results = [{"obfuscation": "x"}, {"obfuscation": "y"}]
    first, last = (event(said({"content": "a"}, content_filter_results=result)) for result in results)
    assert merged(CHAT, first, last) == [(first, 1), (last, 1)]


# --- The limit


def test_a_merged_event_is_as_large_as_the_limit_and_no_larger() -> None:
    blocks = [event(openai_chat(f"{number:04} {'x' * 95}")) for number in range(1000)]
    out = merged(CHAT, *blocks)
    sizes = [len(one) for one, _ in out]
    assert max(sizes) <= MERGED_LIMIT
    assert min(sizes[:-1]) > MERGED_LIMIT - 100
    assert sum(count for _, count in out) == 1000
    fits = MERGED_LIMIT - len(CHUNK)
    exact = event(openai_chat("x" * fits))
    assert merged(CHAT, exact, CHUNK) == [(event(openai_chat("x" * fits + "a")), 2)]
    assert len(merged(CHAT, exact, CHUNK)[0][0]) == MERGED_LIMIT
    assert merged(CHAT, exact, CHUNK, CHUNK) == [(event(openai_chat("x" * fits + "a")), 2), (CHUNK, 1)]
    assert merged(CHAT, CHUNK, exact, CHUNK) == [(event(openai_chat("a" + "x" * fits)), 2), (CHUNK, 1)]


def test_a_last_number_that_is_longer_counts_against_the_limit() -> None:
    fits = MERGED_LIMIT - len(event(response("a", sequence_number=9)))
    first, last = event(response("x" * fits, sequence_number=9)), event(response("a", sequence_number=10))
    assert merged(RESPONSES, first, last) == [(first, 1), (last, 1)]


def test_an_event_above_the_limit_passes() -> None:
    large = event(openai_chat("x" * MERGED_LIMIT))
    for blocks in ([large], [large, CHUNK], [CHUNK, large], [large, large]):
        assert merged(CHAT, *blocks) == [(one, 1) for one in blocks]
    assert read(CHAT, large) is None


def test_blocks_that_differ_in_their_text_alone_are_read_once() -> None:
    asked: list[bytes] = []

    def counted(block: bytes) -> Delta | None:
        asked.append(block)
        return reader(CHAT)(block)

    blocks = [event(openai_chat(text)) for text in 'ab"cdé']
    barrier = CHUNK.replace(b'"a"', b'"a", "content": "b"')
    assert [count for _, count in delta.merge(counted, [*blocks, barrier, *blocks])] == [6, 1, 6]
    assert asked == [blocks[0], barrier, blocks[0]]


# --- Any stream: merged, it says what it said.


def text_path(spoken: Dialect, said: Json) -> list[Any]:
    """Where the text stands in a delta of ANY."""
    if spoken is RESPONSES:
        return ["delta"]
    if spoken is MESSAGES:
        return ["delta", next(name for name in said["delta"] if name != "type")]
    if spoken is COMPLETIONS:
        return ["choices", 0, "text"]
    path: list[Any] = ["choices", 0, "delta"]
    [name] = said["choices"][0]["delta"]
    return [*path, name] if name != "tool_calls" else [*path, name, 0, "function", "arguments"]


def cut(spoken: Dialect, block: bytes) -> tuple[str, Json]:
    """A delta's text, and the delta without it."""
    whole = data(block)
    *path, name = text_path(spoken, whole)
    inner: Any = whole
    for step in path:
        inner = inner[step]
    text = inner[name]
    inner[name] = ""
    return text, whole


def accumulated(spoken: Dialect, blocks: Iterable[tuple[bytes, bool]]) -> list[Any]:
    """What a reader has at the end: texts by place, as they stood when each barrier came; and the barriers."""
    texts: dict[str, str] = {}
    states: list[Any] = []
    for one, is_barrier in blocks:
        if is_barrier:
            states.append((one, dict(texts)))
            continue
        text, shell = cut(spoken, one)
        shell.pop("sequence_number", None)
        shell.pop("obfuscation", None)
        place = json.dumps(shell)
        texts[place] = texts.get(place, "") + text
    return [*states, texts]


ANY: dict[Dialect, list[Any]] = {
    CHAT: [
        lambda text, place: openai_chat(text),
        lambda text, place: said({"content": text}, index=place),
        lambda text, place: said({"reasoning_content": text}),
        lambda text, place: called(text, index=place),
    ],
    COMPLETIONS: [lambda text, place: completion(text, index=place)],
    RESPONSES: [
        lambda text, place: response(text, output_index=place),
        lambda text, place: response(text, "response.function_call_arguments.delta", output_index=place),
    ],
    MESSAGES: [
        lambda text, place: block({"type": "text_delta", "text": text}, index=place),
        lambda text, place: block({"type": "input_json_delta", "partial_json": text}, index=place),
    ],
}
# Tokens, what JSON has to escape, names of members, and texts that fill an event.
ANY_TEXT = st.one_of(
    st.text(max_size=6),
    st.sampled_from(['"', "\\", '\\"', "content", '"content":"', '"delta": "', '"},"sequence_number":1', "\u2028\0\n"]),
    st.integers(0, MERGED_LIMIT + 100).map(lambda size: "é" * (size // 2)),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Dialect, list[tuple[bytes, bool]]]:
    """A dialect, and blocks of it with whether each is a barrier."""
    spoken = draw(st.sampled_from(list(ANY)))
    barriers = [event(said) for _, of, said in BARRIERS if of is spoken] + [b"data: [DONE]\n\n", b": ping\n\n"]
    ascii_only, spaces, numbered = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    makers = draw(st.lists(st.tuples(st.sampled_from(ANY[spoken]), st.integers(0, 1)), min_size=1, max_size=2))
    blocks: list[tuple[bytes, bool]] = []
    for number in range(draw(st.integers(0, 25))):
        if draw(st.integers(0, 9)) == 0:
            blocks.append((draw(st.sampled_from(barriers)), True))
            continue
        make, place = draw(st.sampled_from(makers))
        said = make(draw(ANY_TEXT), place)
        if numbered and spoken in (RESPONSES, CHAT):
            number_first = {"sequence_number": number} if spoken is RESPONSES else {}
            said = number_first | said | {"obfuscation": "x" * (number % 5)}
        separators = (", ", " : ") if spaces else (",", ":")
        told = json.dumps(said, ensure_ascii=ascii_only, separators=separators).encode()
        blocks.append((b"data: " + told + end + end, False))
    return spoken, blocks


@given(streams())
def test_a_merged_stream_says_what_it_said(stream: tuple[Dialect, list[tuple[bytes, bool]]]) -> None:
    spoken, blocks = stream
    out = list(delta.merge(reader(spoken), (one for one, _ in blocks)))
    assert sum(count for _, count in out) == len(blocks)
    start = 0
    kinds = []
    for one, count in out:
        members = blocks[start : start + count]
        start += count
        last, is_barrier = members[-1]
        kinds.append((one, is_barrier))
        if count == 1:
            assert one is last
            continue
        assert len(one) <= MERGED_LIMIT
        assert sse.split(one) == [one]
        assert orjson.loads(sse.fields(one)[b"data"]) == data(one)
        # Parsed, it is its last member with the members' texts, in their order; numbers and padding among them.
        assert not any(kind for _, kind in members)
        texts = [cut(spoken, member)[0] for member, _ in members]
        assert cut(spoken, one) == ("".join(texts), cut(spoken, last)[1])
    assert accumulated(spoken, kinds) == accumulated(spoken, blocks)


@given(streams())
def test_two_neighbours_that_fit_into_one_are_never_left(stream: tuple[Dialect, list[tuple[bytes, bool]]]) -> None:
    spoken, blocks = stream
    read = reader(spoken)
    start = 0
    before: bytes | None = None
    for one, count in delta.merge(read, (one for one, _ in blocks)):
        first = blocks[start][0]
        start += count
        held, found = before and read(before), read(first)
        if before and held and found and held.shell == found.shell:
            assert len(before) + len(first) - len(b"".join(found.shell)) > MERGED_LIMIT - 10
        before = one


@given(st.binary(max_size=30))
@example(b'"')
def test_no_bytes_make_a_reader_fail(noise: bytes) -> None:
    for spoken in SCRIPTS:
        blocks = [noise, b"data: %b\n\n" % noise, CHUNK.replace(b'"a"', noise), TEXT.replace(b'"a"', noise)]
        assert sum(count for _, count in merged(spoken, *blocks)) == len(blocks)


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.5, "", "a", [], ["a"], [[]], [None], {}, {"type": "text_delta"}, {"index": 0}]
)
def test_no_json_makes_a_reader_fail(value: Any) -> None:
    for spoken, make, _ in TEXTS:
        whole = make("a")
        for name in whole:
            reader(spoken)(event(whole | {name: value}))
        if spoken in (CHAT, COMPLETIONS):
            for name in whole["choices"][0]:
                reader(spoken)(event(whole | {"choices": [whole["choices"][0] | {name: value}]}))


# --- What the providers' own clients make of it


def answered(blocks: Iterable[bytes]) -> httpx2.Client:
    body = b"".join(blocks)
    headers = {"content-type": "text/event-stream"}
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=body)))


def chat_client(blocks: Iterable[bytes]) -> Json:
    client = openai.OpenAI(api_key="k", http_client=answered(blocks))
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "q"}]) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().to_dict()


def responses_client(blocks: Iterable[bytes]) -> Json:
    """The texts that the client itself has added up, by output, and its response."""
    client = openai.OpenAI(api_key="k", http_client=answered(blocks))
    with client.responses.stream(model="m", input="q") as stream:
        heard: list[Any] = [one for one in stream if hasattr(one, "snapshot")]
        last = {one.output_index: one.snapshot for one in heard}
        return {"texts": last, "response": stream.get_final_response().to_dict()}


def messages_client(blocks: Iterable[bytes]) -> Json:
    client = anthropic.Anthropic(api_key="k", http_client=answered(blocks))
    with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "q"}]) as stream:
        return stream.get_final_message().to_dict()


@pytest.mark.parametrize(
    ("spoken", "client"), [(CHAT, chat_client), (RESPONSES, responses_client), (MESSAGES, messages_client)]
)
@pytest.mark.parametrize("n", [1, 2])
def test_a_client_makes_the_same_of_a_merged_stream(spoken: Dialect, client: Any, n: int) -> None:
    blocks = script(spoken, events=300, reasoning=True, tools=True, n=n)
    whole = client(blocks)
    assert len(json.dumps(whole)) > 1000
    for size in (1, 2, 7, len(blocks)):
        behind = [
            one for at in range(0, len(blocks), size) for one, _ in delta.merge(reader(spoken), blocks[at : at + size])
        ]
        assert client(behind) == whole
