"""What one event may cost on its way through the relay: Python frames, calls, writes, copies. Counted, not timed.

The chain is the real one; only the system's send is a fake. Whoever makes one of these numbers larger has made every
token of every stream dearer.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import pytest

from relay.core.reader import Reader
from relay.core.stream import Stream
from relay.flow.overflow import ANSWER
from relay.net.connection1 import Connection1
from relay.net.poller import POSTED_MOST, Poller
from relay.net.timers import Wheel
from relay.net.transport import SocketTransport
from relay.wire import chunked
from relay.wire.body import Body
from relay.wire.chunked import ChunkedBody
from relay.wire.dialect import CHAT
from relay.wire.head import CHUNKED
from relay.wire.input import INPUT
from tests.core.fakes import Clock, Owner, Producer
from tests.wire.test_chunked import Consumer

EVENT = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" token"}}]}\n\n'
READ = chunked.encode(EVENT)
LARGE = b"data: " + b"x" * 60_000 + b"\n\n"

# Pinned as measured. Three frames: ChunkedBody.take, Stream.feed, Connection1.send; and one for all of a turn, which
# sends what was posted in it.
EACH = ["take", "feed", "send"]
TURN = ["send_posted"]
FRAMES = [*EACH, *TURN]
C_CALLS = 14
# Of an event's size, at the highest moment. What is taken out of the chunk takes the place of the last event, which is
# let go; beside it there is the chunk that is made of it.
COPIES = 1
# An event too long to be kept takes nobody's place; looking for its head copies it once more for a moment; and what
# was read is taken out of the buffer before it is known to be one chunk.
LARGE_COPIES = 4
# What is called by the tests themselves on the way in.
OWN = ("calls", "<lambda>", "__call__", "ten", "together", "turn", "write_down")


class Send:
    """The system's, on a socket that takes everything."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write

    def __call__(self, data: bytes) -> int:
        size = len(data)
        self.write(data)
        return size


# In the place of a function of C, and counted as one.
SEND = Send.__call__.__code__


class Desk(Poller):
    """The poller's other half, in the middle of a turn: a test says when it is over."""

    def __init__(self) -> None:
        self.posted = []
        self.woken = True

    def turn(self) -> None:
        self.send_posted()


DESK = Desk()


class Transport(SocketTransport):
    __slots__ = ("send",)

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__(DESK, socket.AF_UNIX)
        os.close(self.detach())
        self.send = Send(write)  # type: ignore[assignment,method-assign]


class Connection(Connection1):
    """A client's connection in the middle of its answer."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__(cast(Wheel, Clock()), 60.0)
        self.connection_made(cast(asyncio.BaseTransport, Transport(write)))

    def answer(self, reader: Reader) -> None:
        self._begin(b"HTTP/1.1 200 OK\r\n\r\n", CHUNKED, reader)


class Socket:
    """As the poller reads one: into the buffer, and then says how much; the turn has no other."""

    def __init__(self, body: Body) -> None:
        self.take = body.take

    def __call__(self, data: bytes) -> None:
        INPUT[: len(data)] = data
        self.take(len(data))
        DESK.turn()


class Chain:
    """Provider's bytes in, client's writes out; the head has gone, and the first event."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        reader = Reader(ANSWER, Producer().gate)
        self.connection = Connection(write)
        self.connection.answer(reader)
        self.stream = Stream(reader, Owner(), Clock(), CHAT, 1 << 20)
        body = ChunkedBody(Consumer())
        body.pour(self.stream)
        self.receive = Socket(body)
        for _ in range(3):
            self.receive(READ)


def calls(work: Callable[[], None]) -> tuple[list[str], list[str]]:
    """The names of the Python functions and of the C functions that the relay calls, in their order."""
    frames: list[str] = []
    built_in: list[str] = []

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code is SEND:
            if event == "call":
                built_in.append("send")
        elif frame.f_code.co_name in OWN:
            pass
        elif event == "call":
            frames.append(frame.f_code.co_name)
        elif event == "c_call":
            built_in.append(argument.__name__)

    # What Hypothesis has the collector call would be counted as well.
    gc.disable()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return frames, built_in


def test_one_event_is_three_frames_and_one_write() -> None:
    written: list[bytes] = []
    receive = Chain(written.append).receive
    written.clear()
    frames, built_in = calls(lambda: receive(READ))
    assert frames == FRAMES
    assert written == [READ]
    assert built_in.count("send") == 1
    assert len(built_in) == C_CALLS, built_in


