"""The keys that are about streams: their values, their mistakes, and what `relay check` shows of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from relay import config, schema
from relay.schema import Config
from tests.control.test_cli import refused, relay
from tests.control.test_config import GOOD, mistake


def route(lines: str) -> str:
    """The good file with lines in its route."""
    return GOOD + lines + "\n"


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    return config.load(str(file))


def seconds(*values: float) -> tuple[float, ...]:
    """As plain numbers."""
    return tuple(float(value) for value in values)


def test_defaults_are_the_contracts(tmp_path: Path) -> None:
    read = load(tmp_path, GOOD)
    assert read.route[0].resumable == "ask"
    assert read.route[0].overflow is None
    assert seconds(read.route[0].flush, read.route[0].flush_events, read.route[0].smooth) == (0, 1, 0)
    kept = read.retention
    assert seconds(kept.finished, kept.orphan, kept.orphan_grace) == (600, 3600, 30)
    assert kept.stream == 8 * 1024**2
    assert kept.total > kept.stream
    assert read.server.page is True
    assert seconds(read.timeouts.heartbeat, read.timeouts.placeholder) == (15, 0.5)


def test_every_key_can_be_set(tmp_path: Path) -> None:
    read = load(
        tmp_path,
        route('resumable = "always"\noverflow = "drop"\nflush = "20ms"\nflush_events = 8')
        + '[retention]\nfinished = "1m"\norphan = "2m"\norphan_grace = "5s"\nstream = "1MiB"\ntotal = "10MiB"\n'
        + '[server]\npage = false\n[timeouts]\nplaceholder = "1s"\n',
    )
    table = read.route[0]
    assert (table.resumable, table.overflow, table.flush, table.flush_events) == ("always", "drop", 0.02, 8)
    assert seconds(read.retention.finished, read.retention.orphan, read.retention.orphan_grace) == (60, 120, 5)
    assert (read.retention.stream, read.retention.total) == (1024**2, 10 * 1024**2)
    assert seconds(read.server.page, read.timeouts.placeholder) == (0, 1)
    assert load(tmp_path, route('smooth = "250ms"')).route[0].smooth == 0.25


def test_0_keeps_nothing_and_is_no_mistake(tmp_path: Path) -> None:
    read = load(tmp_path, GOOD + "[retention]\nfinished = 0\norphan = 0\norphan_grace = 0\n")
    assert seconds(read.retention.finished, read.retention.orphan, read.retention.orphan_grace) == (0, 0, 0)
    timeouts = load(tmp_path, GOOD + "[timeouts]\nplaceholder = 0\nheartbeat = 0\n").timeouts
    assert seconds(timeouts.placeholder, timeouts.heartbeat) == (0, 0)


UNKNOWN = [
    (route("resumeable = 'ask'"), "[[route]] number 1: ", "'resumeable'", "'resumable'"),
    (route("overflw = 'merge'"), "[[route]] number 1: ", "'overflw'", "'overflow'"),
    (route("flush_event = 2"), "[[route]] number 1: ", "'flush_event'", "'flush_events'"),
    (GOOD + "[retention]\nfinish = '1m'\n", "[retention] ", "'finish'", "'finished'"),
    (GOOD + "[retention]\norphan_grac = '1m'\n", "[retention] ", "'orphan_grac'", "'orphan_grace'"),
    (GOOD + "[retenton]\ntotal = '1MiB'\n", "", "'retenton'", "'retention'"),
    (GOOD + "[timeouts]\nplacehold = 1\n", "[timeouts] ", "'placehold'", "'placeholder'"),
    (GOOD + "[server]\npages = true\n", "[server] ", "'pages'", "'page'"),
]


@pytest.mark.parametrize(("text", "where", "key", "nearest"), UNKNOWN)
def test_an_unknown_key_is_named_with_the_nearest_one(
    tmp_path: Path, text: str, where: str, key: str, nearest: str
) -> None:
    assert f"{where}unknown key {key}; did you mean {nearest}?" in mistake(tmp_path, text)


WRONG = [
    (route("resumable = 'sometimes'"), '[[route]] number 1: resumable: expected one of "always", "ask", "never"'),
    (route("resumable = true"), "[[route]] number 1: resumable: "),
    (
        route("overflow = 'block'"),
        '[[route]] number 1: overflow: expected one of "disconnect", "drop", "merge", "pause"',
    ),
    (route("flush = 'soon'"), "[[route]] number 1: flush: expected a duration"),
    (route("flush_events = '8'"), "[[route]] number 1: flush_events: expected int, got str"),
    (route("flush_events = 1.5"), "[[route]] number 1: flush_events: expected int, got float"),
    (route("smooth = true"), "[[route]] number 1: smooth: expected a duration"),
    (GOOD + "[retention]\nfinished = 'never'\n", "[retention] finished: expected a duration"),
    (GOOD + "[retention]\nstream = '8 Mb'\n", "[retention] stream: expected a size"),
    (GOOD + "[retention]\ntotal = 1.5\n", "[retention] total: expected a size"),
    (GOOD + "[[retention]]\n", "single brackets"),
    (GOOD + "[server]\npage = 'yes'\n", "[server] page: expected bool, got str"),
    (GOOD + "[server]\npage = 1\n", "[server] page: expected bool, got int"),
    (GOOD + "[timeouts]\nplaceholder = 'x'\n", "[timeouts] placeholder: expected a duration"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_a_wrong_value_is_named_with_its_line_and_what_was_expected(tmp_path: Path, text: str, expected: str) -> None:
    said = mistake(tmp_path, text)
    if "expected one of" in expected:
        place, _, choices = said.partition("expected one of ")
        wanted, _, known = expected.partition("expected one of ")
        assert wanted in place
        assert sorted(choices.split(", ")) == known.split(", ")
    else:
        assert expected in said
    assert said.startswith(":"), "a line is named"


SENSE = [
    (route('resumable = "always"') + "\n[retention]\nfinished = 0\n", "[retention] finished is 0, which keeps nothing"),
    (route("flush = '6s'"), "flush holds events back, and may be from 0 to 5 s"),
    (route("flush = -1"), "flush holds events back"),
    (route("smooth = '6s'"), "smooth holds events back"),
    (route("smooth = -0.1"), "smooth holds events back"),
    (route("flush_events = 0"), "flush_events may be from 1 to 1000"),
    (route("flush_events = -5"), "flush_events may be from 1 to 1000"),
    (route("flush_events = 1001"), "flush_events may be from 1 to 1000"),
    (route("smooth = '10ms'\nflush = '10ms'"), "smooth and flush exclude each other"),
    (route("smooth = '10ms'\nflush_events = 4"), "smooth and flush exclude each other"),
    (GOOD + "[retention]\nfinished = -1\n", "[retention] finished must not be negative"),
    (GOOD + "[retention]\norphan = -1\n", "[retention] orphan must not be negative"),
    (GOOD + "[retention]\norphan_grace = -0.5\n", "[retention] orphan_grace must not be negative"),
    (GOOD + "[retention]\nstream = 0\n", "[retention] stream must be at least 1"),
    (GOOD + "[retention]\ntotal = 0\n", "[retention] total must be at least 1"),
    (GOOD + "[retention]\ntotal = -1\n", "[retention] total must be at least 1"),
    (GOOD + "[timeouts]\nplaceholder = -1\n", "[timeouts] placeholder must not be negative"),
]


@pytest.mark.parametrize(("text", "expected"), SENSE)
def test_what_makes_no_sense_is_said_with_what_would(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistake(tmp_path, text)


def test_mistake_of_a_route_names_the_route(tmp_path: Path) -> None:
    assert "route '/*'" in mistake(tmp_path, route("flush = '6s'"))


def test_check_refuses_as_serve_does(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(route("smooth = '10ms'\nflush = '10ms'"))
    assert refused("check", "-c", str(file)) == refused("serve", "-c", str(file))


def test_check_shows_all_that_is_in_force(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(
        route('resumable = "always"\noverflow = "drop"\nflush = "20ms"\nflush_events = 8')
        + '[retention]\nfinished = "1m"\nstream = "1MiB"\n[server]\npage = false\n[timeouts]\nplaceholder = "250ms"\n'
    )
    done = relay("check", "-c", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    printed = tomllib.loads(done.stdout)
    assert printed["server"]["page"] is False
    assert printed["timeouts"]["placeholder"] == "250ms"
    shown = printed["route"][0]
    assert (shown["resumable"], shown["overflow"], shown["flush"], shown["flush_events"]) == (
        "always",
        "drop",
        "20ms",
        8,
    )
    expected = {"finished": "1m", "orphan": "1h", "orphan_grace": "30s", "stream": "1MiB", "total": "256MiB"}
    assert {key: printed["retention"][key] for key in expected} == expected
    assert set(printed["retention"]) == set(schema.RetentionTable.__struct_fields__)
    # And what it shows is a file that says the same.
    again = tmp_path / "again.toml"
    again.write_text(done.stdout)
    assert tomllib.loads(relay("check", "-c", str(again)).stdout) == printed


def test_sample_says_the_defaults() -> None:
    sample = tomllib.loads(relay("sample").stdout)
    assert set(sample["retention"]) == set(schema.RetentionTable.__struct_fields__)
    table = sample["route"][0]
    assert {"resumable", "flush", "flush_events", "smooth"} <= set(table)
    assert sample["server"]["page"] is True
    assert sample["timeouts"]["placeholder"] == "500ms"
