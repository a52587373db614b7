"""A real HTTP/2 connection of the relay, without a socket, and h2 as its peer.

Loop, wheel and transport are fakes that a test turns by hand; streams, readers and gates are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from h2.events import DataReceived, Event, StreamEnded, StreamReset

from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.core.transfer import Transfer
from relay.errors import RelayError, UpstreamError
from relay.flow.overflow import ANSWER, REQUEST
from relay.net.connection2 import CONNECTION_WINDOW, WINDOW, Connection2
from relay.net.downstream2 import Downstream2
from relay.net.service import Client, ClientLimits, Service
from relay.net.timers import Timed, Wheel
from relay.net.upstream2 import ProviderStream, Upstream2
from relay.wire import frames
from relay.wire.head import CHUNKED, RequestHead, ResponseHead
from tests.core.fakes import Producer, Sink
from tests.wire.peer2 import REQUEST as REQUEST_HEAD
from tests.wire.peer2 import RESPONSE as RESPONSE_HEAD
from tests.wire.peer2 import alive, make_peer


class Loop:
    """What connections want of a loop: callbacks in the next turn."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def call_soon(self, call: Callable[..., None], *arguments: Any, context: Any = None) -> None:
        self.soon.append((call, arguments))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def get_debug(self) -> bool:
        return False

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            call, arguments = self.soon.popleft()
            call(*arguments)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self))
        try:
            yield
        finally:
            asyncio._set_running_loop(None)


class FakeWheel:
    def __init__(self) -> None:
        self.now = 1.0

    def watch(self, timed: Timed, when: float) -> None:
        pass

    def forget(self, timed: Timed) -> None:
        pass


class Transport:
    """`room`: whether the socket takes what is written; else the connection is told to pause, as uvloop does."""

    def __init__(self, connection: Connection2) -> None:
        self.connection = connection
        self.writes: list[bytes] = []
        self.room = True
        self.reading = True
        self.ends: list[str] = []

    def write(self, data: bytes) -> None:
        assert not self.ends
        self.writes.append(data)
        if not self.room and not self.connection.blocked:
            self.connection.pause_writing()

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.ends)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ends.append("eof")

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


class Lane:
    """One stream from the relay's inside: what it sends goes in by `reader`, what comes is in `sink`."""

    def __init__(self) -> None:
        self.producer = Producer()
        self.sink = Sink()
        self.stream: Client | ProviderStream | None = None
        self.sent = bytearray()
        self.reader = Reader(ANSWER, self.producer.gate)
        self.finished = False
        self.gone = False
        self.errors: list[RelayError] = []

    def send(self, data: bytes) -> None:
        self.sent += data
        self.reader.out.send(data)

    def finish(self) -> None:
        self.finished = True
        self.reader.finish()

    @property
    def stream_id(self) -> int:
        return cast(ProviderStream, self.stream).stream_id

    def cancel(self) -> None:
        raise NotImplementedError


class Served(Lane):
    """A client's request, as an exchange sees it."""

    def __init__(self, client: Client, clock: FakeWheel) -> None:
        super().__init__()
        self.stream = client
        self.client = client
        self.body = RequestBody(client.gate, clock, limit=1 << 40, keep=0, overrun=self._overrun)
        self.body.reader.attach(self.sink, blocked=False)

    def _overrun(self) -> None:
        raise AssertionError

    @property
    def done(self) -> bool:
        return self.gone

    def start(self) -> None:
        self.client.start(200, [], None, self.reader)
        self.client.flush_head()

    def stop(self, error: RelayError) -> None:
        self.gone = True
        self.errors.append(error)
        self.body.drop()

    def delivered(self) -> None:
        self.gone = True
        self.body.drop()

    def cancel(self) -> None:
        self.client.abort()


class Asked(Lane):
    """A request to a provider, as its asker sees it."""

    def __init__(self, place: ProviderStream, clock: FakeWheel) -> None:
        super().__init__()
        self.stream = place
        self.place = place
        self.reader = Reader(REQUEST, self.producer.gate)
        self.began = 0
        self._answer = Reader(ANSWER, place.gate)
        self._answer.attach(self.sink, blocked=False)
        self._clock = clock

    def answered(self, head: ResponseHead) -> Transfer:
        return Transfer(self._answer, self, self._clock)

    def unanswered(self, error: UpstreamError) -> None:
        self.gone = True
        self.errors.append(error)

    def transfer_began(self) -> None:
        self.began += 1

    def transfer_ended(self, error: RelayError | None) -> None:
        self.gone = True
        if error is None:
            self._answer.finish()
        else:
            self.errors.append(error)

    def cancel(self) -> None:
        self.gone = True
        self.place.cancel()


