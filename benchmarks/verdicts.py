"""What may be said about figures of a machine that drifts: better, worse, the same, or nothing.

The rules, and why:

1. Ratios are taken between runs of one repeat only. Those were neighbours in time; on a shared machine the same program
   takes half as much again an hour later.
2. What is estimated is the mean of the logarithms of these ratios: twice and half then weigh the same, and noise that
   multiplies becomes noise that adds. Its 95 % interval is Student's. With fewer than three repeats nothing is said.
   Values that are not all above zero have no logarithm: for them it is the mean of the differences.
3. A spread that is estimated from five values is itself uncertain by a third, which costs most of the power where many
   figures are compared. Scenarios of one figure therefore lend each other their spread, as far as they agree on it
   (Smyth 2004, "Linear models and empirical Bayes methods", the moderated t).
4. Who looks at hundreds of figures finds 5 % of them different by chance. Chances are therefore corrected by Benjamini
   and Hochberg among all comparisons that answer one question: does this subject differ from its reference, or this
   file from that one? If it does not, then 19 of 20 such answers name nothing; if it does in much, one in twenty of
   what is named is expected to be chance. Half of that chance is for the figure that each scenario is about, half for
   all others, so that what matters is not lost in the crowd. The other subjects do not count: that one of them is fifty
   times as slow must not make it easier to speak ill of another. Holm's correction would keep everything named free of
   chance in 19 of 20 cases, but with five repeats it hides a difference of 20 % among hundreds of figures.
5. A difference that nobody would act on is not named, however sure it is; and "the same" is a claim too, which the
   whole interval must bear out. Everything else is unclear.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import optimize, special

from benchmarks.figures import FIGURES, Figure
from benchmarks.results import Described, Results

Outcome = Literal["better", "worse", "same", "unclear"]

LEVEL = 0.05  # of being wrong: the usual one
FEWEST = 3  # repeats: two give a spread with one degree of freedom, whose interval is 13 times as wide as the spread
WORTHWHILE = 0.02  # smallest effect that is named: a layout of code in memory alone makes 1 - 2 %
SAME = 0.05  # for whom chooses a gateway, 5 % is no reason; narrower than that takes dozens of repeats
# Differences below these matter to nobody, however great they are as a ratio.
LEAST_BY_UNIT = {
    "ms": 0.05,  # tokens come 10 - 50 ms apart; the clock of an event loop ticks in 1 ms
    "s": 0.05,
    "KiB": 0.5,  # an allocator's rounding
    "MiB": 1.0,
}
EXACT = {"lost", "made_again", "whole", "cancel_missed"}  # one event lost is not "the same within 5 %"
MOST_REPEATS = 200  # more are not advised, but called many
LENDERS = 4  # fewer spreads cannot show whether they agree


@dataclass(frozen=True)
class Spread:
    """Of several values, in their unit."""

    median: float
    least: float
    most: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found), len(found)) if found else None

    def text(self, digits: int) -> str:
        """Such as `19.8 (19.1-21.4)`; the median alone if there is one value, or if all look the same."""
        median, least, most = (number(value, digits) for value in (self.median, self.least, self.most))
        if least == most:
            return median
        dash = " to " if self.least < 0 else "-"
        return f"{median} ({least}{dash}{most})"


def number(value: float, digits: int) -> str:
    """With thousands set apart, and with no minus before a zero."""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


@dataclass(frozen=True)
class Estimate:
    """A difference on its own scale, where 0 is none: logarithms of ratios, or values in the figure's unit."""

    logs: bool
    mean: float
    variance: float  # of one repeat
    df: float  # degrees of freedom of the variance
    weight: float  # variance of the mean over that of one repeat
    n: int  # repeats; of two files, the fewer
    size: float  # of what is compared, in the figure's unit, never negative: what a ratio is worth

    @property
    def error(self) -> float:
        return math.sqrt(self.variance * self.weight)

    @property
    def interval(self) -> tuple[float, float]:
        half = float(special.stdtrit(self.df, 1 - LEVEL / 2)) * self.error
        return self.mean - half, self.mean + half

    @property
    def chance(self) -> float:
        """Of a difference as great, if there were none (two-sided)."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * special.stdtr(self.df, -abs(self.mean) / self.error))

    def natural(self, value: float) -> float:
        """A value of this scale as a ratio or, if it has no logarithms, as it is."""
        return math.exp(min(value, 700.0)) if self.logs else value

    def text(self, digits: int) -> str:
        """Mean and 95 % interval: `1.04 (0.97-1.12)`, or `+0.30 (-0.10 to +0.70)` of differences."""
        mean, least, most = (self.natural(value) for value in (self.mean, *self.interval))
        if self.logs:
            return f"{factor(mean)} ({factor(least)}-{factor(most)})"
        return f"{mean:+,.{digits}f} ({least:+,.{digits}f} to {most:+,.{digits}f})"


def factor(value: float) -> str:
    """A ratio with about three figures that count."""
    if value > 9999:
        return ">9,999"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def estimate(differences: Sequence[float], *, logs: bool, size: float) -> Estimate | None:
    """Of one sample of differences; None if they are too few."""
    if len(differences) < FEWEST:
        return None
    n = len(differences)
    return Estimate(logs, _mean(differences), _variance(differences), n - 1, 1 / n, n, size)


def estimate_two(before: Sequence[float], after: Sequence[float], *, logs: bool, size: float) -> Estimate | None:
    """Of two samples that have no pairs; after less before. Their spreads are taken to be one."""
    n, m = len(before), len(after)
    if min(n, m) < FEWEST:
        return None
    pooled = ((n - 1) * _variance(before) + (m - 1) * _variance(after)) / (n + m - 2)
    return Estimate(logs, _mean(after) - _mean(before), pooled, n + m - 2, 1 / n + 1 / m, min(n, m), size)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """Zero if only rounding tells the values apart."""
    mean = _mean(values)
    found = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return found if found > (1e-9 * max(1.0, abs(mean))) ** 2 else 0.0


def moderated(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Each with a share of the others' spread, the greater the better they agree. All are of one figure and scale.

    Those without any spread, such as counts that are always the same, keep that, and lend none.
    """
    lenders = [one for one in estimates if one.variance > 0]
    if len(lenders) < LENDERS:
        return list(estimates)
    halves = np.array([one.df / 2 for one in lenders])
    logs = np.log([one.variance for one in lenders]) - special.digamma(halves) + np.log(halves)
    beyond = float(np.var(logs, ddof=1) - np.mean(special.polygamma(1, halves)))  # what sampling does not explain
    most = sum(one.df for one in lenders)  # nobody knows a spread better than all of them together
    middle = float(np.mean(logs))
    if beyond > 1e-6:
        half = float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - beyond, 1e-6, 1e7))
        prior_df, prior = 2 * half, math.exp(middle + float(special.digamma(half)) - math.log(half))
    else:
        prior_df, prior = math.inf, math.exp(middle)
    return [one if one.variance == 0 else _lent(one, prior, prior_df, most) for one in estimates]


