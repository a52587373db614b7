"""A provider's HTTP/2 connection (RFC 9113): many requests out, each on a stream of its own, and their answers in.

        call -> ProviderStream.ask --head--> answered --DATA--> Stream.feed --END_STREAM--> end

A stream's trouble is its own: a reset, a malformed answer, a cancel leave the connection and its other streams alone.
What the provider says it has not touched (REFUSED_STREAM, a stream above GOAWAY's last) may be asked again elsewhere.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from relay.core.reader import Reader
from relay.core.transfer import Receiver
from relay.errors import (
    RelayError,
    RemoteProtocolError,
    UpstreamClosed,
    UpstreamCut,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
)
from relay.net.connection import STALL_LOOK
from relay.net.connection2 import Connection2
from relay.net.service import Asker
from relay.net.stream2 import Stream2
from relay.net.timers import Wheel
from relay.net.upstream1 import STALE_WINDOW
from relay.wire import frames, heads2
from relay.wire.head import INFORMATIONAL_LIMIT, Framing, Headers

_LIVENESS_PING = b"relay up"
_LOOK = 5.0
# So long (seconds) nothing may come for a request before giving it up says something about its connection.
_UNHEARD_TIME = 0.25
# A connection has only so many stream identifiers (RFC 9113, 5.1.1); it is given up before they run out.
_LAST_STREAM = frames.STREAM_ID_LIMIT - 100_000


class Home2(Protocol):
    """Where connections come from: the pool."""

    def ready(self, connection: Upstream2) -> None:
        """The provider's settings are here, or have changed: so many streams it takes."""

    def freed(self, connection: Upstream2) -> None:
        """A stream has ended: there is room for another."""

    def lost(self, connection: Upstream2) -> None:
        """The connection takes no further streams, or is gone."""


