"""Plots as SVG that stands inside an HTML page: no fonts, no ids that clash, ink in the page's own colour."""

from __future__ import annotations

import contextlib
import io
import math
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from benchmarks.figures import FIGURES, Figure
from benchmarks.results import Described, Histogram, Results
from benchmarks.summary import good, steady, subjects_in
from benchmarks.verdicts import Spread, number

INK, FAINT = "#010203", "#040506"  # stand for the page's colours until the SVG is finished
SIZE = (4.3, 3.0)  # inches: about as wide as a telephone, so that text keeps its size there
NINES = [50.0, 90.0, 99.0, 99.9, 99.99]
LOG_FROM = 20  # times the least: more does not fit a linear axis
OUTLIER = 8  # times the median subject: not drawn among the others, but named
MOST_BARS = 3
CURVES = {
    "delay_ms": "Delay of events",
    "gap_ms": "Error of gaps between events",
    "ttft_ms": "Time to the first event",
    "total_ms": "Time to the whole answer",
    "cancel_ms": "Time from a client's leaving to the provider's knowing it",
    "resume_ms": "Time from coming back to the first missed event",
}

Style = tuple[str, str, str]  # colour, line, marker

# Okabe and Ito's colours, which the colour-blind tell apart; without their yellow, too faint on white, and their black,
# too faint on black. Line and marker differ as well. The relay's is the one that stands out, in every plot.
STYLES: dict[str, Style] = {
    "relay": ("#D55E00", "-", "o"),
    "resumable": ("#D55E00", "--", "D"),
    "other": ("#D55E00", ":", "X"),
    "nginx": ("#0072B2", "-", "s"),
    "haproxy": ("#009E73", "-.", "^"),
    "sglang": ("#CC79A7", "--", "v"),
    "litellm": ("#E69F00", "-", "P"),
    "direct": ("#8C8C8C", ":", "."),
    "floor": ("#8C8C8C", "--", "x"),
    "fan": ("#8C8C8C", "-.", "+"),
}
SPARE: list[Style] = [("#56B4E9", "-", "<"), ("#56B4E9", "--", ">"), ("#B8860B", "-.", "h"), ("#8B6BB1", ":", "p")]


@dataclass(frozen=True)
class Plot:
    """`told` is what somebody hears who does not see it."""

    title: str
    told: str
    svg: str
    note: str = ""  # what the plot leaves out


