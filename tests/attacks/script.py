"""The attacker: one HTTP/2 connection in cleartext, whose every byte a test decides."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import hpack

from tests.http2 import frames
from tests.http2.frames import END_HEADERS, Code, Frame, Kind
from tests.programs import PATIENCE

# A request that the provider works on for as long as nobody stops it.
ENDLESS = "events=1000000; interval=50ms"
_AT_ONCE = 256 * 1024

Fields = list[tuple[str, str]]


def asking(path: str = "/sse/ticker", simulate: str = ENDLESS, method: str = "GET", *more: tuple[str, str]) -> Fields:
    """The fields of a request."""
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
    return [*pseudo, ("simulate", simulate), *more]


class Blocks:
    """Field blocks for one connection, in their order: after the first a request is some ten bytes."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def __call__(self, fields: Fields) -> bytes:
        block: bytes = self._encoder.encode(fields)
        return block


def streams(count: int, first: int = 1) -> Iterator[int]:
    """The ids of so many streams."""
    return iter(range(first, first + 2 * count, 2))


class Attacker:
    """`frames` is all that came, `sent` how many bytes went, `over` whether the relay has ended the connection.
    With `reads=False` nothing is read before somebody asks for it; `window` is the socket's receive buffer."""

    def __init__(
        self,
        address: tuple[str, int],
        *settings: tuple[int, int],
        greet: bool = True,
        reads: bool = True,
        window: int | None = None,
    ) -> None:
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.frames: list[Frame] = []
        self.sent = 0
        self.over = False
        self._reads = reads
        self._buffer = b""
        self._looked = 0
        self._decoder = hpack.Decoder()
        if greet:
            self.send(frames.PREFACE, frames.settings(*settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> bool:
        """All of it, while reading what comes; False if the relay ended the connection before."""
        data = memoryview(b"".join(pieces))
        while data and not self.over:
            ready = self._ready(PATIENCE, select.POLLOUT | (select.POLLIN if self._reads else 0))
            assert ready, f"the relay neither reads nor ends the connection after {self.sent} bytes"
            if self._reads and ready & select.POLLIN:
                self._receive()
            else:
                try:
                    count = self.socket.send(data[:_AT_ONCE])
                except OSError:
                    # What it had said before can still be read.
                    self._reads = True
                    self.read_to_end()
                    return False
                self.sent += count
                data = data[count:]
        return not self.over

    def flood(self, pieces: Iterable[bytes]) -> bool:
        """Piece by piece, each a write of its own, as long as the relay lets it."""
        return all(self.send(piece) for piece in pieces)

    def drip(self, pieces: Iterable[bytes], gap: float) -> bool:
        """Piece by piece with a gap (seconds) between them; False once the relay has ended the connection."""
        for piece in pieces:
            self.send(piece)
            next_at = time.monotonic() + gap
            while not self.over and self._ready(next_at - time.monotonic()):
                self._receive()
        return not self.over

    # What comes

    def until(self, wanted: Callable[[Frame], bool], what: str) -> Frame:
        """The next frame like that, from the last one waited for on."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._looked < len(self.frames):
                frame = self.frames[self._looked]
                self._looked += 1
                if wanted(frame):
                    return frame
            assert not self.over, f"the connection ended before {what}: {self.story()}"
            self._wait(deadline, what)

    def of(self, stream: int, *kinds: Kind) -> Frame:
        """The next frame of a stream; of one of these kinds."""
        names = " or ".join(kind.name for kind in kinds)
        return self.until(lambda frame: frame.stream == stream and frame.kind in kinds, f"{names} on stream {stream}")

    def alive(self) -> None:
        """A PING goes and comes back: all before it was taken."""
        self.send(frames.ping(b"is alive"))
        self.until(lambda frame: frame.kind == Kind.PING and frame.payload == b"is alive", "a PING's acknowledgment")

    def read_to_end(self) -> None:
        deadline = time.monotonic() + PATIENCE
        self._reads = True
        while not self.over:
            self._wait(deadline, "the end of the connection")

    def ended_by(self, *codes: Code) -> None:
        """The connection ends, with a GOAWAY that says why as its last frame."""
        self.read_to_end()
        assert self.frames, "the connection ended without a word"
        assert self.frames[-1].kind == Kind.GOAWAY, self.story()
        assert self.frames[-1].code in codes, self.story()

    def bodies(self, stream: int) -> bytes:
        """The content of what has come on a stream."""
        return b"".join(frame.payload for frame in self.frames if (frame.stream, frame.kind) == (stream, Kind.DATA))

    def story(self) -> str:
        return ", ".join(map(str, self.frames[-20:])) or "no frame"

    def _wait(self, deadline: float, what: str) -> None:
        if not self._ready(deadline - time.monotonic()):
            raise AssertionError(f"{what} did not come: {self.story()}")
        self._receive()

    def _ready(self, seconds: float, wanted: int = select.POLLIN) -> int:
        """What the socket is ready for; nothing, if it was not within so many seconds."""
        # Not select(): it takes no descriptor above 1023.
        poll = select.poll()
        poll.register(self.socket, wanted)
        found = poll.poll(max(seconds, 0) * 1000)
        return found[0][1] if found else 0

    def _receive(self) -> None:
        try:
            data = self.socket.recv(_AT_ONCE)
        except OSError:
            data = b""
        self.over = not data
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= frames.HEADER:
            end = at + frames.HEADER + int.from_bytes(self._buffer[at : at + 3], "big")
            if end > len(self._buffer):
                break
            self.frames.append(self._frame(self._buffer[at:end]))
            at = end
        self._buffer = self._buffer[at:]

    def _frame(self, data: bytes) -> Frame:
        kind, flags, payload = data[3], data[4], data[frames.HEADER :]
        stream = int.from_bytes(data[5 : frames.HEADER], "big")
        fields: tuple[tuple[str, str], ...] = ()
        if kind == Kind.HEADERS:
            assert flags & END_HEADERS, "the relay's heads are short"
            fields = tuple((str(name), str(value)) for name, value in self._decoder.decode(payload))
        return Frame(kind, flags, stream, payload, fields)
