"""The wheel: never early, late by a tick at most, and nobody's defect costs another its timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.timers import TICK, Alarm, Wheel, within


class Handle:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def cancel(self) -> None:
        self._loop.turn = None


class Loop:
    """A loop whose time is what a test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turn: Callable[[], None] | None = None
        self.complaints: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, after: float, call: Callable[[], None]) -> Handle:
        assert after == TICK
        self.turn = call
        return Handle(self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def pass_time(self, seconds: float, *, step: float = TICK) -> None:
        end = self.now + seconds
        while self.now < end - 1e-9 and self.turn is not None:
            self.now = min(self.now + step, end)
            self.turn()


class Watched:
    """Notes when it was looked at; `answers` are given in turn, then 0."""

    def __init__(self, *answers: float) -> None:
        self.tick = 0
        self.looks: list[float] = []
        self.answers = list(answers)

    def due(self, now: float) -> float:
        self.looks.append(now)
        return self.answers.pop(0) if self.answers else 0


def make() -> tuple[Loop, Wheel]:
    loop = Loop()
    wheel = Wheel(cast(asyncio.AbstractEventLoop, loop))
    wheel.start()
    return loop, wheel


@given(st.floats(0, 5), st.floats(0.01, 0.35))
def test_a_look_is_never_early_and_late_by_a_tick_at_most(after: float, step: float) -> None:
    loop, wheel = make()
    watched = Watched()
    when = loop.now + after
    wheel.watch(watched, when)
    loop.pass_time(6, step=step)
    assert len(watched.looks) == 1
    assert when - 1e-6 <= watched.looks[0] <= when + TICK + step + 1e-6


def test_who_answers_a_time_is_looked_at_again() -> None:
    loop, wheel = make()
    watched = Watched(1002.0, 1001.5, 1001.5)
    wheel.watch(watched, 1001.0)
    loop.pass_time(5)
    assert [round(look, 2) for look in watched.looks] == [1001.0, 1002.0, 1002.05, 1002.1], "the past is the next tick"


def test_an_earlier_look_stays_and_a_later_one_gives_way() -> None:
    loop, wheel = make()
    watched = Watched()
    wheel.watch(watched, 1003.0)
    wheel.watch(watched, 1001.0)
    wheel.watch(watched, 1002.0)
    loop.pass_time(5)
    assert [round(look, 1) for look in watched.looks] == [1001.0]


def test_who_is_forgotten_is_not_looked_at_and_may_come_back() -> None:
    loop, wheel = make()
    watched = Watched()
    wheel.watch(watched, 1001.0)
    wheel.forget(watched)
    loop.pass_time(2)
    assert watched.looks == []
    wheel.watch(watched, 1003.0)
    wheel.forget(watched)
    wheel.watch(watched, 1003.0)
    loop.pass_time(3)
    assert len(watched.looks) == 1


def test_a_long_halt_costs_one_look_at_each_in_the_order_of_their_times() -> None:
    loop, wheel = make()
    order: list[str] = []

    class Named(Watched):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def due(self, now: float) -> float:
            order.append(self.name)
            return super().due(now)

    for name, after in (("c", 9.0), ("a", 1.0), ("b", 3600.0), ("late", 90_000.0)):
        wheel.watch(Named(name), 1000.0 + after)
    loop.pass_time(86_400, step=86_400)
    assert order == ["a", "c", "b"]
    assert wheel.now == loop.now
    loop.pass_time(4000, step=4000)
    assert order == ["a", "c", "b", "late"]


def test_a_defect_in_one_is_told_and_costs_the_others_nothing() -> None:
    loop, wheel = make()

    class Failing(Watched):
        def due(self, now: float) -> float:
            super().due(now)
            raise RuntimeError("a defect")

    failing, watched = Failing(), Watched()
    wheel.watch(failing, 1001.0)
    wheel.watch(watched, 1001.0)
    loop.pass_time(3)
    assert (len(failing.looks), len(watched.looks), len(loop.complaints)) == (1, 1, 1)
    wheel.watch(failing, 1004.0)
    loop.pass_time(3)
    assert len(failing.looks) == 2, "it may be watched again"


def test_one_may_watch_forget_and_close_from_within_a_look() -> None:
    loop, wheel = make()
    other, gone = Watched(), Watched()

    class Busy(Watched):
        def due(self, now: float) -> float:
            wheel.watch(other, now)
            wheel.forget(gone)
            return super().due(now)

    wheel.watch(Busy(), 1001.0)
    wheel.watch(gone, 1001.0)
    loop.pass_time(2)
    assert (len(other.looks), len(gone.looks)) == (1, 0)
    wheel.close()
    assert loop.turn is None


@given(
    st.lists(st.tuples(st.sampled_from(["watch", "forget", "pass"]), st.integers(0, 3), st.floats(0, 2)), max_size=40)
)
def test_everybody_watched_is_looked_at_in_time(steps: list[tuple[str, int, float]]) -> None:
    loop, wheel = make()
    all_ = [Watched() for _ in range(4)]
    due: dict[int, float] = {}
    for step, number, seconds in steps:
        if step == "watch":
            wheel.watch(all_[number], loop.now + seconds)
            due[number] = min(due.get(number, float("inf")), loop.now + seconds)
        elif step == "forget":
            wheel.forget(all_[number])
            due.pop(number, None)
        else:
            before = {number: len(watched.looks) for number, watched in enumerate(all_)}
            loop.pass_time(seconds)
            for number, watched in enumerate(all_):
                looked = len(watched.looks) > before[number]
                if number in due and (looked or due[number] + 2 * TICK < loop.now):
                    assert looked, "late"
                    assert watched.looks[-1] >= due.pop(number) - 1e-6, "early"
                elif number not in due:
                    assert not looked
    loop.pass_time(5)
    assert not any(watched.tick for watched in all_)


def test_an_alarm_rings_once_unless_it_is_cancelled() -> None:
    loop, wheel = make()
    rung: list[str] = []
    Alarm(wheel, 1.0, lambda: rung.append("a"))
    Alarm(wheel, 1.0, lambda: rung.append("b")).cancel()
    loop.pass_time(0.9)
    assert rung == []
    loop.pass_time(3)
    assert rung == ["a"]


# within


def wheel_here() -> tuple[Loop, Wheel]:
    """A wheel that turns when the test says so, inside a real loop."""
    return make()


def never(late: object) -> None:
    raise AssertionError(f"{late!r} was not late")


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_what_is_done_in_time_is_returned() -> None:
    async def run() -> None:
        loop, wheel = wheel_here()

        async def work() -> str:
            await asyncio.sleep(0)
            return "done"

        assert await within(wheel, 1.0, work(), never) == "done"
        loop.pass_time(5)

    asyncio.run(run())


def test_what_fails_fails() -> None:
    async def run() -> None:
        async def work() -> None:
            raise OSError("refused")

        with pytest.raises(OSError, match="refused"):
            await within(wheel_here()[1], 1.0, work(), never)

    asyncio.run(run())


def test_what_is_late_is_cancelled_and_has_ended() -> None:
    async def run() -> None:
        loop, wheel = wheel_here()
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("yes")

        task = asyncio.ensure_future(within(wheel, 1.0, work(), never))
        await turns()
        loop.pass_time(2)
        with pytest.raises(TimeoutError):
            await task
        assert ended == ["yes"]

    asyncio.run(run())


def test_who_is_cancelled_is_cancelled_not_late() -> None:
    async def run() -> None:
        for late_too in (False, True):
            loop, wheel = wheel_here()
            event = asyncio.Event()
            task = asyncio.ensure_future(within(wheel, 1.0, event.wait(), lambda late: None))
            await turns()
            if late_too:
                loop.pass_time(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


@pytest.mark.parametrize("turns_between", range(5))
@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_a_result_is_returned_or_undone_whatever_the_race(how: str, turns_between: int) -> None:
    async def run() -> None:
        loop, wheel = wheel_here()
        opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        held: set[str] = set()

        async def work() -> str:
            result = await opened
            held.add(result)
            return result

        task = asyncio.ensure_future(within(wheel, 1.0, work(), held.discard))
        await turns()
        opened.set_result("connection")
        await turns(turns_between)
        if how == "cancel":
            task.cancel()
        else:
            loop.pass_time(2)
        try:
            result = await task
        except (asyncio.CancelledError, TimeoutError):
            assert held == set(), "what came too late was not undone"
        else:
            assert held == {result}

    asyncio.run(run())
