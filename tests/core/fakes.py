"""Those around the core: a sink, an owner, a clock, a producer behind its gate. They only write down."""

from __future__ import annotations

from collections.abc import Callable

from relay.core.reader import Reader
from relay.errors import RelayError
from relay.flow.gate import Gate


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
