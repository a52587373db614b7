"""The pool over HTTP/2: its bounds, and that no place is ever lost, whoever leaves when."""

from __future__ import annotations

import asyncio
import random

import pytest

from relay.errors import (
    ConnectFailed,
    ConnectTimeout,
    PoolFull,
    PoolTimeout,
)
from relay.net.service import Call
from relay.net.upstream2 import ProviderStream
from tests.net.pooling import run, turns, until
from tests.net.pooling2 import asked, connection_of, places, serving2


def test_the_queue_is_bounded_and_its_time_too() -> None:
    async def test() -> None:
        async with serving2(1, streams=1, connections=1, waiting=2, queue=30) as place:
            (call,) = await places(place, 1)
            waiting = [asked(place.pool.acquire()) for _ in range(2)]
            await until(lambda: place.pool.waiting == 2)
            with pytest.raises(PoolFull):
                await place.pool.acquire()
            place.pass_time(31)
            for each in waiting:
                with pytest.raises(PoolTimeout):
                    await each
            assert place.pool.waiting == 0
            call.cancel()
            assert place.pool.take() is not None

    run(test)


@pytest.mark.parametrize("later", range(6))
@pytest.mark.parametrize("given", ["a place", "leave to connect"])
@pytest.mark.parametrize("cancel_first", [True, False])
def test_who_leaves_the_queue_as_a_place_comes_free_takes_it_along_never(
    later: int, given: str, cancel_first: bool
) -> None:
    async def test() -> None:
        async with serving2(1, streams=1, connections=1) as place:
            pool = place.pool
            (call,) = await places(place, 1)
            leaving, staying = asked(pool.acquire()), asked(pool.acquire())
            await until(lambda: pool.waiting == 2)
            if cancel_first:
                leaving.cancel()
                await turns(later)
            if given == "a place":
                call.cancel()
            else:
                connection_of(call).cut()
            if not cancel_first:
                await turns(later)
                leaving.cancel()
            got = (await asyncio.gather(leaving, return_exceptions=True))[0]
            if isinstance(got, ProviderStream):
                got.cancel()
            else:
                assert isinstance(got, asyncio.CancelledError)
            await staying
            assert (pool.open, pool.waiting) == (1, 0)
            assert connection_of(staying.result()).placed == 1

    run(test)


@pytest.mark.parametrize("seed", range(10))
def test_no_place_is_lost_in_any_sequence(seed: int) -> None:
    """Random acquire, leave, ask, answer, refuse, lose, go away and time; then all is let go: every place is free."""
    chance = random.Random(seed)

    async def test() -> None:
        async with serving2(3, streams=4, connections=3, waiting=5, queue=2, connect=3, idle=5) as place:
            pool, wanted, have = place.pool, set[asyncio.Future[Call]](), list[Call]()

            def collect() -> None:
                for task in [task for task in wanted if task.done()]:
                    wanted.discard(task)
                    if not task.cancelled():
                        error = task.exception()
                        if error is None:
                            have.append(task.result())
                        else:
                            assert isinstance(error, (PoolFull, PoolTimeout, ConnectTimeout, ConnectFailed)), error

            for _ in range(250):
                links = [link for link in place.links if not link.lost and link.known]
                match chance.randrange(10):
                    case 0 | 1 | 2 | 3:
                        wanted.add(asked(pool.acquire(fresh=chance.random() < 0.1)))
                    case 4 if wanted:
                        chance.choice(list(wanted)).cancel()
                    case 5 | 6 if have:
                        call = have.pop(chance.randrange(len(have)))
                        place.ask(call) if chance.random() < 0.5 else call.cancel()
                    case 7 if links:
                        link = chance.choice(links)
                        for stream_id in link.asked[:]:
                            link.asked.remove(stream_id)
                            if stream_id not in link.reset and stream_id in link.h2.streams:
                                chance.choice([link.answer, link.answer, link.refuse])(stream_id)
                    case 8 if links and chance.random() < 0.3:
                        link = chance.choice(links)
                        link.cut() if chance.random() < 0.5 else link.go_away(0)
                        link.lost = True
                    case 9:
                        place.pass_time(chance.choice([0.1, 1.0, 3.0]))
                await turns(chance.randrange(5))
                collect()
                assert pool.open <= 3
                assert len({id(call) for call in have}) == len(have), "given to two"
            for task in wanted:
                task.cancel()
            await asyncio.gather(*wanted, return_exceptions=True)
            collect()
            for call in have:
                call.cancel()
            pool.close()
            for link in place.links:
                link.cut()
            await until(lambda: pool.open == 0)
            assert (pool.idle, pool.waiting) == (0, 0)
            again = await asyncio.gather(*[pool.acquire() for _ in range(9)])
            assert pool.open == 3
            assert sorted(connection_of(call).placed for call in again) == [3] * 9

    run(test)
