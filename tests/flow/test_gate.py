"""A pause that several may hold: the first to come pauses, the last to go resumes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.flow.gate import Gate


class Producer:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.gate = Gate(self)

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")


def test_the_first_pauses_and_the_last_resumes() -> None:
    producer = Producer()
    gate = producer.gate
    gate.hold()
    gate.hold()
    assert gate.closed
    gate.release()
    assert gate.closed
    assert producer.said == ["pause"]
    gate.release()
    assert not gate.closed
    assert producer.said == ["pause", "resume"]


def test_who_does_not_hold_it_cannot_release_it() -> None:
    producer = Producer()
    with pytest.raises(AssertionError):
        producer.gate.release()
    producer.gate.hold()
    producer.gate.release()
    with pytest.raises(AssertionError):
        producer.gate.release()
    assert producer.said == ["pause", "resume"]


def test_a_producer_that_is_through_is_let_go_once() -> None:
    producer = Producer()
    producer.gate.hold()
    producer.gate.hold()
    producer.gate.retire()
    producer.gate.retire()
    assert producer.said[:2] == ["pause", "resume"]
    assert producer.said.count("resume") == 1
    # Those who hold it still do, and may go as they came.
    producer.gate.release()
    producer.gate.hold()
    producer.gate.release()
    producer.gate.release()
    assert producer.said.count("pause") == producer.said.count("resume") == 1
    assert not producer.gate.closed


def test_a_producer_that_nobody_held_is_told_nothing() -> None:
    producer = Producer()
    producer.gate.retire()
    producer.gate.hold()
    producer.gate.release()
    assert producer.said == []


@given(st.lists(st.booleans()))
def test_it_is_closed_as_long_as_anybody_holds_it(steps: list[bool]) -> None:
    producer, holders = Producer(), 0
    for hold in steps:
        if hold:
            producer.gate.hold()
            holders += 1
        elif holders:
            producer.gate.release()
            holders -= 1
        assert producer.gate.closed == (holders > 0)
        assert (producer.said[-1:] == ["pause"]) == (holders > 0)
    assert producer.said == ["pause", "resume"] * (len(producer.said) // 2) + ["pause"] * (len(producer.said) % 2)
