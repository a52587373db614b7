"""The official OpenAI client for Python over HTTP/2: an http_client of its own, and nothing else changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.peers.secured import SecuredRelay
from tests.programs import PATIENCE, Provider

_MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
_LONG = "seed=5; events=60; interval=0; split=5"
_ENDLESS = {"Simulate": "events=1000000; interval=10ms"}


@pytest.fixture
def versions() -> list[str]:
    """Of the answers that came, as they came."""
    return []


@pytest.fixture
def client(secured: SecuredRelay, route: str, versions: list[str]) -> Iterator[openai.OpenAI]:
    def note(response: Any) -> None:
        versions.append(response.http_version)

    http = openai.DefaultHttpxClient(http2=True, verify=secured.pair.trust, event_hooks={"response": [note]})
    base = f"{secured.secure_url}{route}/v1"
    with openai.OpenAI(base_url=base, api_key="sk-caller", max_retries=0, timeout=PATIENCE, http_client=http) as made:
        yield made


def test_streamed_chat_says_what_the_json_says(client: openai.OpenAI, versions: list[str]) -> None:
    told = {"Simulate": _LONG}
    chunks = list(client.chat.completions.create(model="sim-1", messages=_MESSAGES, stream=True, extra_headers=told))
    whole = client.chat.completions.create(model="sim-1", messages=_MESSAGES, extra_headers=told)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text
    assert text == whole.choices[0].message.content
    assert versions == ["HTTP/2", "HTTP/2"]


def test_responses(client: openai.OpenAI, versions: list[str]) -> None:
    stream = client.responses.create(model="sim-1", input="hello", stream=True, extra_headers={"Simulate": _LONG})
    kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"
    assert versions == ["HTTP/2"]


def test_leaving_in_the_middle_is_seen_by_the_provider(client: openai.OpenAI, counted: Provider) -> None:
    stream = client.chat.completions.create(model="sim-1", messages=_MESSAGES, stream=True, extra_headers=_ENDLESS)
    next(iter(stream))
    stream.close()
    # httpx resets no stream that its caller leaves: the end of the connection says it.
    client.close()
    assert counted.wait(aborted=1)["finished"] == 0


def test_error_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(
            model="sim-1", messages=_MESSAGES, extra_headers={"Simulate": "status=429; retry_after=7"}
        )
    assert caught.value.response.headers["retry-after"] == "7"


def test_cut_stream_is_an_error(client: openai.OpenAI) -> None:
    """The relay's error event, in the client's dialect."""
    stream = client.chat.completions.create(
        model="sim-1", messages=_MESSAGES, stream=True, extra_headers={"Simulate": "interval=5ms; lie=cut; at=3"}
    )
    with pytest.raises(openai.APIError):
        list(stream)


def test_fifty_at_once(secured: SecuredRelay, route: str) -> None:
    async def one(client: openai.AsyncOpenAI) -> int:
        stream = await client.chat.completions.create(
            model="sim-1", messages=_MESSAGES, stream=True, extra_headers={"Simulate": "events=20; interval=20ms"}
        )
        return len([chunk async for chunk in stream])

    async def run() -> list[int]:
        http = openai.DefaultAsyncHttpxClient(http2=True, verify=secured.pair.trust)
        base = f"{secured.secure_url}{route}/v1"
        async with openai.AsyncOpenAI(
            base_url=base, api_key="sk-caller", max_retries=0, timeout=PATIENCE, http_client=http
        ) as client:
            return await asyncio.gather(*(one(client) for _ in range(50)))

    assert len(set(asyncio.run(run()))) == 1
