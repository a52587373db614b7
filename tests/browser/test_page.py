"""The relay's own page, in Chromium: what a person does with it, and what is then to be read."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Opening
from tests.browser.cutter import Cutter
from tests.browser.tabs import Tabs
from tests.browser.telling import told
from tests.conftest import RelayMaker
from tests.peers.secured import SecuredRelay, make_pair
from tests.programs import Provider, Relay

_DIALECTS = ("chat", "responses", "messages")
_TABS = 20
_MARKUP = '<b id="bold">bold</b><script>document.title = "taken"</script>&amp;'


@pytest.fixture(scope="module")
def slow() -> Iterator[Provider]:
    """A provider whose answers can be seen coming: the page cannot ask for that itself."""
    program = Provider("--set", "events=60", "--set", "interval=20ms")
    yield program
    assert program.stop() == 0


@pytest.fixture(scope="module")
def endless() -> Iterator[Provider]:
    program = Provider("--set", "events=100000", "--set", "interval=10ms")
    yield program
    program.stop()


@pytest.mark.parametrize("transport", ["fetch", "eventsource"])
@pytest.mark.parametrize("dialect", _DIALECTS)
def test_cut_in_the_middle_and_resumed_it_is_the_providers_text(
    open_tab: Opening, make_relay: RelayMaker, slow: Provider, dialect: str, transport: str
) -> None:
    text = told(slow)
    slow.reset()
    page = open_tab(f"{make_relay(upstream=slow.url).url}/")
    page.choose("dialect", dialect)
    page.choose("transport", transport)
    page.click("send")
    page.until('$("seq").textContent >= 10')
    page.click("cut")
    assert page.text("state") == "dropped"
    # All else comes while nobody reads.
    slow.wait(finished=1)
    cut = page.text("output")
    assert text.startswith(cut)
    assert len(cut) < len(text)
    page.click("resume")
    page.until_state("done")
    assert page.text("output") == text
    assert page.text("resumes") == "1"
    assert page.text("error") == ""
    assert slow.stats()["opened"] == 1


@pytest.mark.parametrize("transport", ["fetch", "eventsource"])
def test_connections_that_break_by_themselves_are_made_again(
    open_tab: Opening, make_relay: RelayMaker, slow: Provider, transport: str
) -> None:
    text = told(slow)
    with Cutter(make_relay(upstream=slow.url).address, [3000, 4000]) as cutter:
        page = open_tab(f"{cutter.url}/")
        page.choose("transport", transport)
        page.click("send")
        page.until_state("done")
        assert cutter.made == 2
    assert page.text("output") == text
    assert page.text("resumes") == "2"


def test_without_a_network_it_waits_for_one(
    tabs: Tabs, open_tab: Opening, make_relay: RelayMaker, slow: Provider
) -> None:
    text = told(slow)
    slow.reset()
    page = open_tab(f"{make_relay(upstream=slow.url).url}/")
    page.turn()
    tabs.call("Network.enable")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.click("send")
    page.until('$("seq").textContent >= 3')
    page.click("cut")
    tabs.call("Network.emulateNetworkConditions", offline=True, **network)
    page.click("resume")
    slow.wait(finished=1)
    assert (page.text("state"), page.text("detail")) == ("dropped", "")
    tabs.call("Network.emulateNetworkConditions", offline=False, **network)
    page.until_state("done")
    assert page.text("output") == text


@pytest.mark.parametrize("transport", ["fetch", "eventsource"])
def test_cancel_frees_the_provider(
    open_tab: Opening, make_relay: RelayMaker, endless: Provider, transport: str
) -> None:
    endless.reset()
    page = open_tab(f"{make_relay(upstream=endless.url).url}/")
    page.choose("transport", transport)
    page.click("send")
    page.until('$("output").textContent.length > 20')
    page.click("cancel")
    page.until_state("cancelled")
    assert endless.wait(aborted=1, connections_open=0)["finished"] == 0
    assert page.text("error") == ""


def test_twenty_tabs_read_one_stream(tabs: Tabs, open_tab: Opening, slow: Provider, tmp_path: Path) -> None:
    """Over HTTP/2: a browser has six connections of HTTP/1.1 to an origin."""
    text = told(slow)
    slow.reset()
    relay = SecuredRelay(tmp_path / "relay.toml", slow.url, make_pair(tmp_path))
    try:
        first, *others = [open_tab(f"{relay.secure_url}/") for _ in range(_TABS)]
        first.click("send")
        first.until('$("stream-id").textContent')
        name = first.text("stream-id")
        for tab in others:
            tab.evaluate(f"location.hash = {json.dumps(name)}")
        for tab in (first, *others):
            tab.until_state("done")
        assert [tab.text("output") for tab in (first, *others)] == [text] * _TABS
        assert {tab.text("stream-id") for tab in (first, *others)} == {name}
        # Late, after its end.
        late = open_tab(f"{relay.secure_url}/#{name}")
        late.until_state("done")
        assert late.text("output") == text
        assert slow.stats()["opened"] == 1
    finally:
        relay.stop()


def test_broken_provider_is_shown_as_an_error(open_tab: Opening, make_relay: RelayMaker) -> None:
    provider = Provider("--set", "lie=cut", "--set", "at=5", "--set", "interval=0")
    try:
        page = open_tab(f"{make_relay(upstream=provider.url).url}/")
        page.click("send")
        page.until_state("failed")
        page.until('$("error").textContent')
        assert "upstream_cut" in page.text("error")
        assert page.text("output")
    finally:
        provider.stop()


def test_unknown_stream_is_an_error(open_tab: Opening, relay: Relay) -> None:
    page = open_tab(f"{relay.url}/")
    page.choose("open-id", "A" * 22)
    page.click("open")
    page.until('$("error").textContent')
    assert "404" in page.text("error")
    assert page.text("state") == "failed"


class _Marking(http.server.BaseHTTPRequestHandler):
    """A model that speaks in markup."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": _MARKUP}}]})
        content = f"data: {chunk}\n\ndata: [DONE]\n\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


