"""Which scenarios there are, who takes part in each, and in which order they are played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.leaving import Cancel, FanOut, Network, Stop, Storm, Stuck
from benchmarks.processes import BenchError
from benchmarks.scenarios import Arrivals, Burst, Saturation, Scenario, Steady, events_a_second
from benchmarks.stage import file_limit
from benchmarks.subjects import Subject

RESERVED_FILES = 64
HTTP2_PROVIDER, HTTP2_CLIENT = frozenset({"provider2"}), frozenset({"client2"})
FAST = ("direct", "floor", "nginx", "haproxy", "relay", "resumable")
SLOW = ("nginx", "sglang", "litellm", "relay")  # those who do more for each event, and what they are held against
ONCE = 1  # for what says enough at one look: 20 minutes are not much

STEADY_TOLD = (
    "Each stream has an event of 200 bytes at its own times, whether anybody takes it or not. "
    "A good relay costs little more than the floor, and no event comes later than without it."
)
MANY = frozenset({"many"})

ALL: list[Scenario] = [
    Steady("500x20", events_a_second(500, 20), STEADY_TOLD, count=500, rate=20, subjects=(*FAST, "sglang")),
    Steady(
        "4000x10", events_a_second(4000, 10), STEADY_TOLD, count=4000, rate=10, needs=MANY,
        subjects=("direct", "floor", "nginx", "relay", "resumable"),
    ),
    Steady(
        "9000x5", events_a_second(9000, 5), STEADY_TOLD + " Memory counts here.", count=9000, rate=5,
        needs=MANY, subjects=("nginx", "relay", "resumable"), repeat=ONCE,
    ),
    Steady(
        "50x10", events_a_second(50, 10), "Small enough for gateways that do more for each event.",
        count=50, rate=10, seconds=3, subjects=SLOW,
    ),
    Steady(
        "4000x10 h2 provider", "4,000 streams over HTTP/2 to the provider",
        "The streams share few connections to the provider; clients speak HTTP/1.1. The reference is nginx with "
        "HTTP/1.1 on both sides, since it speaks no HTTP/2 to providers.",
        count=4000, rate=10, provider_http=2, needs=MANY | HTTP2_PROVIDER, subjects=("nginx", "relay"),
    ),
    Steady(
        "500x20 h2 clients", "500 streams over HTTP/2 from clients", "A hundred streams on each client's connection.",
        count=500, rate=20, client_http=2, needs=HTTP2_CLIENT, subjects=("haproxy", "relay"), reference="haproxy",
        seconds=3,
    ),
    Steady(
        "500x20 h2 both", "500 streams over HTTP/2 on both sides", "A hundred streams on each connection.",
        count=500, rate=20, client_http=2, provider_http=2, needs=HTTP2_CLIENT | HTTP2_PROVIDER,
        subjects=("haproxy", "relay"), reference="haproxy", seconds=3, repeat=ONCE,
    ),
    Steady(
        "500x20 tls", "500 streams over TLS from clients", "The relay encrypts each event for its client (TLS 1.3).",
        count=500, rate=20, tls=True, needs=frozenset({"tls"}), subjects=("nginx", "relay"), repeat=ONCE,
    ),
    Arrivals(
        "starts", "100 streams at once, 100 new ones a second",
        "What the relay adds to the time to the first token. Requests come at their own times, whatever it does.",
        rate=100, events=20, interval_ms=50, subjects=("direct", "nginx", "haproxy", "relay"),
    ),
    Burst(
        "burst", "1,000 requests at one moment", "How long they wait; nobody is refused or forgotten.",
        subjects=("direct", "nginx", "haproxy", "relay"), needs=MANY, repeat=ONCE,
    ),
    Saturation(
        "saturation", "As much as goes through",
        "200 streams as fast as each is taken: events a second of a full core. "
        "Who joins several events in one write gets more through.", subjects=("floor", "nginx", "relay"), repeat=ONCE,
    ),
    FanOut(
        "fan-out", "One stream, 1,000 readers", "The mark is a loop in C that sends each event once to each reader.",
        subjects=("fan", "relay"),
    ),
    Stuck(
        "stuck", "500 readers who never read, beside 500 who do", "Each has a stream of his own, which has to wait for "
        "him; the others notice nothing, and what is kept for him is bounded.",
        subjects=("nginx", "relay"), repeat=ONCE,
    ),
    Stuck(
        "stuck on one", "500 stuck and 500 healthy readers of one stream", "The stuck are cut off, for they can come "
        "back and go on; the others notice nothing.", rate=100, subjects=("relay",), shared=True, seconds=36,
        needs=frozenset({"resume"}), reference="direct", repeat=ONCE,
    ),
    Storm(
        "resume", "1,000 connections break and come back",
        "All at once. A relay that can resume goes on behind the last "
        "event; with others the answer begins anew, and is paid for twice.",
        subjects=("nginx", "resumable"), repeat=ONCE,
    ),
    Cancel(
        "cancel", "1,000 readers leave at once", "How long the provider goes on for nobody.",
        subjects=("direct", "nginx", "haproxy", "relay"), needs=MANY, repeat=ONCE,
    ),
    Cancel(
        "cancel few", "20 readers leave at once", "The same, small enough for everybody.", count=20, rate=5,
        subjects=SLOW, repeat=ONCE,
    ),
    Stop(
        "stop", "Readers leave after 20 % of their answer", "What the provider is spared of the other 80 %.",
        rate=10, subjects=("nginx", "sglang", "relay"), repeat=ONCE,
    ),
    Arrivals(
        "json", "1,000 JSON requests a second", "Answers that are no streams, over connections that are kept.",
        rate=1000, events=0, interval_ms=0, plain=True, subjects=("nginx", "relay"),
    ),
    Arrivals(
        "json few", "20 JSON requests a second", "The same, small enough for everybody.",
        rate=20, events=0, interval_ms=0, plain=True, subjects=SLOW, repeat=ONCE,
    ),
    *(
        Arrivals(
            f"{tokens} tokens {'plain' if plain else 'streamed'}",
            f"Answers of {tokens} tokens, {'as one document' if plain else 'streamed'}",
            "What a reader waits for: the first word of a stream, or all of a document. 200 tokens a second, 20 "
            "answers a second.",
            rate=20, events=tokens, interval_ms=5, plain=plain, seconds=3, subjects=("relay",), repeat=ONCE,
            reference="direct",
        )
        for tokens in (200, 500) for plain in (False, True)
    ),
    *(
        Network(
            f"network {name}", title, "Between readers and relay. Events that come late come late for everybody; "
            "a connection that breaks costs nobody his answer, where it can be resumed.",
            bad=bad, subjects=("nginx", "resumable"), repeat=ONCE,
        )
        for name, title, bad in [
            ("jitter", "A network with 20 ms of delay and 30 ms of jitter", {"delay_ms": 20.0, "jitter_ms": 30.0}),
            ("loss", "A network that loses 1 % of the packets", {"delay_ms": 20.0, "loss": 1.0}),
            ("narrow", "A network of 8 KiB/s for each reader", {"delay_ms": 40.0, "bandwidth": 8192.0}),
            ("broken", "Connections that break every 8 s", {"delay_ms": 20.0, "break_every_s": 8.0}),
        ]
    ),
]  # fmt: skip

QUICK = ("500x20", "starts", "cancel", "json", "resume")
QUICK_SUBJECTS = ("direct", "nginx", "relay", "resumable")


@dataclass(frozen=True)
class Part:
    """A scenario and who takes part."""

    scenario: Scenario
    subjects: tuple[Subject, ...]


def quick(scenario: Scenario) -> Scenario:
    """The same over a shorter window."""
    changed: dict[str, Any] = {"seconds": 2} if hasattr(scenario, "seconds") else {}
    return replace(scenario, **changed)


def choose_steady(names: Sequence[str]) -> list[Steady]:
    """Steady scenarios by STREAMSxRATE."""
    return [scenario for scenario in choose(names) if isinstance(scenario, Steady)]


def choose(names: Sequence[str]) -> list[Scenario]:
    """Scenarios by their names, or by STREAMSxRATE for any steady one."""
    known = {scenario.name: scenario for scenario in ALL}
    chosen = []
    for name in names:
        count, by, rate = name.partition("x")
        if name in known:
            chosen.append(known[name])
        elif by and count.isdigit() and rate.isdigit() and 0 < int(count) <= 9900 and 0 < int(rate) <= 1000:
            title = events_a_second(int(count), int(rate))
            needs = frozenset({"many"} if int(count) > 1000 else ())
            chosen.append(Steady(name, title, STEADY_TOLD, count=int(count), rate=int(rate), needs=needs))
        else:
            raise BenchError(
                f"unknown scenario {name!r}: expected STREAMSxRATE, such as 1000x20, or {', '.join(known)}"
            )
    return chosen


def parts(
    scenarios: Sequence[Scenario], subjects: Mapping[str, Subject], *, asked: bool = False
) -> tuple[list[Part], list[str]]:
    """Who takes part where, and who was left out of what, and why. `asked`: the subjects were named by the user, so a
    scenario's own choice does not hold."""
    made, left_out = [], []
    files = file_limit()
    for scenario in scenarios:
        here = []
        for subject in subjects.values():
            if scenario.subjects is not None and subject.name not in scenario.subjects and not asked:
                continue
            if scenario.subjects is None and subject.name == "fan":
                continue
            if why := reason(scenario, subject, files):
                if asked or scenario.subjects is not None:
                    left_out.append(f"{subject.name} in {scenario.name}: {why}")
                continue
            here.append(subject)
        if here:
            made.append(Part(scenario, tuple(here)))
    return made, left_out


