"""The same for streams that are not resumable: one reader, no ids, and the same text."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from tests.invariants.plans import Leave, Plan, Read, Stall
from tests.invariants.scripts import SPOILED
from tests.invariants.stage import Stage
from tests.invariants.telling import Event, is_error, is_merge, is_prefix, parse, spoken, without_beats
from tests.programs import PATIENCE


@dataclass
class Had:
    """How far a reader has come, and how: events, pieces that they came in, and those that he was told he has not."""

    place: int = 0
    blocks: int = 0
    dropped: int = 0
    error: bool = False


def play_plain(stage: Stage, http: str, plan: Plan, tally: Counter[str]) -> None:
    """`plan.overflow` "" is a transparent stream, whose bytes are the provider's."""
    script, truth = plan.script, stage.truth(plan.script)
    whole = truth.whole and script.lie not in SPOILED
    tally["schedules"] += 1
    stage.reset()
    fields = [("Simulate", script.simulate)]
    if plan.overflow:
        fields.append(("Relay-Overflow", plan.overflow))
    reader, name = stage.reader(http, script.method, script.path, script.document, fields, plan.sight)
    try:
        reader.head()
        paused = plan.overflow in ("", "pause")
        for step in plan.steps:
            match step:
                case Read():
                    reader.read(step.amount)
                case Stall():
                    arrived = stage.wait(0.02 if paused else PATIENCE - 1, events=script.goal * step.part // 100)
                    assert arrived or paused, "the provider was held up"
                case Leave() if not reader.over:
                    reader.leave(step.leave)
        if script.stalls and not reader.left:
            stage.wait(events=script.goal)
            reader.read(10**9)
            reader.leave("fin")
        if not reader.left:
            reader.rest()
    finally:
        if not reader.over and not reader.left:
            reader.leave("fin")
        stage.scatter()
    line = stage.line(name)
    stats = stage.still()
    assert stats["requests"] == 1
    if reader.status != 200:
        # Its first event never came.
        assert reader.status >= 500
        assert not truth.events or script.lie in SPOILED
        return
    body = without_beats(bytes(reader.body))
    events = parse(body)
    if not line.get("merged") and not line.get("dropped") and script.pace[:4] not in ("gzip", "enco"):
        # Of a stream that is cut, the relay may add an error behind the last whole event.
        said = body if reader.clean else _less_error(script.dialect, body, events)
        assert truth.body.startswith(said) or script.lie in ("half-event", "bad-utf8", "after-end")
    had = _match(plan, truth.events, events)
    kept = events[:-1] if had.error else events
    if "drop" not in plan.overflow:
        assert is_prefix(spoken(script.dialect, kept), truth.texts)
    if reader.left:
        tally["left"] += 1
        return
    if reader.clean:
        assert whole
        assert had.place == len(truth.events)
        if not had.dropped:
            assert spoken(script.dialect, kept) == truth.texts
        assert line["reason"] == "finished"
    elif line["reason"] != "client_behind":
        assert not whole, line
        assert had.error or script.dialect == "opaque" or is_error(script.dialect, truth.events[had.place - 1])
        tally["broken"] += 1
    else:
        tally["behind"] += 1
        return
    if "merged" in line:
        sent, merged, dropped = line["events"], line["merged"], line["dropped"]
        # Of a stream without ids, the provider's comments and an unfinished rest are pieces too.
        others = sent - (had.place - had.dropped)
        assert others == 0 or (others > 0 and ("ping" in script.content or script.lie in ("half-event", "bad-utf8")))
        assert (merged, dropped) == (had.place - had.dropped - had.blocks, had.dropped)
        tally["merged"] += line["merged"]
        tally["dropped"] += line["dropped"]


def _less_error(dialect: str, body: bytes, events: list[Event]) -> bytes:
    if not events or not is_error(dialect, events[-1]):
        return body
    at = body.rfind(b"event: " if events[-1].name != "message" else b"data: ")
    return body[:at]


def _match(plan: Plan, truth: list[Event], events: list[Event]) -> Had:
    """Without ids: each event is the next of the provider's, or stands for the next few of them."""
    had, dialect = Had(), plan.script.dialect
    for number, event in enumerate(events):
        own = truth[had.place] if had.place < len(truth) else None
        if event.name == "relay.gap":
            assert plan.overflow == "drop"
            said = json.loads(event.data)
            assert said["first"] == had.place + 1
            had.dropped += said["last"] - had.place
            had.place = said["last"]
        elif own is not None and (event.name, event.data) == (own.name, own.data):
            had.place += 1
            had.blocks += 1
        elif number == len(events) - 1 and is_error(dialect, event):
            had.error = True
        else:
            assert plan.overflow == "merge", f"{event} instead of {own}"
            ends = range(had.place + 2, len(truth) + 1)
            found = next((end for end in ends if is_merge(dialect, truth[had.place : end], event)), None)
            assert found, f"{event} is none of the provider's"
            had.place = found
            had.blocks += 1
    return had
