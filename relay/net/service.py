"""The shapes of those that meet at this floor: a client, its exchange, its server; a provider's answer to a request.

`net` calls upward only through what is handed to it, and `control` sees connections only as these, so that neither
asks which version of HTTP the other side speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.core.transfer import Receiver
from relay.errors import RelayError, UpstreamError
from relay.flow.gate import Gate
from relay.net.timers import Wheel
from relay.wire.head import Framing, Headers, RequestHead, ResponseHead


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client connection may do. Times in seconds, sizes in bytes. `streams`: at once, over HTTP/2."""

    head: float = 10.0
    body_idle: float = 30.0
    keep_alive: float = 75.0
    stall: float = 60.0
    requests: int = 10_000
    age: float = 3600.0
    streams: int = 100


class Client(Protocol):
    """Who has asked, as an exchange sees it: an HTTP/1.1 connection, or one stream of HTTP/2. `peer` is its address,
    `secure` whether it came over TLS, `gate` stops reading its request."""

    peer: str
    secure: bool
    gate: Gate

    @property
    def head_sent(self) -> bool:
        """Whether the answer has begun to leave."""

    def proceed(self) -> None:
        """Tell a client that waits for it that its body is wanted (RFC 9110, 10.1.1)."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole short answer of the relay's own; `body` is left out for a HEAD request."""

    def start(
        self, status: int, headers: Headers, length: int | None, reader: Reader, *, bodiless: bool = False
    ) -> None:
        """Begin an answer. Its head leaves with the first piece of its body, at `flush_head`, or at its end.

        `length` in bytes; None where only its end will tell. The caller sees to it that a body of that length follows.
        `bodiless`: there is none, whatever the headers say of its length (RFC 9110: HEAD, 204, 304).
        """

    def flush_head(self) -> None:
        """Send the head now if it still waits."""

    def insert(self, piece: bytes) -> None:
        """A heartbeat, or an event of the relay's own, between two others. Left out where bytes wait already: they show
        as much."""

    def abort(self) -> None:
        """The answer is not whole, and the client must see that."""

    def cut(self) -> None:
        """The same at once, without what has been written and not been taken: the client takes nothing."""


class Exchange(Protocol):
    """One request and its answer, as its client's connection sees it. `control` implements it."""

    body: RequestBody

    @property
    def done(self) -> bool:
        """Nothing more will happen."""

    def start(self) -> None:
        """The request's head was read; its body may still be coming."""

    def stop(self, error: RelayError) -> None:
        """The client left, stalled, or broke the protocol: give everything up."""

    def delivered(self) -> None:
        """The answer has gone, to its end or to its abort."""


class Connected(Protocol):
    """A client's connection, as its server sees it."""

    def drain(self) -> None:
        """No further request: close when the answers that are under way have gone."""

    def cut(self) -> None:
        """Close at once, whatever is under way."""


class Service(Protocol):
    """What the connections of a server share. `server` implements it."""

    wheel: Wheel
    limits: ClientLimits
    draining: bool

    def exchange(self, request: RequestHead, client: Client) -> Exchange:
        """Make the exchange for a request; nothing may happen before its `start`."""

    def opened(self, connection: Connected) -> bool:
        """A connection has come. False: there are too many."""

    def left(self, connection: Connected) -> None:
        """A connection has gone."""

    def refused(self, client: Client, error: RelayError) -> None:
        """Answer a request that cannot become an exchange."""

    def broke(self, peer: str, error: RelayError) -> None:
        """A client broke the rules of a connection, or of a stream that has no exchange, and cannot be answered."""


class Asker(Protocol):
    """Who has asked a provider. One of the two is called once, unless the request is cancelled before."""

    def answered(self, head: ResponseHead) -> Receiver:
        """The final head is here. Returns where the body goes; `end` or `fail` of it will be called."""

    def unanswered(self, error: UpstreamError) -> None:
        """There will be no answer."""


class Call(Protocol):
    """One request to a provider and its answer: an HTTP/1.1 connection, or one stream of HTTP/2. `gate` stops reading
    the answer; `http` is the version, 1.1 or 2."""

    gate: Gate

    @property
    def http(self) -> str: ...

    def ask(
        self, method: bytes, target: bytes, headers: Headers, framing: Framing, asker: Asker, reader: Reader
    ) -> None:
        """Send the request: its head at once, with as much of its body as `reader` has waiting; the rest as it comes.
        `headers` hold Host, and Content-Length where a length is known; `framing` is the body's."""

    def cancel(self) -> None:
        """Nobody wants the answer any more: the provider is told at once, so that it stops generating."""
