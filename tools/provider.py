"""A simulated model provider over HTTP/1.1, for tests, benchmarks and demonstrations.

    .venv/bin/python tools/provider.py --listen 127.0.0.1:9000 --set interval=50ms --set events=200
    curl -H 'Simulate: lie=cut; at=5' -d '{"stream": true}' http://127.0.0.1:9000/v1/chat/completions

Serves OpenAI's chat completions, completions and responses, Anthropic's messages, Ollama's chat,
`/v1/models`, `/echo`, `/redirect`, `/sse/ticker` and `/raw/...`. What an answer is like, and how it lies, say
the keys of simulation (`--help` lists them). `/sim/stats`, `/sim/wait`, `/sim/requests` and `/sim/reset` tell
what reached the provider; they and their connections are in no count.

A connection carries one request at a time; the answer is one task, which ends at once when the reader leaves.
A FIN from the reader counts as leaving. Every counted request ends in exactly one of finished, aborted (by
its reader) and broken (by the provider, as a lie).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import socket
import ssl
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl

# The neighbours are found whether this file is run or imported.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import orjson
import uvloop
from answer import Answer, Outcome
from body import head
from counts import Arrival, Counts
from dialects import Document, Json, Messages, Ollama, Raw, Script, Ticker
from dialects_openai import Chat, Completions, Responses
from intake import BadRequest, Intake, Request
from simulation import KEYS, LIES, BadSimulation, Simulation, duration, read

DIALECTS: dict[str, type[Script]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completions,
    "/v1/responses": Responses,
    "/v1/messages": Messages,
    "/api/chat": Ollama,
}
RECENT = 100
ECHOED_TEXT = 64 * 1024
# A reader may pipeline; past that many waiting bytes nothing is read until the answer under way is done.
PIPELINED = 1024 * 1024
BACKLOG = 8192  # connections come by the thousand at once
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Provider:
    """What all connections share."""

    def __init__(self, defaults: Simulation) -> None:
        self.defaults = defaults
        self.counts = Counts()
        self.recent: deque[Arrival] = deque(maxlen=RECENT)
        self.connections = 0

    def simulation(self, request: Request) -> Simulation:
        return read(self.defaults, (request.header("simulate") or "").split(";"))

    def script(self, request: Request, simulation: Simulation) -> Script:
        """What to answer; a fault of the request itself is an answer as well."""
        path, is_get = request.path, request.method in ("GET", "HEAD")
        if path == "/echo" or path.startswith("/echo/"):
            return Document(simulation, _echo(request))
        if path == "/redirect":
            return Document(simulation, {}, 302, [("Location", "/redirected")])
        if path.startswith("/raw/"):
            return Raw(simulation, {})
        if path == "/sse/ticker" and is_get:
            return Ticker(simulation, {})
        if path == "/v1/models" and is_get:
            return Document(simulation, _models(request))
        if path in ("/sse/ticker", "/v1/models"):
            return Document(simulation, _error(f"{path} takes GET"), 405)
        if path not in DIALECTS:
            return Document(simulation, _error(f"no such path: {path}"), 404)
        if request.method != "POST":
            return Document(simulation, _error(f"{path} takes POST"), 405)
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            return Document(simulation, _error(f"the body is not JSON: {error}"), 400)
        if not isinstance(body, dict):
            return Document(simulation, _error("the body is not a JSON object"), 400)
        return DIALECTS[path](simulation, body)

    async def told(self, request: Request) -> tuple[int, object]:
        """Status and content of an answer about the provider itself."""
        match request.method, request.path:
            case "GET", "/sim/stats":
                return 200, self.counts.document()
            case "GET", "/sim/requests":
                return 200, [arrival.document() for arrival in self.recent]
            case "POST", "/sim/reset":
                self.counts.reset()
                self.recent.clear()
                return 200, self.counts.document()
            case "GET", "/sim/wait":
                return await self._wait(request.query)
        return 404, _error("GET /sim/stats, /sim/requests, /sim/wait and POST /sim/reset are all there is")

    async def _wait(self, query: str) -> tuple[int, object]:
        goals: dict[str, int] = {}
        timeout = 5.0
        for name, value in parse_qsl(query, keep_blank_values=True):
            try:
                if name == "timeout":
                    timeout = duration(value)
                elif name in self.counts.document():
                    goals[name] = int(value)
                else:
                    return 400, _error(f"unknown counter {name!r}")
            except ValueError as error:
                return 400, _error(f"bad value {value!r} for {name!r}: {error}")
        met = await self.counts.reached(goals, timeout)
        return (200 if met else 408), self.counts.document()


def _error(message: str) -> Json:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _echo(request: Request) -> Json:
    echo: Json = request.description()
    if len(request.body) < ECHOED_TEXT:
        echo["body"] = request.body.decode(errors="replace")
    return echo


def _models(request: Request) -> Json:
    names = ("sim-1", "sim-2")
    if request.header("anthropic-version") is None:
        listed = [{"id": name, "object": "model", "created": 1_750_000_000, "owned_by": "sim"} for name in names]
        return {"object": "list", "data": listed}
    created = "2025-06-15T15:06:40Z"
    data = [{"type": "model", "id": name, "display_name": name, "created_at": created} for name in names]
    return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}


class Connection(asyncio.Protocol):
    """One reader's connection: requests in, one answer at a time out."""

    _transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._counts = provider.counts
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
        # With no room of its own the transport writes at once, and `write` below returns when the kernel has
        # all.
        # uvloop's TLS counts an empty buffer as full at 0, and would never resume.
        encrypted = transport.get_extra_info("ssl_object") is not None
        self._transport.set_write_buffer_limits(high=1 if encrypted else 0, low=0)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

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
        self._arrival = Arrival(request.description(), self._number, time.monotonic())
        provider.recent.append(self._arrival)
        self._counts.add("requests")

    def _refuse(self, error: BadRequest) -> None:
        content = orjson.dumps(_error(str(error)))
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
        simulation = Simulation()
        try:
            simulation = self._provider.simulation(request)
            script = self._provider.script(request, simulation)
        except BadSimulation as error:
            script = Document(simulation, _error(str(error)), 400)
        if simulation.sndbuf and simulation.sndbuf != self._send_buffer:
            self._send_buffer = simulation.sndbuf
            self._socket_option(socket.SO_SNDBUF, self._send_buffer)
        outcome = await Answer(self, request, script, simulation).run()
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


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(host: str, port: int, defaults: Simulation, tls: ssl.SSLContext | None) -> None:
    """Until SIGTERM or SIGINT. Raises OSError when the address cannot be had."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    provider = Provider(defaults)
    server = await loop.create_server(lambda: Connection(provider), host, port, backlog=BACKLOG, ssl=tls)
    bound = server.sockets[0].getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    print(
        f"provider listening on {'https' if tls else 'http'}://{shown}:{bound[1]}",
        file=sys.stderr,
        flush=True,
    )
    await stopped.wait()
    # Live answers are not waited for: their readers see what a provider's crash looks like.
    server.close()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _arguments() -> argparse.Namespace:
    keys = "\n".join(f"  {name:13}{meaning}" for name, (_, meaning) in KEYS.items())
    parser = argparse.ArgumentParser(
        description="A simulated model provider.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys, for --set and for the request header `Simulate: key=value; key=value`:\n{keys}\n\n"
        f"lies: {', '.join(sorted(LIES))}",
    )
    parser.add_argument(
        "--listen", type=_address, default=("127.0.0.1", 9000), metavar="HOST:PORT", help="port 0: a free one"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every answer")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    return parser.parse_args()


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def main() -> int:
    """0 after a signal; 2 when the arguments or the address cannot be used."""
    arguments = _arguments()
    _raise_file_limit()
    host, port = arguments.listen
    try:
        defaults = read(Simulation(), arguments.set)
        tls = _tls(arguments)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(host, port, defaults, tls))
    except BadSimulation as error:
        print(f"provider: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"provider: cannot listen on {host}:{port}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
