"""One HTTP/2 connection without its socket (RFC 9113): a frame walker in front of h2.

        bytes in -> receive -> DATA            -> the stream's `feed`, by hand
                            -> HEADERS         -> one whole block -> h2 -> listener.head_came
                            -> RST_STREAM, SETTINGS, PRIORITY, ... -> h2 -> listener
                            -> GOAWAY, PING, WINDOW_UPDATE, CONTINUATION: by hand
        bytes out <- emit

DATA goes by hand in both directions; the rest is h2's (state2.py), behind a look at its length, its place and its
frequency. Windows: what we may send is in h2's own two numbers for each stream and the connection, kept up by hand;
what the peer may send is in `unacked`.

The rule for errors is the RFC's: a mistake in a stream resets the stream, a mistake in the connection ends it with
GOAWAY, and floods end it with ENHANCE_YOUR_CALM.
"""

from __future__ import annotations

from collections.abc import Callable

from h2.stream import StreamInputs

from relay.wire import flood, frames
from relay.wire.block2 import Block
from relay.wire.listener2 import Broken, Listener, Stream
from relay.wire.state2 import LIST_LIMIT, State

_TABLE_LIMIT = 4096
# Then it is the turn of other connections: so many frames, and of those that are not plain DATA fewer. A head costs as
# much as several of them, and a request behind it much more.
_A_TURN = range(1024)
_WORK_A_TURN = 256
_HEAD_WORK = 7
_KNOWN_SETTINGS = frozenset(range(frames.HEADER_TABLE_SIZE, frames.MAX_HEADER_LIST_SIZE + 1))

_unpack = frames.HEADER.unpack_from
_FRAME_LIMIT = frames.FRAME_LIMIT
_NO_STREAMS: dict[int, Stream] = {}  # while a header block is open, no other frame may come


class _Unwanted:
    """Takes the DATA of a stream that will soon be reset."""

    __slots__ = ("paused", "stream_id", "unacked")

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.unacked = 0
        self.paused = True

    def feed(self, payload: bytes) -> None:
        """It is not wanted."""


