"""An answer over HTTP/2 (RFC 9113): its head, its DATA frames, and the lies in them.

A lie that breaks off a connection by FIN or RST over HTTP/1.1 breaks off the stream by RST_STREAM where it is told in
the body (`cut`, `reset`, `head-reset`, `endless-line`), and the connection with all that it carries where its name says
so (`close`, `head-close`, `garbage`, `cut-reset`). What was a fault of a head's lines is one of its fields; what was a
fault of the chunks is one of the frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from random import Random

from answer import HINT_LINK, HUGE_FIELD, STEP, Answer, Outcome, Part, Sink
from body import CODERS, CUTS, cut
from dialects import Script
from h2.settings import SettingCodes
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame
from intake import Request
from simulation import AFTER_HEAD, IN_HEAD, MID_BODY_2, Simulation
from stream2 import Fields, Stream

HINT = [(":status", "103"), ("link", HINT_LINK)]
FILL = "f" * 1024  # value of one field of an endless head
TRAILERS = [("x-checksum", "0")]
# Fields that are no trailers (RFC 9110, 6.5.1): whoever takes them over believes a body about its own framing.
FALSE_TRAILERS = [("content-length", "5"), ("host", "elsewhere.example"), *TRAILERS]
SURPLUS = b"data: behind the end\n\n"


class Body2:
    """Encodes one body and hands it over in DATA frames, cut and padded as the simulation wants it."""

    def __init__(self, stream: Stream, simulation: Simulation) -> None:
        self._stream = stream
        self._simulation = simulation
        self._coder = CODERS[simulation.coding()]()
        self._random = None if simulation.split is None else Random(simulation.split)
        self._waiting = bytearray()  # for what it is to be joined with

    async def put(self, payload: bytes) -> None:
        self._waiting += self._coder.put(payload)
        if not self._simulation.join or len(self._waiting) >= STEP:
            await self.flush()

    async def flush(self, *, end: bool = False) -> None:
        """Send what waits; with `end`, END_STREAM with the last of it."""
        data, self._waiting = bytes(self._waiting), bytearray()
        pieces = [data] if self._random is None else list(cut(data, self._random)) or [b""]
        for number, piece in enumerate(pieces, 1):
            simulation = self._simulation
            last = end and number == len(pieces)
            await self._stream.data(piece, most=simulation.frame, padding=simulation.padding, end=last)

    async def end(self, trailers: Fields | None = None, *, open_end: bool = False) -> None:
        """End the stream by trailers or by a DATA frame, or with `open_end` not at all."""
        self._waiting += self._coder.finish()
        if self._waiting and not self._simulation.join:
            await self.flush()
        await self.flush(end=trailers is None and not open_end)
        if trailers is not None:
            self._stream.headers(trailers, end=True)


class Answer2(Answer):
    """One answer on a stream."""

    _body: Body2

    def __init__(self, stream: Stream, request: Request, script: Script, simulation: Simulation) -> None:
        super().__init__(stream, request, script, simulation)
        self._stream = stream
        self._inside |= MID_BODY_2
        self._ends_early = (*self._ends_early, "short")
        if simulation.at is not None:
            # RST_STREAM can be sent anywhere: before the head unless somewhere else is asked for.
            self._instead -= {"reset"}
            self._inside |= {"reset"}

    async def run(self) -> Outcome:
        simulation = self._simulation
        if simulation.split is None:
            return await super().run()
        random, outlet = Random(simulation.split), self._stream.connection.outlet
        outlet.drip(iter(lambda: random.choice(CUTS), None), simulation.gap)
        try:
            return await super().run()
        finally:
            outlet.pour()

    def _complete(self) -> Outcome:
        return Outcome.REUSE

    def _cancelled(self) -> Outcome:
        self._stream.code = self._simulation.code
        return Outcome.CANCEL

    # The head

    async def _write_head(self, length: int) -> None:
        simulation = self._simulation
        fields = [(":status", str(self._status())), *((name.lower(), value) for name, value in self._fields())]
        if self._framing == "length":
            fields.append(("content-length", str(length)))
        if self._lie in IN_HEAD:
            fields += self._spoiling(length)
        for _ in range(self._hints()):
            self._stream.headers(HINT)
        end = self._request.method == "HEAD" and self._lie not in AFTER_HEAD
        if self._lie == "slow-head":
            await self._stream.slow_headers(fields, simulation.interval, end=end)
        else:
            self._stream.headers(fields, end=end)

    def _spoiling(self, length: int) -> Fields:
        """Fields that no head may have: RFC 9113, 8.2.1 (bytes of values), 8.2.2 (connections), 8.1.1 (lengths)."""
        fields = {
            "huge-head": [("x-huge", "h" * HUGE_FIELD)],
            "nul-header": [("x-nul", "a\x00b")],
            "bare-lf": [("x-bare-lf", "a\nb")],
            "obs-fold": [("x-fold", "one\r\n two")],
            "cl-te": [("content-length", "5"), ("transfer-encoding", "chunked")],
            "two-lengths": [("content-length", str(length + 1))],
        }
        return fields.get(self._lie, [])

    async def _instead_of_head(self) -> Outcome:
        match self._lie:
            case "close":
                return Outcome.BREAK
            case "reset":
                return self._cancelled()
            case "garbage":
                self._stream.raw(Random(self._simulation.seed).randbytes(4096))
                return Outcome.BREAK
            case "switch":
                # RFC 9113, 8.6: HTTP/2 has no 101.
                self._stream.headers([(":status", "101")])
            case "endless-head":
                await self._endless_head()
        return await self._silence()

    async def _endless_head(self) -> None:
        """One header block in CONTINUATION frames without an end; no other frame may come between them (6.10)."""
        stream, encoder = self._stream, Encoder()
        stream.connection.outlet.hold()
        start = HeadersFrame(stream.number, encoder.encode([NeverIndexedHeaderTuple(":status", "200")]))
        stream.raw(start.serialize())
        for number in count():
            field = NeverIndexedHeaderTuple(f"x-fill-{number}", FILL)
            stream.raw(ContinuationFrame(stream.number, encoder.encode([field], huffman=False)).serialize())
            # At most 1 MB/s: endless, yet nobody's memory is gone before it has noticed.
            await asyncio.sleep(0.001)

    async def _after_head(self) -> Outcome:
        match self._lie:
            case "head-close":
                return Outcome.BREAK
            case "head-reset":
                return self._cancelled()
        return await self._silence()

    # The body

    def _open_body(self) -> Sink:
        self._body = Body2(self._stream, self._simulation)
        return self._body

    def _reached(self) -> None:
        if self._simulation.window is not None:
            self._stream.connection.settings({SettingCodes.INITIAL_WINDOW_SIZE: self._simulation.window})

    async def _before_wait(self) -> None:
        await self._body.flush()

    async def _put(self, body: Sink, payload: bytes, events: int) -> None:
        for _ in range(self._simulation.empty * events):
            self._stream.empty()
        await super()._put(body, payload, events)

    async def _lie_in_body(self, body: Sink, planned: Iterator[Part]) -> Outcome | None:
        stream = self._stream
        match self._lie:
            case "cut":
                return Outcome.CANCEL
            case "reset":
                return self._cancelled()
            case "cut-reset":
                return Outcome.RESET
            case "bad-chunk":
                # More padding than there is frame (6.1).
                stream.raw(b"\x00\x00\x02\x00\x08" + stream.number.to_bytes(4) + b"\xff\x00")
                return await self._silence()
            case "goaway":
                stream.connection.go_away(stream.number)
                return None
            case "graceful":
                stream.connection.go_away_gracefully()
                return None
            case "deaf":
                stream.connection.deafen()
                return await self._silence()
        broken = await super()._lie_in_body(body, planned)
        return Outcome.CANCEL if broken is Outcome.BREAK else broken

    async def _end(self) -> Outcome | None:
        match self._lie:
            case "trailers":
                await self._body.end(FALSE_TRAILERS)
            case "hold-open":
                await self._body.end(open_end=True)
                await self._silence()
            case "after-end":
                await self._body.end()
                self._stream.raw(DataFrame(self._stream.number, SURPLUS).serialize(), content=len(SURPLUS))
            case _:
                await self._body.end(TRAILERS if self._simulation.trailers else None)
        return None
