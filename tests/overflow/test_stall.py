"""For how long a reader may take nothing: its own mode's limit, where it has one, else its connection's. Real
connections on transports and a wheel that a test turns by hand, since nothing shortens 30 s."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from relay.errors import ClientStalled
from relay.flow.overflow import Mode, lag
from relay.net.downstream1 import Downstream1
from relay.net.downstream2 import Downstream2
from relay.net.service import Service
from tests.net.pair2 import Both, Served, Transport

# That of connections unless configured.
CONNECTION = 60.0
_LIMITS = [(mode, min(lag(mode).stall, CONNECTION)) for mode in Mode]


class Raw:
    """A client's HTTP/1.1 connection whose answer has begun, and whose socket takes nothing from now on."""

    def __init__(self, stall: float) -> None:
        self.both = Both("server")
        self.connection = Downstream1(cast(Service, self.both))
        self.transport = Transport(self.connection)  # type: ignore[arg-type]
        self.connection.connection_made(cast(asyncio.Transport, self.transport))
        self.connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.lane = cast(Served, self.both.lanes[0])
        self.lane.reader.stall = stall
        self.lane.client.start(200, [], None, self.lane.reader)
        self.lane.client.flush_head()
        self.connection.pause_writing()
        self.lane.send(b"data: x\n\n")

    def wait(self, seconds: float) -> None:
        """As the wheel does it: in looks, not at once."""
        until = self.both.wheel.now + seconds
        while self.both.wheel.now < until and not self.lane.errors:
            self.both.wheel.now = min(self.both.wheel.now + 0.5, until)
            self.connection.due(self.both.wheel.now)


class Framed(Raw):
    """A stream of a client's HTTP/2 connection without a window."""

    def __init__(self, stall: float) -> None:
        self.both = Both("server")
        assert isinstance(self.both.connection, Downstream2)
        self.connection = self.both.connection  # type: ignore[assignment]
        self.lane = cast(Served, self.both.open())
        self.both.peer.end_stream(self.lane.stream_id)
        self.both.settle()
        self.lane.reader.stall = stall
        self.lane.send(b"x" * 100_000)
        self.both.loop.turn()


@pytest.mark.parametrize("made", [Raw, Framed], ids=["1", "2"])
@pytest.mark.parametrize(("mode", "limit"), _LIMITS, ids=list(Mode))
def test_who_takes_nothing_is_gone_after_its_limit(made: type[Raw], mode: Mode, limit: float) -> None:
    peer = made(lag(mode).stall)
    peer.wait(limit - 1.0)
    assert peer.lane.errors == []
    peer.wait(2.0)
    assert len(peer.lane.errors) == 1
    assert isinstance(peer.lane.errors[0], ClientStalled)
    assert f"{limit:g} s" in str(peer.lane.errors[0])


def test_window_that_opens_by_a_little_is_no_stall() -> None:
    peer = Framed(lag(Mode.MERGE).stall)
    for _ in range(10):
        peer.wait(25.0)
        peer.both.peer.increment_flow_control_window(2000)
        peer.both.peer.increment_flow_control_window(2000, peer.lane.stream_id)
        peer.both.settle()
    assert peer.lane.errors == []
    peer.wait(31.0)
    assert len(peer.lane.errors) == 1


def test_socket_that_takes_some_is_no_stall() -> None:
    peer = Raw(lag(Mode.MERGE).stall)
    for _ in range(10):
        peer.wait(25.0)
        peer.connection.resume_writing()
        peer.connection.pause_writing()
    assert peer.lane.errors == []
    peer.wait(31.0)
    assert len(peer.lane.errors) == 1


@pytest.mark.parametrize("made", [Raw, Framed], ids=["1", "2"])
def test_connections_own_limit_may_be_shorter(made: type[Raw]) -> None:
    peer = made(2 * CONNECTION)
    peer.wait(CONNECTION - 1.0)
    assert peer.lane.errors == []
    peer.wait(2.0)
    assert f"{CONNECTION:g} s" in str(peer.lane.errors[0])
