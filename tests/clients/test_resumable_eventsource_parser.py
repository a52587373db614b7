"""eventsource-parser over fetch (resumable.mjs), which AI SDK and others are built on: it resumes by Last-Event-ID."""

from __future__ import annotations

import pytest

from tests.browser.cutter import Cutter
from tests.clients.conftest import Ask
from tests.clients.resumable import ASK, BREAKS, ENDLESS, LIVE, SLOW, Tap, assert_broken, broken, said
from tests.programs import Provider, Relay


def test_stream_with_ids_and_heartbeats_is_read_to_its_end(ask: Ask, beating: Relay, provider: Provider) -> None:
    with Tap(beating.address) as tap:
        heard = ask("parser", tap.url, SLOW, headers=ASK)
        tap.assert_heartbeats()
    assert "error" not in heard, heard
    assert heard["text"] == said(provider, SLOW)
    assert heard["numbers"] == list(range(1, 8))
    # It tells comments apart.
    assert heard["comments"] > 4


@pytest.mark.parametrize("how", BREAKS)
def test_stream_that_breaks_off_throws(ask: Ask, strict: Relay, provider: Provider, how: str) -> None:
    heard = ask("parser", strict.url, broken(how), headers=ASK)
    assert heard["error"]["name"] == "TypeError"
    assert heard["told"]["code"] in ("upstream_cut", "upstream_timeout")
    assert heard["numbers"] == [1, 2, 3, 4, 5]
    assert_broken(heard["text"], said(provider, broken("none")))


@pytest.mark.parametrize("first", [800, 1001])
def test_cut_reader_goes_on_where_it_was(ask: Ask, beating: Relay, counted: Provider, first: int) -> None:
    """Between events and inside them."""
    with Cutter(beating.address, (first, *range(1500, 3000, 211))) as cutter:
        heard = ask("parser", cutter.url, LIVE, headers=ASK, again=True)
        assert cutter.made == 9
    assert "error" not in heard, heard
    assert heard["dropped"] == 9
    assert heard["numbers"] == list(range(1, 64))
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, LIVE)


def test_cut_behind_the_last_event_leaves_nothing_to_read(ask: Ask, beating: Relay, counted: Provider) -> None:
    """It has all, but not the end of the body: the next answer tells it that there is no more."""
    with Tap(beating.address, [(63, 0)]) as tap:
        heard = ask("parser", tap.url, LIVE, headers=ASK, again=True)
        assert tap.made == 1
    assert "error" not in heard, heard
    assert heard["statuses"] == [200, 204]
    assert heard["numbers"] == list(range(1, 64))
    assert counted.stats()["requests"] == 1


def test_failed_stream_is_not_whole_when_resumed(ask: Ask, beating: Relay) -> None:
    heard = ask("parser", beating.url, broken("cut"), headers=ASK, again=True)
    assert heard["statuses"] == [200, 410]
    assert "upstream_cut" in heard["error"]["message"]


def test_stream_that_another_cancels_is_gone_when_resumed(ask: Ask, beating: Relay, counted: Provider) -> None:
    heard = ask("parser", beating.url, ENDLESS, headers=ASK, at=3, cancel=True, again=True)
    assert heard["told"]["code"] == "cancelled"
    assert heard["statuses"] == [200, 410]
    assert heard["error"]
    assert counted.wait(aborted=1)["finished"] == 0
