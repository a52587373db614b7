"""The official Anthropic client for Python, its base URL changed and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, RawMessageStreamEvent

from tests.programs import PATIENCE, Provider, Relay

MESSAGES: list[MessageParam] = [{"role": "user", "content": "hello"}]
LONG = "seed=5; events=60; interval=0; split=5"
ENDLESS = {"Simulate": "events=1000000; interval=10ms"}
# How a provider breaks off in the middle of its stream. The last two end as HTTP says that a body ends.
CUTS = ("cut", "cut-reset", "short", "bad-chunk", "half-event", "no-done")
STATUSES: list[tuple[int, type[anthropic.APIStatusError]]] = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (529, anthropic.InternalServerError),
]


def _client(relay: Relay, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        **{"base_url": relay.url, "api_key": "sk-ant-caller", "max_retries": 0, "timeout": PATIENCE, **options}
    )


@pytest.fixture
def client(relay: Relay) -> Iterator[anthropic.Anthropic]:
    with _client(relay) as made:
        yield made


def _stream(client: anthropic.Anthropic, simulate: str) -> anthropic.Stream[RawMessageStreamEvent]:
    return client.messages.create(
        model="sim-1", max_tokens=64, messages=MESSAGES, stream=True, extra_headers={"Simulate": simulate}
    )


def _whole(client: anthropic.Anthropic, simulate: str) -> Message:
    return client.messages.create(model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": simulate})


def _said(event: RawMessageStreamEvent) -> str:
    if event.type == "content_block_delta" and event.delta.type == "text_delta":
        return event.delta.text
    return ""


def _text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# All goes well


@pytest.mark.parametrize("form", ["", "; crlf=1", "; framing=close", "; encoding=gzip", "; encoding=br", "; ping=2"])
def test_streamed_message_says_what_the_json_says(client: anthropic.Anthropic, form: str) -> None:
    events = list(_stream(client, LONG + form))
    whole = _whole(client, LONG)
    assert _text(whole)
    assert "".join(map(_said, events)) == _text(whole)
    assert events[0].type == "message_start"
    assert events[0].message.id == whole.id
    assert events[-1].type == "message_stop"


def test_helper_accumulates_text_thinking_tool_and_usage(client: anthropic.Anthropic) -> None:
    simulate = f"{LONG}; reasoning=1; tools=1"
    with client.messages.stream(
        model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": simulate}
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = _whole(client, simulate)
    assert text == _text(whole)
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use"]
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage.output_tokens) == ("tool_use", 60)
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_streamed_tool_arguments_add_up_to_the_call(client: anthropic.Anthropic) -> None:
    simulate = f"{LONG}; tools=1"
    deltas = [event.delta for event in _stream(client, simulate) if event.type == "content_block_delta"]
    arguments = "".join(delta.partial_json for delta in deltas if delta.type == "input_json_delta")
    [call] = [block for block in _whole(client, simulate).content if block.type == "tool_use"]
    assert json.loads(arguments) == call.input


def test_heartbeats_while_the_model_thinks_are_no_events(make_relay: Callable[..., Relay]) -> None:
    with _client(make_relay(timeouts='heartbeat = "50ms"')) as client:
        slow = list(_stream(client, "seed=5; events=3; first=300ms; interval=300ms"))
        assert slow == list(_stream(client, "seed=5; events=3; interval=0"))


def test_headers_of_the_provider_and_of_the_relay_are_there(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": LONG}
    )
    assert raw.headers["request-id"].startswith("req_")
    assert raw.headers["anthropic-ratelimit-tokens-remaining"] == "1999000"
    assert raw.headers["x-request-id"]
    assert len(raw.headers["relay-stream-id"]) >= 22  # 128 bits in base64


def test_callers_key_and_version_reach_the_provider(client: anthropic.Anthropic, counted: Provider) -> None:
    assert list(_stream(client, "events=1; interval=0"))
    [request] = counted.requests()
    fields = {name.lower(): value for name, value in request["headers"]}
    # Some versions of the client send x-api-key instead.
    assert "sk-ant-caller" in fields.get("x-api-key", "") + fields.get("authorization", "")
    assert fields["anthropic-version"]


def test_many_streams_at_once_do_not_mix(relay: Relay, client: anthropic.Anthropic) -> None:
    simulate = [f"seed={seed}; events=30; interval=1ms; split={seed}" for seed in range(20)]

    async def text(asynchronous: anthropic.AsyncAnthropic, form: str) -> str:
        async with asynchronous.messages.stream(
            model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": form}
        ) as stream:
            return "".join([piece async for piece in stream.text_stream])

    async def all_texts() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=relay.url, api_key="sk", max_retries=0) as asynchronous:
            return await asyncio.gather(*(text(asynchronous, form) for form in simulate))

    assert asyncio.run(all_texts()) == [_text(_whole(client, form)) for form in simulate]


# Something fails


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("status", "error"), STATUSES)
def test_error_status_of_the_provider_is_the_clients_error(
    client: anthropic.Anthropic, stream: bool, status: int, error: type[anthropic.APIStatusError]
) -> None:
    ask = _stream if stream else _whole
    with pytest.raises(anthropic.APIStatusError, match=f"simulated {status}") as caught:
        ask(client, f"status={status}; retry_after=7")
    assert caught.value.status_code == status
    assert isinstance(caught.value, error) or status == 529
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id == caught.value.response.headers["request-id"]


def test_relays_own_errors_have_anthropics_form(make_relay: Callable[..., Relay], free_port: int) -> None:
    nowhere = make_relay(path="/elsewhere/*")
    with _client(nowhere) as client, pytest.raises(anthropic.NotFoundError) as missing:
        _whole(client, "")
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["type"] == "error"
    assert missing.value.body["error"] == {"type": "not_found_error", "message": "no route for this path"}
    assert missing.value.body["request_id"] == missing.value.response.headers["x-request-id"]

    with (
        _client(make_relay(upstream=f"http://127.0.0.1:{free_port}")) as client,
        pytest.raises(anthropic.InternalServerError) as down,
    ):
        _whole(client, "")
    assert isinstance(down.value.body, dict)
    assert (down.value.status_code, down.value.body["error"]["type"]) == (502, "api_error")


@pytest.mark.parametrize("lie", CUTS)
def test_cut_stream_raises_after_what_came(client: anthropic.Anthropic, lie: str) -> None:
    events: list[RawMessageStreamEvent] = []
    with pytest.raises(anthropic.APIError):
        # Keeps what came before the error.
        events.extend(_stream(client, f"seed=5; events=9; at=4; interval=0; lie={lie}"))
    came = "".join(map(_said, events))
    assert came
    assert _text(_whole(client, "seed=5; events=9")).startswith(came)
    assert "message_stop" not in [event.type for event in events]


@pytest.mark.parametrize("lie", CUTS)
def test_cut_stream_raises_in_the_asynchronous_helper(relay: Relay, lie: str) -> None:
    async def ask() -> Message:
        async with (
            anthropic.AsyncAnthropic(base_url=relay.url, api_key="sk", max_retries=0) as client,
            client.messages.stream(
                model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": f"lie={lie}; interval=0"}
            ) as stream,
        ):
            return await stream.get_final_message()

    with pytest.raises(anthropic.APIError):
        asyncio.run(ask())


def test_error_event_of_the_provider_is_raised_as_it_is(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="simulated overload") as caught:
        list(_stream(client, "events=9; interval=0; lie=error"))
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "overloaded_error"


def test_provider_that_does_not_begin_is_a_504(make_relay: Callable[..., Relay], counted: Provider) -> None:
    with (
        _client(make_relay(timeouts='head = "200ms"')) as client,
        pytest.raises(anthropic.APIStatusError, match="did not begin its answer") as caught,
    ):
        _stream(client, "lie=stall")
    assert caught.value.status_code == 504
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "timeout_error"
    counted.wait(aborted=1)


@pytest.mark.parametrize("lie", ["stall", "head-stall", "mid-stall"])
def test_client_that_waits_no_longer_aborts_the_generation(relay: Relay, counted: Provider, lie: str) -> None:
    with _client(relay, timeout=0.3) as client:
        # In the middle of a stream the client raises its transport's own error.
        with pytest.raises((anthropic.APITimeoutError, httpx2.ReadTimeout)):
            list(_stream(client, f"lie={lie}; interval=0"))
        counted.wait(aborted=1)


def test_closing_a_stream_early_aborts_the_generation(client: anthropic.Anthropic, counted: Provider) -> None:
    stream = client.messages.create(model="sim-1", max_tokens=64, messages=MESSAGES, stream=True, extra_headers=ENDLESS)
    with closing(stream):
        next(stream)
    assert counted.wait(aborted=1)["finished"] == 0
