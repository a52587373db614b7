"""nginx in front of the relay, as it is run in earnest: buffering left on, `proxy_http_version 1.1`.

        client -> nginx -> relay -> provider

With HTTP/1.0 towards the relay nginx would end a cut stream as if it were whole, and it would keep parts of events back
if the relay did not tell it not to (`X-Accel-Buffering: no`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import PATIENCE, Client, Provider, Relay, chat, config_text, running

CHAT = "/v1/chat/completions"
# More than one of nginx's buffers holds: smaller pieces leave them by themselves where the relay's chunks end.
LARGE = "size=6000"
# Everything that nginx writes stays in its directory. Buffering is what it is by default: on.
CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream relay {{
        server 127.0.0.1:{relay};
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 64m;
        location / {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 300s;
        }}
    }}
    server {{
        listen 127.0.0.1:{deaf};
        location / {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ignore_headers X-Accel-Buffering;
        }}
    }}
}}
"""


class Nginx:
    """nginx before a relay, from its ready socket on. At `deaf` it does not hear what the relay says on buffering."""

    def __init__(self, directory: Path, relay: Relay) -> None:
        program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
        assert program, "nginx is missing: install Debian's nginx"
        directory.mkdir()
        self._log = directory / "error.log"
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            self.address: tuple[str, int] = first.getsockname()
            self.deaf: tuple[str, int] = second.getsockname()
        config = directory / "nginx.conf"
        # Started by root it would hand its work to a user who may not write here.
        user = "user root;" if os.geteuid() == 0 else ""
        ports = {"relay": relay.port, "port": self.address[1], "deaf": self.deaf[1]}
        config.write_text(CONFIG.format(user=user, directory=directory, **ports))
        command = [program, "-p", str(directory), "-e", str(self._log), "-c", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        """nginx binds before it starts its workers, and says nothing: the first connection taken is its word."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(self.address, timeout=PATIENCE).close()
            except ConnectionRefusedError:
                continue
            return
        self._process.kill()
        _, said = self._process.communicate()
        raise AssertionError(f"nginx does not listen: {said.decode()}")

    def errors(self) -> list[str]:
        levels = ("[warn]", "[error]", "[crit]", "[alert]", "[emerg]")
        return [line for line in self._log.read_text().splitlines() if any(level in line for level in levels)]

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise


@pytest.fixture
def make_nginx(tmp_path: Path) -> Iterator[Callable[[Relay], Nginx]]:
    made: list[Nginx] = []

    def make(relay: Relay) -> Nginx:
        made.append(Nginx(tmp_path / f"nginx{len(made)}", relay))
        return made[-1]

    yield make
    for program in made:
        program.stop()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Nginx]:
    """Its relay sends no heartbeats: they would push on what a buffer keeps back."""
    directory = tmp_path_factory.mktemp("front")
    config = directory / "relay.toml"
    config.write_text(config_text(provider.url, timeouts="heartbeat = 0"))
    with running(Relay(config)) as relay:
        program = Nginx(directory / "nginx", relay)
        yield program
        program.stop()


@pytest.mark.parametrize("size", ["size=0", LARGE])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/sse/ticker"])
def test_event_arrives_while_the_provider_has_not_made_the_next(
    nginx: Nginx, counted: Provider, path: str, size: str
) -> None:
    """The next comes after more than any test waits. Nothing turns nginx's buffering off but the relay's answer."""
    simulate = f"events=2; interval={PATIENCE * 3:g}s; {size}"
    with Client(nginx.address) as client:
        if path == "/sse/ticker":
            client.request("GET", path, None, {"Simulate": simulate})
        else:
            client.post(path, chat(), simulate)
        status, headers = client.read_head()
        assert status == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["relay-stream-id"]
        # Frames of the dialect come together with the first event.
        while len(client.read_until(b"\n\n")) < int(size.partition("=")[2]):
            pass
        assert counted.stats()["events"] == 1
    counted.wait(aborted=1)


def test_every_event_arrives_by_itself(nginx: Nginx, counted: Provider) -> None:
    with Client(nginx.address) as client:
        client.request("GET", "/sse/ticker", None, {"Simulate": "events=3; interval=200ms"})
        for number in range(1, 4):
            assert f"id: {number}\n".encode() in client.read_until(b"\n\n")
            if number == 1:
                assert counted.stats()["finished"] == 0
        assert client.read_until(b"0\r\n\r\n").endswith(b"\r\n0\r\n\r\n")


def test_buffering_is_on_where_the_relay_is_not_heard(nginx: Nginx, counted: Provider) -> None:
    """What the test above rests on: told to ignore the relay's word, the same nginx keeps the end of a large event back
    until it has more to put into its buffer."""
    with Client(nginx.deaf) as client:
        client.request("GET", "/sse/ticker", None, {"Simulate": f"events=2; interval=300ms; {LARGE}"})
        assert client.read_head()[0] == 200
        client.read_until(b"\n\n")
        assert counted.stats()["events"] == 2


@pytest.mark.parametrize("lie", ["cut", "cut-reset", "half-event", "no-done", "short", "bad-chunk"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_cut_stays_a_cut(nginx: Nginx, path: str, lie: str) -> None:
    with Client(nginx.address) as client:
        client.post(path, chat(), f"interval=0; lie={lie}")
        answer = client.answer()
    assert answer.status == 200
    assert answer.body.startswith((b"data:", b"event:"))
    assert not answer.clean


def test_cut_json_stays_a_cut(nginx: Nginx) -> None:
    with Client(nginx.address) as client:
        client.post(CHAT, chat(stream=False), "size=500; lie=cut")
        answer = client.answer()
    assert (answer.status, answer.clean) == (200, False)


@pytest.mark.parametrize("before", ["delay=1000s", "first=1000s", "interval=1000s"])
def test_client_that_leaves_nginx_aborts_the_generation(nginx: Nginx, counted: Provider, before: str) -> None:
    with Client(nginx.address) as client:
        client.post(CHAT, chat(), before)
        counted.wait(requests=1)
    counted.wait(aborted=1)


def test_many_requests_keep_to_few_connections(
    make_relay: Callable[..., Relay], make_nginx: Callable[[Relay], Nginx], counted: Provider
) -> None:
    relay = make_relay()
    nginx = make_nginx(relay)
    with Client(nginx.address) as client:
        for number in range(100):
            streamed = number % 2 == 0
            client.post(CHAT, chat(stream=streamed), f"seed={number}; events=3; interval=0")
            answer = client.answer()
            assert (answer.status, answer.clean) == (200, True), number
            assert answer.body.endswith(b"data: [DONE]\n\n") == streamed
    assert nginx.errors() == []
    assert counted.wait(finished=100)["connections"] == 1
    # To the relay as well: the hundred lines name one client, whose connection nginx kept.
    assert relay.access_line(path=CHAT)["reason"] == "finished"


def test_relay_that_closes_a_kept_connection_costs_no_request(
    make_relay: Callable[..., Relay], make_nginx: Callable[[Relay], Nginx]
) -> None:
    """nginx's own connections to the relay expire at the relay. A witness, idle since later, tells when."""
    relay = make_relay(timeouts='keep_alive = "500ms"')
    nginx = make_nginx(relay)
    with Client(nginx.address) as client, Client(relay.address) as witness:
        for _ in range(2):
            client.post(CHAT, chat(), "events=3; interval=0")
            answer = client.answer()
            assert (answer.status, answer.clean) == (200, True)
            witness.close()
            witness = _idle(relay)
            assert witness.closed()
            witness.close()
    assert nginx.errors() == []


def _idle(relay: Relay) -> Client:
    client = Client(relay.address)
    client.request("GET", "/healthz")
    assert client.answer().status == 200
    return client


def test_relays_own_errors_pass(make_relay: Callable[..., Relay], make_nginx: Callable[[Relay], Nginx]) -> None:
    nginx = make_nginx(make_relay(path="/v1/*", limits='request_body = "64KiB"'))
    large = json.dumps({"model": "sim-1", "prompt": "x" * 100_000}).encode()
    with Client(nginx.address) as client:
        client.request("GET", "/elsewhere")
        missing = client.answer()
        client.request("POST", "/v1/completions", large, {"Content-Type": "application/json"})
        refused = client.answer()
    assert (missing.status, refused.status) == (404, 413)
    assert json.loads(missing.body)["error"]["code"] == "not_found"
    assert json.loads(refused.body)["error"]["code"] == "payload_too_large"
    assert missing.headers["content-type"] == refused.headers["content-type"] == "application/json"


def test_providers_own_errors_pass(nginx: Nginx) -> None:
    with Client(nginx.address) as client:
        client.post(CHAT, chat(), "status=429; retry_after=7")
        answer = client.answer()
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert json.loads(answer.body)["error"]["message"] == "simulated 429"
