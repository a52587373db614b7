"""What reviews of the whole relay found, each as the script that showed it."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
import threading

import pytest

from tests.conftest import RelayMaker
from tests.programs import PATIENCE, Client, Provider, Relay, chat
from tests.robustness.peers import Scripted, serves, until

_MIB = 1 << 20
_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n"


class Flood:
    """A client that sends requests without end, and reads the answers or does not, until it is told to stop."""

    def __init__(self, address: tuple[str, int], *, reads: bool) -> None:
        self.client = Client(address)
        self.client.socket.settimeout(0.05)
        self.stopped = threading.Event()
        self.sent = 0
        self.threads = [threading.Thread(target=self._send)]
        if reads:
            self.threads.append(threading.Thread(target=self._read))
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        self.client.close()

    def _send(self) -> None:
        data = _HEALTH * 500
        rest = b""
        while not self.stopped.is_set():
            rest = rest or data
            try:
                sent = self.client.socket.send(rest)
            except TimeoutError:
                continue
            except OSError:
                return
            self.sent += sent
            rest = rest[sent:]

    def _read(self) -> None:
        while not self.stopped.is_set():
            try:
                if not self.client.socket.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "stuck"])
def test_endless_pipelining_harms_nobody(make_relay: RelayMaker, reads: bool) -> None:
    """B7: one request waits. The others stay in the kernel, whoever sends them; another client is served meanwhile."""
    relay = make_relay()
    serves(relay.address)
    before = relay.resident()
    flood = Flood(relay.address, reads=reads)
    try:
        until(lambda: flood.sent > _MIB, "a megabyte of requests")
        for _ in range(20):
            with Client(relay.address) as client:
                client.send(_HEALTH)
                assert client.answer().status == 200
        assert relay.resident() - before < 8 * _MIB
    finally:
        flood.stop()


def test_what_has_ended_leaves_no_memory_behind(make_relay: RelayMaker) -> None:
    """Deadlines that will never be met must not keep alive what they were for: 3,000 heads of 28 KB would be 84 MB."""
    relay = make_relay(server='access_log = "off"')
    head = b"GET /v1/models HTTP/1.1\r\nHost: relay\r\nX-Fill: " + b"x" * 28_000
    for _ in range(200):
        with Client(relay.address) as client:
            client.send(head)
    serves(relay.address)
    before = relay.resident()
    for number in range(3000):
        with Client(relay.address) as client:
            client.send(head + (b"\r\n\r\n" if number % 2 else b""))
    serves(relay.address)
    assert relay.resident() - before < 24 * _MIB


def test_event_stream_of_no_content_has_no_body(make_relay: RelayMaker) -> None:
    """The way to stop an EventSource: a last chunk behind it would be read as the next answer."""
    answer = b"HTTP/1.1 204 No Content\r\nContent-Type: text/event-stream\r\nContent-Length: 5\r\n\r\n"
    with Scripted(answer) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            client.request(target="/feed")
            status, headers = client.read_head()
            assert status == 204
            assert "transfer-encoding" not in headers
            assert "content-length" not in headers
            client.send(_HEALTH)
            assert client.answer().body == b"ok\n"


def test_forbidden_body_of_a_head_request_is_nobodys_answer(make_relay: RelayMaker) -> None:
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    with Scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", poison) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            client.request("HEAD", "/a")
            assert client.answer(method="HEAD").status == 200
        until(lambda: len(provider.heads) == 1, "the request")
        with Client(relay.address) as client:
            client.request(target="/b")
            client.answer()
        assert provider.connections == 2


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8080", "Host": "127.0.0.1:8080"}, 200),
        ({"Origin": "http://localhost:8080", "Host": "localhost:8080"}, 200),
        ({"Origin": "https://relay.example.org", "Host": "relay.example.org"}, 200),
        ({"Origin": "http://evil.test:8080", "Host": "evil.test:8080"}, 403),  # DNS rebinding
        ({"Sec-Fetch-Site": "same-origin", "Host": "evil.test:8080"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Host": "127.0.0.1:8080"}, 403),
        ({"Origin": "http://evil.test", "Host": "127.0.0.1:8080"}, 403),
        ({"Origin": "null", "Host": "127.0.0.1:8080"}, 403),
        ({"Origin": "http://[", "Host": "127.0.0.1:8080"}, 403),
        ({"Origin": "http://a]b", "Host": "127.0.0.1:8080"}, 403),
        ({"Origin": "null", "Host": ""}, 403),
    ],
)
def test_no_foreign_page_spends_the_key(make_relay: RelayMaker, fields: dict[str, str], status: int) -> None:
    relay = make_relay(
        server='hosts = ["relay.example.org"]',
        upstream_extra='api_key_env = "RELAY_TEST_KEY"',
        env={"RELAY_TEST_KEY": "sk-test"},
    )
    lines = [f"{name}: {value}" for name, value in {"Host": "127.0.0.1", **fields}.items()]
    with Client(relay.address) as client:
        client.send("\r\n".join(["GET /v1/models HTTP/1.1", *lines, "", ""]).encode())
        assert client.answer().status == status


def test_stream_that_was_given_up_does_not_go_on(make_relay: RelayMaker, counted: Provider) -> None:
    """A compressed stream over its total time, with a slow reader: behind the error event there is nothing, and no
    clean end, however much had been inflated or not by then."""
    relay = make_relay(timeouts="total = 1")
    with Client(relay.address, receive_buffer=4096) as client:
        client.post("/v1/chat/completions", chat(), "events=40000; size=500; interval=0; gzip=1; seed=5")
        counted.wait(aborted=1)  # the total is over, with most of the stream unread
        answer = client.answer()
    assert not answer.clean
    assert b"[DONE]" not in answer.body
    assert b'"error"' not in answer.body.rpartition(b"data: ")[0]
    assert relay.access_line(status=200)["reason"] == "upstream_timeout"


def test_host_that_is_no_name_is_an_error_not_a_hang(make_relay: RelayMaker) -> None:
    relay = make_relay(upstream="http://a..b:80")
    with Client(relay.address) as client:
        client.post("/v1/chat/completions", chat())
        assert client.answer().status == 502
    assert "a..b:80" in relay.access_line(status=502)["detail"]


def test_forced_end_is_logged(make_relay: RelayMaker) -> None:
    """Two streams, one of them stuck, two signals: two lines."""
    relay = make_relay()
    with Client(relay.address) as reading, Client(relay.address, receive_buffer=4096) as stuck:
        reading.post("/v1/chat/completions", chat(), "events=1000; interval=20ms")
        reading.read_until(b"\n\n")
        stuck.post("/v1/chat/completions", chat(), "events=100000; size=1000; interval=0")
        stuck.read_until(b"\n\n")
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining")
        relay.send_signal(signal.SIGTERM)
        relay.process.wait(PATIENCE)
    reasons = sorted(str(relay.access_line()["reason"]) for _ in range(2))
    assert reasons == ["drained", "drained"]


def test_provider_that_leaves_during_an_upload_is_told_at_once(make_relay: RelayMaker) -> None:
    """Not when the write limit is over: what is still to be sent, nobody takes any more."""
    with Scripted(b"") as provider:
        relay = make_relay(upstream=provider.url, timeouts="write = 15")
        with Client(relay.address) as client:
            body = b"x" * (8 * _MIB)
            client.send(b"POST /v1/x HTTP/1.1\r\nHost: r\r\nContent-Length: %d\r\n\r\n" % len(body))
            sender = threading.Thread(target=_send_all, args=(client, body))
            sender.start()
            until(lambda: bool(provider.heads), "the request's head")
            provider.hang_up()
            assert client.read_head()[0] == 502
            client.close()
            sender.join()


def _send_all(client: Client, body: bytes) -> None:
    try:
        client.send(body)
    except OSError:
        return


def test_comments_are_no_first_event(make_relay: RelayMaker) -> None:
    """A provider that sends comments for ever has sent no event."""
    comments = b"".join(b"d\r\n: waiting..\n\n\r\n" for _ in range(3))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Scripted(head + comments) as provider:
        relay = make_relay(upstream=provider.url, timeouts="first_event = 1\nidle = 60")
        with Client(relay.address) as client:
            client.post("/v1/chat/completions", chat())
            answer = client.answer()
        assert not answer.clean
        assert b"sent no event for 1 s" in answer.body


def test_long_id_before_the_terminal_event_hides_it_from_nobody(make_relay: RelayMaker) -> None:
    events = b'data: {"choices":[]}\n\nid: ' + b"7" * 1500 + b"\ndata: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(events)
    with Scripted(head + events) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            client.post("/v1/chat/completions", chat())
            answer = client.answer()
        assert answer.clean
        assert answer.body == events


def test_members_of_gzip_are_one_stream(make_relay: RelayMaker) -> None:
    events = gzip.compress(b'data: {"choices":[]}\n\n') + gzip.compress(b"data: [DONE]\n\n")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    with Scripted(head + b"Content-Length: %d\r\n\r\n" % len(events) + events) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            client.post("/v1/chat/completions", chat())
            answer = client.answer()
        assert answer.clean
        assert answer.body == b'data: {"choices":[]}\n\ndata: [DONE]\n\n'


def test_bytes_behind_a_last_request_do_not_cost_its_answer(relay: Relay, provider: Provider) -> None:
    """The kernel answers what meets a closed socket with a RST, which would take the tail of the answer along."""
    for _ in range(5):
        with Client(relay.address) as client:
            document = json.dumps(chat()).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nConnection: close\r\n"
            simulate = b"Simulate: events=2000; size=500; interval=0\r\n"
            client.send(head + simulate + b"Content-Length: %d\r\n\r\n" % len(document) + document + _HEALTH * 50)
            answer = client.answer()
            assert answer.clean
            assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "name", ["X_Api_Key", "X_Forwarded_For", "Content_Length", "X-Forwarded-Port", "True-Client-IP"]
)
def test_other_spellings_do_not_pass(make_relay: RelayMaker, counted: Provider, name: str) -> None:
    relay = make_relay(upstream_extra='api_key_env = "RELAY_TEST_KEY"', env={"RELAY_TEST_KEY": "sk-test"})
    with Client(relay.address) as client:
        client.request(target="/echo", headers={name: "canary"})
        answer = client.answer()
    assert answer.status == 200
    assert b"canary" not in answer.body


def test_body_that_began_ahead_of_its_turn_is_read_when_it_comes(relay: Relay, counted: Provider) -> None:
    """Reading pauses while much waits ahead, and has to go on with the turn of what lacks its rest."""
    body = b"x" * 60_000
    digest = hashlib.sha256(body).hexdigest()
    first = b"GET /v1/models HTTP/1.1\r\nHost: relay\r\nSimulate: delay=300ms\r\n\r\n"
    filler = b"GET /v1/models HTTP/1.1\r\nHost: relay\r\nX-Fill: " + b"f" * 30_000 + b"\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n" % len(body)
    with Client(relay.address) as client:
        client.send(first)
        counted.wait(requests=1)
        client.send(filler + head + body[:40_000])
        for _ in range(2):
            assert client.answer().status == 200
        client.send(body[40_000:])
        answer = client.answer()
        assert answer.status == 200
        assert digest.encode() in answer.body
