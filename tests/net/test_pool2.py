"""The pool over HTTP/2: connections are shared as far as both sides allow, and what providers say of them holds."""

from __future__ import annotations

import pytest

from relay.errors import (
    UpstreamClosed,
    UpstreamCut,
    UpstreamRefused,
)
from relay.net.upstream2 import ProviderStream
from tests.net.pooling import run, turns, until
from tests.net.pooling2 import asked, connection_of, places, serving2


@pytest.mark.parametrize(("ours", "theirs", "together"), [(3, 100, 3), (100, 3, 3), (5, 5, 5), (1, 100, 1)])
def test_a_connection_is_shared_as_far_as_both_sides_allow(ours: int, theirs: int, together: int) -> None:
    async def test() -> None:
        async with serving2(theirs, streams=ours, connections=2) as place:
            first = await places(place, together)
            assert len({connection_of(call) for call in first}) == 1
            assert connection_of(first[0]).room == 0
            second = await places(place, together)
            assert len({connection_of(call) for call in first + second}) == 2
            assert place.pool.open == 2
            assert place.pool.take() is None
            first[0].cancel()
            call = place.pool.take()
            assert call is not None
            assert connection_of(call) is connection_of(first[1] if together > 1 else call)
            assert place.pool.take() is None

    run(test)


def test_a_place_that_is_left_is_there_for_the_next_without_a_task() -> None:
    async def test() -> None:
        async with serving2() as place:
            assert place.pool.take() is None
            first = await place.pool.acquire()
            second = place.pool.take()
            assert second is not None
            assert connection_of(second) is connection_of(first)
            assert (place.pool.open, len(place.links)) == (1, 1)

    run(test)


def test_all_places_can_be_used_at_once_and_are_free_when_answered() -> None:
    async def test() -> None:
        async with serving2(10, streams=10) as place:
            askers = [place.ask(call) for call in await places(place, 10)]
            connection = connection_of(askers[0].call)
            (link,) = place.links
            await until(lambda: len(link.asked) == 10)
            assert connection.room == 0
            for stream_id in link.asked:
                link.answer(stream_id)
            await until(lambda: all(asker.ended for asker in askers))
            assert [asker.answer for asker in askers] == [200] * 10
            assert (connection.room, connection.placed, connection.served) == (10, 0, 10)

    run(test)


def test_a_further_connection_is_opened_before_the_last_is_full() -> None:
    async def test() -> None:
        async with serving2(streams=20) as place:
            have = await places(place, 18)
            await turns(50)
            assert place.pool.open == 1
            have += await places(place, 1)
            assert place.pool.open == 2, "a tenth is left"
            await until(lambda: len(place.links) == 2)
            await until(lambda: place.links[1].known)
            await turns(50)
            have += await places(place, 1)
            assert len({connection_of(call) for call in have}) == 1, "the oldest is filled first"
            (other,) = await places(place, 1)
            assert connection_of(other) is not connection_of(have[0])
            assert (place.pool.open, connection_of(other).placed) == (2, 1)

    run(test)


def test_that_the_further_connection_cannot_be_had_is_nobodys_error() -> None:
    async def test() -> None:
        async with serving2(streams=10) as place:
            have = await places(place, 9)
            place.provider.silent = True
            have += await places(place, 1)
            await until(lambda: len(place.links) == 2)
            assert place.pool.open == 2
            place.links[1].cut()
            await until(lambda: place.pool.open == 1)
            assert connection_of(have[0]).takes

    run(test)


def test_what_is_idle_expires_and_what_is_in_use_does_not() -> None:
    async def test() -> None:
        async with serving2(streams=1, idle=60, ping=0) as place:
            used, idle = await places(place, 2)
            idle.cancel()
            place.pass_time(59)
            assert place.pool.open == 2
            place.pass_time(20)
            assert place.pool.open == 1
            await until(lambda: any(link.lost for link in place.links))
            assert connection_of(used).takes

    run(test)


def test_closing_closes_what_is_idle_and_lets_the_others_end() -> None:
    async def test() -> None:
        async with serving2(streams=1) as place:
            used, idle = await places(place, 2)
            asker = place.ask(used)
            link = place.provider.link_of(used)
            idle.cancel()
            await until(lambda: bool(link.asked))
            place.pool.close()
            await until(lambda: any(each.lost for each in place.links if each is not link))
            assert place.pool.take() is None
            link.answer(1)
            await until(lambda: asker.ended)
            await until(lambda: link.lost)

    run(test)


# What providers say