class Both:
    """`role` is the relay's. Both of its kinds are a Service and a Home as far as they are asked."""

    connection: Downstream2 | Upstream2

    def __init__(self, role: str, settings: dict[int, int] | None = None, limits: ClientLimits | None = None) -> None:
        self.loop = Loop()
        self.wheel = FakeWheel()
        self.limits = limits or ClientLimits()
        self.draining = False
        self.lanes: list[Lane] = []
        self.complaints: list[RelayError] = []
        self.peer = make_peer(client=role == "server", settings=settings)
        self.events: list[Event] = []
        self.got: dict[int, bytearray] = {}
        self.over: dict[int, str] = {}
        with self.loop.running():
            if role == "server":
                self.connection = Downstream2(cast(Service, self))
            else:
                self.connection = Upstream2(
                    cast(Wheel, self.wheel), self, stall=60, idle_time=60, streams=100, ping=0, pong=10
                )
        self.transport = Transport(self.connection)
        self.connection.connection_made(cast(asyncio.Transport, self.transport))
        if role == "server":
            self.connection.data_received(self.peer.data_to_send().removeprefix(frames.PREFACE))
        self.settle()

    # Bytes

    def give(self) -> None:
        """What the relay has written, to the peer."""
        writes, self.transport.writes = self.transport.writes, []
        for data in writes:
            for event in self.peer.receive_data(data):
                self.events.append(event)
                if isinstance(event, DataReceived):
                    self.got.setdefault(event.stream_id, bytearray()).extend(event.data)
                elif isinstance(event, StreamEnded):
                    self.over[event.stream_id] = "ended"
                elif isinstance(event, StreamReset) and event.remote_reset:
                    self.over.setdefault(event.stream_id, "reset")

    def take(self, sizes: list[int] | None = None) -> None:
        """What the peer has to say, to the relay; in reads of these sizes, over and over."""
        data, at, number = self.peer.data_to_send(), 0, 0
        while at < len(data):
            size = sizes[number % len(sizes)] if sizes else len(data)
            self.connection.data_received(data[at : at + size])
            at += size
            number += 1

    def settle(self, sizes: list[int] | None = None) -> None:
        """Until nobody has anything to say."""
        while self.loop.soon or self.transport.writes or self.peer._data_to_send:
            self.loop.turn()
            self.give()
            self.take(sizes)

    # Streams

    def open(self) -> Lane:
        """Both heads have gone, both ways are open."""
        stream_id = 2 * len(self.lanes) + 1
        if isinstance(self.connection, Downstream2):
            self.peer.send_headers(stream_id, REQUEST_HEAD)
        else:
            place = self.connection.call()
            asked = Asked(place, self.wheel)
            self.lanes.append(asked)
            place.ask(b"POST", b"/", [(b"host", b"h")], CHUNKED, asked, asked.reader)
            self.settle()
            self.peer.send_headers(stream_id, RESPONSE_HEAD)
        self.settle()
        assert len(self.lanes) == stream_id // 2 + 1
        return self.lanes[-1]

    def check(self) -> None:
        """Whatever each side counts, it counts the same."""
        engine, peer = self.connection.engine, self.peer
        assert engine.h2.outbound_flow_control_window == peer.inbound_flow_control_window >= 0
        assert CONNECTION_WINDOW // 2 <= peer.outbound_flow_control_window <= CONNECTION_WINDOW
        for stream_id, theirs in alive(peer):
            ours = engine.h2.streams[stream_id]
            assert ours.outbound_flow_control_window == theirs.inbound_flow_control_window
            stream = self.connection.open_streams.get(stream_id)
            if stream is not None and stream_id in engine.streams:
                assert theirs.outbound_flow_control_window == WINDOW - stream.unacked
                assert stream.paused or stream.unacked <= WINDOW // 2

    # Service and Home2

    def exchange(self, request: RequestHead, client: Client) -> Served:
        served = Served(client, self.wheel)
        self.lanes.append(served)
        return served

    def opened(self, connection: object) -> bool:
        return True

    def left(self, connection: object) -> None:
        pass

    def refused(self, client: Client, error: RelayError) -> None:
        client.respond(error.status if isinstance(error.status, int) else 500, [], b"refused")

    def broke(self, peer: str, error: RelayError) -> None:
        self.complaints.append(error)

    def ready(self, connection: Upstream2) -> None:
        pass

    def freed(self, connection: Upstream2) -> None:
        pass

    def lost(self, connection: Upstream2) -> None:
        pass
