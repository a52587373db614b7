"""What is noted of a run: figures, distributions, and what makes them doubtful or void."""

from __future__ import annotations

import math

from benchmarks.figures import FIGURES
from benchmarks.processes import RunError
from benchmarks.results import Run
from benchmarks.stage import Seen

BUSY_LOAD = 0.5  # of its core: above it, delays are also the load's own
LATE_MS = 10  # a provider further behind was kept off its core by somebody else


def events_of(seen: Seen) -> int:
    """How many arrived in the window. Raises RunError if there was none."""
    if not (events := int(seen.client["delay_us"]["count"])):
        raise RunError("no event arrived")
    return events


def note_load(run: Run, seen: Seen) -> None:
    """What makes a run's figures doubtful, and what makes them void."""
    busiest = max(seen.client_core, seen.provider_core)
    run.figures["load_core"] = 100 * (seen.client_core + seen.provider_core)
    if busiest > BUSY_LOAD:
        run.remarks.append(f"client or provider alone used {busiest:.0%} of their core: part of the delay is theirs")
    if (late := seen.provider["late_max_us"] / 1000) > LATE_MS:
        run.remarks.append(f"the provider was up to {late:.0f} ms behind its schedule: part of the delay is its own")
    kinds = {kind: count for kind, count in seen.client["error_kinds"].items() if count}
    run.errors += [f"{count} {kind}" for kind, count in kinds.items()]
    run.errors += [f"{seen.provider[kind]} {kind}" for kind in ("no_window", "refused") if seen.provider[kind]]


def note_times(run: Run, seen: Seen, name: str) -> None:
    """The quantiles and the distribution of one of the client's clocks: delay, gap, ttft, total, resume."""
    told = seen.client[f"{name}_us"]
    if not told["count"]:
        return
    for quantile in ("p50", "p95", "p99", "max"):
        if (figure := f"{name}_{quantile}_ms") in FIGURES:
            run.figures[figure] = told[quantile] / 1000
    run.histograms[f"{name}_ms"] = [(upper / 1000, count) for upper, count in told["buckets"]]


def note_cost(run: Run, seen: Seen, events: float) -> None:
    """CPU for each event. schedstat has nanoseconds; the split into user and system is sampled by the kernel's tick."""
    if not seen.relay.total_ns or not events:
        return
    ticks = seen.relay.user_ticks + seen.relay.system_ticks
    cost = seen.relay.total_ns / 1000 / events
    run.figures["cpu_us"] = cost
    run.figures["core"] = seen.relay.total_ns / 1e7 / seen.span
    if ticks:
        run.figures["user_us"] = cost * seen.relay.user_ticks / ticks
        run.figures["system_us"] = cost * seen.relay.system_ticks / ticks
    # The kernel does not count recv(2) and send(2): those of nginx show in part, those of floor not at all.
    if seen.relay.reads:
        run.figures["reads"] = seen.relay.reads / events
    if seen.relay.writes:
        run.figures["writes"] = seen.relay.writes / events


def note_memory(run: Run, seen: Seen, streams: int) -> None:
    if seen.opened.rss:
        run.figures["rss_kib"] = (seen.opened.rss - seen.idle.rss) / streams
        run.figures["idle_mib"] = seen.idle.rss / 1024


def quantile_ms(values: list[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))]


def note_answers(run: Run, seen: Seen) -> None:
    due, answers = seen.client["due"], seen.client["answers"]
    if not answers:
        raise RunError("no answer came")
    note_load(run, seen)
    for clock in ("ttft", "total", "gap"):
        note_times(run, seen, clock)
    run.figures["whole"] = 100 * answers / due
    run.figures["requests_rate"] = answers / seen.window
    if seen.relay.total_ns:
        # The window's requests go on when it ends, and those before it went on when it began: as many come as go.
        run.figures["cpu_ms"] = seen.relay.total_ns / 1e6 / answers
        run.figures["core"] = seen.relay.total_ns / 1e7 / seen.span


def counted(values: list[float]) -> list[tuple[float, int]]:
    """Eight buckets for each power of two, as the client's own."""
    buckets: dict[float, int] = {}
    for value in values:
        upper = 2 ** (math.ceil(math.log2(max(value, 1e-3)) * 8) / 8)
        buckets[upper] = buckets.get(upper, 0) + 1
    return sorted(buckets.items())
