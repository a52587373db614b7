"""One reader of a generation's log: live while the socket takes everything, at a place in the log when not.

        Fanout -> reader.out.send,  out  is  the sink       he has everything so far
                                         is  the reader     `_way` says which:
                                                            _hold       the sink is blocked; what he lacks is in the log
                                                            _gather     he asked for fewer, larger writes
                                                            _spread     he asked for even ones

A reader who lags costs his place in the log, a number. Who comes late begins at such a place; the way from there to
the present is the same, so that no event is lost or repeated between replay and live.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relay.core.fanout import WRITE_BYTES, Fanout
from relay.core.reader import NOBODY, Reader
from relay.errors import ClientBehind, RelayError
from relay.flow.overflow import ANSWER, MOST_EVENTS_HELD, Lag, Mode, Verdict
from relay.flow.smooth import Smoother
from relay.wire import delta

# A reader with much to catch up on lets others have their turn after so much (bytes).
_TURN = 256 * 1024
_LIVE = -1
# How fine the age of waiting events is known (seconds).
_MARK_EVERY = 1.0
# A method of its own, in its own slot, would keep it and its log until the collector comes.
_NOWHERE = NOBODY.send


@dataclass(frozen=True, slots=True)
class Flush:
    """When waiting events leave: `events` of them, or `after` seconds behind the first. `smooth`: spread evenly
    instead, over so many seconds; 0 for not."""

    events: int = 1
    after: float = 0.0
    smooth: float = 0.0

    @classmethod
    def of(cls, events: int, after: float, smooth: float = 0.0) -> Flush:
        """From what somebody has said, 0 for what he has not: where only a time is said, any number may leave; where
        only a number is, they wait for a tenth of a second at the most."""
        if after:
            return cls(events if events > 1 else MOST_EVENTS_HELD, after, smooth)
        return cls(events, 0.1, smooth) if events > 1 else cls(smooth=smooth)

    @property
    def at_once(self) -> bool:
        return self.events <= 1 and not self.smooth


AT_ONCE = Flush()


class Follower(Reader):
    """`after`: the last event that the reader has. `failed` is called, at most once, when it cannot go on. `merged`
    and `dropped` count events that it got inside another, or not at all."""

    __slots__ = (
        "_armed",
        "_began",
        "_cursor",
        "_distance",
        "_failed",
        "_fanout",
        "_flush",
        "_gap",
        "_held_since",
        "_horizon",
        "_joined",
        "_lag",
        "_last",
        "_late",
        "_marks",
        "_passed",
        "_smoother",
        "_start",
        "_stopped",
        "_turn_due",
        "_warm",
        "_way",
        "dropped",
        "merged",
    )

    def __init__(
        self,
        fanout: Fanout,
        after: int,
        lag: Lag,
        failed: Callable[[RelayError], None],
        flush: Flush = AT_ONCE,
    ) -> None:
        super().__init__(ANSWER, fanout.gate)
        self.stall = lag.stall
        self._fanout = fanout
        self._lag = lag
        self._flush = flush
        self._smoother = Smoother(flush.smooth) if flush.smooth else None
        self._failed: Callable[[RelayError], None] | None = failed
        self._start = self._cursor = after
        self._began = self._passed = fanout.log.position(after)
        # Up to here it replays, and is not yet late.
        self._joined = self._horizon = fanout.log.tail
        self._distance = self._horizon - after
        self._marks: tuple[tuple[int, float], ...] = ()  # none while it is live, and where its age does not matter
        self._gap = 0
        self._held_since = 0.0
        self._last = b""
        self._stopped = True
        self._way: Callable[[bytes], None] = self._hold
        self._late = self._warm = self._armed = self._turn_due = False
        self.merged = 0
        self.dropped = 0
        fanout.join(self)

    # What is known of it

    @property
    def place(self) -> int:
        """The last event that it needs no more."""
        return self._fanout.log.tail if self._cursor == _LIVE else self._cursor

    @property
    def delivered(self) -> int:
        """Events that were given to its socket, each for itself or inside another."""
        return self.place - self._start - self.dropped

    @property
    def lags(self) -> bool:
        """Whether it is owed something: events, or the word that some were dropped."""
        return self._cursor != _LIVE and (self._cursor < self._fanout.log.tail or bool(self._gap))

    @property
    def waiting(self) -> int:
        return self._fanout.log.total - self._passed if self.lags else 0

    @property
    def blocked(self) -> bool:
        return self._stopped

    @property
    def given(self) -> int:
        """Bytes of the stream that were given to its socket."""
        log = self._fanout.log
        return (log.total if self._cursor == _LIVE else self._passed) - self._began

    def late_at(self, now: float) -> float:
        """When, by the clock, its oldest missing event will have waited too long, at the earliest; 0 for never. (Known
        to a second.)"""
        age = self._lag.age_limit
        if age and self.lags and self._cursor < self._horizon:
            return now + age  # it replays
        return (self._marks[0][1] if self.lags and self._marks else now) + age if age else 0.0

    # The sink's side

    def block(self) -> None:
        self._stopped = self._late = True
        if not self.gone:
            self._way, self.out = self._hold, self

    def unblock(self) -> None:
        self._stopped = False
        if self._sink is not None:
            self._pump()

    def detach(self) -> None:
        self._passed, self._cursor = self.given + self._began, self.place
        self._marks = ()
        self._failed = None
        self._let_go()
        self._way = _NOWHERE
        super().detach()
        self._fanout.leave(self)

    # The producer's side, where it is not the sink's

    def send(self, piece: bytes) -> None:
        self._way(piece)

    def _hold(self, piece: bytes) -> None:
        """It cannot have the latest yet."""
        self._miss()
        now = self._fanout.clock.now
        marks = self._marks
        if self._lag.age_limit and (not marks or now - marks[-1][1] >= _MARK_EVERY):
            self._marks = (*marks, (self._fanout.log.tail, now))
        self._judge()

    def _open(self, piece: bytes) -> None:
        """Nothing is held back before the first content."""
        assert self._sink is not None
        if self._fanout.has_content(self._fanout.latest):
            self._warm = True
            self._way = self._paced
        self._sink.send(piece)

    def _gather(self, piece: bytes) -> None:
        """The latest leaves with others."""
        fanout = self._fanout
        if self._cursor == _LIVE:
            self._held_since = fanout.pulse.now()
        self._miss()
        if fanout.log.tail - self._cursor >= self._flush.events or fanout.is_terminal or self._is_full:
            self._pump()
        elif not self._armed:
            self._armed = True
            fanout.pulse.at(self._held_since + self._flush.after, self._flush_due)

    def _flush_due(self) -> None:
        self._armed = False
        if self._sink is None or self._stopped or not self.lags:
            return
        pulse, due = self._fanout.pulse, self._held_since + self._flush.after
        if pulse.now() < due:
            # Those for whom it was called have left by their number.
            self._armed = True
            pulse.at(due, self._flush_due)
        else:
            self._pump()

    def _spread(self, piece: bytes) -> None:
        """The latest leaves at its time."""
        smoother, fanout = self._smoother, self._fanout
        assert smoother is not None
        self._miss()
        smoother.arrive(fanout.pulse.now(), fanout.log.tail - fanout.before)
        if fanout.is_terminal or self._is_full:
            self._pump()
        elif not self._armed:
            self._release()

    def _release(self) -> None:
        smoother, pulse = self._smoother, self._fanout.pulse
        assert smoother is not None
        self._armed = False
        if self._sink is None or self._stopped:
            return
        leaving = smoother.release(pulse.now())
        if leaving or not smoother.waiting:
            self._pump(leaving)
        if self.lags and not self._stopped:
            self._armed = True
            pulse.at(smoother.next_at, self._release)

    @property
    def _is_full(self) -> bool:
        """Whether more is held back than one write gives."""
        return self._fanout.log.total - self._passed >= WRITE_BYTES

    @property
    def _paced(self) -> Callable[[bytes], None]:
        return self._gather if self._smoother is None else self._spread

    def _miss(self) -> None:
        if self._cursor == _LIVE:
            self._cursor = self._fanout.before
            self._passed = self._fanout.log.position(self._cursor)

    # How far it lags

    def _judge(self) -> None:
        if self._is_replaying() and not self._holding:
            return
        log = self._fanout.log
        verdict = self._lag.verdict(log.total - self._passed, log.tail - self._cursor, self._holding)
        if verdict is Verdict.PAUSE:
            self._holding = True
            self._gate.hold()
        elif verdict is Verdict.RESUME:
            self._let_go()
        elif verdict is Verdict.DROP:
            if self._cursor + 1 < log.oldest:
                self._skip(log.oldest - 1)
                self._judge()
                return
            surplus = log.read(self._cursor, log.total - self._passed - ANSWER.low)
            # The latest is what counts; and it may be the terminal one.
            self._skip(min(self._cursor + len(surplus), log.tail - 1))
        elif verdict is Verdict.END:
            self._fail()

    def _let_go(self) -> None:
        """The producer may go on: not from here, where its last events may still be on their way to other readers."""
        if self._holding:
            self._holding = False
            self._fanout.pulse.soon(self._gate.release)

    def _is_replaying(self) -> bool:
        """Whether it is still on its way from the past, and gains on the present."""
        if self._cursor < self._horizon:
            return True
        distance = self._fanout.log.tail - self._cursor
        if distance >= self._distance:
            self._distance = 0
            return False
        self._distance = distance
        self._horizon = self._fanout.log.tail
        self._marks = ()
        return True

    def _skip(self, to: int) -> None:
        """Leave out the events up to number `to`, visibly."""
        if to <= self._cursor:
            return
        self._gap = self._gap or self._cursor + 1
        self.dropped += to - self._cursor
        before = self._passed
        self._move(to)
        self._began += self._passed - before  # those bytes are not given

    def _move(self, to: int) -> None:
        self._cursor = to
        self._passed = self._fanout.log.position(to)
        marks = self._marks
        if marks and marks[0][0] <= to:
            passed = next((index for index, (seq, _) in enumerate(marks) if seq > to), len(marks))
            # Of events that came within a second, the first has the mark of all.
            last = ((self._fanout.log.tail, marks[-1][1]),) if self.lags else ()
            self._marks = marks[passed:] or last

    def _fail(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(ClientBehind("the reader fell too far behind the stream"))

    # The way to the present

    def _pump(self, most: int = 0) -> None:
        """Give the sink what the reader lacks, or so many events of it, until it blocks or others want their turn."""
        sink = self._sink
        turn, left = _TURN, most
        while self.lags and not self._stopped and turn > 0:
            if sink is None or not self._is_kept():
                return
            at, passed = self._cursor, self._passed
            piece = self._take(left if most else 0)
            turn -= max(len(piece), self._passed - passed)
            left -= self._cursor - at
            sink.send(piece)
            if self._sink is not sink:
                return
            if most and left <= 0:
                break
        self._fanout.tidy()
        if self._holding:
            self._judge()
        if self._stopped:
            return
        if not self.lags:
            self._go_live()
        elif not most and not self._turn_due:
            self._turn_due = True
            self._fanout.pulse.soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_due = False
        if self._sink is not None and not self._stopped:
            self._pump()

    def _is_kept(self) -> bool:
        """Whether the log still has what it lacks."""
        oldest = self._fanout.log.oldest
        if self._cursor + 1 >= oldest:
            return True
        if self._lag.mode is Mode.DROP:
            self._skip(oldest - 1)
            return True
        self._fail()
        return False

    def _take(self, most: int) -> bytes:
        """The next bytes for the sink."""
        fanout = self._fanout
        if self._gap:
            first, self._gap = self._gap, 0
            return b'event: relay.gap\ndata: {"first":%d,"last":%d}\n\n' % (first, self._cursor)
        after = self._cursor
        events = fanout.log.read(after, WRITE_BYTES)
        if most:
            events = events[:most]
        if not self._warm:
            self._warm = self._flush.at_once or fanout.has_content(events)
        read = fanout.read_delta
        if read is not None and self._lag.mode is Mode.MERGE and self._late and after >= self._joined:
            return self._merge(read, events)
        self._move(after + len(events))
        return fanout.framed(events, after)

    def _merge(self, read: delta.Read, events: list[bytes]) -> bytes:
        """These and as many more as make one write worth while."""
        fanout, log, seq = self._fanout, self._fanout.log, self._cursor
        pieces: list[bytes] = []
        size = 0
        while events:
            for event, members in delta.merge(read, events):
                seq += members
                self.merged += members - 1
                pieces.append(fanout.mark(event, seq))
                size += len(event)
            # As many as are looked at in one turn, at the most.
            enough = size >= WRITE_BYTES // 2 or log.position(seq) - self._passed >= _TURN
            events = [] if enough else log.read(seq, WRITE_BYTES)
        self._move(seq)
        return b"".join(pieces)

    def _go_live(self) -> None:
        assert self._sink is not None
        self._cursor = _LIVE
        self._distance = 0
        self._late = False
        self._marks = ()
        if self._smoother is not None:
            self._smoother.clear()
        if self._flush.at_once:
            self._way, self.out = _NOWHERE, self._sink
        else:
            self._way, self.out = (self._paced if self._warm else self._open), self
        if self._closing is not None:
            closing, self._closing = self._closing, None
            closing()

    # The end

    def abort(self, last: bytes = b"") -> None:
        """No event follows, and the answer is not whole; `last` says so before it is broken off."""
        self._last = last
        super().abort()

    def _close(self, closing: Callable[[], None]) -> None:
        if self.lags or self._stopped:
            self._closing = closing
            if not self._stopped:
                self._pump()
        else:
            closing()

    def _abort(self) -> None:
        last, self._last = self._last, b""
        if self._sink is not None and last:
            self._sink.send(last)
            if self._stopped and not self.gone:
                self._closing = super()._abort
                return
        super()._abort()
