"""httpx-sse on streams that can be resumed, with the loop around it that its documentation has for reconnecting."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from httpx_sse import ServerSentEvent, SSEError, connect_sse

from tests.browser.cutter import Cutter
from tests.clients.resumable import ASK, BREAKS, ENDLESS, LIVE, SLOW, Tap, assert_broken, broken, cancel, said
from tests.programs import PATIENCE, Provider, Relay, chat

CHAT = "/v1/chat/completions"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE, trust_env=False) as made:
        yield made


def _read(client: httpx.Client, url: str, simulate: str) -> Iterator[ServerSentEvent]:
    with connect_sse(client, "POST", url + CHAT, json=chat(), headers={**ASK, "Simulate": simulate}) as source:
        yield from source.iter_sse()


def _read_retrying(client: httpx.Client, method: str, url: str, headers: dict[str, str]) -> Iterator[ServerSentEvent]:
    """As documented; but a body in chunks that ends with its connection is a RemoteProtocolError, not a ReadError."""
    last_event_id = ""
    while True:
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        body = chat() if method == "POST" else None
        try:
            with connect_sse(client, method, url, json=body, headers=headers) as source:
                for event in source.iter_sse():
                    last_event_id = event.id
                    yield event
            return
        except (httpx.ReadError, httpx.RemoteProtocolError):
            continue


def _text(events: list[ServerSentEvent]) -> str:
    chunks = [event.json() for event in events if event.data != "[DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if "choices" in chunk)


def _numbers(events: list[ServerSentEvent]) -> list[int]:
    return [int(event.id.rpartition("-")[2]) for event in events]


def test_stream_with_ids_and_heartbeats_is_read_to_its_end(
    beating: Relay, provider: Provider, client: httpx.Client
) -> None:
    with Tap(beating.address) as tap:
        events = list(_read(client, tap.url, SLOW))
        tap.assert_heartbeats()
    assert _text(events) == said(provider, SLOW)
    assert _numbers(events) == list(range(1, len(events) + 1))
    assert events[-1].data == "[DONE]"


@pytest.mark.parametrize("how", BREAKS)
def test_stream_that_breaks_off_raises(strict: Relay, provider: Provider, client: httpx.Client, how: str) -> None:
    events: list[ServerSentEvent] = []
    with pytest.raises(httpx.TransportError):
        events.extend(_read(client, strict.url, broken(how)))
    assert_broken(_text(events), said(provider, broken("none")))
    assert events[-1].json()["error"]["code"] in ("upstream_cut", "upstream_timeout")
    # The error is no event of the stream: it has no id, and the last one stays.
    assert _numbers(events) == [*range(1, len(events)), len(events) - 1]


def test_stream_that_another_cancels_raises(beating: Relay, counted: Provider, client: httpx.Client) -> None:
    events = _read(client, beating.url, ENDLESS)
    stream_id = next(events).id.rpartition("-")[0]
    assert cancel(beating, stream_id) == "cancelled"
    rest: list[ServerSentEvent] = []
    with pytest.raises(httpx.TransportError):
        # Keeps what came before the error.
        rest.extend(events)
    assert rest[-1].json()["error"]["code"] == "cancelled"
    assert counted.wait(aborted=1)["finished"] == 0


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("first", [0, 900, 1001])
def test_reconnecting_reader_gets_every_event_once(
    beating: Relay, counted: Provider, client: httpx.Client, method: str, first: int
) -> None:
    """By repeating the request, or at the stream's own place; cut inside the head, between and inside events."""
    headers = {**ASK, "Simulate": LIVE, "Idempotency-Key": f"httpx-sse-{method}-{first}"}
    with Cutter(beating.address, (first, *range(1500, 3000, 211))) as cutter:
        url = cutter.url + CHAT
        if method == "GET":
            accepted = client.post(url, json=chat(), headers={**headers, "Prefer": "respond-async"})
            assert accepted.status_code == 202
            url = cutter.url + accepted.headers["location"]
            headers = {}
        events = list(_read_retrying(client, method, url, headers))
        assert cutter.made == 9
    assert _numbers(events) == list(range(1, 64))
    assert events[-1].data == "[DONE]"
    assert counted.stats()["requests"] == 1
    assert _text(events) == said(counted, LIVE)


def test_finished_stream_has_nothing_more_and_says_so(beating: Relay, client: httpx.Client) -> None:
    """204, without a type: this client takes that for an error."""
    events = list(_read(client, beating.url, "seed=5; events=3; interval=0"))
    place = f"{beating.url}/v1/streams/{events[0].id.rpartition('-')[0]}"
    with connect_sse(client, "GET", place, headers={"Last-Event-ID": events[-1].id}) as source:
        assert source.response.status_code == 204
        with pytest.raises(SSEError, match="Content-Type"):
            list(source.iter_sse())


def test_failed_stream_is_not_taken_for_a_whole_one_when_resumed(beating: Relay, client: httpx.Client) -> None:
    """What there is of it, then the error; at its end the error as a status, which ends the loop."""
    headers = {**ASK, "Simulate": broken("cut")}
    with pytest.raises(SSEError, match="Content-Type"):
        list(_read_retrying(client, "POST", beating.url + CHAT, headers))
    assert headers["Last-Event-ID"].endswith("-5")
    place = f"{beating.url}/v1/streams/{headers['Last-Event-ID'].rpartition('-')[0]}"
    answer = client.get(place, headers={"Last-Event-ID": headers["Last-Event-ID"]})
    assert answer.status_code == 410
    assert json.loads(answer.content)["error"]["code"] == "upstream_cut"
