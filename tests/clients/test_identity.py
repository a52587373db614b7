"""The relay changes no byte of a body: whatever the dialect, wherever the provider's writes are cut.

The provider cuts each body at random into chunks and socket writes: inside a character, a field name, a CR LF, a
chunk's size line. What a client gets through the relay is held against what the provider says directly, uncut.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.programs import PATIENCE, Answer, Client, Program, Provider, Relay, chat

SEEDS = range(25)
# What is asked, by dialect; a streamed request is one where the answer is a stream.
ASKED: dict[str, tuple[str, str, object]] = {
    "chat": ("POST", "/v1/chat/completions", chat(n=2, stream_options={"include_usage": True})),
    "completions": ("POST", "/v1/completions", {"model": "sim-1", "prompt": "hello", "stream": True}),
    "responses": ("POST", "/v1/responses", {"model": "sim-1", "input": "hello", "stream": True}),
    "messages": ("POST", "/v1/messages", chat(max_tokens=64)),
    "json": ("POST", "/v1/chat/completions", chat(stream=False)),
    "ndjson": ("POST", "/api/chat", chat()),
    "opaque events": ("GET", "/sse/ticker", None),
    "bytes": ("GET", "/raw/bytes", None),
}
# The forms that an answer takes in turn, one per seed; some mean nothing to a dialect, and then change nothing.
FORMS = (
    "",
    "crlf=1",
    "cr=1",
    "crlf=1; ping=3",
    "cr=1; reasoning=1; tools=1",
    "reasoning=1; tools=1",
    "ping=2",
    "size=700",
    "framing=close",
    "framing=length; crlf=1",
    "burst=4",
)
# What a provider may send around a body without changing it.
AROUND = ("none", "hint", "trailers", "none")
# Every so many seeds the provider waits between its writes, so that each of them is a read of its own in the relay.
SLOW = 7


class Conversation:
    """One client that asks one program again and again, on one connection as long as that lasts."""

    def __init__(self, program: Program) -> None:
        self._address = program.address
        self._client: Client | None = None

    def ask(self, dialect: str, simulate: str) -> Answer:
        method, target, document = ASKED[dialect]
        client = self._client or Client(self._address)
        if method == "POST":
            client.post(target, document, simulate)
        else:
            client.request(method, target, None, {"Simulate": simulate})
        answer = client.answer()
        reusable = answer.clean and answer.headers.get("connection") != "close"
        self._client = client if reusable else None
        if not reusable:
            client.close()
        return answer

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


@pytest.mark.parametrize("dialect", ASKED)
def test_body_through_the_relay_is_the_providers_wherever_it_is_cut(
    provider: Provider, relay: Relay, dialect: str
) -> None:
    first = list(ASKED).index(dialect) * len(SEEDS)
    with closing(Conversation(provider)) as direct, closing(Conversation(relay)) as relayed:
        for seed in range(first, first + len(SEEDS)):
            form = f"seed={seed}; events=8; interval=0; {FORMS[seed % len(FORMS)]}"
            cuts = f"split={seed}; gap={'1ms' if seed % SLOW == 0 else '0'}; lie={AROUND[seed % len(AROUND)]}"
            said = direct.ask(dialect, form)
            heard = relayed.ask(dialect, f"{form}; {cuts}")
            assert (heard.status, heard.clean) == (said.status, True) == (200, said.clean), (form, cuts)
            assert said.body, form
            assert _digest(heard.body) == _digest(said.body), (form, cuts, heard.body)


def test_splits_reach_the_relay_as_such(provider: Provider) -> None:
    """What the test above rests on: a split body comes in many small chunks, cut inside characters too."""
    with closing(Conversation(provider)) as direct:
        answer = direct.ask("chat", "seed=1; events=40; size=200; interval=0; split=1")
    assert len(answer.chunks) > len(answer.body) / 100
    assert any(_inside_a_character(chunk) for chunk in answer.chunks)


@pytest.mark.parametrize("dialect", [name for name in ASKED if name != "json"])
def test_first_event_arrives_while_the_provider_has_more_to_say(relay: Relay, counted: Provider, dialect: str) -> None:
    """The next event comes after more than any test waits: what can be read was not held back for it."""
    method, target, document = ASKED[dialect]
    simulate = f"events=2; interval={PATIENCE * 3:g}s"
    with Client(relay.address) as client:
        if method == "POST":
            client.post(target, document, simulate)
        else:
            client.request(method, target, None, {"Simulate": simulate})
        status, _ = client.read_head()
        assert status == 200
        # A border, or where there are no events the end of the first chunk.
        client.read_until(b"\r\n")
        assert client.read_until({"ndjson": b"}\n", "bytes": b"\r\n"}.get(dialect, b"\n\n"))
        assert counted.stats()["finished"] == 0
    counted.wait(aborted=1)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where a provider can be played byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/sse"])
@pytest.mark.parametrize(("name", "line"), [("lf", b"\n"), ("crlf", b"\r\n"), ("cr", b"\r")])
def test_whole_event_does_not_wait_for_the_unfinished_one_behind_it(
    listener: socket.socket, make_relay: Callable[..., Relay], path: str, name: str, line: bytes
) -> None:
    """Both come in one read. The whole one leaves at once, the other as soon as its end has come."""
    first = b'data: {"n": 1}' + line * 2
    second = 'data: {"n": "né"}'.encode() + line * 2
    border = second.index("é".encode()) + 1  # between the two bytes of the character
    relay = make_relay(upstream=f"http://127.0.0.1:{listener.getsockname()[1]}")
    with Client(relay.address) as client:
        client.post(path, chat())
        peer, _ = listener.accept()
        with closing(peer):
            peer.settimeout(PATIENCE)
            assert peer.recv(65536)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            peer.sendall(head + _chunk(first + second[:border]))
            assert client.read_head()[0] == 200
            assert _body_until(client, first) == first
            peer.sendall(_chunk(second[border:]))
            assert _body_until(client, second) == second
            peer.sendall(_chunk(b"data: [DONE]" + line * 2) + b"0\r\n\r\n")
            assert client.read_until(b"0\r\n\r\n").endswith(b"[DONE]" + line * 2 + b"\r\n0\r\n\r\n")


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _body_until(client: Client, mark: bytes) -> bytes:
    """The bodies of the next chunks, as many as hold what is waited for."""
    body = b""
    while mark not in body:
        size = int(client.read_until(b"\r\n"), 16)
        assert size, f"the body ended with {body!r} before {mark!r}"
        while len(client.buffer) < size + 2:
            data = client.receive()
            assert data, f"the connection ended with {body!r} before {mark!r}"
            client.buffer += data
        body += client.buffer[:size]
        client.buffer = client.buffer[size + 2 :]
    return body


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _inside_a_character(chunk: bytes) -> bool:
    try:
        chunk.decode()
    except UnicodeDecodeError:
        return True
    return False
