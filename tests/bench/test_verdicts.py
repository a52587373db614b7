"""What may be said: only within a repeat, only what the interval bears out, and never by looking often enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import FIGURES
from benchmarks.results import Described, Results, Run
from benchmarks.verdicts import (
    MOST_REPEATS,
    Estimate,
    Ratio,
    Spread,
    Verdicts,
    added,
    corrected,
    estimate,
    judge,
    moderated,
    more_repeats,
    pairwise,
    ratio,
    verdict,
)
from tests.bench.made_up import made_up

ANY = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))
ABOVE_ZERO = st.floats(0.01, 1e6).map(lambda value: round(value, 6))
ALIKE = {"nginx": 1.0, "relay": 1.0, "litellm": 50.0}


def results(figure: str, **values: Sequence[float]) -> Results:
    """One scenario with one figure, of each subject by repeat."""
    runs = [
        Run("s", subject, repeat, figures={figure: value})
        for subject, several in values.items()
        for repeat, value in enumerate(several, 1)
    ]
    return Results("", 0, "", {}, dict.fromkeys(values, ""), {}, [Described("s", "S", "", [figure])], runs)


def pairs(own: Sequence[float], other: Sequence[float], figure: str = "cpu_us") -> Ratio:
    found = pairwise(dict(enumerate(own)), dict(enumerate(other)), FIGURES[figure], "nginx")
    assert found is not None
    return found


# ---- Spreads ---------------------------------------------------------------------------------------------------------


@given(st.lists(ANY, min_size=1, max_size=9))
def test_a_spread_holds_every_value_and_its_median_halves_them(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread is not None
    assert (spread.least, spread.most, spread.n) == (min(values), max(values), len(values))
    assert sum(value <= spread.median for value in values) * 2 >= len(values)
    assert sum(value >= spread.median for value in values) * 2 >= len(values)


def test_a_spread_as_text() -> None:
    assert Spread.of([]) is None
    assert Spread(19.8, 19.1, 21.4, 5).text(1) == "19.8 (19.1-21.4)"
    assert Spread(1234.5, 1000, 2000, 2).text(0) == "1,234 (1,000-2,000)"
    assert Spread(0.2, -0.1, 0.4, 3).text(1) == "0.2 (-0.1 to 0.4)"
    assert Spread(2.0, 2.0, 2.0, 3).text(1) == "2.0"
    assert Spread(-0.001, -0.001, -0.001, 1).text(1) == "0.0"


# ---- Ratios and what is added ----------------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_repeat() -> None:
    found = ratio(results("cpu_us", relay=[10, 20, 40, 80], nginx=[5, 10, 20, 40]), "s", "relay", "nginx", "cpu_us")
    assert found is not None
    assert found.estimate is not None
    assert found.spread.n == 4
    assert (found.spread.least, found.spread.most) == pytest.approx((2.0, 2.0))
    assert found.estimate.text(1) == "2.00 (2.00-2.00)"


def test_repeats_that_only_one_has_do_not_count() -> None:
    made = results("cpu_us", relay=[10, 20, 40, 80], nginx=[5, 10, 20])
    made.runs[0].errors.append("a line was missing")
    found = ratio(made, "s", "relay", "nginx", "cpu_us")
    assert found is not None
    assert found.spread.n == 2
    assert found.estimate is None
    assert verdict(found).words == "no verdict: played 2 of the 3 times that it takes"
    assert ratio(made, "s", "relay", "haproxy", "cpu_us") is None


def test_what_is_added_is_taken_off_in_the_same_repeat() -> None:
    made = results("delay_p99_ms", direct=[1, 5, 2], relay=[3, 9, 4], nginx=[2, 7, 3])
    assert added(made, "s", "relay", "delay_p99_ms") == {1: 2, 2: 4, 3: 2}
    assert added(made, "s", "direct", "delay_p99_ms") == {}
    assert added(results("cpu_us", direct=[1], relay=[2]), "s", "relay", "cpu_us") == {}
    found = ratio(made, "s", "relay", "nginx", "delay_p99_ms")
    assert found is not None
    assert found.added
    assert (found.spread.least, found.spread.most) == pytest.approx((2.0, 2.0))


@given(st.lists(st.tuples(ABOVE_ZERO, ABOVE_ZERO), min_size=3, max_size=8))
def test_exchanging_the_two_exchanges_better_and_worse(both: list[tuple[float, float]]) -> None:
    there, back = pairs([a for a, _ in both], [b for _, b in both]), pairs([b for _, b in both], [a for a, _ in both])
    opposite = {"better": "worse", "worse": "better", "same": "same", "unclear": "unclear"}
    assert verdict(back).outcome == opposite[verdict(there).outcome]


@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=8), st.sampled_from(sorted(FIGURES)))
def test_no_values_are_beyond_a_verdict(both: list[tuple[float, float]], figure: str) -> None:
    found = pairs([a for a, _ in both], [b for _, b in both], figure)
    judged = verdict(found)
    assert judged.words
    assert found.text()
    if len(both) < 3:
        assert judged.outcome == "unclear"
    if FIGURES[figure].better == "neither":
        assert judged.outcome == "unclear"
    if judged.outcome in ("better", "worse"):
        assert found.estimate is not None
        low, high = found.estimate.interval
        assert low > 0 or high < 0


@given(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=8), st.floats(0.1, 1000))
def test_a_unit_makes_no_difference(steps: list[float], size: float) -> None:
    other = [size * (1 + index / 10) for index in range(len(steps))]
    found = pairs([value * math.exp(step) for value, step in zip(other, steps, strict=True)], other)
    mean = sum(steps) / len(steps)
    assert found.estimate is not None
    assert found.estimate.mean == pytest.approx(mean, abs=1e-9)
    assert found.estimate.interval[0] <= found.estimate.mean <= found.estimate.interval[1]


# ---- Verdicts --------------------------------------------------------------------------------------------------------


def test_which_way_is_better_is_the_figures_own() -> None:
    low, high = [10.0, 11, 12, 10], [20.0, 22.5, 24, 20]
    assert verdict(pairs(low, high, "cpu_us")).outcome == "better"
    assert verdict(pairs(high, low, "cpu_us")).outcome == "worse"
    assert verdict(pairs(low, high, "rate")).outcome == "worse"
    assert verdict(pairs(high, low, "rate")).outcome == "better"
    assert verdict(pairs(high, low, "core")).outcome == "unclear"


def around(mean: float, spread: float, n: int = 5) -> list[float]:
    """Values with this mean and about this spread, of which nothing is random."""
    return [mean + spread * (index - (n - 1) / 2) for index in range(n)]


@pytest.mark.parametrize(
    ("mean", "spread", "outcome"),
    [
        (0.20, 0.01, "worse"),
        (-0.20, 0.01, "better"),
        (0.03, 0.001, "worse"),
        (0.015, 0.001, "same"),  # sure, but nobody would act on it
        (0.0, 0.01, "same"),
        (0.0, 0.05, "unclear"),  # the interval reaches beyond 5 %
        (0.04, 0.03, "unclear"),
        (0.20, 0.30, "unclear"),
    ],
)
def test_what_the_interval_bears_out(mean: float, spread: float, outcome: str) -> None:
    found = estimate(around(mean, spread), logs=True, size=20)
    assert found is not None
    assert judge(found, FIGURES["cpu_us"])[0] == outcome


def test_what_is_too_small_to_matter_is_the_same() -> None:
    assert verdict(pairs([0.03, 0.031, 0.03], [0.02, 0.02, 0.021], "delay_p99_ms")).outcome == "same"
    assert verdict(pairs([0.3, 0.31, 0.3], [0.2, 0.2, 0.21], "delay_p99_ms")).outcome == "worse"


def test_an_event_lost_is_never_the_same() -> None:
    assert verdict(pairs([0, 0, 0], [0, 0, 0], "lost")).outcome == "same"
    assert verdict(pairs([0.01, 0.011, 0.01], [0, 0, 0], "lost")).outcome == "worse"
    assert verdict(pairs([0, 0, 0.01], [0, 0, 0], "lost")).outcome == "unclear"
    assert verdict(pairs([99, 99, 98.9], [100, 100, 100], "whole")).outcome == "worse"


def test_unclear_says_how_many_more_repeats() -> None:
    found = estimate(around(0.0, 0.05), logs=True, size=20)
    assert found is not None
    more = more_repeats(found, math.log1p(0.02), math.log1p(0.05))
    assert judge(found, FIGURES["cpu_us"])[1] == f"unclear: spread too wide, {more} more repeats would be needed"
    assert more is not None
    for extra, told in ((more, True), (more - 1, False)):
        later = Estimate(True, 0.0, found.variance, 4 + extra, 1 / (5 + extra), 5 + extra, 20)
        assert (judge(later, FIGURES["cpu_us"])[0] == "same") is told
    wide = estimate(around(0.0, 1.0), logs=True, size=20)
    assert wide is not None
    assert judge(wide, FIGURES["cpu_us"])[1].endswith(f"over {MOST_REPEATS} more repeats would be needed")


# ---- Many comparisons ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), max_size=20))
def test_correcting_keeps_the_order_and_never_helps(chances: list[float]) -> None:
    found = corrected(chances)
    assert all(own <= more <= 1 for own, more in zip(chances, found, strict=True))
    in_order = [more for _, more in sorted(zip(chances, found, strict=True))]
    assert in_order == sorted(in_order)


def test_corrected_as_in_the_books() -> None:
    assert corrected([0.01, 0.04, 0.03, 0.2]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.2])


def test_those_who_agree_lend_each_other_their_spread() -> None:
    agreed = [Estimate(True, 0, 0.01 + index / 1e4, 2, 1 / 3, 3, 20) for index in range(8)]
    lent = moderated(agreed)
    assert all(one.df == 16 for one in lent)
    assert max(one.variance for one in lent) - min(one.variance for one in lent) < 1e-9
    apart = [Estimate(True, 0, 10.0**index, 2, 1 / 3, 3, 20) for index in range(-8, 0)]
    for before, after in zip(apart, moderated(apart), strict=True):
        assert after.df < 3
        assert abs(math.log10(after.variance / before.variance)) < 2  # of their eight decades
    nothing = [*agreed, Estimate(True, 0, 0.0, 2, 1 / 3, 3, 20)]
    assert moderated(nothing)[-1] == nothing[-1]
    assert moderated(agreed[:3]) == agreed[:3]


def test_rounding_is_no_spread() -> None:
    found = estimate([0.1 + 0.2, 0.3, 0.3], logs=True, size=20)
    assert found is not None
    assert found.variance == 0
    assert found.chance == 0


def test_a_relay_that_is_its_reference_is_hardly_ever_told_from_it() -> None:
    """300 whole benchmarks on a shared machine; another subject's being slow changes nothing."""
    wrong, looked_at = 0, 0
    for seed in range(300):
        noise = (0.1, 0.15, 0.2)[seed % 3]
        made = made_up(
            seed=seed, scenarios=SOME, subjects=["nginx", "relay", "litellm"], costs=ALIKE, common=noise, plain=True
        )
        verdicts = Verdicts(made)
        looked_at = verdicts.looked_at
        named = [subject for _, subject, _ in verdicts.named()]
        assert "litellm" in named
        wrong += "relay" in named
    assert looked_at > 40
    assert wrong <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)  # 5 %, give or take what 300 draws leave open
    assert wrong > 0  # who never errs never says anything


def test_a_fifth_more_is_found_with_five_repeats() -> None:
    found = 0
    for seed in range(60):
        made = made_up(
            seed=seed,
            scenarios=SOME,
            subjects=["nginx", "relay"],
            costs=ALIKE,
            plain=True,
            factors={"relay": {"cpu_us": 1.2}},
        )
        found += len([key for key in Verdicts(made).named() if key == ("4000x10", "relay", "cpu_us")])
    assert found > 45


SOME = {"4000x10", "9000x5", "json", "burst"}
