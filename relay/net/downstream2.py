"""A client's HTTP/2 connection (RFC 9113): requests in, each on a stream of its own, and the sinks of their answers.

        head_came -> ClientStream -> Exchange              refused above the limit, and behind the last GOAWAY
        RST_STREAM, the end of the connection -> its exchanges are told at once

Draining takes two steps (section 6.8): a GOAWAY that names no last stream, and when the client has answered a PING,
so that whatever it had sent before is here, one that names the last stream that is served.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate

from relay.core.reader import Reader
from relay.errors import ClientBroke, ClientLeft, ClientStalled, RelayError, RemoteProtocolError, RequestTimeout
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER
from relay.net.connection import STALL_LOOK
from relay.net.connection2 import Connection2
from relay.net.service import ClientLimits, Exchange, Service
from relay.net.stream2 import Stream2
from relay.wire import frames, heads2
from relay.wire.head import Headers, RequestHead

_PARTING_PING = b"relaybye"
# How long a client may take to answer it before the last stream is named all the same (seconds).
_PARTING_TIME = 1.0
# Of the relay's own answers, so many bytes may wait on one connection; then no further request is taken.
_OWN_LIMIT = 512 * 1024
# A connection that is not blocked is looked at so often, at the least (seconds).
_LOOK = 5.0


class Downstream2(Connection2):
    """`_parting`: 0 serving, 1 parting has been announced, 2 the last stream has been named."""

    __slots__ = ("_idle_since", "_opened_at", "_parting", "_parting_at", "_service")

    def __init__(self, service: Service) -> None:
        limits = service.limits
        super().__init__(service.wheel, limits.stall, client=False, streams=limits.streams)
        self._service = service
        self._opened_at = self._idle_since = service.wheel.now
        self._parting = 0
        self._parting_at = 0.0

    # From the socket. The client's preface has been read by whoever made this connection out of it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._service.opened(self):
            self._cut()
            return
        self.engine.greet(self._service.limits.streams)
        self._wheel.watch(self, self._opened_at + self._look)

    def _ended(self) -> None:
        # A half-closed connection counts as left (a reader that will not read cannot be told from it).
        self._lose(ClientLeft("the client closed the connection"))
        self._cut()

    def _left(self, error: Exception | None) -> None:
        super()._left(error)
        self._lose(ClientLeft("the client's connection was lost"))
        self._service.left(self)

    def _lose(self, error: RelayError) -> None:
        """All that is under way ends."""
        for stream in list(self.open_streams.values()):
            stream.lost(error)

    # Requests

    def head_came(self, stream_id: int, fields: Headers, ended: bool) -> None:
        limits = self._service.limits
        if len(self.open_streams) >= limits.streams or self._parting > 1 or self._own_waiting > _OWN_LIMIT:
            self.engine.reset(stream_id, frames.REFUSED_STREAM, charge=True)
            return
        try:
            request = heads2.parse_request(fields, ended=ended)
        except heads2.Malformed as error:
            self.engine.reset(stream_id, frames.PROTOCOL_ERROR, charge=True)
            self._service.broke(self.peer, error)
            return
        except RemoteProtocolError as error:
            refused = ClientStream(self, stream_id, None, ended=ended)
            if not ended:
                refused.pause_reading()
                self.engine.streams[stream_id] = refused  # its body is taken, as far as the window goes, and dropped
            self._service.refused(refused, error)
            return
        stream = ClientStream(self, stream_id, request, ended=ended)
        exchange = self._service.exchange(request, stream)
        stream.serve(exchange, request)
        if not exchange.done:
            exchange.start()
        if self.engine.opened >= limits.requests:
            self.drain()

    @property
    def _own_waiting(self) -> int:
        """Bytes of the relay's own answers that the client does not take: nothing else bounds them together."""
        return sum(stream.own_waiting for stream in self.open_streams.values() if isinstance(stream, ClientStream))

    def goaway_came(self, last_stream_id: int, code: int) -> None:
        """The client will open no further stream."""
        self._parting = 2
        self._close_if_done()

    def pong_came(self, data: bytes) -> None:
        if data == _PARTING_PING and self._parting == 1:
            self._name_last()

    def broke(self, code: int, message: str) -> None:
        error = ClientBroke(f"HTTP/2 error {code}: {message}")
        self._service.broke(self.peer, error)
        self._lose(error)
        self._linger()

    @property
    def limits(self) -> ClientLimits:
        return self._service.limits

    # Ends

    def drain(self) -> None:
        """No further request: close when the answers that are under way have gone."""
        if self._parting or self.engine.over:
            return
        self._parting = 1
        self._parting_at = self._wheel.now
        self.engine.goaway(frames.STREAM_ID_LIMIT, frames.NO_ERROR)
        self.engine.emit(frames.ping(_PARTING_PING))
        self._wheel.watch(self, self._parting_at + _PARTING_TIME)

    def _name_last(self) -> None:
        self._parting = 2
        self.engine.goaway(self.engine.h2.highest_inbound_stream_id, frames.NO_ERROR)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._parting > 1 and not self.open_streams and not self._late:
            # Not from here: a stream may be in the middle of its own end.
            self._loop.call_soon(self._linger)

    def _reset_now(self) -> None:
        super()._reset_now()
        self._close_if_done()

    def _stream_left(self) -> None:
        self._idle_since = self._wheel.now
        self._close_if_done()

    @property
    def _look(self) -> float:
        limits = self._service.limits
        return min(_LOOK, limits.head / 4, limits.body_idle / 4, limits.stall / 4, limits.keep_alive / 4)

    def due(self, now: float) -> float:
        if self.engine.over:
            return self._linger_due(now)
        limits = self._service.limits
        if self.stalled_for(now) >= self._stall:
            self._lose(ClientStalled(f"the client took no byte for {self._stall:g} s"))
            self._cut()
            return 0
        since = self.engine.head_since if self.engine.greeted else self._opened_at
        if since is not None and now - since >= limits.head and not self._is_idle:
            self.engine.give_up(
                frames.ENHANCE_YOUR_CALM, f"the header section was not complete after {limits.head:g} s"
            )
            return 0
        if self._parting == 1 and now - self._parting_at >= _PARTING_TIME:
            self._name_last()
        elif self._is_idle and now - self._idle_since >= limits.keep_alive:
            self._parting = 1
            self._name_last()
        elif now - self._opened_at >= limits.age:
            self.drain()
        for stream in list(self.open_streams.values()):
            assert isinstance(stream, ClientStream)
            stream.look(now)
        waits = self._blocked_at or any(stream.has_rest for stream in self.open_streams.values())
        return now + (STALL_LOOK if waits else self._look)

    @property
    def _is_idle(self) -> bool:
        return not self.open_streams and self.engine.head_since is None and self.engine.greeted


