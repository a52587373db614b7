"""A long poll is answered once, and by nothing that comes after it has been stopped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.control.generation import Generation
from relay.control.office import Office
from relay.control.polling import Polling
from relay.control.state import State
from relay.control.streams import Poll
from tests.core.fakes import ROLE, Told, delta


class Stream:
    """As much of a generation as a poll looks at."""

    def __init__(self) -> None:
        self.fanout = Told()
        self.log = self.fanout.log
        self.state = State.STREAMING
        self.listeners: list[object] = []

    @property
    def over(self) -> bool:
        return self.state is not State.STREAMING

    @property
    def events(self) -> int:
        return self.log.tail

    def listen(self, listener: object) -> None:
        self.listeners.append(listener)

    def leave(self, listener: object, reason: object, *, known: bool) -> None:
        if listener in self.listeners:
            self.listeners.remove(listener)


class Wheel:
    def __init__(self) -> None:
        self.now = 0.0

    def watch(self, timed: object, when: float) -> None: ...

    def forget(self, timed: object) -> None: ...


def _poll(stream: Stream, wheel: Wheel) -> tuple[Polling, list[Any]]:
    """One for what comes behind the first event, and its answers."""
    answers: list[Any] = []
    stream.fanout.feed(ROLE)
    office = cast(Office, SimpleNamespace(wheel=wheel))
    poll = Poll(cast(Generation, stream), 1, 20.0)
    polling = Polling(office, poll, answers.append, answers.append)
    polling.start()
    assert (answers, len(stream.listeners)) == ([], 1)
    return polling, answers


def _event(stream: Stream, wheel: Wheel, polling: Polling) -> None:
    stream.fanout.feed(delta("a"))
    stream.fanout.settle()


def _end(stream: Stream, wheel: Wheel, polling: Polling) -> None:
    stream.state = State.FINISHED
    polling.ended(None)


def _time(stream: Stream, wheel: Wheel, polling: Polling) -> None:
    wheel.now = 20.0
    polling.due(wheel.now)


_HAPPEN = [_event, _end, _time]


@pytest.mark.parametrize("first", _HAPPEN)
def test_it_is_answered_once_whatever_comes_first(first: Any) -> None:
    stream, wheel = Stream(), Wheel()
    polling, answers = _poll(stream, wheel)
    for happen in (first, *_HAPPEN):
        happen(stream, wheel, polling)
    assert len(answers) == 1


def test_stopped_it_is_answered_by_nothing() -> None:
    stream, wheel = Stream(), Wheel()
    polling, answers = _poll(stream, wheel)
    polling.stop()
    for happen in _HAPPEN:
        happen(stream, wheel, polling)
    polling.stop()
    assert (answers, stream.listeners) == ([], [])