def reason(scenario: Scenario, subject: Subject, files: int) -> str:
    """Why a subject cannot take part; "" if it can."""
    nginx_stands_in = subject.name == scenario.reference == "nginx" and scenario.needs <= HTTP2_PROVIDER | {"many"}
    if subject.name != "direct" and not nginx_stands_in and (lacking := scenario.needs - subject.abilities):
        return f"it has no {', '.join(sorted(lacking))}"
    if subject.name == "direct" and scenario.needs & {"fan-out"}:
        return "that needs a relay"
    if subject.name == "fan" and not isinstance(scenario, FanOut):
        return "it does nothing but fan out"
    if subject.most_streams < scenario.streams:
        return f"it holds {subject.most_streams} streams at most"
    if (most := 2 * scenario.streams + RESERVED_FILES) > files and subject.name != "direct":
        return f"it needs {most} descriptors, the hard limit is {files} (ulimit -Hn)"
    return ""


def in_turn(subjects: Sequence[Subject], repeat: int) -> Sequence[Subject]:
    """Forth and back, so that nobody always has the same one before him."""
    return subjects if repeat % 2 else subjects[::-1]


def order(made: Sequence[Part], repeat: int) -> Iterator[tuple[int, Scenario, Subject]]:
    """Interleaved: one of everything, then the next of everything."""
    for number in range(1, repeat + 1):
        for part in made:
            if number <= (part.scenario.repeat or repeat):
                for subject in in_turn(part.subjects, number):
                    yield number, part.scenario, subject
