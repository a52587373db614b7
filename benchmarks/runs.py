"""One run: a provider, a relay under test and a client, and what is counted while they work."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchError, Memory, Process, RunError, Usage, family, free_port, memory, usage
from benchmarks.subjects import RELAYS, Programs, Provider, flags

RELAY_CORE, LOAD_CORE = 0, 1
EVENT_BYTES = 200
ENDLESS = 99_999_999  # events per stream: no stream ends by itself
STREAMS_PER_SECOND = 1000  # while ramping up; a connection costs far more than an event
STREAMS_PER_CONNECTION = 100  # the usual limit of HTTP/2 servers, and the relay's own
SPARE_CONNECTIONS = 1.1  # times the fewest possible, for whom may not open many
MANY_CONNECTIONS = {1: 20_000, 2: 1000}  # by the provider's protocol: more than any scenario takes
RESERVED_FILES = 64


@dataclass(frozen=True)
class Pair:
    """The protocols of a run, such as 1-2: HTTP/1.1 with the clients, HTTP/2 with the provider."""

    client: int
    provider: int

    @classmethod
    def parse(cls, name: str) -> Pair:
        if found := re.fullmatch(r"([12])-([12])", name):
            return cls(int(found[1]), int(found[2]))
        raise BenchError(f"unknown pair {name!r}: expected 1-1, 1-2, 2-1 or 2-2")

    def __str__(self) -> str:
        return f"{self.client}-{self.provider}"


HTTP1 = Pair(1, 1)


@dataclass(frozen=True)
class Scenario:
    name: str
    streams: int
    interval_ms: float
    pairs: tuple[Pair, ...] = ()  # if it has its own

    @classmethod
    def parse(cls, name: str) -> Scenario:
        if found := re.fullmatch(r"idle([1-9]\d{0,4})(h2)?", name):
            return cls(name, int(found[1]), 5000, (Pair(1, 2), Pair(2, 2)) if found[2] else ())
        if found := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,2})", name):
            return cls(name, int(found[1]), 1000 / int(found[2]))
        raise BenchError(f"unknown scenario {name!r}: expected something like 4000x10, idle9000 or idle10000h2")

    @property
    def ramp(self) -> float:
        return self.streams / STREAMS_PER_SECOND

    @property
    def shared_connections(self) -> int:
        """What a relay may take to carry its streams over HTTP/2, if it is to make good use of each."""
        return math.ceil(self.streams / STREAMS_PER_CONNECTION * SPARE_CONNECTIONS)

    def connections(self, pair: Pair) -> int:
        """To the provider, that a relay may have at once."""
        return self.shared_connections if self.pairs else MANY_CONNECTIONS[pair.provider]

    def __str__(self) -> str:
        return f"{self.name}: {self.streams} streams, {EVENT_BYTES} bytes each {self.interval_ms:g} ms"


@dataclass(frozen=True)
class Entry:
    """Who is measured, and how it is spoken with."""

    subject: str
    pair: Pair

    def files(self, scenario: Scenario) -> int:
        """Descriptors that it needs."""
        sides = (self.pair.client, self.pair.provider)
        return sum(scenario.streams if http == 1 else scenario.shared_connections for http in sides) + RESERVED_FILES

    def __str__(self) -> str:
        return self.subject if self.pair == HTTP1 else f"{self.subject} {self.pair}"


def entries(subjects: Sequence[str], pairs: Sequence[Pair]) -> Iterator[Entry]:
    """nginx is the reference, which speaks HTTP/1.1 to providers; floor and direct change no protocol."""
    for subject in subjects:
        for pair in [HTTP1] if subject == "nginx" else pairs:
            if subject in (*RELAYS, "nginx") or pair.client == pair.provider:
                yield Entry(subject, pair)


@dataclass
class Run:
    subject: str
    scenario: str
    repeat: int
    pair: str = str(HTTP1)
    failure: str = ""
    cpu_us: float | None = None  # per event, as are the next four
    user_us: float | None = None
    system_us: float | None = None
    reads: float | None = None  # None: the kernel counted none
    writes: float | None = None
    rss_kib: float | None = None  # per stream, as is the next
    pss_kib: float | None = None
    idle: Memory | None = None
    opened: Memory | None = None
    client: dict[str, Any] = field(default_factory=dict)
    provider: dict[str, Any] = field(default_factory=dict)
    provider_errors: list[str] = field(default_factory=list)
    arrived: float = 0.0  # share of the events due in the window
    client_core: float = 0.0
    provider_core: float = 0.0

    @property
    def has_errors(self) -> bool:
        return bool(self.failure or self.client.get("errors") or self.provider_errors)

    def describe_errors(self) -> str:
        kinds = {kind: count for kind, count in self.client.get("error_kinds", {}).items() if count}
        said = [f"{count} {kind}" for kind, count in kinds.items()] + self.provider_errors
        return ", ".join(said) or "no error seen"


@dataclass(frozen=True)
class Bench:
    programs: Programs
    seconds: float
    warmup: float
    client_flags: Sequence[str]  # of the HTTP/2 ones
    provider_flags: Sequence[str]

    def run(self, entry: Entry, scenario: Scenario, repeat: int) -> Run:
        run = Run(entry.subject, scenario.name, repeat, str(entry.pair))
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))

            def start(name: str, command: Sequence[str], core: int) -> Process:
                process = Process(name, command, core, directory)
                stack.callback(process.stop)
                return process

            try:
                self._measure(run, entry.pair, scenario, start, directory)
            except RunError as error:
                run.failure = str(error)
        return run

    def _measure(
        self,
        run: Run,
        pair: Pair,
        scenario: Scenario,
        start: Callable[[str, Sequence[str], int], Process],
        directory: Path,
    ) -> None:
        load, interval = self.programs.load, scenario.interval_ms
        provider_port = port = free_port()
        provider = start(
            "provider",
            [
                *[load, "provider", *self.provider_flags],
                *flags(port=port, http=pair.provider, interval_ms=interval, size=EVENT_BYTES, events=ENDLESS),
            ],
            LOAD_CORE,
        )
        provider.wait_ready(port)
        relay: Process | None = None
        if run.subject != "direct":
            port = free_port()
            asked = Provider(provider_port, pair.provider, scenario.connections(pair))
            relay = start(run.subject, self.programs.command(run.subject, port, asked, directory), RELAY_CORE)
            relay.wait_ready(port)
            time.sleep(0.3)  # workers start, the probe's connection goes
            relay.pids = family(relay.popen.pid)
            run.idle = memory(relay.pids)
        client = start(
            "client",
            [
                *[load, "client", "--hold", *self.client_flags],
                *flags(port=port, http=pair.client, streams=scenario.streams, ramp_seconds=scenario.ramp),
                *flags(seconds=self.seconds, warmup=self.warmup),
            ],
            LOAD_CORE,
        )

        def snapshot() -> tuple[Usage, Usage, Usage]:
            if relay:
                relay.pids = family(relay.popen.pid)  # a worker may have started late
            return usage(relay.pids if relay else ()), usage(client.pids), usage(provider.pids)

        client.line(scenario.ramp + self.warmup + 30)  # "measuring"
        before = snapshot()
        provider.popen.send_signal(signal.SIGUSR1)  # its lateness counts from here
        provider.line(5)
        client.line(self.seconds + 15)  # "measured"
        after = snapshot()
        provider.popen.send_signal(signal.SIGUSR1)
        run.provider = json.loads(provider.line(5))
        if relay:
            if relay.popen.poll() is not None:
                raise RunError(relay.why_gone())
            run.opened = memory(relay.pids)
        client.stdin.close()
        run.client = json.loads(client.line(15))

        run.provider_errors = [
            f"{run.provider[kind]} {kind}" for kind in ("no_window", "refused") if run.provider[kind]
        ]
        used, most = run.provider["open_most"], scenario.connections(pair)
        if scenario.pairs and used > most:
            run.provider_errors.append(f"{used} connections to the provider instead of {most} at most")
        relayed, in_client, in_provider = (b - a for a, b in zip(before, after, strict=True))
        window = run.client["window_seconds"]
        events = run.client["events"]
        run.client_core = in_client.total_ns / 1e9 / window
        run.provider_core = in_provider.total_ns / 1e9 / window
        run.arrived = events / (scenario.streams * window * 1000 / interval)
        if not events:
            raise RunError("no event arrived: " + run.describe_errors())
        if relay and run.idle and run.opened:
            ticks = relayed.user_ticks + relayed.system_ticks
            run.cpu_us = relayed.total_ns / 1000 / events
            run.user_us = run.cpu_us * relayed.user_ticks / ticks if ticks else None
            run.system_us = run.cpu_us * relayed.system_ticks / ticks if ticks else None
            run.reads = relayed.reads / events if relayed.reads else None
            run.writes = relayed.writes / events if relayed.writes else None
            run.rss_kib = (run.opened.rss - run.idle.rss) / scenario.streams
            run.pss_kib = (run.opened.pss - run.idle.pss) / scenario.streams
