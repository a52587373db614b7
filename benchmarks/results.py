"""What a benchmark leaves behind: one JSON document, which report and comparison read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.figures import FIGURES
from benchmarks.processes import BenchError

FORMAT = "relay-bench-1"

Histogram = list[tuple[float, int]]  # upper bound of a bucket, how many are in it


@dataclass
class Described:
    """A scenario as the report shows it."""

    name: str  # such as 4000x10
    title: str  # such as "4,000 streams, 10 events/s each"
    told: str  # one or two sentences: what happens, and what a good relay shows
    figures: list[str]  # those that matter here, the first above all
    reference: str = "nginx"  # whom ratios are taken to, if he took part
    streams: int = 0


@dataclass
class Run:
    """One subject in one scenario, once. Runs of one repeat were neighbours in time: compare within a repeat."""

    scenario: str
    subject: str
    repeat: int
    failure: str = ""  # nothing was measured
    errors: list[str] = field(default_factory=list)  # answers that were not as they must be
    remarks: list[str] = field(default_factory=list)  # what makes the figures doubtful, such as a busy load
    figures: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)  # in the unit of the figures: delay_ms, gap_ms, …

    def __post_init__(self) -> None:
        assert set(self.figures) <= set(FIGURES)


@dataclass
class Results:
    """A whole benchmark."""

    made: str  # when, ISO 8601 in UTC
    seconds: float  # how long it took
    command: str
    machine: dict[str, str]
    subjects: dict[str, str]  # by name: its program's version
    missing: dict[str, str]  # by name: why it could not take part
    scenarios: list[Described]
    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # what was asked for and not run, and why
    about: dict[str, str] = field(default_factory=dict)  # by name: what a subject is
    format: str = FORMAT

    def of(self, scenario: str, subject: str) -> list[Run]:
        return [run for run in self.runs if (run.scenario, run.subject) == (scenario, subject)]

    def values(self, scenario: str, subject: str, figure: str) -> dict[int, float]:
        """By repeat; runs that failed or had errors have none."""
        good = (run for run in self.of(scenario, subject) if not run.failure and not run.errors)
        return {run.repeat: run.figures[figure] for run in good if figure in run.figures}

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load(path: Path) -> Results:
    try:
        results = msgspec.json.decode(path.read_bytes(), type=Results)
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BenchError(f"{path} is no result of a benchmark: {error}") from error
    if results.format != FORMAT:
        raise BenchError(f"{path} has the format {results.format!r}, this harness reads {FORMAT!r}: run it again")
    return results
