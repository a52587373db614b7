"""disconnect: past its bounds the reader is cut off, may resume, and is told why when it does."""

from __future__ import annotations

import pytest

from tests.overflow.ground import KIB, MIB, PATIENT, RESUMABLE, Site, ask, events_of, name_of, resume, whole_events
from tests.pairs.agent2 import Call2
from tests.pairs.calls import Agent, Call
from tests.robustness.peers import CHAT

CUT = {**RESUMABLE, "Relay-Overflow": "disconnect"}


def cut_off(call: Call) -> bytes:
    """What came of an answer that was broken off."""
    answer = call.answer()
    assert not answer.clean
    if isinstance(call, Call2):
        assert answer.broken, "its stream alone has ended"
        assert not call.client.over, "its connection lives"
    return whole_events(answer.body)


def the_rest(agent: Agent, stream_id: str, body: bytes) -> list[bytes]:
    """What a reader has in the end who resumes from the last id that it has read whole."""
    got = events_of(body, stream_id)
    call = resume(agent, stream_id, f"{stream_id}-{got[-1].seq}")
    answer = call.answer()
    assert answer.clean
    assert answer.headers["relay-last-disconnect"] == "client_behind"
    got += events_of(answer.body, stream_id)
    assert [event.seq for event in got] == list(range(got[0].seq, got[-1].seq + 1)), "a hole, or a repeat"
    return [event.raw for event in got]


@pytest.mark.parametrize("speak", ["1", "2", "1-tls", "2-tls"])
@pytest.mark.parametrize("mode", ["disconnect", "merge"])
def test_reader_past_a_mebibyte_is_cut_off_and_resumes(site: Site, speak: str, mode: str) -> None:
    """Events of 20 kB, which have no room to be merged: for them merge is the same."""
    name = f"cut-{mode}-{speak}"
    simulate = "seed=11; events=400; interval=1ms; size=20000"
    with site.agent(speak) as agent, site.agent(speak, wide=True) as other:
        call = ask(other, simulate, {**RESUMABLE, **PATIENT})
        stream_id = name_of(call)
        stuck = resume(agent, stream_id, "latest", {"Relay-Overflow": mode, "X-Request-Id": name})
        assert stuck.head() == 200
        healthy = call.answer()
        assert healthy.clean, "the other's fate"
        wanted = [event.raw for event in events_of(healthy.body, stream_id)]
        line = site.line(name)
        assert (line["reason"], line["status"]) == ("client_behind", 200)
        assert site.over(stream_id)["last_disconnect"] == "client_behind"
        body = cut_off(stuck)
        assert len(events_of(body)) <= line["events"] < 400, "what was given to its socket, and may have arrived"
        rest = the_rest(agent, stream_id, body)
    assert rest == wanted[-len(rest) :]
    assert wanted[-1] == CHAT.terminal
    assert site.provider.stats()["finished"] == 1


def test_cut_comes_past_the_bound_and_not_before(site: Site, speak: str) -> None:
    """Just under a mebibyte waits, whatever the kernel took: it is all there. A little more than all the kernel and the
    bound take, and it is cut."""
    with site.agent(speak) as agent:
        call = ask(agent, "seed=12; events=125; interval=0; size=8000", CUT, name=f"under-{speak}")
        assert site.over(name_of(call))["bytes"] < MIB
        answer = call.answer()
        assert answer.clean
        assert site.line(f"under-{speak}")["merged"] == 0
        call = ask(agent, "seed=12; events=250; interval=1ms; size=8000", CUT, name=f"over-{speak}")
        line = site.line(f"over-{speak}")
        assert line["reason"] == "client_behind"
        cut_off(call)


def test_ten_thousand_events_are_a_bound_too(site: Site, speak: str) -> None:
    """Less than 50 bytes each: together under a mebibyte."""
    with site.agent(speak) as agent, site.agent("1") as other:
        fields = {**CUT, "Simulate": "seed=13; events=16000; interval=0", "X-Request-Id": f"crumbs-{speak}"}
        stuck = agent.ask("GET", "/sse/ticker", None, fields)
        assert stuck.head() == 200
        stream_id = name_of(stuck)
        state = site.over(stream_id)
        assert state["bytes"] < 900 * KIB
        line = site.line(f"crumbs-{speak}")
        assert line["reason"] == "client_behind"
        wanted = [event.raw for event in events_of(resume(other, stream_id).answer().body)]
        assert len(wanted) == 16_000
        assert the_rest(agent, stream_id, cut_off(stuck)) == wanted


def test_unknown_dialect_that_can_be_resumed_is_cut_off_by_default(site: Site, speak: str) -> None:
    with site.agent(speak) as agent:
        fields = {**RESUMABLE, "Simulate": "seed=13; events=300; interval=1ms; size=9000", "X-Request-Id": f"d-{speak}"}
        stuck = agent.ask("GET", "/sse/ticker", None, fields)
        assert stuck.head() == 200
        assert site.line(f"d-{speak}")["reason"] == "client_behind"
        cut_off(stuck)


@pytest.mark.parametrize("prefix", ["", "/disconnect"])
def test_transparent_stream_ends_with_its_reader(site: Site, speak: str, prefix: str) -> None:
    """Nobody can resume it: the provider is not kept for nobody."""
    fields = {} if prefix else {"Relay-Overflow": "disconnect"}
    with site.agent(speak) as agent:
        stuck = ask(agent, "seed=14; events=20000; interval=1ms; size=8000", fields, prefix=prefix)
        stream_id = name_of(stuck)
        site.provider.wait(aborted=1)
        body = cut_off(stuck)
        assert not any(event.seq for event in events_of(body))
        state = site.over(stream_id, "cancelled")
        assert state["last_disconnect"] == "client_behind"
        assert resume(agent, stream_id).answer().status == 404


def test_who_resumes_is_not_behind_before_it_has_been_at_the_present(site: Site, speak: str) -> None:
    """However far that is: what it replays is kept for all."""
    with site.agent(speak) as agent, site.agent("1", wide=True) as other:
        call = ask(agent, "seed=15; events=300; interval=2ms; size=8000", CUT, name=f"first-{speak}")
        stream_id = name_of(call)
        assert site.line(f"first-{speak}")["reason"] == "client_behind"
        body = cut_off(call)
        again = resume(agent, stream_id, events_of(body, stream_id)[-1].seq, CUT)
        assert again.head() == 200
        assert site.over(stream_id)["bytes"] > 2 * MIB
        answer = again.answer()
        assert answer.clean
        assert body + answer.body == resume(other, stream_id).answer().body
