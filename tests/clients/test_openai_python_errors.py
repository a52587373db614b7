"""The official OpenAI client for Python when something fails: it must learn that it did, and as what.

The one thing that may never happen is a stream that breaks off and ends as if it were whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseStreamEvent

from tests.programs import PATIENCE, Provider, Relay

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
# How a provider breaks off in the middle of its stream. The last two end as HTTP says that a body ends.
CUTS = ("cut", "cut-reset", "short", "bad-chunk", "half-event", "no-done")
STATUSES: list[tuple[int, type[openai.APIStatusError]]] = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


def _client(relay: Relay, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        **{"base_url": f"{relay.url}/v1", "api_key": "sk-caller", "max_retries": 0, "timeout": PATIENCE, **options}
    )


@pytest.fixture
def client(relay: Relay) -> Iterator[openai.OpenAI]:
    with _client(relay) as made:
        yield made


def _chat(client: openai.OpenAI, simulate: str) -> Iterable[str]:
    stream = client.chat.completions.create(
        model="sim-1", messages=MESSAGES, stream=True, extra_headers={"Simulate": simulate}
    )
    for chunk in stream:
        yield from (one.delta.content or "" for one in chunk.choices)


def _completion(client: openai.OpenAI, simulate: str) -> Iterable[str]:
    stream = client.completions.create(model="sim-1", prompt="hello", stream=True, extra_headers={"Simulate": simulate})
    for chunk in stream:
        yield from (one.text for one in chunk.choices)


def _response(client: openai.OpenAI, simulate: str) -> Iterable[str]:
    stream = client.responses.create(model="sim-1", input="hello", stream=True, extra_headers={"Simulate": simulate})
    for event in stream:
        yield event.delta if event.type == "response.output_text.delta" else ""


def _json(client: openai.OpenAI, simulate: str) -> Iterable[str]:
    whole = client.chat.completions.create(model="sim-1", messages=MESSAGES, extra_headers={"Simulate": simulate})
    yield whole.choices[0].message.content or ""


STREAMS = {"chat": _chat, "completions": _completion, "responses": _response}
ASKED = {**STREAMS, "json": _json}


def _heard(pieces: Iterable[str], error: type[Exception]) -> tuple[list[str], Any]:
    """What came before the error, and the error; it must come."""
    said: list[str] = []
    with pytest.raises(error) as caught:
        said.extend(pieces)  # keeps what came before the error
    return said, caught.value


# A real status, as long as nothing of an answer has come


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize(("status", "error"), STATUSES)
def test_error_status_of_the_provider_is_the_clients_error(
    client: openai.OpenAI, dialect: str, status: int, error: type[openai.APIStatusError]
) -> None:
    said, caught = _heard(ASKED[dialect](client, f"status={status}; retry_after=7"), error)
    assert not said
    assert isinstance(caught, openai.APIStatusError)
    assert caught.status_code == status
    assert caught.message.endswith(f"simulated {status}")
    assert caught.response.headers["retry-after"] == "7"
    assert caught.request_id == caught.response.headers["x-request-id"]


def test_path_without_a_route_is_not_found(make_relay: Callable[..., Relay]) -> None:
    relay = make_relay(path="/v1/chat/*")
    with _client(relay) as client, pytest.raises(openai.NotFoundError, match="no route for this path") as caught:
        client.models.list()
    assert (caught.value.code, caught.value.type) == ("not_found", "not_found_error")
    assert caught.value.request_id


def test_body_over_the_limit_is_refused(make_relay: Callable[..., Relay], counted: Provider) -> None:
    relay = make_relay(limits='request_body = "64KiB"')
    with _client(relay) as client, pytest.raises(openai.APIStatusError, match="at most 65536 bytes") as caught:
        client.completions.create(model="sim-1", prompt="x" * 100_000)
    assert (caught.value.status_code, caught.value.code) == (413, "payload_too_large")
    assert counted.stats()["requests"] == 0


def test_unreachable_provider_is_a_502(make_relay: Callable[..., Relay], free_port: int) -> None:
    relay = make_relay(upstream=f"http://127.0.0.1:{free_port}")
    with _client(relay) as client, pytest.raises(openai.InternalServerError, match="cannot be reached") as caught:
        client.models.list()
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize("lie", ["close", "reset", "head-close", "garbage"])
def test_provider_that_breaks_off_before_its_body_is_a_502(client: openai.OpenAI, dialect: str, lie: str) -> None:
    said, caught = _heard(ASKED[dialect](client, f"lie={lie}"), openai.InternalServerError)
    assert (said, caught.status_code) == ([], 502)


# The client's own repeats


def _telling_the_first_attempt_alone(simulate: str) -> httpx2.Client:
    def tell(request: httpx2.Request) -> None:
        first = request.headers["x-stainless-retry-count"] == "0"
        request.headers["simulate"] = simulate if first else "interval=0"

    return httpx2.Client(event_hooks={"request": [tell]}, timeout=PATIENCE)


@pytest.mark.parametrize("failure", ["status=429; retry_after=10ms", "status=503; retry_after=10ms", "lie=close"])
def test_clients_own_retry_gets_through(make_relay: Callable[..., Relay], counted: Provider, failure: str) -> None:
    with _client(make_relay(), max_retries=1, http_client=_telling_the_first_attempt_alone(failure)) as client:
        stream = client.chat.completions.create(model="sim-1", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert counted.wait(finished=1)["requests"] == 2


def test_relay_itself_repeats_nothing_that_the_provider_has_read(
    make_relay: Callable[..., Relay], counted: Provider
) -> None:
    """A provider that closes a new connection with the request in hand may be at work on it: only the client knows
    whether to ask again."""
    with _client(make_relay()) as client, pytest.raises(openai.InternalServerError):
        list(_chat(client, "lie=close"))
    assert counted.wait(broken=1)["requests"] == 1


# Failures in the middle of a stream


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize("lie", CUTS)
def test_cut_stream_raises_after_what_came(client: openai.OpenAI, dialect: str, lie: str) -> None:
    said, _ = _heard(STREAMS[dialect](client, f"events=9; at=4; interval=0; lie={lie}"), openai.APIError)
    whole = "".join(STREAMS[dialect](client, "events=9; interval=0"))
    came = "".join(said)
    assert came
    assert whole.startswith(came)
    assert came != whole or lie == "no-done"


@pytest.mark.parametrize("lie", ["cut", "short"])
def test_cut_json_raises(client: openai.OpenAI, lie: str) -> None:
    with pytest.raises(openai.APIConnectionError):
        list(_json(client, f"size=200; lie={lie}"))


def test_cut_stream_raises_in_the_asynchronous_client(relay: Relay) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key="sk", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="sim-1", messages=MESSAGES, stream=True, extra_headers={"Simulate": "lie=cut; interval=0"}
            )
            async for _ in stream:
                pass

    with pytest.raises(openai.APIError):
        asyncio.run(ask())


def test_cut_response_fails_in_its_own_words_first(client: openai.OpenAI) -> None:
    events: list[ResponseStreamEvent] = []
    stream = client.responses.create(
        model="sim-1", input="hello", stream=True, extra_headers={"Simulate": "lie=cut; interval=0"}
    )
    with pytest.raises(openai.APIConnectionError):
        events.extend(stream)  # keeps what came before the error
    created, failed = events[0], events[-1]
    assert created.type == "response.created"
    assert failed.type == "response.failed"
    assert failed.response.id == created.response.id
    assert failed.sequence_number == len(events) - 1
    assert failed.response.error is not None


@pytest.mark.parametrize("dialect", ["chat", "completions"])
def test_error_event_of_the_provider_is_raised_as_it_is(client: openai.OpenAI, dialect: str) -> None:
    said, caught = _heard(STREAMS[dialect](client, "events=9; interval=0; lie=error"), openai.APIError)
    assert "".join(said)
    assert caught.message == "simulated 500"


# Time


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize(
    ("timeouts", "lie"),
    [
        ('head = "200ms"', "stall"),
        ('first_event = "200ms"\nheartbeat = "500ms"', "head-stall"),
        ('total = "200ms"', "stall"),
    ],
)
def test_provider_that_does_not_begin_is_a_504(
    make_relay: Callable[..., Relay], counted: Provider, dialect: str, timeouts: str, lie: str
) -> None:
    with _client(make_relay(timeouts=timeouts)) as client:
        said, caught = _heard(ASKED[dialect](client, f"lie={lie}"), openai.InternalServerError)
    assert (said, caught.status_code, caught.code) == ([], 504, "upstream_timeout")
    counted.wait(aborted=1)


@pytest.mark.parametrize("dialect", STREAMS)
def test_provider_that_falls_silent_raises(make_relay: Callable[..., Relay], counted: Provider, dialect: str) -> None:
    with _client(make_relay(timeouts='idle = "200ms"\nheartbeat = "500ms"')) as client:
        said, _ = _heard(STREAMS[dialect](client, "lie=mid-stall; interval=0"), openai.APIError)
    assert "".join(said)
    counted.wait(aborted=1)


@pytest.mark.parametrize(("limit", "lie"), [("first_event", "head-stall"), ("idle", "mid-stall")])
def test_short_limit_of_silence_is_kept_where_no_heartbeat_looks_after_it(
    make_relay: Callable[..., Relay], limit: str, lie: str
) -> None:
    """The client waits fifteen times as long: it is the relay that must end this, not the client."""
    with _client(make_relay(timeouts=f'{limit} = "200ms"\nheartbeat = 0'), timeout=3) as client:
        _, caught = _heard(_chat(client, f"lie={lie}; interval=0"), openai.APIError)
    assert not isinstance(caught, openai.APITimeoutError)


@pytest.mark.parametrize("lie", ["stall", "head-stall", "mid-stall"])
def test_client_that_waits_no_longer_aborts_the_generation(relay: Relay, counted: Provider, lie: str) -> None:
    with _client(relay, timeout=0.3) as client:
        _heard(_chat(client, f"lie={lie}; interval=0"), openai.APITimeoutError)
        counted.wait(aborted=1)
