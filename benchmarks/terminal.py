"""What the terminal shows: how far a benchmark is, and what it says, readable without the manual."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks import summary
from benchmarks.results import Described, Results
from benchmarks.summary import Cell, Column, Table
from benchmarks.verdicts import Outcome, Verdicts

if TYPE_CHECKING:
    from benchmarks.plan import Part

STYLES: dict[Outcome, str] = {"better": "green", "worse": "red", "same": "cyan", "unclear": ""}
NARROWEST = 9  # columns of text: a heading below that is cut into pieces
Step = Callable[[str, float], None]


# ---- How far it is ---------------------------------------------------------------------------------------------------


class _Remaining(ProgressColumn):
    """By the estimate of what is still to run, mended by how the estimates were so far."""

    def render(self, task: Task) -> Text:
        return Text(f"about {clock(task.fields['remaining'])} left", style="cyan")


class Watch:
    """How long the rest takes. `now` gives seconds."""

    def __init__(self, estimate: float, now: Callable[[], float]) -> None:
        self._estimate, self._now = estimate, now
        self._begun = now()
        self._planned = self._running = 0.0  # seconds by the estimates: of what is done, and of what runs

    @property
    def elapsed(self) -> float:
        return self._now() - self._begun

    def step(self, seconds: float) -> None:
        self._planned += self._running
        self._running = seconds

    @property
    def remaining(self) -> float:
        # Half the plan's estimate is believed before anything was seen, so that the first run does not decide alone.
        trust = self._estimate / 10
        pace = (self.elapsed + trust) / (self._planned + self._running / 2 + trust) if self._planned else 1.0
        return max(0.0, (self._estimate - self._planned) * max(pace, 0.1))


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def progress(
    plan_length: int, estimate_seconds: float, console: Console | None = None, now: Callable[[], float] = time.monotonic
) -> Iterator[Step]:
    """Gives a function to be called before each of `plan_length` runs, with its description and estimated seconds.

    Shown on stderr: a bar in a terminal, else one line for each run.
    """
    console = console or Console(stderr=True)
    watch = Watch(estimate_seconds, now)
    done = -1
    if not console.is_terminal:

        def line(description: str, seconds: float) -> None:
            nonlocal done
            done += 1
            watch.step(seconds)
            at = f"{clock(watch.elapsed)} gone, about {clock(watch.remaining)} left"
            console.print(Text(f"[{done + 1}/{plan_length}] {description} ({at})"), soft_wrap=True)

        yield line
        return
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Remaining(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=plan_length, remaining=estimate_seconds)

        def step(description: str, seconds: float) -> None:
            nonlocal done
            done += 1
            watch.step(seconds)
            bar.update(task, completed=done, description=description, remaining=watch.remaining)

        yield step


# ---- What it says ----------------------------------------------------------------------------------------------------


def print_results(results: Results, console: Console, everything: bool = False) -> None:
    """The answer first: where, one table, what can be said. Then each scenario, and what was not measured.

    Of a scenario, as many figures as fit side by side, or `everything`; the report has them all.
    """
    verdicts = Verdicts(results)
    _print_where(results, console)
    _print_summary(results, verdicts, console)
    for described in results.scenarios:
        _print_scenario(results, verdicts, described, console, everything)
    print_absent(results.missing, results.left_out, console)


def _heading(text: str, console: Console) -> None:
    console.print()
    console.print(Text(text, style="bold underline"))


def _quiet(text: str, console: Console) -> None:
    console.print(Text(text, style="dim"))


def _print_where(results: Results, console: Console) -> None:
    grid = RichTable.grid(padding=(0, 2))
    for name, value in summary.where(results):
        grid.add_row(Text(name, style="dim"), Text(value))
    console.print(grid)


def _print_summary(results: Results, verdicts: Verdicts, console: Console) -> None:
    table = summary.summary(results, verdicts)
    _heading("In short", console)
    _print_table(table, console)
    places: dict[str, list[str]] = {}
    for column in table.columns:
        places.setdefault(column.scenario, []).append(column.title)
    for scenario, titles in places.items():
        described = next(one for one in results.scenarios if one.name == scenario)
        _quiet(f"at {scenario} ({described.title}): {', '.join(titles)}", console)
    _quiet(f"Medians. {summary.LEGEND}.", console)
    if summary.played_once(results):
        _quiet(summary.ONCE_TOLD, console)
    console.print()
    for subject, _ in table.rows:
        _quiet(f"{subject}: {results.about.get(subject, '-')}", console)
    console.print()
    for outcome, text in summary.sentences(results, verdicts):
        console.print(Text.assemble((f"{summary.MARKS[outcome] or '·'} ", STYLES[outcome]), text))
    _quiet(summary.overview(results, verdicts), console)


def _print_scenario(
    results: Results, verdicts: Verdicts, described: Described, console: Console, everything: bool
) -> None:
    _heading(f"{described.name}: {described.title}", console)
    _quiet(described.told, console)
    _print_table(summary.scenario_table(results, verdicts, described), console, None if everything else 1)
    for subject, text in summary.remarks(results, described):
        style = "red" if text.startswith(("failed", "error")) else "yellow"
        console.print(Text(f"  ! {subject}: {text}", style=style))


def print_absent(missing: Mapping[str, str], left_out: Sequence[str], console: Console) -> None:
    if not missing and not left_out:
        return
    _heading("Not measured", console)
    for subject, why in missing.items():
        console.print(Text.assemble((subject, "bold"), f": {why}"))
    for text in left_out:
        console.print(Text(text))


def _print_table(table: Table, console: Console, most: int | None = None) -> None:
    """In as many tables as the width asks for, each with the subjects; or in so many at most, and what is left out."""
    if not table.columns:
        console.print(Text("Nothing was measured."))
        return
    names = max(len(subject) for subject, _ in [*table.rows, ("subject", [])])
    split = groups([_width(table, index) for index in range(len(table.columns))], console.width - names - 4)
    for first, last in split[:most]:
        shown = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1), header_style="bold")
        shown.add_column("subject", no_wrap=True, min_width=names, vertical="bottom")
        for index in range(first, last):
            shown.add_column(
                Text(_title(table.columns[index])), justify="right", min_width=_width(table, index), vertical="bottom"
            )
        for subject, cells in table.rows:
            shown.add_row(Text(subject), *(_styled(cell) for cell in cells[first:last]))
        console.print(shown)
    if left := table.columns[split[:most][-1][1] :]:
        _quiet(f"also in the report: {', '.join(column.title for column in left)}", console)


def _title(column: Column) -> str:
    return f"{column.title}, {column.unit}" if column.unit else column.title


def _styled(cell: Cell) -> Text:
    failed = cell.text.startswith("failed")
    return Text(cell.marked, style="red" if failed else STYLES[cell.outcome])


def _width(table: Table, index: int) -> int:
    """Of a column whose cells are not broken, and whose heading is broken between words only."""
    words = _title(table.columns[index]).split()
    cells = [len(cells[index].marked) for _, cells in table.rows]
    return max(NARROWEST, *(len(word) for word in words), *cells)


def groups(widths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """First and last (excluded) of the columns that fit side by side; each group has one at least."""
    found, first, used = [], 0, 0
    for index, width in enumerate(widths):
        if index > first and used + width + 3 > room:
            found.append((first, index))
            first, used = index, 0
        used += width + 3  # a space on either side, and one between columns
    return [*found, (first, len(widths))]


def print_plan(
    parts: Sequence[Part], missing: Mapping[str, str], left_out: Sequence[str], repeat: int, console: Console
) -> None:
    """What would be run."""
    table = RichTable(box=box.SIMPLE, pad_edge=False, header_style="bold")
    for heading in ("scenario", "what", "subjects", "runs"):
        table.add_column(heading, justify="right" if heading == "runs" else "left")
    seconds = 0.0
    for part in parts:
        times = min(repeat, part.scenario.repeat or repeat)
        seconds += times * sum(part.scenario.estimate + subject.ready_cost for subject in part.subjects)
        names = ", ".join(subject.name for subject in part.subjects)
        table.add_row(Text(part.scenario.name), Text(part.scenario.title), Text(names), str(times * len(part.subjects)))
    console.print(table)
    console.print(Text(f"about {clock(seconds)} in all"))
    print_absent(missing, left_out, console)
