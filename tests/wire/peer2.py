"""An engine and h2 as its peer, without sockets: bytes go to and fro when a test says so.

The peer counts windows as h2 does: it raises where the engine overflows one, and sends no byte that it may not. The
engine's own h2 never sees DATA, so the two only agree if the windows kept by hand are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import hpack
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.events import Event
from h2.settings import SettingCodes
from h2.stream import H2Stream, StreamState
from h2.windows import WindowManager

from relay.wire import frames
from relay.wire.head import Headers
from relay.wire.http2 import Engine
from tests.core.fakes import Clock

REQUEST: Headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/")]
RESPONSE: Headers = [(b":status", b"200")]
WINDOW = 64 * 1024
CONNECTION_WINDOW = 1024 * 1024
ROLES = ["server", "client"]


class Taker:
    """A stream as the engine sees it."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.unacked = 0
        self.paused = False
        self.pieces: list[bytes] = []

    def feed(self, payload: bytes) -> None:
        assert payload
        self.pieces.append(payload)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class _Window(WindowManager):
    """RFC 9113, 6.9.1: an empty DATA frame needs no window, one below zero included; h2 4.4 has that wrong."""

    def window_consumed(self, size: int) -> None:
        if size:
            super().window_consumed(size)


class _Peer(H2Connection):
    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._inbound_window_manager = _Window(stream._inbound_window_manager.max_window_size)
        return stream


