"""What terminal and report both show: tables of cells, sentences and remarks; how they look is not decided here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import FIGURES, Figure
from benchmarks.results import Described, Results, Run
from benchmarks.verdicts import FEWEST, Outcome, Spread, Verdict, Verdicts, added, number

# What somebody who chooses asks first, in this order; each in the scenario that is most about it.
ASKED_FIRST = ["cpu_us", "delay_p99_ms", "clean", "ttft_p99_ms", "rss_kib", "cancel_p99_ms", "resume_p99_ms"]
NO_RESUME = 1.0  # % of the events lost or made again: so few are the last ones before a break
OURS = ("relay", "resumable", "other")  # of whom the sentences speak
MARKS: dict[Outcome, str] = {"better": "▲", "worse": "▼", "same": "=", "unclear": ""}  # colour alone is no sign
ONCE_TOLD = f"Some scenarios were played fewer than {FEWEST} times: a look, no verdict (--repeat plays all so often)."
LEGEND = "▲ better, ▼ worse, = the same within 5 %, no mark: no difference can be told"


@dataclass(frozen=True)
class Column:
    title: str
    unit: str = ""
    told: str = ""  # a sentence for a newcomer
    scenario: str = ""  # where it was measured, if a table mixes several


@dataclass(frozen=True)
class Cell:
    text: str
    outcome: Outcome = "unclear"
    told: str = ""

    @property
    def marked(self) -> str:
        mark = MARKS[self.outcome]
        return f"{self.text} {mark}" if mark else self.text


@dataclass
class Table:
    columns: list[Column]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)


def good(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not run.failure and not run.errors]


def subjects_in(results: Results, scenario: str) -> list[str]:
    """In the order of the whole benchmark, which is that of every table and plot."""
    here = {run.subject: None for run in results.runs if run.scenario == scenario}
    known = [subject for subject in results.subjects if subject in here]
    return known + [subject for subject in here if subject not in results.subjects]


def repeats(results: Results) -> tuple[int, int]:
    """The fewest and the most of any subject in any scenario."""
    counts: dict[tuple[str, str], int] = {}
    for run in results.runs:
        counts[run.scenario, run.subject] = counts.get((run.scenario, run.subject), 0) + 1
    return (min(counts.values()), max(counts.values())) if counts else (0, 0)


def where(results: Results) -> list[tuple[str, str]]:
    """What was measured on what, as names and values."""
    least, most = repeats(results)
    several = str(most) if least == most else f"{least} to {most}"
    minutes = f"{results.seconds / 60:.0f} min" if results.seconds >= 90 else f"{results.seconds:.0f} s"
    return [
        *results.machine.items(),
        ("repeats", several),
        ("scenarios", str(len(results.scenarios))),
        ("made", f"{results.made}, took {minutes}"),
        ("command", results.command),
    ]


def steady(results: Results) -> list[Described]:
    """The scenarios where nothing happens but events, over HTTP/1.1: those named such as 4000x10."""
    return [one for one in results.scenarios if re.fullmatch(r"\d+x\d+", one.name)]


def candidates(results: Results, figure: str) -> list[Described]:
    """Where a figure was measured, the scenario that says most about it first.

    That is one that can be judged; of these the steady one with most streams, else the one whose list of figures has it
    earliest.
    """
    loads = [one for one in steady(results) if figure in one.figures and _has_values(results, one.name, figure)]
    if loads:
        return sorted(loads, key=lambda one: (_is_seldom(results, one.name), -one.streams))
    others = [one for one in results.scenarios if figure in one.figures and _has_values(results, one.name, figure)]
    return sorted(others, key=lambda one: (_is_seldom(results, one.name), one.figures.index(figure)))


def _is_seldom(results: Results, scenario: str) -> bool:
    """Whether it was played too seldom to be judged."""
    return len({run.repeat for run in results.runs if run.scenario == scenario}) < FEWEST


def played_once(results: Results) -> bool:
    """Whether some scenarios were, beside others that can be judged."""
    seldom = [_is_seldom(results, one.name) for one in results.scenarios]
    return any(seldom) and not all(seldom)


def _has_values(results: Results, scenario: str, figure: str) -> bool:
    return any(figure in run.figures for run in good(results.runs) if run.scenario == scenario)


def summary(results: Results, verdicts: Verdicts) -> Table:
    """One row for each subject that has an answer, but `direct`; one column for each question that was asked."""
    asked = [(FIGURES[name], found) for name in ASKED_FIRST if (found := candidates(results, name))]
    table = Table([_question(results, figure, found[0], verdicts) for figure, found in asked])
    for subject in results.subjects:
        if subject == "direct":
            continue
        cells = [_first_answer(results, verdicts, found, subject, figure) for figure, found in asked]
        if any(cell.text != "-" for cell in cells):
            table.rows.append((subject, cells))
    return table


def _first_answer(
    results: Results, verdicts: Verdicts, found: Sequence[Described], subject: str, figure: Figure
) -> Cell:
    """Of the first scenario that it took part in, which is named if it is not the column's."""
    here = next((one for one in found if results.of(one.name, subject)), None)
    if here is None:
        return Cell("-", told="was not run")
    cell = _answer(results, verdicts, here, subject, figure, is_added=_is_added(results, figure, found[0]))
    return cell if here is found[0] else Cell(f"{cell.text} at {here.name}", cell.outcome, cell.told)