class ClientStream(Stream2):
    """One request and the sink of its answer: what an exchange knows as its client (relay.net.service.Client)."""

    __slots__ = (
        "_exchange",
        "_expects",
        "_head",
        "_held_at",
        "_method",
        "_own",
        "_whole",
        "head_sent",
        "peer",
        "secure",
    )

    connection: Downstream2

    def __init__(self, connection: Downstream2, stream_id: int, request: RequestHead | None, *, ended: bool) -> None:
        super().__init__(connection, stream_id)
        self.peer = connection.peer
        self.secure = connection.secure
        self.head_sent = False
        self._exchange: Exchange | None = None
        self._head: Headers | None = None
        self._method = b"" if request is None else request.method
        self._expects = request is not None and request.expects_continue
        self._whole = ended
        self._held_at = 0.0
        self._own: Reader | None = None
        connection.enter(self)

    def serve(self, exchange: Exchange, request: RequestHead) -> None:
        self._exchange = exchange
        if not self._whole:
            self.expect(request.framing, exchange.body.feed)

    # Answers: the sink

    def proceed(self) -> None:
        if self._expects and not self._whole and not self.head_sent:
            self.connection.engine.send_head(self.stream_id, heads2.response_fields(100, []), end=False)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        fields = [*headers, (b"date", formatdate(usegmt=True).encode())]
        reader = self._own = Reader(ANSWER, Gate(None))
        bodiless = self._method == b"HEAD"
        if bodiless:
            fields.append((b"content-length", b"%d" % len(body)))
        self.start(status, fields, len(body), reader, bodiless=bodiless or status == 204)
        if body and not bodiless:
            reader.out.send(body)
        reader.finish()

    def start(
        self, status: int, headers: Headers, length: int | None, reader: Reader, *, bodiless: bool = False
    ) -> None:
        if length is not None and not bodiless:
            headers = [*headers, (b"content-length", b"%d" % length)]
        self._head = heads2.response_fields(status, headers)
        self._reader = reader
        reader.attach(self, blocked=self.connection.blocked)

    def flush_head(self) -> None:
        head, self._head = self._head, None
        if head is None:
            return
        self._flow = self.connection.engine.send_head(self.stream_id, head, end=False)
        self.head_sent = True

    def _send_first(self, payload: bytes) -> None:
        if self._head is not None:
            self.flush_head()
            self.send(payload)

    def insert(self, piece: bytes) -> None:
        self.flush_head()
        if not self.waits:
            self.send(piece)

    def finish(self) -> None:
        engine = self.connection.engine
        if self._head is not None:
            self.head_sent = True
            engine.send_head(self.stream_id, self._head, end=True)
        else:
            engine.send_end(self.stream_id)
        if not self._whole:
            # RFC 9113, 8.1: the rest of the request is not wanted.
            self.connection.reset_late(self.stream_id, frames.NO_ERROR)
        self._delivered()

    def abort(self) -> None:
        self.connection.reset_late(self.stream_id, frames.INTERNAL_ERROR)
        self._delivered()

    def cut(self) -> None:
        self._rest = b""
        self.connection.engine.reset(self.stream_id, frames.INTERNAL_ERROR)
        self._exchange = None
        self._part()

    def _delivered(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._part()
        if exchange is not None:
            exchange.delivered()

    # From the client

    def peer_ended(self) -> None:
        if self._whole or self._is_short():
            return
        self._whole = True
        if self._exchange is not None:
            self._exchange.body.end()

    def peer_reset(self, code: int) -> None:
        self.lost(ClientLeft("the client cancelled the request"))

    def peer_broke(self, message: str) -> None:
        self.lost(ClientBroke(f"HTTP/2: {message}"))

    def lost(self, error: RelayError) -> None:
        exchange, self._exchange = self._exchange, None
        self._part()
        if exchange is not None and not exchange.done:
            exchange.stop(error)

    @property
    def own_waiting(self) -> int:
        return len(self._rest) + self._own.waiting if self._own is not None else 0

    def look(self, now: float) -> None:
        """Have its deadlines passed?"""
        connection, exchange = self.connection, self._exchange
        limits = connection.limits
        stall = limits.stall if self._reader is None else min(self._reader.stall, limits.stall)
        if self.stalled_for(now) >= stall or (self.waits and connection.stalled_for(now) >= stall):
            connection.engine.reset(self.stream_id, frames.CANCEL)
            self.lost(ClientStalled(f"the client took no byte for {stall:g} s"))
        elif self.gate.closed:
            self._held_at = now
        elif exchange is not None and not self._whole and not exchange.done:
            # Of a frame that is not yet whole, the exchange knows nothing.
            partial_at = connection.engine.partial_at if connection.engine.partial else 0.0
            active = max(exchange.body.active, self._held_at, partial_at)
            if now - active >= limits.body_idle:
                exchange.stop(RequestTimeout(f"no byte of the body came for {limits.body_idle:g} s"))
