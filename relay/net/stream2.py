"""One stream of an HTTP/2 connection: a sink for what we send, a source of what the peer sends (RFC 9113, section 5).

`send` is the hot path: it makes the DATA header by hand and takes the bytes off h2's two windows. What a window, or
the stream's share, does not allow waits in `_rest` with the reader blocked, until it is this stream's turn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.core.reader import Reader
from relay.errors import RelayError
from relay.flow.gate import Gate
from relay.net.connection import nowhere
from relay.net.connection2 import WRITE_FRAMES, Connection2
from relay.wire import frames
from relay.wire.head import Framing

if TYPE_CHECKING:
    from h2.stream import H2Stream

# What one stream may send before it is another's turn, where several wait (bytes).
SHARE = 32 * 1024
# A piece of more bytes is written at once, with what waits before it: its write is worth while by itself, and where the
# socket takes no more, what others have to say in this turn waits in their logs and rings, not in the transport.
_LARGE = 8 * 1024
# Of a stream that is blocked, fewer bytes than this within the stall limit count as none: who opens a window by one
# byte at a time takes nothing.
_CRUMBS = 1024

_FRAME_LIMIT = frames.FRAME_LIMIT
_pack = frames.HEADER.pack


class Stream2:
    """`unacked`, `paused` and `feed` are the engine's side of it (relay.wire.listener2.Stream)."""

    __slots__ = (
        "_flow",
        "_h2",
        "_left",
        "_mark",
        "_out",
        "_pour",
        "_pushed",
        "_reader",
        "_rest",
        "_rest_at",
        "_since",
        "connection",
        "feed",
        "gate",
        "paused",
        "stream_id",
        "unacked",
    )

    def __init__(self, connection: Connection2, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.feed: Callable[[bytes], None] = nowhere
        self.unacked = 0
        self.paused = False
        self.gate = Gate(self)
        self._out = connection.out
        self._h2 = connection.engine.h2
        self._flow: H2Stream | None = None
        self._reader: Reader | None = None
        self._rest = b""
        self._rest_at = 0
        self._since = 0.0
        self._pushed = self._mark = 0
        self._pour: Callable[[bytes], None] = nowhere
        self._left: int | None = None

    # What we send

    def send(self, payload: bytes) -> None:
        size = len(payload)
        flow, h2 = self._flow, self._h2
        if flow is None:
            self._send_first(payload)
            return
        if size > flow.outbound_flow_control_window or size > h2.outbound_flow_control_window or size > _LARGE:
            self._send_slowly(payload)
            return
        flow.outbound_flow_control_window -= size
        h2.outbound_flow_control_window -= size
        out = self._out
        # frames.header, without its call: this line is on the hot path.
        out.append(_pack(size >> 8, size & 0xFF, 0, 0, self.stream_id) + payload)
        if not self.connection.woken:
            self.connection.wake()
        elif len(out) > WRITE_FRAMES:
            self.connection.flush()

    def _send_first(self, payload: bytes) -> None:
        """A piece before the head of its message has gone; or when all has ended, and nobody takes it."""

    def _send_slowly(self, payload: bytes) -> None:
        self._rest, self._rest_at = payload, 0
        self._push()
        if self._rest:
            self._since = self.connection.now
            self._mark = self._pushed
            self.block()

    def _push(self) -> None:
        """Send of the rest what the windows and the stream's share allow."""
        flow, h2, at = self._flow, self._h2, self._rest_at
        assert flow is not None
        left = len(self._rest) - at
        allowed = min(left, flow.outbound_flow_control_window, h2.outbound_flow_control_window, SHARE)
        if allowed > 0:
            flow.outbound_flow_control_window -= allowed
            h2.outbound_flow_control_window -= allowed
            end = at + allowed
            while at < end:
                piece = self._rest[at : min(at + _FRAME_LIMIT, end)]
                self.connection.emit(frames.header(len(piece), frames.DATA, 0, self.stream_id) + piece)
                at += len(piece)
            self._pushed += allowed
            if allowed > _LARGE or len(self._out) > WRITE_FRAMES:
                self.connection.flush()
        if allowed == left:
            self._rest, self._rest_at = b"", 0
            return
        self._rest_at = at
        if flow.outbound_flow_control_window > 0:
            self.connection.hunger(self)

    @property
    def has_rest(self) -> bool:
        """Whether it waits for a window, or for its turn."""
        return bool(self._rest)

    @property
    def waits(self) -> bool:
        """Whether it has something to send that it may not."""
        return self._reader is not None and self._reader.blocked

    def block(self) -> None:
        if self._reader is not None:
            self._reader.block()

    def go_on(self) -> None:
        """It is this stream's turn."""
        if self._rest:
            self._push()
        # What was pushed may have been more than the socket took.
        if not self._rest and self._reader is not None and not self.connection.blocked:
            self._reader.unblock()

    def stalled_for(self, now: float) -> float:
        """Seconds for which the peer has not let us send what there is."""
        if not self._rest:
            return 0.0
        if self._pushed - self._mark >= _CRUMBS:
            self._mark = self._pushed
            self._since = now
        return now - self._since

    def finish(self) -> None:
        """What we send is whole: the sink's half of Reader."""
        raise NotImplementedError

    def abort(self) -> None:
        """What we send will not be whole."""
        raise NotImplementedError

    # What the peer sends

    def pause_reading(self) -> None:
        """Withhold the window: what it still allows may come."""
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.connection.engine.top_up(self)

    def expect(self, framing: Framing, pour: Callable[[bytes], None]) -> None:
        """A body will come; `pour` takes it."""
        self._left = framing.length
        self._pour = pour
        self.feed = pour if framing.length is None else self._count
        self.connection.engine.streams[self.stream_id] = self

    def _count(self, payload: bytes) -> None:
        """RFC 9113, 8.1.1: a body that is not as long as was declared makes the message malformed."""
        assert self._left is not None
        self._left -= len(payload)
        if self._left < 0:
            self._break("the body is longer than its content-length")
        else:
            self._pour(payload)

    def _is_short(self) -> bool:
        """Whether the peer has ended before what it has declared; then the stream is broken."""
        if self._left:
            self._break("the body is shorter than its content-length")
            return True
        return False

    def _break(self, message: str) -> None:
        self.connection.engine.break_stream(self.stream_id, frames.PROTOCOL_ERROR, message)

    def peer_ended(self) -> None:
        """The peer's message is whole."""
        raise NotImplementedError

    def peer_reset(self, code: int) -> None:
        """The peer has given the stream up."""
        raise NotImplementedError

    def peer_broke(self, message: str) -> None:
        """The peer made a mistake in this stream, which has been reset."""
        raise NotImplementedError

    def lost(self, error: RelayError) -> None:
        """The connection is gone, or its peer may not go on."""
        raise NotImplementedError

    def _part(self) -> None:
        """Nothing further concerns this stream. Its own methods are let go, so that it is freed at once."""
        self.feed = self._pour = nowhere
        self._rest, self._flow = b"", None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.detach()
        self.gate.retire()
        self.connection.leave(self)