def _lent(one: Estimate, prior: float, prior_df: float, most: float) -> Estimate:
    own = 0.0 if math.isinf(prior_df) else one.df / (one.df + prior_df)
    return replace(one, variance=own * one.variance + (1 - own) * prior, df=min(one.df + prior_df, most))


def corrected(chances: Sequence[float]) -> list[float]:
    """For as many comparisons as there are chances (Benjamini and Hochberg); in their order, none below its own."""
    order = sorted(range(len(chances)), key=chances.__getitem__, reverse=True)
    found = [1.0] * len(chances)
    least = 1.0
    for above, index in enumerate(order):
        least = min(least, chances[index] * len(chances) / (len(chances) - above))
        found[index] = max(least, chances[index])
    return found


@dataclass(frozen=True)
class Ratio:
    """A subject against another one, in one scenario and figure."""

    figure: Figure
    reference: str
    spread: Spread  # of the ratios of single repeats, or of the differences
    estimate: Estimate | None  # None: too few repeats
    logs: bool = True  # a ratio; else a difference in the figure's unit
    added: bool = False  # what both add to `direct` was compared, not what both took

    @property
    def middle(self) -> str:
        """The mean, or the median if there are too few repeats for an interval."""
        value = self.spread.median if self.estimate is None else self.estimate.natural(self.estimate.mean)
        return factor(value) if self.logs else f"{value:+,.{self.figure.digits}f}"

    def text(self) -> str:
        """`1.04 (0.97-1.12)` with the 95 % interval, or the median alone if there is none."""
        return self.middle if self.estimate is None else self.estimate.text(self.figure.digits)


