"""What one event of a stream that can be resumed may cost: Python frames, writes, and what is kept of it. Counted, not
timed. See test_budget.py and test_budget2.py, whose chains these are, with a log and its readers between their ends."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import pytest

from relay.core.fanout import Fanout
from relay.core.follower import AT_ONCE, Flush, Follower
from relay.core.log import EventLog
from relay.core.logged import LoggedStream
from relay.flow.overflow import Mode, lag
from relay.wire import chunked, frames
from relay.wire.chunked import ChunkedBody
from relay.wire.dialect import CHAT
from tests.core.fakes import STREAM_ID, Clock, Owner, Pulse, Sink, Told, ignore, numbered
from tests.core.test_budget import EACH, EVENT, READ, TURN, Connection, Socket, calls
from tests.core.test_budget2 import Client2
from tests.wire.peer2 import frame
from tests.wire.test_chunked import Consumer

# As a stream without a log.
TO_HTTP1 = [*EACH, *TURN]
TO_HTTP2 = [*EACH, *TURN]
TO_HTTP2_FIRST = [*EACH, "wake", *TURN]
# Of C: what is asked of the event, the log's own, and the write.
C_CALLS = {1: 13, 2: 11}
# At every 64th event: the log packs what it has.
PACK_FRAMES = 16
READERS = 10
# Bytes of a resumable stream's own objects, without an event.
MOST_OF_A_LOG = 1200


class Chain:
    """A provider's chunks in, to a log with readers; its head has gone, and the first events."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.fanout = Told(keeps=keeps)
        body = ChunkedBody(Consumer())
        body.pour(self.fanout)
        self.receive = Socket(body)

    def follow(self, mode: Mode = Mode.MERGE, flush: Flush = AT_ONCE) -> Follower:
        return Follower(self.fanout, self.fanout.log.tail, lag(mode), ignore, flush)

    def begin(self) -> None:
        for _ in range(3):
            self.receive(READ)


def http1(write: Callable[[bytes], None], readers: int = 1, *, keeps: bool = True) -> Chain:
    chain = Chain(keeps=keeps)
    for _ in range(readers):
        Connection(write).answer(chain.follow())
    chain.begin()
    return chain


def http2(write: Callable[[bytes], None], streams: int = 1) -> tuple[Chain, Client2]:
    """Readers that are streams of one client's connection."""
    chain = Chain()
    client = Client2(streams, write)
    for lane in client.both.lanes:
        # The reader that it had is one without a log.
        lane.reader = chain.follow()
        stream = lane.stream
        stream._reader = lane.reader  # type: ignore[union-attr]
        lane.reader.attach(stream, blocked=False)  # type: ignore[arg-type]
    chain.begin()
    client.soon.turn()
    return chain, client


def tagged(chain: Chain, back: int = 0) -> bytes:
    return numbered(chain.fanout.log.tail - back, EVENT)


def test_one_event_to_http1_is_three_frames_and_one_write() -> None:
    written: list[bytes] = []
    chain = http1(written.append)
    for _ in range(10):
        written.clear()
        names, built_in = calls(lambda: chain.receive(READ))
        assert names == TO_HTTP1
        assert written == [chunked.encode(tagged(chain))]
        assert len(built_in) == C_CALLS[1], built_in


def test_one_event_to_http2_is_three_frames_and_a_fourth_once_a_turn() -> None:
    written: list[bytes] = []
    chain, client = http2(written.append)
    written.clear()
    for expected in (TO_HTTP2_FIRST, TO_HTTP2, TO_HTTP2):
        names, built_in = calls(lambda: chain.receive(READ))
        assert names == expected
        assert len(built_in) <= C_CALLS[2], built_in
    assert written == []
    client.soon.turn()
    assert written == [b"".join(frame(frames.DATA, 0, 1, tagged(chain, back)) for back in (2, 1, 0))]


def test_the_sixty_fourth_event_packs_and_the_next_costs_what_the_first_did() -> None:
    chain = http1(deque[bytes](maxlen=0).append)
    for _ in range(3, 63):
        assert calls(lambda: chain.receive(READ))[0] == TO_HTTP1
    names, _ = calls(lambda: chain.receive(READ))
    assert len(TO_HTTP1) < len(names) <= PACK_FRAMES
    assert calls(lambda: chain.receive(READ))[0] == TO_HTTP1


@pytest.mark.parametrize("readers", [2, READERS])
def test_each_further_reader_is_one_frame_and_one_write(readers: int) -> None:
    written: list[bytes] = []
    chain = http1(written.append, readers)
    written.clear()
    names, _ = calls(lambda: chain.receive(READ))
    assert names == [*EACH[:-1], *["send"] * readers, *TURN]
    assert written == [chunked.encode(tagged(chain))] * readers


def test_readers_on_one_http2_connection_are_one_write_together() -> None:
    written: list[bytes] = []
    chain, client = http2(written.append, READERS)
    written.clear()
    names, _ = calls(lambda: chain.receive(READ))
    assert names == [*EACH, "wake", *["send"] * (READERS - 1), *TURN]
    client.soon.turn()
    assert written == [b"".join(frame(frames.DATA, 0, 2 * n + 1, tagged(chain)) for n in range(READERS))]


def test_an_event_that_nobody_reads_is_two_frames() -> None:
    chain = http1(deque[bytes](maxlen=0).append, readers=0)
    assert calls(lambda: chain.receive(READ))[0] == [*EACH[:-1], *TURN]


