"""What a provider is told of its bytes' coming: less often than there are events, on real sockets of the kernel."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from relay.net import quiet
from relay.net.poller import Poller
from relay.net.transport import SocketTransport
from tests.net.pooling import run, until

_EVENTS = 300
_SEGMENTS_OUT = 136  # tcpi_segs_out in the kernel's struct tcp_info


class Reader(asyncio.Protocol):
    """Counts what is read."""

    def __init__(self) -> None:
        self.read = 0
        self.lost = False

    def take(self, count: int) -> None:
        self.read += count

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


async def segments_out(*, hushed: bool) -> int:
    """Packets sent by who only reads: events come one by one, each when the last has been read."""
    listener = socket.create_server(("127.0.0.1", 0))
    poller = Poller(asyncio.get_running_loop())
    transport = SocketTransport(poller, socket.AF_INET)
    await transport.reach(listener.getsockname())
    provider, _ = listener.accept()
    reader = Reader()
    transport.begin(reader)
    transport.tell(reader)
    if hushed:
        transport.hush()
    with listener, provider:
        provider.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(_EVENTS):
            provider.send(b"data: token\n\n")
            await until(lambda number=number: reader.read == 13 * (number + 1))  # type: ignore[misc]
        info = transport.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        transport.abort()
        await until(lambda: reader.lost)
    poller.close()
    return int(struct.unpack_from("I", info, _SEGMENTS_OUT)[0])


def test_a_stream_is_acknowledged_less_often_than_it_has_events() -> None:
    counted: list[int] = []

    async def test() -> None:
        counted.append(await segments_out(hushed=False))
        counted.append(await segments_out(hushed=True))

    run(test)
    loud, hushed = counted
    assert loud >= 0.9 * _EVENTS  # as the kernel does by itself
    assert (hushed <= 0.7 * _EVENTS) is can_bound()


def can_bound() -> bool:
    """Whether this kernel is one of those where it is done (Linux 6.15)."""
    with socket.socket() as fresh:
        try:
            fresh.setsockopt(socket.IPPROTO_TCP, quiet._TCP_DELACK_MAX_US, quiet._LATEST)
        except OSError:
            return False
    return True


def test_a_kernel_that_cannot_bound_the_delay_keeps_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_TCP_DELACK_MAX_US", 30_000)  # an option that there is not
    counted: list[int] = []

    async def test() -> None:
        counted.append(await segments_out(hushed=True))

    run(test)
    assert counted[0] >= 0.9 * _EVENTS
