"""What many tests share: one provider and one relay in front of it, for the whole run; others made to measure."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.programs import Program, Provider, Relay, config_text

# No test asks how long something took: on a busy machine that says nothing.
settings.register_profile("relay", deadline=None)
settings.load_profile("relay")


def pytest_collection_finish() -> None:
    """Thousands of collected tests need not be walked through by every collection of garbage from now on, nor by those
    that tests ask for to see what is left of something."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    program = Provider()
    yield program
    assert program.stop() == 0


@pytest.fixture(scope="session")
def relay(provider: Provider) -> Iterator[Relay]:
    program = Relay(upstream=provider.url)
    yield program
    assert program.stop() == 0
    defects = [line for line in program.lines if "internal" in line or "Traceback" in line]
    assert not defects


@pytest.fixture
def counted(provider: Provider) -> Provider:
    """The provider, with its counters at zero."""
    provider.reset()
    return provider


RelayMaker = Callable[..., Relay]


@pytest.fixture
def make_relay(tmp_path: Path, provider: Provider) -> Iterator[RelayMaker]:
    """A relay of the test's own: make_relay(timeouts="head = 1", limits=…, server=…, upstream_extra=…, upstream=URL,
    env={…})."""
    made: list[Program] = []

    def make(*, upstream: str | None = None, env: dict[str, str] | None = None, **tables: str) -> Relay:
        file = tmp_path / f"relay{len(made)}.toml"
        file.write_text(config_text(upstream or provider.url, **tables))
        program = Relay(file, env=env)
        made.append(program)
        return program

    yield make
    for program in made:
        program.stop()
        assert not [line for line in program.lines if "internal" in line or "Traceback" in line]
