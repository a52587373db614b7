"""What both ends of HTTP/2 share: many streams on one socket, and one write a turn for all that is small.

        bytes in  -> Engine.receive -> Stream2.feed                  the engine is the connection's `data_received`
        bytes out <- flush <- out   <- Stream2.send                  DATA frames of all streams, and the engine's own

A stream that may not send what it has (its window, the connection's, or its share of the turn is used up) keeps the
rest and blocks its reader, whose pieces then wait in the ring. `_hungry` holds those that wait for something that all
share; they are served in turn, a share each, so that a huge body delays no other stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.net.connection import LINGER_BYTES, LINGER_TIME, STALL_LOOK, Connection, nowhere
from relay.net.timers import Alarm, Wheel
from relay.wire import frames
from relay.wire.head import Headers
from relay.wire.http2 import Engine
from relay.wire.state2 import LATE_RESETS

if TYPE_CHECKING:
    from relay.net.stream2 import Stream2

# What a peer may send ahead, on a stream and on the connection (bytes).
WINDOW = 64 * 1024
CONNECTION_WINDOW = 1024 * 1024
# So many frames are written at once, before the turn is over; and so many may wait for a socket that takes nothing,
# where only the peer's own questions can have made them.
WRITE_FRAMES = 64
_WAITING_FRAMES = 1000
# How long after its last DATA a stream is reset that could not be ended (seconds): long enough to be read by itself.
_RESET_DELAY = 0.05


class Connection2(Connection, asyncio.Protocol):
    """`out` are frames to be written at the end of this turn of the loop at the latest, `woken` whether that is
    planned. `open_streams` are those on which either side may still send."""

    __slots__ = (
        "_counts_answers",
        "_hungry",
        "_late",
        "_late_limit",
        "_lingered",
        "_lingering",
        "_loop",
        "_muted",
        "_serving",
        "data_received",
        "engine",
        "open_streams",
        "out",
        "woken",
    )

    def __init__(self, wheel: Wheel, stall: float, *, client: bool, streams: int) -> None:
        super().__init__(wheel, stall)
        self._loop = asyncio.get_running_loop()
        self.out: list[bytes] = []
        self.woken = False
        self.open_streams: dict[int, Stream2] = {}
        self._hungry: dict[Stream2, None] = {}
        self._serving = False
        self._late: list[tuple[int, int]] = []
        # A provider's answers to our own questions are no flood; for one that takes nothing there is the stall limit.
        self._counts_answers = not client
        self._late_limit = max(LATE_RESETS, streams)
        self._lingering = False
        self._lingered = 0
        self._muted = False  # nothing more may be written
        self.engine = Engine(
            self,
            self.emit,
            wheel,
            client=client,
            window=WINDOW,
            connection_window=CONNECTION_WINDOW,
            streams=streams,
        )
        self.data_received: Callable[[bytes], None] = self.engine.receive  # type: ignore[assignment]

    # Writing

    def emit(self, data: bytes) -> None:
        """Send frames, at the end of this turn at the latest."""
        self.out.append(data)
        if not self.woken:
            self.wake()

    def wake(self) -> None:
        self.woken = True
        self._loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self.woken = False
        self.flush()

    def flush(self) -> None:
        """Write what there is."""
        out = self.out
        if self._blocked_at:
            if len(out) > _WAITING_FRAMES and self._counts_answers:
                # Streams are blocked with the socket: these are answers to what the peer goes on asking.
                out.clear()
                self.broke(frames.ENHANCE_YOUR_CALM, "the peer asks, and does not read the answers")
                self._cut()
        elif out:
            self.engine.data_sent += len(out)
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if not self._muted:
                self._transport.write(data)

    @property
    def now(self) -> float:
        return self._wheel.now

    @property
    def blocked(self) -> bool:
        """Whether the socket takes nothing at the moment."""
        return bool(self._blocked_at)

    def _hold(self) -> None:
        for stream in self.open_streams.values():
            stream.block()

    def _go_on(self) -> None:
        self.flush()
        self._serve_all()

    def hunger(self, stream: Stream2) -> None:
        """The stream has something to send, as soon as it is its turn."""
        self._hungry[stream] = None
        if not self._serving:
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Let those that wait send, in turn, as long as the connection takes it."""
        if self._serving:
            return
        self._serving = True
        hungry = self._hungry
        h2 = self.engine.h2
        try:
            while hungry and not self._blocked_at and h2.outbound_flow_control_window > 0:
                stream = next(iter(hungry))
                del hungry[stream]
                stream.go_on()
        finally:
            self._serving = False

    def _serve_all(self) -> None:
        for stream in list(self.open_streams.values()):
            if not stream.waits:
                continue
            if stream.has_rest or self._blocked_at or self.engine.h2.outbound_flow_control_window > 0:
                self._hungry[stream] = None
            else:
                # It may have nothing to send but a head or an end, which need no window.
                stream.go_on()
        self._serve()

    # Streams

    def enter(self, stream: Stream2) -> None:
        self.open_streams[stream.stream_id] = stream

    def leave(self, stream: Stream2) -> None:
        """Neither side sends on it any more."""
        self._hungry.pop(stream, None)
        if self.open_streams.pop(stream.stream_id, None) is not None:
            self._stream_left()

    def _stream_left(self) -> None:
        """A stream has ended."""
        raise NotImplementedError

    def reset_late(self, stream_id: int, code: int) -> None:
        """Reset a stream that is through for us, in a write of its own: some clients (curl's nghttp2) throw away what
        came in the same read as a reset, and with it the answer, or the event that says why it ends."""
        self.engine.swallow(stream_id)
        if len(self._late) >= self._late_limit:
            self._reset_now()
        if not self._late:
            Alarm(self._wheel, _RESET_DELAY, self._reset_now)
        self._late.append((stream_id, code))

    def _reset_now(self) -> None:
        for stream_id, code in self._late:
            self.engine.reset(stream_id, code)
        self._late.clear()

    # What the engine tells (relay.wire.listener2.Listener)

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        raise NotImplementedError

    def goaway_came(self, last_stream_id: int, code: int) -> None:
        raise NotImplementedError

    def pong_came(self, data: bytes) -> None:
        raise NotImplementedError

    def ended(self, stream_id: int) -> None:
        stream = self.open_streams.get(stream_id)
        if stream is not None:
            stream.peer_ended()

    def reset_came(self, stream_id: int, code: int) -> None:
        stream = self.open_streams.get(stream_id)
        if stream is not None:
            stream.peer_reset(code)

    def stream_broke(self, stream_id: int, code: int, message: str) -> None:
        stream = self.open_streams.get(stream_id)
        if stream is not None:
            stream.peer_broke(message)

    def window_opened(self, stream_id: int) -> None:
        stream = self.open_streams.get(stream_id)
        if stream is not None and stream.waits:
            self._hungry[stream] = None
        self._serve()

    def settings_came(self) -> None:
        # Every stream's window may have changed.
        self._serve_all()

    def crowded(self) -> None:
        self.pause_reading()
        self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        if not self.closed:
            self.resume_reading()
            self.engine.receive(b"")

    def broke(self, code: int, message: str) -> None:
        """The peer broke the connection's rules; a GOAWAY is on its way."""
        raise NotImplementedError

    # Ends

    def _ignore(self) -> None:
        self.data_received = nowhere

    def _linger(self) -> None:
        """Close our side, and read on for a moment: bytes that meet a closed socket make the kernel send a RST, and
        that can cost the peer our last frames."""
        if self._lingering:
            return
        self._lingering = True
        self._reset_now()
        self.engine.end_connection()
        if self.closed:
            return
        # Whatever is left goes to the transport, which still sends it.
        blocked, self._blocked_at = self._blocked_at, 0.0
        self.flush()
        if self._transport.can_write_eof() and not blocked:
            self.data_received = self._discard
            self._transport.write_eof()
            self._muted = True
            Alarm(self._wheel, LINGER_TIME, self._cut)
        else:
            self._close()
            if blocked and not self.closed:
                self._blocked_at = blocked
                self._wheel.watch(self, self._wheel.now + STALL_LOOK)

    def _linger_due(self, now: float) -> float:
        """What lingers has an end of its own, but for a socket that takes nothing of what was left."""
        if self.stalled_for(now) >= self._stall:
            self._cut()
            return 0
        return now + STALL_LOOK if self._blocked_at else 0

    def _discard(self, data: bytes) -> None:
        self._lingered += len(data)
        if self._lingered > LINGER_BYTES:
            self._cut()

    def _left(self, error: Exception | None) -> None:
        self._muted = True
        self.engine.end_connection()
        self.out.clear()
        self._hungry.clear()

    def cut(self) -> None:
        """Close at once, whatever is under way."""
        self._cut()
