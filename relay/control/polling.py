"""A long poll: the events behind a place in a stream, for a client that cannot hold a stream open."""

from __future__ import annotations

from collections.abc import Callable

from relay.control import streams
from relay.control.office import Office
from relay.control.streams import Poll, Reply
from relay.errors import CloseReason, RelayError


class Polling:
    """A generation's listener that answers as soon as there is an event behind its place, or the stream has ended, or
    its time is over. One of `answer` and `refuse` is called, once, until `stop`."""

    takes_body = False

    __slots__ = ("_answer", "_office", "_over", "_poll", "_refuse", "_until", "tick")

    def __init__(
        self, office: Office, poll: Poll, answer: Callable[[Reply], None], refuse: Callable[[RelayError], None]
    ) -> None:
        self.tick = 0
        self._office = office
        self._poll = poll
        self._answer = answer
        self._refuse = refuse
        self._until = office.wheel.now + poll.wait
        self._over = False

    def start(self) -> None:
        self._poll.generation.listen(self)
        self._look()

    def opened(self) -> None:
        """It waits for an event."""

    def ended(self, error: RelayError | None) -> None:
        self._look()

    def due(self, now: float) -> float:
        self._look()
        return 0

    def stop(self) -> None:
        """Nobody waits any more."""
        self._over = True
        generation = self._poll.generation
        self._office.wheel.forget(self)
        generation.leave(self, CloseReason.FINISHED, known=True)
        if generation.fanout is not None:
            generation.fanout.stop_waiting(self._look)

    def _look(self) -> None:
        if self._over:
            return
        generation, after, wheel = self._poll.generation, self._poll.after, self._office.wheel
        fanout = generation.fanout
        try:
            streams.check_position(generation, after)  # it may have been forgotten meanwhile
        except RelayError as error:
            self._over = True
            self._refuse(error)
            return
        if generation.over or fanout is None or generation.events > after or wheel.now >= self._until:
            self._over = True
            self._answer(streams.events_behind(generation, after))
        else:
            fanout.wait(self._look)
            wheel.watch(self, self._until)
