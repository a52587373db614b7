"""pause: the provider waits for its slowest reader, and memory stays flat."""

from __future__ import annotations

import pytest

from tests.overflow.ground import MIB, RESUMABLE, Site, ask, events_of, name_of, open_up, resume
from tests.robustness.peers import CHAT

# 5 MB, of which the way cannot take half.
NUMBER = 250
LONG = f"seed=21; events={NUMBER}; interval=0; size=20000"
_MODES = {
    "transparent": ("/held", {}),
    "asked": ("/held", {"Relay-Overflow": "pause"}),
    "route": ("/pause", {}),
    "resumable": ("/held", {**RESUMABLE, "Relay-Overflow": "pause"}),
    "flushed": ("/held", {"Relay-Flush": "8, 20ms"}),
}


@pytest.mark.parametrize(
    ("speak", "kind"), [*(("1", kind) for kind in _MODES), ("2", "transparent"), ("2", "resumable"), ("2", "flushed")]
)
def test_stuck_reader_holds_its_provider_and_loses_nothing(site: Site, speak: str, kind: str) -> None:
    prefix, fields = _MODES[kind]
    with site.agent(speak) as agent, site.agent("1", wide=True) as other:
        own = ask(other, LONG).answer().body
        site.provider.wait(finished=1)
        site.provider.reset()
        before = site.relay.resident()
        stuck = ask(agent, LONG, fields, prefix=prefix, name=f"pause-{kind}-{speak}")
        said = site.still()
        stats = site.provider.stats()
        assert (stats["finished"], stats["aborted"]) == (0, 0)
        # Windows, the client's kernel, and the high mark.
        assert said < 2 * MIB
        assert site.relay.resident() - before < 4 * MIB
        open_up(agent)
        answer = stuck.answer()
        assert answer.clean, site.line(f"pause-{kind}-{speak}")
        site.provider.wait(finished=1)
    got = events_of(answer.body)
    assert b"".join(event.raw for event in got) == own
    line = site.line(f"pause-{kind}-{speak}")
    assert (line["reason"], line.get("merged", 0), line.get("dropped", 0)) == ("finished", 0, 0)


def test_provider_of_several_waits_for_who_began_and_goes_on_when_he_leaves(site: Site, speak: str) -> None:
    with site.agent(speak) as agent, site.agent(speak, wide=True) as other:
        stuck = ask(agent, LONG, {**RESUMABLE, "Relay-Overflow": "pause"}, prefix="/held")
        stream_id = name_of(stuck)
        site.still()
        seen = site.state(stream_id)["events"]
        healthy = resume(other, stream_id)
        for _ in range(seen):
            healthy.wait_for(b"\n\n")
        assert site.state(stream_id)["events"] == seen, "it has come to the present, which does not move"
        stuck.leave()
        healthy.wait_for(b"\n\n")
        assert site.over(stream_id)["events"] > seen
        got = events_of(resume(other, stream_id).answer().body)
    assert [event.seq for event in got] == list(range(1, len(got) + 1))
    assert got[-1].raw == CHAT.terminal


def test_nobody_else_may_hold_the_provider(site: Site, speak: str) -> None:
    """He who joins another's stream and sticks is treated as if he had not asked for it."""
    name = f"no-pause-{speak}"
    with site.agent(speak, wide=True) as agent, site.agent(speak) as other:
        first = ask(agent, LONG, {**RESUMABLE, "Relay-Overflow": "pause"}, prefix="/held")
        stream_id = name_of(first)
        stuck = resume(other, stream_id, "latest", {"Relay-Overflow": "pause", "X-Request-Id": name})
        assert stuck.head() == 200
        answer = first.answer()
        assert answer.clean
        assert len(events_of(answer.body)) == site.over(stream_id)["events"] > NUMBER
        assert site.line(name)["reason"] == "client_behind"
