"""What delivery costs: stuck readers beside healthy ones, resuming, keeping, cancelling.

Provider and readers are this process, on one core with one clock; the relay has the other core.

    python benchmarks/delivery.py              # all of them
    python benchmarks/delivery.py stuck --readers 1000 --seconds 10
    python benchmarks/delivery.py resume
    python benchmarks/delivery.py log
    python benchmarks/delivery.py cancel --readers 1000

stuck    so many healthy readers on ten streams; then as many that take nothing join them: the healthy ones' delay and
         the provider's speed before and after, what a stuck one costs in memory, when the last of them is gone
resume   time to the first byte behind event 1, 1,000 and 100,000 of one stream
log      RSS of kept events over their bytes, for events of 120, 200 and 1,000 bytes
cancel   from DELETE to the provider's connection closed, at so many open streams
Exit code: 0; 1 if something was not as it must be; 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import re
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import ClassVar, cast

import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where mypy, too, finds this script's neighbours

from benchmarks.processes import BenchError, Process, RunError, family, free_port, memory

TOP = Path(__file__).resolve().parent.parent
RELAY_CORE, LOAD_CORE = 0, 1
STREAMS = 10  # among which the readers are shared out
STUCK_EVENT = 4096  # bytes: a socket that takes nothing is full after seconds
STUCK_RATE = 10  # events a second and stream
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}"]
access_log = "off"
max_connections = 20000
[[upstream]]
name = "provider"
url = "http://127.0.0.1:{provider}"
max_connections = 20000
[[route]]
path = "/*"
upstream = "provider"
[retention]
stream = "16MiB"
total = "1GiB"
"""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_STAMP = re.compile(rb'"t":(\d+),')


def event(size: int) -> bytes:
    """A chat delta of so many bytes that says when it was made."""
    text = b'data: {"id":"c","t":%d,"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    bare = text % (time.monotonic_ns(), b"")
    return text % (time.monotonic_ns(), b"x" * (size - len(bare)))


class Provider(asyncio.Protocol):
    """`?rate=R&size=S`: so many events a second for ever; `?events=N&size=S`: so many at once, and open for ever."""

    waiting: ClassVar[dict[str, asyncio.Event]] = {}
    lost: ClassVar[dict[str, int]] = {}  # by the request's name: when its connection ended
    sent = 0

    def __init__(self) -> None:
        self._buffer = b""
        self._name = ""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._room = asyncio.Event()
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None and b"\r\n\r\n" in self._buffer:
            asked = dict(re.findall(r"(\w+)=(\w+)", self._buffer.split(b" ", 2)[1].decode()))
            self._name = asked.get("name", "")
            self._task = asyncio.ensure_future(self._answer(asked))

    async def _answer(self, asked: dict[str, str]) -> None:
        self._transport.write(HEAD)
        size = int(asked["size"])
        if "events" in asked:
            for _ in range(int(asked["events"])):
                await self._send(size)
            return
        period, due = 1 / float(asked["rate"]), time.monotonic()
        while True:
            await self._send(size)
            due += period
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _send(self, size: int) -> None:
        await self._room.wait()
        block = event(size)
        self._transport.write(b"%x\r\n%b\r\n" % (len(block), block))
        Provider.sent += 1

    def connection_lost(self, error: Exception | None) -> None:
        Provider.lost[self._name] = time.monotonic_ns()
        if self._name in Provider.waiting:
            Provider.waiting[self._name].set()
        if self._task is not None:
            self._task.cancel()


class Reader(asyncio.Protocol):
    """One request, and when what of its answer came. `delays` in ns, of the events that began a read."""

    def __init__(self, request: bytes, delays: list[int] | None = None) -> None:
        self._request = request
        self.delays = delays
        self.head = b""
        self.first_at = 0
        self.events = 0
        self.wanted = 0
        self.enough = asyncio.Event()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.asked_at = time.monotonic_ns()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.begun.is_set():
            self.first_at = now
            self.head = data
            self.begun.set()
        self.events += data.count(b"]")  # one in each, and never split between two reads
        if self.events >= self.wanted:
            self.enough.set()
        if self.delays is not None and (found := _STAMP.search(data)):
            self.delays.append(now - int(found[1]))

    def connection_lost(self, error: Exception | None) -> None:
        self.begun.set()
        self.ended.set()

    async def have(self, events: int) -> None:
        """Wait for so many."""
        self.wanted = events
        if self.events < events:
            self.enough.clear()
            await self.enough.wait()

    @property
    def stream(self) -> str:
        found = re.search(rb"relay-stream-id: (\S+)", self.head)
        if not found:
            raise RunError(f"no stream: {self.head[:100]!r}")
        return found[1].decode()


