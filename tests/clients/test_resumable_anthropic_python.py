"""The official Anthropic client for Python on streams that can be resumed. It has no way to resume one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, RawMessageStreamEvent

from tests.browser.cutter import Cutter
from tests.clients.resumable import (
    ASK,
    BREAKS,
    ENDLESS,
    LIVE,
    LONG,
    MUCH,
    SLOW,
    SMALL,
    Tap,
    assert_broken,
    assert_merged,
    broken,
    cancel,
    dechunked,
    numbers,
    said,
)
from tests.programs import PATIENCE, Provider, Relay

MESSAGES: list[MessageParam] = [{"role": "user", "content": "hello"}]

Connect = Callable[..., anthropic.Anthropic]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """connect(url, …): a client with a base URL; its options are the client's own."""
    with ExitStack() as opened:

        def make(url: str, **options: Any) -> anthropic.Anthropic:
            common = {
                "base_url": url,
                "api_key": "sk-ant",
                "max_retries": 0,
                "timeout": PATIENCE,
                "default_headers": ASK,
            }
            return opened.enter_context(anthropic.Anthropic(**{**common, **options}))

        yield make


def _create(client: anthropic.Anthropic, simulate: str) -> anthropic.Stream[RawMessageStreamEvent]:
    return client.messages.create(
        model="sim-1", max_tokens=64, messages=MESSAGES, stream=True, extra_headers={"Simulate": simulate}
    )


def _text(client: anthropic.Anthropic, simulate: str) -> Iterator[str]:
    for event in _create(client, simulate):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            yield event.delta.text


def _helper(client: anthropic.Anthropic, simulate: str) -> Iterator[str]:
    with client.messages.stream(
        model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": simulate}
    ) as stream:
        yield from stream.text_stream


# The raw stream, and the helper that adds it up.
STREAMS = {"stream": _text, "helper": _helper}


@pytest.mark.parametrize("how", STREAMS)
def test_stream_with_ids_and_heartbeats_is_read_to_its_end(
    beating: Relay, provider: Provider, connect: Connect, how: str
) -> None:
    with Tap(beating.address) as tap:
        text = "".join(STREAMS[how](connect(tap.url), SLOW))
        tap.assert_heartbeats()
    assert text == said(provider, SLOW)


def test_providers_own_pings_are_numbered_events_and_its_comments_are_gone(
    beating: Relay, provider: Provider, connect: Connect
) -> None:
    simulate = f"{LIVE}; ping=3; crlf=1"
    with Tap(beating.address) as tap:
        assert "".join(_text(connect(tap.url), simulate)) == said(provider, LIVE)
        answer = tap.the_answer()
    body = dechunked(answer)
    lines = body.splitlines()
    assert b"event: ping" in lines
    assert b": ping" not in lines
    assert numbers(body) == list(range(1, len(numbers(body)) + 1))
    assert len(numbers(body)) == lines.count(b"")


@pytest.mark.parametrize("how", STREAMS)
@pytest.mark.parametrize("lie", BREAKS)
def test_stream_that_breaks_off_raises(strict: Relay, provider: Provider, connect: Connect, how: str, lie: str) -> None:
    text: list[str] = []
    with pytest.raises(anthropic.APIError):
        text.extend(STREAMS[how](connect(strict.url), broken(lie)))
    assert_broken("".join(text), said(provider, broken("none")))


@pytest.mark.parametrize("how", STREAMS)
@pytest.mark.parametrize("cuts", [(2500,), (0, 2500)], ids=["reset", "end"])
def test_cut_on_the_way_raises(
    beating: Relay, counted: Provider, connect: Connect, how: str, cuts: tuple[int, ...]
) -> None:
    """Of the connection between the relay and the client; every other cut is a mere FIN."""
    with Cutter(beating.address, cuts) as cutter:
        client = connect(cutter.url)
        for _ in cuts[1:]:
            with pytest.raises(anthropic.APIConnectionError):
                "".join(STREAMS[how](client, LONG))
        text: list[str] = []
        # In the middle of a stream the client raises its transport's own error.
        with pytest.raises((anthropic.APIError, httpx2.TransportError)):
            text.extend(STREAMS[how](client, LONG))
    # The generations have gone on without a reader.
    counted.wait(finished=len(cuts))
    assert said(counted, LONG).startswith("".join(text))


def test_stream_that_another_cancels_raises(beating: Relay, counted: Provider, connect: Connect) -> None:
    raw = connect(beating.url).messages.with_raw_response.create(
        model="sim-1", max_tokens=64, messages=MESSAGES, stream=True, extra_headers={"Simulate": ENDLESS}
    )
    stream = raw.parse()
    next(stream)
    assert cancel(beating, raw.headers["relay-stream-id"]) == "cancelled"
    with pytest.raises(anthropic.APIError, match="the stream was cancelled"):
        list(stream)
    assert counted.wait(aborted=1)["finished"] == 0


def test_same_key_gives_the_same_stream(beating: Relay, counted: Provider, connect: Connect) -> None:
    client = connect(beating.url, default_headers={**ASK, "Idempotency-Key": "anthropic-1"})
    assert list(_create(client, LIVE)) == list(_create(client, LIVE))
    assert counted.stats()["requests"] == 1
    with pytest.raises(anthropic.UnprocessableEntityError, match="another body"):
        client.messages.create(model="sim-2", max_tokens=64, messages=MESSAGES, stream=True)
    assert counted.stats()["requests"] == 1


def test_clients_own_retry_with_a_key_is_the_same_stream(beating: Relay, counted: Provider, connect: Connect) -> None:
    """Its connection breaks before the answer's head is there, twice; it tries three times by itself."""
    with Cutter(beating.address, (0, 40)) as cutter:
        client = connect(cutter.url, max_retries=2, default_headers={**ASK, "Idempotency-Key": "anthropic-2"})
        text = "".join(_text(client, LIVE))
        assert cutter.made == 2
    assert counted.stats()["requests"] == 1
    assert text == said(counted, LIVE)


def test_merged_stream_adds_up_to_the_same_message(beating: Relay, counted: Provider, connect: Connect) -> None:
    def asked(client: anthropic.Anthropic) -> anthropic.MessageStreamManager[None]:
        return client.messages.stream(model="sim-1", max_tokens=64, messages=MESSAGES, extra_headers={"Simulate": MUCH})

    with asked(connect(beating.url, default_headers={})) as stream:
        plain = stream.get_final_message()
    counted.reset()
    slow = connect(
        beating.url,
        default_headers={**ASK, "Relay-Overflow": "merge"},
        http_client=anthropic.DefaultHttpxClient(transport=httpx2.HTTPTransport(socket_options=[SMALL])),
    )
    with asked(slow) as stream:
        assert next(stream)
        # It reads on when all has been said.
        counted.wait(finished=1)
        merged: Message = stream.get_final_message()
    assert merged.to_dict() == plain.to_dict()
    assert [block.type for block in merged.content] == ["thinking", "text", "tool_use"]
    assert_merged(beating, "/v1/messages")
