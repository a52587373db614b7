"""The official Node clients, OpenAI's and Anthropic's, on streams that can be resumed (resumable.mjs)."""

from __future__ import annotations

import pytest

from tests.browser.cutter import Cutter
from tests.clients.conftest import Ask
from tests.clients.resumable import ASK, BREAKS, ENDLESS, LIVE, OWN, SLOW, Heard, Tap, assert_broken, broken, said
from tests.programs import Provider, Relay

STREAMS = ("openai chat", "openai completions", "openai responses", "anthropic messages")


def _assert_is_a_breach(heard: Heard) -> None:
    """A failure of the stream, not of the client's parser over the pieces of one."""
    assert heard.get("error"), heard
    assert heard["error"]["name"] != "SyntaxError", heard
    assert heard.get("last") not in ("response.completed", "message_stop")


@pytest.mark.parametrize("scenario", STREAMS)
def test_stream_with_ids_and_heartbeats_is_read_to_its_end(
    ask: Ask, beating: Relay, provider: Provider, scenario: str
) -> None:
    with Tap(beating.address) as tap:
        heard = ask(scenario, tap.url, SLOW, headers=ASK)
        tap.assert_heartbeats()
    assert "error" not in heard, heard
    assert heard["text"] == said(provider, SLOW)


@pytest.mark.parametrize("scenario", STREAMS)
@pytest.mark.parametrize("how", BREAKS)
def test_stream_that_breaks_off_throws(ask: Ask, strict: Relay, provider: Provider, scenario: str, how: str) -> None:
    heard = ask(scenario, strict.url, broken(how), headers=ASK)
    _assert_is_a_breach(heard)
    assert_broken(heard["text"], said(provider, broken("none")))


@pytest.mark.parametrize("scenario", STREAMS)
def test_cut_on_the_way_throws(ask: Ask, beating: Relay, counted: Provider, scenario: str) -> None:
    """Of the connection between the relay and the client; the second is a mere FIN."""
    with Cutter(beating.address, (2501, 2501)) as cutter:
        heard = [ask(scenario, cutter.url, LIVE, headers=ASK) for _ in range(2)]
        assert cutter.made == 2
    counted.wait(finished=2)
    whole = said(counted, LIVE)
    for one in heard:
        _assert_is_a_breach(one)
        assert whole.startswith(one["text"])


@pytest.mark.parametrize("scenario", STREAMS)
def test_stream_that_another_cancels_throws(ask: Ask, beating: Relay, counted: Provider, scenario: str) -> None:
    heard = ask(scenario, beating.url, ENDLESS, headers=ASK, at=3, cancel=True)
    _assert_is_a_breach(heard)
    assert counted.wait(aborted=1)["finished"] == 0


# OpenAI's own way to resume and to cancel, on a route whose streams can always be resumed


@pytest.mark.parametrize("at", [1, 7, 67])
def test_retrieve_gives_the_events_behind_a_number(ask: Ask, always: Relay, provider: Provider, at: int) -> None:
    simulate = OWN.format(300 + at)
    provider.reset()
    heard = ask("openai resume", always.url, simulate, at=at)
    assert "error" not in heard, heard
    assert heard["before"] == list(range(at))
    assert heard["numbers"] == list(range(at, 68))
    assert heard["last"] == "response.completed"
    assert provider.wait(finished=1)["requests"] == 1
    assert heard["text"] == said(provider, simulate)


def test_retrieve_at_the_end_gives_nothing_more(ask: Ask, always: Relay) -> None:
    """An empty stream. A 204, which has no body, is an error to this client."""
    heard = ask("openai end", always.url, "seed=401; events=5; interval=0")
    assert "error" not in heard, heard
    assert (heard["status"], heard["last"]) == (200, "response.completed")
    assert heard["before"] == list(range(13))
    assert heard["numbers"] == []


def test_cancel_ends_the_generation_and_its_reader_is_told(ask: Ask, always: Relay, counted: Provider) -> None:
    heard = ask("openai cancel", always.url, f"{ENDLESS}; seed=402", at=9)
    assert heard["status"] == "cancelled"
    assert heard["last"] == "response.failed"
    _assert_is_a_breach(heard)
    assert heard["numbers"] == list(range(heard["events"]))
    assert counted.wait(aborted=1)["finished"] == 0


# One generation, however often it is asked for


@pytest.mark.parametrize("scenario", ["openai chat", "openai responses", "anthropic messages"])
def test_clients_own_retry_with_a_key_is_the_same_stream(
    ask: Ask, beating: Relay, counted: Provider, scenario: str
) -> None:
    """Its connection breaks before the answer's head is there, twice; it tries three times by itself."""
    headers = {**ASK, "Idempotency-Key": f"node {scenario}"}
    with Cutter(beating.address, (0, 40)) as cutter:
        heard = ask(scenario, cutter.url, LIVE, headers=headers, retries=2)
        assert cutter.made == 2
    assert "error" not in heard, heard
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, LIVE)


def test_same_key_gives_the_same_stream_and_no_other(ask: Ask, beating: Relay, counted: Provider) -> None:
    headers = {**ASK, "Idempotency-Key": "node twice"}
    first, second = (ask("openai responses", beating.url, LIVE, headers=headers) for _ in range(2))
    assert first == second
    assert first["last"] == "response.completed"
    error = ask("openai responses", beating.url, LIVE, headers=headers, model="sim-2")["error"]
    assert (error["status"], error["code"]) == (422, "idempotency_key_reused")
    assert counted.stats()["requests"] == 1
