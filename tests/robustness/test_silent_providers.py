"""Providers that fall silent, before they answer or while they do: each silence has a limit of its own (C1, C2)."""

from __future__ import annotations

import pytest

from tests.conftest import RelayMaker
from tests.programs import Client, Provider
from tests.robustness.peers import CHAT, ask, refused, serves


@pytest.mark.parametrize(
    ("simulate", "timeouts", "stream"),
    [
        ("lie=stall", "head = 0.5", True),
        ("lie=stall", "head = 0.5", False),
        ("lie=slow-head; interval=300ms", "head = 0.5", True),
        ("lie=head-stall", "first_event = 0.5", True),
        ("lie=head-stall", "first_event = 0.5", False),
        ("delay=60", "total = 0.5", True),
        ("delay=60", "total = 0.5", False),
    ],
)
def test_silence_before_the_first_byte_is_504(
    make_relay: RelayMaker, counted: Provider, simulate: str, timeouts: str, stream: bool
) -> None:
    relay = make_relay(timeouts=timeouts)
    with Client(relay.address) as client:
        refused(ask(client, simulate, stream=stream), 504)
        line = relay.access_line(reason="upstream_timeout")
        assert line["status"] == 504
        # Late by at most a tick of the clock, and what this machine takes.
        assert line["duration_ms"] < 2500, "the timeout was not kept"
        counted.wait(aborted=1)
        serves(relay.address, client)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("timeouts", ["idle = 0.5", "total = 0.5", "idle = 0.5\nhead = 0\nfirst_event = 0"])
def test_silence_in_the_middle_ends_in_an_abort(
    make_relay: RelayMaker, counted: Provider, timeouts: str, stream: bool
) -> None:
    relay = make_relay(timeouts=timeouts)
    with Client(relay.address) as client:
        client.socket.settimeout(8)
        answer = ask(client, "lie=mid-stall; at=2; events=4; interval=0", stream=stream)
        assert answer.status == 200
        assert not answer.clean
    line = relay.access_line(reason="upstream_timeout")
    assert line["duration_ms"] < 2500, "the timeout was not kept"
    counted.wait(aborted=1)


def test_provider_that_goes_on_is_never_silent(make_relay: RelayMaker) -> None:
    relay = make_relay(timeouts="idle = 1\nfirst_event = 1\nhead = 1")
    with Client(relay.address) as client:
        answer = ask(client, "events=4; interval=600ms; delay=600ms; first=600ms", stream=True)
        assert answer.clean
        assert answer.body.endswith(CHAT.terminal)
