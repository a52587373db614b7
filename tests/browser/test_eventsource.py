"""relay.js over Chromium's own EventSource, which reads more than it is asked to, connects again by itself and knows
no end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.conftest import Opening
from tests.browser.tabs import Tab
from tests.browser.telling import PATHS, told
from tests.conftest import RelayMaker
from tests.programs import Provider, Relay

# Resolves with what a reader heard. `step(event, stream, page)` is waited for behind each event.
_HEAR = """(async (path, simulate, step) => {
  const { start, read } = await import("/relay.js");
  const heard = { text: "", numbers: [], unnumbered: [], changes: [] };
  const body = { model: "sim-1", stream: true, messages: [], input: "hello", prompt: "hello", max_tokens: 100 };
  try {
    const stream = await start(path, {
      body,
      transport: "eventsource",
      headers: { Simulate: simulate },
      onChange: ({ type }) => heard.changes.push(type),
    });
    for await (const event of stream) {
      if (event.seq === null) heard.unnumbered.push(event);
      else heard.numbers.push(event.seq);
      const said = event.data.startsWith("{") ? JSON.parse(event.data) : {};
      const choice = said.choices?.find(({ index }) => index === 0);
      const delta = said.type === "response.output_text.delta" ? said.delta : said.delta?.text;
      heard.text += choice?.delta?.content ?? choice?.text ?? delta ?? "";
      await step(event, stream, read);
    }
    heard.whole = true;
  } catch ({ status, code, message }) {
    heard.error = { status, code, message };
  }
  return heard;
})"""


def _hearing(path: str, simulate: str, step: str = "() => {}") -> str:
    return f"{_HEAR}({json.dumps(path)}, {json.dumps(simulate)}, {step})"


def _hear(tab: Tab, path: str, simulate: str, step: str = "() => {}") -> Any:
    return tab.evaluate(_hearing(path, simulate, step))


@pytest.fixture
def tab(open_tab: Opening, relay: Relay) -> Tab:
    return open_tab(f"{relay.url}/")


@pytest.mark.parametrize("dialect", PATHS)
def test_every_dialect_comes_whole(tab: Tab, counted: Provider, dialect: str) -> None:
    """Its named events, too."""
    plain = "seed=5; events=60; interval=1ms"
    simulate = plain if dialect == "completions" else f"{plain}; reasoning=1; tools=1"
    heard = _hear(tab, PATHS[dialect], simulate)
    assert "error" not in heard, heard["error"]
    assert heard["whole"]
    assert heard["text"] == told(counted, simulate)
    assert heard["numbers"] == list(range(1, len(heard["numbers"]) + 1))
    assert counted.stats()["opened"] == 2
    assert heard["changes"] == ["connecting", "open", "done"]


@pytest.mark.parametrize("dialect", ["chat", "messages"])
def test_broken_provider_is_an_error(tab: Tab, counted: Provider, dialect: str) -> None:
    """Anthropic's error is an event of the name that EventSource has for the connection's errors."""
    heard = _hear(tab, PATHS[dialect], "events=50; interval=0; lie=cut; at=9")
    assert "whole" not in heard
    assert (heard["error"]["status"], heard["error"]["code"]) == (410, "upstream_cut")
    assert [event["event"] for event in heard["unnumbered"]] == ["error" if dialect == "messages" else "message"]
    assert told(counted, "events=50").startswith(heard["text"])
    assert heard["changes"][-1] == "failed"


def test_error_status_of_the_provider_is_the_error(tab: Tab) -> None:
    """Which an EventSource does not tell."""
    heard = _hear(tab, PATHS["chat"], "status=401")
    assert heard["error"]["status"] == 401
    assert "simulated 401" in heard["error"]["message"]


def test_whoever_reads_a_stream_that_another_cancels_is_told(tab: Tab, counted: Provider) -> None:
    step = "async ({ seq }, { id }, read) => seq === 4 && (await (await read(id)).cancel())"
    heard = _hear(tab, PATHS["chat"], "events=100000; interval=5ms", step)
    assert counted.wait(aborted=1)["finished"] == 0
    assert heard["error"]["code"] == heard["changes"][-1] == "cancelled"
    assert "whole" not in heard


def test_reader_that_is_slower_than_the_stream_loses_nothing(
    open_tab: Opening, make_relay: RelayMaker, counted: Provider
) -> None:
    """So many events ahead of it the EventSource is closed, and opened again where it was."""
    relay = make_relay()
    tab = open_tab(f"{relay.url}/")
    # Events of two choices in turn, which are never merged.
    simulate = "n=2; events=15000; interval=0; size=20"
    tab.evaluate("void (window.waiting = new Promise((resolve) => (window.go = resolve)))")
    step = "({ seq }, { id }) => seq === 2 && ((document.title = id), waiting)"
    tab.evaluate(f"void (window.heard = {_hearing(PATHS['chat'], simulate, step)})")
    tab.until("document.title !== 'relay'")
    # When its first connection has ended, all that this has brought waits in the page.
    relay.access_line(method="GET", path=f"/v1/streams/{tab.evaluate('document.title')}")
    tab.evaluate("go()")
    heard = tab.evaluate("heard")
    assert "error" not in heard, heard["error"]
    count = len(heard["numbers"])
    assert count > 15000
    assert heard["numbers"] == list(range(1, count + 1))
    assert "dropped" in heard["changes"]
    assert heard["text"] == told(counted, simulate)
