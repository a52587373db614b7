"""What one event may cost on its way from a provider's HTTP/2 connection to a client: Python frames, calls, writes, and
nothing of h2. Counted, not timed.

The chain is the real one, from the bytes of a DATA frame to the transport's write; loop and transport are calls into C,
as uvloop's are. See test_budget.py.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from h2.events import DataReceived
from h2.settings import SettingCodes

from relay.core.reader import Reader
from relay.core.stream import Stream
from relay.errors import UpstreamError
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER, REQUEST
from relay.net.connection2 import Connection2
from relay.net.stream2 import Stream2
from relay.wire import frames
from relay.wire.dialect import CHAT
from relay.wire.head import EMPTY, ResponseHead
from tests.core.fakes import Clock, Owner, Producer
from tests.core.test_budget import DESK, EVENT, SEND, TURN, Connection
from tests.net.pair2 import Both
from tests.wire.peer2 import RESPONSE, frame

# Pinned as measured: Engine.receive, Stream.feed, Connection1.send, and the turn's own; or Stream2.send, which for the
# first event of a turn asks the loop for its end.
TO_HTTP1 = ["receive", "feed", "send", *TURN]
TO_HTTP2 = ["receive", "feed", "send"]
TO_HTTP2_FIRST = [*TO_HTTP2, "wake"]
FRAMES = 4
C_CALLS = {1: 16, 2: 13}
# At the turn's end, for all streams of a connection: _flush_turn, flush.
FLUSH = ["_flush_turn", "flush"]
FOREIGN = ("/h2/", "/hpack/", "/hyperframe/")


class Asker:
    """Has asked the provider, and pours the answer into a reader."""

    def __init__(self, reader: Reader) -> None:
        self.stream = Stream(reader, Owner(), Clock(), CHAT, 1 << 20)

    def answered(self, head: ResponseHead) -> Stream:
        return self.stream

    def unanswered(self, error: UpstreamError) -> None:
        raise error


class Soon:
    """The end of the turn, asked for by a call into C."""

    def __init__(self, connection: Connection2) -> None:
        self.calls: list[Callable[[], None]] = []
        connection._loop = cast(asyncio.AbstractEventLoop, SimpleNamespace(call_soon=self.calls.append))

    def turn(self) -> None:
        calls = self.calls[:]
        self.calls.clear()
        for call in calls:
            call()


class Chain:
    """Answers on one provider connection for these readers, in the middle of their events."""

    def __init__(self, readers: list[Reader]) -> None:
        self.provider = Both("client")
        self.streams: list[Stream] = []
        for number, reader in enumerate(readers):
            asker = Asker(reader)
            place = self.provider.connection.call()  # type: ignore[union-attr]
            place.ask(b"POST", b"/", [(b"host", b"h")], EMPTY, asker, Reader(REQUEST, Gate(None)))
            self.provider.settle()
            self.provider.peer.send_headers(2 * number + 1, RESPONSE)
            self.provider.settle()
            self.streams.append(asker.stream)
        self.soon = Soon(self.provider.connection)
        self.provider.transport.write = deque[bytes](maxlen=0).append  # type: ignore[method-assign,assignment]
        self.receive = self.provider.connection.data_received
        for number in range(len(readers)):
            for _ in range(3):
                self.receive(read(2 * number + 1))


class Client2:
    """A client's HTTP/2 connection with so many requests whose answers have begun."""

    def __init__(self, streams: int, write: Callable[[bytes], None]) -> None:
        # As wide as windows are, so that no count is about them.
        self.both = Both("server", {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30})
        self.both.peer.increment_flow_control_window(1 << 30)
        self.both.settle()
        self.readers = [self.both.open().reader for _ in range(streams)]
        self.soon = Soon(self.both.connection)
        self.both.transport.write = write  # type: ignore[method-assign,assignment]


def client1(write: Callable[[bytes], None]) -> Reader:
    reader = Reader(ANSWER, Producer().gate)
    Connection(write).answer(reader)
    return reader


def read(stream_id: int, payload: bytes = EVENT) -> bytes:
    return frame(frames.DATA, 0, stream_id, payload)


