"""Those around an HTTP/2 engine: who takes a stream's DATA, who is told what the peer said, how the peer ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from relay.wire.head import Headers


class Stream(Protocol):
    """The half of a stream that takes DATA. `unacked`: bytes by which its window is smaller than at its start; the
    window is opened again by so many while `paused` is false."""

    unacked: int
    paused: bool
    stream_id: int

    @property
    def feed(self) -> Callable[[bytes], None]:
        """Takes the DATA of one read."""


class Listener(Protocol):
    """Who is told what a connection's peer said."""

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        """A request; or a response, final or informational."""

    def ended(self, stream_id: int) -> None:
        """The peer's message is whole."""

    def reset_came(self, stream_id: int, code: int) -> None:
        """The peer has reset a stream."""

    def stream_broke(self, stream_id: int, code: int, message: str) -> None:
        """The peer made a mistake in a stream, which has been reset."""

    def window_opened(self, stream_id: int) -> None:
        """More may be sent; 0: on the connection, or on several streams."""

    def settings_came(self) -> None:
        """The peer's settings have come, or changed."""

    def goaway_came(self, last_stream_id: int, code: int) -> None:
        """The peer takes no streams above this one."""

    def pong_came(self, data: bytes) -> None:
        """The peer has answered a PING."""

    def crowded(self) -> None:
        """The peer asks for more than one turn gives it: call `receive(b"")` in the next."""

    def broke(self, code: int, message: str) -> None:
        """The connection is over; GOAWAY has been emitted."""


class Broken(Exception):
    """The peer broke the connection's rules; caught where its bytes came in."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
