"""The page and the terminal say what is in the results, all of it, and nothing that is not."""

from __future__ import annotations

import base64
import gzip
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import report
from benchmarks.plots import Plots, at, curve, merge, nines
from benchmarks.report import html, write_report
from benchmarks.results import Histogram, Results
from benchmarks.summary import scenario_table, sentences, summary
from benchmarks.terminal import Watch, clock, groups, print_results, progress
from benchmarks.verdicts import Verdicts
from tests.bench.made_up import SCENARIOS, SUBJECTS, made_up

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"}
SCENARIO = {one.name: one for one in SCENARIOS}
HOSTILE = "</script><b>&'\"[red]$x$"


class Page(HTMLParser):
    """What a reader gets, and whether every element that was opened is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def results() -> Results:
    return made_up(scenarios=["500x20", "4000x10", "resume", "cancel", "burst"], histograms=True)


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return html(results)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def printed(results: Results, width: int, everything: bool = False) -> str:
    file = io.StringIO()
    print_results(results, Console(file=file, width=width, force_terminal=False), everything)
    return file.getvalue()


# ---- The page --------------------------------------------------------------------------------------------------------


def test_every_element_is_closed_and_no_id_is_used_twice(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {
        str(attributes["href"])[1:] for tag, attributes in page.tags if str(attributes.get("href")).startswith("#")
    }
    assert links
    assert links <= set(ids)
    clips = {found for _, a in page.tags for found in re.findall(r"url\(#([^)]*)\)", str(a.get("clip-path")))}
    assert clips
    assert clips <= set(ids)


def test_each_subject_scenario_and_figure_is_there(results: Results, page: Page) -> None:
    for described in results.scenarios:
        assert described.title in page.text
        assert described.told in page.text
    heads = " ".join(page.text.split())
    for subject in SUBJECTS:
        assert subject in heads
    for title in ("CPU per event", "cancel to close p99", "made again"):
        assert title in heads


def test_who_is_missing_is_said_with_the_reason(page: Page) -> None:
    assert page.text.count("no program of that name: npx @maximhq/bifrost") == 2  # in short, and at length
    assert "one worker was marked dead: 503 to 3,112 requests (in 5 of 5 runs)" in page.text


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or "")
        assert not [name for name in attributes if name.startswith("on")]
    assert not {"script", "iframe", "object", "link", "img"} & {tag for tag, _ in page.tags}


def test_the_page_has_no_outside_address_at_all(text: str) -> None:
    assert not re.search(r"https?://|@import|url\((?!#)", text)


def test_tables_and_plots_can_be_heard(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    plots = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(plots) == len(page.all("svg")) > 0
    assert all("relay" in str(attributes["aria-label"]) for attributes in plots)


def test_hostile_names_are_text() -> None:
    made = made_up(scenarios=["500x20", "json"], subjects=["direct", "nginx", "relay", HOSTILE], histograms=True)
    made.missing[HOSTILE] = made.machine[HOSTILE] = made.command = HOSTILE
    made.scenarios[0].title = made.scenarios[0].told = HOSTILE
    made.runs[0].remarks.append(HOSTILE)
    made.runs[1].failure = HOSTILE
    made.left_out.append(HOSTILE)
    text = html(made)
    assert "</script" not in text
    assert "<b>" not in text
    shown = Page(text)
    assert shown.open == []
    assert shown.text.count(HOSTILE) >= 15
    assert printed(made, 140).count("<b>&'\"[red]$x$") >= 5


def test_the_data_is_in_the_page(results: Results, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    link = next(str(a["href"]) for a in page.all("a") if "download" in a)
    packed = base64.b64decode(link.partition("base64,")[2])
    assert packed[4:8] == bytes(4)  # no time of its making, so that the same results give the same file
    assert msgspec.json.decode(gzip.decompress(packed), type=Results) == results
    monkeypatch.setattr(report, "MOST_DATA", 10)
    link, whole = report.embedded(results)
    assert not whole
    bare = msgspec.json.decode(gzip.decompress(base64.b64decode(link.partition("base64,")[2])), type=Results)
    assert not any(run.histograms for run in bare.runs)
    assert [run.figures for run in bare.runs] == [run.figures for run in results.runs]


def test_the_same_results_give_the_same_file(tmp_path: Path) -> None:
    made = made_up(scenarios=["json"])
    for name in ("a.html", "b.html"):
        write_report(made, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_benchmark_of_which_nothing_is_left() -> None:
    made = made_up(scenarios=["500x20"], repeats=1)
    for run in made.runs:
        run.failure, run.figures, run.histograms = "it ended with code 1", {}, {}
    shown = Page(html(made))
    assert "Nothing was measured." in shown.text
    assert "failed: it ended with code 1" in shown.text
    assert "Nothing was measured." in printed(made, 100)
    made.runs, made.scenarios = [], []
    assert Page(html(made)).open == []
    assert printed(made, 100)


# ---- Plots -----------------------------------------------------------------------------------------------------------


def test_subjects_keep_their_colour_and_nobody_has_anothers_style(results: Results) -> None:
    names = [*SUBJECTS, "other", "fan", "somebody", "somebody else"]
    made = made_up(scenarios=["json"], subjects=names)
    styles = Plots(made)._styles
    assert len({styles[name] for name in names}) == len(names)
    assert styles["relay"] == Plots(results)._styles["relay"]


def test_who_would_press_the_others_flat_is_named_instead(results: Results) -> None:
    cpu, memory = Plots(results).overall()
    for plot in (cpu, memory):
        assert plot.note.startswith("Beyond this scale: litellm (")
        assert "litellm" not in plot.svg
        assert "relay" in plot.svg


@given(st.lists(st.tuples(st.floats(0.001, 1e5), st.integers(0, 1000)), min_size=1, max_size=30))
def test_a_curve_only_rises(histogram: Histogram) -> None:
    merged = merge([histogram, histogram])
    assert sum(count for _, count in merged) == 2 * sum(count for _, count in histogram)
    if not merged:
        return
    points = curve(merged)
    assert points == sorted(points)
    assert points[0] == (50, at(merged, 50))
    assert points[-1][1] == at(merged, 100) == merged[-1][0]
    assert all(50 <= percent < 100 for percent, _ in points)


def test_quantiles_of_a_histogram() -> None:
    histogram: Histogram = [(1.0, 50), (2.0, 40), (4.0, 9), (8.0, 1)]
    assert [at(histogram, percent) for percent in (10, 50, 50.1, 90, 99, 99.9)] == [1, 1, 2, 2, 4, 8]
    assert [round(nines(percent), 3) for percent in (90, 99, 99.9)] == [1, 2, 3]


# ---- The summary -----------------------------------------------------------------------------------------------------


def test_the_summary_answers_what_was_measured(results: Results) -> None:
    table = summary(results, Verdicts(results))
    assert [column.scenario for column in table.columns] == ["4000x10"] * 3 + ["burst", "4000x10", "cancel", "resume"]
    rows = dict(table.rows)
    assert "direct" not in rows
    assert rows["nginx"][0].text == "1"
    assert float(rows["relay"][0].text) == pytest.approx(1.04, rel=0.15)
    assert rows["litellm"][0].outcome == "worse"
    assert rows["sglang"][0].text == "failed"
    assert rows["relay"][-1].text.startswith("yes, ")
    assert rows["floor"][-1].text == rows["haproxy"][-1].text == "no"


def test_who_was_not_in_the_greatest_scenario_shows_another(results: Results) -> None:
    made = made_up(scenarios=["500x20", "4000x10"])
    made.runs = [run for run in made.runs if (run.scenario, run.subject) != ("4000x10", "litellm")]
    cells = dict(summary(made, Verdicts(made)).rows)["litellm"]
    assert re.fullmatch(r"[\d.]+ at 500x20", cells[0].text)


def test_who_answers_nothing_has_no_row() -> None:
    made = made_up(scenarios=["500x20", "resume"])
    made.runs = [run for run in made.runs if run.subject != "haproxy"]
    assert "haproxy" not in dict(summary(made, Verdicts(made)).rows)


def test_a_cell_is_marked_only_by_a_verdict() -> None:
    made = made_up(scenarios=["500x20"], repeats=2)
    verdicts = Verdicts(made)
    for table in (summary(made, verdicts), scenario_table(made, verdicts, made.scenarios[0])):
        assert {cell.outcome for _, cells in table.rows for cell in cells} == {"unclear"}
    assert all("no verdict: played 2 of the 3 times" in text for _, text in sentences(made, verdicts))


def test_sentences_say_what_can_be_told() -> None:
    same = made_up(
        scenarios=["500x20"], costs={"nginx": 1.0, "relay": 1.0}, own=0.001, subjects=["direct", "nginx", "relay"]
    )
    texts = [text for _, text in sentences(same, Verdicts(same))]
    assert any(re.match(r"relay costs 1\.00 \(1\.00-1\.00\) of nginx's CPU per event at 500", text) for text in texts)
    assert all(text.endswith("the same within 5 %.") for text in texts)
    far = made_up(scenarios=["500x20"], costs={"nginx": 1.0, "relay": 2.0}, subjects=["direct", "nginx", "relay"])
    assert sentences(far, Verdicts(far))[0][1].endswith(": worse.")


# ---- The terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_breaks_no_cell(results: Results, width: int) -> None:
    text = printed(results, width, everything=True)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in text
    for described in results.scenarios:
        assert described.title in text
        table = scenario_table(results, Verdicts(results), described)
        shown = " ".join(text[text.index(f"{described.name}: ") :].split())
        for _, cells in table.rows:
            for cell in cells:
                assert " ".join(cell.text.split()) in shown
    assert "bifrost: no program of that name" in text
    assert text.index("In short") < text.index("relay costs") < text.index("500x20: ")


def test_what_does_not_fit_is_named(results: Results) -> None:
    short = printed(results, 100)
    assert len(short) < len(printed(results, 100, everything=True))
    for described in results.scenarios:
        shown = " ".join(short[short.index(f"{described.name}: ") :].split())
        for column in scenario_table(results, Verdicts(results), described).columns:
            assert column.title in shown


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 150))
def test_columns_are_split_without_loss(widths: list[int], room: int) -> None:
    found = groups(widths, room)
    assert [index for first, last in found for index in range(first, last)] == list(range(len(widths)))
    for first, last in found:
        assert last - first == 1 or sum(width + 3 for width in widths[first:last]) <= room + 1


def ticking(step: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is read."""
    times = iter(range(1000))
    return lambda: next(times) * step


