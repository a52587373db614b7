"""What one pair is made of: how its clients and its provider speak, and its relays."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.pairs.agent1 import Agent1
from tests.pairs.agent2 import Client2
from tests.pairs.calls import Agent, Outcome
from tests.pairs.origin import Arrived, Origin, Reply
from tests.programs import PATIENCE, Provider, Relay, config_text
from tests.robustness.peers import until

ALL_PAIRS = tuple((versions, transport) for transport in ("clear", "tls") for versions in ("1-1", "1-2", "2-1", "2-2"))


def over(*versions: str, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Run a test for these versions alone: it is about something that the others do not have. `without`: pairs that
    only take their time again, where TLS has no part in what is tested; PAIRS=few leaves them out."""
    if os.environ.get("PAIRS") != "few":
        without = ()
    chosen = [pair for pair in ALL_PAIRS if pair[0] in versions and "-".join(pair) not in without]
    return pytest.mark.parametrize(
        "_pair", chosen, ids=["-".join(pair) for pair in chosen], indirect=True, scope="session"
    )


CLIENT_2 = over("2-1", "2-2", without=("2-2-tls",))
UPSTREAM_2 = over("1-2", "2-2", without=("2-2-tls",))
_VERSIONS = ("1-1", "1-2", "2-1", "2-2")
# What is decided above the transport: over TLS once for each version on each side.
MOST = over(*_VERSIONS, without=("1-1-tls", "2-2-tls"))
# What waits for a timeout, which TLS has no part in.
TIMED = over(*_VERSIONS, without=("1-1-tls", "1-2-tls", "2-1-tls", "2-2-tls"))
_HASTY = """
request_head = 0.4
request_body = 0.3
keep_alive = 0.4
head = 0.4
first_event = 0.4
idle = 0.4
heartbeat = 0.12
"""


class Control:
    """Asks the provider about itself, on a connection that is kept and not counted."""

    def __init__(self, connection: Agent1) -> None:
        self._connection = connection

    def reset(self) -> None:
        assert self._connection.ask("POST", "/sim/reset").answer().status == 200

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self._connection.ask(target="/sim/stats").answer().body)
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """The heads of the last requests, newest last."""
        heads: list[dict[str, Any]] = json.loads(self._connection.ask(target="/sim/requests").answer().body)
        return heads

    def wait(self, **goals: int) -> None:
        """Until the counters have come so far."""
        query = "&".join(f"{name}={value}" for name, value in {**goals, "timeout": int(PATIENCE) - 1}.items())
        answer = self._connection.ask(target=f"/sim/wait?{query}").answer()
        assert answer.status == 200, f"the provider's counters did not reach {goals}: {answer.body!r}"


