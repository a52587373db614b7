"""What all connections of the simulated provider share, whatever version of HTTP they speak.

Which answer a path has, what is told about the provider itself under `/sim/`, and the requests that `lie=refuse` has
seen.
"""

from __future__ import annotations

import time
from collections import deque
from urllib.parse import parse_qsl

import orjson
from counts import Arrival, Counts
from dialects import Document, Json, Messages, Ollama, Raw, Script, Ticker
from dialects_openai import Chat, Completions, Responses
from intake import Request
from simulation import BadSimulation, Simulation, check, duration, read

DIALECTS: dict[str, type[Script]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completions,
    "/v1/responses": Responses,
    "/v1/messages": Messages,
    "/api/chat": Ollama,
}
RECENT = 100
ECHOED_TEXT = 64 * 1024


class Provider:
    """What all connections share."""

    def __init__(self, defaults: Simulation) -> None:
        self.defaults = defaults
        self.counts = Counts()
        self.recent: deque[Arrival] = deque(maxlen=RECENT)
        self.connections = 0
        self._refused: dict[str, int] = {}

    def prepared(self, request: Request) -> tuple[Simulation, Script]:
        """How to answer, and with what; what cannot be simulated is an answer that says so."""
        try:
            simulation = self._simulation(request)
            return simulation, self._script(request, simulation)
        except BadSimulation as error:
            simulation = Simulation()
            return simulation, Document(simulation, said(str(error)), 400)

    def refuses(self, request: Request) -> bool:
        """Whether the request is to get a REFUSED_STREAM; if so, it is one refusal fewer for those like it."""
        try:
            simulation = self._simulation(request)
        except BadSimulation:
            return False
        if simulation.lie != "refuse":
            return False
        key = simulation.key or request.header("simulate") or ""
        before = self._refused.get(key, 0)
        if before >= simulation.times:
            return False
        self._refused[key] = before + 1
        return True

    def arrival(self, request: Request, connection: int) -> Arrival:
        """Keep the request among the recent ones."""
        arrival = Arrival(request.description(), connection, time.monotonic())
        self.recent.append(arrival)
        self.counts.add("requests")
        return arrival

    def _simulation(self, request: Request) -> Simulation:
        simulation = read(self.defaults, (request.header("simulate") or "").split(";"))
        check(simulation, request.version)
        return simulation

    def _script(self, request: Request, simulation: Simulation) -> Script:
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
            return Document(simulation, said(f"{path} takes GET"), 405)
        if path not in DIALECTS:
            return Document(simulation, said(f"no such path: {path}"), 404)
        if request.method != "POST":
            return Document(simulation, said(f"{path} takes POST"), 405)
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            return Document(simulation, said(f"the body is not JSON: {error}"), 400)
        if not isinstance(body, dict):
            return Document(simulation, said("the body is not a JSON object"), 400)
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
                self._refused.clear()
                return 200, self.counts.document()
            case "GET", "/sim/wait":
                return await self._wait(request.query)
        return 404, said("GET /sim/stats, /sim/requests, /sim/wait and POST /sim/reset are all there is")

    async def _wait(self, query: str) -> tuple[int, object]:
        goals: dict[str, int] = {}
        timeout = 5.0
        for name, value in parse_qsl(query, keep_blank_values=True):
            try:
                if name == "timeout":
                    timeout = duration(value)
                elif self.counts.knows(name):
                    goals[name] = int(value)
                else:
                    return 400, said(f"unknown counter {name!r}")
            except ValueError as error:
                return 400, said(f"bad value {value!r} for {name!r}: {error}")
        met = await self.counts.reached(goals, timeout)
        return (200 if met else 408), self.counts.document()


def said(message: str) -> Json:
    """What is wrong, in the form of OpenAI's errors."""
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
