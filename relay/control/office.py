"""What all exchanges share: the routes, the clock, the log, the limits, and the list of those that are under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.control.access import AccessLog
from relay.control.caller import Network
from relay.control.router import Router
from relay.net.certificate import Certificate
from relay.net.timers import Wheel

if TYPE_CHECKING:
    from relay.control.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; 0 is off. `head`: from the request's end to the answer's head. `first_event`: from there to the first
    byte of its body. `idle`: silence after it. `total`: the whole exchange. `heartbeat`: silence before a comment."""

    head: float = 120.0
    first_event: float = 120.0
    idle: float = 300.0
    total: float = 0.0
    heartbeat: float = 15.0


@dataclass(slots=True)
class Office:
    """Sizes in bytes. `trusted`: the networks of proxies whose word on a client counts. `hosts`: names of
    our own, for browsers. `certificate`: of our TLS, if any."""

    router: Router
    wheel: Wheel
    access: AccessLog
    timing: Timing
    request_limit: int
    replay_limit: int
    event_limit: int
    inflate_limit: int
    trusted: tuple[Network, ...] = ()
    hosts: frozenset[bytes] = frozenset()
    certificate: Certificate | None = None
    draining: bool = False
    open: dict[str, Exchange] = field(default_factory=dict)
