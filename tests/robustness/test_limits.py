"""What is too large is refused at once and readably: heads, bodies, chunks, requests sent ahead (B4, B6, B7)."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest

from tests.conftest import RelayMaker
from tests.programs import Answer, Client, Provider, Relay
from tests.robustness.peers import CHAT, only_request, refusal, serves, until

_KIB = 1024
_MIB = 1024 * _KIB
_HOST = b"Host: relay.test\r\n"
# The limits as they are documented.
_LINE, _HEAD, _FIELDS = 8 * _KIB, 32 * _KIB, 100
_OVERHEAD = 16 * _KIB


def _line(length: int) -> bytes:
    """A request line of that many bytes, its end aside."""
    return b"GET /" + b"x" * (length - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"


# B4: heads


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (_line(_LINE + 1) + b"\r\n" + _HOST + b"\r\n", 414),
        (b"\r\n" + _line(_LINE + 1) + b"\r\n" + _HOST + b"\r\n", 414),
        (_line(_LINE + 100), 414),
        (b"GET / HTTP/1.1\r\n" + _HOST + b"X: " + b"y" * _HEAD + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + _HOST + b"X: " + b"y" * _HEAD, 431),
        (b"GET / HTTP/1.1\r\n" + _HOST + b"X: y\r\n" * _FIELDS + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + _HOST + b"X: y\r\n" * _HEAD, 431),
    ],
    ids=["line", "line-after-empty-line", "endless-line", "field", "endless-field", "count", "endless-count"],
)
def test_head_past_a_limit_is_refused(relay: Relay, counted: Provider, sent: bytes, status: int) -> None:
    answer = refusal(relay.address, sent)
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
    serves(relay.address)
    only_request(counted)


@pytest.mark.parametrize(
    "sent",
    [
        _line(_LINE) + b"\r\n" + _HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + _HOST + b"X: y\r\n" * (_FIELDS - 1) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + _HOST + b"X: " + b"y" * (_HEAD - 100) + b"\r\n\r\n",
    ],
    ids=["line", "count", "size"],
)
def test_head_at_its_limit_is_relayed(relay: Relay, counted: Provider, sent: bytes) -> None:
    with Client(relay.address) as client:
        client.send(sent)
        assert client.answer().status == 404  # the provider's own
    assert counted.stats()["requests"] == 1


# B4: bodies

_LIMIT = 64 * _KIB
_POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + _HOST


def _too_large(answer: Answer) -> None:
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body)["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["plain", "expect"])
def test_announced_body_past_the_limit_is_refused_before_it_is_read(
    make_relay: RelayMaker, counted: Provider, expect: bytes
) -> None:
    relay = make_relay(limits=f"request_body = {_LIMIT}")
    # Not one byte of the body follows, and the answer comes all the same: no 100 in front of it.
    with Client(relay.address) as client:
        client.send(_POST + expect + b"Content-Length: %d\r\n\r\n" % (_LIMIT + 1))
        assert client.read_until(b"\r\n").startswith(b"HTTP/1.1 413 ")
        client.buffer = b"HTTP/1.1 413 \r\n" + client.buffer
        _too_large(client.answer())
        assert client.closed()
    assert relay.access_line(status=413)["reason"] == "refused"
    assert counted.stats()["connections"] == 0


def test_chunked_body_past_the_limit_is_refused_where_it_passes(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(limits=f"request_body = {_LIMIT}")
    with Client(relay.address) as client:
        client.send(_POST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
        counted_before = counted.stats()["requests"]
        for _ in range(_LIMIT // 4096):
            client.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
        _too_large(client.answer())
        assert client.closed()
    serves(relay.address)
    assert counted.stats()["requests"] == counted_before + 1


def test_body_at_the_limit_is_relayed(make_relay: RelayMaker) -> None:
    relay = make_relay(limits=f"request_body = {_LIMIT}")
    with Client(relay.address) as client:
        client.request("POST", "/echo", b"x" * _LIMIT)
        assert json.loads(client.answer().body)["body_length"] == _LIMIT
        client.send(b"POST /echo HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n" % _LIMIT + b"x" * _LIMIT + b"\r\n0\r\n\r\n")
        assert json.loads(client.answer().body)["body_length"] == _LIMIT


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_refusal_reaches_a_client_that_is_still_sending(make_relay: RelayMaker, framing: str) -> None:
    """A close with unread bytes is a RST, which may take the answer with it: the relay reads on for a while."""
    relay = make_relay(limits=f"request_body = {_LIMIT}")
    size = 768 * _KIB
    body = b"x" * size if framing == "length" else b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    fields = b"Content-Length: %d\r\n" % size if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    for _ in range(10):
        with Client(relay.address) as client:
            client.send(_POST + fields + b"\r\n")
            client.send(body)  # all of it, before one byte of the answer is looked at
            _too_large(client.answer())
            # An orderly end too: no ConnectionResetError is hidden in it.
            assert client.socket.recv(1) == b""


def test_client_that_sends_on_after_a_refusal_is_cut_off(make_relay: RelayMaker) -> None:
    relay = make_relay(limits=f"request_body = {_LIMIT}")
    with Client(relay.address) as client:
        client.send(_POST + b"Content-Length: %d\r\n\r\n" % (1024 * _MIB))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1024:
                client.send(b"x" * _MIB)
                sent += 1
        assert sent < 100, "the relay read on and on"


# B6: chunks


def test_extensions_beyond_what_the_data_justifies_are_refused(relay: Relay, counted: Provider) -> None:
    chunk = b"1;x=" + b"e" * 1000 + b"\r\n \r\n"
    needed = _OVERHEAD // 1000 + 2
    answer = refusal(relay.address, _POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * needed)
    assert answer.status == 400
    serves(relay.address)
    only_request(counted)


def test_one_byte_chunks_are_served(relay: Relay) -> None:
    body = json.dumps(CHAT.asked(stream=False)).encode()
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body)
    with Client(relay.address) as client:
        client.send(_POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert client.answer().status == 200


@pytest.mark.parametrize("sent", [b"5;x=" + b"y" * 5000, b"0\r\n" + b"X: y\r\n" * 4000], ids=["size-line", "trailers"])
def test_endless_chunk_line_and_trailers_are_refused(relay: Relay, counted: Provider, sent: bytes) -> None:
    assert refusal(relay.address, _POST + b"Transfer-Encoding: chunked\r\n\r\n" + sent).status == 400
    serves(relay.address)
    only_request(counted)


def test_trailers_of_a_request_are_dropped(relay: Relay, counted: Provider) -> None:
    trailers = b"Content-Length: 7\r\nHost: elsewhere.test\r\nX-Checksum: 1\r\n"
    with Client(relay.address) as client:
        client.send(b"POST /echo HTTP/1.1\r\n" + _HOST + b"Trailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n")
        echo = json.loads(client.answer().body)
        assert echo["body"] == "hello"
        names = [name.lower() for name, _ in echo["headers"]]
        assert "x-checksum" not in names
        assert "trailer" not in names
        assert names.count("host") == 1
        serves(relay.address, client)


def test_trailers_of_an_answer_are_dropped(relay: Relay) -> None:
    with Client(relay.address) as client:
        client.post(CHAT.path, CHAT.asked(stream=True), "lie=trailers; events=3; interval=0")
        status, _ = client.read_head()
        assert status == 200
        # Right behind the last chunk stands the empty line.
        assert b"X-Checksum" not in client.read_until(b"\r\n0\r\n\r\n")
        serves(relay.address, client)


# B7: requests ahead of their turn


def test_requests_sent_ahead_are_answered_in_their_order(relay: Relay, counted: Provider) -> None:
    with Client(relay.address) as client:
        client.post(CHAT.path, CHAT.asked(stream=True), "events=5; interval=20ms")
        client.request("POST", "/echo", b"second")
        client.request("GET", "/healthz")
        client.request("POST", "/echo", b"fourth")
        assert client.answer().body.endswith(CHAT.terminal)
        assert json.loads(client.answer().body)["body"] == "second"
        assert client.answer().body == b"ok\n"
        assert json.loads(client.answer().body)["body"] == "fourth"
    assert counted.stats()["finished"] == 3


def test_request_sent_ahead_waits_for_its_turn(relay: Relay, counted: Provider) -> None:
    with Client(relay.address) as client:
        client.post(CHAT.path, CHAT.asked(stream=True), "events=1000; interval=20ms")
        client.request("POST", "/echo", b"second")
        client.read_until(b"data: ")
        counted.wait(events=5)
        assert counted.stats()["requests"] == 1


def test_flood_of_requests_ahead_is_not_read(relay: Relay, counted: Provider) -> None:
    """What the relay does not read stays in the kernel, whose buffers are full one day: the sender stands still."""
    with Client(relay.address) as client:
        client.post(CHAT.path, CHAT.asked(stream=True), "events=100000; interval=100ms")
        client.read_until(b"data: ")
        before = relay.resident()
        client.socket.settimeout(0.5)
        sent = 0
        request = b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n"
        with contextlib.suppress(TimeoutError):
            while sent < 100 * _MIB:
                sent += client.socket.send(request * 1000)
        assert sent < 20 * _MIB
        assert relay.resident() - before < _MIB
    counted.wait(aborted=1)


def test_flood_of_requests_ahead_is_answered_to_its_end(relay: Relay) -> None:
    """The pause ends when the turn comes: nothing that was sent is lost."""
    number = 5000  # some 200 KiB, three times what may wait
    with Client(relay.address) as client:
        data = (b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n") * number
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        for _ in range(number):
            assert client.answer().body == b"ok\n"
        sender.join()


def test_connection_ends_after_its_last_request(relay: Relay) -> None:
    """10,000 requests, then gracefully: the last answer says so, what was sent behind it is not served."""
    number = 10_000
    with Client(relay.address) as client:
        data = (b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n") * number
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        for _ in range(number - 1):
            assert "connection" not in client.answer().headers
        answer = client.answer()
        sender.join()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_more_connections_than_configured_are_turned_away(make_relay: RelayMaker) -> None:
    relay = make_relay(server="max_connections = 3")
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(Client(relay.address)) for _ in range(3)]
        for client in served:
            client.request("GET", "/healthz")
            assert client.answer().status == 200
        assert stack.enter_context(Client(relay.address)).closed()
        served[0].close()

        def has_place() -> bool:
            with Client(relay.address) as client, contextlib.suppress(OSError):
                client.request("GET", "/healthz")
                return client.receive().startswith(b"HTTP/1.1 200 ")
            return False

        until(has_place, "a place for another client")