def test_progress_in_plain_lines() -> None:
    file = io.StringIO()
    with progress(2, 60, Console(file=file, force_terminal=False, width=40), ticking(1)) as step:
        step("500x20: relay [red], 1 of 5", 30)
        step("500x20: nginx, 1 of 5", 30)
    first, second = file.getvalue().splitlines()
    assert first.startswith("[1/2] 500x20: relay [red], 1 of 5 (0:01 gone, about 1:00 left)")
    assert second.startswith("[2/2] 500x20: nginx, 1 of 5")


def test_progress_in_a_terminal() -> None:
    file = io.StringIO()
    with progress(2, 60, Console(file=file, force_terminal=True, width=120), ticking(1)) as step:
        step("500x20: relay [red], 1 of 5", 30)
    assert "relay [red], 1 of 5" in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", file.getvalue())


def test_what_remains_follows_the_pace() -> None:
    now = [0.0]
    watch = Watch(100, lambda: now[0])
    watch.step(10)
    assert watch.remaining == 100
    now[0] = 20
    watch.step(10)
    assert 90 < watch.remaining <= 180
    for count in range(2, 10):
        now[0] = 20 * count
        watch.step(10)
    assert 10 < watch.remaining < 25
    assert [clock(seconds) for seconds in (0, 65, 3723)] == ["0:00", "1:05", "1:02:03"]


