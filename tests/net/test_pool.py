"""The pool: reuse, bounds, the queue, and that no place is ever lost, whoever leaves when."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket

import pytest

from relay.errors import ConnectFailed, ConnectTimeout, PoolFull, PoolTimeout
from relay.net.dial import Dialer, PoolLimits, SocketAddress
from relay.net.poller import Poller
from relay.net.upstream1 import Upstream1
from relay.net.upstream2 import Upstream2
from tests.net.pooling import Place, Pool1, Provider, asked, run, serving, turns, until


def test_the_connection_used_last_is_reused_first() -> None:
    async def test() -> None:
        async with serving() as place:
            pool = place.pool
            first, second = await pool.acquire(), await pool.acquire()
            assert first is not second
            pool.release(first)
            pool.release(second)
            assert (pool.open, pool.idle) == (2, 2)
            assert await pool.acquire() is second
            assert pool.take() is first
            assert pool.take() is None
            assert pool.idle == 0

    run(test)


def test_a_connection_that_the_provider_has_closed_is_not_given_out() -> None:
    async def test() -> None:
        async with serving() as place:
            pool = place.pool
            connection = await pool.acquire()
            pool.release(connection)
            connection.cancel()
            assert pool.take() is None, "it is closing, though nobody was told yet"
            other = await pool.acquire()
            assert other is not connection
            await until(lambda: connection.closed)
            assert pool.open == 1

    run(test)


def test_the_bound_holds_and_those_who_wait_are_served_in_their_order() -> None:
    async def test() -> None:
        async with serving(connections=2, waiting=3) as place:
            pool = place.pool
            have = [await pool.acquire(), await pool.acquire()]
            waiting = [asked(pool.acquire()) for _ in range(3)]
            await until(lambda: pool.waiting == 3)
            with pytest.raises(PoolFull):
                await pool.acquire()
            pool.release(have[0])
            assert await waiting[0] is have[0]
            await place.lose(have[1])
            fresh = await waiting[1]
            assert fresh not in have
            assert not waiting[2].done()
            pool.release(fresh)
            assert await waiting[2] is fresh
            assert (pool.open, pool.waiting) == (2, 0)

    run(test)


def test_who_waits_too_long_is_told_and_leaves_the_queue() -> None:
    async def test() -> None:
        async with serving(connections=1, queue=30) as place:
            pool = place.pool
            connection = await pool.acquire()
            waiting = asked(pool.acquire())
            await until(lambda: pool.waiting == 1)
            place.pass_time(31)
            with pytest.raises(PoolTimeout):
                await waiting
            assert pool.waiting == 0
            pool.release(connection)
            assert pool.idle == 1

    run(test)


@pytest.mark.parametrize("later", range(6))
@pytest.mark.parametrize("given", ["a connection", "leave to connect"])
@pytest.mark.parametrize("cancel_first", [True, False])
def test_who_leaves_the_queue_as_a_place_comes_free_takes_it_along_never(
    later: int, given: str, cancel_first: bool
) -> None:
    async def test() -> None:
        async with serving(connections=1) as place:
            pool = place.pool
            connection = await pool.acquire()
            leaving, staying = asked(pool.acquire()), asked(pool.acquire())
            await until(lambda: pool.waiting == 2)
            if cancel_first:
                leaving.cancel()
                await turns(later)
            if given == "a connection":
                pool.release(connection)
            else:
                pool.lost(connection)
                connection.cancel()
            if not cancel_first:
                await turns(later)
                leaving.cancel()
            got = (await asyncio.gather(leaving, return_exceptions=True))[0]
            if isinstance(got, Upstream1):
                pool.release(got)
            else:
                assert isinstance(got, asyncio.CancelledError)
            await staying
            assert (pool.open, pool.waiting) == (1, 0)

    run(test)


@pytest.mark.parametrize("later", range(4))
def test_a_place_that_comes_free_as_a_wait_expires_is_not_lost(later: int) -> None:
    async def test() -> None:
        async with serving(connections=1, queue=30) as place:
            pool = place.pool
            connection = await pool.acquire()
            waiting = asked(pool.acquire())
            await until(lambda: pool.waiting == 1)
            place.pass_time(31)
            await turns(later)
            pool.release(connection)
            with contextlib.suppress(PoolTimeout):
                pool.release(await waiting)
            assert (pool.open, pool.idle, pool.waiting) == (1, 1, 0)

    run(test)


@pytest.mark.parametrize("later", range(12))
def test_who_leaves_while_a_connection_is_opened_leaves_none_behind(later: int) -> None:
    async def test() -> None:
        async with serving(connections=1) as place:
            pool = place.pool
            leaving = asked(pool.acquire())
            await turns(later)
            leaving.cancel()
            got = (await asyncio.gather(leaving, return_exceptions=True))[0]
            if isinstance(got, Upstream1):
                await place.lose(got)
            await until(lambda: pool.open == 0)
            assert isinstance(await pool.acquire(), Upstream1)

    run(test)


def test_a_failed_connect_lets_the_next_one_try() -> None:
    async def test() -> None:
        provider = Provider()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            provider.port = bound.getsockname()[1]  # bound, but nobody listens: refused
            pool = Place(provider, PoolLimits(connections=1)).pool
            waiting = [asked(pool.acquire()) for _ in range(3)]
            for each in waiting:
                with pytest.raises(ConnectFailed):
                    await each
            assert (pool.open, pool.waiting) == (0, 0)

    run(test)


def test_a_connect_that_takes_too_long_is_given_up() -> None:
    async def test() -> None:
        with socket.socket() as deaf, contextlib.ExitStack() as stack:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for _ in range(4):  # fill its queue, so that nothing more is accepted
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            provider = Provider()
            provider.port = deaf.getsockname()[1]
            place = Place(provider, PoolLimits(connections=1, connect=5))
            waiting = asked(place.pool.acquire())
            await turns(20)
            place.pass_time(6)
            with pytest.raises(ConnectTimeout):
                await waiting
            assert place.pool.open == 0

    run(test)


def test_a_link_local_address_is_not_connected_to() -> None:
    async def test() -> None:
        for host in ("169.254.169.254", "fe80::1", "::ffff:169.254.169.254"):
            place = Place(Provider(), PoolLimits(), host)
            with pytest.raises(ConnectFailed):
                await place.pool.acquire()
            assert place.pool.open == 0

    run(test)


def test_what_is_idle_expires_and_what_is_in_use_does_not() -> None:
    async def test() -> None:
        async with serving(idle=60) as place:
            pool = place.pool
            used, idle = await pool.acquire(), await pool.acquire()
            idle.idle_since = place.wheel.now
            place.wheel.watch(idle, place.wheel.now + 60)
            pool.release(idle)
            place.pass_time(59)
            assert pool.idle == 1
            place.pass_time(2)
            await until(lambda: idle.closed)
            assert (pool.open, pool.idle, used.usable) == (1, 0, True)

    run(test)


def test_closing_closes_what_is_idle_alone() -> None:
    async def test() -> None:
        async with serving() as place:
            pool = place.pool
            used, idle = await pool.acquire(), await pool.acquire()
            pool.release(idle)
            pool.close()
            await until(lambda: idle.closed)
            assert (pool.open, pool.idle, used.usable) == (1, 0, True)

    run(test)


def test_a_fresh_connection_has_served_nobody_and_the_bound_still_holds() -> None:
    async def test() -> None:
        async with serving(connections=2) as place:
            pool = place.pool
            have = [await pool.acquire(), await pool.acquire()]
            for each in have:
                pool.release(each)
            fresh = await pool.acquire(fresh=True)
            assert fresh not in have
            assert pool.open == 2

    run(test)


def test_a_provider_that_closes_at_once_costs_no_place() -> None:
    class Slammed(Dialer):
        """Its connections are lost before those who wait for them have heard of them."""

        async def _open_one(self, family: int, address: SocketAddress) -> Upstream1 | Upstream2:
            connection = await super()._open_one(family, address)
            connection.cut()
            await until(lambda: connection.closed)
            return connection

    async def test() -> None:
        async with serving() as place:
            limits = PoolLimits(connections=1)
            poller = Poller(asyncio.get_running_loop())
            pool = Pool1(place.pool.origin, limits, place.wheel, poller)
            pool._dialer = Slammed(place.pool.origin, limits, place.wheel, poller, pool)
            for _ in range(3):
                with pytest.raises(ConnectFailed):
                    await asyncio.wait_for(pool.acquire(), 10)
            assert pool.open == 0

    run(test)


@pytest.mark.parametrize("seed", range(12))
def test_no_place_is_lost_in_any_sequence(seed: int) -> None:
    """Random acquire, cancel, release, lose and time, then everything is let go: every place must be free again."""
    chance = random.Random(seed)

    async def test() -> None:
        async with serving(connections=3, waiting=4, queue=2, connect=3) as place:
            pool, wanted, have = place.pool, set[asyncio.Future[Upstream1]](), list[Upstream1]()

            def collect() -> None:
                for task in [task for task in wanted if task.done()]:
                    wanted.discard(task)
                    if not task.cancelled():
                        error = task.exception()
                        if error is None:
                            have.append(task.result())
                        else:
                            assert isinstance(error, (PoolFull, PoolTimeout, ConnectTimeout)), error

            for _ in range(250):
                match chance.randrange(7):
                    case 0 | 1 | 2:
                        wanted.add(asked(pool.acquire(fresh=chance.random() < 0.1)))
                    case 3 if wanted:
                        chance.choice(list(wanted)).cancel()
                    case 4 if have:
                        pool.release(have.pop(chance.randrange(len(have))))
                    case 5 if have:
                        have.pop(chance.randrange(len(have))).cancel()
                    case 6:
                        place.pass_time(chance.choice([0.1, 1.0, 3.0]))
                await turns(chance.randrange(5))
                collect()
                assert pool.open <= 3
                assert len({id(connection) for connection in have}) == len(have), "given to two"
            for task in wanted:
                task.cancel()
            await asyncio.gather(*wanted, return_exceptions=True)
            collect()
            for connection in have:
                connection.cancel()
            pool.close()
            await until(lambda: pool.open == 0)
            assert (pool.idle, pool.waiting) == (0, 0)
            again = [await pool.acquire() for _ in range(3)]
            assert pool.open == len(again)

    run(test)


def test_a_fresh_connection_has_served_nobody_even_where_it_was_waited_for() -> None:
    async def test() -> None:
        async with serving(connections=1) as place:
            pool = place.pool
            used = await pool.acquire()
            waiting = asked(pool.acquire(fresh=True))
            await until(lambda: pool.waiting == 1)
            used.served = 1
            pool.release(used)
            assert (await waiting).served == 0
            assert pool.open == 1

    run(test)


def test_who_has_left_the_queue_does_not_count_as_waiting() -> None:
    async def test() -> None:
        async with serving(connections=1, waiting=2, queue=5) as place:
            pool = place.pool
            have = await pool.acquire()
            for _ in range(5):
                left = asked(pool.acquire())
                await until(lambda: pool.waiting == 1)
                await turns(5)  # until it waits for the place itself
                left.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await left
                assert pool.waiting == 0
            late = asked(pool.acquire())
            await until(lambda: pool.waiting == 1)
            await turns(5)
            place.pass_time(6)
            with pytest.raises(PoolTimeout):
                await late
            assert pool.waiting == 0
            waiting = asked(pool.acquire())
            await until(lambda: pool.waiting == 1)
            pool.release(have)
            assert await waiting is have

    run(test)