class Plots:
    """All plots of one page: they share what must not occur twice."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._made = 0
        known = dict(STYLES)
        names = {**results.subjects, **{run.subject: "" for run in results.runs}}
        for index, name in enumerate(name for name in names if name not in known):
            known[name] = SPARE[index % len(SPARE)]
        self._styles = known

    def overall(self) -> list[Plot]:
        """CPU and memory against load, where there are two loads or more."""
        loads = steady(self._results)
        rates = self._lines(loads, "cpu_us", lambda described: self._rate(described.name))
        memory = self._lines(loads, "rss_kib", lambda described: float(described.streams))
        return [
            *self._against("CPU per event against load", "events/s", FIGURES["cpu_us"], rates),
            *self._against("Memory per stream against streams", "open streams", FIGURES["rss_kib"], memory),
        ]

    def of(self, described: Described) -> list[Plot]:
        """Curves of what has a distribution; bars of the first figures otherwise, and of the very first always."""
        curves = [plot for name in CURVES if (plot := self._curve(described, name))]
        most = 1 if curves else MOST_BARS
        shown = [FIGURES[name] for name in described.figures if FIGURES[name].better != "neither"]
        bars = (plot for figure in shown if (plot := self._bars(described, figure)))
        return [*(plot for plot, _ in zip(bars, range(most), strict=False)), *curves]

    def _rate(self, scenario: str) -> float:
        """Events a second that came through nobody, or through whoever took most."""
        runs = [run for run in good(self._results.runs) if run.scenario == scenario]
        return max((run.figures.get("rate", 0.0) for run in runs), default=0.0)

    def _lines(
        self, loads: Sequence[Described], figure: str, place: Callable[[Described], float]
    ) -> dict[str, list[tuple[float, Spread]]]:
        lines: dict[str, list[tuple[float, Spread]]] = {}
        for described in loads:
            at = place(described)
            for subject in subjects_in(self._results, described.name):
                spread = Spread.of(self._results.values(described.name, subject, figure).values())
                if spread and at > 0:
                    lines.setdefault(subject, []).append((at, spread))
        return {subject: sorted(points, key=lambda point: point[0]) for subject, points in lines.items()}

    def _against(
        self, title: str, load: str, figure: Figure, lines: dict[str, list[tuple[float, Spread]]]
    ) -> Iterable[Plot]:
        lines, note = _within(lines, figure)
        if len({at for points in lines.values() for at, _ in points}) < 2:
            return
        with drawing():
            canvas, axes = _axes(self._results, len(lines))
            for subject, points in lines.items():
                colour, line, marker = self._styles[subject]
                middles = [spread.median for _, spread in points]
                whiskers = [
                    [spread.median - spread.least for _, spread in points],
                    [spread.most - spread.median for _, spread in points],
                ]
                axes.errorbar(
                    [at for at, _ in points], middles, whiskers, label=_plain(subject), color=colour, linestyle=line,
                    marker=marker, markersize=5, capsize=2, linewidth=1.6, elinewidth=1,
                )  # fmt: skip
            everything = [spread.median for points in lines.values() for _, spread in points]
            _scale(axes, everything, along="y")
            axes.set_xlabel(load)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.set_ylabel(f"{figure.title}, {figure.unit}")
            _legend(canvas, axes)
            said = (
                f"{subject}: "
                + ", ".join(f"{number(s.median, figure.digits)} {figure.unit} at {at:,.0f} {load}" for at, s in points)
                for subject, points in lines.items()
            )
            yield self._finished(canvas, title, "; ".join(said), note)

    def _curve(self, described: Described, name: str) -> Plot | None:
        merged = {
            subject: merge(run.histograms.get(name, []) for run in good(self._results.of(described.name, subject)))
            for subject in subjects_in(self._results, described.name)
        }
        shown = {subject: histogram for subject, histogram in merged.items() if histogram}
        if not shown:
            return None
        with drawing():
            canvas, axes = _axes(self._results, len(shown))
            for subject, histogram in shown.items():
                colour, line, marker = self._styles[subject]
                points = curve(histogram)
                axes.plot(
                    [nines(percent) for percent, _ in points], [max(value, 1e-3) for _, value in points],
                    label=_plain(subject), color=colour, linestyle=line, linewidth=1.7, marker=marker, markersize=4,
                    markevery=max(1, len(points) // 6),
                )  # fmt: skip
            axes.set_yscale("log")
            _log_ticks(axes, "y")
            axes.set_xticks([nines(percent) for percent in NINES], [f"{percent:g}" for percent in NINES])
            axes.set_xlim(nines(NINES[0]), nines(NINES[-1]))
            axes.set_xlabel("percentile (the rare ones are on the right)")
            axes.set_ylabel("ms")
            _legend(canvas, axes)
            said = (
                f"{subject}: half within {at(histogram, 50):.2f} ms, 99 % within {at(histogram, 99):.2f} ms"
                for subject, histogram in shown.items()
            )
            return self._finished(canvas, CURVES[name], f"{described.title}. {'; '.join(said)}")

    def _bars(self, described: Described, figure: Figure) -> Plot | None:
        spreads = [
            (subject, spread)
            for subject in subjects_in(self._results, described.name)
            if (spread := Spread.of(self._results.values(described.name, subject, figure.name).values()))
        ]
        if len(spreads) < 2:
            return None
        with drawing():
            canvas = Canvas(figsize=(SIZE[0], 0.9 + 0.27 * len(spreads)), layout="constrained")
            axes = canvas.add_subplot()
            _plain_frame(axes)
            logs = _scale(axes, [spread.median for _, spread in spreads], along="x")
            for place, (subject, spread) in enumerate(spreads):
                colour, _, marker = self._styles[subject]
                if not logs:  # a bar on a logarithmic axis has no honest length
                    axes.barh(place, spread.median, color=colour, height=0.55, alpha=0.75)
                axes.plot([spread.least, spread.most], [place, place], color=INK, linewidth=1.2)
                axes.plot([spread.median], [place], marker=marker if logs else "|", color=colour if logs else INK)
                axes.annotate(
                    number(spread.median, figure.digits), (1.01, place), xycoords=("axes fraction", "data"),
                    va="center", color=INK, annotation_clip=False,
                )  # fmt: skip
            axes.set_yticks(range(len(spreads)), [_plain(subject) for subject, _ in spreads])
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
            direction = {"lower": "less is better", "higher": "more is better", "neither": ""}[figure.better]
            axes.set_xlabel(f"{figure.title}{f', {figure.unit}' if figure.unit else ''} ({direction})")
            said = (f"{subject} {spread.text(figure.digits)} {figure.unit}".strip() for subject, spread in spreads)
            title = f"{figure.title[:1].upper()}{figure.title[1:]}"
            return self._finished(canvas, title, f"{described.title}. {'; '.join(said)}")

    def _finished(self, canvas: Canvas, title: str, told: str, note: str = "") -> Plot:
        self._made += 1
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return Plot(title, told, inlined(file.getvalue(), f"p{self._made}-"), note)


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """The same text and the same ids whenever the same figures are drawn."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "relay",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # text is measured with this one, which comes with matplotlib
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "text.parse_math": False,
    }
    with mpl.rc_context(settings):
        yield


