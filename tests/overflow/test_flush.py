"""Relay-Flush, and a route's flush, flush_events and smooth: fewer writes or even ones, the same bytes, nothing late
that somebody waits for."""

from __future__ import annotations

import pytest

from tests.overflow.ground import RESUMABLE, Site, ask, events_of, name_of, resume
from tests.pairs.calls import Call, Outcome
from tests.robustness.peers import CHAT, DIALECTS, Dialect

MANY = "seed=51; events=120; interval=1ms"
# What the provider says is one write of its own, whatever comes before and after.
_BEAT = b":\n"


def heard(call: Call) -> Outcome:
    answer = call.answer()
    assert (answer.status, answer.clean) == (200, True)
    assert _BEAT not in answer.chunks
    return answer


# What may be said


@pytest.mark.parametrize("said", ["20ms", "8", "8, 20ms", "8,20ms", "1", "0", "0ms", "1000", "5000ms", "120ms"])
def test_time_a_number_or_both_are_understood(site: Site, speak: str, said: str) -> None:
    with site.agent(speak, wide=True) as agent:
        answer = heard(ask(agent, "seed=52; events=3; interval=0", {"Relay-Flush": said}))
        assert answer.body.endswith(CHAT.terminal)


@pytest.mark.parametrize(
    "said",
    ["", "x", "20 ms", "20s", "-1", "8 20ms", "8;20ms", "8,", ",20ms", "20ms, 8", "1.5ms", "1001", "5001ms", "99999"],
)
def test_anything_else_is_refused(site: Site, speak: str, said: str) -> None:
    with site.agent(speak, wide=True) as agent:
        call = agent.post(CHAT.path, CHAT.asked(stream=True), "events=3", {"Relay-Flush": said})
        answer = call.answer()
        assert answer.status == 400, answer.body[:200]
        assert b"Relay-Flush" in answer.body
    assert site.provider.stats()["requests"] == 0, "the provider was asked all the same"


@pytest.mark.parametrize("said", ["", "none", "merge, drop", "buffer"])
def test_unknown_overflow_is_refused(site: Site, speak: str, said: str) -> None:
    with site.agent(speak, wide=True) as agent:
        call = agent.post(CHAT.path, CHAT.asked(stream=True), "events=3", {"Relay-Overflow": said})
        answer = call.answer()
        assert answer.status == 400
        assert b"Relay-Overflow" in answer.body
    assert site.provider.stats()["requests"] == 0


# Fewer writes


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize(
    ("prefix", "said"), [("", "8"), ("/eight", None), ("", "200ms"), ("/soon", None), ("", "8, 5000ms")]
)
def test_fewer_writes_carry_the_same_bytes(
    site: Site, speak: str, prefix: str, said: str | None, resumable: bool
) -> None:
    """A write is a chunk, or a DATA frame."""
    fields = {**(RESUMABLE if resumable else {}), **({"Relay-Flush": said} if said else {})}
    with site.agent(speak, wide=True) as agent:
        plain = heard(ask(agent, MANY))
        call = ask(agent, MANY, fields, prefix=prefix)
        fewer = heard(call)
        got = events_of(fewer.body)
    assert b"".join(event.raw for event in got) == plain.body
    assert [event.seq for event in got] == (list(range(1, len(got) + 1)) if resumable else [0] * len(got))
    assert len(fewer.chunks) <= 40


@pytest.mark.parametrize("prefix", ["/late", "/even"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.name for dialect in DIALECTS])
def test_first_content_and_the_end_do_not_wait(site: Site, speak: str, prefix: str, dialect: Dialect) -> None:
    """The second content comes after a minute, and a flush is due after five seconds; what can be read was not held."""
    with site.agent(speak, wide=True) as agent:
        call = agent.post(prefix + dialect.path, dialect.asked(stream=True), "seed=53; events=2; interval=60s")
        assert call.head() == 200
        while not any(event.text for event in events_of(_whole(call))):
            assert call._more()
        call.leave()
        site.provider.wait(aborted=1)
        call = agent.post(prefix + dialect.path, dialect.asked(stream=True), "seed=53; events=9; lie=hold-open")
        call.wait_for(dialect.terminal)
        call.leave()


