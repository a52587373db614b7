"""One generation's events, to all who read them: numbered, kept, and handed to each reader at his own pace.

        LoggedStream -> Fanout -> log, and for each reader, his `out`:   the sink       he has everything so far
                                                                         the reader     he lags; the log has it

It stands behind a Stream in the place of its one reader. The id of an event is its stream's and its number, and stands
in its last line: @microsoft/fetch-event-source takes an id for had when it has read the line, and cut between an id and
its data it would never ask for that event again. (To all others the order of lines means nothing.) A provider's own ids
are taken out, because of two ids in one event the last would count (WHATWG HTML, 9.2.6). A block without data is not
passed on: with an id behind it, it would be an empty event to some SDKs. Without numbers, every byte is passed on as it
came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from relay.core.log import EventLog
from relay.core.reader import Out
from relay.core.transfer import Clock
from relay.flow.gate import Gate
from relay.wire import delta, sse
from relay.wire.dialect import Dialect, Ending

# What one write gives to a reader (bytes), but for an event that is longer.
WRITE_BYTES = 32 * 1024
_ENDS = (*sse.BORDERS, b"\r\r")


class Pulse(Protocol):
    """Time finer than the clock's, and a way to be called again. `net` implements it with one timer for all."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at that time."""

    def soon(self, call: Callable[[], None]) -> None:
        """Call when others have had their turn."""


class Member(Protocol):
    """A reader of the log (relay.core.follower)."""

    @property
    def out(self) -> Out:
        """What takes its pieces."""

    @property
    def place(self) -> int:
        """The last event that it needs no more."""


class Fanout:
    """`stream_id` is the generation's name; `numbered`: whether events get ids. `keeps`: whether the log is for those
    who come later too, or only for its readers' lag. `gate` is the provider's.

    Most events come one by one, and do not come through here: LoggedStream gives them to the log, and with `tag` and
    their number to the `readers`; and where the stream is `watched` it calls `after`.
    """

    gone = False

    __slots__ = (
        "_group",
        "_waiters",
        "clock",
        "dialect",
        "gate",
        "keeps",
        "log",
        "pulse",
        "read_delta",
        "readers",
        "tag",
        "watched",
    )

    def __init__(
        self,
        stream_id: str,
        log: EventLog,
        dialect: Dialect,
        clock: Clock,
        pulse: Pulse,
        *,
        numbered: bool,
        keeps: bool,
    ) -> None:
        self.log = log
        self.dialect = dialect
        self.clock = clock
        self.pulse = pulse
        self.gate = Gate(None)
        self.keeps = keeps
        self.readers: tuple[Member, ...] = ()
        self.read_delta = delta.reader(dialect)
        self.tag = b"id: %b-" % stream_id.encode() if numbered else b""
        self._group: Sequence[bytes] = ()  # what is being sent, if it is more than one event
        self._waiters: dict[Callable[[], None], None] | None = None  # few streams have any
        self.watched = not keeps  # whether something is to be done behind every event

    # From the stream

    @property
    def out(self) -> Out:
        return self

    @property
    def before(self) -> int:
        """For a reader to whom something is being sent: the last event that he may have had before."""
        return self.log.tail - (len(self._group) or 1)

    @property
    def latest(self) -> Sequence[bytes]:
        """For a reader to whom something is being sent: the events in it."""
        return self._group or self.log.recent[-1:]

    def send(self, payload: bytes) -> None:
        """Whole events; the last of a stream may lack its empty line. What is much leaves in several writes: a reader
        whose socket takes none of one has it in his transport until he is gone."""
        group: list[bytes] = []
        size, before = 0, self.log.tail
        for block in sse.split(payload):
            event = self._numbered(block) if self.tag else block
            if group and size + len(event) > WRITE_BYTES:
                self._give(group)
                group, size = [], 0
            if event:
                group.append(event)
                size += len(event)
        if group:
            self._give(group)
        if self.log.tail > before:
            self.after()

    def _give(self, events: list[bytes]) -> None:
        for event in events:
            self.log.append(event)
        self._group = events
        framed = self.framed(events, self.before)
        for reader in self.readers:
            reader.out.send(framed)
        self._group = ()

    def after(self) -> None:
        """Readers have been given the latest. To be called where the stream is `watched`."""
        if self._waiters:
            self.wake()
        self.tidy()

    def _numbered(self, block: bytes) -> bytes:
        """A block as it may stand behind an id: whole, and without what speaks against it."""
        event = sse.anonymous(block if block.endswith(_ENDS) else sse.completed(block))
        # What was taken out may have stood between a CR and an LF.
        return event if not event or event.endswith(_ENDS) else sse.completed(event)

    def framed(self, events: list[bytes], after: int) -> bytes:
        """As readers get them: the first of them is number `after` + 1."""
        if not self.tag:
            return b"".join(events)
        mark = self.mark
        return b"".join([mark(event, seq) for seq, event in enumerate(events, after + 1)])

    def mark(self, event: bytes, seq: int) -> bytes:
        """An event with its id, if events have one: its last line, in front of the empty one."""
        if not self.tag:
            return event
        end = -2 if event.endswith(b"\r\n") else -1
        return b"%b%b%d\n\n" % (event[:end], self.tag, seq)

    def tidy(self) -> None:
        """Where nothing is kept: forget what every reader has had."""
        if not self.keeps:
            self.log.forget(min([reader.place for reader in self.readers], default=self.log.tail))

    # What events are

    def has_content(self, events: Sequence[bytes]) -> bool:
        """Whether one of these is content that a person reads; of an unknown dialect, everything is."""
        read = self.read_delta
        if read is None:
            return True
        return any((found := read(event)) is not None and found.text for event in events)

    @property
    def is_terminal(self) -> bool:
        """Whether the latest says how the stream ends."""
        latest = self.latest
        return bool(latest) and self.dialect.verdict(latest[-1]) is not Ending.OPEN

    # Readers

    def join(self, reader: Member) -> None:
        self.readers = (*self.readers, reader)

    def leave(self, reader: Member) -> None:
        self.readers = tuple(other for other in self.readers if other is not reader)
        self.tidy()

    def wake(self) -> None:
        """Tell those who wait for something to happen."""
        waiters, self._waiters = self._waiters, None
        self.watched = not self.keeps
        for waiter in waiters or ():
            self.pulse.soon(waiter)

    def wait(self, waiter: Callable[[], None]) -> None:
        """Be told, once, when an event has come or the stream has ended."""
        self._waiters = self._waiters or {}
        self._waiters[waiter] = None
        self.watched = True

    def stop_waiting(self, waiter: Callable[[], None]) -> None:
        if self._waiters:
            self._waiters.pop(waiter, None)