def added(results: Results, scenario: str, subject: str, figure: str) -> dict[int, float]:
    """By repeat: a figure less that of `direct` in the same repeat; empty if it is no figure for that."""
    if not FIGURES[figure].versus_direct or subject == "direct":
        return {}
    direct = results.values(scenario, "direct", figure)
    own = results.values(scenario, subject, figure)
    return {repeat: value - direct[repeat] for repeat, value in own.items() if repeat in direct}


def ratio(results: Results, scenario: str, subject: str, reference: str, figure: str) -> Ratio | None:
    """Within each repeat; of what both add to `direct`, where that is known. None if they have no repeat in common."""
    own, other = (added(results, scenario, name, figure) for name in (subject, reference))
    over_direct = bool(own and other)
    if not over_direct:
        own, other = (results.values(scenario, name, figure) for name in (subject, reference))
    return pairwise(own, other, FIGURES[figure], reference, over_direct)


def pairwise(
    own: Mapping[int, float], other: Mapping[int, float], figure: Figure, reference: str, over_direct: bool = False
) -> Ratio | None:
    both = [(own[repeat], other[repeat]) for repeat in sorted(own.keys() & other.keys())]
    if not both:
        return None
    size = (statistics.median(abs(a) for a, _ in both) + statistics.median(abs(b) for _, b in both)) / 2
    logs = figure.name not in EXACT and all(a > 0 and b > 0 for a, b in both)
    steps = [math.log(a) - math.log(b) if logs else a - b for a, b in both]
    spread = Spread.of(math.exp(min(step, 700.0)) if logs else step for step in steps)
    assert spread is not None
    return Ratio(figure, reference, spread, estimate(steps, logs=logs, size=size), logs, over_direct)


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    words: str
    ratio: Ratio


def verdict(ratio: Ratio, *, chance: float | None = None, looked_at: int = 1) -> Verdict:
    """On one ratio. `chance` is the corrected one if it stands among others, of which there are `looked_at`."""
    if ratio.estimate is None:
        return Verdict("unclear", f"no verdict: played {ratio.spread.n} of the {FEWEST} times that it takes", ratio)
    return Verdict(*judge(ratio.estimate, ratio.figure, chance=chance, looked_at=looked_at), ratio)


def judge(
    found: Estimate,
    figure: Figure,
    *,
    chance: float | None = None,
    looked_at: int = 1,
    least: float = WORTHWHILE,
    near: float = SAME,
) -> tuple[Outcome, str]:
    """The rules. `least` and `near` are shares of the figure; a `near` of 0 never calls two things the same."""
    if figure.better == "neither":
        return "unclear", "no verdict: more of it is neither better nor worse"
    worth, margin = _bounds(found, figure, least), _bounds(found, figure, near)
    low, high = found.interval
    apart = low > 0 or high < 0
    sure = apart and (found.chance if chance is None else chance) < LEVEL
    if sure and abs(found.mean) > worth:
        outcome: Outcome = "better" if (found.mean < 0) == (figure.better == "lower") else "worse"
        return outcome, outcome
    if (near or figure.name in EXACT) and -margin <= low and high <= margin:
        return "same", "the same"
    if sure:
        return "unclear", "unclear: a difference so small is not named"
    if apart and abs(found.mean) > worth:
        return (
            "unclear",
            f"unclear: among {looked_at} comparisons it may be chance{_advice(found, worth, 0, looked_at)}",
        )
    return "unclear", f"unclear: spread too wide{_advice(found, worth, margin, looked_at)}"


def _bounds(found: Estimate, figure: Figure, share: float) -> float:
    """What a share of the figure, or the least that matters to anybody, is on the estimate's scale."""
    if figure.name in EXACT:
        return 0.0
    floor = LEAST_BY_UNIT.get(figure.unit, 0.0)
    if not found.logs:
        return max(share * found.size, floor)
    return math.log1p(max(share, floor / found.size))


