"""Readers of one stream that lag in different ways; each gets what it asked for, and none another's fate."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest

from tests.overflow.ground import (
    KIB,
    MIB,
    PATIENT,
    RESUMABLE,
    Site,
    account,
    ask,
    events_of,
    first_of,
    name_of,
    resume,
    whole_events,
)
from tests.robustness.peers import CHAT, until


def test_each_reader_has_its_own_mode(site: Site, speak: str) -> None:
    simulate = "seed=41; events=9000; interval=1ms; burst=10; size=300"
    with contextlib.ExitStack() as stack:
        agents = {mode: stack.enter_context(site.agent(speak)) for mode in ("merge", "disconnect", "drop")}
        wide = stack.enter_context(site.agent(speak, wide=True))
        first = ask(wide, simulate, {**RESUMABLE, **PATIENT}, name=f"together-{speak}")
        stream_id = name_of(first)
        stuck = {
            mode: resume(agent, stream_id, "latest", {"Relay-Overflow": mode, "X-Request-Id": f"{mode}-{speak}"})
            for mode, agent in agents.items()
        }
        answer = first.answer()
        assert answer.clean
        wanted = events_of(answer.body, stream_id)
        assert len(wanted) > 9000
        assert site.over(stream_id)["bytes"] > 2 * MIB
        # Three megabytes are too much for the bound, in any form.
        for mode in ("merge", "disconnect"):
            assert site.line(f"{mode}-{speak}")["reason"] == "client_behind"
        dropped = stuck["drop"].answer()
        assert dropped.clean
        got = events_of(dropped.body, stream_id)
        found = account(got, wanted, first_of(got, wanted))
        assert found.gaps
        assert got[-1].raw == CHAT.terminal
        for mode in ("merge", "disconnect"):
            body = whole_events(stuck[mode].answer().body)
            got = events_of(body, stream_id)
            rest = resume(wide, stream_id, got[-1].seq, PATIENT).answer()
            assert rest.clean
            got += events_of(rest.body, stream_id)
            found = account(got, wanted, first_of(got, wanted))
            assert got[-1] == wanted[-1]
            assert mode == "merge" or not found.merged
    line = site.line(f"together-{speak}")
    assert (line["merged"], line["dropped"], line["events"]) == (0, 0, len(wanted))


@pytest.mark.parametrize("mode", ["merge", "drop"])
def test_hundred_stuck_readers_of_one_stream_cost_little_and_change_nothing(site: Site, mode: str) -> None:
    """Their events are in the log once; of them there is what one write left in a socket's buffer."""
    number = 100
    simulate = "seed=42; events=1500; interval=2ms; burst=5; size=400"
    with contextlib.ExitStack() as stack:
        # What a relay in use has allocated anyway: as many connections, and a stream of the same length.
        _open_and_leave(site, number, mode)
        agent = stack.enter_context(site.agent("1", wide=True))
        log = name_of(ask(agent, simulate, RESUMABLE))
        site.over(log)
        healthy = ask(stack.enter_context(site.agent("1", wide=True)), simulate, {**RESUMABLE, **PATIENT})
        stream_id = name_of(healthy)
        before = site.relay.resident()
        stuck = [
            resume(stack.enter_context(site.agent("1")), stream_id, "latest", {"Relay-Overflow": mode})
            for _ in range(number)
        ]
        until(lambda: site.state(stream_id)["readers"] == number + 1, "all readers")
        answer = healthy.answer()
        assert answer.clean
        assert answer.body.count(b'"content":"') >= 1500
        assert site.provider.stats()["finished"] >= 1, "the provider was not slowed"
        grown = site.relay.resident() - before
        state = site.over(stream_id)
        assert grown - state["bytes"] < number * 64 * KIB, f"{grown / number / KIB:.1f} KiB each"
        assert len(stuck) == number


def _open_and_leave(site: Site, number: int, mode: str) -> None:
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(site.agent("1"))
        stream_id = name_of(ask(agent, "seed=43; events=200; interval=5ms; size=400", RESUMABLE))
        for _ in range(number):
            resume(stack.enter_context(site.agent("1")), stream_id, 0, {"Relay-Overflow": mode})
        site.over(stream_id)


def test_stuck_readers_of_http2_cost_little(site: Site) -> None:
    """As streams of one connection, and of many."""
    simulate = "seed=44; events=1500; interval=2ms; burst=5; size=400"
    with contextlib.ExitStack() as stack:
        _open_and_leave(site, 50, "merge")
        wide = stack.enter_context(site.agent("2", wide=True))
        site.over(name_of(ask(wide, simulate, RESUMABLE)))
        healthy = ask(wide, simulate, {**RESUMABLE, **PATIENT})
        stream_id = name_of(healthy)
        agents = [stack.enter_context(site.agent("2")) for _ in range(10)]
        before = site.relay.resident()
        for agent in agents:
            for _ in range(8):
                resume(agent, stream_id, "latest", {"Relay-Overflow": "drop"})
        answer = healthy.answer()
        assert answer.clean
        assert answer.body.count(b'"content":"') >= 1500
        grown = site.relay.resident() - before - site.over(stream_id)["bytes"]
        assert grown < 80 * 64 * KIB, f"{grown / 80 / KIB:.1f} KiB each"


def test_provider_is_read_at_its_own_speed_whoever_sticks(site: Site, speak: str) -> None:
    """Its end has come while all who read it are stuck."""
    with contextlib.ExitStack() as stack:
        first = ask(stack.enter_context(site.agent(speak)), "seed=45; events=800; interval=0; size=8000", RESUMABLE)
        stream_id = name_of(first)
        stuck = [
            resume(stack.enter_context(site.agent(speak)), stream_id, 0, {"Relay-Overflow": mode})
            for mode in ("merge", "disconnect", "drop") * 5
        ]
        site.provider.wait(finished=1)
        assert site.over(stream_id)["bytes"] > 6 * MIB
        assert all(call.head() == 200 for call in stuck)
        for call in stuck:
            call.leave()


def test_stuck_reader_that_leaves_is_noticed(site: Site) -> None:
    with site.agent("1") as agent, site.agent("1", wide=True) as other:
        stuck = ask(agent, "seed=46; events=5000; interval=5ms; size=3000", RESUMABLE)
        stream_id = name_of(stuck)
        healthy = resume(other, stream_id)
        for _ in range(200):
            healthy.wait_for(b"\n\n")
        assert site.state(stream_id)["readers"] == 2
        raw: socket.socket = agent.clients[0].socket  # type: ignore[attr-defined]
        assert select.select([raw], [], [], 5)[0]
        agent.reset()
        until(lambda: site.state(stream_id)["readers"] == 1, "one reader less")
        healthy.leave()