@dataclass
class Pair:
    """`client` and `upstream` are versions, "1" or "2"; `certificate` is of everybody, for localhost and relay.test.
    A relay is one of the pair's, with these tables in its configuration; relays with the same are one."""

    client: str
    upstream: str
    secure: bool
    provider: Provider
    certificate: tuple[Path, Path]
    folder: Path
    _relays: dict[str, Relay] = field(default_factory=dict)
    _made: list[Relay] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict)
    _origin: Origin | None = None
    _control: Control | None = None

    @property
    def relay(self) -> Relay:
        return self.relay_with()

    @property
    def hasty(self) -> Relay:
        """One that waits for nobody."""
        return self.relay_with(timeouts=_HASTY)

    def relay_with(self, *, url: str | None = None, env: dict[str, str] | None = None, **tables: str) -> Relay:
        """One that others use as well."""
        key = json.dumps([url, env, tables], sort_keys=True)
        if key not in self._relays:
            self._relays[key] = self.make_relay(url=url, env=env, **tables)
        return self._relays[key]

    def make_relay(
        self,
        *,
        url: str | None = None,
        env: dict[str, str] | None = None,
        server: str = "",
        upstream_extra: str = "",
        **tables: str,
    ) -> Relay:
        """One of the test's own."""
        if url is None:
            url = f"https://localhost:{self.provider.port}" if self.secure else self.provider.url
        if self.secure:
            server += '\nlisten_tls = ["127.0.0.1:0"]'
            server += f'\ncertificate = "{self.certificate[0]}"\ncertificate_key = "{self.certificate[1]}"'
            upstream_extra += f'\nca_file = "{self.certificate[0]}"'
        # Over TLS the handshake chooses HTTP/2 by itself.
        http = "1.1" if self.upstream == "1" else "auto" if self.secure else "2"
        upstream_extra += f'\nhttp = "{http}"'
        file = self.folder / f"relay{len(self._made)}.toml"
        file.write_text(config_text(url, server=server, upstream_extra=upstream_extra, **tables))
        relay = Relay(file, env=env)
        self._made.append(relay)
        return relay

    def look(self) -> None:
        """No relay has said since the last look that something is wrong with itself."""
        new: list[str] = []
        for number, relay in enumerate(self._made):
            lines = relay.lines[self._seen.get(number, 0) :]
            self._seen[number] = self._seen.get(number, 0) + len(lines)
            new += [line for line in lines if "internal" in line or "Traceback" in line]
        assert not new, new

    def end(self) -> None:
        """All its relays have ended well."""
        for number, relay in enumerate(self._made):
            code = relay.stop()
            assert code == 0, f"relay{number} in {self.folder} ended with {code}: {relay.lines}"
        if self._origin is not None:
            self._origin.close()
        self.look()

    # Clients

    def agent(self, relay: Relay | None = None, *, receive_buffer: int | None = None) -> Agent:
        relay = relay or self.relay
        if self.client == "1":
            return self.agent1(relay, receive_buffer=receive_buffer)
        return self.agent2(relay, receive_buffer=receive_buffer)

    def agent1(self, relay: Relay, *, receive_buffer: int | None = None) -> Agent1:
        return Agent1(self._place(relay), self.trust("http/1.1"), receive_buffer=receive_buffer)

    def agent2(self, relay: Relay, *, receive_buffer: int | None = None, window: int = 65535) -> Client2:
        return Client2(self._place(relay), self.trust("h2"), receive_buffer=receive_buffer, window=window)

    def _place(self, relay: Relay) -> tuple[str, int]:
        return relay.secure_address if self.secure else relay.address

    def trust(self, protocol: str) -> ssl.SSLContext | None:
        if not self.secure:
            return None
        context = ssl.create_default_context(cafile=str(self.certificate[0]))
        context.set_alpn_protocols([protocol])
        return context

    def direct(self) -> Agent1:
        """To the provider itself, without the relay."""
        return Agent1(self.provider.address, self.trust("http/1.1"))

    # Providers

    @contextlib.contextmanager
    def origin(
        self, answer: Callable[[Arrived], Reply] | Reply | None = None, *, early: bool = False
    ) -> Iterator[Origin]:
        """The pair's own provider, with no requests yet and these answers."""
        if self._origin is None:
            self._origin = Origin(self.upstream, self.certificate if self.secure else None)
        origin, said = self._origin, answer or Reply()
        origin.answer = (lambda request: said) if isinstance(said, Reply) else said
        origin.early = early
        origin.requests = []
        try:
            yield origin
        finally:
            origin.reading.set()

    @property
    def counts(self) -> Control:
        if self._control is None:
            self._control = Control(self.direct())
        return self._control

    def stats(self) -> dict[str, Any]:
        return self.counts.stats()

    # What must hold

    def line(self, relay: Relay, request_id: str) -> dict[str, Any]:
        """The access line of a request, whenever it comes among others."""

        def find() -> dict[str, Any] | None:
            lines = (json.loads(line) for line in relay.output[:])
            return next((line for line in lines if line.get("request_id") == request_id), None)

        found = until(find, f"the access line of {request_id}")
        assert found is not None
        return found

    def broken_off(self, answer: Outcome) -> None:
        """An answer that has begun and is not whole: the client sees it by the end of all it has, its stream."""
        assert not answer.clean
        assert answer.broken == ("INTERNAL_ERROR" if self.client == "2" else "connection")