class Stage:
    """A relay, and this process as its provider and its readers."""

    def __init__(self, port: int, process: Process) -> None:
        self.port = port
        self.process = process

    @property
    def rss(self) -> int:
        """Of the relay, in bytes."""
        return memory(family(self.process.popen.pid)).rss * 1024

    async def ask(self, head: str, *, delays: list[int] | None = None, stuck: bool = False) -> Reader:
        raw = socket.socket()
        raw.setblocking(False)
        if stuck:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", self.port))
        request = f"{head}\r\nHost: 127.0.0.1\r\n\r\n".encode()
        _, reader = await loop.create_connection(lambda: Reader(request, delays), sock=raw)
        if stuck:
            reader.transport.pause_reading()
        else:
            await asyncio.wait_for(reader.begun.wait(), 10)
        return reader

    async def begin(self, query: str) -> Reader:
        """A stream that is kept."""
        return await self.ask(
            f"POST /v1/chat/completions?{query} HTTP/1.1\r\nContent-Length: 0\r\nRelay-Resumable: 1\r\n"
            "Relay-Overflow: pause"
        )

    async def state(self, stream: str) -> dict[str, object]:
        return await self.document("GET", stream)

    async def document(self, method: str, stream: str) -> dict[str, object]:
        reader = await self.ask(
            f"{method} /v1/streams/{stream} HTTP/1.1\r\nAccept: application/json\r\nConnection: close"
        )
        await reader.ended.wait()
        document: dict[str, object] = orjson.loads(reader.head.partition(b"\r\n\r\n")[2])
        return document


@contextlib.asynccontextmanager
async def stage(relay: str) -> AsyncIterator[Stage]:
    loop = asyncio.get_running_loop()
    port, provider_port = free_port(), free_port()
    Provider.lost.clear()
    server = await loop.create_server(Provider, "127.0.0.1", provider_port, backlog=4096)
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as directory:
        config = Path(directory, "relay.toml")
        config.write_text(CONFIG.format(port=port, provider=provider_port))  # noqa: ASYNC240
        process = Process("relay", [relay, "serve", "-c", str(config)], RELAY_CORE, Path(directory))
        try:
            process.wait_ready(port)
            await asyncio.sleep(0.3)
            yield Stage(port, process)
        finally:
            process.stop()
            server.close()
            await asyncio.sleep(0.1)


