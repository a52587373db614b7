"""drop: the oldest waiting events are left out, visibly; the newest arrive, and each that arrives is whole."""

from __future__ import annotations

import pytest

from tests.overflow.ground import (
    KIB,
    PATIENT,
    RESUMABLE,
    Site,
    account,
    ask,
    events_of,
    first_of,
    name_of,
    open_up,
    resume,
)
from tests.robustness.peers import CHAT

LONG = "seed=31; events=1000; interval=0; size=5000"


def test_gap_says_which_events_are_missing(site: Site, speak: str) -> None:
    name = f"gaps-{speak}"
    with site.agent(speak) as agent, site.agent("1", wide=True) as other:
        stuck = ask(agent, LONG, {**RESUMABLE, "Relay-Overflow": "drop"}, name=name)
        stream_id = name_of(stuck)
        state = site.over(stream_id)
        wanted = events_of(resume(other, stream_id).answer().body, stream_id)
        answer = stuck.answer()
    assert answer.clean
    got = events_of(answer.body, stream_id)
    found = account(got, wanted)
    assert found.dropped > 500
    assert found.merged == 0
    # What was kept for it: no more than the high mark, no less than the low one.
    behind = len(wanted) - found.gaps[-1][1]
    assert 60 * KIB < behind * 5200 < 300 * KIB
    assert got[-1].seq == state["events"], "the newest arrive"
    assert got[-1].raw == CHAT.terminal
    line = site.line(name)
    assert (line["dropped"], line["merged"], line["events"]) == (found.dropped, 0, len(wanted) - found.dropped)
    assert line["reason"] == "finished"


@pytest.mark.parametrize(("prefix", "fields"), [("/drop", {}), ("", {"Relay-Overflow": "drop"})])
def test_stream_without_ids_drops_whole_events_too(site: Site, speak: str, prefix: str, fields: dict[str, str]) -> None:
    with site.agent(speak) as agent, site.agent("1", wide=True) as other:
        wanted = events_of(ask(other, LONG).answer().body)
        stuck = ask(agent, LONG, fields, prefix=prefix)
        site.provider.wait(finished=2)
        open_up(agent)
        answer = stuck.answer()
    assert answer.clean
    got = events_of(answer.body)
    assert not any(event.seq for event in got)
    found = account(got, wanted)
    assert found.dropped > 500
    assert got[-1].raw == wanted[-1].raw
    assert len(got) - len(found.gaps) + found.dropped == len(wanted)


def test_feed_of_snapshots_without_ids_of_ours(site: Site, speak: str) -> None:
    """What drop is for: `/sse/ticker`, a feed of no known dialect."""
    fields = {"Simulate": "seed=32; events=8000; interval=0; size=400"}
    with site.agent(speak) as agent, site.agent("1", wide=True) as other:
        whole = other.ask("GET", "/sse/ticker", None, fields).answer()
        wanted = whole.body.split(b"\n\n")
        stuck = agent.ask("GET", "/drop/sse/ticker", None, fields)
        assert stuck.head() == 200
        site.provider.wait(finished=2)
        open_up(agent)
        answer = stuck.answer()
    assert answer.clean
    at, gaps = 0, 0
    for block in answer.body.split(b"\n\n"):
        if block.startswith(b"event: relay.gap"):
            gap = events_of(block + b"\n\n")[0].gap
            assert gap is not None
            assert gap[0] == at + 1
            at, gaps = gap[1], gaps + 1
        else:
            assert block == wanted[at], "the provider's own ids and all"
            at += 1
    assert gaps
    assert at == len(wanted)


def test_whoever_sticks_again_is_told_again(site: Site, speak: str) -> None:
    """The provider is slow enough to be caught up with in between."""
    simulate = "seed=33; events=1500; interval=0; size=5000"
    with site.agent(speak) as agent, site.agent("1", wide=True) as other:
        # Who is read in turns with the one that sticks: the provider waits for him meanwhile.
        healthy = ask(other, simulate, {**RESUMABLE, **PATIENT})
        stream_id = name_of(healthy)
        stuck = resume(agent, stream_id, "latest", {"Relay-Overflow": "drop", "X-Request-Id": f"again-{speak}"})
        assert stuck.head() == 200
        for _ in range(500):
            healthy.wait_for(b"\n\n")
        stuck.wait_for(b"event: relay.gap\n")
        for _ in range(5):
            stuck.wait_for(b"\n\n")
        wanted = events_of(healthy.answer().body, stream_id)
        site.over(stream_id)
        answer = stuck.answer()
    assert answer.clean
    got = events_of(answer.body, stream_id)
    if got[0].gap is not None:
        found = account(got, wanted, got[0].gap[0] - 1)
    else:
        found = account(got, wanted, first_of(got, wanted))
    assert len(found.gaps) >= 2
    assert got[-1].seq == len(wanted)
    assert site.line(f"again-{speak}")["dropped"] == found.dropped