class Calls:
    """The names of the Python functions and of the C functions that are called, and those that are in other houses."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.frames: list[str] = []
        self.built_in: list[str] = []
        self.foreign: list[str] = []
        sys.setprofile(self._count)
        try:
            work()
        finally:
            sys.setprofile(None)
        # The lambda around it, and the call that ends the count.
        del self.frames[0], self.built_in[-1]

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code is SEND:
            if event == "call":
                self.built_in.append("send")
        elif event == "call":
            self.frames.append(frame.f_code.co_name)
            if any(house in frame.f_code.co_filename for house in FOREIGN):
                self.foreign.append(frame.f_code.co_qualname)
        elif event == "c_call":
            self.built_in.append(argument.__name__)


READ = read(1)


def turn(chain: Chain, data: bytes = READ) -> None:
    """One of the loop's, of a client's HTTP/1.1."""
    chain.receive(data)
    DESK.send_posted()


def test_one_event_to_http1_is_three_frames_and_one_write() -> None:
    written: list[bytes] = []
    chain = Chain([client1(written.append)])
    turn(chain)
    written.clear()
    calls = Calls(partial(turn, chain))
    assert calls.frames == TO_HTTP1
    assert calls.foreign == []
    assert len(calls.built_in) == C_CALLS[1], calls.built_in
    assert written == [b"%x\r\n%b\r\n" % (len(EVENT), EVENT)]


def test_one_event_to_http2_is_three_frames_and_a_fourth_once_a_turn() -> None:
    written: list[bytes] = []
    client = Client2(1, written.append)
    chain = Chain(client.readers)
    client.soon.turn()
    written.clear()
    assert len(TO_HTTP2_FIRST) <= FRAMES
    for expected in (TO_HTTP2_FIRST, TO_HTTP2, TO_HTTP2):
        calls = Calls(lambda: chain.receive(READ))
        assert calls.frames == expected
        assert calls.foreign == []
        assert len(calls.built_in) == C_CALLS[2], calls.built_in
    assert written == []
    calls = Calls(client.soon.turn)
    assert calls.frames == FLUSH
    assert calls.foreign == []
    assert written == [READ * 3]
    assert client.soon.calls == []


@pytest.mark.parametrize("streams", [2, 10, 50])
@pytest.mark.parametrize("together", [True, False])
def test_events_of_several_streams_in_one_turn_are_one_write(streams: int, together: bool) -> None:
    """However many reads they came in."""
    written: list[bytes] = []
    client = Client2(streams, written.append)
    chain = Chain(client.readers)
    client.soon.turn()
    written.clear()
    events = [read(2 * number + 1) for number in range(streams)]

    def come() -> None:
        if together:
            chain.receive(b"".join(events))
        else:
            for event in events:
                chain.receive(event)

    calls = Calls(come)
    assert len(calls.frames) == (1 if together else streams) + 2 * streams + 1
    assert calls.foreign == []
    client.soon.turn()
    assert written == [b"".join(events)]
    got = [event for event in client.both.peer.receive_data(written[0]) if isinstance(event, DataReceived)]
    assert [(event.stream_id, event.data) for event in got] == [(2 * number + 1, EVENT) for number in range(streams)]


def test_each_client_connection_is_one_write() -> None:
    written: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    clients = [Client2(2, written[0].append), Client2(2, written[1].append)]
    chain = Chain([*clients[0].readers, *clients[1].readers, client1(written[2].append)])
    for client in clients:
        client.soon.turn()
    for writes in written.values():
        writes.clear()
    DESK.send_posted()
    written[2].clear()
    for _ in range(3):
        turn(chain, b"".join(read(2 * number + 1) for number in range(5)))
    for client in clients:
        client.soon.turn()
    assert [len(writes) for writes in written.values()] == [1, 1, 3]


@pytest.mark.parametrize("together", [2, 5, 50])
@pytest.mark.parametrize("split", [True, False])
def test_however_many_events_one_read_holds_it_is_one_frame_out(together: int, split: bool) -> None:
    """Those of a stream that come in several DATA frames leave in one."""
    written: list[bytes] = []
    client = Client2(1, written.append)
    chain = Chain(client.readers)
    client.soon.turn()
    written.clear()
    chain.receive(read(1) * together if split else read(1, EVENT * together))
    client.soon.turn()
    assert written == [read(1, EVENT * together)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_thousand_events_ask_h2_nothing(version: int) -> None:
    """Their windows are given back on the way, by hand too."""
    write = deque[bytes](maxlen=0).append
    client = Client2(1, write)
    chain = Chain(client.readers if version == 2 else [client1(write)])
    before = chain.provider.peer.outbound_flow_control_window

    def come() -> None:
        for _ in range(1000):
            turn(chain)
            client.soon.turn()
            chain.soon.turn()

    calls = Calls(come)
    assert calls.foreign == []
    assert chain.provider.peer.outbound_flow_control_window == before
    assert chain.streams[0].events == 1003
    once = Counter(calls.frames)
    assert (once["receive"], once["feed"], once["top_up"]) == (1000, 1000, 1003 * len(EVENT) // (32 * 1024))


@pytest.mark.parametrize("version", [1, 2])
def test_an_event_leaves_nothing_behind(version: int) -> None:
    write = deque[bytes](maxlen=0).append
    client = Client2(1, write)
    chain = Chain(client.readers if version == 2 else [client1(write)])
    reads = [READ] * 2000

    def pass_all() -> None:
        for data in reads:
            turn(chain, data)
        client.soon.turn()
        chain.soon.turn()

    pass_all()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        pass_all()
        assert abs(sys.getallocatedblocks() - before) <= 8
        tracemalloc.start()
        pass_all()
        current, _ = tracemalloc.get_traced_memory()
        pass_all()
        assert tracemalloc.get_traced_memory()[0] - current <= 800
    finally:
        tracemalloc.stop()
        gc.enable()


def test_the_counts_see_a_frame_and_a_write_more(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Stream2.send

    def wasteful(self: Stream2, payload: bytes) -> None:
        self._h2.local_flow_control_window(self.stream_id)
        send(self, payload)
        self.connection.flush()

    monkeypatch.setattr(Stream2, "send", wasteful)
    written: list[bytes] = []
    client = Client2(2, written.append)
    chain = Chain(client.readers)
    client.soon.turn()
    written.clear()
    calls = Calls(lambda: chain.receive(read(1) + read(3)))
    assert "H2Connection.local_flow_control_window" in calls.foreign
    assert len(calls.frames) > 2 * FRAMES
    assert len(written) == 2
