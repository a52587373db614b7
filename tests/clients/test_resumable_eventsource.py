"""Chromium's own EventSource, which can send no header and reads what a request with `Prefer: respond-async` has begun.

It connects again by itself, with Last-Event-ID, also behind a clean end; only an answer other than 200 stops it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.cutter import Cutter
from tests.browser.tabs import Tab
from tests.clients.conftest import TabMaker
from tests.clients.resumable import BREAKS, ENDLESS, LIVE, SLOW, Tap, assert_broken, broken, said
from tests.programs import Provider, Relay

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
NAMES = ("message_start", "content_block_delta", "message_stop", "response.output_text.delta", "response.completed")
# Resolves when the browser has given up. `states` are those in which it told an error of the connection.
_HEAR = """(async (path, simulate, names, cancelAt) => {
  const heard = { text: "", numbers: [], states: [], opened: 0, told: [], last: "" };
  const body = JSON.stringify({ model: "sim-1", stream: true, messages: [], input: "hello", max_tokens: 64 });
  const headers = { "Content-Type": "application/json", "Prefer": "respond-async", Simulate: simulate };
  const accepted = await fetch(path, { method: "POST", headers, body });
  heard.status = accepted.status;
  heard.applied = accepted.headers.get("Preference-Applied");
  const place = accepted.headers.get("Location");
  const source = new EventSource(place);
  source.onopen = () => (heard.opened += 1);
  const hear = ({ type, data, lastEventId }) => {
    heard.numbers.push(Number(lastEventId.slice(lastEventId.lastIndexOf("-") + 1)));
    heard.last = type === "message" ? data.slice(0, 100) : type;
    const said = data === "[DONE]" ? {} : JSON.parse(data);
    heard.text += said.choices?.[0]?.delta.content ?? (type.endsWith("delta") ? said.delta.text ?? said.delta : "");
    if (said.error) heard.told.push(said.error);
    if (heard.numbers.length === cancelAt) fetch(place, { method: "DELETE" });
  };
  for (const name of ["message", ...names]) source.addEventListener(name, hear);
  await new Promise((resolve) => {
    source.onerror = ({ data }) => {
      // An event of that name, as Anthropic has it, comes the same way as an error of the connection.
      if (data !== undefined) heard.told.push(JSON.parse(data).error);
      else heard.states.push(source.readyState);
      if (source.readyState === EventSource.CLOSED) resolve();
    };
  });
  return heard;
})"""
CONNECTING, CLOSED = 0, 2


def _hear(tab: Tab, dialect: str, simulate: str, cancel_at: int = 0) -> Any:
    arguments = f"{json.dumps(PATHS[dialect])}, {json.dumps(simulate)}, {json.dumps(NAMES)}, {cancel_at}"
    return tab.evaluate(f"{_HEAR}({arguments})")


@pytest.mark.parametrize("dialect", PATHS)
def test_stream_with_ids_and_heartbeats_is_read_to_its_end(
    open_tab: TabMaker, beating: Relay, counted: Provider, dialect: str
) -> None:
    with Tap(beating.address) as tap:
        heard = _hear(open_tab(f"{tap.url}/"), dialect, SLOW)
        tap.assert_heartbeats()
    assert (heard["status"], heard["applied"]) == (202, "respond-async")
    assert heard["last"] == {"chat": "[DONE]", "responses": "response.completed", "messages": "message_stop"}[dialect]
    # It comes back, as it does, and hears that there is no more.
    assert heard["opened"] == 1
    assert heard["states"] == [CONNECTING, CLOSED]
    assert heard["told"] == []
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, SLOW)


def test_cut_reader_goes_on_where_it_was(open_tab: TabMaker, beating: Relay, counted: Provider) -> None:
    """By itself, after its three seconds; once from a RST, once from a FIN inside an event."""
    with Cutter(beating.address, (2003, 3001)) as cutter:
        heard = _hear(open_tab(f"{cutter.url}/"), "chat", LIVE)
        assert cutter.made == 2
    assert heard["numbers"] == list(range(1, 64))
    assert heard["opened"] == 3
    assert heard["states"] == [CONNECTING, CONNECTING, CONNECTING, CLOSED]
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, LIVE)


@pytest.mark.parametrize(("dialect", "how"), [*(("chat", how) for how in BREAKS), ("messages", "cut")])
def test_stream_that_breaks_off_is_an_error_and_the_end(
    open_tab: TabMaker, strict: Relay, provider: Provider, dialect: str, how: str
) -> None:
    heard = _hear(open_tab(f"{strict.url}/"), dialect, broken(how))
    assert_broken(heard["text"], said(provider, broken("none")))
    assert len(heard["told"]) == 1
    assert heard["last"] not in ("[DONE]", "message_stop")
    assert heard["states"] == [CONNECTING, CLOSED]


def test_stream_that_is_cancelled_is_an_error_and_the_end(
    open_tab: TabMaker, beating: Relay, counted: Provider
) -> None:
    heard = _hear(open_tab(f"{beating.url}/"), "chat", ENDLESS, cancel_at=4)
    assert [error["code"] for error in heard["told"]] == ["cancelled"]
    assert heard["states"] == [CONNECTING, CLOSED]
    assert counted.wait(aborted=1)["finished"] == 0


def test_request_that_fails_before_its_stream_is_the_end(open_tab: TabMaker, always: Relay) -> None:
    """The provider refuses after the 202: an EventSource is told no more than that there is nothing."""
    heard = _hear(open_tab(f"{always.url}/"), "chat", "status=429")
    assert heard["status"] == 202
    assert heard["states"] == [CLOSED]
    assert (heard["text"], heard["numbers"], heard["told"]) == ("", [], [])


def test_request_that_fails_behind_a_heartbeat_is_an_error_and_the_end(open_tab: TabMaker, beating: Relay) -> None:
    """Its stream had begun: an event says why it breaks off, and whoever comes back hears that there is nothing."""
    heard = _hear(open_tab(f"{beating.url}/"), "chat", "status=429; delay=300ms")
    assert heard["status"] == 202
    assert heard["states"] == [CONNECTING, CLOSED]
    assert heard["text"] == ""
    assert len(heard["told"]) == 1
