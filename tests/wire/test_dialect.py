"""What a provider's events mean, and that its own clients can read the relay's errors."""

from __future__ import annotations

from typing import Any, cast

import anthropic
import anthropic.types
import httpx
import openai.types.responses
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import PoolFull, RelayError, UpstreamCut, UpstreamTimeout
from relay.wire import dialect, sse
from relay.wire.dialect import CHAT, COMPLETIONS, MESSAGES, OPAQUE, RESPONSES, Dialect, Ending

DONE, OPEN, ERROR = Ending.DONE, Ending.OPEN, Ending.ERROR
ALL = [CHAT, COMPLETIONS, RESPONSES, MESSAGES, OPAQUE]

ENDINGS: list[tuple[Dialect, bytes, Ending]] = [
    (CHAT, b"data: [DONE]\n\n", DONE),
    (CHAT, b"data:[DONE]\n\n", DONE),
    (CHAT, b"data:  [DONE] \n\n", DONE),
    (CHAT, b"\xef\xbb\xbfdata: [DONE]\n\n", DONE),
    (CHAT, b'data: {"choices":[]}\n\n', OPEN),
    (CHAT, b'data: {"choices":[{"delta":{"content":"[DONE]"}}]}\n\n', OPEN),
    (CHAT, b'data: {"error":{"message":"no"}}\n\n', ERROR),
    (CHAT, b'data: { "error" : "no" }\n\n', ERROR),
    (CHAT, b'data: {"error":null,"choices":[]}\n\n', OPEN),
    (CHAT, b'data: {"choices":[],"error":{}}\n\n', OPEN),
    (CHAT, b"data: [DONE]\ndata: more\n\n", OPEN),
    (CHAT, b": [DONE]\n\n", OPEN),
    (COMPLETIONS, b"data: [DONE]\n\n", DONE),
    (COMPLETIONS, b'data: {"error":{"message":"no"}}\n\n', ERROR),
    (RESPONSES, b'event: response.completed\ndata: {"type":"response.completed"}\n\n', DONE),
    (RESPONSES, b"event: response.failed\ndata: {}\n\n", DONE),
    (RESPONSES, b"event: response.incomplete\ndata: {}\n\n", DONE),
    (RESPONSES, b'data: {"type": "response.completed", "sequence_number": 4}\n\n', DONE),
    (RESPONSES, b'event: error\ndata: {"type":"error"}\n\n', ERROR),
    (RESPONSES, b'data: {"type":"response.output_text.delta","delta":"response.completed"}\n\n', OPEN),
    (RESPONSES, b'data: {"type":"response.output_text.delta","delta":"\\"type\\":\\"response.completed\\""}\n\n', OPEN),
    (RESPONSES, b"data: [DONE]\n\n", OPEN),
    (MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', DONE),
    (MESSAGES, b'data: {"type":"message_stop"}\n\n', DONE),
    (MESSAGES, b'event: error\ndata: {"type":"error"}\n\n', ERROR),
    (MESSAGES, b'event: ping\ndata: {"type":"ping"}\n\n', OPEN),
    (MESSAGES, b'event: content_block_stop\ndata: {"type":"content_block_stop"}\n\n', OPEN),
    (OPAQUE, b"data: [DONE]\n\n", OPEN),
    (OPAQUE, b"", OPEN),
]


@pytest.mark.parametrize(("spoken", "event", "ending"), ENDINGS)
def test_the_last_event_tells_how_a_stream_ended(spoken: Dialect, event: bytes, ending: Ending) -> None:
    assert spoken.verdict(event) is ending
    for end in (b"\r\n", b"\r"):
        assert spoken.verdict(event.replace(b"\n", end)) is ending
    # Neither comments behind it nor events before it change what it says.
    assert spoken.verdict(event + b": bye\n\n" + b":\n\n") is ending
    assert spoken.verdict(b"data: {}\n\n" + event.removeprefix(b"\xef\xbb\xbf")) is ending


@pytest.mark.parametrize("spoken", ALL)
def test_a_head_cut_from_a_long_event_says_the_same(spoken: Dialect) -> None:
    for known, event, ending in ENDINGS:
        if known is spoken and event.count(b"\ndata") == 1:
            assert spoken.verdict(event.rstrip(b"\n") + b" " * dialect.HEAD) is ending


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"data", b":", b"\n", b"\r", b"event: error", b'{"error":{', b'"type":"', b"[DONE]"]),
        max_size=12,
    ).map(b"".join)
)
def test_hostile_events_raise_nothing(last: bytes) -> None:
    for spoken in ALL:
        assert spoken.verdict(last) in Ending
        event = spoken.error_event(UpstreamCut("cut"), last, last)
        assert sse.count(event) == (spoken is not OPAQUE)


