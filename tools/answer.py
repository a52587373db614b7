"""One answer on its way: the script's steps in time, through the body, and the lies at their places.

A lie is told in one of six places, which simulation names: instead of the head, in it, right after it, in the
middle of the body, at its end, or on the connection afterwards (that last one is the connection's business).
A lie that needs the reader to notice by itself is followed by silence, so that what the reader does is its
own doing. Here: what is the same in all versions of HTTP; heads, framing and the lies in them stand in answer1
and answer2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import Enum
from random import Random
from typing import NamedTuple, Protocol

import orjson
from body import CODERS
from dialects import Kind, Script
from intake import Request
from simulation import AFTER_HEAD, BEFORE_HEAD, MID_BODY, Simulation

HUGE_FIELD = 200 * 1024
HINTS = 2000
HINT_LINK = "</style.css>; rel=preload"
STEP = 64 * 1024  # bytes written at a time by what is meant to be long
# With interval=0, that many writes between two turns of the event loop: enough to keep the loop's own cost
# small, few enough that thousands of streams take turns.
WRITES_PER_TURN = 16
# Lies after which the body ends cleanly, without what was still to come.
ENDS_EARLY: tuple[str, ...] = ("error", "half-event", "no-done")


class Outcome(Enum):
    REUSE = "the answer is complete and the connection may carry another"
    CLOSE = "the answer is complete, its end or its reader wants the connection closed"
    CANCEL = "the answer is broken off, its connection is not: by RST_STREAM"
    BREAK = "the connection is broken off by FIN, and the answer with it"
    RESET = "the connection is broken off by RST, and the answer with it"


class Part(NamedTuple):
    """What is written together, and how many content events that are."""

    events: int
    payload: bytes


# Stands in a plan where a lie in the body is to be told, before the part that the lie spoils.
LIE_HERE = Part(0, b"")


class Listener(Protocol):
    """Who counts what an answer does."""

    def opened(self) -> None:
        """The response starts."""

    def told(self, events: int) -> None:
        """That many content events have been written."""


class Sink(Protocol):
    """Where a body goes to."""

    async def put(self, payload: bytes) -> None:
        """Write a part of the body, at once and flushed."""


def whole(body: bytes, lie_at: int) -> Iterator[Part]:
    """The parts of an answer that is no stream."""
    yield Part(0, body[:lie_at])
    yield LIE_HERE
    yield Part(0, body[lie_at:])


def parts(script: Script, simulation: Simulation) -> Iterator[Part]:
    """The parts of a stream, made as they are asked for; the last holds no content and may be empty."""
    lie_at = simulation.place
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

    def __init__(self, listener: Listener, request: Request, script: Script, simulation: Simulation) -> None:
        self._listener = listener
        self._request = request
        self._script = script
        self._simulation = simulation
        self._lie = simulation.lie
        self._instead = BEFORE_HEAD
        self._inside = MID_BODY
        self._ends_early = ENDS_EARLY
        self._streamed = script.streamed and simulation.status == 200
        self._framing = simulation.body_framing(
            known_length=not self._streamed, old_reader=request.version == "HTTP/1.0"
        )

    async def run(self) -> Outcome:
        await asyncio.sleep(self._simulation.delay)
        if self._lie in self._instead:
            return await self._instead_of_head()
        self._listener.opened()
        planned = self._plan()
        if self._framing == "length":
            planned = list(planned)
        await self._write_head(self._length(planned) if isinstance(planned, list) else 0)
        if self._lie in AFTER_HEAD:
            return await self._after_head()
        if self._request.method == "HEAD":
            return self._complete()
        body = self._open_body()
        broken = await self._write_body(body, iter(planned))
        if broken is not None:
            return broken
        return await self._end() or self._complete()

    # What each version of HTTP does its own way

    async def _instead_of_head(self) -> Outcome:
        raise NotImplementedError

    async def _write_head(self, length: int) -> None:
        """`length` counts only where the framing is `length`."""
        raise NotImplementedError

    async def _after_head(self) -> Outcome:
        raise NotImplementedError

    def _open_body(self) -> Sink:
        raise NotImplementedError

    async def _end(self) -> Outcome | None:
        """The end of the body. Not None: what became of the answer there."""
        raise NotImplementedError

    def _complete(self) -> Outcome:
        raise NotImplementedError

    def _reached(self) -> None:
        """`at` content events have been written."""

    async def _before_wait(self) -> None:
        """Nothing more is said for a while."""

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
        if self._lie not in self._inside and self._lie != "long":
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
        false = {"short": total + 1, "long": until_lie, "length_long": total + 1, "length_short": max(0, total - 1)}
        return false.get(self._lie, total)

    def _status(self) -> int:
        return self._simulation.status if self._simulation.status != 200 else self._script.status

    def _hints(self) -> int:
        """How many 1xx heads come before the final one."""
        return {"hint": 1, "hints": HINTS}.get(self._lie, self._simulation.informational)

    def _fields(self) -> list[tuple[str, str]]:
        """The header fields, without those that frame the body."""
        simulation = self._simulation
        kind = self._script.content_type if self._streamed else "application/json"
        fields = [("Content-Type", kind), *self._script.headers()]
        if self._streamed:
            fields.append(("Cache-Control", "no-cache"))
        if simulation.coding() != "identity":
            fields += [("Content-Encoding", simulation.coding()), ("Vary", "Accept-Encoding")]
        if simulation.retry_after is not None:
            fields.append(("Retry-After", f"{simulation.retry_after:g}"))
        return fields

    async def _silence(self) -> Outcome:
        """Until the reader leaves, which cancels this."""
        await asyncio.get_running_loop().create_future()
        return Outcome.BREAK

    # The body

    async def _write_body(self, body: Sink, planned: Iterator[Part]) -> Outcome | None:
        """All parts in time. Not None: a lie has broken the answer off."""
        simulation, loop = self._simulation, asyncio.get_running_loop()
        random = Random(simulation.seed)
        if self._streamed:
            await asyncio.sleep(simulation.first)
        due = loop.time()
        paced = False
        for number, part in enumerate(planned, 1):
            if part is LIE_HERE:
                self._reached()
                if self._lie in self._inside and (self._streamed or self._lie not in ("error", "no-done")):
                    await self._before_wait()
                    broken = await self._lie_in_body(body, planned)
                    if broken is not None or self._lie in self._ends_early:
                        return broken
                continue
            if part.events and paced:
                due += simulation.interval * (1 + simulation.jitter * random.uniform(-1, 1))
            if (wait := due - loop.time()) > 0:
                await self._before_wait()
                await asyncio.sleep(wait)
            elif number % WRITES_PER_TURN == 0:
                await self._before_wait()
                await asyncio.sleep(0)
            await self._put(body, part.payload, part.events)
            paced = paced or part.events > 0
        return None

    async def _put(self, body: Sink, payload: bytes, events: int) -> None:
        await body.put(payload)
        if events:
            self._listener.told(events)

    async def _lie_in_body(self, body: Sink, planned: Iterator[Part]) -> Outcome | None:
        """The lie, with what it needs of the parts that come next. None: what is left goes on."""
        match self._lie:
            case "mid-stall":
                return await self._silence()
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

    async def _long(self, body: Sink, opening: bytes, filling: bytes) -> None:
        await body.put(opening)
        left = self._simulation.total
        while left > 0:
            await body.put(filling * min(STEP, left))
            left -= STEP
            await asyncio.sleep(0)
