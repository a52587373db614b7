"""@microsoft/fetch-event-source in Chromium, with the handlers that its documentation has.

It connects again by repeating its request, a POST, with the id that it has seen last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.cutter import Cutter
from tests.browser.tabs import Tab
from tests.clients.conftest import HERE, TabMaker
from tests.clients.resumable import ASK, BREAKS, ENDLESS, LIVE, SLOW, Tap, assert_broken, broken, said
from tests.programs import Provider, Relay

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
# Its modules, as npm has installed them, and what they ask each other for.
_LIBRARY = """
const modules = {};
const load = (name) => {
  if (!(name in modules)) sources[name]((modules[name] = {}), load);
  return modules[name];
};
window.library = load("./index");
"""
_HEAR = """(async (path, simulate, told, cancelAt, forgiving) => {
  const heard = { text: "", numbers: [], statuses: [], dropped: 0, told: [], repeated: 0 };
  class Fatal extends Error {}
  const body = JSON.stringify({ model: "sim-1", stream: true, messages: [], input: "hello", max_tokens: 64 });
  let done = false;
  let stream = "";
  try {
    await library.fetchEventSource(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Simulate: simulate, ...told },
      body,
      async onopen(response) {
        heard.statuses.push(response.status);
        stream = response.headers.get("relay-stream-id") ?? stream;
        const type = response.headers.get("content-type") ?? "";
        if (response.ok && type.startsWith(library.EventStreamContentType)) return;
        if (response.status === 204) throw new Fatal("there is no more");
        if (!forgiving || (response.status >= 400 && response.status < 500 && response.status !== 429)) {
          throw new Fatal(`status ${response.status}`);
        }
        throw new Error("try again");
      },
      onmessage({ id, event, data }) {
        if (id) heard.numbers.push(Number(id.slice(id.lastIndexOf("-") + 1)));
        if (["[DONE]"].includes(data) || ["message_stop", "response.completed"].includes(event)) done = true;
        const said = data === "[DONE]" ? {} : JSON.parse(data);
        const delta = event.endsWith("delta") ? said.delta.text ?? said.delta : "";
        heard.text += said.choices?.[0]?.delta.content ?? (typeof delta === "string" ? delta : "");
        if (said.error) heard.told.push(said.error);
        if (heard.numbers.length === cancelAt) fetch(`/v1/streams/${stream}`, { method: "DELETE" });
      },
      onclose() {
        if (!done) throw new Error("closed without an end");
      },
      onerror(error) {
        heard.dropped += 1;
        if (error instanceof Fatal) throw error;
        return 1;
      },
    });
    heard.whole = done;
  } catch (error) {
    heard.error = error.message;
  }
  return heard;
})"""


@pytest.fixture(scope="module")
def library(node: str) -> str:
    """A script that puts the library into a page; Node is asked for so that it is installed."""
    assert node
    package = HERE / "node_modules" / "@microsoft" / "fetch-event-source" / "lib" / "cjs"
    sources = ", ".join(_module(package / f"{name}.js") for name in ("index", "fetch", "parse"))
    return f"(() => {{ const sources = {{ {sources} }}; {_LIBRARY} }})()"


def _module(file: Path) -> str:
    return f'"./{file.stem}": (exports, require) => {{ {file.read_text()}\n}}'


@pytest.fixture
def open_page(open_tab: TabMaker, library: str) -> TabMaker:
    """A tab with the library in it."""

    def open_one(url: str) -> Tab:
        tab = open_tab(f"{url}/")
        tab.evaluate(library)
        return tab

    return open_one


def _hear(
    tab: Tab,
    simulate: str,
    dialect: str = "chat",
    headers: dict[str, str] = ASK,
    cancel_at: int = 0,
    forgiving: bool = False,
) -> Any:
    told = (PATHS[dialect], simulate, headers, cancel_at, forgiving)
    return tab.evaluate(f"{_HEAR}({', '.join(map(json.dumps, told))})")


@pytest.mark.parametrize("dialect", PATHS)
def test_stream_with_ids_and_heartbeats_is_read_to_its_end(
    open_page: TabMaker, beating: Relay, counted: Provider, dialect: str
) -> None:
    with Tap(beating.address) as tap:
        heard = _hear(open_page(tap.url), SLOW, dialect)
        tap.assert_heartbeats()
    assert heard["whole"], heard
    assert heard["numbers"] == list(range(1, len(heard["numbers"]) + 1))
    assert (heard["statuses"], heard["dropped"]) == ([200], 0)
    assert heard["text"] == said(counted, SLOW)


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("inside", [0, 30, 60, 120])
def test_cut_reader_goes_on_where_it_was(
    open_page: TabMaker, beating: Relay, counted: Provider, dialect: str, inside: int
) -> None:
    """Between events, inside one's first bytes, and inside its data; by a FIN and by a RST.

    Not between an event's id and its empty line, where this client takes for seen what it has not handed out.
    """
    headers = {**ASK, "Idempotency-Key": f"fetch-event-source {dialect} {inside}"}
    cuts = [(events, inside) for events in (2, 1, 7, 12, 3, 9)]
    with Tap(beating.address, cuts) as tap:
        heard = _hear(open_page(tap.url), LIVE, dialect, headers)
        assert tap.made == 6, heard
    assert heard.get("whole"), heard
    assert heard["numbers"] == list(range(1, heard["numbers"][-1] + 1))
    assert (heard["statuses"], heard["dropped"]) == ([200] * 7, 6)
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, LIVE)


def test_id_alone_is_enough_to_go_on(open_page: TabMaker, beating: Relay, counted: Provider) -> None:
    """For a reader that has one. What it has not read yet when the connection breaks is thrown away by the browser:
    one that is cut too early has none, and asks for a new generation, unless it sends a key."""
    with Tap(beating.address, [(30, 40), (9, 40)]) as tap:
        heard = _hear(open_page(tap.url), "seed=5; events=60; interval=10ms")
        assert tap.made == 2, heard
    assert heard.get("whole"), heard
    assert heard["numbers"] == list(range(1, 64))
    assert heard["statuses"] == [200] * 3
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, LIVE)


def test_reader_cut_before_its_first_id_goes_on_by_its_key(
    open_page: TabMaker, beating: Relay, counted: Provider
) -> None:
    """Nor before the head's end, which Chromium takes for a head when it comes with a FIN."""
    headers = {**ASK, "Idempotency-Key": "fetch-event-source early"}
    with Cutter(beating.address, (0, 40, 700)) as cutter:
        heard = _hear(open_page(cutter.url), LIVE, headers=headers, forgiving=True)
        assert cutter.made == 3, heard
    assert heard.get("whole"), heard
    assert heard["numbers"] == list(range(1, 64))
    assert counted.stats()["requests"] == 1
    assert heard["text"] == said(counted, LIVE)


@pytest.mark.parametrize(("dialect", "how"), [*(("chat", how) for how in BREAKS), ("messages", "cut")])
def test_stream_that_breaks_off_is_an_error(
    open_page: TabMaker, strict: Relay, provider: Provider, dialect: str, how: str
) -> None:
    """It asks for the rest, and hears that there is none."""
    heard = _hear(open_page(strict.url), broken(how), dialect)
    assert "whole" not in heard
    assert heard["statuses"][0] == 200
    assert heard["error"] == "status 410"
    assert len(heard["told"]) == 1
    assert_broken(heard["text"], said(provider, broken("none")))


def test_stream_that_is_cancelled_is_an_error(open_page: TabMaker, beating: Relay, counted: Provider) -> None:
    heard = _hear(open_page(beating.url), ENDLESS, cancel_at=4)
    assert [error["code"] for error in heard["told"]] == ["cancelled"]
    assert (heard["statuses"], heard["error"]) == ([200, 410], "status 410")
    assert counted.wait(aborted=1)["finished"] == 0
