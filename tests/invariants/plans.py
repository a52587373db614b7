"""Schedules: what is generated, and what its readers do meanwhile. Drawn by Hypothesis as a whole, so that one that
fails can be read, and shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from tests.invariants.readers import USUAL, Sight
from tests.invariants.scripts import DIALECTS, LIES, Script

MODES = ("merge", "disconnect", "pause", "drop")
AIMS = ("any", "utf8", "data", "crlf", "id", "border")
BACKS = ("header", "header-bare", "query", "query-bare", "post")


@dataclass(frozen=True)
class Back:
    """How a reader asks for a stream that is known. `overflow` "" says nothing."""

    how: str = "header"
    overflow: str = ""
    sight: Sight = USUAL


@dataclass(frozen=True)
class Read:
    """Read so many more bytes."""

    who: int
    amount: int


@dataclass(frozen=True)
class Cut:
    """Read so many more bytes and lose the connection there, or at the next place that is aimed at; come back."""

    who: int
    amount: int
    aim: str
    leave: str
    back: Back


@dataclass(frozen=True)
class Leave:
    """Go, for good."""

    who: int
    leave: str


@dataclass(frozen=True)
class Join:
    """One more reader: from the `start`, the `latest`, or behind `part` percent of what is known."""

    after: str
    part: int
    back: Back


@dataclass(frozen=True)
class Stall:
    """Read nothing until the provider has said `part` percent of its events."""

    part: int


@dataclass(frozen=True)
class Cancel:
    how: str


Step = Read | Cut | Leave | Join | Stall | Cancel


@dataclass(frozen=True)
class Plan:
    """`key`: the request has an Idempotency-Key. `early`: it is made once before, and left before its answer."""

    script: Script
    steps: Sequence[Step] = ()
    overflow: str = ""
    sight: Sight = USUAL
    key: bool = False
    early: bool = False
    on_disconnect: str = ""


def _at_times(value: str, *, one_in: int) -> st.SearchStrategy[str]:
    return st.sampled_from(["", *[""] * (one_in - 2), value])


# Of what is said, the dialect's own: not all have it, and then it changes nothing.
_CONTENT = st.sampled_from(
    [
        "",
        "",
        "tools=1",
        "reasoning=1",
        "tools=1; reasoning=1",
        "crlf=1",
        "cr=1",
        "tools=1; reasoning=1; crlf=1",
        "crlf=1; ping=4",
        "ping=3",
        "ping=2; cr=1",
        "n=2",
        "n=3; tools=1; usage=always",
        "usage=always; crlf=1",
        "unicode=0",
    ]
)
_PACE = st.sampled_from(["", "", "", "burst=4", "burst=16", "gzip=1", "encoding=br", "split=7", "split=8"])


def small_scripts(intervals: Sequence[int]) -> st.SearchStrategy[Script]:
    return st.builds(
        Script,
        dialect=st.sampled_from(DIALECTS),
        seed=st.integers(1, 4),
        events=st.sampled_from([0, 1, 5, 20, 40]),
        size=st.sampled_from([0, 0, 0, 1, 90, 700]),
        content=_CONTENT,
        # Half of them end as they should.
        lie=st.one_of(st.just("none"), st.sampled_from(LIES)),
        at=st.sampled_from([0, 1, 3, 11]),
        pace=_PACE,
        interval=st.sampled_from(intervals),
        upstream=st.sampled_from(["1", "2"]),
    )


def large_scripts() -> st.SearchStrategy[Script]:
    """So much that a reader can fall behind, whatever its connection holds."""
    return st.builds(
        Script,
        dialect=st.sampled_from(DIALECTS),
        seed=st.integers(1, 2),
        events=st.sampled_from([60, 120]),
        size=st.sampled_from([1000, 5000, 5000, 12_000]),
        content=st.sampled_from(["", "tools=1; reasoning=1", "crlf=1", "n=2; reasoning=1"]),
        lie=st.sampled_from(["none", "none", "none", "cut", "error", "mid-stall"]),
        at=st.sampled_from([30, 55]),
        pace=st.sampled_from(["", "burst=16", "gzip=1"]),
        interval=st.sampled_from([0, 0, 0, 0, 1]),
        upstream=st.sampled_from(["1", "2"]),
    ).map(_within_limits)


def _within_limits(script: Script) -> Script:
    """An event that repeats the whole text must not be longer than what is kept of one: 1 MiB."""
    return replace(script, size=min(script.size, 5000)) if script.dialect == "responses" else script


def sights(http: str, *, slow: bool = False) -> st.SearchStrategy[Sight]:
    flush = st.sampled_from(["", "", "", "", "4", "20ms", "8, 5ms"])
    if http == "1":
        most = [1000, 4096, 65536] if slow else [7, 100, 1000, 65536]
        return st.builds(Sight, most=st.sampled_from(most), small=st.just(True) if slow else st.booleans(), flush=flush)
    windows = [2048, 8192, 65535] if slow else [100, 600, 4096, 65535]
    return st.builds(Sight, window=st.sampled_from(windows), shared=st.booleans(), flush=flush)


def backs(http: str, overflows: Sequence[str], *, slow: bool = False) -> st.SearchStrategy[Back]:
    return st.builds(
        Back, how=st.sampled_from(BACKS), overflow=st.sampled_from(overflows), sight=sights(http, slow=slow)
    )


def chains(http: str) -> st.SearchStrategy[Plan]:
    """One reader that is cut off again and again; every third time with CR LF between the lines, and there."""
    scripts = small_scripts([0, 0, 1])
    within = scripts.map(lambda script: replace(script, content="crlf=1; ping=4; tools=1"))
    return st.one_of(_chains(http, scripts, AIMS), _chains(http, scripts, AIMS), _chains(http, within, ["crlf", "any"]))


def _chains(http: str, scripts: st.SearchStrategy[Script], aims: Sequence[str]) -> st.SearchStrategy[Plan]:
    overflows = ("", *MODES)
    cut = st.builds(
        Cut,
        who=st.just(0),
        amount=st.integers(0, 2500),
        aim=st.sampled_from(aims),
        leave=st.sampled_from(["fin", "rst", "stream"]),
        back=backs(http, overflows),
    )
    other = st.one_of(st.builds(Stall, st.integers(0, 100)), st.builds(Read, st.just(0), st.integers(1, 2000)))
    return st.builds(
        Plan,
        script=scripts,
        steps=st.lists(st.one_of(cut, cut, cut, other), min_size=2, max_size=8),
        overflow=st.sampled_from(overflows),
        sight=sights(http),
        key=st.booleans(),
        early=st.sampled_from([False, False, False, True]),
        on_disconnect=_at_times("continue", one_in=4),
    )


def audiences(http: str) -> st.SearchStrategy[Plan]:
    """Many readers of one stream, who come and go; at times it is cancelled."""
    overflows = ("", *MODES)
    who = st.integers(0, 5)
    back = backs(http, overflows)
    leave = st.sampled_from(["fin", "rst", "stream"])
    join = st.builds(Join, st.sampled_from(["start", "number", "number", "latest"]), st.integers(0, 100), back)
    step = st.one_of(
        join,
        join,
        st.builds(Read, who, st.integers(1, 1500)),
        st.builds(Read, who, st.integers(1, 1500)),
        st.builds(Stall, st.integers(0, 100)),
        st.builds(Cut, who, st.integers(0, 1500), st.sampled_from(AIMS), leave, back),
        st.builds(Leave, who, leave),
    )
    # A cancel is the last thing that is decided, but not the last that happens.
    cancel = st.sampled_from([(), (), (), (Cancel("DELETE"),), (Cancel("POST"),)])
    return st.builds(
        _audience,
        before=st.lists(step, min_size=1, max_size=7),
        cancels=cancel,
        after=st.lists(step, max_size=3),
        script=small_scripts([0, 1, 1]),
        overflow=st.sampled_from(overflows),
        sight=sights(http),
        key=st.booleans(),
        on_disconnect=st.sampled_from(["", "", "", "continue", "cancel"]),
    )


def _audience(
    before: Sequence[Step], cancels: Sequence[Step], after: Sequence[Step], script: Script, **rest: Any
) -> Plan:
    if cancels:
        # It takes a while, or for ever: else it would be over before it is cancelled.
        lie = "mid-stall" if script.lie in ("mid-stall", "cut", "error") else "none"
        script = replace(script, events=40, interval=2, pace="", lie=lie)
    return Plan(script, steps=(*before, *cancels, *after), **rest)


def laggards(http: str, mode: str) -> st.SearchStrategy[Plan]:
    """A reader who stalls while a large stream goes on, beside one who does not."""
    modes = (mode, mode, mode, *MODES)
    back = backs(http, modes, slow=True)
    amount = st.sampled_from([500, 6000, 50_000])
    step = st.one_of(
        st.builds(Stall, st.sampled_from([30, 60, 100])),
        st.builds(Stall, st.sampled_from([30, 60, 100])),
        st.builds(Read, st.integers(0, 2), amount),
        st.builds(Cut, st.integers(0, 2), amount, st.sampled_from(AIMS), st.sampled_from(["fin", "rst"]), back),
        st.builds(Join, st.sampled_from(["start", "number", "latest"]), st.integers(0, 100), back),
    )
    return st.builds(
        Plan,
        script=large_scripts(),
        steps=st.lists(step, min_size=1, max_size=5),
        overflow=st.just(mode),
        sight=sights(http, slow=True),
    )


def plains(http: str, *, slow: bool) -> st.SearchStrategy[Plan]:
    """One reader of a stream that is not kept."""
    amount = st.sampled_from([500, 6000, 50_000]) if slow else st.integers(1, 2000)
    step = st.one_of(
        st.builds(Read, st.just(0), amount),
        st.builds(Stall, st.sampled_from([30, 60, 100])),
        st.builds(Read, st.just(0), amount),
    )
    leave = st.sampled_from([(), (), (), (), (Leave(0, "fin"),), (Leave(0, "rst"),), (Leave(0, "stream"),)])
    return st.builds(
        lambda steps, leaves, **rest: Plan(steps=(*steps, *leaves), **rest),
        steps=st.lists(step, max_size=4),
        leaves=leave,
        script=large_scripts() if slow else small_scripts([0, 0, 1]),
        overflow=st.sampled_from(["", *MODES]),
        sight=sights(http, slow=slow),
    )
