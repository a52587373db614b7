"""Peers whose every byte a test decides: a scripted provider, one that never accepts, and what many tests ask."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from tests.programs import PATIENCE, Answer, Client, Program, Provider

T = TypeVar("T")
_RESET = struct.pack("ii", 1, 0)
_TEXT: list[dict[str, str]] = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Dialect:
    """A path and the document of a request for it; `terminal` stands in the last event of a whole stream."""

    name: str
    path: str
    document: dict[str, object]
    terminal: bytes

    def asked(self, *, stream: bool) -> dict[str, object]:
        return {**self.document, "model": "sim-1", "stream": stream}


DIALECTS = (
    Dialect("chat", "/v1/chat/completions", {"messages": _TEXT}, b"data: [DONE]\n\n"),
    Dialect("completions", "/v1/completions", {"prompt": "hello"}, b"data: [DONE]\n\n"),
    Dialect("responses", "/v1/responses", {"input": "hello"}, b"event: response.completed\n"),
    Dialect("messages", "/v1/messages", {"messages": _TEXT, "max_tokens": 1000}, b"event: message_stop\n"),
)
CHAT = DIALECTS[0]


def until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something true; for what announces itself in no other way (memory, descriptors)."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, f"never came: {what}"
        # Not a bare spin: the relay shares these cores.
        select.select([], [], [], 0.02)
    return seen


def descriptors_return_to(relay: Program, before: int) -> None:
    until(lambda: relay.descriptors() <= before, f"{before} descriptors again, of {relay.descriptors()}")


def refusal(address: tuple[str, int], data: bytes) -> Answer:
    """The answer to bytes after which the connection must be closed."""
    with Client(address) as client:
        client.send(data)
        answer = client.answer()
        assert client.closed(), f"the connection lives on after {answer.status}"
        return answer


def serves(address: tuple[str, int], client: Client | None = None) -> None:
    """The relay relays: a whole stream, on this connection or on a new one."""
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(Client(address))
        client.post(CHAT.path, CHAT.asked(stream=True), "events=2; interval=0")
        answer = client.answer()
        assert answer.status == 200
        assert answer.clean
        assert answer.body.endswith(CHAT.terminal)


def ask(client: Client, simulate: str, *, stream: bool, dialect: Dialect = CHAT) -> Answer:
    """One request, streamed or not, and its answer."""
    client.post(dialect.path, dialect.asked(stream=stream), simulate)
    return client.answer()


def refused(answer: Answer, status: int, dialect: Dialect = CHAT) -> None:
    """An error of the relay's own, whole, in the dialect that the client speaks."""
    assert answer.status == status, answer.body
    assert answer.clean
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = json.loads(answer.body)
    assert error["error"]["message"]
    if dialect.name == "messages":
        assert error["type"] == "error"
        assert set(error["error"]) == {"type", "message"}
        assert error["request_id"] == answer.headers["x-request-id"]
    else:
        assert set(error["error"]) == {"message", "type", "param", "code"}


def only_request(provider: Provider) -> None:
    """Nothing but the request that the test itself makes to find that out has reached the provider."""
    stats = provider.stats()
    assert stats["requests"] == stats["finished"] == 1, stats


class Scripted:
    """A provider that answers its requests, one after the other and on whatever connections, with the given bytes.

    `ending` is what follows each answer: `keep` reads on, `close` and `reset` end the connection. The last answer is
    repeated. `heads` are the requests as they came, `connections` how many there were.
    """

    def __init__(self, *answers: bytes, ending: str = "keep", host: str = "127.0.0.1") -> None:
        self._answers = list(answers)
        self._ending = ending
        self._listener = socket.create_server((host, 0), backlog=128)
        self._open: list[socket.socket] = []
        self.heads: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # Wakes the accepting thread, which a close alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._open:
            peer.close()

    def say(self, data: bytes) -> None:
        """Send bytes that nobody asked for, on the connection that came last."""
        self._open[-1].sendall(data)

    def hang_up(self) -> None:
        """End the connection that came last."""
        # A shutdown reaches the peer although a thread still reads from the socket.
        self._open[-1].shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self.connections += 1
                self._open.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while head := _read_request(peer):
                number = len(self.heads)
                self.heads.append(head)
                peer.sendall(self._answers[min(number, len(self._answers) - 1)])
                if self._ending == "reset":
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                if self._ending != "keep":
                    peer.close()
                    return


def _read_request(peer: socket.socket) -> bytes:
    """One request with a body by Content-Length or none; its head, b"" at the connection's end."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = peer.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        more = peer.recv(65536)
        if not more:
            return b""
        body += more
    return head


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """The url of a provider to which no connection is ever made: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        full = False
        while not full:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
            # A connect that is not answered in this time met a full queue: loopback answers at once.
            _, writable, _ = select.select([], [filler], [], 0.3)
            full = not writable
        yield f"http://127.0.0.1:{address[1]}"


def unused_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
