"""Connections of the relay's own to plain sockets, and a protocol that writes down what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

from relay.core.reader import Reader
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER
from relay.net.connection1 import Connection1
from relay.net.poller import Poller
from relay.net.timers import Wheel
from relay.net.transport import SocketTransport
from relay.wire.head import CHUNKED
from tests.core.fakes import Clock

RESET = struct.pack("ii", 1, 0)
MUCH = bytes(range(256)) * 16384  # more than two sockets hold


class Heard(asyncio.Protocol):
    """Writes down what it is told. `answer` is what it does with the first bytes that come."""

    def __init__(self, answer: Callable[[], None] | None = None) -> None:
        self.told: list[str] = []
        self.got = bytearray()
        self.error: Exception | None = None
        self.answer = answer

    @property
    def lost(self) -> bool:
        return "lost" in self.told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        answer, self.answer = self.answer, None
        if answer is not None:
            answer()

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")
        self.error = error


class Answering(Connection1):
    """In the middle of an answer in chunks, whose reader does not keep to what it is told."""

    def __init__(self) -> None:
        super().__init__(cast(Wheel, Clock()), 60.0)
        self._begin(b"", CHUNKED, Reader(ANSWER, Gate(None)))
        self._take_head()
        self.lost = False

    def pause_writing(self) -> None:
        self._blocked_at = 1.0
        self._hold()

    def _ignore(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


class Scene:
    """A poller, and connections between it and plain sockets."""

    def __init__(self) -> None:
        self.poller = Poller(asyncio.get_running_loop())
        self.peers: list[socket.socket] = []
        self.complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complaints.append(context))

    def pair(self, protocol: asyncio.BaseProtocol) -> tuple[SocketTransport, socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.peers.append(theirs)
        transport = SocketTransport(self.poller, ours.family, ours.detach())
        transport.begin(protocol)
        return transport, theirs

    async def over_tcp(self, protocol: Heard) -> tuple[SocketTransport, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            transport = SocketTransport(self.poller, socket.AF_INET)
            await transport.reach(server.getsockname())
            theirs, _ = server.accept()
        theirs.setblocking(False)
        self.peers.append(theirs)
        transport.begin(protocol)
        return transport, theirs

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.poller.close()


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    made = Scene()
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def unanswering() -> Iterator[tuple[str, int]]:
    """The address of a listener whose queue is full: who connects is not answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        yield full.getsockname()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def read_all(peer: socket.socket) -> bytes:
    """Until its end."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while data := await loop.sock_recv(peer, 1 << 20):
        got += data
    return bytes(got)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
