"""The AI SDK (`ai` with `@ai-sdk/openai-compatible`, resumable.mjs) on streams that can be resumed. It resumes none."""

from __future__ import annotations

import pytest

from tests.browser.cutter import Cutter
from tests.clients.conftest import Ask
from tests.clients.resumable import ASK, BREAKS, ENDLESS, LIVE, SLOW, Heard, Tap, assert_broken, broken, said
from tests.programs import Provider, Relay


def _assert_is_a_breach(heard: Heard) -> None:
    assert heard.get("error"), heard
    assert "finish" not in heard
    assert "text-end" not in heard["parts"]
    assert "whole" not in heard


def test_stream_with_ids_and_heartbeats_is_read_to_its_end(ask: Ask, beating: Relay, provider: Provider) -> None:
    with Tap(beating.address) as tap:
        heard = ask("ai chat", tap.url, SLOW, headers=ASK)
        tap.assert_heartbeats()
    assert "error" not in heard, heard
    assert heard["finish"] == "stop"
    assert heard["text"] == heard["whole"] == said(provider, SLOW)
    assert heard["parts"]["text-delta"] == 4


@pytest.mark.parametrize("how", BREAKS)
def test_stream_that_breaks_off_is_an_error(ask: Ask, strict: Relay, provider: Provider, how: str) -> None:
    """Twice: a part with the relay's words, and behind it the stream's own end."""
    heard = ask("ai chat", strict.url, broken(how), headers=ASK)
    _assert_is_a_breach(heard)
    assert heard["told"]["code"] in ("upstream_cut", "upstream_timeout")
    assert_broken(heard["text"], said(provider, broken("none")))


def test_cut_on_the_way_is_an_error(ask: Ask, beating: Relay, counted: Provider) -> None:
    """Of the connection between the relay and the client; the second is a mere FIN."""
    with Cutter(beating.address, (2501, 2501)) as cutter:
        heard = [ask("ai chat", cutter.url, LIVE, headers=ASK) for _ in range(2)]
        assert cutter.made == 2
    counted.wait(finished=2)
    whole = said(counted, LIVE)
    for one in heard:
        _assert_is_a_breach(one)
        assert whole.startswith(one["text"])


def test_stream_that_another_cancels_is_an_error(ask: Ask, beating: Relay, counted: Provider) -> None:
    heard = ask("ai chat", beating.url, ENDLESS, headers=ASK, at=3, cancel=True)
    _assert_is_a_breach(heard)
    assert counted.wait(aborted=1)["finished"] == 0


def test_its_own_retry_with_a_key_is_the_same_stream(ask: Ask, beating: Relay, counted: Provider) -> None:
    """Its connection breaks before the answer's head is there; it waits two seconds and tries again by itself."""
    headers = {**ASK, "Idempotency-Key": "ai-sdk"}
    with Cutter(beating.address, (40,)) as cutter:
        heard = ask("ai chat", cutter.url, LIVE, headers=headers, retries=2)
        assert cutter.made == 1
    assert "error" not in heard, heard
    assert counted.stats()["requests"] == 1
    assert heard["whole"] == said(counted, LIVE)