def _is_added(results: Results, figure: Figure, described: Described) -> bool:
    """Whether what client and provider take alone is taken off."""
    return figure.versus_direct and bool(results.of(described.name, "direct"))


def _question(results: Results, figure: Figure, described: Described, verdicts: Verdicts) -> Column:
    reference = verdicts.references[described.name]
    if figure.name == "cpu_us" and reference:
        title, unit = f"{figure.title}, times {reference}'s", ""
    elif figure.name == "resume_p99_ms":
        title, unit = "resumes a broken stream", ""
    else:
        is_added = _is_added(results, figure, described)
        title, unit = f"added {figure.title}" if is_added else figure.title, figure.unit
    return Column(title, unit, figure.told, described.name)


def _answer(
    results: Results, verdicts: Verdicts, described: Described, subject: str, figure: Figure, *, is_added: bool
) -> Cell:
    runs = results.of(described.name, subject)
    values = results.values(described.name, subject, figure.name)
    judged = verdicts.of(described.name, subject, figure.name)
    outcome: Outcome = judged.outcome if judged else "unclear"
    told = judged.words if judged else ""
    if not good(runs):
        return Cell("failed", told=next((run.failure for run in runs if run.failure), "every run had errors"))
    if figure.name == "resume_p99_ms":
        if not values or any(_share(results, described, subject, name) > NO_RESUME for name in ("lost", "made_again")):
            return Cell("no", told="events were lost, or made a second time")
        return Cell(f"yes, {_median(values, figure)} ms", outcome, told)
    if not values:
        return Cell("-", told="has no such figure")
    if figure.name == "cpu_us" and (reference := verdicts.references[described.name]):
        if subject == reference:
            return Cell("1", told=f"{_median(values, figure)} {figure.unit} per event")
        return Cell(judged.ratio.middle if judged else "-", outcome, told)
    if is_added:
        values = added(results, described.name, subject, figure.name)
        if not values:
            return Cell("-", told="was not measured beside client and provider alone")
    return Cell(_median(values, figure), outcome, told)


def _share(results: Results, described: Described, subject: str, figure: str) -> float:
    spread = Spread.of(results.values(described.name, subject, figure).values())
    return spread.median if spread else 0.0


def _median(values: dict[int, float], figure: Figure) -> str:
    spread = Spread.of(values.values())
    return number(spread.median, figure.digits) if spread else "-"


def sentences(results: Results, verdicts: Verdicts) -> list[tuple[Outcome, str]]:
    """What can and what cannot be said of our own, against each question's reference."""
    found = []
    for subject in (name for name in OURS if name in results.subjects):
        for name in ASKED_FIRST:
            described = next((one for one in candidates(results, name) if results.of(one.name, subject)), None)
            if described and (judged := verdicts.of(described.name, subject, name)):
                found.append((judged.outcome, _sentence(results, described, subject, judged)))
    return found