def _within(
    lines: dict[str, list[tuple[float, Spread]]], figure: Figure
) -> tuple[dict[str, list[tuple[float, Spread]]], str]:
    """Without those that would press all others flat, and a sentence that names them."""
    middles = {name: statistics.median(spread.median for _, spread in points) for name, points in lines.items()}
    limit = OUTLIER * statistics.median(middles.values()) if middles else 0.0
    beyond = [name for name, middle in middles.items() if middle > limit > 0]
    said = (f"{name} ({number(middles[name], figure.digits)} {figure.unit})" for name in beyond)
    note = f"Beyond this scale: {', '.join(said)}." if beyond else ""
    return {name: points for name, points in lines.items() if name not in beyond}, note


def _plain(name: str) -> str:
    """A label that begins with an underscore would be left out of the legend."""
    return name.lstrip("_") or "?"


def _axes(results: Results, lines: int) -> tuple[Canvas, Axes]:
    rows = math.ceil(lines / 3)
    canvas = Canvas(figsize=(SIZE[0], SIZE[1] + 0.2 * rows), layout="constrained")
    axes = canvas.add_subplot()
    _plain_frame(axes)
    return canvas, axes


def _plain_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True)
    axes.set_axisbelow(True)


def _legend(canvas: Canvas, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, handlelength=2.6)


def _scale(axes: Axes, values: Sequence[float], *, along: str) -> bool:
    """Logarithmic if one would dwarf the others; from zero otherwise."""
    axis = axes.yaxis if along == "y" else axes.xaxis
    logs = min(values) > 0 and max(values) > LOG_FROM * min(values)
    if logs:
        (axes.set_yscale if along == "y" else axes.set_xscale)("log")
        _log_ticks(axes, along, max(values) / min(values))
    else:
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        if min(values) >= 0:
            (axes.set_ylim if along == "y" else axes.set_xlim)(0, (max(values) or 1) * 1.15)
    return logs


def _log_ticks(axes: Axes, along: str, span: float = math.inf) -> None:
    """`span`: the greatest over the least; between few powers of ten there is room for more."""
    axis = axes.yaxis if along == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(10, (1, 2, 5) if span < 1000 else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def merge(histograms: Iterable[Histogram]) -> Histogram:
    counts: dict[float, int] = {}
    for histogram in histograms:
        for bound, count in histogram:
            counts[bound] = counts.get(bound, 0) + count
    return sorted((bound, count) for bound, count in counts.items() if count)


def curve(histogram: Histogram) -> list[tuple[float, float]]:
    """Percent and the bound that so many do not exceed, from the median on; the last point stands for the greatest."""
    total = sum(count for _, count in histogram)
    points, seen = [(50.0, at(histogram, 50))], 0
    for bound, count in histogram:
        seen += count
        percent = 100 * seen / total if seen < total else 100 * (1 - 0.5 / total)  # 100 % has no place on this axis
        if percent > 50:
            points.append((percent, bound))
    return points


def at(histogram: Histogram, percent: float) -> float:
    """The bound that so many percent do not exceed."""
    total, seen = sum(count for _, count in histogram), 0
    for bound, count in histogram:
        seen += count
        if seen >= total * percent / 100:
            return bound
    return histogram[-1][0]


def nines(percent: float) -> float:
    """50 % is 0.3, 90 % is 1, 99 % is 2 and so on: the rarer, the more room."""
    return -math.log10(max(1 - percent / 100, 1e-9))


def inlined(svg: str, prefix: str) -> str:
    """What a page may hold: no prolog, no metadata, no other namespaces; ids with a prefix; the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")  # whose namespace goes with the head, below
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--grid, #8884)")
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's own; the plots' text is measured a little too wide
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    # The page says how wide; without a size of its own it keeps its proportions.
    return re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg.strip())


def _rounded(attribute: re.Match[str]) -> str:
    """A hundredth of a point is finer than any screen."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", re.sub(r"\s*\n", " ", attribute[0]))
