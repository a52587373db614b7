"""The benchmark harness.

    python -m benchmarks run                        everything, in about 20 minutes; a report in .bench/
    python -m benchmarks run --quick                the short version, in about three
    python -m benchmarks run --scenarios 4000x10,2000x20 --subjects relay,nginx --repeat 6
    python -m benchmarks run --list                 what there is, without running it
    python -m benchmarks compare A.json B.json      what got better, what worse, what is noise
    python -m benchmarks check                      the harness checked against itself

The subject has core 0 to itself; provider and clients, which are programs in C, share core 1. Runs are interleaved:
one of everything, then the next of everything. Neighbouring loads make absolute figures drift by half, so ratios are
taken only between runs of one repeat. A verdict is given where the spread allows one.

Exit code: 0; 1 if runs failed, had errors, or something got worse; 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import check, compare, plan, report, results, terminal
from benchmarks.processes import BenchError, RunError
from benchmarks.results import Results, Run
from benchmarks.stage import LOAD_CORE, RELAY_CORE, Stage
from benchmarks.subjects import Programs, Subject, build, subjects

TOP = Path(__file__).resolve().parent.parent
REPEAT, QUICK_REPEAT = 3, 3  # fewer allow no verdict; more cost time, which is the user's to spend


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure and report", allow_abbrev=False)
    run.add_argument("--quick", action="store_true", help="fewer scenarios and subjects, shorter windows")
    run.add_argument("--scenarios", metavar="NAMES", help="of those that --list shows, or any STREAMSxRATE; by commas")
    run.add_argument("--subjects", metavar="NAMES", help="of those that --list shows; by commas")
    run.add_argument("--repeat", type=int, metavar="N", help=f"runs of each ({REPEAT}); a verdict needs three")
    run.add_argument("--out", type=Path, metavar="DIR", default=TOP / ".bench", help="for JSON and HTML (.bench)")
    run.add_argument("--list", action="store_true", help="show scenarios and subjects, and run nothing")
    for_relays(run)
    two = commands.add_parser("compare", help="two results", allow_abbrev=False)
    two.add_argument("before", type=Path, metavar="A.json")
    two.add_argument("after", type=Path, metavar="B.json")
    two.add_argument("--all", action="store_true", help="what is the same, too")
    itself = commands.add_parser("check", help="find an artificial delay and cost at their size", allow_abbrev=False)
    itself.add_argument("--repeat", type=int, default=8, metavar="N", help="runs of each (8)")
    for_relays(itself)
    return parser.parse_args(arguments)


def for_relays(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--relay", metavar="PROGRAM", help="the relay (of this checkout, else of PATH)")
    parser.add_argument("--other", metavar="PROGRAM", help="another relay, for the subject `other`")


def take_cores() -> None:
    if not {RELAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchError(f"cores {RELAY_CORE} and {LOAD_CORE} are needed: one for the relay, one for the load")
    os.sched_setaffinity(0, {LOAD_CORE})  # this program, too, stays away from the relay
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # inherited by everything started here


def machine() -> dict[str, str]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    return {
        "cores": f"{os.cpu_count()} x {names[0] if names else platform.machine()}",
        "memory": f"{int(memory) / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def programs(options: argparse.Namespace) -> Programs:
    own = TOP / ".venv" / "bin" / "relay"
    relay = options.relay or (str(own) if own.exists() else shutil.which("relay")) or ""
    directory = TOP / ".venv" / "bench"
    if not directory.parent.is_dir():
        directory = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "relay-bench"
    build(directory)
    return Programs(directory=directory, relay=relay, other=options.other or "")


def names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def run(options: argparse.Namespace, console: Console) -> int:
    made = programs(options)
    everybody = subjects(made)
    asked = names(options.subjects) if options.subjects else list(plan.QUICK_SUBJECTS if options.quick else everybody)
    if unknown := set(asked) - set(everybody):
        raise BenchError(f"unknown subject {min(unknown)!r}: expected {', '.join(everybody)}")
    scenarios = plan.choose(names(options.scenarios)) if options.scenarios else list(plan.ALL)
    if options.quick:
        scenarios = [plan.quick(one) for one in (scenarios if options.scenarios else plan.choose(plan.QUICK))]
    missing = {name: why for name in asked if (why := everybody[name].missing())}
    present = {name: everybody[name] for name in asked if name not in missing}
    parts, left_out = plan.parts(scenarios, present, asked=bool(options.subjects and options.scenarios))
    repeat = options.repeat if options.repeat is not None else QUICK_REPEAT if options.quick else REPEAT
    if repeat < 1:
        raise BenchError("--repeat must be positive")
    if options.repeat is not None:  # who asks for repeats wants them of what is played once otherwise, too
        parts = [replace(part, scenario=replace(part.scenario, repeat=0)) for part in parts]
    if options.list:
        terminal.print_plan(parts, missing, left_out, repeat, console)
        return 0
    if not parts:
        raise BenchError("none of these subjects can be measured in these scenarios: " + "; ".join(left_out))
    take_cores()
    found = measure(Stage(made.directory, *made.certificate()), parts, repeat, present)
    found.missing, found.left_out = missing, left_out
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / found.made.replace(":", "").replace("+0000", "")
    json_file, html_file = stem.with_suffix(".json"), stem.with_suffix(".html")
    found.save(json_file)
    report.write_report(found, html_file)
    terminal.print_results(found, console)
    console.print(f"report: {html_file}\nfigures: {json_file}", highlight=False, soft_wrap=True)
    return 1 if any(one.failure or one.errors for one in found.runs) else 0


def measure(stage: Stage, parts: Sequence[plan.Part], repeat: int, present: dict[str, Subject]) -> Results:
    """Plays everything. What failed is in its run; Ctrl-C ends it with what there is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was measured is not lost then, either
    todo = list(plan.order(parts, repeat))
    begun = time.monotonic()
    found = Results(
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S+0000"),
        seconds=0,
        command="python -m benchmarks " + " ".join(sys.argv[1:]),
        machine=machine(),
        subjects={name: subject.version() for name, subject in present.items()},
        about={name: subject.told for name, subject in present.items()},
        missing={},
        scenarios=[part.scenario.describe() for part in parts],
    )
    estimate = sum(scenario.estimate + subject.ready_cost for _, scenario, subject in todo)
    with terminal.progress(len(todo), estimate) as step:
        for number, scenario, subject in todo:
            step(f"{scenario.name}: {subject.name}, {number} of {repeat}", scenario.estimate + subject.ready_cost)
            one = Run(scenario.name, subject.name, number)
            try:
                scenario.play(stage, subject, one)
            except RunError as error:
                one.failure = str(error)
            except KeyboardInterrupt:
                found.left_out.append("it was stopped before its end")
                break
            found.runs.append(one)
    found.seconds = time.monotonic() - begun
    return found


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    console = Console()
    if options.command == "compare":
        compared = compare.compare(results.load(options.before), results.load(options.after))
        compare.print_comparison(compared, console, everything=options.all)
        return 1 if compared.worse else 0
    if options.command == "check":
        take_cores()
        return check.check(programs(options), options.repeat, console)
    return run(options, console)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BenchError, RunError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
