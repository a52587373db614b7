"""Time finer than the wheel's, on a real loop: everybody in his order, nobody early, nobody's defect another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from relay.net.pulse import Pulse

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
# uvloop's own time is in whole milliseconds.
_EARLY = 0.0011


@pytest.fixture(params=list(LOOPS.values()), ids=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Pulse], Coroutine[Any, Any, None]]], None]:
    """Runs a test on a loop with a pulse, and looks that the loop has nothing left of it."""

    def run(test: Callable[[Pulse], Coroutine[Any, Any, None]]) -> None:
        loop = request.param()
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))

        async def main() -> None:
            pulse = Pulse(loop)
            async with asyncio.timeout(10):
                await test(pulse)
            pulse.close()

        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
        assert [context.get("exception") for context in complaints if not _meant(context)] == []

    return run


def _meant(context: dict[str, Any]) -> bool:
    return isinstance(context.get("exception"), ArithmeticError)


Run = Callable[[Callable[[Pulse], Coroutine[Any, Any, None]]], None]


class Calls:
    """`all_` is set when so many have come."""

    def __init__(self, pulse: Pulse, number: int) -> None:
        self.pulse = pulse
        self.names: list[str] = []
        self.early: list[str] = []
        self.all = asyncio.Event()
        self._number = number

    def at(self, after: float, name: str, then: Callable[[], None] | None = None) -> None:
        when = self.pulse.now() + after

        def called() -> None:
            if self.pulse.now() < when - _EARLY:
                self.early.append(name)
            self.names.append(name)
            if len(self.names) >= self._number:
                self.all.set()
            if then is not None:
                then()

        self.pulse.at(when, called)


def test_everybody_is_called_once_in_the_order_of_the_times(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        calls = Calls(pulse, 6)
        for after, name in ((0.02, "c"), (0.005, "a"), (0.03, "d"), (0.01, "b"), (0.04, "f"), (0.035, "e")):
            calls.at(after, name)
        await calls.all.wait()
        assert "".join(calls.names) == "abcdef"
        assert calls.early == []

    run(test)


def test_of_two_with_the_same_time_the_first_comes_first(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        names: list[int] = []
        done = asyncio.Event()
        when = pulse.now() + 0.01
        for number in range(100):
            pulse.at(when, lambda number=number: names.append(number))  # type: ignore[misc]
        pulse.at(when, done.set)
        await done.wait()
        assert names == list(range(100))

    run(test)


def test_an_earlier_one_that_comes_later_is_called_earlier(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        calls = Calls(pulse, 2)
        calls.at(9.0, "late")
        calls.at(0.05, "b")
        calls.at(0.005, "a")
        await calls.all.wait()
        assert calls.names == ["a", "b"]

    run(test)


def test_who_is_called_may_ask_again(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        calls = Calls(pulse, 5)

        def again() -> None:
            if len(calls.names) < 5:
                calls.at(0.002, f"{len(calls.names)}", again)

        calls.at(0.002, "first", again)
        await calls.all.wait()
        assert calls.names == ["first", "1", "2", "3", "4"]
        assert calls.early == []

    run(test)


def test_who_asks_again_for_a_time_that_is_over_does_not_hold_the_loop(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        turns = 0
        asked = 0

        def again() -> None:
            nonlocal asked
            asked += 1
            assert asked < 10_000, "the loop had no turn of its own"
            pulse.at(pulse.now() - 1.0, again)

        pulse.at(pulse.now(), again)
        for _ in range(20):
            await asyncio.sleep(0)
            turns += 1
        assert turns == 20

    run(test)


def test_a_time_that_is_over_is_now(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        done = asyncio.Event()
        pulse.at(pulse.now() - 5.0, done.set)
        await done.wait()

    run(test)


def test_a_defect_in_one_costs_the_others_nothing(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        calls = Calls(pulse, 3)
        when = pulse.now() + 0.005

        def fail() -> None:
            raise ArithmeticError("a defect")

        pulse.at(when, fail)
        calls.at(0.0, "before")
        pulse.at(when, lambda: calls.at(0.0, "same time"))
        calls.at(0.01, "behind")
        await calls.all.wait()
        assert sorted(calls.names) == ["before", "behind", "same time"]

    run(test)


def test_soon_is_not_now(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        order: list[str] = []
        done = asyncio.Event()
        pulse.soon(lambda: order.append("soon"))
        pulse.soon(done.set)
        order.append("now")
        await done.wait()
        assert order == ["now", "soon"]

    run(test)


def test_behind_the_end_nobody_is_called(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        called: list[str] = []
        other = Pulse(asyncio.get_running_loop())
        done = asyncio.Event()
        pulse.at(pulse.now() + 0.005, lambda: called.append("a"))
        pulse.close()
        pulse.close()
        other.at(other.now() + 0.02, done.set)
        await done.wait()
        assert called == []

    run(test)


def test_who_is_called_may_end_it(run: Run) -> None:
    async def test(pulse: Pulse) -> None:
        called: list[str] = []
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.03, done.set)
        when = pulse.now() + 0.005
        pulse.at(when, pulse.close)
        pulse.at(when, lambda: called.append("a"))
        pulse.at(when + 0.001, lambda: called.append("b"))
        await done.wait()
        assert called == []

    run(test)


def test_one_timer_serves_all() -> None:
    """However many wait, the loop has one timer of theirs."""
    timers: list[asyncio.TimerHandle] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        class Counting:
            time = staticmethod(loop.time)
            call_soon = staticmethod(loop.call_soon)

            @staticmethod
            def call_at(when: float, call: Callable[[], None]) -> asyncio.TimerHandle:
                timers.append(call_at(when, call))
                return timers[-1]

        pulse = Pulse(Counting())  # type: ignore[arg-type]
        for number in range(1000):
            pulse.at(loop.time() + 5 + number % 7, lambda: None)
        assert len([timer for timer in timers if not timer.cancelled()]) == 1
        assert len(timers) <= 20
        pulse.close()
        assert all(timer.cancelled() for timer in timers)

    asyncio.run(main())
