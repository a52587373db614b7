"""Clients come in, in the clear: as many as there is room for, each by its own address."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable
from typing import cast

import pytest

from relay.net import listener as listening
from relay.net.listener import Listener
from relay.net.transport import SocketTransport
from tests.net.pooling import run, until
from tests.net.scene import RESET, Heard, descriptors, scene, turns


def bind() -> socket.socket:
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    return bound


def adding(came: list[Heard]) -> Callable[[], Heard]:
    """Makes protocols, and notes them."""

    def make() -> Heard:
        came.append(Heard())
        return came[-1]

    return make


def test_connections_come_in_and_no_more_after_the_end() -> None:
    async def test() -> None:
        with scene() as stage:
            came: list[Heard] = []
            bound = bind()
            address = bound.getsockname()
            listener = Listener(bound, 100, stage.poller, adding(came))
            for number in range(40):  # more than one turn takes
                stage.peers.append(socket.create_connection(address))
                stage.peers[-1].send(b"%d" % number)
            await until(lambda: [bytes(each.got) for each in came] == [b"%d" % number for number in range(40)])
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)

    run(test)


def test_who_has_reset_before_he_was_accepted_is_known_by_his_address() -> None:
    async def test() -> None:
        with scene() as stage:
            peers: list[str] = []

            class Named(Heard):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    peers.append(cast(SocketTransport, transport).peer)

            bound = bind()
            client = socket.create_connection(bound.getsockname())
            client.send(b"a request")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            listener = Listener(bound, 100, stage.poller, Named)
            await until(lambda: bool(peers))
            assert peers == ["127.0.0.1"]
            listener.close()

    run(test)


def test_what_is_turned_away_takes_one_descriptor_at_a_time() -> None:
    async def test() -> None:
        with scene() as stage:
            most: list[int] = []

            class Unwanted(Heard):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    most.append(descriptors())
                    cast(SocketTransport, transport).abort()

            bound = bind()
            for _ in range(10):
                stage.peers.append(socket.create_connection(bound.getsockname()))
            before = descriptors()
            listener = Listener(bound, 100, stage.poller, Unwanted)
            await until(lambda: len(most) == 10)
            assert max(most) == before + 1
            listener.close()

    run(test)


def lowest_free() -> int:
    """The next descriptor's number."""
    number = os.dup(0)
    os.close(number)
    return number


def test_without_a_descriptor_left_clients_wait_and_the_loop_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PAUSE", 3600)

    async def test() -> None:
        with scene() as stage:
            came: list[Heard] = []
            bound = bind()
            listener = Listener(bound, 100, stage.poller, adding(came))
            stage.peers.append(socket.create_connection(bound.getsockname()))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), hard))
            try:
                await until(lambda: len(stage.complaints) == 1)
                await turns(100)
                assert len(stage.complaints) == 1
                assert came == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            listener._listen()  # as the timer would
            await until(lambda: bool(came))
            listener.close()

    run(test)
