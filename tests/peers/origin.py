"""A provider of HTTP/2 that nobody here wrote: a bare ASGI application, which hypercorn serves (test_hypercorn.py).

/events/N?gap=SECONDS is an event stream, /json a document, /echo says how long a body was; /counts says how many
streams began, ended, and were given up.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

counts: Counter[str] = Counter()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    if scope["path"].startswith("/events/"):
        await _events(scope, receive, send)
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    said: dict[str, object] = {
        "version": scope["http_version"],
        "scheme": scope["scheme"],
        "path": scope["path"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    if scope["path"] == "/counts":
        said = dict(counts)
    await _begin(send, "application/json")
    content = b"" if scope["method"] == "HEAD" else json.dumps(said).encode()
    await send({"type": "http.response.body", "body": content})


async def _events(scope: Scope, receive: Receive, send: Send) -> None:
    number = int(scope["path"].rpartition("/")[2])
    gap = float(parse_qs(scope["query_string"].decode()).get("gap", ["0"])[0])
    counts["began"] += 1
    await _begin(send, "text/event-stream")
    left = asyncio.ensure_future(_left(receive))
    try:
        for count in range(number):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % count, "more_body": True})
            await asyncio.wait([left], timeout=gap)
            if left.done():
                counts["given up"] += 1
                return
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        counts["ended"] += 1
    except asyncio.CancelledError:
        counts["given up"] += 1
        raise
    finally:
        left.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _begin(send: Send, kind: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