class Upstream2(Connection2):
    """`streams` at once, at most; `room` is how many more it takes now. `ping` and `pong`: after so much silence
    (seconds) with streams open it is asked whether it is there, and has so long to answer."""

    __slots__ = (
        "_going",
        "_heard_at",
        "_home",
        "_limit",
        "_most",
        "_ping",
        "_pinged_at",
        "_placed",
        "_pong",
        "_reads",
        "greeted",
        "idle_since",
        "idle_time",
        "served",
        "settled",
    )

    def __init__(
        self, wheel: Wheel, home: Home2, *, stall: float, idle_time: float, streams: int, ping: float, pong: float
    ) -> None:
        # A provider opens no streams.
        super().__init__(wheel, stall, client=True, streams=0)
        self._home = home
        self._limit = self._most = streams
        self._ping = ping
        self._pong = pong
        self._pinged_at = self._heard_at = 0.0
        self._reads = 0
        self._placed = 0
        self._going = False
        self.greeted = False
        self.served = 0
        self.idle_time = idle_time
        self.idle_since = wheel.now
        # Whether the provider's settings have come: the connection is of use from then on.
        self.settled: asyncio.Future[bool] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.engine.greet(0)
        self._wheel.watch(self, self._wheel.now + self._look)

    @property
    def scheme(self) -> bytes:
        return b"https" if self.secure else b"http"

    def _go_on(self) -> None:
        super()._go_on()
        self._home.freed(self)

    # Room

    @property
    def room(self) -> int:
        if not self.takes or not self.greeted or self._blocked_at:
            return 0
        return max(min(self._limit, self.theirs) - self._placed, 0)

    @property
    def theirs(self) -> int:
        """How many streams the provider takes at once."""
        return int(self.engine.h2.remote_settings.max_concurrent_streams)

    @property
    def takes(self) -> bool:
        """Whether a stream may be opened on it, if there is room."""
        return not self._going and not self.closed and not self._transport.is_closing()

    @property
    def placed(self) -> int:
        """Streams that are open or promised to somebody."""
        return self._placed

    def call(self) -> ProviderStream:
        """A place for one request. The caller asks, or cancels."""
        self._placed += 1
        return ProviderStream(self)

    def left_place(self) -> None:
        self._placed -= 1
        if not self._placed:
            self.idle_since = self._wheel.now
            if self._going:
                # Not from here: a stream may be in the middle of its own end.
                self._loop.call_soon(self._part)
                return
        if not self._going and not self.closed:
            self._home.freed(self)

    def _stream_left(self) -> None:
        self.served += 1
        if self.engine.h2.highest_outbound_stream_id > _LAST_STREAM:
            self.retire()

    def retire(self) -> None:
        """Take no further requests; close when those under way have ended."""
        if not self._going:
            self._going = True
            self._home.lost(self)
            if not self._placed:
                self._loop.call_soon(self._part)

    def _part(self) -> None:
        if not self.closed:
            self.engine.goaway(0, frames.NO_ERROR)
            self._linger()

    # What the engine tells

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        stream = self.open_streams.get(stream_id)
        if isinstance(stream, ProviderStream):
            stream.head_came(fields, ended)

    def settings_came(self) -> None:
        self.greeted = True
        if not self.settled.done():
            self.settled.set_result(True)
        super().settings_came()
        self._home.ready(self)

    def goaway_came(self, last_stream_id: int, code: int) -> None:
        self.retire()
        refused = UpstreamRefused("the provider took no further requests on this connection")
        for stream in [stream for number, stream in self.open_streams.items() if number > last_stream_id]:
            # It may not know of the end of what it has not begun.
            self.engine.swallow(stream.stream_id)
            stream.lost(refused)

    def pong_came(self, data: bytes) -> None:
        """That bytes came is enough."""

    def refused(self) -> None:
        """The provider refuses a stream: it takes no more than there are now, whatever it said, until it has answered
        some of them."""
        self._limit = max(self._placed - 1, 1)

    def answered(self) -> None:
        self._limit = min(self._limit + 1, self._most)

    def broke(self, code: int, message: str) -> None:
        self._unsettle()
        # First of all, so that nobody who waits is given a place on it.
        self.retire()
        self._lose(UpstreamInvalid(f"the provider's HTTP/2 is invalid: {message}"))
        self._linger()

    # Ends

    def _ended(self) -> None:
        self._cut()

    def _left(self, error: Exception | None) -> None:
        super()._left(error)
        self._going = True
        self._unsettle()
        self._home.lost(self)
        self._lose(None)

    def _unsettle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(False)

    def _lose(self, error: RelayError | None) -> None:
        for stream in list(self.open_streams.values()):
            stream.lost(error or UpstreamClosed("the provider closed the connection before its answer"))

    @property
    def _look(self) -> float:
        limits = [limit for limit in (self._ping, self._pong, self._stall, self.idle_time) if limit]
        return min(_LOOK, *(limit / 4 for limit in limits))

    def due(self, now: float) -> float:
        if self.engine.over:
            return self._linger_due(now)
        if self.stalled_for(now) >= self._stall:
            self.retire()
            self._lose(UpstreamTimeout(f"the provider took no byte for {self._stall:g} s"))
            self._cut()
            return 0
        if not self._placed:
            if now - self.idle_since >= self.idle_time:
                self.retire()
                return 0
        elif self.engine.reads != self._reads:
            self._reads = self.engine.reads
            self._heard_at = now
            self._pinged_at = 0.0
        elif self._pinged_at:
            if now - self._pinged_at >= self._pong:
                self.retire()
                self._lose(UpstreamTimeout(f"the provider did not answer a PING in {self._pong:g} s"))
                self._cut()
                return 0
        elif self._ping and now - self._heard_at >= self._ping:
            self._pinged_at = now
            self.engine.emit(frames.ping(_LIVENESS_PING))
        for stream in list(self.open_streams.values()):
            if stream.stalled_for(now) >= self._stall:
                self.engine.reset(stream.stream_id, frames.CANCEL)
                stream.lost(UpstreamTimeout(f"the provider took no byte of the request for {self._stall:g} s"))
        return now + (STALL_LOOK if self._blocked_at else self._look)


