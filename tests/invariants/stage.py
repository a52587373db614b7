"""The relay and the provider that all schedules are played with, and what these two say about themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tests.invariants.readers import Fields, Reader, Reader1, Reader2, Sight
from tests.invariants.scripts import Script, Truth, learn
from tests.pairs.agent1 import Agent1
from tests.pairs.agent2 import Client2
from tests.pairs.calls import Agent
from tests.programs import PATIENCE, Provider, Relay
from tests.robustness.peers import until

_CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[[upstream]]
name = "one"
url = "{url}"
http = "1.1"
[[upstream]]
name = "two"
url = "{url}"
http = "2"
[[route]]
path = "/two/*"
upstream = "two"
strip_prefix = "/two"
[[route]]
path = "/*"
upstream = "one"
[timeouts]
heartbeat = "100ms"
{timeouts}
[retention]
total = "{total}"
stream = "{stream}"
"""
_KEPT_TRUTHS = 200


class Stage:
    """`relay` and `provider` are its own. Access lines are read as they come, in any order."""

    def __init__(self, folder: Path, *, timeouts: str = "", total: str = "64MiB", stream: str = "8MiB") -> None:
        self.provider = Provider()
        file = folder / "relay.toml"
        file.write_text(_CONFIG.format(url=self.provider.url, timeouts=timeouts, total=total, stream=stream))
        self.relay = Relay(file)
        self._direct = Agent1(self.provider.address)
        self._askers: dict[str, Agent] = {"1": Agent1(self.relay.address), "2": Client2(self.relay.address)}
        self._truths: dict[tuple[str, str], Truth] = {}
        self._lines: dict[str, dict[str, Any]] = {}
        self._generations: dict[str, dict[str, Any]] = {}
        self._filed = 0
        self._numbers = count(1)
        self._shared: dict[int, Client2] = {}

    def close(self) -> None:
        for agent in (self._direct, *self._askers.values()):
            agent.close()
        assert self.relay.stop() == 0
        assert self.provider.stop() == 0
        assert not [line for line in self.relay.lines if "internal" in line or "Traceback" in line]

    # The provider

    def truth(self, script: Script) -> Truth:
        key = script.dialect, script.said
        if key not in self._truths:
            if len(self._truths) >= _KEPT_TRUTHS:
                self._truths.clear()
            self._truths[key] = learn(self.provider.address, script)
        return self._truths[key]

    def reset(self) -> None:
        assert self._direct.ask("POST", "/sim/reset").answer().status == 200

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self._direct.ask(target="/sim/stats").answer().body)
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """The heads of the last requests, newest last."""
        heads: list[dict[str, Any]] = json.loads(self._direct.ask(target="/sim/requests").answer().body)
        return heads

    def wait(self, timeout: float = PATIENCE - 1, **goals: int) -> bool:
        """Until the provider's counters have come so far."""
        query = "&".join(f"{name}={value}" for name, value in {**goals, "timeout": timeout}.items())
        return self._direct.ask(target=f"/sim/wait?{query}").answer().status == 200

    def still(self) -> dict[str, Any]:
        """The provider's counters when all its answers have ended somehow."""

        def look() -> dict[str, Any] | None:
            stats = self.stats()
            ended: int = stats["finished"] + stats["aborted"] + stats["broken"]
            return stats if ended >= stats["requests"] else None

        found = until(look, "the end of the provider's answers")
        assert found is not None
        return found

    # The relay

    def name(self) -> str:
        """Something that was not used before."""
        return f"invariant-{next(self._numbers)}"

    def reader(
        self, http: str, method: str, target: str, document: object, fields: Fields, sight: Sight
    ) -> tuple[Reader, str]:
        """A request, and the name of its access line."""
        name = self.name()
        said = [*fields, ("X-Request-Id", name)]
        if sight.flush:
            said.append(("Relay-Flush", sight.flush))
        body = b""
        if method == "POST":
            said.append(("Content-Type", "application/json"))
            body = json.dumps(document).encode()
        if http == "1":
            return Reader1(self.relay.address, method, target, body, said, sight), name
        if not sight.shared:
            client = Client2(self.relay.address, window=sight.window)
        else:
            client = self._shared.get(sight.window) or Client2(self.relay.address, window=sight.window)
            self._shared[sight.window] = client
        return Reader2(client, method, target, body, said, own=not sight.shared), name

    def scatter(self) -> None:
        """Nobody reads on a shared connection any more."""
        for client in self._shared.values():
            client.close()
        self._shared.clear()

    def ask(self, http: str, method: str, target: str, fields: Sequence[tuple[str, str]] = ()) -> tuple[int, Any]:
        answer = self._askers[http].ask(method, target, None, fields).answer()
        return answer.status, json.loads(answer.body) if answer.body else None

    def line(self, name: str) -> dict[str, Any]:
        """The access line of a request, when it is here."""
        while not self.has_line(name):
            self.relay.access_line()
        return self._lines.pop(name)

    def has_line(self, name: str) -> bool:
        self._look()
        return name in self._lines

    def generation(self, stream_id: str) -> dict[str, Any]:
        """The access line of a stream, when it has ended."""
        self._look()
        while stream_id not in self._generations:
            self.relay.access_line()
            self._look()
        return self._generations[stream_id]

    def _look(self) -> None:
        output = self.relay.output
        while self._filed < len(output):
            self._file(json.loads(output[self._filed]))
            self._filed += 1

    def _file(self, line: dict[str, Any]) -> None:
        if "generation" in line:
            self._generations[line["stream_id"]] = line
        elif "request_id" in line:
            self._lines[line["request_id"]] = line
        else:
            raise AssertionError(f"a request that was none: {line}")
