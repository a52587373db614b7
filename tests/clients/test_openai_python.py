"""The official OpenAI client for Python, its base URL changed and nothing else: what it gets when all goes well.

What a stream adds up to is held against the JSON answer to the same request, which the provider makes of the same text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.programs import PATIENCE, Provider, Relay

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
# Cut by a seed as well, so that no client gets its events in the pieces in which they were made.
LONG = "seed=5; events=60; interval=0; split=5"
ENDLESS = {"Simulate": "events=1000000; interval=10ms"}


@pytest.fixture
def client(relay: Relay) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{relay.url}/v1", api_key="sk-caller", max_retries=0, timeout=PATIENCE) as made:
        yield made


def _async_client(relay: Relay) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key="sk-caller", max_retries=0, timeout=PATIENCE)


def _stream(client: openai.OpenAI, simulate: str, **more: Any) -> list[ChatCompletionChunk]:
    return list(
        client.chat.completions.create(
            model="sim-1", messages=MESSAGES, stream=True, extra_headers={"Simulate": simulate}, **more
        )
    )


def _text(chunks: Iterable[ChatCompletionChunk], choice: int = 0) -> str:
    said = (one for chunk in chunks for one in chunk.choices if one.index == choice)
    return "".join(one.delta.content or "" for one in said)


@pytest.mark.parametrize("form", ["", "; crlf=1", "; framing=close", "; encoding=gzip", "; encoding=br", "; ping=2"])
def test_streamed_chat_says_what_the_json_says(client: openai.OpenAI, form: str) -> None:
    chunks = _stream(client, LONG + form)
    whole = client.chat.completions.create(model="sim-1", messages=MESSAGES, extra_headers={"Simulate": LONG})
    assert whole.choices[0].message.content
    assert _text(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {whole.id}


def test_every_choice_keeps_its_own_text(client: openai.OpenAI) -> None:
    chunks = _stream(client, LONG, n=3)
    whole = client.chat.completions.create(model="sim-1", messages=MESSAGES, n=3, extra_headers={"Simulate": LONG})
    texts = [one.message.content for one in whole.choices]
    assert len(set(texts)) == 3
    assert [_text(chunks, number) for number in range(3)] == texts


def test_streamed_tool_arguments_add_up_to_the_call(client: openai.OpenAI) -> None:
    simulate = f"{LONG}; tools=1"
    chunks = _stream(client, simulate)
    whole = client.chat.completions.create(model="sim-1", messages=MESSAGES, extra_headers={"Simulate": simulate})
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    deltas = [call for chunk in chunks for one in chunk.choices for call in one.delta.tool_calls or []]
    functions = [delta.function for delta in deltas if delta.function is not None]
    arguments = "".join(function.arguments or "" for function in functions)
    assert (deltas[0].id, functions[0].name) == (calls[0].id, calls[0].function.name)
    assert arguments == calls[0].function.arguments
    assert json.loads(arguments)["note"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_accumulating_helper_ends_with_the_whole_message(client: openai.OpenAI) -> None:
    simulate = {"Simulate": f"{LONG}; tools=1"}
    with client.chat.completions.stream(model="sim-1", messages=MESSAGES, extra_headers=simulate) as stream:
        stream.until_done()
        said = stream.get_final_completion().choices[0].message
    whole = client.chat.completions.create(model="sim-1", messages=MESSAGES, extra_headers=simulate)
    assert said.content == whole.choices[0].message.content
    assert said.tool_calls is not None
    assert len(said.tool_calls) == 1


def test_reasoning_arrives_beside_the_text(client: openai.OpenAI) -> None:
    simulate = f"{LONG}; reasoning=1"
    chunks = _stream(client, simulate)
    whole = client.chat.completions.create(model="sim-1", messages=MESSAGES, extra_headers={"Simulate": simulate})
    deltas = [one.delta for chunk in chunks for one in chunk.choices]
    thought = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas)
    assert thought
    assert thought == (whole.choices[0].message.model_extra or {})["reasoning_content"]
    assert _text(chunks) == whole.choices[0].message.content


def test_usage_comes_to_those_who_asked_and_to_no_others(client: openai.OpenAI) -> None:
    asked = _stream(client, LONG, stream_options={"include_usage": True})
    assert asked[-1].choices == []
    assert asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens == 60
    assert not [chunk for chunk in asked[:-1] if chunk.usage is not None]
    assert not [chunk for chunk in _stream(client, LONG) if chunk.usage is not None]


def test_streamed_completion_says_what_the_json_says(client: openai.OpenAI) -> None:
    simulate = {"Simulate": LONG}
    stream = client.completions.create(model="sim-1", prompt="hello", stream=True, extra_headers=simulate)
    text = "".join(chunk.choices[0].text for chunk in stream)
    whole = client.completions.create(model="sim-1", prompt="hello", extra_headers=simulate)
    assert text
    assert text == whole.choices[0].text


def test_streamed_response_says_what_the_json_says(client: openai.OpenAI) -> None:
    simulate = {"Simulate": f"{LONG}; reasoning=1; tools=1"}
    events = list(client.responses.create(model="sim-1", input="hello", stream=True, extra_headers=simulate))
    whole = client.responses.create(model="sim-1", input="hello", extra_headers=simulate)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text
    assert text == whole.output_text
    assert events[-1].type == "response.completed"
    assert events[-1].response.output == whole.output
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(events)))


def test_response_helper_ends_with_the_final_response(client: openai.OpenAI) -> None:
    simulate = {"Simulate": LONG}
    with client.responses.stream(model="sim-1", input="hello", extra_headers=simulate) as stream:
        final = stream.until_done().get_final_response()
    whole = client.responses.create(model="sim-1", input="hello", extra_headers=simulate)
    assert final.output_text == whole.output_text


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["sim-1", "sim-2"]


@pytest.mark.parametrize("stream", [True, False])
def test_headers_of_the_provider_and_of_the_relay_are_there(client: openai.OpenAI, stream: bool) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sim-1", messages=MESSAGES, stream=stream, extra_headers={"Simulate": LONG}
    )
    assert raw.request_id == raw.headers["x-request-id"]
    assert raw.headers["x-request-id"].startswith("req_")
    assert len(raw.headers["relay-stream-id"]) >= 22  # 128 bits in base64
    assert raw.headers["x-ratelimit-remaining-tokens"] == "1999976"
    assert raw.headers["openai-processing-ms"]
    if stream:
        assert raw.headers["x-accel-buffering"] == "no"
        assert raw.headers["cache-control"] == "no-cache, no-transform"
    raw.http_response.close()


def test_callers_key_and_body_reach_the_provider(client: openai.OpenAI, counted: Provider) -> None:
    _stream(client, LONG, user="é" * 1000)
    [request] = counted.requests()
    fields = {name.lower(): value for name, value in request["headers"]}
    assert fields["authorization"] == "Bearer sk-caller"
    assert fields["user-agent"].startswith("OpenAI/Python")
    assert int(fields["content-length"]) == request["body_length"] > 2000


def test_one_client_reuses_its_connection_and_the_relays(client: openai.OpenAI, counted: Provider) -> None:
    for _ in range(10):
        assert _text(_stream(client, "events=3; interval=0"))
    assert counted.wait(finished=10)["connections"] <= 1


def test_many_streams_at_once_do_not_mix(relay: Relay, client: openai.OpenAI) -> None:
    simulate = [{"Simulate": f"seed={seed}; events=30; interval=1ms; split={seed}"} for seed in range(20)]

    async def text(asynchronous: openai.AsyncOpenAI, headers: dict[str, str]) -> str:
        stream = await asynchronous.chat.completions.create(
            model="sim-1", messages=MESSAGES, stream=True, extra_headers=headers
        )
        return _text([chunk async for chunk in stream])

    async def all_texts() -> list[str]:
        async with _async_client(relay) as asynchronous:
            return await asyncio.gather(*(text(asynchronous, headers) for headers in simulate))

    whole = [
        client.chat.completions.create(model="sim-1", messages=MESSAGES, extra_headers=headers) for headers in simulate
    ]
    assert asyncio.run(all_texts()) == [one.choices[0].message.content for one in whole]


# A reader that leaves stops the generation.


def test_closing_a_stream_early_aborts_the_generation(client: openai.OpenAI, counted: Provider) -> None:
    stream = client.chat.completions.create(model="sim-1", messages=MESSAGES, stream=True, extra_headers=ENDLESS)
    with closing(stream):
        next(stream)
    assert counted.wait(aborted=1)["finished"] == 0


def test_leaving_an_asynchronous_stream_aborts_the_generation(relay: Relay, counted: Provider) -> None:
    async def leave() -> None:
        async with _async_client(relay) as client:
            stream = await client.responses.create(model="sim-1", input="hi", stream=True, extra_headers=ENDLESS)
            async with stream:
                async for event in stream:
                    if event.type == "response.output_text.delta":
                        break
            # The client itself is still open: its connection must not be what the generation waits for.
            await asyncio.to_thread(counted.wait, aborted=1)

    asyncio.run(leave())


@pytest.mark.parametrize("before", ["delay=1000s", "first=1000s"])
def test_cancelling_before_the_first_token_aborts_the_generation(relay: Relay, counted: Provider, before: str) -> None:
    async def ask(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="sim-1", messages=MESSAGES, stream=True, extra_headers={"Simulate": before}
        )
        async for _ in stream:
            pass

    async def cancel() -> None:
        async with _async_client(relay) as client:
            asking = asyncio.create_task(ask(client))
            await asyncio.to_thread(counted.wait, requests=1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.to_thread(counted.wait, aborted=1)

    asyncio.run(cancel())


def test_caller_credentials_do_not_meet_the_providers(make_relay: Callable[..., Relay], counted: Provider) -> None:
    relay = make_relay(upstream_extra='api_key_env = "PROVIDER_KEY"', env={"PROVIDER_KEY": "sk-provider"})
    with openai.OpenAI(base_url=f"{relay.url}/v1", api_key="sk-caller", max_retries=0) as client:
        assert _text(_stream(client, "events=2; interval=0"))
    [request] = counted.requests()
    keys = [value for name, value in request["headers"] if name.lower() == "authorization"]
    assert keys == ["Bearer sk-provider"]


def test_heartbeats_while_the_model_thinks_are_no_chunks(make_relay: Callable[..., Relay]) -> None:
    """Comments stand before the first event and between others; the client must not notice."""
    relay = make_relay(timeouts='heartbeat = "50ms"')
    slow = "seed=5; events=3; first=300ms; interval=300ms"
    with openai.OpenAI(base_url=f"{relay.url}/v1", api_key="sk-caller", max_retries=0) as client:
        assert _stream(client, slow) == _stream(client, "seed=5; events=3; interval=0")
        events = [
            list(client.responses.create(model="m", input="hi", stream=True, extra_headers={"Simulate": simulate}))
            for simulate in (slow, "seed=5; events=3; interval=0")
        ]
    assert events[0] == events[1]
