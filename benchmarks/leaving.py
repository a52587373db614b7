"""Scenarios in which readers do something else than read: many on one stream, stuck, coming back, leaving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.notes import counted, events_of, note_cost, note_load, note_memory, note_times, quantile_ms
from benchmarks.processes import RunError
from benchmarks.results import Run
from benchmarks.scenarios import COSTS, EVENT_BYTES, STREAMS_PER_SECOND, Scenario, open_streams
from benchmarks.stage import Act, Stage
from benchmarks.subjects import Subject


@dataclass(frozen=True)
class FanOut(Scenario):
    """One stream, many readers."""

    figures = (*COSTS, "delay_p50_ms", "delay_p99_ms", "delay_max_ms", "rss_kib", "load_core")
    reference: str = "fan"
    needs: frozenset[str] = frozenset({"fan-out"})
    readers: int = 1000
    rate: float = 20
    seconds: float = 5

    @property
    def streams(self) -> int:
        return self.readers

    @property
    def estimate(self) -> float:
        return self.readers / STREAMS_PER_SECOND + self.seconds + 2.5

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = open_streams(
            self.readers,
            self.rate,
            self.seconds,
            switches=["fan-out" if subject.name != "fan" else "fan-out-plain"],
        )
        seen = stage.play(subject, act)
        events = events_of(seen)
        note_load(run, seen)
        note_cost(run, seen, events)
        note_memory(run, seen, self.readers)
        note_times(run, seen, "delay")


@dataclass(frozen=True)
class Stuck(Scenario):
    """Readers who never read, beside as many who do: each with a stream of his own, or all on one."""

    figures = ("stuck_kib", "stuck_gone_s", "delay_p50_ms", "delay_p99_ms", "gap_p99_ms", "clean", "cpu_us")
    count: int = 500
    stuck: int = 500
    shared: bool = False
    rate: float = 20
    size: int = 1000
    seconds: float = 8

    @property
    def streams(self) -> int:
        return self.count + self.stuck

    @property
    def estimate(self) -> float:
        return self.seconds + 4

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = open_streams(
            self.streams,
            self.rate,
            self.seconds,
            size=self.size,
            client={"stuck": self.stuck},
            switches=["fan-out"] if self.shared else [],
        )
        seen = stage.play(subject, act)
        note_load(run, seen)
        for clock in ("delay", "gap"):
            note_times(run, seen, clock)
        run.figures["clean"] = 100 * seen.client["clean"] / self.count
        note_cost(run, seen, seen.client["delay_us"]["count"])
        if subject.name == "direct":
            return
        run.figures["stuck_kib"] = (seen.opened.rss - seen.idle.rss) / self.streams
        gone = seen.client["stuck_gone"]
        if gone == self.stuck:
            run.figures["stuck_gone_s"] = seen.client["stuck_last_gone_s"]
        elif self.shared:
            run.remarks.append(f"{self.stuck - gone} of {self.stuck} stuck readers were there after {self.seconds:g} s")


@dataclass(frozen=True)
class Storm(Scenario):
    """All connections break at once, and all readers come back at once."""

    figures = ("resume_p50_ms", "resume_p99_ms", "resume_max_ms", "made_again", "lost", "reconnects", "cpu_us")
    count: int = 1000
    rate: float = 10
    away_ms: float = 500
    seconds: float = 6

    @property
    def streams(self) -> int:
        return self.count

    @property
    def estimate(self) -> float:
        return self.count / STREAMS_PER_SECOND + self.seconds + 3

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        resumes = "resume" in subject.abilities
        act = open_streams(
            self.count,
            self.rate,
            self.seconds,
            client={"break-at": self.seconds / 3, "away-ms": self.away_ms},
            switches=["resumable"] if resumes else [],
        )
        seen = stage.play(subject, act)
        note_load(run, seen)
        note_times(run, seen, "resume")
        note_cost(run, seen, seen.client["delay_us"]["count"])
        run.figures["reconnects"] = seen.client["reconnects"]
        asked = self.count * self.rate * seen.window
        run.figures["made_again"] = 100 * seen.client["repeated"] / asked
        run.figures["lost"] = 100 * seen.client["error_kinds"]["out_of_sequence"] / asked
        if not resumes:
            run.remarks.append("it cannot resume: each reader began anew, and the model with him")


@dataclass(frozen=True)
class Cancel(Scenario):
    """All readers leave at once."""

    figures = ("cancel_p50_ms", "cancel_p99_ms", "cancel_max_ms", "cancel_missed")
    count: int = 1000
    rate: float = 10
    client_http: int = 1
    provider_http: int = 1

    @property
    def streams(self) -> int:
        return self.count

    @property
    def estimate(self) -> float:
        return self.count / STREAMS_PER_SECOND + 5

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        act = open_streams(
            self.count,
            self.rate,
            1,
            switches=["leave-at-end"],
            client_http=self.client_http,
            provider_http=self.provider_http,
            leaves=True,
        )
        seen = stage.play(subject, act)
        note_load(run, seen)
        left: dict[int, int] = dict(seen.client["left_at"])
        closes: list[tuple[int, int]] = seen.provider["closes"]
        if any(reader < 0 for reader, _ in closes):
            # Some gateways do not say for whom they ask. All leave at one moment: the first close is the first's.
            took = [(closed - at) / 1e6 for at, (_, closed) in zip(sorted(left.values()), closes, strict=False)]
        else:
            closed = dict(closes)
            took = [(closed[reader] - at) / 1e6 for reader, at in left.items() if reader in closed]
        if not left:
            raise RunError("nobody had anything to leave")
        run.figures["cancel_missed"] = 100 * (len(left) - len(took)) / len(left)
        if took:
            run.figures["cancel_p50_ms"] = quantile_ms(took, 0.5)
            run.figures["cancel_p99_ms"] = quantile_ms(took, 0.99)
            run.figures["cancel_max_ms"] = max(took)
            run.histograms["cancel_ms"] = counted(took)


@dataclass(frozen=True)
class Stop(Scenario):
    """Readers who have seen enough after a part of their answer."""

    figures = ("spared", "cpu_ms")
    rate: float = 50
    events: int = 100
    interval_ms: float = 20
    part: float = 0.2
    seconds: float = 4

    @property
    def streams(self) -> int:
        return round(self.rate * self.events * self.interval_ms / 1000 * self.part)

    @property
    def estimate(self) -> float:
        return self.seconds + 5

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        leave_after = round(self.events * self.part)
        act = Act(
            streams=1000,
            seconds=self.seconds,
            ramp=0,
            warmup=0.5,
            provider={"interval_ms": self.interval_ms, "size": EVENT_BYTES, "events": self.events},
            client={"arrivals": self.rate, "leave-after": leave_after},
            drains=True,
            leaves=True,
        )
        seen = stage.play(subject, act)
        note_load(run, seen)
        made, asked = seen.provider["events"], seen.provider["requests"]
        if not seen.client["left"]:
            raise RunError("nobody had so much that he could leave")
        # Of what lay behind the place where they left; the whole of it is what a perfect relay spares.
        wanted, most = asked * leave_after, asked * self.events
        run.figures["spared"] = 100 * (most - made) / (most - wanted)
        if seen.relay.total_ns:
            run.figures["cpu_ms"] = seen.relay.total_ns / 1e6 / seen.client["left"]


@dataclass(frozen=True)
class Network(Scenario):
    """A bad network between readers and relay."""

    figures = ("delay_p99_ms", "made_again", "reconnects", "requests_rate", "delay_p50_ms", "gap_p99_ms")
    count: int = 50
    rate: float = 20
    events: int = 60
    bad: Mapping[str, float] = field(default_factory=dict, hash=False)
    seconds: float = 5

    @property
    def streams(self) -> int:
        return self.count

    @property
    def estimate(self) -> float:
        return self.seconds + self.events / self.rate + 4

    def play(self, stage: Stage, subject: Subject, run: Run) -> None:
        resumes = "resume" in subject.abilities
        act = Act(
            streams=self.count,
            seconds=self.seconds,
            ramp=0.5,
            provider={"interval_ms": 1000 / self.rate, "size": EVENT_BYTES, "events": self.events},
            switches=["again", *(["resumable"] if resumes else [])],
            network=dict(self.bad),
        )
        seen = stage.play(subject, act)
        note_load(run, seen)
        for clock in ("delay", "gap"):
            note_times(run, seen, clock)
        run.figures["reconnects"] = seen.client["reconnects"]
        run.figures["requests_rate"] = seen.client["answers"] / seen.window
        run.figures["made_again"] = 100 * seen.client["repeated"] / max(1, seen.client["events"])
