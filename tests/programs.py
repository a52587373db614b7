"""The programs that tests run for real: the relay, the simulated provider, whatever listens on a port.

Each is a process of its own with a free port, known when it says that it listens. Nothing here sleeps: a program is
waited for by its ready line, the provider's counters by its own long poll.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# How long anything on this machine may take before a test gives up on it (seconds).
PATIENCE = 20.0


class Program:
    """A running process. `lines` are what it wrote to stderr so far, `port` where it listens."""

    def __init__(self, command: list[str], ready: str, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.output: list[bytes] = []
        self._seen: queue.Queue[str | None] = queue.Queue()
        self._written: queue.Queue[bytes | None] = queue.Queue()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=ROOT,
        )
        threading.Thread(target=self._read_stderr, daemon=True).start()
        threading.Thread(target=self._read_stdout, daemon=True).start()
        self.port = int(self.wait_for(ready)[1])

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line of stderr, from the last one waited for on, that matches."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._seen.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no line like {pattern!r} came; so far: {self.lines}") from None
            if line is None:
                raise AssertionError(f"ended with {self.process.wait()} before {pattern!r}; it said: {self.lines}")
            match = re.search(pattern, line)
            if match:
                return match

    def access_line(self, **wanted: object) -> dict[str, Any]:
        """The next access line in which these keys have these values."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                raw = self._written.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no access line with {wanted}; so far: {self.output}") from None
            assert raw is not None, f"the program ended; its lines: {self.output}"
            line: dict[str, Any] = json.loads(raw)
            if all(line.get(key) == value for key, value in wanted.items()):
                return line

    def resident(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it as a service manager would; kill it if it does not listen. Returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            self._seen.put(line)
        self._seen.put(None)

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self.output.append(raw)
            self._written.put(raw)
        self._written.put(None)


class Provider(Program):
    """tools/provider.py: the simulated provider, and its counters."""

    def __init__(self, *arguments: str) -> None:
        self._tls = "--tls-cert" in arguments
        super().__init__(
            [sys.executable, str(ROOT / "tools" / "provider.py"), "--listen", "127.0.0.1:0", *arguments],
            r"provider listening on https?://127\.0\.0\.1:(\d+)",
        )

    def stats(self) -> dict[str, int]:
        stats: dict[str, int] = self._ask("GET", "/sim/stats")[1]
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """The heads of the last requests, newest last."""
        heads: list[dict[str, Any]] = self._ask("GET", "/sim/requests")[1]
        return heads

    def reset(self) -> None:
        self._ask("POST", "/sim/reset")

    def wait(self, timeout: float = PATIENCE, **goals: int) -> dict[str, int]:
        """Until the counters have come so far (`connections_open` exactly, the others at least)."""
        query = "&".join(f"{name}={value}" for name, value in {**goals, "timeout": timeout}.items())
        stats: dict[str, int]
        status, stats = self._ask("GET", f"/sim/wait?{query}")
        assert status == 200, f"the provider's counters did not reach {goals}: {stats}"
        return stats

    def _ask(self, method: str, target: str) -> tuple[int, Any]:
        connection: http.client.HTTPConnection
        if self._tls:
            trust = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE * 2, context=trust)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE * 2)
        with contextlib.closing(connection):
            connection.request(method, target)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


