"""A reader of a log against a model: whatever happens in whatever order, what it was given is the stream, in order, and
everything else can be accounted for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import orjson
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.core.follower import AT_ONCE, Flush, Follower
from relay.errors import RelayError
from relay.flow.overflow import ANSWER, DRAIN_BYTES, Lag, Mode
from relay.wire.delta import MERGED_LIMIT
from tests.core.fakes import DONE, FINISH, ROLE, Socket, Told, delta, number_of

BYTES, EVENTS = 60_000, 50
LAST = b'data: {"error":{"message":"m"}}\n\n'
FLUSHES = [
    AT_ONCE,
    Flush.of(4, 0.02),
    Flush.of(0, 0.05),
    Flush.of(3, 0.0),
    Flush.of(1, 0.0, 0.02),
    Flush.of(1, 0.0, 0.3),
]
_GAP = re.compile(rb'event: relay\.gap\ndata: \{"first":(\d+),"last":(\d+)\}\n\n')
_EPSILON = 1e-9


def text_of(event: bytes) -> str | None:
    """What a text delta adds, None for anything else."""
    if not event.startswith(b"data: {"):
        return None
    choice = orjson.loads(event[6:])["choices"][0]
    text = choice["delta"].get("content")
    return text if "role" not in choice["delta"] and isinstance(text, str) else None


@dataclass
class Heard:
    """What a body says, held against the events that there were. `last`: the last that it has, or left out."""

    events: list[bytes]
    last: int
    numbered: bool
    merged: int = 0
    dropped: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def hear(self, body: bytes) -> None:
        assert body == b"" or body.endswith(b"\n\n"), "an event cut in half"
        for block in body.split(b"\n\n")[:-1]:
            self._block(block + b"\n\n")

    def _block(self, block: bytes) -> None:
        gap = _GAP.fullmatch(block)
        if gap is not None:
            first, last = int(gap[1]), int(gap[2])
            assert first == self.last + 1 <= last
            self.gaps.append((first, last))
            self.dropped += last - self.last
            self.last = last
            return
        number, block = number_of(block)
        assert (number is not None) == self.numbered
        if block == self.events[self.last]:
            self.last += 1
        else:
            self._merged(block)
        assert number is None or number == self.last, "an id that is not its last member's"

    def _merged(self, block: bytes) -> None:
        assert len(block) <= MERGED_LIMIT
        wanted, found = text_of(block), ""
        assert wanted is not None, "neither an event nor merged of some"
        members = 0
        while len(found) < len(wanted):
            text = text_of(self.events[self.last])
            assert text is not None, "merged over a barrier"
            found += text
            self.last += 1
            members += 1
        assert found == wanted
        self.merged += members - 1


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self.came: list[float] = []
        self.number = 0
        self.heard_pieces = 0
        self.attached = self.gone = False
        self.end = ""
        self.said_last = False
        self.failures: list[RelayError] = []
        self.opened_at = -math.inf

    @initialize(
        mode=st.sampled_from(Mode),
        flush=st.sampled_from(FLUSHES),
        keeps=st.booleans(),
        before=st.integers(0, 90),
        start=st.integers(0, 90),
        at_once=st.booleans(),
        late=st.sampled_from([False, False, False, True]),
    )
    def begin(self, mode: Mode, flush: Flush, keeps: bool, before: int, start: int, at_once: bool, late: bool) -> None:
        self.mode, self.flush = mode, flush
        self.fanout = Told(keeps=keeps)
        self.cut_at_once = at_once
        if keeps:
            self._feed([ROLE][:before] + [self._delta(3) for _ in range(before - 1)])
        self.start = min(start, len(self.events)) if keeps else 0
        self.joined = len(self.events)
        self.reader = Follower(self.fanout, self.start, Lag(mode, BYTES, EVENTS), self._failed, flush)
        self.socket = Socket(self.reader)
        self.heard = Heard(self.events, self.start, keeps)
        if not late:
            self.attach(blocked=False, room=None)
            self._feed([self._delta(1)])

    def _failed(self, error: RelayError) -> None:
        self.failures.append(error)
        if self.cut_at_once:
            self._leave()

    def _leave(self) -> None:
        self.reader.detach()
        self.gone = True

    def _delta(self, size: int) -> bytes:
        self.number += 1
        return delta(f"{self.number}." + "x" * size)

    def _feed(self, events: list[bytes]) -> None:
        self.events += events
        self.came += [self.fanout.beat.time] * len(events)
        if events:
            self.fanout.feed(b"".join(events))

    # What happens

    @precondition(lambda self: not self.end)
    @rule(kinds=st.lists(st.sampled_from("ttttTrf"), min_size=1, max_size=8))
    def feed(self, kinds: list[str]) -> None:
        other = {"r": ROLE, "f": FINISH}
        self._feed([other[kind] if kind in other else self._delta(5000 if kind == "T" else 5) for kind in kinds])

    @precondition(lambda self: not self.end)
    @rule(size=st.sampled_from([20_000, 90_000]), number=st.integers(1, 4))
    def feed_much(self, size: int, number: int) -> None:
        for _ in range(number):
            self._feed([self._delta(size)])

    @precondition(lambda self: not self.end)
    @rule(number=st.integers(10, 60))
    def feed_many(self, number: int) -> None:
        self._feed([self._delta(800) for _ in range(number)])

    @precondition(lambda self: not self.attached and not self.gone)
    @rule(blocked=st.booleans(), room=st.none() | st.integers(1, 3))
    def attach(self, blocked: bool, room: int | None) -> None:
        self.attached = True
        self.opened_at = self.fanout.beat.time
        self.socket.blocked, self.socket.room = blocked, room
        self.reader.attach(self.socket, blocked=blocked)

    @precondition(lambda self: self.attached and not self.gone and not self.socket.blocked and not self.socket.ends)
    @rule()
    def block(self) -> None:
        self.socket.blocks()

    @precondition(lambda self: self.attached and not self.gone and self.socket.blocked)
    @rule(room=st.none() | st.integers(1, 3))
    def unblock(self, room: int | None) -> None:
        self.opened_at = self.fanout.beat.time
        self.socket.opens(room)

    @precondition(lambda self: self.attached and not self.gone and not self.socket.blocked)
    @rule(room=st.integers(1, 4))
    def fill_soon(self, room: int) -> None:
        self.socket.room = room

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.05, 0.4]), late=st.sampled_from([0.0, 0.002, 0.03]))
    def pass_time(self, seconds: float, late: float) -> None:
        self.fanout.move(seconds, late)

    @rule()
    def turn(self) -> None:
        self.fanout.beat.turn()

    @precondition(lambda self: not self.end)
    @rule(last=st.booleans(), how=st.sampled_from(["finish", "finish", "abort"]))
    def close(self, last: bool, how: str) -> None:
        if last:
            self._feed([DONE])
        if not self.gone:
            self.end = how
            if how == "finish":
                self.reader.finish()
            else:
                self.reader.abort(LAST)

    @precondition(lambda self: self.failures or self.number > 30)
    @rule()
    def leave(self) -> None:
        if not self.socket.ends:
            self._leave()

    # What must hold

    @property
    def prompt(self) -> bool:
        """Whether every event that it cannot be given is looked at as it comes."""
        return self.flush.at_once and self.start == self.joined

    @property
    def free(self) -> bool:
        """Whether nothing but its own rules keep the reader from what there is."""
        return self.attached and not self.gone and not self.socket.blocked and not self.fanout.beat.soons

    @invariant()
    def what_the_sink_has(self) -> None:
        heard, reader = self.heard, self.reader
        body = b"".join(self.socket.pieces[self.heard_pieces :])
        self.heard_pieces = len(self.socket.pieces)
        if self.end == "abort":
            assert not self.said_last or body == b"", "something behind what was last"
            self.said_last |= body.endswith(LAST)
            assert self.said_last or not self.socket.ends
            body = body.removesuffix(LAST)
        heard.hear(body)
        assert reader.merged == heard.merged
        unsaid = reader.dropped - heard.dropped
        assert reader.place - heard.last == unsaid >= 0
        assert reader.delivered == heard.last - self.start - heard.dropped
        tail = len(self.events) if not self.gone else reader.place
        assert reader.delivered + reader.dropped + (tail - reader.place) == tail - self.start
        if self.mode is not Mode.DROP:
            assert not reader.dropped
        if self.mode is not Mode.MERGE:
            assert not reader.merged
        if not self.gone:
            assert reader.waiting == sum(map(len, self.events[reader.place :]))
            left_out = [*heard.gaps, (heard.last + 1, reader.place)]
            size = sum(len(event) for first, last in left_out for event in self.events[first - 1 : last])
            assert reader.given == sum(map(len, self.events[self.start : reader.place])) - size

    @invariant()
    def who_holds_the_producer(self) -> None:
        reader, paused = self.reader, self.fanout.producer.paused
        lacks = len(self.events) - reader.place
        if paused and self.fanout.beat.soons:
            return  # it is let go in the next turn
        if paused:
            assert self.mode is Mode.PAUSE
            assert not self.gone
            assert ANSWER.exceeds(reader.waiting, lacks, held=True)
        elif self.mode is Mode.PAUSE and self.prompt and not self.gone:
            assert not ANSWER.exceeds(reader.waiting, lacks, held=False)

    @invariant()
    def how_far_it_lags(self) -> None:
        assert len(self.failures) <= 1
        if self.mode in (Mode.PAUSE, Mode.DROP):
            assert not self.failures
        elif not self.failures and self.prompt and not self.gone and not self.free:
            lacks = len(self.events) - self.reader.place
            assert self.fanout.beat.soons or (self.reader.waiting <= BYTES and lacks <= EVENTS)
        if self.mode is Mode.DROP and self.prompt and not self.gone and not self.free:
            assert self.reader.waiting <= ANSWER.high or self.fanout.beat.soons

    @invariant()
    def what_is_held_back(self) -> None:
        if not self.free:
            return
        held = self.came[self.reader.place :]
        if not held:
            return
        assert not self.flush.at_once
        assert held[0] >= self.opened_at, "what came before the sink was free leaves at once"
        bound = self.flush.smooth or self.flush.after
        # The test's own lateness, at most.
        assert self.fanout.beat.time <= held[0] + bound + 0.03 + _EPSILON
        assert self.flush.smooth or len(held) < self.flush.events
        assert self.reader.waiting - len(self.events[-1]) <= DRAIN_BYTES
        before = self.events[: self.reader.place]
        assert any(map(text_of, before[self.start :] if self.start else before)), "held back before the first content"
        assert self.events[-1] != DONE
        assert not self.end

    @invariant()
    def how_it_ends(self) -> None:
        assert self.socket.ends in ([], [self.end])
        if self.socket.ends:
            assert self.reader.place == len(self.events)
        elif self.end and self.free:
            raise AssertionError("everything has been taken, and no end came")

    def teardown(self) -> None:
        if not hasattr(self, "reader"):
            return
        self.socket.room = None
        if not self.gone:
            if not self.end and not self.failures:
                self._feed([DONE])
            if not self.attached:
                self.attach(blocked=False, room=None)
            elif self.socket.blocked:
                self.unblock(room=None)
            self.fanout.settle()
            if not self.end and not self.gone:
                self.end = "finish"
                self.reader.finish()
        if not self.gone:
            self.what_the_sink_has()
            assert self.socket.ends == [self.end]
            assert self.heard.last == len(self.events)
        self.fanout.settle()
        assert not self.fanout.producer.gate.closed
        if not self.fanout.keeps:
            assert not self.fanout.log.kept


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
    report_multiple_bugs=False,
)
