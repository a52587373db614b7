"""Where attacks happen: a relay, a provider behind it, an innocent client beside the attacker; and what each cost."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.attacks.script import Attacker
from tests.programs import PATIENCE, Program, Provider, Relay
from tests.robustness.peers import serves, until

_MIB = 1024 * 1024
# What one attack may add to the relay's memory at its worst.
GROWTH_LIMIT = 16 * _MIB
# Of the requests of one attack: the bucket of resets, and what runs back into it (a second) before the end.
_BUCKET, _REFILL = 100, 10
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Case:
    """One attack under way. `lines` is the access log since it began, when it is over."""

    name: str
    relay: Relay
    attackers: list[Attacker] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)

    def connect(self, *settings: tuple[int, int], reads: bool = True, window: int | None = None) -> Attacker:
        """Another connection of the attacker's; it is closed when the attack is over."""
        self.attackers.append(Attacker(self.relay.address, *settings, reads=reads, window=window))
        return self.attackers[-1]

    @property
    def sent(self) -> int:
        return sum(attacker.sent for attacker in self.attackers)


class Ground:
    """Requests go to the provider's HTTP/1.1, those under /two/ to its HTTP/2, and those under /evil/ to the url
    `evil`, over HTTP/2."""

    def __init__(self, directory: Path, *, timeouts: str = "", evil: str = "http://127.0.0.1:9") -> None:
        self.provider = Provider()
        file = directory / "relay.toml"
        file.write_text(_CONFIG.format(url=self.provider.url, evil=evil, timeouts=timeouts))
        self.relay = Relay(file)
        innocent = [sys.executable, str(Path(__file__).with_name("innocent.py")), str(self.relay.port)]
        self.innocent = Program(innocent, r"innocent reads from (\d+)")
        # The first of a kind costs memory that is no attack's: tables, code paths, the pool's first connection.
        serves(self.relay.address)

    def stop(self) -> None:
        self.innocent.process.kill()
        self.innocent.process.wait()
        codes = self.relay.stop(), self.provider.stop()
        assert codes == (0, 0)
        assert not [line for line in self.relay.lines if "internal" in line or "Traceback" in line], self.relay.lines

    @contextlib.contextmanager
    def attack(self, name: str, *, growth: int = GROWTH_LIMIT) -> Iterator[Case]:
        """What is done inside is held against what must be true of every attack.

        Few requests reach the provider, and all end; the relay gives back its descriptors, grows by less than
        `growth` (bytes) at its worst, has no defect to report, and relays as before; the innocent client misses no
        event.
        """
        relay, provider = self.relay, self.provider
        self._heard(2)
        self._everything_logged()  # of what was before
        provider.reset()
        descriptors = self._descriptors()
        memory, output, began, cpu = relay.resident(), len(relay.output), time.monotonic(), _cpu(relay)
        _forget_peak(relay)
        case = Case(name, relay)
        with contextlib.ExitStack() as stack:
            yield case
            for attacker in case.attackers:
                stack.push(attacker)
        elapsed = time.monotonic() - began
        until(self._requests_ended, f"the end of every request at the provider: {provider.stats()}")
        until(lambda: self._descriptors() <= descriptors, f"{descriptors} descriptors again: {self._descriptors()}")
        cost, peak = _cpu(relay) - cpu, _peak(relay) - memory
        case.stats = provider.stats()
        gap = self._heard(2, since=began)
        self._everything_logged()
        case.lines = [json.loads(line) for line in relay.output[output:]]
        _report(case, cost, peak, gap)
        requests = case.stats["requests"]
        # One more: what is too much has itself begun.
        assert requests <= _BUCKET + 1 + _REFILL * elapsed, (
            f"{requests} requests reached the provider in {elapsed:.1f} s"
        )
        assert not relay.lines[1:], relay.lines
        assert peak < growth, f"the relay grew by {peak / _MIB:.1f} MiB"
        serves(relay.address)

    def _everything_logged(self) -> None:
        """The log is written in order, by a thread of its own: the line of a request made now is the last."""
        marker = secrets.token_hex(8)
        connection = http.client.HTTPConnection(*self.relay.address, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz", headers={"X-Request-Id": marker})
            assert connection.getresponse().status == 200
        until(lambda: any(marker.encode() in line for line in self.relay.output[-100:]), "the last access line")

    def _requests_ended(self) -> bool:
        stats = self.provider.stats()
        return stats["requests"] == stats["finished"] + stats["aborted"] + stats["broken"]

    def _descriptors(self) -> int:
        """Of the relay, its idle connections to the provider aside."""
        return self.relay.descriptors() - self.provider.stats()["connections_open"]

    def _heard(self, more: int, since: float = 0.0) -> float:
        """Wait until the innocent client has so many further events; its longest wait for one `since` a time
        (seconds). None may be missing."""
        output = self.innocent.output
        goal = len(output) + more

        def came() -> bool:
            assert self.innocent.process.poll() is None, "the innocent client's stream ended"
            return len(output) >= goal

        until(came, "the innocent client's next event")
        events = [line.split() for line in output[:goal]]
        assert [int(event[0]) for event in events] == list(range(1, goal + 1)), "the innocent client misses events"
        times = [float(event[1]) for event in events]
        return max((later - earlier for earlier, later in itertools.pairwise(times) if later >= since), default=0.0)


_CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[[upstream]]
name = "one"
url = "{url}"
[[upstream]]
name = "two"
url = "{url}"
http = "2"
[[upstream]]
name = "evil"
url = "{evil}"
http = "2"
[[route]]
path = "/evil/*"
upstream = "evil"
strip_prefix = "/evil"
[[route]]
path = "/two/*"
upstream = "two"
strip_prefix = "/two"
[[route]]
path = "/*"
upstream = "one"
[timeouts]
{timeouts}
"""


def one_line(case: Case, code: int) -> None:
    """The connection's end is one line in the access log."""
    lines = [line for line in case.lines if line.get("detail", "").startswith("HTTP/2 error") and "method" not in line]
    assert len(lines) == 1, lines
    assert lines[0]["reason"] == "client_error"
    assert lines[0]["detail"].startswith(f"HTTP/2 error {int(code)}:"), lines


def _cpu(program: Program) -> float:
    """Seconds of CPU so far."""
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _forget_peak(program: Program) -> None:
    Path(f"/proc/{program.pid}/clear_refs").write_text("5")


def _peak(program: Program) -> int:
    """The most resident memory since it was last forgotten (bytes)."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _report(case: Case, cpu: float, peak: int, gap: float) -> None:
    file = os.environ.get("ATTACKS_REPORT")
    if file is None:
        return
    per_byte = cpu / case.sent * 1e6 if case.sent else 0.0
    values = (
        f"{case.sent / 1024:.0f} KiB sent",
        f"{cpu:.2f} s CPU",
        f"{per_byte:.2f} us/byte",
        f"+{peak / _MIB:.1f} MiB",
        f"{case.stats['requests']} requests",
        f"{case.stats['connections'] + case.stats['connections_silent']} connections",
        f"gap {gap * 1000:.0f} ms",
        f"{len(case.lines)} lines",
    )
    with Path(file).open("a") as report:
        print(f"{case.name:40}", *values, sep=" | ", file=report)
