"""The invariants of slow readers (docs: Slow readers), each schedule played over real sockets.

1 a reader's text is the provider's; 2 ids tile over resumes; 3 sent + merged + dropped + undelivered are all there
were; 5 who stalls holds nobody up; 6 a clean end if and only if the terminal event was sent. Four is in test_stuck.
INVARIANTS=10 plays ten times as many, other ones each time; SHRINK=1 makes one that fails as small as it can be.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.invariants.plain import play_plain
from tests.invariants.plans import MODES, Plan, audiences, chains, laggards, plains
from tests.invariants.playing import Play
from tests.invariants.stage import Stage

_MORE = int(os.environ.get("INVARIANTS", "1"))
HTTP = pytest.mark.parametrize("http", ["1", "2"])


def played(number: int, plans: st.SearchStrategy[Plan], play: Callable[[Plan], None]) -> None:
    """So many schedules."""

    @settings(
        max_examples=number * _MORE,
        deadline=None,
        database=None,
        derandomize=_MORE == 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        report_multiple_bugs=False,
        # What fails may take its patience each time: it is made smaller only where that is asked for.
        phases=[Phase.generate, *([Phase.shrink] if "SHRINK" in os.environ else [])],
    )
    @given(plans)
    def run(plan: Plan) -> None:
        play(plan)

    run()


@HTTP
def test_chain_of_resumes(stage: Stage, http: str) -> None:
    tally: Counter[str] = Counter()
    played(300, chains(http), lambda plan: Play(stage, http, plan, tally).run())
    assert tally["schedules"] >= 300
    for aim in ("utf8", "data", "crlf", "id", "border"):
        assert tally[f"cut {aim}"], tally
    assert tally["nothing left"], tally
    assert tally["told why"], tally


@HTTP
def test_many_readers(stage: Stage, http: str) -> None:
    tally: Counter[str] = Counter()
    played(150, audiences(http), lambda plan: Play(stage, http, plan, tally).run())
    assert tally["schedules"] >= 150
    assert tally["cancelled"] > 10, tally
    assert tally["told why"], tally
    assert tally["nothing left"], tally


@HTTP
@pytest.mark.parametrize("mode", MODES)
def test_reader_that_lags(stage: Stage, http: str, mode: str) -> None:
    tally: Counter[str] = Counter()
    played(40, laggards(http, mode), lambda plan: Play(stage, http, plan, tally).run())
    assert tally["schedules"] >= 40
    if mode == "merge":
        assert tally["merged"], tally
    if mode == "drop":
        assert tally["dropped"], tally


@HTTP
@pytest.mark.parametrize("slow", [False, True], ids=["small", "large"])
def test_stream_that_is_not_kept(stage: Stage, http: str, slow: bool) -> None:
    tally: Counter[str] = Counter()
    number = 40 if slow else 150
    played(number, plains(http, slow=slow), lambda plan: play_plain(stage, http, plan, tally))
    assert tally["schedules"] >= number
    assert tally["broken"], tally
    assert tally["left"], tally
