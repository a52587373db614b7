"""Every kind of scenario, small, with real subjects: what comes out says what happened. How fast it was is not looked
at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import plan, results
from benchmarks.figures import FIGURES
from benchmarks.leaving import Cancel, FanOut, Network, Stop, Storm, Stuck
from benchmarks.results import Run
from benchmarks.scenarios import Arrivals, Burst, Saturation, Scenario, Steady
from benchmarks.stage import Stage
from benchmarks.subjects import Programs, Subject, build, subjects
from tests.programs import BIN

TOP = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def programs() -> Programs:
    directory = TOP / ".venv" / "bench"
    build(directory)
    return Programs(directory, str(BIN / "relay"))


@pytest.fixture(scope="session")
def everybody(programs: Programs) -> dict[str, Subject]:
    return subjects(programs)


@pytest.fixture(scope="session")
def stage(programs: Programs) -> Stage:
    return Stage(programs.directory, *programs.certificate())


def played(stage: Stage, scenario: Scenario, subject: Subject) -> Run:
    run = Run(scenario.name, subject.name, 1)
    scenario.play(stage, subject, run)
    assert run.errors == []
    return run


@pytest.mark.parametrize("name", ["direct", "floor", "nginx", "haproxy", "relay", "resumable"])
def test_steady_streams(stage: Stage, everybody: dict[str, Subject], name: str) -> None:
    run = played(stage, Steady("s", "", "", count=20, rate=20, seconds=1), everybody[name])
    assert run.figures["rate"] > 0
    assert run.histograms["delay_ms"]
    assert ("cpu_us" in run.figures) == (name != "direct")
    if name == "relay":
        assert (run.figures["user_us"] + run.figures["system_us"]) == pytest.approx(run.figures["cpu_us"])
        assert run.figures["connections"] == 20


@pytest.mark.parametrize(("client", "provider", "tls"), [(1, 2, False), (2, 1, False), (2, 2, False), (1, 1, True)])
def test_protocols(stage: Stage, everybody: dict[str, Subject], client: int, provider: int, *, tls: bool) -> None:
    scenario = Steady("s", "", "", count=20, rate=20, seconds=1, client_http=client, provider_http=provider, tls=tls)
    run = played(stage, scenario, everybody["relay"])
    assert run.figures["rate"] > 0
    assert (run.figures["connections"] < 20) == (provider == 2)


def test_reference_that_lacks_a_protocol_takes_part_without_it(stage: Stage, everybody: dict[str, Subject]) -> None:
    scenario = Steady(
        "s", "", "", count=20, rate=20, seconds=1, provider_http=2, needs=frozenset({"provider2"}), reference="nginx"
    )
    assert not plan.reason(scenario, everybody["nginx"], 10_000)
    assert plan.reason(scenario, everybody["sglang"], 10_000)
    assert played(stage, scenario, everybody["nginx"]).figures["connections"] == 20


@pytest.mark.parametrize("plain", [False, True])
def test_arrivals(stage: Stage, everybody: dict[str, Subject], *, plain: bool) -> None:
    scenario = Arrivals("s", "", "", rate=40, events=5, interval_ms=10, plain=plain, seconds=1)
    run = played(stage, scenario, everybody["relay"])
    assert run.figures["whole"] == 100
    assert run.figures["total_p50_ms"] >= 30
    assert run.figures["cpu_ms"] > 0


def test_burst(stage: Stage, everybody: dict[str, Subject]) -> None:
    run = played(stage, Burst("s", "", "", count=50, events=3, interval_ms=20), everybody["relay"])
    assert run.figures["whole"] == 100


def test_saturation(stage: Stage, everybody: dict[str, Subject]) -> None:
    run = played(stage, Saturation("s", "", "", count=2, seconds=0.5), everybody["floor"])
    assert run.figures["rate"] > 0


def test_fan_out(stage: Stage, everybody: dict[str, Subject]) -> None:
    for name in ("fan", "relay"):
        run = played(stage, FanOut("s", "", "", readers=20, rate=20, seconds=1), everybody[name])
        assert run.figures["cpu_us"] > 0


def test_stuck_readers_are_counted(stage: Stage, everybody: dict[str, Subject]) -> None:
    run = played(stage, Stuck("s", "", "", count=5, stuck=5, seconds=1), everybody["relay"])
    assert "stuck_kib" in run.figures
    assert "stuck_gone_s" not in run.figures  # not in so short a time


def test_after_a_storm_nothing_is_lost_with_a_relay_and_all_is_made_again_without(
    stage: Stage, everybody: dict[str, Subject]
) -> None:
    scenario = Storm("s", "", "", count=20, rate=20, away_ms=100, seconds=1.5)
    resumed, begun_anew = (played(stage, scenario, everybody[name]) for name in ("resumable", "nginx"))
    assert resumed.figures["reconnects"] == begun_anew.figures["reconnects"] == 20
    assert resumed.figures["made_again"] == 0
    assert begun_anew.figures["made_again"] > 0
    assert begun_anew.remarks


def test_cancelled_streams_end_at_the_provider(stage: Stage, everybody: dict[str, Subject]) -> None:
    run = played(stage, Cancel("s", "", "", count=20), everybody["relay"])
    assert run.figures["cancel_missed"] == 0
    assert run.figures["cancel_p50_ms"] > 0


def test_what_a_stopped_answer_spares(stage: Stage, everybody: dict[str, Subject]) -> None:
    run = played(stage, Stop("s", "", "", rate=20, events=50, interval_ms=20, seconds=1), everybody["relay"])
    assert 0 < run.figures["spared"] <= 100


def test_network_that_breaks_connections(stage: Stage, everybody: dict[str, Subject]) -> None:
    bad = {"delay_ms": 5.0, "break_every_s": 0.5}
    run = played(stage, Network("s", "", "", count=5, rate=50, events=50, bad=bad, seconds=2), everybody["resumable"])
    assert run.figures["reconnects"] > 0
    assert run.figures["made_again"] == 0
    assert run.figures["delay_p50_ms"] >= 5


def test_everything_planned_can_be_taken_part_in(everybody: dict[str, Subject]) -> None:
    """By those that are named in it, on a machine with descriptors enough."""
    for scenario in plan.ALL:
        for name in scenario.subjects or ():
            assert not plan.reason(scenario, everybody[name], 20_000), (scenario.name, name)
        assert set(scenario.figures) <= set(FIGURES)
        assert plan.quick(scenario).estimate <= scenario.estimate


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=TOP, check=False, capture_output=True, text=True, timeout=50)


def test_who_asks_for_repeats_gets_them_everywhere() -> None:
    def runs(*more: str) -> int:
        told = run("run", "--scenarios", "cancel", "--subjects", "relay", "--list", *more)
        (line,) = (line for line in told.stdout.splitlines() if line.lstrip().startswith("cancel"))
        return int(line.split()[-1])

    assert runs() == 1
    assert runs("--repeat", "6") == 6


def test_command_line_measures_reports_and_compares(tmp_path: Path) -> None:
    told = run(
        "run", "--quick", "--scenarios", "20x20", "--subjects", "direct,relay", "--repeat", "1", "--out", str(tmp_path)
    )
    assert told.returncode == 0, told.stdout + told.stderr
    (figures,), (page,) = tmp_path.glob("*.json"), tmp_path.glob("*.html")
    assert "20x20" in told.stdout
    assert str(page) in told.stdout
    found = results.load(figures)
    assert {one.subject for one in found.runs} == {"direct", "relay"}
    assert found.left_out == []
    compared = run("compare", str(figures), str(figures))
    assert compared.returncode == 0, compared.stdout + compared.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--scenarios", "many"], "unknown scenario 'many'"),
        (["run", "--subjects", "envoy"], "unknown subject 'envoy'"),
        (["run", "--repeat", "0"], "--repeat must be positive"),
        (["compare", "/nowhere.json", "/nowhere.json"], "/nowhere.json: No such file or directory"),
        (["run", "--scenarios", "500x20", "--subjects", "other", "--list"], "no other relay is named"),
    ],
)
def test_mistakes_are_named(arguments: list[str], words: str) -> None:
    told = run(*arguments)
    assert words in told.stdout + told.stderr
    assert "Traceback" not in told.stderr
