"""The official OpenAI client for Python on streams that can be resumed: asked for by a header, or given by the route.

Of resumption it knows what OpenAI itself has: `responses.retrieve(…, starting_after=…)` and `responses.cancel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseStreamEvent

from tests.browser.cutter import Cutter
from tests.clients.resumable import (
    ASK,
    BREAKS,
    ENDLESS,
    LIVE,
    LONG,
    MUCH,
    OWN,
    SLOW,
    SMALL,
    Tap,
    assert_broken,
    assert_merged,
    broken,
    cancel,
    said,
)
from tests.programs import PATIENCE, Provider, Relay

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]

Client = Callable[..., openai.OpenAI]


@pytest.fixture
def connect() -> Iterator[Client]:
    """connect(url, …): a client with a base URL; its options are the client's own."""
    with ExitStack() as opened:

        def make(url: str, **options: Any) -> openai.OpenAI:
            common = {"base_url": f"{url}/v1", "api_key": "sk-caller", "max_retries": 0, "timeout": PATIENCE}
            return opened.enter_context(openai.OpenAI(**{**common, **options}))

        yield make


def _chat(client: openai.OpenAI, simulate: str) -> Iterator[str]:
    stream = client.chat.completions.create(
        model="sim-1", messages=MESSAGES, stream=True, extra_headers={"Simulate": simulate}
    )
    for chunk in stream:
        yield from (one.delta.content or "" for one in chunk.choices)


def _completion(client: openai.OpenAI, simulate: str) -> Iterator[str]:
    stream = client.completions.create(model="sim-1", prompt="hello", stream=True, extra_headers={"Simulate": simulate})
    for chunk in stream:
        yield from (one.text for one in chunk.choices)


def _create(client: openai.OpenAI, simulate: str) -> openai.Stream[ResponseStreamEvent]:
    return client.responses.create(model="sim-1", input="hello", stream=True, extra_headers={"Simulate": simulate})


def _response(client: openai.OpenAI, simulate: str) -> Iterator[str]:
    for event in _create(client, simulate):
        yield event.delta if event.type == "response.output_text.delta" else ""


STREAMS = {"chat": _chat, "completions": _completion, "responses": _response}