class Engine(State):
    """`window` and `connection_window`: bytes that the peer may send ahead. `streams`: how many it may have open
    (server), told to it; the listener refuses the ones above. `emit` takes frames to be sent.

    `data_sent`: about how many DATA frames we have sent. `reads`: how often bytes have come. `partial_at`:
    when the last of a frame that is not yet whole came, by the clock.
    `greeted`: its settings have come."""

    __slots__ = (
        "_block",
        "_connection_half",
        "_connection_window",
        "_empties",
        "_empty_at",
        "_half",
        "_priorities",
        "_rest",
        "_rest_since",
        "_spent",
        "_unacked",
        "_updates",
        "_window",
        "data_sent",
        "greeted",
        "partial_at",
        "reads",
    )

    def __init__(
        self,
        listener: Listener,
        emit: Callable[[bytes], None],
        clock: flood.Clock,
        *,
        client: bool,
        window: int,
        connection_window: int,
        streams: int,
    ) -> None:
        super().__init__(listener, emit, clock, client=client, streams=streams)
        self._window = window
        self._half = window // 2
        self._connection_window = connection_window
        self._connection_half = connection_window // 2
        self._unacked = 0
        self._rest = b""
        self._rest_since = self.partial_at = clock.now
        self.reads = 0
        self._block: Block | None = None
        self.greeted = False
        self._spent = 0
        self._empties = self._empty_at = 0
        self._priorities = self._updates = 0
        self.data_sent = 0

    def greet(self, streams: int) -> None:
        """Send what a connection begins with: our settings, and a connection window that is worth having."""
        settings = {
            frames.ENABLE_PUSH: 0,
            frames.MAX_CONCURRENT_STREAMS: streams,
            frames.INITIAL_WINDOW_SIZE: self._window,
            frames.MAX_HEADER_LIST_SIZE: LIST_LIMIT,
        }
        if not self._client:
            del settings[frames.ENABLE_PUSH]  # a server has none (section 6.5.2)
        opening = frames.window_update(0, self._connection_window - frames.DEFAULT_WINDOW)
        self.emit((frames.PREFACE if self._client else b"") + frames.settings(settings) + opening)

    # What comes in

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._rest)

    @property
    def head_since(self) -> float | None:
        """Since when a header block, or a frame that is no DATA, has been waiting for its end."""
        if self._block is not None:
            return self._block.since
        return self._rest_since if self._rest and self._rest[3:4] != b"\0" else None

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the connection, a client's preface aside. Never raises for what they say.

        The hot path: DATA that follows DATA of the same stream is joined, so that one read is one `feed` per stream.
        (What gives it to the stream stands here three times, because a call would be another frame for each event.)
        """
        self.reads += 1
        rested = bool(self._rest)
        if rested:
            data = self._rest + data
            self._rest = b""
        streams = self.streams if self._block is None else _NO_STREAMS
        at, end = 0, len(data)
        taker: Stream | None = None
        pieces: list[bytes] = []
        crowded = False
        try:
            for _ in _A_TURN:
                if end - at < 9:
                    break
                high, low, kind, flags, stream_id = _unpack(data, at)
                length = high << 8 | low
                after = at + 9 + length
                if (
                    not kind
                    and not flags
                    and after <= end
                    and 0 < length <= _FRAME_LIMIT
                    and (stream := streams.get(stream_id)) is not None
                ):
                    if stream is taker:
                        pieces.append(data[at + 9 : after])
                    else:
                        if taker is not None:
                            taker.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                            if taker.unacked > self._half:
                                self.top_up(taker)
                        taker = stream
                        pieces = [data[at + 9 : after]]
                    stream.unacked += length
                    self._unacked += length
                    at = after
                    continue
                if taker is not None:
                    taker.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                    if taker.unacked > self._half:
                        self.top_up(taker)
                    taker = None
                if length > _FRAME_LIMIT:
                    raise Broken(frames.FRAME_SIZE_ERROR, "a frame is longer than may be")
                if after > end or self._over:
                    break
                if self._spent >= _WORK_A_TURN:
                    crowded = True
                    break
                self._spent += 1
                self._frame(kind, flags, stream_id & frames.STREAM_ID_LIMIT, data[at + 9 : after])
                streams = self.streams if self._block is None else _NO_STREAMS
                at = after
            else:
                crowded = at < end
            if taker is not None:
                taker.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                if taker.unacked > self._half:
                    self.top_up(taker)
            if self._unacked > self._connection_half:
                self._top_up_connection()
            self._spent = 0
            if at < end and not self._over:
                # What of a read is not yet a frame, or more than one turn takes, waits.
                self._rest = data[at:]
                self.partial_at = self._clock.now
                if at or not rested:
                    self._rest_since = self.partial_at
                if crowded:
                    self._listener.crowded()
        except Broken as error:
            self.give_up(error.code, error.message)

    def top_up(self, stream: Stream) -> None:
        """Open a stream's window again, unless it is paused; a peer that did not keep to it has its stream reset."""
        if self.streams.get(stream.stream_id) is not stream:
            return
        if stream.unacked > self._window:
            self.break_stream(stream.stream_id, frames.FLOW_CONTROL_ERROR, "more was sent than the window allows")
        elif not stream.paused and stream.unacked:
            self.emit(frames.window_update(stream.stream_id, stream.unacked))
            stream.unacked = 0

    def _top_up_connection(self) -> None:
        if self._unacked > self._connection_window:
            raise Broken(frames.FLOW_CONTROL_ERROR, "more was sent than the connection's window allows")
        self.emit(frames.window_update(0, self._unacked))
        self._unacked = 0

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self.greeted:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise Broken(frames.PROTOCOL_ERROR, "the connection does not begin with SETTINGS")
            self.greeted = True
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block.stream_id):
            raise Broken(frames.PROTOCOL_ERROR, "a header block was interrupted")
        match kind:
            case frames.DATA:
                self._data(flags, stream_id, payload)
            case frames.HEADERS:
                self._headers(flags, stream_id, payload)
            case frames.CONTINUATION:
                self._continuation(flags, payload)
            case frames.SETTINGS:
                self._settings(flags, stream_id, payload)
            case frames.WINDOW_UPDATE:
                self._window_update(stream_id, payload)
            case frames.PING:
                self._ping(flags, stream_id, payload)
            case frames.GOAWAY:
                self._goaway(stream_id, payload)
            case frames.RST_STREAM:
                if self._is_idle(stream_id):
                    raise Broken(frames.PROTOCOL_ERROR, "RST_STREAM for a stream that was never opened")
                self._tell(kind, flags, stream_id, payload)
                self._charge_reset()
            case frames.PRIORITY:
                self._priorities += 1
                if self._priorities > flood.PRIORITIES_PER_STREAM * (self.opened + 1):
                    raise Broken(frames.ENHANCE_YOUR_CALM, "too many PRIORITY frames")
                self._tell(kind, flags, stream_id, payload)
            case frames.PUSH_PROMISE:
                self._tell(kind, flags, stream_id, payload)
            case _:
                if not self._budgets.unknown.take(self._clock.now):
                    raise Broken(frames.ENHANCE_YOUR_CALM, "too many frames of unknown types")
        if self._excess:
            raise Broken(frames.ENHANCE_YOUR_CALM, self._excess)

    # DATA that is not of the plainest kind

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._unacked += len(payload)
        if not stream_id:
            raise Broken(frames.PROTOCOL_ERROR, "DATA outside of any stream")
        body = payload
        if flags & frames.PADDED:
            if not payload or payload[0] >= len(payload):
                raise Broken(frames.PROTOCOL_ERROR, "more padding than payload")
            body = payload[1 : len(payload) - payload[0]]
        stream = self.streams.get(stream_id)
        if stream is None:
            self._stray_data(stream_id)
            return
        stream.unacked += len(payload)
        if body:
            stream.feed(body)
        elif not flags & frames.END_STREAM:
            self._count_empty(len(payload))
        if self.streams.get(stream_id) is not stream:
            return  # it was given up in the meantime
        if flags & frames.END_STREAM:
            if stream.unacked > self._window:
                self.top_up(stream)  # which resets it
                return
            self.h2.streams[stream_id].state_machine.process_input(StreamInputs.RECV_END_STREAM)
            self._end(stream_id)
        elif stream.unacked > self._half:
            self.top_up(stream)

    def _count_empty(self, padding: int) -> None:
        # Whatever DATA has a byte in it changes `_unacked`, as does the padding of this one.
        self._empties = self._empties + 1 if self._empty_at == self._unacked - padding else 1
        self._empty_at = self._unacked
        if self._empties > flood.EMPTY_IN_A_ROW:
            raise Broken(frames.ENHANCE_YOUR_CALM, "too many empty DATA frames")

    def _stray_data(self, stream_id: int) -> None:
        """DATA for a stream that takes none."""
        if self._is_idle(stream_id):
            raise Broken(frames.PROTOCOL_ERROR, "DATA for a stream that was never opened")
        if stream_id in self._reset:
            return  # it was under way when we reset the stream
        stream = self.h2.streams.get(stream_id)
        early = stream is not None and not stream.closed and not stream.state_machine.headers_received
        code = frames.PROTOCOL_ERROR if early else frames.STREAM_CLOSED
        if stream is None or stream.closed:
            self.emit(frames.rst_stream(stream_id, code))
            self._charge_reset()
        else:
            self.break_stream(stream_id, code, "DATA before the head" if early else "DATA behind the end")

    # Heads

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._client and self._is_idle(stream_id):
            raise Broken(frames.PROTOCOL_ERROR, "HEADERS for a stream that we have not opened")
        self._spent += _HEAD_WORK
        self._take_block(Block(flags, stream_id, payload, self._clock.now))

    def _continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise Broken(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.go_on(flags, payload)
        self._take_block(block)

    def _take_block(self, block: Block) -> None:
        self._block = None if block.whole else block
        if block.whole and block.stream_id in self._reset:
            self._decode(block.fields)
            self._charge_reset()
        elif block.whole:
            self._tell(frames.HEADERS, block.flags | frames.END_HEADERS, block.stream_id, block.payload)

    # What concerns the connection

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._budgets.settings.take(self._clock.now):
            raise Broken(frames.ENHANCE_YOUR_CALM, "too many SETTINGS")
        if payload and (flags & frames.ACK or len(payload) % 6):
            raise Broken(frames.FRAME_SIZE_ERROR, "SETTINGS of a length that cannot be")
        if payload:
            pairs = frames.parse_settings(payload)
            if len(pairs) > flood.SETTINGS_IN_A_FRAME:
                raise Broken(frames.ENHANCE_YOUR_CALM, "too many settings in a frame")
            if self._client and (frames.ENABLE_PUSH, 1) in pairs:
                raise Broken(frames.PROTOCOL_ERROR, "a server may not allow push")
            # h2 would keep those it does not know, and a table of any size.
            payload = b"".join(
                frames.setting(code, min(value, _TABLE_LIMIT) if code == frames.HEADER_TABLE_SIZE else value)
                for code, value in pairs
                if code in _KNOWN_SETTINGS
            )
        self._tell(frames.SETTINGS, flags, stream_id, payload)

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Broken(frames.PROTOCOL_ERROR, "PING in a stream")
        if len(payload) != 8:
            raise Broken(frames.FRAME_SIZE_ERROR, "PING has 8 bytes")
        if flags & frames.ACK:
            self._listener.pong_came(payload)
        elif self._budgets.pings.take(self._clock.now):
            self.emit(frames.ping(payload, ack=True))
        else:
            raise Broken(frames.ENHANCE_YOUR_CALM, "too many PINGs")

    def _goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Broken(frames.PROTOCOL_ERROR, "GOAWAY in a stream")
        if len(payload) < 8:
            raise Broken(frames.FRAME_SIZE_ERROR, "GOAWAY has 8 bytes at least")
        last = frames.parse_long(payload) & frames.STREAM_ID_LIMIT
        self._listener.goaway_came(last, frames.parse_long(payload, 4))

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
        self._updates += 1
        if self._updates > flood.WINDOW_UPDATES_FREE + flood.WINDOW_UPDATES_PER_STREAM * self.opened + (
            flood.WINDOW_UPDATES_PER_DATA * self.data_sent
        ):
            raise Broken(frames.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        increment = frames.parse_long(payload) & frames.WINDOW_LIMIT
        h2 = self.h2
        if not stream_id:
            window = h2.outbound_flow_control_window + increment
            if not increment:
                raise Broken(frames.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            if window > frames.WINDOW_LIMIT:
                raise Broken(frames.FLOW_CONTROL_ERROR, "the connection's window is larger than may be")
            h2.outbound_flow_control_window = window
            self._listener.window_opened(0)
            return
        if self._is_idle(stream_id):
            raise Broken(frames.PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that was never opened")
        stream = h2.streams.get(stream_id)
        if stream is None or stream.closed:
            return
        window = stream.outbound_flow_control_window + increment
        if not increment or window > frames.WINDOW_LIMIT:
            code = frames.FLOW_CONTROL_ERROR if increment else frames.PROTOCOL_ERROR
            self.break_stream(stream_id, code, "the stream's window is larger than may be, or opened by nothing")
            return
        stream.outbound_flow_control_window = window
        self._listener.window_opened(stream_id)

    def end_connection(self) -> None:
        super().end_connection()
        self._rest = b""

    def swallow(self, stream_id: int) -> None:
        """Nobody wants the rest of a peer's message; it may send what its window still allows."""
        if stream_id in self.streams:
            self.streams[stream_id] = _Unwanted(stream_id)

    def give_up(self, code: int, message: str) -> None:
        """End the connection for a mistake of the peer's: with GOAWAY, and once."""
        if not self._over:
            self.goaway(self.h2.highest_inbound_stream_id, code)
            self.end_connection()
            self._listener.broke(code, message)
