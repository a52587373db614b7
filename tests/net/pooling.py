"""A pool in front of a real listener, with a wheel whose time is what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, cast

import uvloop

from relay.net.dial import Origin, PoolLimits
from relay.net.poller import Poller
from relay.net.pool import Pool
from relay.net.timers import Wheel
from relay.net.upstream1 import Upstream1
from tests.net.test_timers import Loop, turns

__all__ = ["Place", "Provider", "asked", "run", "serving", "turns", "until"]


class Provider:
    """Accepts, and says nothing."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError):
            await reader.read()


class Pool1(Pool):
    """A pool of HTTP/1.1 connections, where a place is a connection."""

    def take(self) -> Upstream1 | None:
        return cast(Upstream1 | None, super().take())

    async def acquire(self, *, fresh: bool = False) -> Upstream1:
        return cast(Upstream1, await super().acquire(fresh=fresh))


class Place:
    """A pool in front of a provider, and the time that its wheel goes by."""

    def __init__(self, provider: Provider, limits: PoolLimits, host: str = "127.0.0.1") -> None:
        self.loop = Loop()
        self.wheel = Wheel(cast(asyncio.AbstractEventLoop, self.loop))
        self.wheel.start()
        self.provider = provider
        self.pool = Pool1(Origin("p", host, provider.port), limits, self.wheel, Poller(asyncio.get_running_loop()))

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    async def lose(self, connection: Upstream1) -> None:
        connection.cancel()
        await until(lambda: connection.closed)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be so")


@contextlib.asynccontextmanager
async def serving(greet: Callable[[asyncio.StreamWriter], None] | None = None, **limits: float) -> AsyncIterator[Place]:
    provider = Provider()
    server = await asyncio.start_server(provider.accept, "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    place = Place(provider, PoolLimits(**limits))  # type: ignore[arg-type]
    try:
        yield place
    finally:
        server.close()
        place.pool.close()
        for writer in provider.writers:
            writer.close()


def asked(work: Awaitable[Upstream1]) -> asyncio.Future[Upstream1]:
    return asyncio.ensure_future(work)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # A place that is lost is waited for without end.
        runner.run(asyncio.wait_for(test(), 10))
