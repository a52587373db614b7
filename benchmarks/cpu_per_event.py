"""What does relaying one event cost, beside nginx and beside the least that is possible?

Each run starts a fresh provider, one relay under test and a client, waits until all streams are open, and
reads the relay's CPU counters exactly over the client's window. The relay has core 0 to itself; provider and
client share core 1. Runs are interleaved (repeat, scenario, subject), and ratios are taken only between runs
of one repeat: neighbouring loads make absolute figures drift by half, and a pair sees much the same of them.

    python benchmarks/cpu_per_event.py --subjects relay,nginx,floor --scenarios 500x20,4000x10 --repeat 3

Subjects: relay; nginx (buffering off, keep-alive to the provider); floor (recv and send in C, see floor.c);
direct (no relay, for its delay).
Scenarios: STREAMSxRATE, the rate in events per second and stream, such as 500x20, 4000x10 and 9000x5;
idleSTREAMS, such as idle9000, with one event every five seconds, for memory.
Exit code: 0; 1 if a run failed or had errors; 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import re
import resource
import selectors
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
RELAY_CORE, LOAD_CORE = 0, 1
EVENT_BYTES = 200
ENDLESS = 99_999_999  # events per stream: no stream ends by itself
BUSY_LOAD = 0.5  # of its core: above it, the delays are also the load's own
LATE_MS = 10  # a provider further behind was kept off its core by somebody else
STREAMS_PER_SECOND = 1000  # while ramping up; a connection costs far more than an event
READY_SECONDS = 10
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Nothing can be measured: the arguments or the machine are at fault."""


class RunError(Exception):
    """One run failed; the others go on."""


@dataclass(frozen=True)
class Scenario:
    name: str
    streams: int
    interval_ms: float

    @classmethod
    def parse(cls, name: str) -> Scenario:
        if found := re.fullmatch(r"idle([1-9]\d{0,4})", name):
            return cls(name, int(found[1]), 5000)
        if found := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,2})", name):
            return cls(name, int(found[1]), 1000 / int(found[2]))
        raise BenchError(f"unknown scenario {name!r}: expected something like 4000x10 or idle9000")

    @property
    def ramp(self) -> float:
        return self.streams / STREAMS_PER_SECOND

    def __str__(self) -> str:
        return f"{self.name}: {self.streams} streams, {EVENT_BYTES} bytes each {self.interval_ms:g} ms"


@dataclass(frozen=True)
class Usage:
    """CPU a group of processes has used since they started."""

    total_ns: int = 0
    user_ticks: int = 0
    system_ticks: int = 0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.total_ns - other.total_ns,
            self.user_ticks - other.user_ticks,
            self.system_ticks - other.system_ticks,
        )


@dataclass(frozen=True)
class Memory:
    """Of a group of processes, in KiB. Pss counts a shared page once, RSS once for each process."""

    rss: int = 0
    pss: int = 0


@dataclass
class Run:
    subject: str
    scenario: str
    repeat: int
    failure: str = ""
    cpu_us: float | None = None  # per event, as are the next two
    user_us: float | None = None
    system_us: float | None = None
    rss_kib: float | None = None  # per stream, as is the next
    pss_kib: float | None = None
    idle: Memory | None = None
    opened: Memory | None = None
    client: dict[str, Any] = field(default_factory=dict)
    provider: dict[str, Any] = field(default_factory=dict)
    arrived: float = 0.0  # share of the events due in the window
    client_core: float = 0.0
    provider_core: float = 0.0

    @property
    def has_errors(self) -> bool:
        return bool(self.failure or self.client.get("errors"))


# ---- processes ---------------------------------------------------------------------------------------------