class ProviderStream(Stream2):
    """One request, the sink of its body, and its answer (relay.net.service.Call)."""

    __slots__ = (
        "_alone",
        "_asked_after",
        "_asked_at",
        "_asker",
        "_here",
        "_informational",
        "_method",
        "_sent_whole",
        "_transfer",
    )

    connection: Upstream2

    def __init__(self, connection: Upstream2) -> None:
        super().__init__(connection, 0)
        self._asker: Asker | None = None
        self._transfer: Receiver | None = None
        self._method = b""
        self._asked_at = 0.0
        self._asked_after = 0
        self._alone = False
        self._informational = 0
        self._sent_whole = False
        self._here = True

    # The request

    @property
    def http(self) -> str:
        return "2"

    def ask(
        self, method: bytes, target: bytes, headers: Headers, framing: Framing, asker: Asker, reader: Reader
    ) -> None:
        connection, engine = self.connection, self.connection.engine
        self._asker = asker
        self._method = method
        self._asked_at = connection.now
        self._asked_after = engine.reads
        if not connection.takes or len(connection.open_streams) >= connection.theirs:
            self.lost(UpstreamRefused("the provider's connection ended before the request was sent"))
            return
        self._alone = not connection.open_streams
        self.stream_id = engine.h2.get_next_available_stream_id()
        connection.enter(self)
        fields = heads2.request_fields(method, connection.scheme, target, headers)
        self._flow = engine.send_head(self.stream_id, fields, end=framing.empty)
        if framing.empty:
            self._sent_whole = True
            return
        self._reader = reader
        reader.attach(self, blocked=connection.blocked)

    def finish(self) -> None:
        """The request is whole. (One without a body was so from its head on.)"""
        if not self._sent_whole:
            self._sent_whole = True
            self.connection.engine.send_end(self.stream_id)

    def abort(self) -> None:
        """The request will not become whole."""
        self.cancel()

    def cancel(self) -> None:
        if self._here:
            if self._is_unheard:
                self.connection.retire()
            self._asker = self._transfer = None
            if self.stream_id:
                self.connection.engine.reset(self.stream_id, frames.CANCEL)
            self._leave()

    # The answer

    def head_came(self, fields: Headers, ended: bool) -> None:
        asker = self._asker
        if asker is None:
            return
        try:
            head = heads2.parse_response(fields, self._method, ended=ended)
            if head.status == 101:
                raise RemoteProtocolError("a switch of protocols, which HTTP/2 does not have")
            if head.status < 200:
                self._informational += 1
                if self._informational > INFORMATIONAL_LIMIT:
                    raise RemoteProtocolError("too many informational responses")
                return
        except RemoteProtocolError as error:
            self.connection.engine.reset(self.stream_id, frames.PROTOCOL_ERROR)
            self.lost(UpstreamInvalid(f"the provider's answer is invalid: {error.message}"))
            return
        self._asker = None
        transfer = self._transfer = asker.answered(head)
        if not self._here:
            return  # the asker did not like the head, and has cancelled
        if ended:
            self.peer_ended()
        elif head.framing.empty:
            self.expect(Framing(length=0), transfer.feed)
        else:
            self.expect(head.framing, transfer.feed)

    def peer_ended(self) -> None:
        if self._is_short():
            return
        transfer, self._transfer = self._transfer, None
        if transfer is None:
            # An end before any head.
            self._break("the answer ended before its head")
            return
        if not self._sent_whole:
            # The answer is whole without the rest of the request.
            self.connection.engine.reset(self.stream_id, frames.NO_ERROR)
        self.connection.answered()
        self._leave()
        transfer.end()

    def peer_reset(self, code: int) -> None:
        if code == frames.REFUSED_STREAM:
            self.connection.refused()
            self.lost(UpstreamRefused("the provider refused the request"))
        else:
            self.lost(UpstreamCut(f"the provider reset its answer (HTTP/2 error {code})"))

    def peer_broke(self, message: str) -> None:
        self.lost(UpstreamInvalid(f"the provider's answer is invalid: {message}"))

    def lost(self, error: RelayError) -> None:
        asker, transfer = self._asker, self._transfer
        self._asker = self._transfer = None
        untouched = self._untouched
        self._leave()
        if asker is not None:
            if isinstance(error, UpstreamClosed):
                error = UpstreamClosed(error.message, untouched=untouched)
            asker.unanswered(error if isinstance(error, UpstreamError) else UpstreamCut(error.message))
        elif transfer is not None:
            if isinstance(error, (UpstreamClosed, UpstreamRefused)):
                error = UpstreamCut("the provider's connection ended in the middle of its answer")
            transfer.fail(error)

    @property
    def _is_unheard(self) -> bool:
        """Whether a request is given up for which nothing at all came, or nothing that was whole: the next one had
        better have another connection."""
        engine, now = self.connection.engine, self.connection.now
        if self._asker is None or now - self._asked_at < _UNHEARD_TIME:
            return False
        head_since = engine.head_since
        return engine.reads == self._asked_after or (head_since is not None and now - head_since >= _UNHEARD_TIME)

    @property
    def _untouched(self) -> bool:
        """Whether the provider had closed the connection for being idle before it saw the request (retry.py): it had
        been in use before, not by others at the same time, and nothing more was heard of it."""
        connection = self.connection
        return (
            connection.served > 0
            and self._alone
            and connection.engine.reads == self._asked_after
            and connection.now - self._asked_at < STALE_WINDOW
        )

    def _leave(self) -> None:
        if self._here:
            self._here = False
            self._part()
            self.connection.left_place()
