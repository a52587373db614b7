"""A TCP proxy that breaks the connections which carry event streams: each after so many bytes, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from typing import Self

_PIECE = 65536
_EVENT_STREAM = b"content-type: text/event-stream"  # as the relay writes it
# SO_LINGER: no wait, so that a close is a RST.
_ABORTIVE = struct.pack("ii", 1, 0)


class Cutter:
    """`cuts`: how many bytes, its head included, pass of the first answer that is an event stream, of the second, …;
    of those behind them all pass. Every other cut is a RST, the rest are a FIN. `made`: cuts so far."""

    def __init__(self, address: tuple[str, int], cuts: Iterable[int]) -> None:
        self._address = address
        self._cuts = deque(cuts)
        self.made = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._stopped = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        carried: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            carried.add(asyncio.create_task(self._carry(reader, writer)))

        server = await asyncio.start_server(accept, sock=self._socket)
        await self._stopped.wait()
        server.close()
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._address)
        asking = asyncio.create_task(_pass(reader, requests))
        try:
            with contextlib.suppress(OSError):
                await self._answer(answers, writer)
        finally:
            asking.cancel()
            writer.close()
            requests.close()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Until the answers end, or one is cut."""
        left: int | None = None
        while data := await source.read(_PIECE):
            if left is None and self._cuts and _EVENT_STREAM in data:
                left = self._cuts.popleft()
            if left is None or len(data) < left:
                sink.write(data)
                await sink.drain()
                left = left and left - len(data)
                continue
            sink.write(data[:left])
            self.made += 1
            if self.made % 2:
                sink.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
                sink.transport.abort()
            return


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    sink.close()
