"""The eight pairs. Session-wide, so that all tests of one run together, and its relays end before the next begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.pairs.calls import Agent
from tests.pairs.pair import ALL_PAIRS, Pair
from tests.programs import Provider

_NAMES = ("localhost", "relay.test", "127.0.0.1")


@pytest.fixture(scope="session")
def pair_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Self-signed, for the relay and the provider, and its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate"), *_NAMES)


@pytest.fixture(scope="session", params=ALL_PAIRS, ids=["-".join(pair) for pair in ALL_PAIRS])
def _pair(
    request: pytest.FixtureRequest, pair_certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """With a provider of its own: what it counts is nobody else's doing."""
    versions, transport = request.param
    certificate, key = map(str, pair_certificate)
    provider = Provider(*(["--tls-cert", certificate, "--tls-key", key] if transport == "tls" else []))
    folder = tmp_path_factory.mktemp(f"pair-{versions}-{transport}")
    made = Pair(versions[0], versions[2], transport == "tls", provider, pair_certificate, folder)
    yield made
    made.end()
    assert provider.stop() == 0


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """One of the eight pairs, its provider's counters at zero."""
    _pair.counts.reset()
    yield _pair
    _pair.look()


@pytest.fixture
def agent(pair: Pair) -> Iterator[Agent]:
    """A client of the pair's common relay."""
    with pair.agent() as made:
        yield made
