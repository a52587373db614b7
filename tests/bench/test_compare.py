"""Two files: a difference between relays is found, the machine's own is not."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.compare import WEAK, compare, main, print_comparison
from benchmarks.processes import BenchError
from benchmarks.results import Results, load
from tests.bench.made_up import made_up

SCENARIOS = ["500x20", "4000x10", "starts", "json"]
SUBJECTS = ["direct", "nginx", "relay", "resumable"]
SLOWER = {"relay": {"cpu_us": 1.2, "user_us": 1.2, "system_us": 1.2}}


def one(seed: int = 1, **others: object) -> Results:
    return made_up(**{"seed": seed, "scenarios": SCENARIOS, "subjects": SUBJECTS, "plain": True, **others})  # type: ignore[arg-type]


def said(before: Results, after: Results, everything: bool = False) -> str:
    console = Console(width=100, force_terminal=False, record=True, quiet=False, file=io.StringIO())
    print_comparison(compare(before, after), console, everything)
    return console.export_text()


def test_a_file_is_as_it_is() -> None:
    found = compare(one(), one())
    assert len(found.changes) > 30
    assert not found.worse
    assert not found.having("better")
    assert not found.said_first
    assert not found.only


def test_two_benchmarks_of_the_same_relay_hardly_ever_differ() -> None:
    """300 pairs, of which each second file is of a machine half as fast."""
    wrong, few = 0, {"scenarios": ["4000x10", "starts"], "subjects": ["direct", "nginx", "relay"]}
    for seed in range(300):
        after = one(1000 + seed, **few)
        for run in after.runs:
            for name in run.figures:
                if name.endswith(("_us", "_ms")):
                    run.figures[name] *= 1.5
        found = compare(one(seed, **few), after)
        wrong += bool(found.having("worse") or found.having("better"))
    assert wrong <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)  # 5 %, give or take what 300 draws leave open
    assert wrong > 0  # who never errs never says anything


def test_a_fifth_more_cpu_is_worse_and_a_fifth_less_is_better() -> None:
    found = compare(one(1), one(2, factors=SLOWER))
    assert found.worse
    worse = {(change.subject, change.figure.name) for change in found.having("worse")}
    assert ("relay", "cpu_us") in worse
    assert not {subject for subject, _ in worse} - {"relay"}
    back = compare(one(2, factors=SLOWER), one(1))
    assert not back.worse
    assert {(change.subject, change.figure.name) for change in back.having("better")} == worse


def test_a_machine_half_as_fast_is_not_a_relay_half_as_fast() -> None:
    after = one(2)
    for run in after.runs:
        run.figures = {name: value * (1.5 if name.startswith("cpu") else 1) for name, value in run.figures.items()}
    found = compare(one(1), after)
    assert not [change for change in found.having("worse") if change.figure.name.startswith("cpu")]
    assert {change.basis for change in found.changes if change.figure.name == "cpu_us"} == {"times reference"}


def test_of_delays_what_both_add_is_compared() -> None:
    found = compare(one(), one())
    delays = [change for change in found.changes if change.figure.versus_direct]
    assert delays
    assert {(change.basis, change.reference) for change in delays} == {("added, times reference", "nginx")}
    assert {change.basis for change in found.changes if change.figure.name == "rss_kib"} == {"as it stands"}


def test_without_a_reference_only_more_than_drift_counts() -> None:
    alone = {"subjects": ["relay"], "common": 0.01}  # so that only the rule keeps 30 % from being named
    found = compare(one(1, **alone), one(2, factors={"relay": {"cpu_us": 1.3}}, **alone))
    assert not [change for change in found.having("worse") if change.figure.name == "cpu_us"]
    assert any("which is weak" in text for text in found.said_first)
    far = compare(one(1, **alone), one(2, factors={"relay": {"cpu_us": 3.0}}, **alone))
    assert [change for change in far.having("worse") if change.figure.name == "cpu_us"]
    with_direct = {"subjects": ["direct", "relay"]}
    weak = [change for change in compare(one(1, **with_direct), one(1, **with_direct)).changes if change.basis in WEAK]
    assert {change.basis for change in weak} == set(WEAK)
    assert not [change for change in weak if change.outcome != "unclear"]


def test_one_reference_for_both_or_none() -> None:
    before, after = (
        one(1, subjects=["direct", "floor", "nginx", "relay"]),
        one(2, subjects=["direct", "floor", "relay"]),
    )
    found = compare(before, after)
    assert {change.reference for change in found.changes if change.figure.name == "cpu_us"} == {"floor"}
    assert "subjects only before: nginx" in found.only


def test_disjoint_scenarios_cannot_be_compared() -> None:
    with pytest.raises(BenchError, match="no scenario in common: 500x20 before, json after"):
        compare(one(scenarios=["500x20"]), one(scenarios=["json"]))
    found = compare(one(scenarios=["500x20", "json"]), one(scenarios=["json", "starts"]))
    assert found.only == ["scenarios only before: 500x20", "scenarios only after: starts"]
    assert {change.scenario for change in found.changes} == {"json"}


def test_what_makes_two_hard_to_compare_is_said_first() -> None:
    after = one()
    after.machine["cpu"], after.subjects["nginx"], after.command = "another", "1.26", "bench --window 3"
    after.scenarios[0].title = "600 streams"
    text = said(one(), after)
    for word in ("another", "1.26", "--window 3", "600 streams"):
        assert word in text
        assert text.index(word) < text.index("figures compared")


def test_what_fails_now_is_worse_without_statistics() -> None:
    after = one()
    for run in after.of("json", "relay")[:3]:
        run.failure = "it ended with code 1"
    found = compare(one(), after)
    assert found.broken == ["relay in json: 0 of 5 runs failed before, 3 of 5 after"]
    assert found.worse
    assert compare(after, one()).mended == ["relay in json: 3 of 5 runs failed before, 0 of 5 after"]
    after.of("json", "relay")[0].failure = ""
    assert not compare(one(), after).worse


def test_too_few_repeats_tell_nothing() -> None:
    found = compare(one(repeats=2), one(repeats=2, factors={"relay": {"cpu_us": 9.0}}))
    assert not found.worse
    assert any("at least 3 repeats" in text for text in found.said_first)


def test_what_is_printed() -> None:
    text = said(one(1), one(2, factors=SLOWER))
    assert "Worse" in text
    assert "CPU per event" in text
    assert "times nginx's" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "Unclear (" in said(one(1), one(2), everything=True)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"before": one(1), "after": one(2, factors=SLOWER)}
    for name, results in files.items():
        results.save(tmp_path / f"{name}.json")
    before, after = str(tmp_path / "before.json"), str(tmp_path / "after.json")
    assert load(tmp_path / "before.json") == files["before"]
    assert main([before, before]) == 0
    assert main([before, after]) == 1
    assert main([after, before]) == 0
    (tmp_path / "wrong.json").write_text('{"made": 1}')
    capsys.readouterr()
    assert main([before, str(tmp_path / "wrong.json")]) == 2
    assert "wrong.json is no result of a benchmark" in capsys.readouterr().err
    assert main([before, str(tmp_path / "absent.json")]) == 2
    assert "No such file" in capsys.readouterr().err
