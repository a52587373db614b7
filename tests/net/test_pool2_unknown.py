"""The pool while nobody knows what a provider speaks: one connection, and then a place, leave or the error for all."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from relay.errors import (
    ConnectFailed,
    ConnectTimeout,
)
from relay.net.upstream1 import Upstream1
from tests.certificates import make_certificate
from tests.net.pooling import run, turns, until
from tests.net.pooling2 import Place2, Provider2, asked, connection_of, serving2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("pool2"), "localhost")


def test_one_connection_while_the_protocol_is_unknown_and_then_places_for_all(certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        async with serving2(http="auto", certificate=certificate, alpn=["h2"], silent=True) as place:
            waiting = [asked(place.pool.acquire()) for _ in range(20)]
            await until(lambda: len(place.links) == 1)
            await turns(20)
            assert (place.pool.open, place.pool.waiting) == (1, 19)
            assert not any(each.done() for each in waiting)
            place.links[0].flush()
            calls = await asyncio.gather(*waiting)
            assert len({connection_of(call) for call in calls}) == 1
            assert (place.pool.open, place.pool.waiting, len(place.links)) == (1, 0, 1)
            assert len(set(map(id, calls))) == 20

    run(test)


def test_those_who_wait_for_more_places_than_come_wait_for_further_connections(certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        async with serving2(4, http="auto", certificate=certificate, alpn=["h2"], connections=5) as place:
            calls = await asyncio.gather(*[asked(place.pool.acquire()) for _ in range(20)])
            assert len({connection_of(call) for call in calls}) == 5
            late = asked(place.pool.acquire())
            await until(lambda: place.pool.waiting == 1)
            calls[7].cancel()
            assert connection_of(await late) is connection_of(calls[7])

    run(test)


def test_if_it_speaks_the_older_all_have_leave_to_connect(certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        async with serving2(
            http="auto", certificate=certificate, alpn=["http/1.1"], silent=True, connections=5
        ) as place:
            waiting = [asked(place.pool.acquire()) for _ in range(7)]
            await until(lambda: sum(each.done() for each in waiting) == 5)
            calls = [each.result() for each in waiting if each.done()]
            assert all(isinstance(call, Upstream1) for call in calls)
            assert (place.pool.open, place.pool.waiting, len(set(calls))) == (5, 2, 5)
            assert isinstance(calls[0], Upstream1)
            place.pool.release(calls[0])
            done, _ = await asyncio.wait(waiting[5:], return_when=asyncio.FIRST_COMPLETED)
            assert done.pop().result() is calls[0]
            for each in waiting:
                each.cancel()

    run(test)


@pytest.mark.parametrize("how", ["cut", "late", "not trusted", "not the right one"])
def test_that_the_connection_cannot_be_had_is_told_to_all(certificate: tuple[Path, Path], how: str) -> None:
    async def test() -> None:
        async with serving2(
            http="2" if how == "not the right one" else "auto",
            certificate=certificate,
            alpn=["http/1.1"] if how == "not the right one" else ["h2"],
            silent=True,
            connect=5,
        ) as place:
            if how == "not trusted":
                object.__setattr__(place.pool._dialer._origin, "tls", ssl.create_default_context())
            waiting = [asked(place.pool.acquire()) for _ in range(10)]
            if how in ("cut", "late"):
                await until(lambda: len(place.links) == 1)
                await turns(50)
            if how == "cut":
                place.links[0].cut()
            elif how == "late":
                place.pass_time(6)
            for each in waiting:
                with pytest.raises(ConnectTimeout if how == "late" else ConnectFailed):
                    await each
            assert (place.pool.open, place.pool.waiting) == (0, 0)

    run(test)


def test_a_provider_that_speaks_something_else_is_told_apart() -> None:
    async def test() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        provider = Provider2()
        provider.port = server.sockets[0].getsockname()[1]
        async with serving2() as other:
            place = Place2(provider, other.pool.limits)
            with pytest.raises(ConnectFailed, match="does not speak HTTP/2"):
                await place.pool.acquire()
            assert place.pool.open == 0
        server.close()

    run(test)


@pytest.mark.parametrize("given_up", [0, 3])
def test_who_opens_the_connection_may_leave_and_the_others_still_get_theirs(
    certificate: tuple[Path, Path], given_up: int
) -> None:
    async def test() -> None:
        async with serving2(http="auto", certificate=certificate, alpn=["h2"], silent=True) as place:
            waiting = [asked(place.pool.acquire()) for _ in range(6)]
            await until(lambda: len(place.links) == 1)
            await turns(20)
            waiting.pop(given_up).cancel()
            place.provider.silent = False
            place.links[0].flush()
            calls = await asyncio.gather(*waiting)
            assert len({connection_of(call) for call in calls}) == 1
            assert sum(connection_of(call).placed for call in calls[:1]) == 5
            assert place.pool.waiting == 0

    run(test)
