"""An answer over HTTP/1.0 or 1.1 (RFC 9112): its head, its framing, and the lies in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from random import Random

from answer import HINT_LINK, HUGE_FIELD, Answer, Outcome, Part, Sink
from body import Body, Peer, head
from dialects import Script
from intake import Request
from simulation import IN_HEAD, Simulation

HINT = head(103, [("Link", HINT_LINK)])
FILL = 1024  # bytes of one field of an endless head
EXTENSION = b";x=" + b"e" * 4096
TRAILERS = b"X-Checksum: 0\r\n"
# Fields that are no trailers (RFC 9110, 6.5.1): whoever takes them over believes a body about its own framing.
FALSE_TRAILERS = b"Content-Length: 5\r\nHost: elsewhere.example\r\n" + TRAILERS
SURPLUS = b"data: behind the end\n\n"


class Answer1(Answer):
    """One answer on a connection that carries one at a time."""

    _body: Body

    def __init__(self, peer: Peer, request: Request, script: Script, simulation: Simulation) -> None:
        super().__init__(peer, request, script, simulation)
        self._peer = peer
        self._closes = self._framing == "close" or simulation.http10 or not request.keeps_alive()

    def _complete(self) -> Outcome:
        return Outcome.CLOSE if self._closes else Outcome.REUSE

    # The head

    async def _write_head(self, length: int) -> None:
        simulation = self._simulation
        version = "HTTP/1.0" if simulation.http10 else "HTTP/1.1"
        data = head(self._status(), self._fields() + self._framing_fields(length), version)
        if self._lie in IN_HEAD:
            data = self._spoiled_head(data, length)
        data = HINT * self._hints() + data
        if self._lie == "slow-head":
            for byte in data:
                await self._peer.write(b"%c" % byte)
                await asyncio.sleep(simulation.interval)
            return
        await self._peer.write(data)

    def _framing_fields(self, length: int) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        if self._framing == "chunked":
            fields.append(("Transfer-Encoding", "chunked"))
        elif self._framing == "length":
            fields.append(("Content-Length", str(length)))
        if self._closes or self._lie == "close-idle":
            fields.append(("Connection", "close" if self._closes else "keep-alive"))
        return fields

    def _spoiled_head(self, data: bytes, length: int) -> bytes:
        line, fields = data.split(b"\r\n", 1)
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

    # The body

    def _open_body(self) -> Sink:
        self._body = Body(self._peer, self._simulation, self._framing)
        return self._body

    async def _lie_in_body(self, body: Sink, planned: Iterator[Part]) -> Outcome | None:
        match self._lie:
            case "cut" | "short":
                return Outcome.BREAK
            case "cut-reset":
                return Outcome.RESET
            case "bad-chunk":
                await self._peer.write(b"not a size\r\n" + next(planned).payload + b"\r\n")
                return await self._silence()
            case "chunk-extension-flood":
                self._body.extension = EXTENSION
                return None
        return await super()._lie_in_body(body, planned)

    async def _end(self) -> Outcome | None:
        match self._lie:
            case "trailers":
                await self._body.end(trailers=FALSE_TRAILERS)
            case "after-end" | "long":
                await self._body.end(surplus=SURPLUS)
            case "hold-open":
                await self._body.end(last_chunk=False)
                await self._silence()
            case _:
                await self._body.end(trailers=TRAILERS if self._simulation.trailers else b"")
        # A stream that a lie ended early is shorter than the length it announced: only the close can end it.
        short = self._framing == "length" and (
            self._lie == "half-event" or (self._streamed and self._lie in ("error", "no-done"))
        )
        return Outcome.CLOSE if short else None