class Relay(Program):
    """`relay serve` with the given configuration text, or with one upstream and no file."""

    def __init__(
        self, config: str | Path | None = None, *, upstream: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        command = [str(BIN / "relay"), "serve"]
        if upstream is not None:
            command += ["--upstream", upstream, "--listen", "127.0.0.1:0"]
        else:
            command += ["-c", str(config)]
        super().__init__(command, r"relay listening on http://127\.0\.0\.1:(\d+)", env)
        self._secure_port = 0

    @property
    def secure_address(self) -> tuple[str, int]:
        """Where it listens for TLS; its configuration must say so (`listen_tls`)."""
        if not self._secure_port:
            self._secure_port = int(self.wait_for(r"relay listening on https://127\.0\.0\.1:(\d+)")[1])
        return ("127.0.0.1", self._secure_port)


def config_text(
    upstream: str,
    *,
    server: str = "",
    upstream_extra: str = "",
    timeouts: str = "",
    limits: str = "",
    path: str = "/*",
) -> str:
    """A configuration with one upstream at a url and one route; the rest as lines of its tables."""
    return f"""
[server]
listen = ["127.0.0.1:0"]
{server}
[[upstream]]
name = "provider"
url = "{upstream}"
{upstream_extra}
[[route]]
path = "{path}"
upstream = "provider"
[timeouts]
{timeouts}
[limits]
{limits}
"""


@dataclass
class Answer:
    """One HTTP/1.1 answer as raw bytes said it. `clean`: its framing says that it is whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    clean: bool
    chunks: list[bytes] = field(default_factory=list)


class Client:
    """A raw HTTP/1.1 client over one socket: what it sends is exactly what a test says."""

    def __init__(
        self, address: tuple[str, int], *, receive_buffer: int | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: relay.test"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def post(self, target: str, document: object, simulate: str = "", headers: Mapping[str, str] | None = None) -> None:
        fields = {"Content-Type": "application/json", **(headers or {})}
        if simulate:
            fields["Simulate"] = simulate
        self.request("POST", target, json.dumps(document).encode(), fields)

    def receive(self) -> bytes:
        """The next bytes, b"" at the connection's end however it came."""
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def read_until(self, mark: bytes) -> bytes:
        """All up to and with the mark; AssertionError if the connection ends before."""
        while mark not in self.buffer:
            data = self.receive()
            assert data, f"the connection ended before {mark!r}; there was: {self.buffer[-500:]!r}"
            self.buffer += data
        end = self.buffer.index(mark) + len(mark)
        found, self.buffer = self.buffer[:end], self.buffer[end:]
        return found

    def read_to_end(self) -> bytes:
        """Everything until the connection ends."""
        while data := self.receive():
            self.buffer += data
        found, self.buffer = self.buffer, b""
        return found

    def closed(self) -> bool:
        """Whether the relay closes without another byte."""
        return not self.buffer and self.receive() == b""

    def read_head(self) -> tuple[int, dict[str, str]]:
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(first.split(" ")[1]), headers

    def answer(self, *, method: str = "GET") -> Answer:
        """One whole answer, or what came of it."""
        status, headers = self.read_head()
        while 100 <= status < 200:
            status, headers = self.read_head()
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"", clean=True)
        if headers.get("transfer-encoding") == "chunked":
            chunks, clean = self._read_chunks()
            return Answer(status, headers, b"".join(chunks), clean, chunks)
        if "content-length" in headers:
            length = int(headers["content-length"])
            while len(self.buffer) < length and (data := self.receive()):
                self.buffer += data
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            return Answer(status, headers, body, clean=len(body) == length)
        return Answer(status, headers, self.read_to_end(), clean=True)

    def _read_chunks(self) -> tuple[list[bytes], bool]:
        chunks: list[bytes] = []
        try:
            while True:
                size = int(self.read_until(b"\r\n"), 16)
                while len(self.buffer) < size + 2:
                    data = self.receive()
                    if not data:
                        chunks.append(self.buffer[:size])
                        return chunks, False
                    self.buffer += data
                chunk, self.buffer = self.buffer[:size], self.buffer[size + 2 :]
                if not size:
                    return chunks, True
                chunks.append(chunk)
        except AssertionError:
            return chunks, False


def chat(**extra: object) -> dict[str, object]:
    """The document of a streamed chat completion."""
    return {"model": "sim-1", "stream": True, "messages": [{"role": "user", "content": "hello"}], **extra}


@contextlib.contextmanager
def running(program: Program) -> Iterator[Any]:
    """Ends the program, whatever the test came to."""
    try:
        yield program
    finally:
        program.stop()
