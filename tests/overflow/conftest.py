"""One relay for all tests here that need none of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.certificates import make_certificate
from tests.overflow.ground import Site, config
from tests.programs import Provider, Relay


@pytest.fixture(scope="session")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a provider of its own: what it counts is nobody else's doing."""
    provider = Provider()
    folder = tmp_path_factory.mktemp("overflow")
    certificate = make_certificate(folder / "tls", "localhost", "127.0.0.1", "relay.test")
    file = folder / "relay.toml"
    file.write_text(config(provider, certificate))
    relay = Relay(file)
    yield Site(provider, relay, certificate[0])
    assert relay.stop() == 0
    assert provider.stop() == 0


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    """The relay, its provider's counters at zero."""
    _site.provider.reset()
    seen = len(_site.relay.lines)
    yield _site
    said = _site.relay.lines[seen:]
    assert not [line for line in said if "internal" in line or "Traceback" in line]


@pytest.fixture(params=["1", "2"])
def speak(request: pytest.FixtureRequest) -> str:
    """How the test's clients speak: HTTP/1.1 or HTTP/2."""
    said: str = request.param
    return said
