"""A browser: sixty event streams at once from the relay's own origin, on one connection of HTTP/2.

Over HTTP/1.1 a browser opens six connections to an origin, and the seventh stream would wait.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from tests.peers.browser import Browser
from tests.peers.conftest import SecuredMaker
from tests.peers.secured import SecuredRelay
from tests.programs import Provider

_STREAMS = 60
_EVENTS = 30

_PAGE = """<!doctype html><title>streams</title><link rel="icon" href="data:,"><p id="result"></p>
<script>
async function one(number, told) {
  const response = await fetch(`${told.path}?${number}`, { headers: { Simulate: told.simulate } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const seen = { status: response.status, events: 0 };
  for (;;) {
    const { done, value } = await reader.read().catch((error) => ({ done: true, value: (seen.error = error.name) }));
    if (done) return seen;
    if (!text) told.open(1);
    text += value;
    seen.events = text.split("event: tick\\n").length - 1;
    if (seen.events === told.events) told.open(-1);
  }
}

async function all(count, path, simulate, events) {
  let now = 0, most = 0;
  const open = (change) => { now += change; most = Math.max(most, now); };
  const seen = await Promise.all(
    Array.from({ length: count }, (_, number) => one(number, { path, simulate, events, open })));
  const entries = performance.getEntriesByType("resource").filter((entry) => entry.name.includes(path));
  const result = { seen, most, protocols: [...new Set(entries.map((entry) => entry.nextHopProtocol))] };
  document.getElementById("result").textContent = JSON.stringify(result);
}
</script>
"""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = _PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    """The url of a provider whose every answer is the page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def origin(page: str, make_secured: SecuredMaker) -> SecuredRelay:
    """The page at /page, the provider at all other paths."""
    upstream = f'[[upstream]]\nname = "page"\nurl = "{page}"\n'
    return make_secured(more=f'{upstream}[[route]]\npath = "/page"\nupstream = "page"')


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.mark.parametrize("path", ["/sse/ticker", "/two/sse/ticker"], ids=["from-http1", "from-http2"])
def test_sixty_streams_at_once_on_one_connection(
    browser: Browser, origin: SecuredRelay, counted: Provider, path: str
) -> None:
    browser.open(f"{origin.secure_url}/page")
    simulate = f"events={_EVENTS}; interval=50ms"
    browser.evaluate(f"void (window.running = all({_STREAMS}, {json.dumps(path)}, {json.dumps(simulate)}, {_EVENTS}))")
    counted.wait(opened=_STREAMS)
    # All are open at the provider, none has ended.
    assert counted.stats()["finished"] == 0
    browser.evaluate("running")
    result = json.loads(browser.evaluate('document.getElementById("result").textContent'))
    assert result["seen"] == [{"status": 200, "events": _EVENTS}] * _STREAMS
    assert result["most"] == _STREAMS
    assert result["protocols"] == ["h2"]
    assert len(browser.connections(path)) == 1
    assert counted.stats()["finished"] == _STREAMS


def test_leaving_the_page_cancels_its_streams(browser: Browser, origin: SecuredRelay, counted: Provider) -> None:
    browser.open(f"{origin.secure_url}/page")
    browser.evaluate('void all(20, "/sse/ticker", "events=1000000; interval=10ms", 1000000)')
    counted.wait(opened=20)
    browser.open("about:blank")
    assert counted.wait(aborted=20)["finished"] == 0


def test_cut_stream_is_an_error_in_the_page(browser: Browser, origin: SecuredRelay) -> None:
    """And what came before is not lost, although the reset follows at once."""
    browser.open(f"{origin.secure_url}/page")
    browser.evaluate('all(5, "/sse/ticker", "interval=0; lie=cut; at=3", 1000)')
    result = json.loads(browser.evaluate('document.getElementById("result").textContent'))
    assert [seen["error"] for seen in result["seen"]] == ["TypeError"] * 5
    assert [seen["status"] for seen in result["seen"]] == [200] * 5
    assert [seen["events"] for seen in result["seen"]] == [3] * 5
