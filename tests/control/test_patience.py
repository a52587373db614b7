"""How long a provider may take, and who is told of it. By a clock that a test moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from relay.control.asking import Asking
from relay.control.office import Timing
from relay.control.patience import Patience
from relay.core.follower import Follower
from relay.flow.overflow import Mode, lag
from tests.core.fakes import ROLE, Socket, Told, delta, ignore


def test_provider_that_is_held_is_not_silent_and_has_said_nothing_either() -> None:
    """One reader holds it, so that it is not blamed; to the others nothing has been said, and they get heartbeats."""
    fanout = Told()
    fanout.feed(ROLE)
    for mode, room in ((Mode.PAUSE, 1), (Mode.MERGE, None)):
        reader = Follower(fanout, 0, lag(mode), ignore)
        reader.attach(Socket(reader, room), blocked=False)
    while not fanout.producer.paused:
        fanout.feed(delta("x" * 3000))
    spoke_at, patience = fanout.source.spoke, Patience(Timing(), 0.0)
    asking = cast(Asking, SimpleNamespace(gate=fanout.gate))
    for _ in range(200):
        fanout.time.now += 5
        assert patience.look(fanout.time.now, asking, fanout.source)[0] is None
    assert fanout.source.spoke == spoke_at
