"""Benchmarks that nobody ran: plausible figures with the noise of a shared machine, the same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import NormalDist

from benchmarks.results import Described, Histogram, Results, Run

STEADY = ["cpu_us", "delay_p99_ms", "gap_p99_ms", "clean", "rss_kib", "delay_p50_ms", "user_us", "system_us", "core"]
DELAYS = ["cpu_us", "delay_p99_ms", "clean"]


def _steady(name: str, streams: int, rate: int, more: str = "") -> Described:
    told = f"{streams:,} clients each read one endless answer. A good relay passes each event on at once, and cheaply."
    return Described(name, f"{streams:,} streams, {rate} events/s each{more}", told, STEADY, streams=streams)


SCENARIOS = [
    _steady("500x20", 500, 20),
    _steady("4000x10", 4000, 10),
    _steady("9000x5", 9000, 5),
    _steady("4000x10 h2", 4000, 10, ", HTTP/2 to the provider"),
    Described("starts", "200 new streams a second", "Answers begin and end.", ["ttft_p99_ms", "ttft_p50_ms", "cpu_ms"]),
    Described(
        "burst", "500 requests at once", "All ask at the same time.", ["ttft_p99_ms", "ttft_max_ms", "total_p99_ms"]
    ),
    Described(
        "saturation", "As many events as go through", "Load grows to the core's end.", ["rate", "core"], "nginx", 500
    ),
    Described("fanout1000", "1,000 readers of one stream", "Each event goes out 1,000 times.", DELAYS, "floor", 1000),
    Described(
        "stuck",
        "100 readers who never read",
        "Memory has to have a bound.",
        ["stuck_kib", "stuck_gone_s", "delay_p99_ms"],
    ),
    Described(
        "resume",
        "Readers who come back",
        "Connections break and are made again.",
        ["resume_p99_ms", "lost", "made_again"],
    ),
    Described(
        "cancel",
        "Clients who leave",
        "The provider must hear of it soon.",
        ["cancel_p99_ms", "cancel_missed", "spared"],
    ),
    Described(
        "stop", "The relay is told to stop", "Open answers are brought to their end.", ["whole", "lost", "reconnects"]
    ),
    Described(
        "json", "Answers in one piece", "No streaming: 4 KiB of JSON.", ["cpu_ms", "total_p99_ms", "requests_rate"]
    ),
    Described("tls", "500 streams over TLS", "The client's connections are encrypted.", DELAYS, "nginx", 500),
    Described(
        "network", "A network of 40 ms with loss", "Delay and 1 % loss on the way.", ["delay_p99_ms", "lost", "clean"]
    ),
]

SUBJECTS = ["direct", "floor", "nginx", "haproxy", "sglang", "litellm", "relay", "resumable"]
# How many times nginx's cost each one has, and how many times its delay.
COST = {"floor": 0.8, "nginx": 1.0, "haproxy": 0.95, "sglang": 1.8, "litellm": 50.0, "relay": 1.04, "resumable": 1.3}
TYPICAL = {
    "cpu_us": 20, "user_us": 8, "system_us": 12, "cpu_ms": 0.4, "delay_p50_ms": 1.2, "delay_p99_ms": 6,
    "delay_p95_ms": 3, "delay_max_ms": 20, "gap_p99_ms": 4, "ttft_p50_ms": 2, "ttft_p99_ms": 9, "ttft_max_ms": 30,
    "total_p99_ms": 12,
    "clean": 98, "rate": 40_000, "requests_rate": 4000, "core": 70, "rss_kib": 22, "stuck_kib": 60, "stuck_gone_s": 10,
    "cancel_p99_ms": 3, "resume_p99_ms": 5, "spared": 93, "reconnects": 40,
}  # fmt: skip
COSTLY = {"cpu_us", "user_us", "system_us", "cpu_ms"}


def _value(name: str, subject: str, cost: float, together: float, own: float, worse: float) -> float:
    if name in ("lost", "made_again", "cancel_missed"):
        return 0.0 if subject in ("relay", "resumable") else 4.5
    if name == "whole":
        return 100.0 if subject == "resumable" else 80.0
    if name in ("clean", "spared"):
        return 100 * (1 - (1 - TYPICAL[name] / 100) * min(40.0, cost * together * own / worse))
    if name in ("rate", "requests_rate"):
        return TYPICAL[name] / cost / together * own * worse
    if name.endswith("_ms") and name not in COSTLY:
        return TYPICAL[name] * (0.3 + cost) * together * own * worse
    return TYPICAL[name] * cost * (together if name in COSTLY else 1.0) * own * worse


def histogram(middle: float, spread: float) -> Histogram:
    """In ms: some 5,000 lognormal values in buckets of a fifth of their size."""
    normal = NormalDist(math.log(middle), spread)
    bounds = [middle * 1.2**step for step in range(-12, 25)]
    shares = [normal.cdf(math.log(bound)) - normal.cdf(math.log(bound / 1.2)) for bound in bounds]
    counted = ((round(bound, 6), round(5000 * share)) for bound, share in zip(bounds, shares, strict=True))
    return [(bound, count) for bound, count in counted if count]


def made_up(
    *,
    seed: int = 1,
    repeats: int = 5,
    scenarios: Iterable[str] | None = None,
    subjects: Iterable[str] = SUBJECTS,
    factors: Mapping[str, Mapping[str, float]] | None = None,
    costs: Mapping[str, float] = COST,
    common: float = 0.15,
    own: float = 0.05,
    histograms: bool = False,
    plain: bool = False,
) -> Results:
    """`factors` make figures of a subject so many times greater; `common` is the noise of a repeat, `own` of a run.

    `plain` leaves out what some subjects cannot do.
    """
    draw = random.Random(seed)
    wanted = [one for one in SCENARIOS if scenarios is None or one.name in set(scenarios)]
    subjects = list(subjects)
    results = Results(
        made="2026-11-21T15:00:00Z",
        seconds=1234.5,
        command="bench --repeats 5 --window 10",
        machine={"cpu": "AMD EPYC 7B13, 2 cores", "kernel": "6.1.0", "python": "3.11.2", "window": "10 s"},
        subjects=dict.fromkeys(subjects, "1.0"),
        missing={} if plain else {"bifrost": "no program of that name: npx @maximhq/bifrost"},
        scenarios=[replace(one) for one in wanted],
    )
    for described in wanted:
        for repeat in range(1, repeats + 1):
            together = draw.lognormvariate(0, common)
            for subject in subjects:
                noise = {name: draw.lognormvariate(0, own) for name in described.figures}
                run = Run(described.name, subject, repeat)
                results.runs.append(run)
                if not plain and subject == "sglang" and described.streams >= 4000:
                    run.failure = "one worker was marked dead: 503 to 3,112 requests"
                    continue
                for name in described.figures:
                    if subject == "direct" and not name.startswith(("delay", "gap", "ttft", "total", "clean")):
                        continue
                    if described.name == "resume" and subject not in ("resumable", "floor", "relay") and not plain:
                        continue
                    worse = (factors or {}).get(subject, {}).get(name, 1.0)
                    run.figures[name] = _value(name, subject, costs.get(subject, 0.3), together, noise[name], worse)
                if described.figures == STEADY:
                    rate = described.streams * int(described.name.split("x")[1].split()[0])
                    run.figures["rate"] = rate * min(1.0, 1100 / rate if subject == "litellm" else 1.0)
                if not plain and subject == "litellm" and repeat == 2:
                    run.remarks.append("client and provider used up to 55 % of their core: part of the delay is theirs")
                if not plain and subject == "haproxy" and described.name == "burst" and repeat == 3:
                    run.errors.append("2 answers ended before their last event")
                if histograms and "delay_p99_ms" in run.figures:
                    cost = 0.3 + costs.get(subject, 0.3)
                    run.histograms["delay_ms"] = histogram(1.2 * cost * together, 0.7)
                    run.histograms["gap_ms"] = histogram(0.6 * cost * together, 0.8)
    return results