@pytest.mark.parametrize("streams", [2, 10, POSTED_MOST - 1])
def test_events_of_many_streams_in_one_turn_cost_the_same_each(streams: int) -> None:
    written: list[int] = []

    def write_down(number: int, data: bytes) -> None:
        written.append(number)

    sockets = [Chain(partial(write_down, number)).receive for number in range(streams)]
    written.clear()

    def together() -> None:
        for each in sockets:
            INPUT[: len(READ)] = READ
            each.take(len(READ))
        assert written == []
        DESK.turn()

    frames, built_in = calls(together)
    assert frames == [*EACH * streams, *TURN]
    assert written == list(range(streams))
    assert built_in.count("send") == streams


def test_a_socket_that_was_full_for_a_while_costs_no_more_when_it_takes_bytes_again() -> None:
    written: list[bytes] = []
    chain = Chain(written.append)
    chain.connection._hold()
    chain.receive(READ)
    chain.connection._go_on()
    DESK.turn()
    written.clear()
    assert calls(lambda: chain.receive(READ))[0] == FRAMES
    assert written == [READ]


def test_the_tenth_event_costs_what_the_first_one_did() -> None:
    written: list[bytes] = []
    receive = Chain(written.append).receive

    def ten() -> None:
        for _ in range(10):
            receive(READ)

    frames, built_in = calls(ten)
    assert frames == FRAMES * 10
    assert len(built_in) <= C_CALLS * 10


@pytest.mark.parametrize("together", [2, 5, 50])
def test_however_many_events_one_read_holds_it_is_one_write(together: int) -> None:
    written: list[bytes] = []
    receive = Chain(written.append).receive
    for read in (READ * together, chunked.encode(EVENT * together)):
        written.clear()
        receive(read)
        assert written == [chunked.encode(EVENT * together)]


def test_events_in_one_chunk_cost_one_frame_each_at_most() -> None:
    receive = Chain(deque[bytes](maxlen=0).append).receive
    few, many = chunked.encode(EVENT * 100), chunked.encode(EVENT * 1000)
    # But for the chunk itself, which is large enough to take the general way: each is asked whether it has data.
    assert len(calls(lambda: receive(few))[0]) <= 100 + 20
    assert len(calls(lambda: receive(many))[0]) <= 1000 + 20


def test_an_event_leaves_nothing_behind() -> None:
    receive = Chain(deque[bytes](maxlen=0).append).receive
    reads = [READ] * 2000

    def pass_all() -> None:
        for read in reads:
            receive(read)

    pass_all()
    gc.collect()
    gc.disable()
    try:
        pass_all()  # the collection has emptied the interpreter's lists of spare objects
        before = sys.getallocatedblocks()
        pass_all()
        assert abs(sys.getallocatedblocks() - before) <= 5
        tracemalloc.start()
        pass_all()
        current, _ = tracemalloc.get_traced_memory()
        pass_all()
        assert tracemalloc.get_traced_memory()[0] - current <= 500
    finally:
        tracemalloc.stop()
        gc.enable()


def transient(event: bytes) -> float:
    """The highest memory during one event, in sizes of the event."""
    receive = Chain(deque[bytes](maxlen=0).append).receive
    read = chunked.encode(event)
    receive(read)
    tracemalloc.start()
    try:
        receive(read)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        receive(read)
        return (tracemalloc.get_traced_memory()[1] - before) / len(event)
    finally:
        tracemalloc.stop()


def test_an_event_is_copied_no_more_often_than_it_must_be() -> None:
    small = b"data: " + b"x" * 1000 + b"\n\n"
    # Small objects beside it (a number, a few digits) and the heads of all of them: under half a kilobyte.
    assert transient(small) < COPIES + 0.6
    assert transient(LARGE) < LARGE_COPIES + 0.1


def test_the_counts_see_a_frame_a_write_and_a_copy_more(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Connection1.send

    def wasteful(self: Connection1, payload: bytes) -> None:
        spare = bytes(bytearray(payload)), bytes(bytearray(payload))
        self._transport.write(b"")
        send(self, payload)
        del spare

    monkeypatch.setattr(Connection1, "send", wasteful)
    written: list[bytes] = []
    receive = Chain(written.append).receive
    written.clear()
    assert calls(lambda: receive(READ))[0] != FRAMES
    assert len(written) == 2
    assert transient(b"data: " + b"x" * 1000 + b"\n\n") > COPIES + 1
    assert transient(LARGE) > LARGE_COPIES + 0.5