def read_proc(path: str) -> str:
    """A file of a process that may be gone by now, which then counts for nothing."""
    try:
        return Path("/proc", path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def family(root: int) -> list[int]:
    """A process and all that descend from it, such as nginx and its workers."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := read_proc(f"{entry.name}/stat")):
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def usage(pids: Iterable[int]) -> Usage:
    """schedstat has nanoseconds but no split; utime and stime are sampled and good for their ratio only."""
    total = user = system = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            total += int((read_proc(f"{pid}/task/{task.name}/schedstat") or "0").split()[0])
        if stat := read_proc(f"{pid}/stat").rpartition(")")[2].split():
            user += int(stat[11])
            system += int(stat[12])
    return Usage(total, user, system)


def memory(pids: Iterable[int]) -> Memory:
    rss = pss = 0
    for pid in pids:
        if found := re.search(r"^VmRSS:\s+(\d+)", read_proc(f"{pid}/status"), re.MULTILINE):
            rss += int(found[1])
        if found := re.search(r"^Pss:\s+(\d+)", read_proc(f"{pid}/smaps_rollup"), re.MULTILINE):
            pss += int(found[1])
    return Memory(rss, pss)


class Process:
    """A child pinned to one core. Its stdout is read by lines, its stderr kept to explain a failure."""

    def __init__(self, name: str, command: Sequence[str], core: int, directory: Path) -> None:
        self.name = name
        self.errors = directory / f"{name}.stderr"
        self._buffer = b""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # inherited; preexec_fn would cost a slow fork instead
        try:
            with self.errors.open("wb") as errors:
                self.popen = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
                )
        except OSError as error:
            raise RunError(f"{name} does not start: {error.strerror}") from error
        finally:
            os.sched_setaffinity(0, own)
        self.pids = [self.popen.pid]

    @property
    def stdin(self) -> IO[bytes]:
        assert self.popen.stdin is not None
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def line(self, timeout: float) -> str:
        """The next line of its stdout."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise RunError(f"{self.name} said nothing for {timeout:.0f} s")
                data = self.stdout.read(65536)
                if not data:
                    raise RunError(self.why_gone())
                self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\n")
        return text.decode()

    def why_gone(self) -> str:
        code = self.popen.wait(5)
        said = self.errors.read_text(errors="replace").strip().splitlines()
        return f"{self.name} ended with code {code}" + (f": {said[-1]}" if said else "")

    def wait_ready(self, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise RunError(self.why_gone())
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                self.pids = family(self.popen.pid)
                return
            time.sleep(0.02)
        raise RunError(f"{self.name} does not listen after {READY_SECONDS} s")

    def stop(self) -> None:
        pids = family(self.popen.pid) if self.popen.poll() is None else []
        if pids:
            self.popen.terminate()
            try:
                self.popen.wait(3)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        self.stdin.close()
        self.stdout.close()


_next_port = random.randrange(20_000, 28_000)


def free_port() -> int:
    """Below the ephemeral range, where thousands of outgoing connections may sit on any port, and never the
    same twice, so that no run meets the TIME_WAIT of another."""
    global _next_port
    for _ in range(1000):
        _next_port += 1
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", _next_port))
            return _next_port
    raise BenchError("no free port found")


# ---- what is started ---------------------------------------------------------------------------------------


def build(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for name in ("load", "floor"):
        source, program = HERE / f"{name}.c", directory / name
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        compiler = shlex.split(os.environ.get("CC", "gcc"))
        command = [*compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            raise BenchError(f"no C compiler: {compiler[0]}: {error.strerror}") from error
        if done.returncode:
            raise BenchError(f"{source.name} does not compile: {(done.stderr.splitlines() or ['?'])[0]}")


def flags(**values: object) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items())
    return [part for pair in pairs for part in pair]


NGINX_CONF = """\
{user}
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log error;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream provider {{
        server 127.0.0.1:{provider};
        keepalive 20000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

RELAY_CONF = """\
[server]
listen = ["127.0.0.1:{port}"]
max_connections = 20000

[[upstream]]
name = "provider"
url = "http://127.0.0.1:{provider}"
max_connections = 20000

[[route]]
path = "/*"
upstream = "provider"
"""


@dataclass(frozen=True)
class Bench:
    programs: Path
    relay: str
    nginx: str
    seconds: float
    warmup: float

    def command(self, subject: str, port: int, provider: int, directory: Path) -> list[str]:
        """How a subject is started; its files go to the directory."""
        if subject == "floor":
            return [str(self.programs / "floor"), *flags(listen=port, connect=provider)]
        config = directory / f"{subject}.conf"
        if subject == "nginx":
            text = NGINX_CONF.format(
                user="user root;" if os.geteuid() == 0 else "",
                files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                dir=directory,
                port=port,
                provider=provider,
            )
            command = [self.nginx, "-p", str(directory), "-e", str(directory / "nginx-error.log")]
        else:
            text = RELAY_CONF.format(port=port, provider=provider)
            command = [self.relay, "serve"]
        config.write_text(text)
        return [*command, "-c", str(config)]

    def run(self, subject: str, scenario: Scenario, repeat: int) -> Run:
        run = Run(subject, scenario.name, repeat)
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))

            def start(name: str, command: Sequence[str], core: int) -> Process:
                process = Process(name, command, core, directory)
                stack.callback(process.stop)
                return process

            try:
                self._measure(run, scenario, start, directory)
            except RunError as error:
                run.failure = str(error)
        return run

    def _measure(
        self,
        run: Run,
        scenario: Scenario,
        start: Callable[[str, Sequence[str], int], Process],
        directory: Path,
    ) -> None:
        load, interval = str(self.programs / "load"), scenario.interval_ms
        provider_port = port = free_port()
        provider = start(
            "provider",
            [load, "provider", *flags(port=port, interval_ms=interval, size=EVENT_BYTES, events=ENDLESS)],
            LOAD_CORE,
        )
        provider.wait_ready(port)
        relay: Process | None = None
        if run.subject != "direct":
            port = free_port()
            relay = start(run.subject, self.command(run.subject, port, provider_port, directory), RELAY_CORE)
            relay.wait_ready(port)
            time.sleep(0.3)  # workers start, the probe's connection goes
            relay.pids = family(relay.popen.pid)
            run.idle = memory(relay.pids)
        client = start(
            "client",
            [
                *[load, "client", "--hold"],
                *flags(port=port, streams=scenario.streams, ramp_seconds=scenario.ramp),
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

        relayed, in_client, in_provider = (b - a for a, b in zip(before, after, strict=True))
        window = run.client["window_seconds"]
        events = run.client["events"]
        run.client_core = in_client.total_ns / 1e9 / window
        run.provider_core = in_provider.total_ns / 1e9 / window
        run.arrived = events / (scenario.streams * window * 1000 / interval)
        if not events:
            raise RunError("no event arrived: " + describe_errors(run))
        if relay and run.idle and run.opened:
            ticks = relayed.user_ticks + relayed.system_ticks
            run.cpu_us = relayed.total_ns / 1000 / events
            run.user_us = run.cpu_us * relayed.user_ticks / ticks if ticks else None
            run.system_us = run.cpu_us * relayed.system_ticks / ticks if ticks else None
            run.rss_kib = (run.opened.rss - run.idle.rss) / scenario.streams
            run.pss_kib = (run.opened.pss - run.idle.pss) / scenario.streams


# ---- the table ---------------------------------------------------------------------------------------------


def describe_errors(run: Run) -> str:
    kinds = {kind: count for kind, count in run.client.get("error_kinds", {}).items() if count}
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no error seen"


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and from lowest to highest if there are several."""
    if not values:
        return "-"
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def notes(rows: Sequence[Run], scenario: Scenario) -> Iterator[str]:
    for run in rows:
        if run.failure:
            yield f"run {run.repeat}: FAILED: {run.failure}"
        elif run.client["errors"]:
            yield f"run {run.repeat}: ERRORS: {describe_errors(run)}"
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
    *["RSS KiB/stream", "Pss", "load core"],
]


def row(subject: str, rows: Sequence[Run], nginx: dict[int, float]) -> list[str]:
    good = [run for run in rows if not run.failure]
    ratios = [run.cpu_us / nginx[run.repeat] for run in good if run.cpu_us and run.repeat in nginx]
    return [
        subject,
        spread(present(run.cpu_us for run in good), 1),
        spread(present(run.user_us for run in good), 1).partition(" ")[0],
        spread(present(run.system_us for run in good), 1).partition(" ")[0],
        spread(ratios, 2),
        spread([run.client["delay_us"]["p50"] / 1000 for run in good], 2),
        spread([run.client["delay_us"]["p99"] / 1000 for run in good], 2),
        spread(present(run.rss_kib for run in good), 1).partition(" ")[0],
        spread(present(run.pss_kib for run in good), 1).partition(" ")[0],
        f"{statistics.median(run.client_core + run.provider_core for run in good):.0%}" if good else "-",
    ]


def table(runs: Sequence[Run], subjects: Sequence[str], scenarios: Sequence[Scenario]) -> str:
    lines = []
    for scenario in scenarios:
        here = [run for run in runs if run.scenario == scenario.name]
        nginx = {run.repeat: run.cpu_us for run in here if run.subject == "nginx" and run.cpu_us}
        cells, remarks = [HEADINGS], []
        for subject in subjects:
            rows = [run for run in here if run.subject == subject]
            cells.append(row(subject, rows, nginx))
            remarks.append(list(notes(rows, scenario)))
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
        lines.append(str(scenario))
        for line, remark in zip(cells, [[], *remarks], strict=True):
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
            lines += [f"    ! {text}" for text in remark]
        lines.append("")
    return "\n".join(lines)


# ---- arguments ---------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--subjects", default="relay,nginx,floor", help="of relay, nginx, floor, direct")
    parser.add_argument("--scenarios", default="500x20,4000x10", help="such as 9000x5,idle9000")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (3)")
    parser.add_argument("--seconds", type=float, default=8, help="length of a window (8)")
    parser.add_argument("--warmup", type=float, default=1, help="from all streams open to the window (1)")
    parser.add_argument("--relay", metavar="PROGRAM", help="the relay (of this checkout, else of PATH)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every run, too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    subjects = list(dict.fromkeys(options.subjects.split(",")))
    if unknown := set(subjects) - {"relay", "nginx", "floor", "direct"}:
        raise BenchError(f"unknown subject {min(unknown)!r}")
    scenarios = [Scenario.parse(name) for name in dict.fromkeys(options.scenarios.split(","))]
    if options.repeat < 1 or options.seconds <= 0 or options.warmup < 0:
        raise BenchError("--repeat and --seconds must be positive, --warmup not negative")
    if not {RELAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchError(f"cores {RELAY_CORE} and {LOAD_CORE} are needed")
    os.sched_setaffinity(0, {LOAD_CORE})  # this script, too, stays away from the relay
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # inherited by everything started here
    if (most := max(scenario.streams for scenario in scenarios) * 2 + 64) > files:
        raise BenchError(f"a relay needs {most} descriptors here, the hard limit is {files}")

    own_relay = TOP / ".venv" / "bin" / "relay"
    relay = options.relay or (str(own_relay) if own_relay.exists() else shutil.which("relay"))
    nginx = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if "nginx" in subjects and not nginx:
        print("nginx is missing: no comparison with it", file=sys.stderr)
        subjects.remove("nginx")
    if "relay" in subjects and not relay:
        raise BenchError("no relay program found: install it, or name it by --relay")

    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as temporary:
        programs = TOP / ".venv" / "bench" if (TOP / ".venv").is_dir() else Path(temporary, "programs")
        build(programs)
        bench = Bench(programs, relay or "", nginx or "", options.seconds, options.warmup)
        for repeat in range(1, options.repeat + 1):
            for scenario in scenarios:
                for subject in subjects:
                    run = bench.run(subject, scenario, repeat)
                    runs.append(run)
                    cost = f"{run.cpu_us:.1f} us/event" if run.cpu_us else "no CPU figure"
                    said = run.failure or (describe_errors(run) if run.has_errors else cost)
                    print(f"run {repeat} {scenario.name} {subject}: {said}", file=sys.stderr, flush=True)

    print(table(runs, subjects, scenarios), end="")
    if options.json:
        machine = {"kernel": platform.release(), "python": platform.python_version(), "cores": os.cpu_count()}
        result = {"machine": machine, "seconds": options.seconds, "runs": [asdict(run) for run in runs]}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any(run.has_errors for run in runs) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        print(f"cpu_per_event: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
