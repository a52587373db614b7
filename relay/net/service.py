"""What a client's connection needs of those around it: its server, and the exchange of each request.

`net` calls upward only through what is handed to it; these are the shapes of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relay.core.request import RequestBody
from relay.errors import RelayError
from relay.net.timers import Wheel
from relay.wire.http1 import RequestHead

if TYPE_CHECKING:
    from relay.net.downstream1 import Downstream1


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client connection may do. Times in seconds, sizes in bytes."""

    head: float = 10.0
    body_idle: float = 30.0
    keep_alive: float = 75.0
    stall: float = 60.0
    requests: int = 10_000
    age: float = 3600.0


class Exchange(Protocol):
    """One request and its answer, as this connection sees it. `control` implements it."""

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


class Service(Protocol):
    """What the connections of a server share. `server` implements it."""

    wheel: Wheel
    limits: ClientLimits
    draining: bool

    def exchange(self, request: RequestHead, client: Downstream1) -> Exchange:
        """Make the exchange for a request; nothing may happen before its `start`."""

    def opened(self, client: Downstream1) -> bool:
        """A connection has come. False: there are too many."""

    def left(self, client: Downstream1) -> None:
        """A connection has gone."""

    def refused(self, client: Downstream1, error: RelayError) -> None:
        """Answer a request that cannot become an exchange."""
