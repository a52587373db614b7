"""What tests with real clients and peers share."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.tabs import Tab, Tabs
from tests.clients.resumable import Heard
from tests.programs import PATIENCE, Provider, Relay, config_text

HERE = Path(__file__).resolve().parent
LOCK = HERE / "package-lock.json"
# Written by npm itself when it has installed everything.
INSTALLED = HERE / "node_modules" / ".package-lock.json"
# A cold cache fetches some ten megabytes.
INSTALL_PATIENCE = 50.0

Ask = Callable[..., Heard]
TabMaker = Callable[[str], Tab]


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


# Relays for resumable streams


@contextmanager
def _running(file: Path, config: str) -> Iterator[Relay]:
    file.write_text(config)
    program = Relay(file)
    try:
        yield program
    finally:
        assert program.stop() == 0
    assert not [line for line in program.lines if "internal" in line or "Traceback" in line]


@pytest.fixture(scope="session")
def beating(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Its heartbeats come often."""
    config = config_text(provider.url, timeouts='heartbeat = "50ms"')
    with _running(tmp_path_factory.mktemp("relay") / "beating.toml", config) as program:
        yield program


@pytest.fixture(scope="session")
def strict(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """It aborts a stream that falls silent."""
    config = config_text(provider.url, timeouts='idle = "250ms"\nheartbeat = "50ms"')
    with _running(tmp_path_factory.mktemp("relay") / "strict.toml", config) as program:
        yield program


@pytest.fixture(scope="session")
def always(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """All its streams can be resumed, for clients that do not know how to ask for it."""
    config = config_text(provider.url).replace(
        'upstream = "provider"\n', 'upstream = "provider"\nresumable = "always"\n'
    )
    with _running(tmp_path_factory.mktemp("relay") / "always.toml", config) as program:
        yield program


# Clients that are no Python


@pytest.fixture(scope="session")
def node() -> str:
    """Node's program, its packages installed as the lock file says."""
    program, npm = shutil.which("node"), shutil.which("npm")
    assert program, "node is missing: install Debian's nodejs, at least version 20"
    assert npm, "npm is missing: install Debian's npm"
    # Several runs of tests, as pytest-xdist starts them, must not install into one place at once.
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INSTALL_PATIENCE,
            )
            assert done.returncode == 0, f"npm ci failed: {done.stderr[-2000:]}"
            INSTALLED.touch()
    return program


@pytest.fixture
def ask(node: str) -> Ask:
    """Runs one scenario of resumable.mjs to its end: ask("openai chat", url, simulate, headers={…}, …)."""

    def run(scenario: str, url: str, simulate: str, **told: object) -> Heard:
        command = [node, str(HERE / "resumable.mjs"), scenario, json.dumps({"url": url, "simulate": simulate, **told})]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE * 2)
        assert done.returncode == 0, done.stderr
        heard: Heard = json.loads(done.stdout)
        return heard

    return run


@pytest.fixture(scope="session")
def tabs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tabs]:
    with Tabs(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def open_tab(tabs: Tabs) -> Iterator[TabMaker]:
    """Opens a url in a new tab, until the test is over."""
    opened: list[Tab] = []

    def open_one(url: str) -> Tab:
        opened.append(tabs.tab(url))
        return opened[-1]

    yield open_one
    for tab in opened:
        tab.close()