def _sentence(results: Results, described: Described, subject: str, judged: Verdict) -> str:
    one, figure = judged.ratio, judged.ratio.figure
    at = f"at {described.title}" if described in steady(results) else f"in “{described.title}”"
    unit = f" {figure.unit}" if figure.unit else ""
    if figure.name == "cpu_us" and one.estimate and one.estimate.logs:
        said = f"{subject} costs {one.text()} of {one.reference}'s CPU per event {at}"
    else:
        own, other = (_shown(results, described.name, name, figure) for name in (subject, one.reference))
        if one.added:
            said = f"{subject} adds {own}{unit} to the {figure.title}, {one.reference} adds {other}{unit}, {at}"
        else:
            said = f"{figure.title} of {subject}: {own}{unit}, of {one.reference}: {other}{unit}, {at}"
    return f"{said}: {conclusion(judged)}."


def _shown(results: Results, scenario: str, subject: str, figure: Figure) -> str:
    values = added(results, scenario, subject, figure.name) or results.values(scenario, subject, figure.name)
    spread = Spread.of(values.values())
    return spread.text(figure.digits) if spread else "-"


def conclusion(judged: Verdict) -> str:
    """A verdict's words as the end of a sentence."""
    if judged.outcome == "same":
        return "the same within 5 %"
    return judged.words.replace("unclear: ", "no difference can be told, ", 1)


def scenario_table(results: Results, verdicts: Verdicts, described: Described) -> Table:
    """A row for each subject, a column for each figure of the scenario, and the first figure's ratio behind it."""
    reference = verdicts.references[described.name]
    subjects = subjects_in(results, described.name)
    shown = [FIGURES[name] for name in described.figures if _has_values(results, described.name, name)]
    table = Table([Column(one.title, one.unit, one.told) for one in shown])
    with_ratio = bool(shown and reference and shown[0].better != "neither")
    if with_ratio:
        is_added = shown[0].versus_direct and reference != "direct" and "direct" in subjects
        judged = (verdicts.of(described.name, subject, shown[0].name) for subject in subjects)
        # Where nothing was added, or less than nothing, there is no ratio.
        differs = any(one.ratio.estimate and not one.ratio.estimate.logs for one in judged if one)
        over, unit = ("less", shown[0].unit) if differs else ("times", "")
        told = (
            f"{shown[0].title} {'less' if differs else 'over'} {reference}'s of the same repeat, with its 95 % interval"
        )
        table.columns.insert(1, Column(f"{'added, ' if is_added else ''}{over} {reference}'s", unit, told))
    for subject in subjects:
        cells = [_figure_cell(results, verdicts, described, subject, figure) for figure in shown]
        if with_ratio:
            its = verdicts.of(described.name, subject, shown[0].name)
            cells.insert(1, _ratio_cell(its, "0" if differs else "1", is_reference=subject == reference))
        table.rows.append((subject, cells))
    return table


def _figure_cell(results: Results, verdicts: Verdicts, described: Described, subject: str, figure: Figure) -> Cell:
    spread = Spread.of(results.values(described.name, subject, figure.name).values())
    if spread is None:
        return Cell("-" if good(results.of(described.name, subject)) else "failed")
    judged = verdicts.of(described.name, subject, figure.name)
    text = spread.text(figure.digits)
    return Cell(text, judged.outcome, judged.words) if judged else Cell(text)


def _ratio_cell(judged: Verdict | None, one: str, *, is_reference: bool) -> Cell:
    if judged is None:
        return Cell(one if is_reference else "-")
    return Cell(judged.ratio.text(), judged.outcome, judged.words)


def remarks(results: Results, described: Described) -> Iterator[tuple[str, str]]:
    """Subject, and what was wrong or is doubtful; what several runs said is said once."""
    for subject in subjects_in(results, described.name):
        runs = results.of(described.name, subject)
        counts: dict[str, int] = {}
        for run in runs:
            said = [f"failed: {run.failure}"] if run.failure else []
            for text in [*said, *(f"error: {error}" for error in run.errors), *run.remarks]:
                counts[text] = counts.get(text, 0) + 1
        for text, count in counts.items():
            yield subject, text if len(runs) == 1 else f"{text} (in {count} of {len(runs)} runs)"


def overview(results: Results, verdicts: Verdicts) -> str:
    """How much was looked at, and how much of it tells anything."""
    if repeats(results)[1] < FEWEST:
        return f"Nothing is judged: there are fewer than {FEWEST} repeats of everything."
    named = len(verdicts.named())
    return (
        f"{verdicts.looked_at} comparisons with the reference were made, {named} of them show a difference; "
        "chance is allowed for."
    )
