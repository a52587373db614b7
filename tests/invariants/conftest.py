"""One relay and one provider for all schedules of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.invariants.stage import Stage


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("invariants"))
    yield made
    made.close()