def make_peer(*, client: bool, settings: dict[int, int] | None = None) -> H2Connection:
    """h2 that checks what comes, and lets us say what we like."""
    peer = _Peer(
        H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    for code, value in (settings or {}).items():
        peer.local_settings[SettingCodes(code)] = value
        peer.local_settings.acknowledge()
    peer.initiate_connection()
    return peer


class Pair:
    """`role` is the engine's. It is its own listener: `told` is what it heard. What a head begins takes DATA."""

    def __init__(
        self,
        role: str,
        *,
        window: int = WINDOW,
        connection_window: int = CONNECTION_WINDOW,
        streams: int = 100,
        settings: dict[int, int] | None = None,
    ) -> None:
        self.client = role == "client"
        self.window = window
        self.connection_window = connection_window
        self.clock = Clock()
        self.told: list[tuple[Any, ...]] = []
        self.out: list[bytes] = []
        self.sent: list[tuple[int, int, int, bytes]] = []
        self.takers: dict[int, Taker] = {}
        self.events: list[Event] = []
        self.engine = Engine(
            self,
            self.out.append,
            self.clock,
            client=self.client,
            window=window,
            connection_window=connection_window,
            streams=0 if self.client else streams,
        )
        self.peer = make_peer(client=not self.client, settings=settings)
        self.engine.greet(0 if self.client else streams)
        if not self.client:
            # The client's preface is taken by whoever makes the connection out of it.
            greeting = self.peer.data_to_send()
            assert greeting.startswith(frames.PREFACE)
            self.engine.receive(greeting[len(frames.PREFACE) :])
        self.settle()
        assert self.told == [("settings",)]
        self.told.clear()
        self.sent.clear()

    # Bytes

    def give(self) -> list[Event]:
        """What the engine has sent, to the peer."""
        data = b"".join(self.out)
        self.engine.data_sent += len(self.out)
        self.out.clear()
        self.sent += split_frames(data.removeprefix(frames.PREFACE))
        events = self.peer.receive_data(data) if data else []
        self.events += events
        return events

    def take(self, pieces: Iterable[bytes] | None = None) -> None:
        """What the peer has to say (or these bytes), to the engine."""
        for piece in [self.peer.data_to_send()] if pieces is None else pieces:
            if piece:
                self.engine.receive(piece)

    def settle(self) -> None:
        """Until neither side has anything to say."""
        while self.out or self.peer._data_to_send:
            self.give()
            self.take()

    # Streams

    def open(self, stream_id: int = 1, *, end: bool = False, head: Headers | None = None) -> Taker:
        """A stream on which the peer has sent its head: a request, or the answer to one."""
        if self.client:
            self.engine.send_head(stream_id, REQUEST, end=False)
            self.settle()
        self.peer.send_headers(stream_id, head or (RESPONSE if self.client else REQUEST), end_stream=end)
        self.settle()
        self.told.clear()
        self.events.clear()
        self.sent.clear()
        return self.takers.get(stream_id) or Taker(stream_id)

    def check(self) -> None:
        """Both sides mean the same by every window, and nothing that was taken is withheld but by a pause."""
        engine, peer = self.engine, self.peer
        assert not self.out
        assert engine.h2.outbound_flow_control_window == peer.inbound_flow_control_window
        assert self.connection_window // 2 <= peer.outbound_flow_control_window <= self.connection_window
        for stream_id, stream in alive(peer):
            ours = engine.h2.streams[stream_id]
            assert ours.outbound_flow_control_window == stream.inbound_flow_control_window
            taker = self.takers.get(stream_id)
            if taker is not None and engine.streams.get(stream_id) is taker:
                assert stream.outbound_flow_control_window == self.window - taker.unacked
                assert taker.paused or taker.unacked <= self.window // 2

    # The listener

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        self.told.append(("head", stream_id, ended))
        final = not fields[0][1].startswith(b"1")
        if final and not ended:
            self.takers[stream_id] = self.engine.streams[stream_id] = Taker(stream_id)

    def ended(self, stream_id: int) -> None:
        self.told.append(("end", stream_id))

    def reset_came(self, stream_id: int, code: int) -> None:
        self.told.append(("reset", stream_id, code))

    def stream_broke(self, stream_id: int, code: int, message: str) -> None:
        self.told.append(("stream broke", stream_id, code))

    def window_opened(self, stream_id: int) -> None:
        self.told.append(("window", stream_id))

    def settings_came(self) -> None:
        self.told.append(("settings",))

    def goaway_came(self, last_stream_id: int, code: int) -> None:
        self.told.append(("goaway", last_stream_id, code))

    def pong_came(self, data: bytes) -> None:
        self.told.append(("pong", data))

    def crowded(self) -> None:
        self.told.append(("crowded",))

    def broke(self, code: int, message: str) -> None:
        self.told.append(("broke", code))
        assert message


def alive(peer: H2Connection) -> Iterator[tuple[int, H2Stream]]:
    """The streams on which either side may still send."""
    for stream_id, stream in peer.streams.items():
        if not stream.closed:
            yield stream_id, stream


def may_send(peer: H2Connection, stream_id: int) -> bool:
    stream = peer.streams.get(stream_id)
    return stream is not None and stream.state_machine.state in (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)


def split_frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream, payload of each whole frame."""
    found, at = [], 0
    while len(data) - at >= frames.HEADER_SIZE:
        high, low, kind, flags, stream_id = frames.HEADER.unpack_from(data, at)
        end = at + frames.HEADER_SIZE + (high << 8 | low)
        assert end <= len(data), "half a frame"
        found.append((kind, flags, stream_id, data[at + frames.HEADER_SIZE : end]))
        at = end
    assert at == len(data)
    return found


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return frames.header(len(payload), kind, flags, stream_id) + payload


def block(fields: Headers) -> bytes:
    """A header block that leaves nothing in anybody's table."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])


def codes(pair: Pair, kind: int) -> list[tuple[int, int]]:
    """The stream and the error code of each RST_STREAM, or the last stream and the code of each GOAWAY, sent."""
    found = [entry for entry in pair.sent + split_frames(b"".join(pair.out)) if entry[0] == kind]
    if kind == frames.GOAWAY:
        return [(frames.parse_long(payload), frames.parse_long(payload, 4)) for _, _, _, payload in found]
    return [(stream_id, frames.parse_long(payload)) for _, _, stream_id, payload in found]
