"""What does relaying one event cost, beside nginx and beside the least that is possible?

Each run starts a fresh provider, one relay under test and a client, waits until all streams are open, and
reads the relay's CPU counters exactly over the client's window. The relay has core 0 to itself; provider and
client share core 1. Runs are interleaved (repeat, scenario, subject), and ratios are taken only between runs
of one repeat: neighbouring loads make absolute figures drift by half, and a pair sees much the same of them.

    python benchmarks/cpu_per_event.py --subjects relay,nginx,floor --scenarios 500x20,4000x10 --repeat 3
    python benchmarks/cpu_per_event.py --subjects relay,nginx --pairs 1-1,1-2,2-2 --scenarios 4000x10
    python benchmarks/cpu_per_event.py --subjects relay --scenarios idle10000h2 --repeat 1

Subjects: relay; resumable (the same, with every stream kept and numbered); other (the relay that --other names, such
as the one before a change); nginx (buffering off, keep-alive to the provider); floor (recv and send in C, see floor.c);
direct (no relay, for its delay).
Pairs: CLIENTS-PROVIDER, the protocol with each: 1 is HTTP/1.1, 2 is HTTP/2 in cleartext with prior knowledge.
A subject without a pair is 1-1. nginx, the reference, is always that; floor and direct change no protocol.
Scenarios: STREAMSxRATE, the rate in events per second and stream, such as 500x20, 4000x10 and 9000x5;
idleSTREAMS, such as idle9000, with one event every five seconds, for memory; idleSTREAMSh2, such as
idle10000h2, the same with the pairs 1-2 and 2-2, and at most a tenth more connections to the provider than
streams need: whom the limit on open files keeps from it, such as nginx, is left out.
Exit code: 0; 1 if a run failed or had errors; 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where mypy, too, finds this script's neighbours

from benchmarks.processes import BenchError
from benchmarks.runs import LOAD_CORE, RELAY_CORE, STREAMS_PER_CONNECTION, Bench, Entry, Pair, Run, Scenario, entries
from benchmarks.subjects import RELAYS, Programs, build, flags
from benchmarks.tables import table

TOP = Path(__file__).resolve().parent.parent
SUBJECTS = ("relay", "resumable", "other", "nginx", "floor", "direct")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--subjects", default="relay,nginx,floor", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--scenarios", default="500x20,4000x10", help="such as 9000x5,idle9000,idle10000h2")
    parser.add_argument("--pairs", default="1-1", help="of 1-1, 1-2, 2-1, 2-2 (1-1)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (3)")
    parser.add_argument("--seconds", type=float, default=8, help="length of a window (8)")
    parser.add_argument("--warmup", type=float, default=1, help="from all streams open to the window (1)")
    parser.add_argument("--relay", metavar="PROGRAM", help="the relay (of this checkout, else of PATH)")
    parser.add_argument("--other", metavar="PROGRAM", help="another relay, for the subject of that name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every run, too")
    more = parser.add_argument_group("HTTP/2")
    more.add_argument(
        "--streams-per-connection",
        type=int,
        default=STREAMS_PER_CONNECTION,
        metavar="N",
        help=f"of a client ({STREAMS_PER_CONNECTION})",
    )
    more.add_argument(
        "--provider-streams",
        type=int,
        default=STREAMS_PER_CONNECTION,
        metavar="N",
        help=f"on a connection, as the provider advertises ({STREAMS_PER_CONNECTION})",
    )
    more.add_argument(
        "--writes",
        choices=["joined", "each"],
        default="joined",
        help="how a provider sends what is due on one connection at one time (joined)",
    )
    more.add_argument(
        "--tick-us",
        type=int,
        metavar="T",
        help="of a provider's schedule (1061); a coarse one has more due at one time",
    )
    return parser.parse_args(arguments)


def parse_names(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def plan_scenario(
    scenario: Scenario, subjects: Sequence[str], pairs: Sequence[Pair], files: int
) -> tuple[Scenario, list[Entry]]:
    """Who is measured in a scenario, as far as there are descriptors for it."""
    chosen = list(entries(subjects, scenario.pairs or pairs))
    for entry in list(chosen):
        if (most := entry.files(scenario)) <= files:
            continue
        text = f"{entry} needs {most} descriptors in {scenario.name}, the hard limit is {files}"
        if entry.subject in RELAYS or not scenario.pairs:
            raise BenchError(text)
        print(f"{text}: left out", file=sys.stderr)
        chosen.remove(entry)
    return scenario, chosen


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    subjects = parse_names(options.subjects)
    if unknown := set(subjects) - set(SUBJECTS):
        raise BenchError(f"unknown subject {min(unknown)!r}")
    pairs = [Pair.parse(name) for name in parse_names(options.pairs)]
    scenarios = [Scenario.parse(name) for name in parse_names(options.scenarios)]
    if options.repeat < 1 or options.seconds <= 0 or options.warmup < 0:
        raise BenchError("--repeat and --seconds must be positive, --warmup not negative")
    if not {RELAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchError(f"cores {RELAY_CORE} and {LOAD_CORE} are needed")
    os.sched_setaffinity(0, {LOAD_CORE})  # this script, too, stays away from the relay
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # inherited by everything started here

    own_relay = TOP / ".venv" / "bin" / "relay"
    relay = options.relay or (str(own_relay) if own_relay.exists() else shutil.which("relay"))
    nginx = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if "nginx" in subjects and not nginx:
        print("nginx is missing: no comparison with it", file=sys.stderr)
        subjects.remove("nginx")
    if set(RELAYS) & set(subjects) and not relay:
        raise BenchError("no relay program found: install it, or name it by --relay")
    if "other" in subjects and not options.other:
        raise BenchError("--other is missing: the program of the other relay")
    plan = [plan_scenario(scenario, subjects, pairs, files) for scenario in scenarios]
    if not any(chosen for _, chosen in plan):
        raise BenchError("none of these subjects can be measured with these pairs")

    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as temporary:
        directory = TOP / ".venv" / "bench" if (TOP / ".venv").is_dir() else Path(temporary, "programs")
        build(directory)
        bench = Bench(
            Programs(directory, relay or "", nginx or "", options.other or ""),
            options.seconds,
            options.warmup,
            client_flags=flags(streams_per_connection=options.streams_per_connection),
            provider_flags=flags(streams_per_connection=options.provider_streams, writes=options.writes)
            + (flags(tick_us=options.tick_us) if options.tick_us else []),
        )
        for repeat in range(1, options.repeat + 1):
            for scenario, chosen in plan:
                for entry in chosen:
                    run = bench.run(entry, scenario, repeat)
                    runs.append(run)
                    cost = f"{run.cpu_us:.1f} us/event" if run.cpu_us else "no CPU figure"
                    said = run.failure or (run.describe_errors() if run.has_errors else cost)
                    print(f"run {repeat} {scenario.name} {entry}: {said}", file=sys.stderr, flush=True)

    print(table(runs, plan), end="")
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
