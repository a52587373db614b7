"""The command line: one clear line for each mistake, exit code 2, and never a key."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.control.test_config import GOOD, KEY, OPEN
from tests.programs import BIN, PATIENCE, Relay


def relay(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "relay"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **(env or {})},
    )


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What is said of a mistake: one line, code 2, nothing on stdout."""
    done = relay(*arguments, env=env)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr
    return done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "relay.toml"
    file.write_text(GOOD)
    return file


def test_check_prints_what_is_in_force_as_a_file_that_says_the_same(file: Path, tmp_path: Path) -> None:
    file.write_text(GOOD + "[timeouts]\nidle = '5m'\n[limits]\nevent = '64KiB'\n")
    first = relay("check", "-c", str(file))
    assert (first.returncode, first.stderr) == (0, "")
    printed = tomllib.loads(first.stdout)
    assert printed["timeouts"]["idle"] == "5m"
    assert printed["timeouts"]["connect"] == "5s"
    assert printed["timeouts"]["total"] == "0s"
    assert printed["limits"]["event"] == "64KiB"
    assert printed["upstream"][0]["name"] == "openai"
    again = tmp_path / "again.toml"
    again.write_text(first.stdout)
    # All but the comment that names the file.
    assert relay("check", "-c", str(again)).stdout.split("\n", 1)[1] == first.stdout.split("\n", 1)[1]


def test_check_names_a_keys_variable_and_never_the_key(file: Path) -> None:
    file.write_text(OPEN.format("127.0.0.1:8080", ""))
    done = relay("check", "-c", str(file), env={"RELAY_TEST_KEY": KEY})
    assert done.returncode == 0
    assert 'api_key_env = "RELAY_TEST_KEY"' in done.stdout
    assert "canary" not in done.stdout + done.stderr


def test_a_mistake_in_a_file_is_one_line(file: Path) -> None:
    file.write_text(GOOD + "[timeouts]\nidel = 1\n")
    for command in ("check", "serve"):
        said = refused(command, "-c", str(file))
        assert said == f"relay: {file}:9: [timeouts] unknown key 'idel'; did you mean 'idle'?\n"


@pytest.mark.parametrize("text", [OPEN.format("0.0.0.0:0", ""), GOOD.replace("https://", f"https://u:{KEY}@")])
def test_no_key_is_in_an_error(file: Path, text: str) -> None:
    file.write_text(text)
    for command in ("check", "serve"):
        assert refused(command, "-c", str(file), env={"RELAY_TEST_KEY": KEY}).count("\n") == 1


def test_serve_wants_one_place_to_relay_to(file: Path) -> None:
    assert refused("serve") == "relay: say where to relay to: either --upstream URL or -c FILE\n"
    assert "exclude each other" in refused("serve", "-c", str(file), "--upstream", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--upstream", "nonsense"], "is not a url"),
        (["serve", "--upstream", "http://127.0.0.1:9/v1"], "write url = 'http://127.0.0.1:9'"),
        (["serve", "--upstream", "http://127.0.0.1:9", "--listen", "here"], "'here' is not an address"),
        (["serve", "--upstream", "http://127.0.0.1:9", "--api-key-env", "RELAY_TEST_UNSET"], "is not set"),
        (["serve", "--upstream", "http://127.0.0.1:9", "--api-key-env", KEY], "the name of an environment variable"),
        (["serve", "-c", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["check", "-c", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["serve", "-c", "x", "--api-key-env", "A"], "--api-key-env goes with --upstream"),
        (["check"], "-c/--config"),
        (["serve", "--log-format", "xml"], "'json', 'text', 'off'"),
        (["serve", "--upstrea", "x"], "unrecognized arguments"),
        (["sing"], "invalid choice"),
        ([], "required"),
    ],
)
def test_a_mistake_in_the_command_is_code_2(arguments: list[str], expected: str) -> None:
    assert expected in refused(*arguments)


def test_an_open_address_on_the_command_line_is_checked_like_a_files(file: Path) -> None:
    file.write_text(OPEN.format("127.0.0.1:0", ""))
    said = refused("serve", "-c", str(file), "--listen", "0.0.0.0:0", env={"RELAY_TEST_KEY": KEY})
    assert "can be reached from other machines" in said
    with_key = ["serve", "--upstream", "http://127.0.0.1:9", "--api-key-env", "RELAY_TEST_KEY", "--listen", "0.0.0.0:0"]
    assert "can be reached from other machines" in refused(*with_key, env={"RELAY_TEST_KEY": KEY})


def test_an_address_that_is_taken_is_said_so() -> None:
    program = Relay(upstream="http://127.0.0.1:9")
    try:
        said = refused("serve", "--upstream", "http://127.0.0.1:9", "--listen", f"127.0.0.1:{program.port}")
        assert f"127.0.0.1:{program.port} is taken" in said
    finally:
        assert program.stop() == 0


def test_help_and_version_are_no_mistakes() -> None:
    done = relay("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"relay \d+\.\d+\.\d+\n", done.stdout)
    for arguments in (["--help"], ["serve", "--help"], ["check", "--help"]):
        assert relay(*arguments).returncode == 0
