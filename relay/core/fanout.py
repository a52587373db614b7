"""One generation's events, to all who read them: numbered, kept, and handed to each reader at his own pace.

        LoggedStream.feed -> Fanout -> log, and for each reader: sink.send         he has everything so far
                                                                reader._hold      he lags; the log has it

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

    send: Callable[[bytes], None]

    @property
    def place(self) -> int:
        """The last event that it needs no more."""


class Fanout:
    """`stream_id` is the generation's name; `numbered`: whether events get ids. `keeps`: whether the log is for those
    who come later too, or only for its readers' lag. `before`: the last event that readers may have had when the latest
    came, `latest` those that came with it. `spoke`: when, by the clock. `gate` is the provider's."""

    gone = False

    __slots__ = (
        "_mark",
        "_waiters",
        "before",
        "clock",
        "dialect",
        "gate",
        "keeps",
        "latest",
        "log",
        "pulse",
        "read_delta",
        "readers",
        "spoke",
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
        self.before = 0
        self.latest: Sequence[bytes] = ()
        self.spoke = clock.now
        self._mark = b"id: %b-" % stream_id.encode() if numbered else b""
        self._waiters: dict[Callable[[], None], None] = {}

    # From the stream

    def one(self, event: bytes) -> None:
        """One event that needs no closer look: LF for its line ends, no id of its own."""
        log = self.log
        before = self.before = log.tail
        self.latest = (event,)
        log.append(event)
        self.spoke = self.clock.now
        # As in `mark`, without its call: this line is on the hot path.
        framed = b"%b%b%d\n\n" % (event[:-1], self._mark, before + 1) if self._mark else event
        for reader in self.readers:
            reader.send(framed)
        if self._waiters or not self.keeps:
            self._after()

    def send(self, payload: bytes) -> None:
        """Whole events; the last of a stream may lack its empty line. What is much leaves in several writes: a reader
        whose socket takes none of one has it in his transport until he is gone."""
        group: list[bytes] = []
        size = 0
        for block in sse.split(payload):
            event = self._numbered(block) if self._mark else block
            if group and size + len(event) > WRITE_BYTES:
                self._give(group)
                group, size = [], 0
            if event:
                group.append(event)
                size += len(event)
        if group:
            self._give(group)
            self._after()

    def _give(self, events: list[bytes]) -> None:
        log = self.log
        self.before = log.tail
        self.latest = events
        for event in events:
            log.append(event)
        self.spoke = self.clock.now
        framed = self.framed(events, self.before)
        for reader in self.readers:
            reader.send(framed)

    def _after(self) -> None:
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
        if not self._mark:
            return b"".join(events)
        mark = self.mark
        return b"".join([mark(event, seq) for seq, event in enumerate(events, after + 1)])

    def mark(self, event: bytes, seq: int) -> bytes:
        """An event with its id, if events have one: its last line, in front of the empty one."""
        if not self._mark:
            return event
        end = -2 if event.endswith(b"\r\n") else -1
        return b"%b%b%d\n\n" % (event[:end], self._mark, seq)

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
        return self.dialect.verdict(self.latest[-1]) is not Ending.OPEN

    # Readers

    def join(self, reader: Member) -> None:
        self.readers = (*self.readers, reader)

    def leave(self, reader: Member) -> None:
        self.readers = tuple(other for other in self.readers if other is not reader)
        self.tidy()

    def wake(self) -> None:
        """Tell those who wait for something to happen."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            self.pulse.soon(waiter)

    def wait(self, waiter: Callable[[], None]) -> None:
        """Be told, once, when an event has come or the stream has ended."""
        self._waiters[waiter] = None

    def stop_waiting(self, waiter: Callable[[], None]) -> None:
        self._waiters.pop(waiter, None)
