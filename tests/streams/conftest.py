"""The grounds. Session-wide, so that all tests of one run together, and its relays end before the next begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pairs.calls import Agent
from tests.programs import Provider
from tests.streams.ground import Ground


@pytest.fixture(scope="session", params=["1-1", "2-2"])
def _ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """With a provider of its own: what it counts is nobody else's doing."""
    versions: str = request.param
    provider = Provider()
    folder = tmp_path_factory.mktemp(f"ground-{versions}")
    made = Ground(versions[0], versions[2], False, provider, (Path(), Path()), folder)
    yield made
    made.end()
    assert provider.stop() == 0


@pytest.fixture
def ground(_ground: Ground) -> Iterator[Ground]:
    """A client and a provider of one version each, the provider's counters at zero."""
    _ground.counts.reset()
    yield _ground
    _ground.look()


@pytest.fixture
def agent(ground: Ground) -> Iterator[Agent]:
    """A client of the ground's common relay."""
    with ground.agent() as made:
        yield made


@pytest.fixture
def other(ground: Ground) -> Iterator[Agent]:
    """Another client of it, on connections of its own."""
    with ground.agent() as made:
        yield made
