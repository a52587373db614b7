"""A Chromium, and relay.js in Node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.browser.tabs import Tab, Tabs
from tests.peers.conftest import find
from tests.programs import PATIENCE

READER = Path(__file__).resolve().parent / "reader.mjs"

Node = Callable[..., dict[str, Any]]
Opening = Callable[[str], Tab]


@pytest.fixture(scope="session")
def tabs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tabs]:
    with Tabs(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def open_tab(tabs: Tabs) -> Iterator[Opening]:
    """Opens a url in a new tab, until the test is over."""
    opened: list[Tab] = []

    def open_one(url: str) -> Tab:
        opened.append(tabs.tab(url))
        return opened[-1]

    yield open_one
    for tab in opened:
        tab.close()


@pytest.fixture
def node() -> Node:
    """Runs one scenario of reader.mjs to its end: node("all", url=…, simulate=…, options={…})."""

    def run(scenario: str, **told: object) -> dict[str, Any]:
        command = [find("node", "nodejs"), str(READER), scenario, json.dumps(told)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE * 2)
        assert done.returncode == 0, done.stderr
        heard: dict[str, Any] = json.loads(done.stdout)
        return heard

    return run


class Stepping:
    """A scenario that waits for its test."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout

    def until(self, word: str) -> None:
        said = self._stdout.readline()
        assert said == f"{word}\n", said

    def go_on(self) -> dict[str, Any]:
        """To its end."""
        self._stdin.write("\n")
        self._stdin.flush()
        heard: dict[str, Any] = json.loads(self._stdout.readline())
        return heard


@contextmanager
def stepping(scenario: str, **told: object) -> Iterator[Stepping]:
    command = [find("node", "nodejs"), str(READER), scenario, json.dumps(told)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield Stepping(process.stdin, process.stdout)
        finally:
            process.kill()
