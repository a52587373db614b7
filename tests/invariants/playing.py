"""A schedule, played over real sockets, and the model that says what must have come of it.

A chain is one reader: its segments are its connections, each of which goes on behind the last id that the one before
had. What each segment has is compared, event by event, with what the provider says to whom asks it directly.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.invariants.plans import Back, Cancel, Cut, Join, Leave, Plan, Read, Stall
from tests.invariants.readers import Reader, Sight, together
from tests.invariants.scripts import SPOILED
from tests.invariants.stage import Stage
from tests.invariants.telling import Event, is_error, is_merge, parse, spoken

_AIMS = {
    "utf8": re.compile(rb"[\xc2-\xf4](?=[\x80-\xbf])"),
    "data": re.compile(rb"\bdat(?=a:)"),
    "crlf": re.compile(rb"\r(?=\n)"),
    "id": re.compile(rb"\nid: [^\n]{22,24}(?=[\d\n])"),
    "border": re.compile(rb"[^\r\n][\r\n]{1,2}(?=[\r\n])"),
}
# A chain that comes back more often than that makes no progress.
_ROUNDS = 60


@dataclass
class Segment:
    """`after`: the last event that it had before it began; None: whatever was the latest, `known` at the least. `kept`:
    what of the body was not lost with the connection. `left`: the reader went, not the relay."""

    reader: Reader
    name: str
    after: int | None
    mode: str
    known: int = 0
    kept: bytes | None = None
    left: bool = False
    line: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return bytes(self.reader.body) if self.kept is None else self.kept

    @property
    def is_stream(self) -> bool:
        return self.reader.status == 200


@dataclass
class Chain:
    segments: list[Segment]
    over: bool = False

    @property
    def last(self) -> Segment:
        return self.segments[-1]

    @property
    def place(self) -> int | None:
        """The last id that it has."""
        segment = self.last
        marks = [event.mark for event in parse(segment.body) if event.mark] if segment.is_stream else []
        return int(marks[-1].rpartition("-")[2]) if marks else segment.after


@dataclass
class Seen:
    """What the events of one segment say: the numbers from `start` to `end`, in `blocks` pieces, `dropped` of them
    named by gaps, in these `ranges`."""

    start: int | None
    end: int | None
    blocks: int = 0
    covered: int = 0
    dropped: int = 0
    error: Event | None = None
    events: list[Event] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)


class Play:
    """`tally` counts what happened, over many plays."""

    def __init__(self, stage: Stage, http: str, plan: Plan, tally: Counter[str]) -> None:
        self.stage = stage
        self.http = http
        self.plan = plan
        self.script = plan.script
        self.truth = stage.truth(plan.script)
        self.whole = self.truth.whole and plan.script.lie not in SPOILED
        self.tally = tally
        self.chains: list[Chain] = []
        self.stream_id = ""
        self.state: dict[str, Any] | None = None  # as a cancel has answered
        # A GET has no key, and is not repeated.
        self.repeats = plan.script.method == "POST"
        self.early = plan.early and self.repeats
        self.key = stage.name() if (plan.key or plan.early) and self.repeats else ""

    def run(self) -> None:
        self.tally["schedules"] += 1
        self.stage.reset()
        try:
            self._begin()
            if self.stream_id:
                for step in self.plan.steps:
                    self._do(step)
            self._finish()
            self._check()
        finally:
            for chain in self.chains:
                for segment in chain.segments:
                    if not segment.reader.over and not segment.reader.left:
                        segment.reader.leave("fin")
            self.stage.scatter()

    # What is done

    def _begin(self) -> None:
        if self.early:
            reader, name = self._ask([], self.plan.sight)
            reader.leave("fin")
            self.stage.line(name)
        reader, name = self._ask([], self.plan.sight, self.plan.overflow)
        segment = Segment(reader, name, 0, self._mode(self.plan.overflow, first=not self.early))
        self.chains.append(Chain([segment]))
        if reader.head() == 200:
            self.stream_id = reader.fields["relay-stream-id"]

    def _ask(self, fields: list[tuple[str, str]], sight: Sight, overflow: str = "") -> tuple[Reader, str]:
        script = self.script
        fields = [*fields, ("Relay-Resumable", "1"), ("Simulate", script.simulate)]
        if self.key:
            fields.append(("Idempotency-Key", self.key))
        if overflow:
            fields.append(("Relay-Overflow", overflow))
        if self.plan.on_disconnect:
            fields.append(("Relay-On-Disconnect", self.plan.on_disconnect))
        return self.stage.reader(self.http, script.method, script.path, script.document, fields, sight)

    def _return(self, after: int | None, back: Back) -> Segment:
        """Read the stream from there on."""
        mode = self._mode(back.overflow)
        bare = back.how.endswith("bare")
        position = "latest" if after is None else str(after) if bare else f"{self.stream_id}-{after}"
        # What was cancelled before it had an event is begun anew by its key: that is no resume.
        named = bool(after) or (after == 0 and bool(self.key) and self.plan.on_disconnect != "cancel")
        if back.how == "post" and self.repeats and named:
            fields = [("Last-Event-ID", f"{self.stream_id}-{after}")] if after else []
            return Segment(*self._ask(fields, back.sight, back.overflow), after, mode)
        target = f"/v1/streams/{self.stream_id}"
        fields = [("Relay-Overflow", back.overflow)] if back.overflow else []
        if after == 0 and bare:
            pass  # nothing was had yet, and nothing is said
        elif back.how.startswith("query"):
            target += f"?last_event_id={position}"
        else:
            # The header wins.
            target += "?last_event_id=0"
            fields.append(("Last-Event-ID", position))
        return Segment(*self.stage.reader(self.http, "GET", target, None, fields, back.sight), after, mode)

    def _mode(self, said: str, *, first: bool = False) -> str:
        """Each reader says so himself; and only who began a stream may hold it up."""
        if said and (said != "pause" or first):
            return said
        return "disconnect" if self.script.dialect == "opaque" else "merge"

    def _do(self, step: object) -> None:
        match step:
            case Read():
                self._chain(step.who).last.reader.read(step.amount)
            case Cut():
                self._cut(self._chain(step.who), step)
            case Leave():
                chain = self._chain(step.who)
                if not chain.over:
                    chain.last.reader.leave(step.leave) if not chain.last.reader.over else None
                    chain.last.left = chain.over = True
            case Join():
                known = max((chain.place or 0 for chain in self.chains), default=0)
                after = {"start": 0, "latest": None, "number": known * step.part // 100}[step.after]
                segment = self._return(after, step.back)
                segment.known = known
                self.chains.append(Chain([segment]))
            case Stall():
                self._stall(step.part)
            case Cancel():
                self._cancel(step.how)

    def _chain(self, who: int) -> Chain:
        return self.chains[who % len(self.chains)]

    def _cut(self, chain: Chain, step: Cut) -> None:
        segment = chain.last
        if chain.over:
            return
        before = len(segment.reader.body)
        segment.reader.read(step.amount)
        at = min(before + step.amount, len(segment.reader.body))
        found = self._aimed(segment.reader, step.aim, at)
        body = bytes(segment.reader.body)
        if found:
            at = found
            self.tally[f"cut {step.aim}"] += 1
        if segment.reader.status not in (0, 200):
            segment.reader.rest()
            return
        if not segment.reader.over:
            segment.reader.leave(step.leave)
        segment.kept, segment.left = body[:at], True
        chain.segments.append(self._return(chain.place, step.back))
        self.tally["cuts"] += 1

    def _aimed(self, reader: Reader, aim: str, at: int) -> int:
        """The next such place in the body, if it comes soon; 0 for none."""
        if aim not in _AIMS:
            return 0
        found = _AIMS[aim].search(reader.body, at)
        if found is None:
            reader.read(600)
            found = _AIMS[aim].search(reader.body, at)
        return found.end() if found else 0

    def _stall(self, part: int) -> None:
        """Nobody reads meanwhile, and the provider goes on all the same, unless somebody wants it to pause."""
        if self.state is not None:
            return
        goal = self.script.goal * part // 100
        held = any(segment.mode == "pause" and not segment.left for chain in self.chains for segment in chain.segments)
        if held or self.plan.on_disconnect == "cancel":
            # It may be cancelled as well, in a moment in which nobody read it.
            self.stage.wait(timeout=0.02, events=goal)
            return
        assert self.stage.wait(events=goal), f"the provider was held up: {self.stage.stats()}"
        if part == 100 and self.whole:
            # What it has said may still be on its way to the relay.
            self.stage.generation(self.stream_id)
        self.tally["stalls"] += 1

    def _cancel(self, how: str) -> None:
        target = f"/v1/streams/{self.stream_id}"
        asked = (how, target) if how == "DELETE" else ("POST", target + "/cancel")
        status, state = self.stage.ask(self.http, *asked)
        assert status == 200, state
        assert state["state"] in ("finished", "failed", "cancelled")
        assert self.state is None or _lasting(self.state) == _lasting(state), "a second cancel says something else"
        self.state = state
        self.tally["cancels"] += 1

    def _finish(self) -> None:
        """Everybody reads to the end; whom the relay cut off because he was behind comes back."""
        if not self.stream_id:
            self.chains[0].last.reader.rest()
            return
        if self.script.stalls or all(chain.over for chain in self.chains):
            self._cancel("DELETE")
        for _ in range(_ROUNDS):
            waiting = [chain for chain in self.chains if not chain.over]
            if not waiting:
                return
            together([chain.last.reader for chain in waiting], first=True)
            for chain in waiting:
                if chain.last.reader.over:
                    self._conclude(chain)
        raise AssertionError("a reader came back again and again")

    def _conclude(self, chain: Chain) -> None:
        segment = chain.last
        if segment.is_stream and not segment.reader.clean:
            segment.line = self.stage.line(segment.name)
            if segment.line["reason"] == "client_behind":
                self.tally["behind"] += 1
                assert segment.mode in ("merge", "disconnect")
                chain.segments.append(self._return(chain.place, Back()))
                return
        chain.over = True

    # What must hold

    def _check(self) -> None:
        stats = self.stage.still()
        # What failed with nothing that could be read may be tried again.
        void = bool(self.key) and self.script.lie != "none" and not self.script.place
        assert stats["requests"] == 1 or void, f"somebody paid twice: {stats}, {self.stage.requests()[-3:]}"
        if not self.stream_id:
            # Its key was in use as its head came, by what had failed as its body came: that is to be tried again.
            status = self.chains[0].last.reader.status
            assert status >= 500 or (self.early and status == 409), status
            assert not self.truth.events or self.script.lie in SPOILED
            return
        end = self._end()
        self._check_generation(end)
        for chain in self.chains:
            self._check_chain(chain, end)

    def _end(self) -> dict[str, Any]:
        """How the stream has ended: as whoever asks is told, and as the log has it."""
        path, accept = f"/v1/streams/{self.stream_id}", [("Accept", "application/json")]
        status, state = self.stage.ask(self.http, "GET", path, accept)
        assert status == 200, state
        if state["tail"]:
            line = self.stage.generation(self.stream_id)
            assert (line["generation"], line["events"]) == (state["state"], state["tail"])
        return {"generation": state["state"], "events": state["tail"]}

    def _check_generation(self, end: dict[str, Any]) -> None:
        state, count = end["generation"], end["events"]
        assert count <= len(self.truth.events)
        if state == "finished":
            assert self.whole
            assert count == len(self.truth.events)
        else:
            willing = self.state is not None or self.plan.on_disconnect == "cancel"
            assert willing or not self.whole, f"a whole stream is {state}"
        if self.state is not None:
            assert (self.state["state"], self.state["tail"]) == (state, count)
            if state == "cancelled":
                self.tally["cancelled"] += 1

    def _check_chain(self, chain: Chain, end: dict[str, Any]) -> None:
        count, finished = end["events"], end["generation"] == "finished"
        place = chain.segments[0].after
        begin = place
        parts: list[Event] = []
        gaps: list[tuple[int, int]] = []
        for segment in chain.segments:
            assert segment.after == place, "it did not go on where it was"
            if not segment.reader.status:
                assert segment.left
                continue  # lost before it was answered; perhaps before it was heard
            line = segment.line or self.stage.line(segment.name)
            if not segment.is_stream:
                assert segment is chain.last
                self._check_refusal(segment, end)
                continue
            seen = self._read(segment)
            self._check_counts(segment, seen, line, count)
            if begin is None:
                begin = seen.start
            parts += seen.events
            gaps += seen.gaps
            place = seen.end
        # 2: what it has is 1..n, or begins where it joined.
        assert place is None or place <= count
        if begin is not None and place is not None:
            own = [e for n, e in enumerate(self.truth.events[begin:place], begin + 1) if not _within(n, gaps)]
            # 1: nothing is missing, nothing there twice.
            assert spoken(self.script.dialect, parts) == spoken(self.script.dialect, own)
        last = chain.last
        if last.left or not last.is_stream:
            return
        # 6: a clean end if and only if the terminal event was sent, and behind all others.
        assert last.reader.clean == finished
        assert place in (count, None), f"it ended at {place} of {count}"
        if finished:
            assert (begin, parts) == (None, []) or place == len(self.truth.events)
            if begin == 0 and not gaps:
                assert spoken(self.script.dialect, parts) == self.truth.texts

    def _check_refusal(self, segment: Segment, end: dict[str, Any]) -> None:
        """Nothing was left to be read."""
        reader, count = segment.reader, end["events"]
        assert segment.left or reader.over
        assert segment.after in (count, None), f"{reader.status} at {segment.after} of {count}"
        if not count and reader.status in (204, 404, 410):
            return  # nothing was ever there
        if reader.status == 204:
            assert end["generation"] == "finished"
            assert not reader.body
            self.tally["nothing left"] += 1
        else:
            # Of a stream that failed while he waited, a provider's own kind of failure.
            assert reader.status in (410, 502, 504)
            assert end["generation"] != "finished"
            self.tally["told why"] += 1

    def _read(self, segment: Segment) -> Seen:
        """The events of a segment, each against those that it stands for."""
        dialect, truth = self.script.dialect, self.truth.events
        events = parse(segment.body)
        seen = Seen(segment.after, segment.after)
        place = segment.after  # announced gaps included
        gaps: list[tuple[int, int]] = []
        for number, event in enumerate(events):
            assert seen.error is None, f"an event behind the error: {event}"
            if event.mark is None and event.name == "relay.gap":
                assert segment.mode == "drop"
                first, last = _gap(event)
                if place is None:
                    place = seen.start = seen.end = first - 1
                assert place + 1 == first <= last
                gaps.append((first, last))
                place = last
                continue
            if event.mark is None:
                assert number == len(events) - 1
                assert is_error(dialect, event), event
                seen.error = event
                continue
            stream, _, digits = event.mark.rpartition("-")
            assert stream == self.stream_id
            to = int(digits)
            assert to <= len(truth)
            if place is None:
                place = seen.start = seen.end = self._joined_at(event, to)
            assert to > place, f"{to} behind {place}"
            if to == place + 1:
                own = truth[to - 1]
                assert (event.name, event.data) == (own.name, own.data)
            else:
                assert segment.mode == "merge", f"from {place} to {to}"
                assert is_merge(dialect, truth[place:to], event), f"{truth[place:to]} are not {event}"
            seen.blocks += 1
            seen.covered += to - place
            seen.dropped += sum(last - first + 1 for first, last in gaps)
            seen.gaps += gaps
            gaps = []
            seen.events.append(event)
            seen.end = place = to
        return seen

    def _joined_at(self, event: Event, to: int) -> int:
        """Where somebody was who asked for the latest: the first that he gets may stand for several."""
        own = self.truth.events
        if (event.name, event.data) == (own[to - 1].name, own[to - 1].data):
            return to - 1
        for start in range(to - 2, -1, -1):
            if is_merge(self.script.dialect, own[start:to], event):
                return start
        raise AssertionError(f"{event} is none of the provider's")

    def _check_counts(self, segment: Segment, seen: Seen, line: dict[str, Any], count: int) -> None:
        """3: what the relay says that it has sent, merged and dropped, and what the reader has of it."""
        sent, merged, dropped = line["events"], line["merged"], line["dropped"]
        ended = not segment.left and line["reason"] != "client_behind"
        self.tally["merged"] += merged
        self.tally["dropped"] += dropped
        assert min(sent, merged, dropped) >= 0
        if ended:
            assert (sent, merged, dropped) == (seen.covered, seen.covered - seen.blocks, seen.dropped)
        else:
            assert seen.covered <= sent
            assert seen.covered - seen.blocks <= merged
            assert seen.dropped <= dropped
        start = seen.start
        if start is not None:
            assert segment.after is not None or start >= segment.known, "he asked for the latest"
            undelivered = count - start - sent - dropped
            assert undelivered >= 0
            assert not ended or undelivered == 0
        if not ended:
            return
        # An error of the relay's own says why, unless the provider has said so itself.
        failed = not segment.reader.clean and self.script.dialect != "opaque"
        own = bool(count) and self._provider_said(self.truth.events[count - 1])
        assert (seen.error is not None) == (failed and not own), (seen.error, line)

    def _provider_said(self, event: Event) -> bool:
        kind = self.script.dialect
        return is_error(kind, event) if kind != "messages" else event.name == "error"


def _lasting(state: dict[str, Any]) -> tuple[object, ...]:
    return state["state"], state["tail"], state["error"]


def _gap(event: Event) -> tuple[int, int]:
    said = json.loads(event.data)
    return said["first"], said["last"]


def _within(number: int, gaps: list[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in gaps)
