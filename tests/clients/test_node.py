"""The official OpenAI and Anthropic clients for Node, their base URL changed and nothing else (client.mjs)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.clients.conftest import LOCK
from tests.programs import PATIENCE, Provider, Relay

HERE = Path(__file__).resolve().parent
LONG = "seed=5; events=60; interval=0; split=5"
STREAMS = ("chat", "completions", "responses", "messages")
CUTS = ("cut", "cut-reset", "half-event", "no-done")

Node = Callable[[str, str], dict[str, Any]]


def _command(node: str, relay: Relay, scenario: str, simulate: str) -> list[str]:
    return [node, str(HERE / "client.mjs"), relay.url, scenario, simulate]


@pytest.fixture
def run(node: str, relay: Relay) -> Node:
    """Runs one scenario to its end, and gives what the client made of it."""

    def run_one(scenario: str, simulate: str) -> dict[str, Any]:
        command = _command(node, relay, scenario, simulate)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE * 2)
        assert done.returncode == 0, done.stderr
        heard: dict[str, Any] = json.loads(done.stdout)
        return heard

    return run_one


@contextmanager
def _lingering(node: str, relay: Relay, scenario: str, simulate: str) -> Iterator[IO[str]]:
    """A client that has got as far as it goes by itself; what it prints after its input ended is read from here."""
    command = _command(node, relay, scenario, simulate)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said == "lingering\n", said + process.stderr.read()
            yield process.stdout
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("streamed", "json_answer"),
    [("chat", "chat json"), ("messages", "messages json"), ("completions", None), ("responses", None)],
)
def test_stream_says_what_the_json_says(run: Node, streamed: str, json_answer: str | None) -> None:
    heard = run(streamed, f"{LONG}; crlf=1")
    assert heard["text"]
    assert "error" not in heard
    # Every dialect of the provider says the same text for one seed.
    assert heard["text"] == run(json_answer or "chat json", LONG)["text"]
    if streamed in ("responses", "messages"):
        assert heard["last"] == {"responses": "response.completed", "messages": "message_stop"}[streamed]


@pytest.mark.parametrize("client", ["chat", "messages"])
def test_helper_adds_tool_calls_and_usage_up(run: Node, client: str) -> None:
    streamed, whole = (run(f"{client} {kind}", f"{LONG}; tools=1") for kind in ("helper", "json"))
    assert "error" not in streamed
    assert streamed["text"] == whole["text"]
    assert len(streamed["tools"]) == 1
    assert streamed["tools"] == whole["tools"]
    if client == "chat":
        assert streamed["usage"]["completion_tokens"] == 60


def test_headers_of_the_provider_and_of_the_relay_are_there(run: Node) -> None:
    headers = run("chat json", LONG)["headers"]
    assert headers["x-request-id"].startswith("req_")
    assert headers["relay-stream-id"]
    assert headers["x-ratelimit-remaining-tokens"]


@pytest.mark.parametrize("scenario", STREAMS)
@pytest.mark.parametrize("lie", CUTS)
def test_cut_stream_throws(run: Node, scenario: str, lie: str) -> None:
    heard = run(scenario, f"events=9; at=4; interval=0; lie={lie}")
    assert heard["text"]
    assert heard.get("error"), heard
    # A failure of the stream, not of the client's parser over the pieces of one.
    assert heard["error"]["name"] != "SyntaxError", heard


def test_error_event_of_the_provider_is_thrown_as_it_is(run: Node) -> None:
    assert "simulated 500" in run("chat", "interval=0; lie=error")["error"]["message"]
    assert "simulated overload" in run("messages", "interval=0; lie=error")["error"]["message"]


@pytest.mark.parametrize("scenario", ["chat", "messages"])
def test_error_status_is_the_clients_error(run: Node, scenario: str) -> None:
    error = run(scenario, "status=429; retry_after=7")["error"]
    assert (error["name"], error["status"]) == ("RateLimitError", 429)
    assert "simulated 429" in error["message"]


def test_relays_own_error_is_the_clients_error(run: Node) -> None:
    error = run("chat", "lie=close")["error"]
    assert (error["name"], error["status"], error["code"]) == ("InternalServerError", 502, "upstream_closed")


@pytest.mark.parametrize("scenario", ["chat break", "messages break"])
def test_breaking_out_of_a_stream_aborts_the_generation(
    node: str, relay: Relay, counted: Provider, scenario: str
) -> None:
    with _lingering(node, relay, scenario, "events=1000000; interval=10ms"):
        assert counted.wait(aborted=1)["finished"] == 0


def test_aborting_before_the_answer_aborts_the_generation(node: str, relay: Relay, counted: Provider) -> None:
    command = _command(node, relay, "chat abort", "delay=1000s")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        counted.wait(requests=1)
        printed, _ = process.communicate(timeout=PATIENCE)
    assert json.loads(printed)["error"]["name"] == "APIUserAbortError"
    assert counted.wait(aborted=1)["finished"] == 0


def test_lock_file_names_no_registry() -> None:
    """Packages come from wherever npm is configured to fetch them; their hashes are in the lock."""
    packages = json.loads(LOCK.read_text())["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
    assert not [name for name, package in packages.items() if "resolved" in package]