def _advice(found: Estimate, worth: float, margin: float, looked_at: int) -> str:
    more = more_repeats(found, worth, margin, looked_at)
    if more is None:
        return f", over {MOST_REPEATS} more repeats would be needed"
    return f", {more} more repeat{'s' if more > 1 else ''} would be needed"


def more_repeats(found: Estimate, worth: float, margin: float, looked_at: int = 1) -> int | None:
    """How many until a verdict, if mean and spread stay as they are; None if that takes more than MOST_REPEATS."""
    counts = np.arange(found.n + 1, found.n + MOST_REPEATS + 1)
    error = found.error * np.sqrt(found.n / counts)
    df = found.df * counts / found.n
    tells_same = error * special.stdtrit(df, 1 - LEVEL / 2) <= margin - abs(found.mean)
    tells_apart = error * special.stdtrit(df, 1 - LEVEL / 2 / looked_at) < abs(found.mean)
    enough = np.flatnonzero(tells_same | (tells_apart & (abs(found.mean) > worth)))
    return int(enough[0]) + 1 if len(enough) else None


def settle(
    figures: Sequence[Figure], estimates: Sequence[Estimate], questions: Sequence[str], first: Sequence[bool]
) -> tuple[list[Estimate], list[float]]:
    """Comparisons that are made together: their moderated estimates and their corrected chances, in the same order.

    Spreads are lent among all, chances are corrected among those of one question: the first figures of the scenarios
    among themselves, and the rest; each half may err half as often.
    """
    better = list(estimates)
    kinds = [(figure.name, one.logs) for figure, one in zip(figures, estimates, strict=True)]
    for members in alike(kinds):
        for index, one in zip(members, moderated([estimates[index] for index in members]), strict=True):
            better[index] = one
    chances = [1.0] * len(better)
    for members in alike(list(zip(questions, first, strict=True))):
        for index, chance in zip(members, corrected([better[index].chance for index in members]), strict=True):
            chances[index] = min(1.0, 2 * chance)
    return better, chances


def alike(keys: Sequence[object]) -> list[list[int]]:
    """Where the same key stands, for each."""
    found: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return list(found.values())


def reference_of(results: Results, described: Described) -> str | None:
    """Whom a scenario's ratios are taken to: floor if the one that was meant has nothing to show."""
    for name in (described.reference, "floor"):
        if any(not run.failure and not run.errors for run in results.of(described.name, name)):
            return name
    return None


class Verdicts:
    """Every comparison that a report shows, judged together: each subject with its scenario's reference."""

    def __init__(self, results: Results) -> None:
        self.references = {described.name: reference_of(results, described) for described in results.scenarios}
        ratios: dict[tuple[str, str, str], Ratio] = {}
        for described in results.scenarios:
            reference = self.references[described.name]
            for subject in {run.subject: None for run in results.runs if run.scenario == described.name}:
                for name in described.figures:
                    if reference is None or subject in ("direct", reference) or FIGURES[name].better == "neither":
                        continue
                    if found := ratio(results, described.name, subject, reference, name):
                        ratios[described.name, subject, name] = found
        self._verdicts = {key: verdict(one) for key, one in ratios.items() if one.estimate is None}
        keys = [key for key, one in ratios.items() if one.estimate is not None]
        estimates = [one.estimate for one in ratios.values() if one.estimate is not None]
        self.looked_at = len(keys)
        subjects = [subject for _, subject, _ in keys]
        above_all = {described.name: described.figures[0] for described in results.scenarios if described.figures}
        first = [above_all[scenario] == figure for scenario, _, figure in keys]
        settled, chances = settle([ratios[key].figure for key in keys], estimates, subjects, first)
        together = list(zip(subjects, first, strict=True))
        for key, one, chance, family in zip(keys, settled, chances, together, strict=True):
            found = replace(ratios[key], estimate=one)
            self._verdicts[key] = verdict(found, chance=chance, looked_at=together.count(family))

    def of(self, scenario: str, subject: str, figure: str) -> Verdict | None:
        """None if there was nothing to compare, or if neither way is better."""
        return self._verdicts.get((scenario, subject, figure))

    def named(self) -> list[tuple[str, str, str]]:
        """Scenario, subject and figure of every difference that is named."""
        return [key for key, one in self._verdicts.items() if one.outcome in ("better", "worse")]
