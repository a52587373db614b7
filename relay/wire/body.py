"""The body of an HTTP/1.1 message: where it ends (RFC 9112, section 6).

Three ways to end one: by the chunked coding (chunked.py), by a length, by the end of the connection. Each is an
object whose `receive` takes the connection's bytes and pushes the body's on. Where a connection reads into the one
buffer (input.py), the body is told of what came, so that no call stands between the socket and the coding.
"""

from __future__ import annotations

from typing import Protocol

from relay.errors import RemoteProtocolError
from relay.wire.input import INPUT


class Consumer(Protocol):
    """Who is told of a body. Nothing follows `body_ended` or `body_failed`."""

    def body_ended(self, rest: bytes) -> None:
        """The body is whole; `rest` came behind it in the same read."""

    def body_failed(self, error: RemoteProtocolError) -> None:
        """The coding is broken or the connection ended inside the body."""


class Vessel(Protocol):
    """What a body is poured into."""

    def feed(self, payload: bytes, /) -> None:
        """The next bytes; never empty."""


class _Nowhere:
    __slots__ = ()

    def feed(self, payload: bytes) -> None:
        """Drop it."""


# Where a body goes that nobody waits for any more.
_NOWHERE: Vessel = _Nowhere()


class Body:
    """A body on its way in. `pour` says where its bytes go; until then, and after `spill`, they are dropped."""

    __slots__ = ("_consumer", "_vessel")

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._vessel = _NOWHERE

    def pour(self, vessel: Vessel) -> None:
        self._vessel = vessel

    def spill(self) -> None:
        self._vessel = _NOWHERE

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the connection. Never raises for what they say."""
        raise NotImplementedError

    def take(self, count: int) -> None:
        """The same, for the first `count` bytes of INPUT."""
        self.receive(INPUT[:count])

    def eof(self) -> None:
        """The connection ended."""
        raise NotImplementedError

    def _fail_cut(self) -> None:
        self._consumer.body_failed(RemoteProtocolError("the connection ended inside the body"))


class LengthBody(Body):
    """A body of a declared number of bytes, at least one."""

    __slots__ = ("_left",)

    def __init__(self, consumer: Consumer, length: int) -> None:
        super().__init__(consumer)
        self._left = length

    def receive(self, data: bytes) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self._vessel.feed(data)
            return
        if not self._left:
            return
        end = self._left
        self._left = 0
        self._vessel.feed(data if not left else data[:end])
        self._consumer.body_ended(data[end:])

    def eof(self) -> None:
        if self._left:
            self._fail_cut()


class ConnectionBody(Body):
    """A body that lasts until the connection ends; whether it is whole, HTTP/1.1 cannot tell."""

    __slots__ = ()

    def receive(self, data: bytes) -> None:
        self._vessel.feed(data)

    def eof(self) -> None:
        self._consumer.body_ended(b"")
