"""What all exchanges share: the routes, the clock, the log, the limits, the streams, and the list of what is under
way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.control.access import AccessLog
from relay.control.caller import Network
from relay.control.ended import Ended
from relay.control.router import Router
from relay.core.hub import Hub
from relay.net.certificate import Certificate
from relay.net.pulse import Pulse
from relay.net.timers import Wheel

if TYPE_CHECKING:
    from relay.control.audience import Audience
    from relay.control.exchange import Exchange
    from relay.control.generation import Generation


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; 0 is off. `head`: from the request's end to the answer's head. `first_event`: from there to the first
    byte of its body. `idle`: silence after it. `total`: the whole exchange. `heartbeat`: silence before a comment.
    `placeholder`: time without a first token before the event that a reader may ask for."""

    head: float = 120.0
    first_event: float = 120.0
    idle: float = 300.0
    total: float = 0.0
    heartbeat: float = 15.0
    placeholder: float = 0.5


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a resumable stream is kept, in seconds: behind its end (`finished`; 0: nothing is kept at all), while it
    has no reader (`orphan`), and how long it goes on without one unless its request says otherwise (`grace`); how many
    may do so at once (`orphans`). And how much, in bytes: of one `stream`."""

    finished: float = 600.0
    orphan: float = 3600.0
    grace: float = 30.0
    orphans: int = 256
    stream: int = 8 * 1024 * 1024


@dataclass(slots=True)
class Office:
    """Sizes in bytes. `trusted`: the networks of proxies whose word on a client counts. `hosts`: names of
    our own, for browsers. `certificate`: of our TLS, if any. `page`: whether the relay's own page is served."""

    router: Router
    wheel: Wheel
    pulse: Pulse
    access: AccessLog
    timing: Timing
    retention: Retention
    hub: Hub[Generation]
    request_limit: int
    replay_limit: int
    event_limit: int
    inflate_limit: int
    trusted: tuple[Network, ...] = ()
    hosts: frozenset[bytes] = frozenset()
    certificate: Certificate | None = None
    page: bool = True
    draining: bool = False
    open: dict[Exchange, None] = field(default_factory=dict)
    orphans: dict[Audience, None] = field(default_factory=dict)
    ended: Ended = field(default_factory=Ended)