def _text(events: list[ResponseStreamEvent]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def _sequence(events: list[ResponseStreamEvent]) -> list[int]:
    return [event.sequence_number for event in events]


def _name(event: ResponseStreamEvent) -> str:
    assert event.type == "response.created"
    return event.response.id


# It reads to the end, and knows what is no end


@pytest.mark.parametrize("dialect", STREAMS)
def test_stream_with_ids_and_heartbeats_is_read_to_its_end(
    beating: Relay, provider: Provider, connect: Client, dialect: str
) -> None:
    with Tap(beating.address) as tap:
        text = "".join(STREAMS[dialect](connect(tap.url, default_headers=ASK), SLOW))
        tap.assert_heartbeats()
    assert text == said(provider, SLOW)


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize("how", BREAKS)
def test_stream_that_breaks_off_raises(
    strict: Relay, provider: Provider, connect: Client, dialect: str, how: str
) -> None:
    text: list[str] = []
    with pytest.raises(openai.APIError):
        text.extend(STREAMS[dialect](connect(strict.url, default_headers=ASK), broken(how)))
    assert_broken("".join(text), said(provider, broken("none")))


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize("cuts", [(2500,), (0, 2500)], ids=["reset", "end"])
def test_cut_on_the_way_raises(
    beating: Relay, counted: Provider, connect: Client, dialect: str, cuts: tuple[int, ...]
) -> None:
    """Of the connection between the relay and the client; every other cut is a mere FIN."""
    with Cutter(beating.address, cuts) as cutter:
        client = connect(cutter.url, default_headers=ASK)
        for _ in cuts[1:]:
            with pytest.raises(openai.APIConnectionError):
                "".join(STREAMS[dialect](client, LONG))
        text: list[str] = []
        with pytest.raises(openai.APIError):
            text.extend(STREAMS[dialect](client, LONG))
    # The generations have gone on without a reader.
    counted.wait(finished=len(cuts))
    assert said(counted, LONG).startswith("".join(text))


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_stream_that_another_cancels_raises(beating: Relay, counted: Provider, connect: Client, dialect: str) -> None:
    client = connect(beating.url, default_headers=ASK)
    opened = client.chat.completions if dialect == "chat" else client.responses
    asked: dict[str, Any] = {"messages": MESSAGES} if dialect == "chat" else {"input": "hello"}
    raw = opened.with_raw_response.create(model="sim-1", stream=True, extra_headers={"Simulate": ENDLESS}, **asked)
    stream: Any = raw.parse()
    next(stream)
    assert cancel(beating, raw.headers["relay-stream-id"]) == "cancelled"
    with pytest.raises(openai.APIError):
        list(stream)
    assert counted.wait(aborted=1)["finished"] == 0


# It resumes and cancels without knowing of the relay


@pytest.mark.parametrize("at", [1, 5, 30, 67])
def test_retrieve_gives_the_events_behind_a_number(always: Relay, provider: Provider, connect: Client, at: int) -> None:
    client, simulate = connect(always.url), OWN.format(100 + at)
    provider.reset()
    stream = _create(client, simulate)
    before = [next(stream) for _ in range(at)]
    stream.close()
    name = _name(before[0])
    rest = list(client.responses.retrieve(name, stream=True, starting_after=before[-1].sequence_number))
    assert _sequence(before + rest) == list(range(68))
    assert rest[-1].type == "response.completed"
    assert provider.wait(finished=1)["requests"] == 1
    assert _text(before + rest) == said(provider, simulate) == rest[-1].response.output_text
    # It is finished now, and still the same.
    again = list(client.responses.retrieve(name, stream=True))
    assert again == before + rest


def test_helper_goes_on_with_a_response(always: Relay, connect: Client) -> None:
    client, simulate = connect(always.url), OWN.format(200)
    stream = _create(client, simulate)
    first = next(stream)
    stream.close()
    with client.responses.stream(response_id=_name(first), starting_after=20) as resumed:
        events = list(resumed)
        final = resumed.get_final_response()
    assert [event.sequence_number for event in events] == list(range(21, 68))
    whole = client.responses.create(model="sim-1", input="hello", extra_headers={"Simulate": simulate})
    assert final.output_text == whole.output_text


def test_retrieve_at_the_end_gives_nothing_more(always: Relay, connect: Client) -> None:
    client = connect(always.url)
    events = list(_create(client, "seed=201; events=5; interval=0"))
    name, last = _name(events[0]), events[-1].sequence_number
    assert list(client.responses.retrieve(name, stream=True, starting_after=last)) == []
    assert list(client.responses.retrieve(name, stream=True, starting_after=last - 1)) == events[-1:]
    with pytest.raises(openai.ConflictError, match="has 13 events"):
        client.responses.retrieve(name, stream=True, starting_after=last + 1)


def test_retrieve_with_anothers_key_is_not_the_relays_to_answer(
    always: Relay, provider: Provider, connect: Client
) -> None:
    events = list(_create(connect(always.url), "seed=202; events=5; interval=0"))
    # It goes to the provider, who knows whose it is; this one keeps nothing.
    with pytest.raises(openai.NotFoundError, match="no such path"):
        connect(always.url, api_key="sk-other").responses.retrieve(_name(events[0]), stream=True)


def test_cancel_ends_the_generation_and_its_reader_is_told(always: Relay, counted: Provider, connect: Client) -> None:
    client = connect(always.url)
    stream = _create(client, f"{ENDLESS}; seed=203")
    before = [next(stream) for _ in range(8)]
    name = _name(before[0])
    assert client.responses.cancel(name).status == "cancelled"
    assert counted.wait(aborted=1)["finished"] == 0
    with pytest.raises(openai.APIError):
        # Keeps what came before the error.
        before.extend(stream)
    assert before[-1].type == "response.failed"
    assert before[-1].response.error is not None
    assert before[-1].response.error.message == "the stream was cancelled"
    assert _sequence(before) == list(range(len(before)))
    # Once more, and a late reader: what came stays readable, and does not look whole.
    assert client.responses.cancel(name).status == "cancelled"
    late: list[ResponseStreamEvent] = []
    with pytest.raises(openai.APIError):
        late.extend(client.responses.retrieve(name, stream=True))
    assert late == before
    assert counted.stats()["requests"] == 1


# One generation, however often it is asked for


def test_same_key_gives_the_same_stream(beating: Relay, counted: Provider, connect: Client) -> None:
    client = connect(beating.url, default_headers={**ASK, "Idempotency-Key": "openai-1"})
    assert list(_chat(client, LIVE)) == list(_chat(client, LIVE))
    assert counted.stats()["requests"] == 1
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(model="sim-2", messages=MESSAGES, stream=True)
    assert caught.value.code == "idempotency_key_reused"
    assert counted.stats()["requests"] == 1


def test_clients_own_retry_with_a_key_is_the_same_stream(beating: Relay, counted: Provider, connect: Client) -> None:
    """Its connection breaks before the answer's head is there, twice; it tries three times by itself."""
    with Cutter(beating.address, (0, 40)) as cutter:
        client = connect(cutter.url, max_retries=2, default_headers={**ASK, "Idempotency-Key": "openai-2"})
        text = "".join(_chat(client, LIVE))
        assert cutter.made == 2
    assert counted.stats()["requests"] == 1
    assert text == said(counted, LIVE)


# Merged events


def _slow(connect: Client, relay: Relay) -> openai.OpenAI:
    """One whose socket takes little."""
    transport = httpx2.HTTPTransport(socket_options=[SMALL])
    return connect(
        relay.url,
        default_headers={**ASK, "Relay-Overflow": "merge"},
        http_client=openai.DefaultHttpxClient(transport=transport),
    )


def test_merged_chat_adds_up_to_the_same_message(beating: Relay, counted: Provider, connect: Client) -> None:
    def asked(client: openai.OpenAI) -> Any:
        return client.chat.completions.stream(
            model="sim-1",
            messages=MESSAGES,
            stream_options={"include_usage": True},
            extra_headers={"Simulate": MUCH},
        )

    with asked(connect(beating.url)) as stream:
        plain = stream.until_done().get_final_completion()
    counted.reset()
    with asked(_slow(connect, beating)) as stream:
        assert next(stream)
        # It reads on when all has been said.
        counted.wait(finished=1)
        merged = stream.until_done().get_final_completion()
    assert merged.to_dict() == plain.to_dict()
    assert merged.choices[0].message.content
    assert merged.choices[0].message.tool_calls
    assert_merged(beating, "/v1/chat/completions")


def test_merged_response_adds_up_to_the_same_one(beating: Relay, counted: Provider, connect: Client) -> None:
    def asked(client: openai.OpenAI) -> Any:
        return client.responses.stream(model="sim-1", input="hello", extra_headers={"Simulate": MUCH})

    with asked(connect(beating.url)) as stream:
        plain = stream.until_done().get_final_response()
    counted.reset()
    with asked(_slow(connect, beating)) as stream:
        assert next(stream)
        counted.wait(finished=1)
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
        merged = stream.get_final_response()
    assert merged.to_dict() == plain.to_dict()
    assert 0 < len(deltas) < 600
    assert deltas[-1].snapshot == merged.output_text
    assert_merged(beating, "/v1/responses")