def test_the_made_up_benchmark_has_every_kind_of_scenario() -> None:
    made = made_up(repeats=1)
    assert len(made.scenarios) == len(SCENARIOS) == 15
    assert {run.subject for run in made.runs} == set(SUBJECTS)


def test_what_was_played_once_answers_no_question_that_another_can() -> None:
    results = made_up(scenarios=["500x20", "4000x10", "9000x5"])
    results.runs = [run for run in results.runs if run.scenario != "9000x5" or run.repeat == 1]
    columns = summary(results, Verdicts(results)).columns
    assert {column.scenario for column in columns} == {"4000x10"}
    assert "a look, no verdict" in printed(results, 120)
    assert "a look, no verdict" not in printed(made_up(scenarios=["500x20"]), 120)


def test_nothing_is_called_added_that_was_not_measured_beside_none() -> None:
    results = made_up(scenarios=["500x20", "4000x10"], subjects=["direct", "nginx", "relay"])
    results.runs = [run for run in results.runs if run.scenario != "500x20" or run.subject != "direct"]
    results.runs = [run for run in results.runs if run.scenario != "4000x10" or run.subject != "nginx"]
    table = summary(results, Verdicts(results))
    column = next(at for at, one in enumerate(table.columns) if one.title == "added delay p99")
    assert {name: cells[column].text for name, cells in table.rows}["nginx"] == "- at 500x20"
    alone = summary(made_up(scenarios=["500x20"], subjects=["nginx", "relay"]), Verdicts(results))
    assert "delay p99" in [one.title for one in alone.columns]


def test_differences_are_not_called_ratios() -> None:
    results = made_up(scenarios=["burst"], subjects=["direct", "nginx", "relay"])
    verdicts = Verdicts(results)
    (column,) = (one for one in scenario_table(results, verdicts, SCENARIO["burst"]).columns if "nginx's" in one.title)
    assert (column.title, column.unit) == ("added, times nginx's", "")
    for run in results.runs:
        if run.subject == "nginx":
            run.figures["ttft_p99_ms"] = 0.0  # faster than nobody between
    table = scenario_table(results, Verdicts(results), SCENARIO["burst"])
    (at,) = (at for at, one in enumerate(table.columns) if "nginx's" in one.title)
    assert (table.columns[at].title, table.columns[at].unit) == ("added, less nginx's", "ms")
    assert {name: cells[at].text for name, cells in table.rows}["nginx"] == "0"


def test_everybody_is_introduced() -> None:
    results = made_up(scenarios=["500x20"], subjects=["nginx", "relay"])
    results.about = {"nginx": "nginx with one worker", "relay": "this relay"}
    assert "nginx: nginx with one worker" in printed(results, 120)
    assert "this relay" in Page(html(results)).text
