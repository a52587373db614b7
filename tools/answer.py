"""One answer on its way: the script's steps in time, through the body, and the lies at their places.

A lie is told in one of six places, which simulation names: instead of the head, in it, right after it, in the
middle of the body, at its end, or on the connection afterwards (that last one is the connection's business).
A lie that needs the reader to notice by itself is followed by silence, so that what the reader does is its
own doing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import Enum
from itertools import count
from random import Random
from typing import NamedTuple

import orjson
from body import CODERS, Body, Peer, head
from dialects import Kind, Script
from intake import Request
from simulation import AFTER_HEAD, BEFORE_HEAD, IN_HEAD, MID_BODY, Simulation

HUGE_FIELD = 200 * 1024
HINTS = 2000
FILL = 1024  # bytes of one field of an endless head
EXTENSION = b";x=" + b"e" * 4096
TRAILERS = b"Content-Length: 5\r\nHost: elsewhere.example\r\nX-Checksum: 0\r\n"
SURPLUS = b"data: behind the end\n\n"
STEP = 64 * 1024  # bytes written at a time by what is meant to be long
# With interval=0, that many writes between two turns of the event loop: enough to keep the loop's own cost
# small, few enough that thousands of streams take turns.
WRITES_PER_TURN = 16
# Lies after which the body ends cleanly, without what was still to come.
ENDS_EARLY = ("error", "half-event", "no-done")


class Outcome(Enum):
    REUSE = "the answer is complete and the connection may carry another"
    CLOSE = "the answer is complete, its end or its reader wants the connection closed"
    BREAK = "the answer is broken off by FIN"
    RESET = "the answer is broken off by RST"


class Part(NamedTuple):
    """What is written together, and how many content events that are."""

    events: int
    payload: bytes


# Stands in a plan where a lie in the body is to be told, before the part that the lie spoils.
LIE_HERE = Part(0, b"")


def whole(body: bytes, lie_at: int) -> Iterator[Part]:
    """The parts of an answer that is no stream."""
    yield Part(0, body[:lie_at])
    yield LIE_HERE
    yield Part(0, body[lie_at:])


def parts(script: Script, simulation: Simulation) -> Iterator[Part]:
    """The parts of a stream, made as they are asked for; the last holds no content and may be empty."""
    lie_at = min(simulation.at, simulation.events)
    waiting = b""
    before = events = 0
    if lie_at == 0:
        yield LIE_HERE
    for kind, payload in script.steps():
        waiting += payload
        if kind is not Kind.CONTENT:
            continue
        events += 1
        total = before + events
        if simulation.ping and total % simulation.ping == 0:
            waiting += script.ping
        if events == simulation.burst or total in (lie_at, simulation.events):
            yield Part(events, script.rendered(waiting))
            waiting, before, events = b"", total, 0
            if total == lie_at:
                yield LIE_HERE
    yield Part(0, script.rendered(waiting))


class Answer:
    """One answer to one request. `run()` gives what is to become of the connection."""

    def __init__(self, peer: Peer, request: Request, script: Script, simulation: Simulation) -> None:
        self._peer = peer
        self._request = request
        self._script = script
        self._simulation = simulation
        self._lie = simulation.lie
        self._streamed = script.streamed and simulation.status == 200

    async def run(self) -> Outcome:
        simulation = self._simulation
        await asyncio.sleep(simulation.delay)
        if self._lie in BEFORE_HEAD:
            return await self._instead_of_head()
        self._peer.opened()
        planned = self._plan()
        old_reader = self._request.version == "HTTP/1.0"
        framing = simulation.body_framing(known_length=not self._streamed, old_reader=old_reader)
        if framing == "length":
            planned = list(planned)
        closes = framing == "close" or simulation.http10 or not self._request.keeps_alive()
        await self._write_head(framing, closes, self._length(planned) if isinstance(planned, list) else 0)
        if self._lie in AFTER_HEAD:
            return await self._after_head()
        if self._request.method == "HEAD":
            return Outcome.CLOSE if closes else Outcome.REUSE
        body = Body(self._peer, simulation, framing)
        broken = await self._write_body(body, iter(planned))
        if broken is not None:
            return broken
        await self._end(body)
        # A stream that a lie ended early is shorter than the length it announced: only the close can end it.
        short = framing == "length" and (self._lie == "half-event" or (self._streamed and self._lie in ENDS_EARLY))
        return Outcome.CLOSE if closes or short else Outcome.REUSE

    # What there is to say

    def _plan(self) -> Iterator[Part] | list[Part]:
        if self._streamed:
            return parts(self._script, self._simulation)
        if self._simulation.status != 200:
            document = self._script.error(self._simulation.status)
        elif self._lie == "error":
            document = self._script.error(500)
        else:
            document = self._script.document()
        body = orjson.dumps(document)
        if self._lie not in MID_BODY and self._lie != "long":
            return whole(body, len(body))
        # White space may stand before a JSON text, not in the middle of one of its strings.
        return whole(body, 0 if self._lie == "bomb" else len(body) // 2)

    def _length(self, planned: list[Part]) -> int:
        """The Content-Length: of the encoded body, or a false one."""
        coder = CODERS[self._simulation.coding()]()
        total = until_lie = 0
        for part in planned:
            if part is LIE_HERE:
                until_lie = total
            total += len(coder.put(part.payload))
        total += len(coder.finish())
        return {"short": total + 1, "long": until_lie}.get(self._lie, total)

    def _fields(self, framing: str, closes: bool, length: int) -> list[tuple[str, str]]:
        simulation = self._simulation
        kind = self._script.content_type if self._streamed else "application/json"
        fields = [("Content-Type", kind), *self._script.headers()]
        if self._streamed:
            fields.append(("Cache-Control", "no-cache"))
        if simulation.coding() != "identity":
            fields += [("Content-Encoding", simulation.coding()), ("Vary", "Accept-Encoding")]
        if simulation.retry_after is not None:
            fields.append(("Retry-After", f"{simulation.retry_after:g}"))
        if framing == "chunked":
            fields.append(("Transfer-Encoding", "chunked"))
        elif framing == "length":
            fields.append(("Content-Length", str(length)))
        if closes or self._lie == "close-idle":
            fields.append(("Connection", "close" if closes else "keep-alive"))
        return fields

    # The head

    async def _write_head(self, framing: str, closes: bool, length: int) -> None:
        simulation = self._simulation
        fields = self._fields(framing, closes, length)
        version = "HTTP/1.0" if simulation.http10 else "HTTP/1.1"
        data = head(simulation.status if simulation.status != 200 else self._script.status, fields, version)
        if self._lie in IN_HEAD:
            data = self._spoiled_head(data, length)
        if self._lie == "slow-head":
            for byte in data:
                await self._peer.write(b"%c" % byte)
                await asyncio.sleep(simulation.interval)
            return
        await self._peer.write(data)

    def _spoiled_head(self, data: bytes, length: int) -> bytes:
        line, fields = data.split(b"\r\n", 1)
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        match self._lie:
            case "huge-head":
                fields = b"X-Huge: " + b"h" * HUGE_FIELD + b"\r\n" + fields
            case "nul-header":
                fields = b"X-Nul: a\x00b\r\n" + fields
            case "bare-lf":
                return data.replace(b"\r\n", b"\n")
            case "cl-te":
                fields = b"Content-Length: 5\r\n" + fields
            case "two-lengths":
                fields = b"Content-Length: %d\r\n" % (length + 1) + fields
            case "hints":
                return hint * HINTS + data
            case "hint":
                return hint + data
            case "bad-version":
                line = line.replace(line.partition(b" ")[0], b"HTTP/9.9")
            case "obs-fold":
                fields = b"X-Fold: one\r\n two\r\n" + fields
        return line + b"\r\n" + fields

    async def _instead_of_head(self) -> Outcome:
        match self._lie:
            case "close":
                return Outcome.BREAK
            case "reset":
                return Outcome.RESET
            case "garbage":
                await self._peer.write(Random(self._simulation.seed).randbytes(4096))
                return Outcome.BREAK
            case "switch":
                await self._peer.write(head(101, [("Connection", "Upgrade"), ("Upgrade", "websocket")]))
            case "endless-head":
                await self._peer.write(b"HTTP/1.1 200 OK\r\n")
                for number in count():
                    await self._peer.write(b"X-Fill-%d: %b\r\n" % (number, b"f" * FILL))
                    # At most 1 MB/s: endless, yet nobody's memory is gone before it has noticed.
                    await asyncio.sleep(0.001)
        return await self._silence()

    async def _after_head(self) -> Outcome:
        match self._lie:
            case "head-close":
                return Outcome.BREAK
            case "head-reset":
                return Outcome.RESET
        return await self._silence()

    async def _silence(self) -> Outcome:
        """Until the reader leaves, which cancels this."""
        await asyncio.get_running_loop().create_future()
        return Outcome.BREAK

    # The body

    async def _write_body(self, body: Body, planned: Iterator[Part]) -> Outcome | None:
        """All parts in time. Not None: a lie has broken the answer off."""
        simulation, loop = self._simulation, asyncio.get_running_loop()
        random = Random(simulation.seed)
        if self._streamed:
            await asyncio.sleep(simulation.first)
        due = loop.time()
        paced = False
        for number, part in enumerate(planned, 1):
            if part is LIE_HERE:
                if self._lie in MID_BODY and (self._streamed or self._lie not in ("error", "no-done")):
                    broken = await self._lie_in_body(body, planned)
                    if broken is not None or self._lie in ENDS_EARLY:
                        return broken
                continue
            if part.events and paced:
                due += simulation.interval * (1 + simulation.jitter * random.uniform(-1, 1))
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            elif number % WRITES_PER_TURN == 0:
                await asyncio.sleep(0)
            await self._put(body, part.payload, part.events)
            paced = paced or part.events > 0
        return None

    async def _put(self, body: Body, payload: bytes, events: int) -> None:
        await body.put(payload)
        if events:
            self._peer.told(events)

    async def _lie_in_body(self, body: Body, planned: Iterator[Part]) -> Outcome | None:
        """The lie, with what it needs of the parts that come next. None: what is left goes on."""
        match self._lie:
            case "cut" | "short":
                return Outcome.BREAK
            case "cut-reset":
                return Outcome.RESET
            case "mid-stall":
                return await self._silence()
            case "bad-chunk":
                await self._peer.write(b"not a size\r\n" + next(planned).payload + b"\r\n")
                return await self._silence()
            case "chunk-extension-flood":
                body.extension = EXTENSION
            case "error":
                await body.put(self._script.rendered(self._script.error_step()))
            case "half-event":
                payload = next(planned).payload
                await body.put(payload[: len(payload) // 2])
            case "bad-utf8":
                part = next(planned)
                await self._put(body, self._script.spoil(part.payload), part.events)
            case "endless-line":
                await self._long(body, b"data: ", b"x")
                return Outcome.BREAK
            case "bomb":
                # One event of a stream, white space of a JSON answer: huge, and without a fault.
                opening, filling, closing = (b"data: ", b"0", b"\n\n") if self._streamed else (b"", b" ", b"")
                await self._long(body, opening, filling)
                await body.put(closing)
        return None

    async def _long(self, body: Body, opening: bytes, filling: bytes) -> None:
        await body.put(opening)
        left = self._simulation.total
        while left > 0:
            await body.put(filling * min(STEP, left))
            left -= STEP
            await asyncio.sleep(0)

    async def _end(self, body: Body) -> None:
        match self._lie:
            case "trailers":
                await body.end(trailers=TRAILERS)
            case "after-end" | "long":
                await body.end(surplus=SURPLUS)
            case "hold-open":
                await body.end(last_chunk=False)
                await self._silence()
            case _:
                await body.end()
