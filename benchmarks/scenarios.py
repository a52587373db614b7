"""What is played: each scenario's acts, who can take part in it, and what figures come out of it.

A kind of scenario is a class; the scenarios of a benchmark are its instances, made in plan.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.notes import events_of, note_answers, note_cost, note_load, note_memory, note_times
from benchmarks.results import Described, Run
from benchmarks.stage import Act, Stage
from benchmarks.subjects import Subject

EVENT_BYTES = 200
ENDLESS = 99_999_999  # events per stream: no stream ends by itself
# While streams come: one costs as much as fifty events, and those that are there have theirs already.
STREAMS_PER_SECOND, WHERE_MANY, MANY_STREAMS = 1300, 700, 5000

COSTS = ("cpu_us", "user_us", "system_us")
STARTS = ("ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms", "ttft_max_ms")


def events_a_second(streams: int, rate: float) -> str:
    return f"{streams:,} streams, {rate:g} events/s each"


def open_streams(count: int, rate: float, seconds: float, size: int = EVENT_BYTES, **more: Any) -> Act:
    """An act whose streams stay open, each with so many events a second."""
    schedule: dict[str, object] = {"interval_ms": 1000 / rate, "size": size, "events": ENDLESS}
    return Act(streams=count, seconds=seconds, ramp=ramp(count), provider=schedule, **more)


def ramp(count: int) -> float:
    """Seconds in which so many streams come."""
    return count / (WHERE_MANY if count > MANY_STREAMS else STREAMS_PER_SECOND)


@dataclass(frozen=True)
class Scenario(ABC):
    name: str
    title: str
    told: str
    figures: ClassVar[tuple[str, ...]]
    reference: str = "nginx"
    needs: frozenset[str] = frozenset()  # abilities of a subject
    subjects: tuple[str, ...] | None = None  # if only these make sense
    repeat: int | None = None  # so often at most: for what takes long and says enough once

    @property
    @abstractmethod
    def streams(self) -> int: ...

    @property
    @abstractmethod
    def estimate(self) -> float:
        """Seconds of one run."""

    @abstractmethod
    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        """Plays it once, and writes what was seen into the run."""

    def stands(self, subject: Subject) -> bool:
        """Whether a subject has all that is needed. The reference takes part as he can where he has not."""
        return subject.name == "direct" or self.needs <= subject.abilities

    def describe(self) -> Described:
        window = getattr(self, "seconds", None)
        told = self.told if window is None else f"{self.told} Measured over {window:g} s."
        return Described(self.name, self.title, told, list(self.figures), self.reference, self.streams)


@dataclass(frozen=True)
class Steady(Scenario):
    """Streams that are open all the time, each with an event at its own times."""

    figures = (
        *("cpu_us", "delay_p99_ms", "clean", "rss_kib"),
        *("user_us", "system_us", "gap_p99_ms", "delay_p50_ms", "delay_p95_ms", "delay_max_ms"),
        *("gap_p50_ms", "gap_p95_ms", "gap_max_ms"),
        *("sent_kib", "idle_mib", "reads", "writes", "connections", "load_core"),
    )
    count: int = 500
    rate: float = 20
    client_http: int = 1
    provider_http: int = 1
    tls: bool = False
    seconds: float = 4

    @property
    def streams(self) -> int:
        return self.count

    @property
    def estimate(self) -> float:
        return ramp(self.count) + self.seconds + 2.5

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = open_streams(
            self.count,
            self.rate,
            self.seconds,
            client_http=self.client_http,
            provider_http=self.provider_http if self.stands(subject) else 1,
            tls=self.tls,
        )
        seen = stage.play(subject, act)
        events = events_of(seen)
        note_load(run, seen)
        note_cost(run, seen, events)
        note_memory(run, seen, self.count)
        run.figures["sent_kib"] = seen.provider["events"] * EVENT_BYTES / 1024 / self.count
        note_times(run, seen, "delay")
        note_times(run, seen, "gap")
        run.figures["clean"] = 100 * seen.client["clean"] / self.count
        run.figures["rate"] = events / seen.window
        if subject.name != "direct":
            run.figures["connections"] = seen.provider["open_most"]
        # With few events due in a window, its borders alone make a difference.
        if (arrived := events / (self.count * self.rate * seen.window)) < 0.97 and self.rate > 1:
            run.remarks.append(f"only {arrived:.0%} of the events that were due arrived: it was overloaded")


@dataclass(frozen=True)
class Arrivals(Scenario):
    """Requests that come at their own times, whatever became of those before: an open loop."""

    figures = (*STARTS, "total_p50_ms", "total_p99_ms", "cpu_ms", "requests_rate", "whole", "load_core")
    rate: float = 100  # requests a second
    events: int = 20  # of each answer
    interval_ms: float = 50
    most: int = 2000  # open at once
    plain: bool = False  # JSON answers
    seconds: float = 4
    client_http: int = 1
    provider_http: int = 1

    @property
    def streams(self) -> int:
        return max(1, round(self.rate * self.events * self.interval_ms / 1000))

    @property
    def estimate(self) -> float:
        return self.seconds + self.warmup + 2 + self.events * self.interval_ms / 1000

    @property
    def warmup(self) -> float:
        """Until as many are open as there will be."""
        return 0.5 + self.events * self.interval_ms / 1000

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = Act(
            streams=self.most,
            seconds=self.seconds,
            ramp=0,
            warmup=self.warmup,
            provider={"interval_ms": self.interval_ms, "size": EVENT_BYTES, "events": self.events},
            client={"arrivals": self.rate},
            switches=["plain"] if self.plain else [],
            client_http=self.client_http,
            provider_http=self.provider_http,
            drains=True,
        )
        seen = stage.play(subject, act)
        note_answers(run, seen)


@dataclass(frozen=True)
class Burst(Scenario):
    """Many requests at one moment."""

    figures = (*STARTS, "total_p50_ms", "total_p99_ms", "cpu_ms", "whole")
    count: int = 1000
    events: int = 10
    interval_ms: float = 100

    @property
    def streams(self) -> int:
        return self.count

    @property
    def estimate(self) -> float:
        return 4 + self.events * self.interval_ms / 1000

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = Act(
            streams=self.count,
            seconds=0.5,
            ramp=0,
            warmup=0.5,
            provider={"interval_ms": self.interval_ms, "size": EVENT_BYTES, "events": self.events},
            client={"arrivals": 0, "burst": self.count},
            drains=True,
        )
        note_answers(run, stage.play(subject, act))


@dataclass(frozen=True)
class Saturation(Scenario):
    """More than anybody can relay: what gets through, with the relay's core full."""

    figures = ("rate", "cpu_us", "core", "load_core", "user_us", "system_us", "writes")
    count: int = 200
    seconds: float = 4

    @property
    def streams(self) -> int:
        return self.count

    @property
    def estimate(self) -> float:
        return self.seconds + 3

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = Act(
            streams=self.count,
            seconds=self.seconds,
            provider={"interval_ms": 0, "size": EVENT_BYTES, "events": ENDLESS},
        )
        seen = stage.play(subject, act)
        events = events_of(seen)
        kinds = {kind: count for kind, count in seen.client["error_kinds"].items() if count}
        run.errors += [f"{count} {kind}" for kind, count in kinds.items()]
        run.figures["rate"] = events / seen.window
        note_cost(run, seen, events)
        run.figures["load_core"] = 100 * (seen.client_core + seen.provider_core)
        if run.figures["load_core"] > 95 > run.figures["core"]:
            run.remarks.append("the load's core was full, the subject's was not: more goes through than is seen here")
