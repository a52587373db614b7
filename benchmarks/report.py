"""One HTML file that says what a benchmark found: no network, no scripts, everything inside."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup

from benchmarks import summary
from benchmarks.figures import FIGURES
from benchmarks.plots import Plot, Plots
from benchmarks.results import Described, Results
from benchmarks.summary import MARKS, Table
from benchmarks.verdicts import FEWEST, LEVEL, SAME, WORTHWHILE, Verdicts, number

HERE = Path(__file__).resolve().parent
MOST_DATA = 1_200_000  # bytes of embedded results; beyond that the distributions are left out


@dataclass(frozen=True)
class Section:
    """A scenario as the template shows it."""

    described: Described
    anchor: str
    reference: str
    table: Table
    remarks: list[tuple[str, str]]
    plots: list[Plot]
    runs: Table


def write_report(results: Results, path: Path) -> None:
    """Over what is there."""
    path.write_text(html(results), encoding="utf-8")


def html(results: Results) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdicts, plots = Verdicts(results), Plots(results)
    data, whole = embedded(results)
    sections = [
        Section(
            described,
            f"s{index}",
            verdicts.references[described.name] or "",
            summary.scenario_table(results, verdicts, described),
            list(summary.remarks(results, described)),
            plots.of(described),
            every_run(results, described),
        )
        for index, described in enumerate(results.scenarios, 1)
    ]
    used = {name for one in results.scenarios for name in one.figures}
    figures = [
        figure for name, figure in FIGURES.items() if name in used
    ]  # in the order in which they explain each other
    return environment.get_template("report.html.j2").render(
        results=results,
        where=summary.where(results),
        summary=summary.summary(results, verdicts),
        sentences=summary.sentences(results, verdicts),
        overview=summary.overview(results, verdicts),
        legend=summary.LEGEND,
        marks=MARKS,
        overall=plots.overall(),
        sections=sections,
        anchors={section.described.name: section.anchor for section in sections},
        figures=figures,
        data=data,
        data_is_whole=whole,
        few=summary.repeats(results)[0] < FEWEST,
        fewest=FEWEST,
        level=f"{100 * (1 - LEVEL):.0f} %",
        worthwhile=f"{100 * WORTHWHILE:.0f} %",
        same=f"{100 * SAME:.0f} %",
        safe=Markup,  # of SVG alone, whose texts matplotlib has escaped
    )


def every_run(results: Results, described: Described) -> Table:
    """One row for each run, in the order in which they were made."""
    runs = [run for run in results.runs if run.scenario == described.name]
    names = {name: None for run in runs for name in run.figures}
    shown = [FIGURES[name] for name in FIGURES if name in names]
    table = Table([summary.Column("repeat"), *(summary.Column(one.title, one.unit, one.told) for one in shown)])
    for run in runs:
        values = (run.figures.get(one.name) for one in shown)
        texts = ["-" if value is None else number(value, one.digits) for value, one in zip(values, shown, strict=True)]
        bad = " (failed)" if run.failure else " (errors)" if run.errors else ""
        table.rows.append((f"{run.subject}{bad}", [summary.Cell(str(run.repeat)), *map(summary.Cell, texts)]))
    return table


def embedded(results: Results) -> tuple[str, bool]:
    """The results as a gzipped data link, and whether the distributions are still in it."""
    link = _link(results)
    if len(link) <= MOST_DATA:
        return link, True
    return _link(replace(results, runs=[replace(run, histograms={}) for run in results.runs])), False


def _link(results: Results) -> str:
    packed = gzip.compress(msgspec.json.encode(results), mtime=0)  # the same bytes for the same results
    return "data:application/gzip;base64," + base64.b64encode(packed).decode()
