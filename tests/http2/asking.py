"""A request made of the client under test, as its caller sees it and as the scripted server does."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import Protocol

from tests.http2 import frames
from tests.http2.frames import Frame, Kind
from tests.http2.peers import DEADLINE, RESPONSE, ServerPeer
from tests.programs import Client, Relay

CURL_PATIENCE = 2.0


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass(frozen=True)
class Outcome:
    """What the caller of the client under test was told. `clean`: that it is whole."""

    status: int
    clean: bool
    body: bytes


class Call(Protocol):
    """A request that was made of the client under test, and is not answered yet."""

    def outcome(self) -> Outcome: ...

    def close(self) -> None: ...


class RelayCall:
    """By HTTP/1.1 through the relay."""

    def __init__(self, relay: Relay) -> None:
        self._client = Client(relay.address)
        self._client.request(target="/v1/models")

    def outcome(self) -> Outcome:
        answer = self._client.answer()
        return Outcome(answer.status, answer.clean, answer.body)

    def close(self) -> None:
        self._client.close()


class CurlCall:
    """By a curl of its own."""

    def __init__(self, url: str) -> None:
        command = ["curl", "--silent", "--http2-prior-knowledge", "--max-time", "15", "--output", "-"]
        command += ["--write-out", "%{stderr}%{http_code}", url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def outcome(self) -> Outcome:
        try:
            body, status = self._process.communicate(timeout=CURL_PATIENCE)
        except subprocess.TimeoutExpired:
            # It makes its request again, on a connection that the script does not want.
            return Outcome(0, False, b"")
        return Outcome(int(status), self._process.returncode == 0, body)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass
class Origin:
    """The listener that the client under test was pointed at, and the calls under way in one test."""

    listener: socket.socket
    relay: Relay | None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def url(self) -> str:
        return url_of(self.listener)

    def call(self) -> Call:
        made: Call = CurlCall(self.url) if self.relay is None else RelayCall(self.relay)
        self.stack.callback(made.close)
        return made

    def accept(self) -> ServerPeer:
        """The client's next connection, with nothing said yet."""
        try:
            connection, _ = self.listener.accept()
        except TimeoutError:
            raise AssertionError("the client did not connect") from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted = ServerPeer(connection)
        self.stack.callback(accepted.close)
        if self.relay is not None:
            # It forgets this connection before the next test: its end is waited for.
            self.stack.callback(accepted.finish)
        return accepted

    def again(self, first: ServerPeer) -> tuple[ServerPeer, Frame]:
        """Where a request comes a second time, on the first connection or on a new one; and its head."""
        deadline = time.monotonic() + DEADLINE
        places = [first.socket, self.listener]
        while True:
            if first.waiting or first.socket in select.select(places, [], [], DEADLINE)[0]:
                came = first.read(deadline)
                if came is None:
                    places = [self.listener]
                elif came.kind == Kind.HEADERS:
                    return first, first.take_request(came, acked=True)
            else:
                second = self.accept()
                second.handshake()
                return second, second.take_request()

    def forget(self) -> None:
        """End what is under way, and connections that the script did not want."""
        self.listener.settimeout(0)
        try:
            self.stack.close()
        finally:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.listener.accept()[0].close()
            self.listener.settimeout(DEADLINE)


@dataclass
class Asked:
    """A request that has come to the script, and the call that it was made for."""

    origin: Origin
    peer: ServerPeer
    call: Call
    head: Frame

    @property
    def stream(self) -> int:
        return self.head.stream

    def failed(self) -> None:
        """The caller has an error of the relay's own, or an answer that says that it is not whole."""
        outcome = self.call.outcome()
        # curl 7.88 ends well after some connection errors that it has itself told its server of.
        assert self.origin.relay is None or outcome.status in (502, 504) or not outcome.clean, outcome

    def begin(self, content: bytes = b"") -> None:
        """The answer's head, and some of its body."""
        self.peer.send(frames.headers(self.stream, RESPONSE, frames.END_HEADERS))
        if content:
            self.peer.send(frames.data(self.stream, content))

    def whole(self, body: bytes = b"answer") -> None:
        outcome = self.call.outcome()
        assert (outcome.status, outcome.clean, outcome.body) == (200, True, body)

    def settled(self) -> None:
        """Either: the answer was whole before the script went wrong, and both came together."""
        outcome = self.call.outcome()
        assert outcome.status in (200, 502, 504), outcome
