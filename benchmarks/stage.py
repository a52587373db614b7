"""One act: a provider, a subject and a client, and what is counted while they work.

The subject has one core to itself. Provider, client and whatever makes the network bad share the other.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import Memory, Process, RunError, Usage, family, free_port, memory, usage
from benchmarks.subjects import Setting, Subject, flags

RELAY_CORE, LOAD_CORE = 0, 1
MANY_CONNECTIONS = {1: 20_000, 2: 1000}  # by the provider's protocol: more than any scenario takes
DRAIN_SECONDS = 30.0
PATIENCE = 10.0  # seconds that a client's leaving may take to reach the provider


@dataclass(frozen=True)
class Act:
    """What is played: the flags of both ends, as benchmarks/load/load.c has them."""

    streams: int
    seconds: float  # of the window
    provider: dict[str, object]
    client: dict[str, object] = field(default_factory=dict)
    switches: Sequence[str] = ()  # of the client, those without a value
    ramp: float = 0.5  # seconds
    warmup: float = 1.0
    client_http: int = 1
    provider_http: int = 1
    tls: bool = False
    network: dict[str, object] | None = None  # between client and subject
    leaves: bool = False  # clients go before their answers have ended
    drains: bool = False  # the client goes on after its window until its answers have ended
    connections: int | None = None  # to the provider, at most


@dataclass
class Seen:
    """What was counted, from the beginning of the window to its end (or until all had ended, where it drains)."""

    window: float = 0.0  # seconds of the window
    span: float = 0.0  # seconds that the usage is of
    relay: Usage = field(default_factory=Usage)
    client_core: float = 0.0  # shares of their core
    provider_core: float = 0.0
    idle: Memory = field(default_factory=Memory)  # before the first stream
    opened: Memory = field(default_factory=Memory)  # at the window's end
    client: dict[str, Any] = field(default_factory=dict)
    provider: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Where acts are played: the programs in C, a certificate."""

    programs: Path
    certificate: Path | None = None
    key: Path | None = None

    def play(self, subject: Subject, act: Act) -> Seen:
        """One run. Raises RunError if nothing came of it."""
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))

            def start(name: str, command: Sequence[str], core: int, **more: Any) -> Process:
                process = Process(name, command, core, directory, **more)
                stack.callback(process.stop)
                return process

            return self._play(subject, act, start, directory)

    def _play(self, subject: Subject, act: Act, start: Callable[..., Process], directory: Path) -> Seen:
        load = str(self.programs / "load")
        seen = Seen()
        provider_port = port = free_port()
        provider = start(
            "provider",
            [load, "provider", *flags(port=port, http=act.provider_http, **act.provider), "--closes"],
            LOAD_CORE,
        )
        provider.wait_ready(port)
        relay: Process | None = None
        if subject.name != "direct":
            port = free_port()
            setting = Setting(
                port=port,
                provider_port=provider_port,
                provider_http=act.provider_http,
                connections=act.connections or MANY_CONNECTIONS[act.provider_http],
                streams=act.streams,
                client_http=act.client_http,
                directory=directory,
                certificate=self.certificate if act.tls else None,
                key=self.key if act.tls else None,
            )
            command = subject.command(setting)
            relay = start(subject.name, command, RELAY_CORE, environment=subject.environment(setting), speaks=False)
            relay.wait_ready(port, subject.ready_seconds, subject.ready_path, secure=act.tls)
            time.sleep(0.3)  # workers start, the probe's connection goes
            relay.pids = family(relay.popen.pid)
            seen.idle = memory(relay.pids)
        network: Process | None = None
        if act.network is not None:
            behind, port = port, free_port()
            command = [str(self.programs / "network"), *flags(listen=port, connect=behind, **act.network)]
            network = start("network", command, LOAD_CORE)
            network.wait_ready(port)
        client = start(
            "client",
            [
                *[load, "client", "--hold", *(f"--{switch}" for switch in act.switches), *(["--tls"] * act.tls)],
                *flags(port=port, http=act.client_http, streams=act.streams, ramp_seconds=act.ramp),
                *flags(seconds=act.seconds, warmup=act.warmup, **act.client),
            ],
            LOAD_CORE,
        )

        def snapshot() -> tuple[float, list[Usage]]:
            if relay:
                relay.pids = family(relay.popen.pid)  # a worker may have started late
            families = (relay.pids if relay else [], client.pids, provider.pids)
            return time.monotonic(), [usage(pids) for pids in families]

        client.line(act.ramp + act.warmup + 45)  # "measuring"
        before = snapshot()
        provider.popen.send_signal(signal.SIGUSR1)  # its lateness counts from here
        provider.line(5)
        client.line(act.seconds + 15)  # "measured"
        after = snapshot()
        if relay:
            if relay.popen.poll() is not None:
                raise RunError(relay.why_gone())
            seen.opened = memory(relay.pids)
        seen.window = after[0] - before[0]
        if act.drains:
            client.line(DRAIN_SECONDS)  # "drained"
            after = snapshot()
        seen.span = after[0] - before[0]
        seen.relay, in_client, in_provider = (late - early for early, late in zip(before[1], after[1], strict=True))
        seen.client_core = in_client.total_ns / 1e9 / seen.span
        seen.provider_core = in_provider.total_ns / 1e9 / seen.span
        seen.provider = self._ask_provider(provider, act)
        client.stdin.close()
        seen.client = json.loads(client.line(15))
        if network:
            network.popen.send_signal(signal.SIGUSR1)
            seen.network = json.loads(network.line(5))
        return seen

    def _ask_provider(self, provider: Process, act: Act) -> dict[str, Any]:
        """Its counters; where clients leave, once it knows of the last of them, or after PATIENCE."""
        deadline = time.monotonic() + (PATIENCE if act.leaves else 0)
        while True:
            provider.popen.send_signal(signal.SIGUSR1)
            told: dict[str, Any] = json.loads(provider.line(5))
            if not told["streams_open"] or time.monotonic() >= deadline:
                return told
            time.sleep(0.05)


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