def test_a_connection_that_goes_away_is_not_offered_and_ends_with_what_it_took() -> None:
    async def test() -> None:
        async with serving2() as place:
            taken, untaken = [place.ask(call) for call in await places(place, 2)]
            unasked = await place.pool.acquire()
            (link,) = place.links
            await until(lambda: len(link.asked) == 2)
            link.go_away(1)
            await until(lambda: untaken.answer is not None)
            assert taken.answer is None
            link.answer(1)
            await until(lambda: taken.ended)
            assert isinstance(untaken.answer, UpstreamRefused)
            assert untaken.answer.retryable
            assert taken.answer == 200
            assert place.pool.open == 0
            late = place.ask(unasked)
            assert isinstance(late.answer, UpstreamRefused)
            other = await place.pool.acquire()
            assert connection_of(other) is not connection_of(unasked)
            await until(lambda: link.lost)

    run(test)


def test_who_waits_is_served_by_another_connection_when_one_goes_away() -> None:
    async def test() -> None:
        async with serving2(1, streams=1, connections=1) as place:
            asker = place.ask(await place.pool.acquire())
            waiting = asked(place.pool.acquire())
            await until(lambda: place.pool.waiting == 1)
            place.links[0].go_away(0)
            call = await waiting
            assert connection_of(call) is not connection_of(asker.call)
            assert isinstance(asker.answer, UpstreamRefused)

    run(test)


def test_a_provider_that_refuses_a_stream_is_given_no_more_than_it_has() -> None:
    async def test() -> None:
        async with serving2() as place:
            askers = [place.ask(call) for call in await places(place, 4)]
            (link,) = place.links
            await until(lambda: len(link.asked) == 4)
            link.refuse(7)
            await until(lambda: askers[3].answer is not None)
            assert isinstance(askers[3].answer, UpstreamRefused)
            (other,) = await places(place, 1)
            assert connection_of(other) is not connection_of(askers[0].call)
            link.answer(1)
            await until(lambda: askers[0].ended)
            assert connection_of(askers[1].call).room == 2, "one has ended, and an answer earns another"

    run(test)


def test_a_bound_that_is_moved_holds_from_then_on() -> None:
    async def test() -> None:
        async with serving2(2, streams=100, connections=1) as place:
            have = await places(place, 2)
            waiting = [asked(place.pool.acquire()) for _ in range(3)]
            await until(lambda: place.pool.waiting == 3)
            (link,) = place.links
            link.allow(4)
            await until(lambda: place.pool.waiting == 1)
            assert connection_of(have[0]).room == 0
            link.allow(1)
            await until(lambda: connection_of(have[0]).theirs == 1)
            for call in have:
                call.cancel()
            await turns(20)
            assert not waiting[2].done(), "two are there, and one is allowed"
            for each in waiting[:2]:
                each.result().cancel()
            assert connection_of(await waiting[2]) is connection_of(have[0])

    run(test)


@pytest.mark.parametrize("streams", [0, 1])
def test_a_bound_below_what_was_promised_is_an_answer_and_no_defect(streams: int) -> None:
    async def test() -> None:
        async with serving2(2) as place:
            have = await places(place, 2)
            (link,) = place.links
            link.allow(streams)
            await until(lambda: connection_of(have[0]).theirs == streams)
            askers = [place.ask(call) for call in have]
            refused = [asker for asker in askers if isinstance(asker.answer, UpstreamRefused)]
            assert len(refused) == 2 - streams
            await until(lambda: len(link.asked) == streams)
            assert connection_of(have[0]).placed == streams

    run(test)


def test_a_provider_that_allows_no_stream_is_no_defect() -> None:
    async def test() -> None:
        async with serving2(0, connections=1, queue=5) as place:
            first = asked(place.pool.acquire())
            await until(lambda: bool(place.links) and place.links[0].known)
            await turns(20)
            if first.done():
                assert isinstance(place.ask(first.result()).answer, UpstreamRefused)
            waiting = asked(place.pool.acquire())
            await until(lambda: place.pool.waiting >= 1)
            place.links[0].allow(5)
            assert isinstance(await waiting, ProviderStream)
            first.cancel()

    run(test)


def test_what_was_asked_on_a_connection_that_is_lost_is_told() -> None:
    async def test() -> None:
        async with serving2() as place:
            begun, asker = [place.ask(call) for call in await places(place, 2)]
            (link,) = place.links
            await until(lambda: len(link.asked) == 2)
            link.h2.send_headers(1, [(b":status", b"200")])
            link.flush()
            await until(lambda: begun.answer == 200)
            link.cut()
            await until(lambda: asker.answer is not None)
            assert isinstance(asker.answer, UpstreamClosed)
            assert isinstance(begun.answer, UpstreamCut)
            assert place.pool.open == 0

    run(test)


def test_a_connection_that_retires_says_so() -> None:
    async def test() -> None:
        async with serving2() as place:
            (call,) = await places(place, 1)
            (link,) = place.links
            await until(lambda: link.known)
            connection_of(call).retire()
            assert place.pool.open == 0
            await turns(20)
            assert not link.lost, "one place is still in use"
            call.cancel()
            await until(lambda: link.lost)
            assert link.parting == (0, 0)

    run(test)
