"""The processes of a benchmark: each on one core, what they use, and how they end."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import selectors
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

READY_SECONDS = 10


class BenchError(Exception):
    """Nothing can be measured: the arguments or the machine are at fault."""


class RunError(Exception):
    """One run failed; the others go on."""


@dataclass(frozen=True)
class Usage:
    """What a group of processes has used since they started: CPU, and calls of read(2), write(2) and their kin.

    The kernel does not count recv(2) and send(2) among these: of nginx it shows the writes only, of floor nothing.
    """

    total_ns: int = 0
    user_ticks: int = 0
    system_ticks: int = 0
    reads: int = 0
    writes: int = 0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.total_ns - other.total_ns,
            self.user_ticks - other.user_ticks,
            self.system_ticks - other.system_ticks,
            self.reads - other.reads,
            self.writes - other.writes,
        )


@dataclass(frozen=True)
class Memory:
    """Of a group of processes, in KiB. Pss counts a shared page once, RSS once for each process."""

    rss: int = 0
    pss: int = 0


def read_proc(path: str) -> str:
    """A file of a process that may be gone by now, or somebody else's, which then counts for nothing."""
    try:
        return Path("/proc", path).read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def family(root: int) -> list[int]:
    """A process and all that descend from it, such as nginx and its workers."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := read_proc(f"{entry.name}/stat")):
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def usage(pids: Iterable[int]) -> Usage:
    """schedstat has nanoseconds but no split; utime and stime are sampled and good for their ratio only."""
    total = user = system = reads = writes = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            total += int((read_proc(f"{pid}/task/{task.name}/schedstat") or "0").split()[0])
        if stat := read_proc(f"{pid}/stat").rpartition(")")[2].split():
            user += int(stat[11])
            system += int(stat[12])
        if io := read_proc(f"{pid}/io"):
            calls = dict(re.findall(r"(\w+): (\d+)", io))
            reads += int(calls["syscr"])
            writes += int(calls["syscw"])
    return Usage(total, user, system, reads, writes)


def memory(pids: Iterable[int]) -> Memory:
    rss = pss = 0
    for pid in pids:
        if found := re.search(r"^VmRSS:\s+(\d+)", read_proc(f"{pid}/status"), re.MULTILINE):
            rss += int(found[1])
        if found := re.search(r"^Pss:\s+(\d+)", read_proc(f"{pid}/smaps_rollup"), re.MULTILINE):
            pss += int(found[1])
    return Memory(rss, pss)


class Process:
    """A child pinned to one core. Its stdout is read by lines (a file instead, if nobody will read: a pipe would fill),
    its stderr kept to explain a failure."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        core: int,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        *,
        speaks: bool = True,
    ) -> None:
        self.name = name
        self.errors = directory / f"{name}.stderr"
        self._buffer = b""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # inherited; preexec_fn would cost a slow fork instead
        try:
            with self.errors.open("wb") as errors, Path(directory, f"{name}.stdout").open("wb") as output:
                self.popen = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if speaks else output,
                    stderr=errors,
                    bufsize=0,
                    env={**os.environ, **(environment or {})},
                )
        except OSError as error:
            raise RunError(f"{name} does not start: {error.strerror}") from error
        finally:
            os.sched_setaffinity(0, own)
        self.pids = [self.popen.pid]

    @property
    def stdin(self) -> IO[bytes]:
        assert self.popen.stdin is not None
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def line(self, timeout: float) -> str:
        """The next line of its stdout."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise RunError(f"{self.name} said nothing for {timeout:.0f} s")
                data = self.stdout.read(65536)
                if not data:
                    raise RunError(self.why_gone())
                self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\n")
        return text.decode()

    def why_gone(self) -> str:
        code = self.popen.wait(5)
        said = self.errors.read_text(errors="replace").strip().splitlines()
        return f"{self.name} ended with code {code}" + (f": {said[-1]}" if said else "")

    def wait_ready(self, port: int, seconds: float = READY_SECONDS, path: str = "", *, secure: bool = False) -> None:
        """Until it listens, and answers GET of a path with 200 if one is named."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise RunError(self.why_gone())
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                if not path or _is_ready(port, path, secure=secure):
                    self.pids = family(self.popen.pid)
                    return
            time.sleep(0.02)
        raise RunError(f"{self.name} does not listen after {seconds:g} s")

    def stop(self) -> None:
        pids = family(self.popen.pid) if self.popen.poll() is None else []
        if pids:
            self.popen.terminate()
            try:
                self.popen.wait(3)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        self.stdin.close()
        if self.popen.stdout is not None:
            self.popen.stdout.close()


def _is_ready(port: int, path: str, *, secure: bool) -> bool:
    """Whether a program on this machine says that it will serve requests; its certificate is its own."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=ssl._create_unverified_context())
        if secure
        else http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


_next_port = random.randrange(20_000, 28_000)


def free_port() -> int:
    """Below the ephemeral range, where thousands of outgoing connections may sit on any port, and never the
    same twice, so that no run meets the TIME_WAIT of another."""
    global _next_port
    for _ in range(1000):
        _next_port += 1
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", _next_port))
            return _next_port
    raise BenchError("no free port found")
