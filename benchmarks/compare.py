"""Two benchmarks of one harness, such as before and after a change: what got better, what got worse, what is noise.

    bench-compare BEFORE.json AFTER.json

The two were made at different times, and the machine may have been half as fast at one of them. Nothing is compared as
it stands unless it does not depend on speed:

* times, rates and clean streams are taken as ratios to the reference of the same repeat of the same file, and these
  ratios are compared; of delays, what both add to `direct` in that repeat. What is added alone would not do: a machine
  half as fast adds twice as much;
* memory, counts and what was lost are compared directly;
* where a file lacks the reference, times are compared as they are (delays over `direct`), and only a difference beyond
  the machine's own drift counts.

Exit code: 0; 1 if something got worse; 2 if the files cannot be compared.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.figures import FIGURES, Figure
from benchmarks.processes import BenchError
from benchmarks.results import Described, Results, load
from benchmarks.summary import subjects_in
from benchmarks.verdicts import (
    EXACT,
    FEWEST,
    SAME,
    WORTHWHILE,
    Estimate,
    Outcome,
    Spread,
    added,
    estimate_two,
    judge,
    reference_of,
    settle,
)

Basis = Literal["added, times reference", "times reference", "over direct", "absolute", "as it stands"]
WEAK: tuple[Basis, ...] = ("over direct", "absolute")

DRIFT = 0.5  # the same program's figures on the same shared machine, an hour later
TIMED_UNITS = ("us", "ms", "s", "/s")
TIMED_FIGURES = ("clean",)  # whether a gap was within 5 ms is a matter of the machine's speed, too
CONTROLS = ("direct", "floor", "fan")  # the harness's own: nobody's work gets better or worse with them


@dataclass(frozen=True)
class Change:
    """One figure of one subject in one scenario. `before` and `after` are on the basis that is named."""

    scenario: str
    subject: str
    figure: Figure
    basis: Basis
    reference: str  # empty if there is none
    before: Spread
    after: Spread
    estimate: Estimate | None
    is_first: bool = False  # of its scenario's figures, the one above all
    outcome: Outcome = "unclear"
    words: str = ""

    @property
    def text(self) -> str:
        """How much, with the 95 % interval."""
        if self.estimate is None:
            return "-"
        if not self.estimate.logs:
            return self.estimate.text(self.figure.digits)
        mean, low, high = (
            100 * (self.estimate.natural(value) - 1) for value in (self.estimate.mean, *self.estimate.interval)
        )
        return f"{mean:+,.0f} % ({low:+,.0f} to {high:+,.0f} %)"


@dataclass
class Comparison:
    said_first: list[str] = field(default_factory=list)  # what makes the two hard to compare
    changes: list[Change] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what worked before and fails now
    mended: list[str] = field(default_factory=list)
    only: list[str] = field(default_factory=list)  # what is in one of the two

    def having(self, outcome: Outcome) -> list[Change]:
        return [change for change in self.changes if change.outcome == outcome]

    @property
    def worse(self) -> bool:
        """Whether a build should stop here."""
        return bool(self.broken or self.having("worse"))


def compare(before: Results, after: Results) -> Comparison:
    """Scenarios and subjects that are in both. Raises BenchError if there are none."""
    comparison = Comparison(said_first=list(_differences(before, after)), only=list(_only(before, after)))
    shared = [one for one in after.scenarios if one.name in {other.name for other in before.scenarios}]
    if not shared:
        raise BenchError(
            f"the two have no scenario in common: {_names(before)} before, {_names(after)} after. "
            "Run both with the same scenarios"
        )
    changes: list[Change] = []
    for described in shared:
        reference = _reference(before, after, described)
        for subject in subjects_in(after, described.name):
            if subject in CONTROLS or not before.of(described.name, subject):
                continue
            _failures(before, after, described.name, subject, comparison)
            for name in described.figures:
                change = _change(before, after, described.name, subject, FIGURES[name], reference)
                if change is not None:
                    changes.append(replace(change, is_first=name == described.figures[0]))
    comparison.changes = _judged(changes)
    weak = {change.scenario: None for change in changes if change.basis in WEAK}
    if weak:
        comparison.said_first.append(
            "without a reference in both files times are compared as they are, which is weak: less than "
            f"{100 * DRIFT:.0f} % may be the machine's own drift. It concerns {', '.join(weak)}"
        )
    if changes and not any(change.estimate for change in changes):
        comparison.said_first.append(f"nothing can be told: at least {FEWEST} repeats are needed in each file")
    return comparison


def _names(results: Results) -> str:
    return ", ".join(one.name for one in results.scenarios) or "none"


def _differences(before: Results, after: Results) -> Iterator[str]:
    for key in {**before.machine, **after.machine}:
        was, now = before.machine.get(key, "not said"), after.machine.get(key, "not said")
        if was != now:
            yield f"{key}: {was} before, {now} after"
    for subject, version in after.subjects.items():
        was = before.subjects.get(subject, version)
        if was != version:
            yield f"version of {subject}: {was} before, {version} after"
    if before.command != after.command:
        yield f"command: {before.command} before, {after.command} after"
    earlier = {one.name: one for one in before.scenarios}
    for one in after.scenarios:
        other = earlier.get(one.name, one)
        if (one.title, one.told, one.streams) != (other.title, other.told, other.streams):
            yield f"scenario {one.name} is not the same in both: {other.title} before, {one.title} after"


def _only(before: Results, after: Results) -> Iterator[str]:
    for here, there, when in ((before, after, "before"), (after, before, "after")):
        scenarios = {one.name for one in there.scenarios}
        if missing := [one.name for one in here.scenarios if one.name not in scenarios]:
            yield f"scenarios only {when}: {', '.join(missing)}"
        if missing := [name for name in here.subjects if name not in there.subjects]:
            yield f"subjects only {when}: {', '.join(missing)}"


def _reference(before: Results, after: Results, described: Described) -> str:
    """One that both have, or none."""
    found = [reference_of(results, described) or "" for results in (before, after)]
    if found[0] == found[1]:
        return found[0]
    return "floor" if _both(before, after, described.name, "floor") else ""


def _both(before: Results, after: Results, scenario: str, subject: str) -> bool:
    return all(any(not run.failure for run in results.of(scenario, subject)) for results in (before, after))


def _failures(before: Results, after: Results, scenario: str, subject: str, comparison: Comparison) -> None:
    """Runs that give no figures never show in a ratio; that more than half of them fail needs no statistics."""
    shares = []
    for results in (before, after):
        runs = results.of(scenario, subject)
        shares.append((sum(1 for run in runs if run.failure or run.errors), len(runs)))
    (was, of_before), (now, of_after) = shares
    text = f"{subject} in {scenario}: {was} of {of_before} runs failed before, {now} of {of_after} after"
    if was == 0 and now * 2 > of_after:
        comparison.broken.append(text)
    elif now == 0 and was * 2 > of_before:
        comparison.mended.append(text)
    elif was != now:
        comparison.said_first.append(text)


def _change(
    before: Results, after: Results, scenario: str, subject: str, figure: Figure, reference: str
) -> Change | None:
    if figure.better == "neither":
        return None
    timed = figure.unit in TIMED_UNITS or figure.name in TIMED_FIGURES
    if timed and subject == reference:
        return None  # the rod itself: nothing is left to measure it with
    was, now = (added(results, scenario, subject, figure.name) for results in (before, after))
    others = [added(results, scenario, reference, figure.name) for results in (before, after)]
    over_direct = bool(was and now)
    if not over_direct:
        others = [results.values(scenario, reference, figure.name) for results in (before, after)]
    if not over_direct:
        was, now = (results.values(scenario, subject, figure.name) for results in (before, after))
    basis: Basis = "as it stands" if not timed else "over direct" if over_direct else "absolute"
    ratios = (_over(was, others[0]), _over(now, others[1]))
    if timed and all(ratios):
        (was, now), basis = ratios, "added, times reference" if over_direct else "times reference"
    if not was or not now:
        return None
    a, b = list(was.values()), list(now.values())
    logs = figure.name not in EXACT and min(*a, *b) > 0
    size = (statistics.median(map(abs, a)) + statistics.median(map(abs, b))) / 2
    if basis.endswith("times reference"):  # what a ratio of 1 is worth, in the figure's unit
        size *= statistics.median(value for other in others for value in other.values())
    samples = [[math.log(value) for value in values] if logs else values for values in (a, b)]
    found = estimate_two(samples[0], samples[1], logs=logs, size=size)
    before_spread, after_spread = Spread.of(a), Spread.of(b)
    assert before_spread is not None
    assert after_spread is not None
    return Change(scenario, subject, figure, basis, reference, before_spread, after_spread, found)


def _over(values: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """Ratios within each repeat; empty if any cannot be taken."""
    shared = sorted(values.keys() & other.keys())
    if any(other[repeat] <= 0 for repeat in shared):
        return {}
    return {repeat: values[repeat] / other[repeat] for repeat in shared}


def _judged(changes: Sequence[Change]) -> list[Change]:
    found = [change.estimate for change in changes if change.estimate is not None]
    figures = [change.figure for change in changes if change.estimate is not None]
    first = [change.is_first for change in changes if change.estimate is not None]
    settled, chances = settle(figures, found, ["one file and the other"] * len(found), first)
    pairs = iter(zip(settled, chances, strict=True))
    judged = []
    for change in changes:
        if change.estimate is None:
            judged.append(replace(change, words=f"no verdict: at least {FEWEST} repeats of each are needed"))
            continue
        one, chance = next(pairs)
        weak = change.basis in WEAK
        least, near = (DRIFT, 0.0) if weak else (WORTHWHILE, SAME)
        outcome, words = judge(
            one, change.figure, chance=chance, looked_at=first.count(change.is_first), least=least, near=near
        )
        if weak and outcome == "unclear":
            words = "unclear: without a reference the machine's drift hides it"
        judged.append(replace(change, estimate=one, outcome=outcome, words=words))
    return judged


def print_comparison(comparison: Comparison, console: Console, everything: bool = False) -> None:
    """What is doubtful first, then what got worse, what got better, and how much is noise."""
    for text in comparison.said_first:
        console.print(Text(f"! {text}", style="yellow"))
    for text in comparison.broken:
        console.print(Text(f"BROKEN  {text}", style="bold red"))
    for text in comparison.mended:
        console.print(Text(f"mended  {text}", style="green"))
    worse, better = comparison.having("worse"), comparison.having("better")
    same, unclear = comparison.having("same"), comparison.having("unclear")
    _print_changes("Worse", "red", worse, console)
    _print_changes("Better", "green", better, console)
    if everything:
        _print_changes("The same within 5 %", "dim", same, console)
        _print_changes("Unclear", "dim", unclear, console)
    console.print(
        Text(
            f"{len(comparison.changes)} figures compared: {len(worse)} worse, {len(better)} better, "
            f"{len(same)} the same within 5 %, {len(unclear)} unclear."
        )
    )
    if unclear and not everything:
        console.print(Text("Unclear means noise or too few repeats; --all lists them.", style="dim"))
    for text in comparison.only:
        console.print(Text(text, style="dim"))


def _print_changes(title: str, style: str, changes: Sequence[Change], console: Console) -> None:
    if not changes:
        return
    table = Table(title=Text(f"{title} ({len(changes)})", style=f"bold {style}"), title_justify="left", box=box.SIMPLE)
    for heading in ("subject", "scenario", "figure", "before", "after", "change (95 % interval)"):
        table.add_column(heading, justify="right" if heading in ("before", "after") else "left", overflow="fold")
    unclear = any(change.outcome == "unclear" for change in changes)
    if unclear:
        table.add_column("why", overflow="fold")
    for change in changes:
        measured = _measured(change)
        digits = 2 if change.basis.endswith("times reference") else change.figure.digits
        row = [
            Text(change.subject),
            Text(change.scenario),
            Text(change.figure.title + (f", {measured}" if measured else "")),
            Text(change.before.text(digits)),
            Text(change.after.text(digits)),
            Text(change.text, style=style),
        ]
        table.add_row(*row, *([Text(change.words)] if unclear else []))
    console.print(table)


def _measured(change: Change) -> str:
    """What the values before and after are."""
    if change.basis == "over direct":
        return f"{change.figure.unit} over direct"
    return (
        change.basis.replace("reference", f"{change.reference}'s")
        if "reference" in change.basis
        else change.figure.unit
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench-compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, metavar="BEFORE.json")
    parser.add_argument("after", type=Path, metavar="AFTER.json")
    parser.add_argument("--all", action="store_true", help="list what is the same or unclear, too")
    options = parser.parse_args(arguments)
    try:
        comparison = compare(load(options.before), load(options.after))
    except BenchError as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 2
    print_comparison(comparison, Console(), options.all)
    return 1 if comparison.worse else 0


if __name__ == "__main__":
    sys.exit(main())
