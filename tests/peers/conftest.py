"""What the real peers share: a certificate, and a relay that shows it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.secured import Pair, SecuredRelay, make_pair
from tests.programs import Provider

SecuredMaker = Callable[..., SecuredRelay]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def secured(provider: Provider, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRelay]:
    """One for all whose tests leave it as it was."""
    made = SecuredRelay(tmp_path_factory.mktemp("peers") / "relay.toml", provider.url, pair)
    yield made
    assert made.stop() == 0
    _ended_well(made)


@pytest.fixture
def make_secured(provider: Provider, pair: Pair, tmp_path: Path) -> Iterator[SecuredMaker]:
    """A relay of the test's own: make_secured(upstream=URL, pair=…, http="2")."""
    made: list[SecuredRelay] = []

    def make(upstream: str | None = None, own: Pair | None = None, **options: str) -> SecuredRelay:
        file = tmp_path / f"relay{len(made)}.toml"
        made.append(SecuredRelay(file, upstream or provider.url, own or pair, **options))
        return made[-1]

    yield make
    for program in made:
        program.stop()
        _ended_well(program)


@pytest.fixture(params=["tls", "cleartext"])
def how(request: pytest.FixtureRequest) -> str:
    """Over TLS with ALPN, or in cleartext with prior knowledge."""
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["", "/two"], ids=["from-http1", "from-http2"])
def route(request: pytest.FixtureRequest) -> str:
    """What the provider speaks."""
    chosen: str = request.param
    return chosen


def _ended_well(program: SecuredRelay) -> None:
    assert not [line for line in program.lines if "internal" in line or "Traceback" in line], program.lines


def find(program: str, package: str) -> str:
    found = shutil.which(program) or shutil.which(f"/usr/sbin/{program}")
    assert found, f"{program} is missing: install Debian's {package}"
    return found
