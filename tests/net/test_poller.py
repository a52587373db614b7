"""Many connections behind one epoll: what happens to one is nothing to the others."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from relay.net.transport import SocketTransport
from tests.net.pooling import run, until
from tests.net.scene import MUCH, Heard, Scene, descriptors, scene, turns, unanswering


def two_at_once(stage: Scene, act: Callable[[SocketTransport], None]) -> tuple[list[Heard], list[SocketTransport]]:
    """Two connections that have something in the same batch: what the first to be read does to the other."""
    protocols: list[Heard] = []
    pairs: list[tuple[SocketTransport, socket.socket]] = []

    def answer() -> None:
        ((other, _),) = (each for at, each in enumerate(pairs) if not protocols[at].got)
        act(other)

    for _ in range(2):
        protocols.append(Heard(answer))
        pairs.append(stage.pair(protocols[-1]))
    for _, peer in pairs:
        peer.send(b"x")
    return protocols, [transport for transport, _ in pairs]


def test_a_connection_that_is_dropped_by_another_ones_bytes_hears_no_more() -> None:
    """The descriptor of the one is taken again at once."""

    async def test() -> None:
        with scene() as stage:
            late = Heard()

            def drop(other: SocketTransport) -> None:
                number = other.fileno()
                other.abort()
                assert stage.pair(late)[0].fileno() != number >= 0

            protocols, _ = two_at_once(stage, drop)
            await until(lambda: any(protocol.lost for protocol in protocols))
            await turns()
            assert sorted(bytes(protocol.got) for protocol in protocols) == [b"", b"x"]
            assert (late.told, bytes(late.got), stage.complaints) == (["made"], b"", [])

    run(test)


def test_what_another_ones_bytes_pause_keeps_its_own_for_later() -> None:
    async def test() -> None:
        with scene() as stage:
            protocols, transports = two_at_once(stage, SocketTransport.pause_reading)
            await until(lambda: any(protocol.got for protocol in protocols))
            await turns()
            assert sorted(bytes(protocol.got) for protocol in protocols) == [b"", b"x"]
            for transport in transports:
                transport.resume_reading()
            await until(lambda: all(protocol.got for protocol in protocols))

    run(test)


def test_a_defect_in_one_protocol_ends_one_connection() -> None:
    async def test() -> None:
        with scene() as stage:

            def fail() -> None:
                raise ZeroDivisionError

            broken, sound = Heard(fail), Heard()
            _, peer = stage.pair(broken)
            _, other = stage.pair(sound)
            peer.send(b"x")
            other.send(b"y")
            await until(lambda: broken.lost and bool(sound.got))
            (complaint,) = stage.complaints
            assert isinstance(complaint["exception"], ZeroDivisionError)
            assert not sound.lost

    run(test)


def test_a_defect_on_being_paused_ends_the_connection_that_was_paused() -> None:
    async def test() -> None:
        with scene() as stage:

            class Broken(Heard):
                def pause_writing(self) -> None:
                    raise ZeroDivisionError

            broken = Broken()
            transport, _ = stage.pair(broken)
            sound = Heard(lambda: transport.write(MUCH))
            _, other = stage.pair(sound)
            other.send(b"x")
            await until(lambda: broken.lost)
            assert len(stage.complaints) == 1
            assert not sound.lost

    run(test)


class Full:
    """An epoll that takes no more."""

    def __init__(self, poll: Callable[..., Any], closed: bool = False) -> None:
        self.poll = poll
        self.closed = closed

    def register(self, *_: int) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """It was borrowed."""


def test_a_connection_that_cannot_be_watched_is_lost_and_only_that() -> None:
    async def test() -> None:
        with scene() as stage, socket.create_server(("127.0.0.1", 0)) as server:
            protocol, sound = Heard(), Heard()
            transport, _ = stage.pair(protocol)
            _, other = stage.pair(sound)
            before = descriptors()
            transport.pause_reading()
            epoll = stage.poller._epoll
            stage.poller._epoll = cast(select.epoll, Full(epoll.poll))
            transport.resume_reading()
            with pytest.raises(OSError, match="No space"):
                await SocketTransport(stage.poller, socket.AF_INET).reach(server.getsockname())
            stage.poller._epoll = epoll
            await until(lambda: protocol.lost)
            assert isinstance(protocol.error, OSError)
            assert descriptors() == before - 1
            other.send(b"x")
            await until(lambda: bool(sound.got))

    run(test)


def test_closing_the_poller_ends_all_that_is_open_or_about_to_be() -> None:
    async def test() -> None:
        with scene() as stage, unanswering() as address:
            protocol, paused = Heard(), Heard()
            stage.pair(protocol)
            stage.pair(paused)[0].pause_reading()
            reaching = asyncio.ensure_future(SocketTransport(stage.poller, socket.AF_INET).reach(address))
            await turns()
            stage.poller.close()
            await until(lambda: protocol.lost and paused.lost and reaching.done())
            assert isinstance(reaching.exception(), ConnectionAbortedError)
            late = Heard()
            stage.pair(late)
            await until(lambda: late.lost)

    run(test)
