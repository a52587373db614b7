"""A request's body: bounded, kept for one repeat, and the client read no faster than the provider takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core.request import RequestBody
from relay.flow.overflow import REQUEST
from tests.core.fakes import Clock, Producer, Sink


class Body:
    def __init__(self, *, limit: int = 1 << 20, keep: int = 1 << 20) -> None:
        self.client, self.clock, self.overruns = Producer(), Clock(), 0
        self.body = RequestBody(self.client.gate, self.clock, limit=limit, keep=keep, overrun=self._overrun)

    def _overrun(self) -> None:
        self.overruns += 1

    def sink(self) -> Sink:
        sink = Sink(self.body.reader)
        self.body.reader.attach(sink, blocked=False)
        return sink


def test_a_body_may_come_before_its_connection_and_after() -> None:
    made = Body()
    made.body.feed(b"one")
    sink = made.sink()
    made.body.feed(b"two")
    made.body.end()
    assert (sink.pieces, sink.ends) == ([b"one", b"two"], ["finish"])
    assert (made.body.bytes, made.body.ended) == (6, True)


def test_a_repeat_sends_the_same_from_the_start() -> None:
    made = Body()
    first = made.sink()
    made.body.feed(b"one")
    made.body.rewind()
    second = made.sink()
    made.body.feed(b"two")
    made.body.end()
    made.body.rewind()
    third = made.sink()
    assert (first.pieces, first.ends) == ([b"one"], [])
    assert (second.body, second.ends) == (b"onetwo", ["finish"])
    assert (third.body, third.ends) == (b"onetwo", ["finish"])


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=10), st.integers(0, 10), st.booleans())
def test_a_repeat_at_any_moment_loses_nothing(pieces: list[bytes], at: int, attached: bool) -> None:
    made = Body()
    if attached:
        made.sink()
    for number, piece in enumerate(pieces):
        if number == at:
            made.body.rewind()
        made.body.feed(piece)
    made.body.end()
    made.body.rewind()
    sink = made.sink()
    assert (sink.body, sink.ends) == (b"".join(pieces), ["finish"])
    assert not made.client.paused


def test_what_is_too_long_to_keep_is_not_repeated() -> None:
    made = Body(keep=5)
    sink = made.sink()
    made.body.feed(b"12345")
    assert made.body.repeatable
    made.body.feed(b"6")
    assert not made.body.repeatable
    assert sink.body == b"123456"


def test_once_an_answer_has_begun_nothing_is_kept() -> None:
    made = Body()
    made.body.feed(b"x")
    made.body.settle()
    assert not made.body.repeatable


def test_past_the_limit_nothing_goes_on() -> None:
    made = Body(limit=5)
    sink = made.sink()
    made.body.feed(b"12345")
    assert made.overruns == 0
    made.body.feed(b"6")
    made.body.feed(b"7")
    assert made.overruns > 0
    assert sink.body == b"12345"
    assert not made.body.repeatable, "not all that has come is still here"


def test_the_client_waits_while_nobody_takes_its_body() -> None:
    made = Body()
    made.body.feed(b"x" * REQUEST.high)
    assert not made.client.paused
    made.body.feed(b"x")
    assert made.client.paused
    made.body.rewind()
    assert made.client.paused
    made.sink()
    assert not made.client.paused


def test_a_body_that_is_dropped_lets_the_client_go() -> None:
    made = Body()
    made.body.feed(b"x" * (REQUEST.high + 1))
    made.body.drop()
    made.body.feed(b"y" * (REQUEST.high + 1))
    made.body.end()
    assert not made.client.paused
    assert made.body.reader.waiting == 0
    assert not made.body.repeatable


def test_every_byte_shows_that_the_client_is_there() -> None:
    made = Body()
    made.clock.now = 5.0
    made.body.feed(b"x")
    assert made.body.active == 5.0
    made.clock.now = 6.0
    made.body.end()
    assert made.body.active == 6.0
