"""Readers that are stuck: what they cost, when they go, and what the others notice of them (invariants 4 and 5).

A reader is stuck that reads nothing, neither its socket nor its window, from its head on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.invariants.readers import Reader, Sight, together
from tests.invariants.scripts import Script
from tests.invariants.stage import Stage
from tests.invariants.telling import parse, spoken

_KIB = 1024
_STUCK = 40
# Of memory, whatever it is used for: an allocator's granularity, the stream's own log (8 MiB, but for warming up).
_NOISE = 2 * _KIB * _KIB
HTTP = pytest.mark.parametrize("http", ["1", "2"])


class Scene:
    """One generation, read whole by somebody healthy, beside some who are stuck. The healthy one alone may pause the
    provider: it waits until he begins to read, and is then as fast as he is."""

    def __init__(self, stage: Stage, http: str, script: Script) -> None:
        self.stage = stage
        self.http = http
        self.script = script
        self.truth = stage.truth(script)
        self.stuck: list[tuple[Reader, str]] = []

    def __enter__(self) -> Self:
        self.stage.reset()
        fields = [("Relay-Resumable", "1"), ("Relay-Overflow", "pause"), ("Simulate", self.script.simulate)]
        script, sight = self.script, Sight(small=True)
        self.healthy, self.name = self.stage.reader(self.http, "POST", script.path, script.document, fields, sight)
        assert self.healthy.head() == 200
        self.id = self.healthy.fields["relay-stream-id"]
        return self

    def __exit__(self, *exc: object) -> None:
        for reader in (self.healthy, *(reader for reader, _ in self.stuck)):
            if not reader.over:
                reader.leave("rst")

    def join(self, number: int, mode: str) -> None:
        """So many who are stuck from their head on."""
        sight = Sight(most=100, small=True, window=4096)
        target = f"/v1/streams/{self.id}?last_event_id=latest"
        for _ in range(number):
            fields = [("Relay-Overflow", mode)]
            self.stuck.append(self.stage.reader(self.http, "GET", target, None, fields, sight))
        for reader, _ in self.stuck:
            assert reader.head() == 200

    def whole(self) -> None:
        """The healthy one has everything, and so has the provider said."""
        self.healthy.rest()
        assert self.healthy.clean
        events = parse(bytes(self.healthy.body))
        assert [event.mark for event in events] == [f"{self.id}-{n + 1}" for n in range(len(self.truth.events))]
        assert spoken(self.script.dialect, events) == self.truth.texts
        assert self.stage.wait(finished=1)
        line = self.stage.line(self.name)
        assert (line["events"], line["merged"], line["dropped"]) == (len(self.truth.events), 0, 0)


def _script(kilobytes: int) -> Script:
    return Script(dialect="chat", events=kilobytes // 16, size=16 * _KIB)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose relay keeps little, and waits two seconds for who takes nothing."""
    made = Stage(tmp_path_factory.mktemp("stuck"), timeouts='write = "2s"', total="6MiB", stream="2MiB")
    # The logs, and what a turn of the loop needs, are there before.
    for http in ("1", "2", "1", "2"):
        with Scene(made, http, _script(3000)) as scene:
            scene.whole()
    yield made
    made.close()


@HTTP
@pytest.mark.parametrize("mode", ["merge", "disconnect", "drop"])
def test_stuck_readers_cost_little_and_hold_nobody_up(hasty: Stage, http: str, mode: str) -> None:
    """Whatever the stream's length: each of them has 64 KiB of the relay's memory at the most, and the provider and the
    healthy reader are through while they are still stuck. Who is behind by more than a megabyte is cut off, though he
    takes nothing."""
    with Scene(hasty, http, _script(3000)) as scene:
        scene.whole()
    before = hasty.relay.resident()

    @settings(max_examples=3, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from([800, 3000, 6000]))
    def run(kilobytes: int) -> None:
        with Scene(hasty, http, _script(kilobytes)) as scene:
            scene.join(_STUCK, mode)
            scene.whole()
            cost = hasty.relay.resident() - before
            assert cost < _STUCK * 64 * _KIB + _NOISE, f"{cost / _STUCK / _KIB:.0f} KiB for each"
            for reader, name in scene.stuck:
                if mode == "drop" or kilobytes < _KIB:
                    assert not reader.over
                else:
                    line = hasty.line(name)
                    assert line["reason"] == "client_behind"
                    assert line["events"] < len(scene.truth.events)

    run()


def test_what_is_evicted_costs_nothing(hasty: Stage) -> None:
    """The bound of all that is kept is one of memory, too: streams that have ended are let go for others."""
    grown = []
    for _ in range(12):
        with Scene(hasty, "1", _script(3000)) as scene:
            scene.whole()
        grown.append(hasty.relay.resident())
    # Six megabytes are kept; ten more streams have two each.
    assert grown[-1] - grown[2] < 5 * _NOISE // 2, [size // _KIB for size in grown]


@HTTP
def test_stuck_reader_who_pauses_is_gone_after_the_limit(hasty: Stage, http: str) -> None:
    """He holds the provider for so long; then the others, who wait for it, have everything."""
    with Scene(hasty, http, _script(900)) as scene:
        # It is he who began the stream; now he reads no more.
        other, name = hasty.reader(http, "GET", f"/v1/streams/{scene.id}", None, [], Sight(window=_KIB * _KIB))
        other.rest()
        assert other.clean
        assert spoken("chat", parse(bytes(other.body))) == scene.truth.texts
        assert hasty.line(scene.name)["reason"] == "client_stalled"
        assert hasty.line(name)["events"] == len(scene.truth.events)


@HTTP
def test_stuck_readers_find_everything_merged(hasty: Stage, http: str) -> None:
    """They are stuck until the provider is through, and have it all in fewer pieces."""
    with Scene(hasty, http, Script(dialect="chat", events=800, size=700)) as scene:
        scene.join(5, "merge")
        scene.whole()
        together([reader for reader, _ in scene.stuck])
        for reader, name in scene.stuck:
            line = hasty.line(name)
            assert reader.clean
            assert line["merged"] > 0
            events = parse(bytes(reader.body))
            assert line["events"] == line["merged"] + len(events)
            own = scene.truth.events[-line["events"] :]
            assert spoken("chat", events) == spoken("chat", own)