def _whole(call: Call) -> bytes:
    body = bytes(call._body)
    return body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""


def test_asked_for_at_once_is_at_once_on_a_route_that_waits(site: Site, speak: str) -> None:
    with site.agent(speak, wide=True) as agent:
        call = ask(agent, "seed=54; events=3; interval=100ms", {"Relay-Flush": "1"}, prefix="/late")
        plain = heard(call)
    assert len(plain.chunks) >= 3


def test_whoever_comes_late_asks_for_himself(site: Site, speak: str) -> None:
    with site.agent(speak, wide=True) as agent, site.agent(speak, wide=True) as other:
        first = ask(agent, MANY, RESUMABLE)
        second = resume(other, name_of(first), headers={"Relay-Flush": "16"})
        few, many = heard(second), heard(first)
    assert few.body == many.body
    assert len(few.chunks) <= 30


# The same bytes


@pytest.mark.parametrize("form", ["crlf=1", "cr=1", "ping=2", "tools=1", "split=3", "unicode=1; size=3000"])
@pytest.mark.parametrize("said", ["8, 20ms", "3"])
def test_transparent_stream_stays_the_providers_byte_by_byte(site: Site, speak: str, form: str, said: str) -> None:
    with site.agent(speak, wide=True) as agent:
        for dialect in DIALECTS:
            simulate = f"seed=55; events=40; interval=0; {form}"
            own = heard(agent.post(dialect.path, dialect.asked(stream=True), simulate))
            got = heard(agent.post(dialect.path, dialect.asked(stream=True), simulate, {"Relay-Flush": said}))
            assert got.body == own.body


@pytest.mark.parametrize("fields", [{"Relay-Flush": "8"}, {"Relay-Overflow": "drop"}, {"Relay-Overflow": "merge"}])
def test_feeds_own_ids_are_left_alone(site: Site, speak: str, fields: dict[str, str]) -> None:
    simulate = {"Simulate": "seed=56; events=50; interval=0; ping=3"}
    with site.agent(speak, wide=True) as agent:
        own = heard(agent.ask("GET", "/sse/ticker", None, simulate))
        got = heard(agent.ask("GET", "/sse/ticker", None, {**simulate, **fields}))
    assert own.body.count(b"id: ") == 50
    assert got.body == own.body


def test_last_event_that_lacks_its_empty_line_stays_as_it_is(site: Site, speak: str) -> None:
    """And half an event is dropped, as it is without a flush."""
    with site.agent(speak, wide=True) as agent:
        simulate = "seed=57; events=6; interval=0; lie=half-event; at=4"
        own = agent.post(CHAT.path, CHAT.asked(stream=True), simulate).answer()
        got = agent.post(CHAT.path, CHAT.asked(stream=True), simulate, {"Relay-Flush": "8"}).answer()
    assert (got.body, got.clean) == (own.body, own.clean)


# Evenly


def test_burst_leaves_in_several_writes(site: Site, speak: str) -> None:
    simulate = "seed=58; events=60; interval=80ms; burst=20"
    with site.agent(speak, wide=True) as agent:
        plain = heard(ask(agent, simulate))
        even = heard(ask(agent, simulate, prefix="/even"))
    assert even.body == plain.body
    assert len(plain.chunks) <= 12
    assert len(even.chunks) >= 3 * len(plain.chunks)


@pytest.mark.parametrize("size", [0, 1000])
def test_burst_of_thousands_is_not_lost_in_being_spread(site: Site, speak: str, size: int) -> None:
    """More than leaves within the bound one by one, and more than one write gives."""
    simulate = f"seed=59; events=3000; interval=0; size={size}"
    with site.agent(speak, wide=True) as agent:
        plain = heard(ask(agent, simulate))
        even = heard(ask(agent, simulate, prefix="/even"))
    assert even.body == plain.body