@pytest.mark.parametrize("together", [2, 5, 50])
def test_however_many_events_one_read_holds_it_is_one_write_a_reader(together: int) -> None:
    written: list[bytes] = []
    chain = http1(written.append, READERS)
    written.clear()
    chain.receive(chunked.encode(EVENT * together))
    events = b"".join(tagged(chain, back) for back in reversed(range(together)))
    assert written == [chunked.encode(events)] * READERS


class Json:
    """Counts the calls to orjson while a test works."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, work: Callable[[], object]) -> int:
        self.calls = 0
        sys.setprofile(self._count)
        try:
            work()
        finally:
            sys.setprofile(None)
        return self.calls

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        self.calls += event == "c_call" and argument is orjson.loads


@pytest.mark.parametrize("mode", Mode)
def test_nobody_reads_json_while_nobody_lags(mode: Mode) -> None:
    chain = Chain()
    for _ in range(3):
        Connection(deque[bytes](maxlen=0).append).answer(chain.follow(mode))
    json = Json()

    def come() -> None:
        for _ in range(200):
            chain.receive(READ)
        chain.receive(chunked.encode(EVENT * 20))

    assert json(come) == 0


def test_json_is_read_for_the_reader_that_lags_and_not_for_the_others() -> None:
    chain = Chain()
    stuck, healthy = chain.follow(), chain.follow()
    for reader in (stuck, healthy):
        Connection(deque[bytes](maxlen=0).append).answer(reader)
    stuck.block()
    json = Json()

    def come() -> None:
        for _ in range(50):
            chain.receive(READ)

    assert json(come) == 0, "merged before anybody can take it"
    found = json(stuck.unblock)
    # Of two that say the same but for their text, the text alone is read.
    assert 50 <= found <= 100
    assert stuck.merged == 49
    assert json(come) == 0, "it is live again"


def test_nothing_is_kept_of_an_event_but_the_event() -> None:
    chain = http1(deque[bytes](maxlen=0).append, READERS)
    reads = [READ] * 2048

    def pass_all() -> None:
        for read in reads:
            chain.receive(read)

    pass_all()
    gc.collect()
    tracemalloc.start()
    try:
        pass_all()
        before, kept = tracemalloc.get_traced_memory()[0], chain.fanout.log.kept
        pass_all()
        grown = tracemalloc.get_traced_memory()[0] - before
        assert chain.fanout.log.kept - kept == 2048 * len(EVENT)
        assert grown <= 1.3 * 2048 * len(EVENT)
    finally:
        tracemalloc.stop()


def test_an_event_of_a_stream_that_is_not_kept_leaves_nothing_behind() -> None:
    chain = http1(deque[bytes](maxlen=0).append, keeps=False)
    reads = [READ] * 2048

    def pass_all() -> None:
        for read in reads:
            chain.receive(read)

    pass_all()
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        pass_all()
        before, _ = tracemalloc.get_traced_memory()
        pass_all()
        assert tracemalloc.get_traced_memory()[0] - before <= 1000
    finally:
        tracemalloc.stop()
        gc.enable()
    assert chain.fanout.log.kept == 0


def test_a_log_and_a_live_reader_of_it_are_small() -> None:
    """What an open stream costs more where it can be resumed is most of this; its stream is among it."""
    clock, beat, owner = Clock(), Pulse(), Owner()
    sinks = [Sink() for _ in range(100)]

    def open_one(sink: Sink) -> tuple[Fanout, LoggedStream, Follower]:
        log = EventLog(1 << 20)
        fanout = Fanout(STREAM_ID, log, CHAT, clock, beat, numbered=True, keeps=True)
        stream = LoggedStream(fanout, owner, clock, CHAT, 1 << 20)
        follower = Follower(fanout, 0, lag(Mode.MERGE), ignore)
        follower.attach(sink, blocked=False)
        return fanout, stream, follower

    opened = [open_one(sinks[0])]
    gc.collect()
    tracemalloc.start()
    try:
        opened += [open_one(sink) for sink in sinks]
        each = tracemalloc.get_traced_memory()[0] / len(sinks)
    finally:
        tracemalloc.stop()
    assert all(follower.out is sink for (_, _, follower), sink in zip(opened[1:], sinks, strict=True))
    assert each <= MOST_OF_A_LOG


def test_a_reader_that_lags_costs_a_number_whatever_comes() -> None:
    """The events are the log's; of the reader there are its place and a mark a second."""
    chain = http1(deque[bytes](maxlen=0).append, 0)
    stuck = [chain.follow(Mode.DISCONNECT) for _ in range(50)]
    for reader in stuck:
        Connection(deque[bytes](maxlen=0).append).answer(reader)
        reader.block()
    for _ in range(64):
        chain.receive(READ)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(640):
            chain.receive(READ)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert all(reader.waiting > 40_000 for reader in stuck)
    assert grown <= 1.3 * 640 * len(EVENT) + 50 * 200


def test_the_counts_see_a_frame_and_json_more(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = LoggedStream.feed

    def wasteful(self: LoggedStream, payload: bytes) -> None:
        orjson.loads(payload[6:-2])
        feed(self, payload)

    monkeypatch.setattr(LoggedStream, "feed", wasteful)
    chain = http1(deque[bytes](maxlen=0).append)
    assert calls(lambda: chain.receive(READ))[0] != TO_HTTP1
    assert Json()(lambda: chain.receive(READ)) == 1
    assert STREAM_ID
