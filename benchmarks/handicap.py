"""A relay that is worse by a known amount: what the harness must find.

    python -m benchmarks.handicap --cpu-us 5 serve -c relay.toml      each event costs 5 us of CPU more
    python -m benchmarks.handicap --delay-ms 2 serve -c relay.toml    each event leaves 2 ms later

All else is `relay` as it is.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from relay import cli
from relay.core.stream import Stream

Feed = Callable[[Stream, bytes], None]


def cost(feed: Feed, microseconds: float) -> Feed:
    """By a clock that is cheap to read: a relay under test has its core to itself, so time on it is CPU time."""
    nanoseconds = int(microseconds * 1000)
    clock = time.perf_counter_ns

    def costly(stream: Stream, payload: bytes) -> None:
        end = clock() + nanoseconds
        while clock() < end:
            pass
        feed(stream, payload)

    return costly


def late(feed: Feed, milliseconds: float) -> Feed:
    """Each call happens later, in order. The loop's own timers know whole milliseconds only, so a thread keeps time."""
    waiting: deque[tuple[float, Callable[[], None]]] = deque()
    some = threading.Semaphore(0)
    loop: asyncio.AbstractEventLoop | None = None

    def keep_time() -> None:
        while some.acquire():
            due, call = waiting.popleft()
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            assert loop is not None
            loop.call_soon_threadsafe(call)

    def delayed(stream: Stream, payload: bytes) -> None:
        nonlocal loop
        if loop is None:
            loop = asyncio.get_running_loop()
            threading.Thread(target=keep_time, daemon=True).start()
        waiting.append((time.monotonic() + milliseconds / 1000, lambda: feed(stream, payload)))
        some.release()

    return delayed


def main(arguments: list[str]) -> int:
    kind, amount, *rest = arguments
    change = {"--cpu-us": cost, "--delay-ms": late}[kind]
    Stream.feed = change(Stream.feed, float(amount))  # type: ignore[method-assign,assignment]
    return cli.main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
