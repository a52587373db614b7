"""What a schedule cannot say by itself: ends that are one of a kind, and positions that are none."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.invariants.plans import Plan, Stall
from tests.invariants.playing import Play
from tests.invariants.readers import Sight
from tests.invariants.scripts import Script
from tests.invariants.stage import Stage
from tests.invariants.telling import parse

_RESUMABLE = [("Relay-Resumable", "1")]
HTTP = pytest.mark.parametrize("http", ["1", "2"])


@HTTP
def test_half_an_event_is_none(stage: Stage, http: str) -> None:
    """A provider of an unknown dialect ends in the middle of an event: whoever reads it directly is not given it."""
    script = Script(dialect="opaque", events=6, lie="half-event", at=3)
    fields = [*_RESUMABLE, ("Simulate", script.simulate)]
    reader, _ = stage.reader(http, "GET", script.path, None, fields, Sight())
    reader.rest()
    assert [e.data for e in parse(bytes(reader.body))] == [e.data for e in stage.truth(script).events]


@HTTP
def test_error_reaches_a_reader_with_no_room_for_it(stage: Stage, http: str) -> None:
    """He has everything but the error, which has to wait for him as all else does."""
    script = Script(dialect="chat", events=5, lie="cut", at=2)
    fields = [*_RESUMABLE, ("Simulate", script.simulate)]
    reader, name = stage.reader(http, "POST", script.path, script.document, fields, Sight(small=True, window=50))
    assert reader.head() == 200
    assert stage.generation(reader.fields["relay-stream-id"])["generation"] == "failed"
    reader.rest()
    assert not reader.clean
    assert b'"code":"upstream_cut"' in parse(bytes(reader.body))[-1].data
    assert stage.line(name)["reason"] == "upstream_cut"


@HTTP
def test_reader_cannot_come_back_to_what_has_not_been(stage: Stage, http: str) -> None:
    script = Script(dialect="chat", events=5, lie="mid-stall", at=2)
    fields = [*_RESUMABLE, ("Simulate", script.simulate)]
    reader, _ = stage.reader(http, "POST", script.path, script.document, fields, Sight())
    reader.head()
    name = reader.fields["relay-stream-id"]
    status, problem = stage.ask(http, "GET", f"/v1/streams/{name}?last_event_id=99")
    assert status == 409, problem
    assert stage.ask(http, "GET", f"/v1/streams/{name}?last_event_id={'x' * 22}-1")[0] == 400
    assert stage.ask(http, "DELETE", f"/v1/streams/{name}")[1]["state"] == "cancelled"
    reader.rest()
    assert not reader.clean


@HTTP
def test_stream_without_events_is_known(stage: Stage, http: str) -> None:
    """Its head has told its name: who comes back to it is told that it is over."""
    script = Script(dialect="opaque", events=0)
    fields = [*_RESUMABLE, ("Simulate", script.simulate)]
    reader, _ = stage.reader(http, "GET", script.path, None, fields, Sight())
    reader.rest()
    assert reader.clean
    assert stage.ask(http, "GET", f"/v1/streams/{reader.fields['relay-stream-id']}")[0] == 204


@HTTP
def test_gap_is_told_even_where_nothing_is_left(stage: Stage, http: str) -> None:
    """Events so large that none of them may wait: the reader is told of those that he has not, and has the last."""
    script = Script(dialect="opaque", events=8, size=300_000)
    fields = [*_RESUMABLE, ("Relay-Overflow", "drop"), ("Simulate", script.simulate)]
    reader, name = stage.reader(http, "GET", script.path, None, fields, Sight(small=True, window=4096))
    assert reader.head() == 200
    stage.generation(reader.fields["relay-stream-id"])
    reader.rest()
    assert reader.clean
    events = parse(bytes(reader.body))
    # Of snapshots the newest counts, and of all streams the end.
    assert str(events[-1].mark).endswith(f"-{script.events}")
    place = 0
    for event in events:
        said = json.loads(event.data) if event.mark is None else None
        first = said["first"] if said is not None else int(str(event.mark).rpartition("-")[2])
        assert first == place + 1, "a hole that nobody has told him of"
        place = said["last"] if said is not None else first
    assert place == script.events
    assert stage.line(name)["dropped"] > 0


@HTTP
@pytest.mark.parametrize("mode", ["merge", "disconnect"])
def test_reader_too_far_behind_is_cut_off_and_comes_back(stage: Stage, http: str, mode: str) -> None:
    """Behind by more than a megabyte. What he had is whole events; he is told why, and has all of them in the end."""
    script = Script(dialect="chat", events=200, size=12_000)
    plan = Plan(script, steps=[Stall(100)], overflow=mode, sight=Sight(small=True, window=4096))
    tally: Counter[str] = Counter()
    play = Play(stage, http, plan, tally)
    play.run()
    assert tally["behind"] >= 1
    [chain] = play.chains
    assert len(chain.segments) == tally["behind"] + 1
    assert chain.last.reader.fields["relay-last-disconnect"] == "client_behind"


@HTTP
def test_latest_is_what_comes_from_now_on(stage: Stage, http: str) -> None:
    script = Script(dialect="chat", events=9, lie="mid-stall", at=5)
    fields = [*_RESUMABLE, ("Simulate", script.simulate)]
    reader, _ = stage.reader(http, "POST", script.path, script.document, fields, Sight())
    assert reader.head() == 200
    path = f"/v1/streams/{reader.fields['relay-stream-id']}"
    # Six of them: the first says who speaks.
    _, state = stage.ask(http, "GET", f"{path}?after=5&wait=10s", [("Accept", "application/json")])
    assert state["tail"] == 6
    late, name = stage.reader(http, "GET", f"{path}?last_event_id=latest", None, [], Sight())
    assert late.head() == 200  # by a heartbeat
    assert stage.ask(http, "DELETE", path)[0] == 200
    for one in (late, reader):
        one.rest()
        assert not one.clean
    assert [event.mark for event in parse(bytes(late.body))] == [None]
    assert stage.line(name)["events"] == 0
