"""merge: who lags gets fewer and larger events, that say the same; nobody else notices."""

from __future__ import annotations

import json

import pytest

from tests.overflow.ground import KIB, PATIENT, RESUMABLE, Site, account, ask, events_of, first_of, name_of, resume
from tests.robustness.peers import CHAT, DIALECTS, Dialect

# Together under a mebibyte, so that a reader that takes nothing is still not cut off.
LONG = "seed=5; events=3500; interval=0; usage=always"


@pytest.mark.parametrize(
    ("speak", "spoken"),
    [*((version, dialect) for version in "12" for dialect in DIALECTS), ("1-tls", CHAT), ("2-tls", CHAT)],
    ids=lambda said: said if isinstance(said, str) else said.name,
)
def test_stuck_reader_gets_the_same_in_fewer_events(site: Site, speak: str, spoken: Dialect) -> None:
    name = f"merge-{speak}-{spoken.name}"
    simulate = f"{LONG}; reasoning=1; tools=1; unicode=1"
    with site.agent(speak) as agent, site.agent("1") as other:
        fields = {**RESUMABLE, "X-Request-Id": name}
        call = agent.post(spoken.path, spoken.asked(stream=True), simulate, fields)
        assert call.head() == 200
        stream_id = name_of(call)
        state = site.over(stream_id)
        assert state["bytes"] < 1000 * KIB, "the test's own bound"
        wanted = events_of(resume(other, stream_id).answer().body, stream_id)
        answer = call.answer()
    assert answer.clean
    got = events_of(answer.body, stream_id)
    found = account(got, wanted)
    assert got[-1].seq == wanted[-1].seq == state["events"]
    assert spoken.terminal.strip() in got[-1].raw
    assert found.merged > 1000
    assert max(len(event.raw) for event in got) > 3 * max(len(event.raw) for event in wanted[10:20])
    assert found.dropped == 0
    line = site.line(name)
    assert (line["merged"], line["dropped"], line["events"]) == (found.merged, 0, len(wanted))
    assert line["reason"] == "finished"


def test_merged_events_are_16_kib_at_the_most(site: Site, speak: str) -> None:
    with site.agent(speak) as agent, site.agent("1") as other:
        call = ask(agent, "seed=6; events=1200; interval=0; size=600", RESUMABLE)
        stream_id = name_of(call)
        site.over(stream_id)
        wanted = events_of(resume(other, stream_id).answer().body)
        got = events_of(call.answer().body)
    assert account(got, wanted).merged > 100
    sizes = [len(event.raw) for event in got]
    assert 8 * KIB < max(sizes) <= 16 * KIB


def test_choices_are_not_mixed(site: Site, speak: str) -> None:
    """Adjacent events of different choices are no neighbours."""
    with site.agent(speak) as agent, site.agent("1") as other:
        call = ask(agent, "seed=7; events=3000; interval=0; n=3", RESUMABLE)
        stream_id = name_of(call)
        site.over(stream_id)
        wanted = events_of(resume(other, stream_id).answer().body)
        got = events_of(call.answer().body)
    account(got, wanted)
    for index in range(3):
        assert _text(got, index) == _text(wanted, index) != ""


def _text(events: list, index: int) -> str:  # type: ignore[type-arg]
    texts = []
    for event in events:
        if event.raw.startswith(b"data: {"):
            choices = json.loads(event.raw[6:])["choices"]
            texts += [choice["delta"].get("content") or "" for choice in choices if choice["index"] == index]
    return "".join(texts)


def test_transparent_stream_is_merged_where_it_is_asked_for(site: Site, speak: str) -> None:
    """No ids; the same text all the same."""
    with site.agent(speak) as agent, site.agent("1") as other:
        call = ask(agent, LONG, {"Relay-Overflow": "merge"}, name=f"merge-plain-{speak}")
        site.provider.wait(finished=1)
        wanted = events_of(ask(other, LONG).answer().body)
        answer = call.answer()
    assert answer.clean
    got = events_of(answer.body)
    found = account(got, wanted)
    assert found.merged > 1000
    assert got[-1].raw == wanted[-1].raw == CHAT.terminal
    assert not any(event.seq for event in got)
    assert site.line(f"merge-plain-{speak}")["merged"] == found.merged


def test_route_may_say_it(site: Site, speak: str) -> None:
    with site.agent(speak) as agent:
        call = ask(agent, LONG, prefix="/merge", name=f"merge-route-{speak}")
        site.provider.wait(finished=1)
        assert call.answer().clean
    assert site.line(f"merge-route-{speak}")["merged"] > 1000


def test_who_keeps_up_and_who_replays_gets_events_as_they_came(site: Site, speak: str) -> None:
    simulate = "seed=8; events=3800; interval=0"
    with site.agent(speak) as stuck_agent, site.agent(speak, wide=True) as agent, site.agent("1") as other:
        healthy = ask(agent, simulate, {**RESUMABLE, **PATIENT}, name=f"healthy-{speak}")
        stream_id = name_of(healthy)
        stuck = resume(stuck_agent, stream_id, "latest", {"Relay-Overflow": "merge"})
        assert stuck.head() == 200
        live = events_of(healthy.answer().body)
        replayed = events_of(resume(other, stream_id).answer().body)
        merged = events_of(stuck.answer().body)
    assert live == replayed
    assert [event.seq for event in live] == list(range(1, len(live) + 1))
    assert account(merged, live, first_of(merged, live)).merged > 100
    assert site.line(f"healthy-{speak}")["merged"] == 0
