"""The harness checked against itself: what is put into a relay must be found, at its size, and nothing else.

A relay, the same once more, one that spends 5 us of CPU more on each event and one whose events leave 2 ms later are
measured beside each other like any others.

The cost is put in as user time, and looked for there: in all there is more of it than was put in (7.4 us of 5 at
500x20, 6.9 at 1500x20), because a relay that is slower between two writes finds its client asleep again, and the kernel
has to wake it. So it is done where the relay and its client are busy.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from rich.console import Console
from rich.table import Table

from benchmarks import terminal
from benchmarks.plan import choose_steady, in_turn
from benchmarks.processes import RunError
from benchmarks.results import Results, Run
from benchmarks.stage import Stage
from benchmarks.subjects import Programs, Relay, Setting, Subject
from benchmarks.verdicts import Spread, corrected, ratio, verdict

TOP = Path(__file__).resolve().parent.parent
PAIRS_SECONDS = 3.0  # of a window: more and shorter runs tell more than few and long ones
# A cost shows where events are many and the relay is awake; the thread that delays events must not be what is measured.
COSTS_IN, DELAYS_IN = "1500x20", "100x20"
COST_US, DELAY_MS = 5.0, 2.0
TOLERANCE = 0.2  # of what was put in: a fifth of it is what a shared machine adds or hides


class Twin(Relay):
    """The same relay under another name."""

    name = "twin"


class Handicapped(Relay):
    """A relay that is worse by a known amount."""

    name = "handicapped"
    handicap: ClassVar[tuple[str, ...]] = ()

    def command(self, setting: Setting) -> list[str]:
        _, *arguments = super().command(setting)
        return [sys.executable, "-m", "benchmarks.handicap", *self.handicap, *arguments]

    def environment(self, setting: Setting) -> dict[str, str] | None:
        return {**(super().environment(setting) or {}), "PYTHONPATH": str(TOP)}


class Costly(Handicapped):
    name = "costly"
    handicap = ("--cpu-us", f"{COST_US:g}")


class Free(Handicapped):
    """Handicapped by nothing: what the handicap's own frame costs is no part of what was put in."""

    name = "free"
    handicap = ("--cpu-us", "0")


class Late(Handicapped):
    name = "late"
    handicap = ("--delay-ms", f"{DELAY_MS:g}")


@dataclass(frozen=True)
class Finding:
    """What was put in, and what was found of it."""

    what: str
    put_in: float
    found: Spread
    unit: str
    right: bool


def differences(results: Results, scenario: str, pair: tuple[str, str], figure: str) -> list[float]:
    """Of the first from the second, repeat by repeat."""
    mine, base = (results.values(scenario, name, figure) for name in pair)
    return [mine[repeat] - base[repeat] for repeat in mine if repeat in base]


def finding(found: list[float], put_in: float, what: str, unit: str) -> Finding:
    if len(found) < 3:
        raise RunError(f"{what}: it could not be measured often enough")
    off = abs(statistics.median(found) - put_in)
    spread = Spread.of(found)
    assert spread is not None
    return Finding(what, put_in, spread, unit, off <= TOLERANCE * put_in)


def play(stage: Stage, plan: Mapping[str, Sequence[Subject]], repeat: int) -> Results:
    scenarios = {scenario.name: replace(scenario, seconds=PAIRS_SECONDS) for scenario in choose_steady(list(plan))}
    results = Results("", 0, "", {}, {}, {}, [scenario.describe() for scenario in scenarios.values()])
    todo = [
        (number, scenario, subject)
        for number in range(1, repeat + 1)
        for name, scenario in scenarios.items()
        for subject in in_turn(plan[name], number)
    ]
    with terminal.progress(len(todo), sum(scenario.estimate for _, scenario, _ in todo)) as step:
        for number, scenario, subject in todo:
            step(f"{scenario.name}: {subject.name}, {number} of {repeat}", scenario.estimate)
            run = Run(scenario.name, subject.name, number)
            try:
                scenario.play(stage, subject, run)
            except RunError as error:
                run.failure = str(error)
            results.runs.append(run)
    return results


def check(programs: Programs, repeat: int, console: Console) -> int:
    """Exit code: 0 if all was found at its size."""
    relay, twin, free, costly, late = (kind(programs.relay) for kind in (Relay, Twin, Free, Costly, Late))
    plan = {COSTS_IN: (relay, twin, free, costly), DELAYS_IN: (relay, late)}
    results = play(Stage(programs.directory), plan, repeat)
    for run in results.runs:
        for said in (*([run.failure] if run.failure else []), *run.errors, *run.remarks):
            console.print(f"{run.subject}, {run.repeat}: {said}", highlight=False)
    cost = differences(results, COSTS_IN, ("costly", "free"), "user_us")
    delay = differences(results, DELAYS_IN, ("late", "relay"), "delay_p50_ms")
    findings = [
        finding(cost, COST_US, "user time put into each event", "us"),
        finding(delay, DELAY_MS, "delay put into each event", "ms"),
    ]
    console.print(table(findings))
    good = all(one.right for one in findings)
    twins = [
        compared
        for figure in ("cpu_us", "delay_p50_ms", "delay_p99_ms", "gap_p99_ms", "rss_kib")
        if (compared := ratio(results, COSTS_IN, "twin", "relay", figure)) is not None
    ]
    chances = corrected([one.estimate.chance for one in twins if one.estimate is not None])
    for compared, chance in zip(twins, chances, strict=True):
        judged = verdict(compared, chance=chance, looked_at=len(twins))
        good = good and judged.outcome not in ("better", "worse")
        told = f"the same relay twice, {compared.figure.title}: {compared.text()}: {judged.words}"
        console.print(told, highlight=False, soft_wrap=True)
    console.print("all was found at its size, and nothing else" if good else "NOT what was put in")
    return 0 if good else 1


def table(findings: Sequence[Finding]) -> Table:
    made = Table("", "put in", "found, in pairs", "", title="What was put into a relay, and found")
    for one in findings:
        unit = one.unit
        made.add_row(
            one.what, f"{one.put_in:g} {unit}", f"{one.found.text(2)} {unit}", "found" if one.right else "NOT FOUND"
        )
    return made
