"""A provider made of parts that others wrote: starlette and sse-starlette, served by uvicorn (test_uvicorn.py runs it).

Streams go on when the test says so: each event after the first waits for a `POST /proceed`. `/wait` answers when a
counter has come as far as it is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

# Seconds between sse-starlette's own comments, where a stream has some.
PING = 0.05
PIECES = [f"piece {number} – ü {'x' * number}\n" for number in range(50)]


class Provider:
    """What has happened, and leave to go on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._leave = asyncio.Semaphore(0)

    async def happened(self, name: str) -> None:
        async with self._changed:
            self.counts[name] += 1
            self._changed.notify_all()

    async def reached(self, name: str, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.counts[name] >= number)

    def proceed(self, events: int) -> None:
        for _ in range(events):
            self._leave.release()

    async def left_to_go_on(self) -> None:
        await self._leave.acquire()

    async def generation(self, events: int) -> AsyncIterator[int]:
        """Numbers from 0; the end of each generation is counted, whichever it is."""
        try:
            for number in range(events):
                if number:
                    await self.left_to_go_on()
                yield number
        except (asyncio.CancelledError, GeneratorExit):
            # Nothing may be awaited in a generator that is being closed.
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, self.happened("cancelled"))
            raise
        await self.happened("finished")


provider = Provider()


async def chat(request: Request) -> Response:
    """An OpenAI-like stream with sse-starlette's line ends, CR LF."""
    events = int((await request.json()).get("events", 3))

    async def chunks() -> AsyncIterator[dict[str, str]]:
        async for number in provider.generation(events):
            choice = {"index": 0, "delta": {"content": f"wörd {number} "}, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
            yield {"data": json.dumps(chunk, ensure_ascii=False)}
        yield {"data": "[DONE]"}

    return EventSourceResponse(chunks())


async def ticker(request: Request) -> Response:
    """Events of no known dialect, with ids and names, and with pings between them."""

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for number in provider.generation(3):
            yield ServerSentEvent(f"line one of {number}\nline two", event="tick", id=str(number))

    return EventSourceResponse(events(), ping=PING)


async def pieces(request: Request) -> Response:
    """A body whose length nobody announced."""

    async def body() -> AsyncIterator[str]:
        for piece in PIECES:
            yield piece

    return StreamingResponse(body(), media_type="text/plain")


async def broken(request: Request) -> Response:
    """A body that ends in an exception: uvicorn closes the connection inside it."""

    async def body() -> AsyncIterator[bytes]:
        yield b"data: one\n\n"
        raise RuntimeError("simulated failure")

    kind = request.query_params["type"]
    return StreamingResponse(body(), media_type=kind)


async def echo(request: Request) -> Response:
    body = await request.body()
    assert request.client is not None
    await provider.happened("echoed")
    return JSONResponse(
        {
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "headers": dict(request.headers),
            "query": request.url.query,
            "connection": request.client.port,
        }
    )


async def proceed(request: Request) -> Response:
    provider.proceed(int(request.query_params.get("events", "1")))
    return JSONResponse(provider.counts)


async def wait(request: Request) -> Response:
    for name, number in request.query_params.items():
        await provider.reached(name, int(number))
    return JSONResponse(provider.counts)


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/ticker", ticker),
        Route("/pieces", pieces),
        Route("/broken", broken),
        Route("/echo", echo, methods=["POST"]),
        Route("/proceed", proceed, methods=["POST"]),
        Route("/wait", wait),
    ]
)
