"""A provider that nobody here wrote: uvicorn, starlette and sse-starlette (uvicorn_app.py), with their own habits:
CR LF in events, comments as pings, bodies of no announced length, idle connections closed without a word."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.clients.uvicorn_app import PIECES
from tests.programs import PATIENCE, Client, Program, Relay, chat, running

RelayMaker = Callable[..., Relay]
LARGE = json.dumps({"text": "ü" * 500_000}).encode()


class Uvicorn(Program):
    """The application with a keep-alive time in seconds."""

    def __init__(self, keep_alive: int) -> None:
        command = [sys.executable, "-m", "uvicorn", "tests.clients.uvicorn_app:app", "--port", "0", "--http", "h11"]
        super().__init__(
            [*command, "--no-access-log", "--timeout-keep-alive", str(keep_alive)],
            r"Uvicorn running on http://127\.0\.0\.1:(\d+)",
        )

    def ask(self, method: str, target: str) -> dict[str, Any]:
        """A question to the application itself, not through the relay."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, target)
            response = connection.getresponse()
            assert response.status == 200, f"{method} {target}: {response.status}"
            document: dict[str, Any] = json.loads(response.read())
            return document

    def proceed(self, events: int = 1) -> None:
        self.ask("POST", f"/proceed?events={events}")


@pytest.fixture
def uvicorn() -> Iterator[Uvicorn]:
    with running(Uvicorn(keep_alive=5)) as program:
        yield program


@pytest.fixture
def relayed(uvicorn: Uvicorn, make_relay: RelayMaker) -> Relay:
    return make_relay(upstream=uvicorn.url)


def _post(client: Client, body: bytes, target: str = "/echo") -> dict[str, Any]:
    client.request("POST", target, body, {"Content-Type": "application/json"})
    answer = client.answer()
    assert (answer.status, answer.clean) == (200, True), answer
    document: dict[str, Any] = json.loads(answer.body)
    return document


def test_events_with_crlf_arrive_one_by_one(uvicorn: Uvicorn, relayed: Relay) -> None:
    with Client(relayed.address) as client:
        client.post("/v1/chat/completions", chat())
        status, headers = client.read_head()
        assert (status, headers["x-accel-buffering"]) == (200, "no")
        for number in range(3):
            # The provider itself does not have the next event before it is told to go on.
            assert f"wörd {number} ".encode() in client.read_until(b"\r\n\r\n")
            uvicorn.proceed()
        assert b"data: [DONE]\r\n\r\n" in client.read_until(b"\r\n0\r\n\r\n")


def test_openai_client_reads_its_stream(uvicorn: Uvicorn, relayed: Relay) -> None:
    uvicorn.proceed(19)
    with openai.OpenAI(base_url=f"{relayed.url}/v1", api_key="sk", max_retries=0, timeout=PATIENCE) as client:
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True, extra_body={"events": 20}
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "".join(f"wörd {number} " for number in range(20))


def test_pings_pass_between_events(uvicorn: Uvicorn, relayed: Relay) -> None:
    with Client(relayed.address) as client:
        client.request("GET", "/ticker")
        assert client.read_head()[0] == 200
        client.read_until(b"line one of 0\r\ndata: line two\r\n\r\n")
        # While the provider has no event to send, its comments come through.
        client.read_until(b": ping")
        client.read_until(b": ping")
        uvicorn.proceed(2)
        rest = client.read_until(b"\r\n0\r\n\r\n")
    assert b"id: 2\r\nevent: tick\r\ndata: line one of 2\r\ndata: line two\r\n\r\n" in rest


def test_client_that_leaves_ends_the_generator(uvicorn: Uvicorn, relayed: Relay) -> None:
    for leave in (Client.close, Client.reset):
        client = Client(relayed.address)
        client.post("/v1/chat/completions", chat(events=100))
        client.read_until("wörd 0 ".encode())
        leave(client)
    assert "finished" not in uvicorn.ask("GET", "/wait?cancelled=2")


def test_body_of_unknown_length_arrives_whole(relayed: Relay) -> None:
    with Client(relayed.address) as client:
        client.request("GET", "/pieces")
        answer = client.answer()
        assert (answer.status, answer.clean) == (200, True)
        assert answer.body.decode() == "".join(PIECES)
        # And the connection is good for another.
        assert _post(client, b"{}")["length"] == 2


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/x-ndjson"])
def test_body_that_ends_in_an_exception_does_not_end_cleanly(relayed: Relay, kind: str) -> None:
    with Client(relayed.address) as client:
        client.request("GET", f"/broken?type={kind}")
        answer = client.answer()
    assert answer.status == 200
    assert answer.body == b"data: one\n\n"
    assert not answer.clean


def test_json_body_and_query_reach_the_application(relayed: Relay) -> None:
    with Client(relayed.address) as client:
        heard = _post(client, LARGE, "/echo?a=%C3%BC&b=1")
    assert (heard["length"], heard["sha256"]) == (len(LARGE), hashlib.sha256(LARGE).hexdigest())
    assert heard["query"] == "a=%C3%BC&b=1"
    assert heard["headers"]["content-type"] == "application/json"


def test_connection_serves_one_request_after_another(relayed: Relay) -> None:
    with Client(relayed.address) as client:
        connections = {_post(client, b'{"n": %d}' % number)["connection"] for number in range(50)}
    assert len(connections) == 1


def test_connection_that_expired_while_idle_is_not_used_again(make_relay: RelayMaker) -> None:
    """uvicorn closes it without a word. One of our own, idle since later, tells when that has happened."""
    with running(Uvicorn(keep_alive=1)) as uvicorn:
        relay = make_relay(upstream=uvicorn.url)
        with Client(relay.address) as client, Client(uvicorn.address) as witness:
            before = _post(client, b"{}")["connection"]
            _post(witness, b"{}")
            assert witness.closed()
            after = _post(client, b"{}")["connection"]
        assert after != before
        line = [relay.access_line(path="/echo") for _ in range(2)][-1]
        assert (line["status"], line["reason"]) == (200, "finished")


def test_no_request_fails_on_connections_that_expire_at_once(make_relay: RelayMaker) -> None:
    """With no keep-alive time at all, every connection closes while the relay may be sending the next request on it."""
    with running(Uvicorn(keep_alive=0)) as uvicorn:
        relay = make_relay(upstream=uvicorn.url)
        with Client(relay.address) as client:
            for number in range(200):
                body = b'{"number": %d}' % number
                assert _post(client, body)["sha256"] == hashlib.sha256(body).hexdigest()
        # None was asked twice, either: what was repeated had not been read.
        assert uvicorn.ask("GET", "/wait?echoed=200")["echoed"] == 200