def test_markup_of_a_model_stays_text(open_tab: Opening, make_relay: RelayMaker) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Marking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = open_tab(f"{make_relay(upstream=f'http://127.0.0.1:{server.server_address[1]}').url}/")
        page.click("send")
        page.until_state("done")
        server.shutdown()
    assert page.text("output") == _MARKUP
    assert page.evaluate("document.getElementById('output').children.length") == 0
    assert page.evaluate("document.title") == "relay"


def test_keyboard_is_enough(open_tab: Opening, make_relay: RelayMaker, slow: Provider) -> None:
    """The focus goes where the next thing can be done, since a button that is disabled has none."""
    page = open_tab(f"{make_relay(upstream=slow.url).url}/")
    page.evaluate('document.getElementById("prompt").focus()')
    page.press("Enter", 13, control=True)
    page.until('$("seq").textContent >= 3')
    page.evaluate('document.getElementById("cut").focus()')
    page.press(" ", 32)
    page.until_state("dropped")
    assert page.evaluate("document.activeElement.id") == "resume"
    page.press(" ", 32)
    page.until_state("done")
    assert page.text("output") == told(slow)


def test_every_field_has_its_label(open_tab: Opening, relay: Relay) -> None:
    page = open_tab(f"{relay.url}/")
    fields = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].map((one) => [one.id, one.labels.length])"
    )
    assert len(fields) >= 5
    assert [name for name, labels in fields if labels != 1] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(tabs: Tabs, open_tab: Opening, relay: Relay, scheme: str) -> None:
    page = open_tab(f"{relay.url}/")
    page.turn()
    tabs.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True)
    tabs.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    style = "getComputedStyle(document.body)"
    ground, ink = (page.evaluate(f"{style}.{name}.match(/\\d+/g).map(Number)") for name in ("backgroundColor", "color"))
    assert (sum(ground[:3]) < sum(ink[:3])) == (scheme == "dark")
