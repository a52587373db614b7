"""Those around the core: a sink, an owner, a clock, a producer behind its gate. They only write down."""

from __future__ import annotations

import heapq
import re
import sys
from collections.abc import Callable
from itertools import count

from relay.core.fanout import Fanout
from relay.core.log import EventLog
from relay.core.logged import LoggedStream
from relay.core.reader import Reader
from relay.errors import RelayError
from relay.flow.gate import Gate
from relay.wire.dialect import CHAT, Dialect


class Clock:
    def __init__(self) -> None:
        self.now = 1.0


class Owner:
    def __init__(self) -> None:
        self.began = 0
        self.ends: list[RelayError | None] = []

    def transfer_began(self) -> None:
        self.began += 1

    def transfer_ended(self, error: RelayError | None) -> None:
        self.ends.append(error)


class Sink:
    """`room`: how many pieces it takes before it says `block`; None for any number."""

    def __init__(self, reader: Reader | None = None, room: int | None = None) -> None:
        self.reader = reader
        self.room = room
        self.pieces: list[bytes] = []
        self.ends: list[str] = []

    @property
    def send(self) -> Callable[[bytes], None]:
        return self._send

    def _send(self, piece: bytes) -> None:
        assert not self.ends, "a piece behind the end"
        assert piece, "an empty piece would end a chunked body"
        self.pieces.append(piece)
        if self.room is not None:
            self.room -= 1
            if self.room <= 0 and self.reader is not None:
                self.reader.block()

    def finish(self) -> None:
        self.ends.append("finish")

    def abort(self) -> None:
        self.ends.append("abort")

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Producer:
    """`paused` is what its gate last said."""

    def __init__(self) -> None:
        self.paused = False
        self.switches = 0
        self.gate = Gate(self)

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True
        self.switches += 1

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class Pulse:
    """A pulse whose time a test moves: everybody is called at the very time he asked for. Who is called again and again
    without the time moving has lost his way."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waiting: list[tuple[float, int, Callable[[], None]]] = []
        self.soons: list[Callable[[], None]] = []
        self._numbers = count()

    def now(self) -> float:
        return self.time

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.waiting, (when, next(self._numbers), call))

    def soon(self, call: Callable[[], None]) -> None:
        self.soons.append(call)

    def turn(self) -> None:
        """Those who let others have their turn have theirs."""
        soons, self.soons = self.soons, []
        for call in soons:
            call()

    def move(self, seconds: float, late: float = 0.0) -> None:
        """Time passes; everybody is called so much too late."""
        end = self.time + seconds
        calls = 0
        while self.waiting and self.waiting[0][0] + late <= end:
            when, _, call = heapq.heappop(self.waiting)
            calls = calls + 1 if when + late <= self.time else 0
            assert calls < 1000, "called again and again for a time that is over"
            self.time = max(self.time, when + late)
            call()
        self.time = end


class Log(EventLog):
    """One that is only asked for what it has."""

    def read(self, after: int, limit: int) -> list[bytes]:
        assert self.oldest - 1 <= after <= self.tail, f"after {after}, of {self.oldest} to {self.tail}"
        return super().read(after, limit)


def ignore(error: RelayError) -> None:
    """For a reader whose failure is not looked at."""


STREAM_ID = "s" * 22
_ID = re.compile(rb"^id: %b-(\d+)\n" % STREAM_ID.encode(), re.MULTILINE)


def numbered(seq: int, event: bytes) -> bytes:
    """An event with its number, which stands last: a client that was cut off inside the event has not read it."""
    lines = event[: -2 if event.endswith(b"\r\n") else -1]
    return b"%bid: %b-%d\n\n" % (lines, STREAM_ID.encode(), seq)


def number_of(block: bytes) -> tuple[int | None, bytes]:
    """The number of an event, if it has one, and the event without it."""
    found = _ID.search(block)
    return (int(found[1]), block[: found.start()] + block[found.end() :]) if found else (None, block)


class Told(Fanout):
    """A fanout behind its stream, which `feed` gives to; and its times."""

    def __init__(
        self,
        *,
        dialect: Dialect = CHAT,
        keeps: bool = True,
        numbered: bool | None = None,
        log: EventLog | None = None,
        event_limit: int = 1 << 20,
    ) -> None:
        self.producer = Producer()
        self.time = Clock()
        self.beat = Pulse()
        super().__init__(
            STREAM_ID,
            log or Log(8 << 20 if keeps else sys.maxsize),
            dialect,
            self.time,
            self.beat,
            numbered=keeps if numbered is None else numbered,
            keeps=keeps,
        )
        self.gate = self.producer.gate
        self.owner = Owner()
        self.source = LoggedStream(self, self.owner, self.time, dialect, event_limit)
        self.feed = self.source.feed

    def move(self, seconds: float, late: float = 0.0) -> None:
        self.time.now += seconds
        self.beat.move(seconds, late)

    def settle(self) -> None:
        """Until nobody waits for his turn."""
        while self.beat.soons:
            self.beat.turn()


class Socket(Sink):
    """A sink that is never written to while it is blocked. `opens` lets it take so many pieces more, None for any
    number."""

    def __init__(self, reader: Reader, room: int | None = None) -> None:
        super().__init__(reader, room)
        self.blocked = False

    def _send(self, piece: bytes) -> None:
        assert not self.blocked, "a piece for a sink that is blocked"
        self.pieces.append(piece)
        if self.room is not None:
            self.room -= 1
            if self.room <= 0:
                self.blocks()

    def blocks(self) -> None:
        assert self.reader is not None
        self.blocked = True
        self.reader.block()

    def opens(self, room: int | None = None) -> None:
        assert self.reader is not None
        self.blocked = False
        self.room = room
        self.reader.unblock()

    def finish(self) -> None:
        assert not self.blocked
        assert not self.ends
        super().finish()

    def abort(self) -> None:
        assert not self.ends
        super().abort()


def delta(text: str, **more: str) -> bytes:
    """An event that adds a text."""
    inner = ",".join([f'"content":"{text}"', *(f'"{name}":"{value}"' for name, value in more.items())])
    return b'data: {"id":"1","choices":[{"index":0,"delta":{%b}}]}\n\n' % inner.encode()


ROLE = b'data: {"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
FINISH = b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
