"""A reader's HTTP/1.1 connection (RFC 9112): requests in, one answer at a time out.

The answer is one task, which ends at once when the reader leaves; a FIN from the reader counts as leaving. Every
counted request ends in exactly one of finished, aborted (by its reader) and broken (by the provider, as a lie).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import cast

import orjson
from answer import Outcome
from answer1 import Answer1
from body import head
from counts import Arrival
from intake import BadRequest, Intake, Request
from service import Provider, said

# A reader may pipeline; past that many waiting bytes nothing is read until the answer under way is done.
PIPELINED = 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def prepare(transport: asyncio.Transport) -> None:
    """Make the transport write what it is given at once."""
    # With no room of its own the transport pauses whoever writes until the kernel has all.
    # uvloop's TLS counts an empty buffer as full at 0, and would never resume.
    encrypted = transport.get_extra_info("ssl_object") is not None
    transport.set_write_buffer_limits(high=1 if encrypted else 0, low=0)
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Connection1(asyncio.Protocol):
    """One reader's connection. With `refusing`, all but `/sim/` is closed without a word."""

    _transport: asyncio.Transport

    def __init__(self, provider: Provider, *, refusing: bool = False) -> None:
        self._provider = provider
        self._counts = provider.counts
        self._refusing = refusing
        self._intake = Intake()
        self._number = 0  # given when the first counted request comes
        self._asked = False
        self._answering: asyncio.Task[None] | None = None
        self._arrival: Arrival | None = None  # of the counted request that is owed an answer
        self._drained: asyncio.Future[None] | None = None
        self._send_buffer = 0
        self._next_lie = ""  # what a keep-alive lie does to the next request

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        prepare(self._transport)

    def data_received(self, data: bytes) -> None:
        self._intake.feed(data)
        if self._answering is None:
            self._next_request()
        elif self._intake.waiting > PIPELINED:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._reader_left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader_left()
        if self._number:
            self._counts.add_open(-1)
        elif not self._asked:
            self._counts.add("connections_silent")
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # For the answer

    async def write(self, data: bytes) -> None:
        self._transport.write(data)
        if self._arrival is not None:
            self._counts.add("bytes", len(data))
        if self._drained is not None:
            await self._drained

    def told(self, events: int) -> None:
        self._counts.add("events", events)

    def opened(self) -> None:
        self._counts.add("opened")

    # Requests

    def _next_request(self) -> None:
        try:
            request = self._intake.request()
        except BadRequest as error:
            self._refuse(error)
            return
        if request is None:
            if self._intake.expects:
                self._intake.expects = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._asked = True
        told = request.path.startswith("/sim/")
        if self._refusing and not told:
            self._counts.add("http1_refused")
            self._transport.close()
            return
        if not told:
            self._count(request)
        answer = self._tell(request) if told else self._answer(request)
        self._answering = asyncio.get_running_loop().create_task(answer)

    def _count(self, request: Request) -> None:
        provider = self._provider
        if not self._number:
            provider.connections += 1
            self._number = provider.connections
            self._counts.add("connections")
            self._counts.add_open(1)
        self._arrival = provider.arrival(request, self._number)

    def _refuse(self, error: BadRequest) -> None:
        content = orjson.dumps(said(str(error)))
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        self._transport.write(head(error.status, [*fields, ("Connection", "close")]) + content)
        self._asked = True
        self._transport.close()

    async def _tell(self, request: Request) -> None:
        status, content = await self._provider.told(request)
        body = orjson.dumps(content)
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        await self.write(head(status, fields) + body)
        self._go_on(Outcome.REUSE if request.keeps_alive() else Outcome.CLOSE)

    async def _answer(self, request: Request) -> None:
        if self._next_lie:
            if self._next_lie == "half-answer-stale":
                await self.write(b"HTTP/1.1 2")
            self._go_on(Outcome.BREAK)
            return
        simulation, script = self._provider.prepared(request)
        if simulation.sndbuf and simulation.sndbuf != self._send_buffer:
            self._send_buffer = simulation.sndbuf
            self._socket_option(socket.SO_SNDBUF, self._send_buffer)
        outcome = await Answer1(self, request, script, simulation).run()
        if simulation.lie in ("stale", "half-answer-stale"):
            self._next_lie = simulation.lie
        self._go_on(Outcome.CLOSE if simulation.lie == "close-idle" else outcome)

    def _go_on(self, outcome: Outcome) -> None:
        """After an answer: count it, and close or take the next request."""
        self._answering = None
        if self._arrival is not None:
            self._arrival = None
            self._counts.add("finished" if outcome in (Outcome.REUSE, Outcome.CLOSE) else "broken")
        if outcome is Outcome.RESET:
            self._socket_option(socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()
        elif outcome is not Outcome.REUSE:
            self._transport.close()
        else:
            self._transport.resume_reading()
            self._next_request()

    def _reader_left(self) -> None:
        """The generation stops now; what was still to be sent is thrown away."""
        if self._answering is None:
            return
        self._answering.cancel()
        self._answering = None
        if self._arrival is not None:
            self._arrival.gone = time.monotonic()
            self._arrival = None
            self._counts.add("aborted")
        self._transport.abort()

    def _socket_option(self, option: int, value: int | bytes) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, value)
