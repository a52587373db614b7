"""A ground for each file of attacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.ground import Ground


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Clients are given up on after half a second; unused connections to the provider close soon, so that descriptors
    can be counted."""
    timeouts = 'request_head = "500ms"\nwrite = "500ms"\nupstream_idle = "300ms"'
    made = Ground(tmp_path_factory.mktemp("attacks"), timeouts=timeouts)
    yield made
    made.stop()