def quantiles(values: Sequence[float]) -> str:
    """p50, p99 and the greatest, in ms, of nanoseconds."""
    ordered = sorted(values)
    if not ordered:
        return "-"
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {ordered[len(ordered) // 2] / 1e6:.2f}, p99 {p99 / 1e6:.2f}, max {ordered[-1] / 1e6:.2f} ms"


async def stuck(relay: str, readers: int, seconds: float) -> bool:
    async with stage(relay) as here:
        begun = [await here.begin(f"rate={STUCK_RATE}&size={STUCK_EVENT}") for _ in range(STREAMS)]
        streams = [reader.stream for reader in begun]
        delays: list[int] = []
        healthy = [
            await here.ask(f"GET /v1/streams/{streams[n % STREAMS]}?last_event_id=latest HTTP/1.1", delays=delays)
            for n in range(readers)
        ]

        async def window(title: str) -> None:
            delays.clear()
            sent, received, begin = Provider.sent, sum(reader.events for reader in healthy), time.monotonic()
            await asyncio.sleep(seconds)
            took = time.monotonic() - begin
            speed = (Provider.sent - sent) / took
            events = (sum(reader.events for reader in healthy) - received) / took
            print(f"  {title}: delay {quantiles(delays)}; provider {speed:.1f} events/s, readers {events:.0f} events/s")

        print(
            f"stuck: {readers} healthy readers on {STREAMS} streams, {STUCK_RATE} events/s of {STUCK_EVENT} bytes each"
        )
        await window("healthy alone")
        before, kept = here.rss, await _kept(here, streams)
        begin = time.monotonic()
        stuck = [
            await here.ask(f"GET /v1/streams/{streams[n % STREAMS]}?last_event_id=latest HTTP/1.1", stuck=True)
            for n in range(readers)
        ]
        await asyncio.sleep(max(0.0, begin + 12 - time.monotonic()))
        await window(f"beside {readers} stuck ones")
        grown = (here.rss - before - (await _kept(here, streams) - kept)) / readers
        print(f"  a stuck reader costs {grown / 1024:.1f} KiB of RSS (the logs' growth taken off)")
        while time.monotonic() - begin < 90:
            states = [await here.state(stream) for stream in streams]
            if sum(int(str(state["readers"])) for state in states) == readers + STREAMS:
                break
            await asyncio.sleep(0.2)
        took = time.monotonic() - begin
        print(f"  the last stuck reader was gone {took:.1f} s after the first had come")
        await window("after they have gone")
        for reader in (*stuck, *healthy, *begun):
            reader.transport.abort()
        return grown <= 64 * 1024 and took < 90


async def _kept(here: Stage, streams: Sequence[str]) -> int:
    return sum([int(str((await here.state(stream))["bytes"])) for stream in streams])


async def resume(relay: str) -> bool:
    print("resume: time to the first byte, 40 of each in turn, one stream of 100,001 events")
    async with stage(relay) as here:
        begun = await here.begin("events=100001&size=80")
        await begun.have(100_001)
        times: dict[int, list[float]] = {1: [], 1000: [], 100_000: []}
        for _ in range(40):
            for after, found in times.items():
                reader = await here.ask(f"GET /v1/streams/{begun.stream}?last_event_id={after} HTTP/1.1")
                await reader.have(1)
                if b"-%d\n" % (after + 1) not in reader.head:
                    raise RunError(f"not event {after + 1}: {reader.head[:200]!r}")
                found.append(reader.first_at - reader.asked_at)
                reader.transport.abort()
                await asyncio.sleep(0.02)
        for after, found in times.items():
            print(f"  behind event {after}: {quantiles(found)}")
        begun.transport.abort()
    medians = [statistics.median(found) for found in times.values()]
    return max(medians) < 2 * min(medians)


async def log(relay: str) -> bool:
    good = True
    print("log: RSS of 12 logs of 8 MiB over the bytes they keep")
    for size in (120, 200, 1000):
        async with stage(relay) as here:
            warm = await here.begin(f"events=1000&size={size}")
            await asyncio.sleep(0.5)
            before = here.rss
            count = 8 * 1024 * 1024 // size
            begun = []
            for _ in range(12):
                begun.append(await here.begin(f"events={count}&size={size}"))
                await begun[-1].have(count)
            kept = await _kept(here, [reader.stream for reader in begun])
            ratio = (here.rss - before) / kept
            good = good and ratio <= 1.3
            print(f"  events of {size} bytes: {ratio:.2f} ({kept / 2**20:.0f} MiB kept)")
            for reader in (warm, *begun):
                reader.transport.abort()
    return good


async def cancel(relay: str, readers: int) -> bool:
    async with stage(relay) as here:
        begun = [await here.begin(f"rate=2&size=200&name=s{n}") for n in range(readers)]
        took = []
        for n, reader in enumerate(begun):
            gone = Provider.waiting[f"s{n}"] = asyncio.Event()
            raw = await here.ask(f"DELETE /v1/streams/{reader.stream} HTTP/1.1\r\nConnection: close")
            await gone.wait()
            took.append(Provider.lost[f"s{n}"] - raw.asked_at)
            raw.transport.abort()
        print(f"cancel: from DELETE to the provider's connection closed, {readers} streams open: {quantiles(took)}")
        for reader in begun:
            reader.transport.abort()
    return sorted(took)[int(len(took) * 0.99) - 1] < 5e6


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", nargs="*", default=["stuck", "resume", "log", "cancel"], metavar="WHAT")
    parser.add_argument("--readers", type=int, default=1000, metavar="N", help="healthy, stuck, or open (1000)")
    parser.add_argument("--seconds", type=float, default=8, help="length of a window (8)")
    parser.add_argument("--relay", metavar="PROGRAM", default=str(TOP / ".venv" / "bin" / "relay"))
    options = parser.parse_args(arguments)
    runs: dict[str, Callable[[], Coroutine[None, None, bool]]] = {
        "stuck": lambda: stuck(options.relay, options.readers, options.seconds),
        "resume": lambda: resume(options.relay),
        "log": lambda: log(options.relay),
        "cancel": lambda: cancel(options.relay, options.readers),
    }
    if unknown := set(options.what) - set(runs):
        raise BenchError(f"unknown {min(unknown)!r}: expected {', '.join(runs)}")
    if not {RELAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchError(f"cores {RELAY_CORE} and {LOAD_CORE} are needed")
    os.sched_setaffinity(0, {LOAD_CORE})
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    gc.disable()  # its pauses would be taken for the relay's
    good = True
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name in options.what:
            good = runner.run(runs[name]()) and good
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BenchError, RunError) as error:
        print(f"delivery: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