@pytest.mark.parametrize(
    ("path", "spoken"),
    [
        (b"/v1/chat/completions", CHAT),
        (b"/openai/v1/chat/completions", CHAT),
        (b"/v1/completions", COMPLETIONS),
        (b"/v1/responses", RESPONSES),
        (b"/v1/messages", MESSAGES),
        (b"/v1/messages/count_tokens", OPAQUE),
        (b"/v1/responses/resp_1", OPAQUE),
        (b"/api/chat", OPAQUE),
        (b"/", OPAQUE),
    ],
)
def test_a_path_names_its_dialect(path: bytes, spoken: Dialect) -> None:
    assert dialect.of(path) is spoken


def document(event: bytes) -> dict[str, Any]:
    assert event.endswith(b"\n\n")
    assert sse.count(event) == 1
    return cast("dict[str, Any]", orjson.loads(sse.fields(event)[b"data"]))


@pytest.mark.parametrize("spoken", ALL)
@pytest.mark.parametrize(
    "error", [UpstreamCut('a "quoted" line\nand another'), PoolFull("full"), UpstreamTimeout("late")]
)
def test_an_error_is_one_event_in_which_nothing_can_break_a_line(spoken: Dialect, error: RelayError) -> None:
    event = spoken.error_event(error, b"", b"")
    if spoken is OPAQUE:
        assert event == b""
    else:
        assert error.message in str(document(event)) or repr(error.message)[1:-1] in str(document(event))
        assert spoken is RESPONSES or spoken.verdict(event) is ERROR


def test_openai_reads_an_error_in_a_stream_and_a_body() -> None:
    expected = {"message": "cut", "type": "api_error", "param": None, "code": "upstream_cut"}
    for spoken in (CHAT, COMPLETIONS):
        assert document(spoken.error_event(UpstreamCut("cut"), b"", b"")) == {"error": expected}
    for spoken in (CHAT, COMPLETIONS, RESPONSES, OPAQUE):
        assert orjson.loads(spoken.error_body(UpstreamCut("cut"), "id")) == {"error": expected}


def test_anthropic_reads_an_error_in_a_stream_and_a_body() -> None:
    event = MESSAGES.error_event(PoolFull("full"), b"", b"")
    assert sse.fields(event)[b"event"] == b"error"
    for raw in (sse.fields(event)[b"data"], MESSAGES.error_body(PoolFull("full"), "id-1")):
        read = anthropic.types.ErrorResponse.model_validate_json(raw) if b"request_id" in raw else None
        assert orjson.loads(raw)["error"] == {"type": "rate_limit_error", "message": "full"}
        assert read is None or read.request_id == "id-1"


def test_openai_reads_a_failed_response_that_goes_on_with_the_streams_id_and_number() -> None:
    first = b'data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_a1"}}\n\n'
    last = b'data: {"type":"x","sequence_number":41}\n\n' + b'data: {"type":"x","sequence_number":42}\n\n'
    event = RESPONSES.error_event(UpstreamCut("cut"), first, last)
    assert sse.fields(event)[b"event"] == b"response.failed"
    read = openai.types.responses.ResponseFailedEvent.model_validate(document(event))
    assert (read.type, read.sequence_number, read.response.id) == ("response.failed", 43, "resp_a1")
    assert read.response.status == "failed"
    assert read.response.error is not None
    assert (read.response.error.code, read.response.error.message) == ("server_error", "cut")
    assert RESPONSES.verdict(event) is DONE


def test_a_failed_response_can_be_told_of_a_stream_that_never_began() -> None:
    read = openai.types.responses.ResponseFailedEvent.model_validate(
        document(RESPONSES.error_event(UpstreamCut("cut"), b"", b""))
    )
    assert (read.sequence_number, read.response.id) == (0, "")


def test_every_status_of_an_error_body_is_one_that_clients_know() -> None:
    # The SDKs choose their exception by status alone; what they need of the body is that it is JSON.
    for error in (PoolFull("x"), UpstreamCut("x"), UpstreamTimeout("x")):
        response = httpx.Response(error.status, content=CHAT.error_body(error, "id"))
        assert response.is_error
        assert response.json()["error"]["code"] == error.code


@given(
    st.sampled_from([CHAT, COMPLETIONS, MESSAGES, OPAQUE]),
    st.one_of(
        st.binary(max_size=50), st.sampled_from([b"[DONE]", b'"error":{}}', b"data: [DONE]", b'data: {"error":{}}'])
    ),
)
def test_what_passes_says_nothing_about_the_end(spoken: Dialect, rest: bytes) -> None:
    """But for two names in one event, which nobody sends."""
    assert isinstance(spoken.passing, bytes)
    line = rest.replace(b"\r", b"").replace(b"\n", b"")
    assert spoken.verdict(spoken.passing + line + b"\n\n") is Ending.OPEN


def test_a_dialect_whose_errors_want_a_number_lets_nothing_pass() -> None:
    assert not b"event: response.output_text.delta\n".startswith(RESPONSES.passing)
