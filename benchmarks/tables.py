"""What the runs of a benchmark say, a table for each scenario."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.runs import Entry, Run, Scenario

BUSY_LOAD = 0.5  # of its core: above it, the delays are also the load's own
LATE_MS = 10  # a provider further behind was kept off its core by somebody else


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and from lowest to highest if there are several."""
    if not values:
        return "-"
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def middle(values: Iterable[float | None], digits: int) -> str:
    """The median alone."""
    return spread(present(values), digits).partition(" ")[0]


def present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def notes(rows: Sequence[Run], scenario: Scenario) -> Iterator[str]:
    for run in rows:
        if run.failure:
            yield f"run {run.repeat}: FAILED: {run.failure}"
        elif run.has_errors:
            yield f"run {run.repeat}: ERRORS: {run.describe_errors()}"
    good = [run for run in rows if not run.has_errors]
    # With few events due in a window, the borders of the window alone make a difference.
    if good and (least := min(run.arrived for run in good)) < 0.97 and scenario.interval_ms < 1000:
        yield f"only {least:.0%} of the events that were due arrived in the window: it was overloaded"
    if good and (most := max(run.client_core + run.provider_core for run in good)) > BUSY_LOAD:
        yield f"client and provider used up to {most:.0%} of their core: part of the delay is theirs"
    if good and (late := max(run.provider["late_max_us"] for run in good) / 1000) > LATE_MS:
        yield f"the provider was up to {late:.0f} ms behind its schedule: part of the delay is its own"


HEADINGS = [
    *["subject", "CPU us/event", "user", "system", "/ nginx", "delay p50 ms", "p99 ms"],
    *["RSS KiB/stream", "Pss", "load core", "reads/event", "writes", "provider conns"],
]


def row(label: str, rows: Sequence[Run], nginx: dict[int, float]) -> list[str]:
    good = [run for run in rows if not run.failure]
    ratios = [run.cpu_us / nginx[run.repeat] for run in good if run.cpu_us and run.repeat in nginx]
    return [
        label,
        spread(present(run.cpu_us for run in good), 1),
        middle((run.user_us for run in good), 1),
        middle((run.system_us for run in good), 1),
        spread(ratios, 2),
        spread([run.client["delay_us"]["p50"] / 1000 for run in good], 2),
        spread([run.client["delay_us"]["p99"] / 1000 for run in good], 2),
        middle((run.rss_kib for run in good), 1),
        middle((run.pss_kib for run in good), 1),
        f"{statistics.median(run.client_core + run.provider_core for run in good):.0%}" if good else "-",
        middle((run.reads for run in good), 2),
        middle((run.writes for run in good), 2),
        f"{max(run.provider['open_most'] for run in good)}" if good else "-",
    ]


def table(runs: Sequence[Run], plan: Sequence[tuple[Scenario, Sequence[Entry]]]) -> str:
    lines = []
    for scenario, entries in plan:
        here = [run for run in runs if run.scenario == scenario.name]
        nginx = {run.repeat: run.cpu_us for run in here if run.subject == "nginx" and run.cpu_us}
        cells, remarks = [HEADINGS], []
        for entry in entries:
            rows = [run for run in here if run.subject == entry.subject and run.pair == str(entry.pair)]
            cells.append(row(str(entry), rows, nginx))
            remarks.append(list(notes(rows, scenario)))
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
        lines.append(str(scenario))
        for line, remark in zip(cells, [[], *remarks], strict=True):
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
            lines += [f"    ! {text}" for text in remark]
        lines.append("")
    return "\n".join(lines)
