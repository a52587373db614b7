"""A client's HTTP/1.1 connection: requests in, one at a time, and the sink of their answers (RFC 9112).

        HEAD -> BODY -> BUSY -> HEAD ...        BUSY: the answer is under way; what the client sends ahead waits
                          \\-> LINGER            an answer was sent to a request that was not read whole

A client that ends its side, in whatever state, has left: its exchange is told at once. One request sent ahead of its
turn waits in the buffer; past AHEAD_LIMIT the socket is not read until it is that request's turn.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from email.utils import formatdate

from relay.core.reader import Reader
from relay.errors import ClientLeft, ClientStalled, RelayError, RemoteProtocolError, RequestTimeout
from relay.flow.gate import Gate
from relay.net.connection import LINGER_BYTES, LINGER_TIME, STALL_LOOK
from relay.net.connection1 import Connection1
from relay.net.service import Exchange, Service
from relay.wire import http1
from relay.wire.body import Body, LengthBody
from relay.wire.chunked import ChunkedBody
from relay.wire.head import CHUNKED, EMPTY, UNTIL_CLOSE, Framing, Headers, RequestHead

AHEAD_LIMIT = 64 * 1024
# While a client is not read, the end of its connection is not either; so often is it looked for (seconds):
# less than a tick of the wheel, so that it is seen at the next one.
LEFT_LOOK = 0.04
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8  # of <netinet/tcp.h>: reset; the peer has ended its side


class _Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    BUSY = enum.auto()
    LINGER = enum.auto()


class Downstream1(Connection1, asyncio.Protocol):
    """The one client of its requests (relay.net.service.Client), and the sink of one answer at a time."""

    __slots__ = (
        "_body",
        "_buffer",
        "_close_after",
        "_exchange",
        "_lingered",
        "_opened_at",
        "_paused",
        "_phase",
        "_request",
        "_requests",
        "_scanned",
        "_service",
        "_since",
        "_state",
        "gate",
    )

    def __init__(self, service: Service) -> None:
        super().__init__(service.wheel, service.limits.stall)
        self._service = service
        # A function: a bound method would be one object more for each connection.
        self._state: Callable[[Downstream1, bytes], None] = Downstream1._read_head
        self._buffer = bytearray()
        self._scanned = 0
        self._phase = _Phase.HEAD
        self._since = self._opened_at = service.wheel.now
        self._requests = 0
        self._request: RequestHead | None = None
        self._exchange: Exchange | None = None
        self._body: Body | None = None
        self._close_after = False
        self._lingered = 0
        self._paused = False
        self.gate = Gate(self)

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._service.opened(self):
            self._cut()
            return
        self._wheel.watch(self, self._since + self._service.limits.head)

    def data_received(self, data: bytes) -> None:
        self._state(self, data)

    def _ended(self) -> None:
        # A half-closed connection counts as left (a reader that will not read cannot be told from it).
        self._give_up(ClientLeft("the client closed the connection"))
        self._cut()

    def _left(self, error: Exception | None) -> None:
        super()._left(error)
        self._give_up(ClientLeft("the client's connection was lost"))
        self._service.left(self)

    def _ignore(self) -> None:
        self._state = Downstream1._drop

    def _drop(self, data: bytes) -> None:
        """What comes is not looked at."""

    def _read_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.receive(data)

    def pause_reading(self) -> None:
        self._paused = True
        self._wheel.watch(self, self._wheel.now + LEFT_LOOK)
        super().pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        super().resume_reading()

    # Requests

    def _read_head(self, data: bytes) -> None:
        if not self._begun:
            self._since = self._wheel.now
            self._wheel.watch(self, self._since + self._service.limits.head)
        self._buffer += data
        self._parse()

    @property
    def _begun(self) -> bool:
        """Whether a request's head has begun; the empty line that may stand before it says nothing."""
        return bytes(self._buffer[:3]) not in (b"", b"\r\n")

    def _parse(self) -> None:
        buffer = self._buffer
        # RFC 9112, 2.2: one empty line before a request is ignored. It stays here until then: a second one is refused,
        # and no client keeps its connection with them for ever.
        start = 2 if buffer.startswith(b"\r\n") else 0
        try:
            http1.check_request_line(buffer, start)
            end = http1.find_head(buffer, http1.REQUEST_HEAD_LIMIT, self._scanned)
            self._scanned = len(buffer)
            if not end:
                return
            head = bytes(buffer[start:end])
            del buffer[:end]
            self._scanned = 0
            request = http1.parse_request(head)
        except RelayError as error:
            self._refuse(error)
            return
        self._accept(request)

    def _accept(self, request: RequestHead) -> None:
        self._requests += 1
        self._request = request
        limits = self._service.limits
        self._close_after = (
            not request.keep_alive
            or self._service.draining
            or self._requests >= limits.requests
            or self._wheel.now - self._opened_at >= limits.age
        )
        exchange = self._exchange = self._service.exchange(request, self)
        if request.framing.empty:
            self._look_on(b"")
        else:
            ahead = bytes(self._buffer)
            self._buffer.clear()
            self._phase = _Phase.BODY
            self._since = self._wheel.now
            self._wheel.watch(self, self._since + limits.body_idle)
            body = self._body = self._body_of(request.framing)
            body.pour(exchange.body)
            self._state = Downstream1._read_body
            if self._paused:
                self.resume_reading()  # it was paused because this request came ahead of its turn
            if ahead:
                body.receive(ahead)
        if not exchange.done:
            exchange.start()

    def _body_of(self, framing: Framing) -> Body:
        return ChunkedBody(self) if framing.length is None else LengthBody(self, framing.length)

    def body_ended(self, rest: bytes) -> None:
        if self._body is None:
            return  # refused in the meantime
        self._look_on(rest)
        if self._exchange is not None:
            self._exchange.body.end()

    def body_failed(self, error: RemoteProtocolError) -> None:
        if self._body is None:
            return
        self._close_after = True
        self._give_up(error)

    def _look_on(self, ahead: bytes) -> None:
        """The request is whole. What comes now is ahead of its turn, but shows that the client is there."""
        self._body = None
        self._phase = _Phase.BUSY
        self._state = Downstream1._read_ahead
        if ahead:
            self._read_ahead(ahead)

    def _read_ahead(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > AHEAD_LIMIT and not self._paused:
            self.pause_reading()

    def _refuse(self, error: RelayError) -> None:
        """Answer what never became an exchange, and close: where its next request begins is anybody's guess."""
        self._service.refused(self, error)

    def _give_up(self, error: RelayError) -> None:
        if self._exchange is not None and not self._exchange.done:
            self._exchange.stop(error)

    # Answers: the sink

    def proceed(self) -> None:
        request = self._request
        if request is not None and request.expects_continue and self._body is not None and not self._head:
            self._write(http1.CONTINUE)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        close = self._close_after = self._close_after or self._body is not None or self._request is None
        fields = [*headers, (b"date", formatdate(usegmt=True).encode())]
        if status != 204:  # which has none (RFC 9110, 8.6)
            fields.append((b"content-length", b"%d" % len(body)))
        if close:
            fields.append((b"connection", b"close"))
        if self._request is not None and self._request.method == b"HEAD":
            body = b""
        self._begin(b"", EMPTY, None)
        self._write(http1.response_head(status, fields) + body)
        self.finish()

    def start(
        self, status: int, headers: Headers, length: int | None, reader: Reader, *, bodiless: bool = False
    ) -> None:
        if self._body is not None or self._service.draining:
            self._close_after = True
        fields = headers
        if bodiless:
            framing = EMPTY
        elif length is not None:
            framing = Framing(length=length)
            fields = [*fields, (b"content-length", b"%d" % length)]
        elif self._request is None or self._request.version == b"1.1":
            framing = CHUNKED
            fields = [*fields, (b"transfer-encoding", b"chunked")]
        else:
            framing = UNTIL_CLOSE
            self._close_after = True
        if self._close_after:
            fields = [*fields, (b"connection", b"close")]
        if self._request is not None:
            self._request = self._request.bare()
        self._stall = min(reader.stall, self._service.limits.stall)
        self._begin(http1.response_head(status, fields), framing, reader)

    def insert(self, piece: bytes) -> None:
        self.flush_head()
        if not self._blocked_at:
            self.send(piece)

    def finish(self) -> None:
        """The answer is whole."""
        self._end_message()
        self._delivered()
        if self.closed or self._transport.is_closing() or self._is_reset:
            return
        self._request = None
        self._stall = self._service.limits.stall
        if self._close_after:
            self._close_after_linger()
        else:
            self._next()

    def abort(self) -> None:
        """The answer is not whole, and the client must see that (RFC 9112, section 8)."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.detach()
        self._delivered()
        if self._framing.until_close and self.head_sent:
            self._reset()
        else:
            self._close()

    def _delivered(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.delivered()

    def _close_after_linger(self) -> None:
        """Close our side, and read on until the client closes its own: bytes that are met by a closed socket make the
        kernel send a RST, and that can cost the client the end of the answer."""
        if self._body is not None:
            self._body.spill()
            self._body = None
        if self._transport.can_write_eof():
            self._phase = _Phase.LINGER
            self._since = self._wheel.now
            self._stall_mark = self._progress()
            self._state = Downstream1._discard
            self._buffer.clear()
            self.resume_reading()
            self._transport.write_eof()
            self._wheel.watch(self, self._since + STALL_LOOK)
        else:
            self._close()

    def _discard(self, data: bytes) -> None:
        self._lingered += len(data)
        if self._lingered > LINGER_BYTES:
            self._cut()

    def _next(self) -> None:
        """The answer has gone; the next request may begin. One that came ahead has to wait its turn all the same: for
        the loop to see to others, and for the socket to have taken this answer."""
        self._phase = _Phase.HEAD
        self._since = self._wheel.now
        self._wheel.watch(self, self._since + self._service.limits.keep_alive)
        if self._buffer:
            self._state = Downstream1._read_ahead
            self._schedule_ahead()
        else:
            self._go_on_reading()

    def _go_on_reading(self) -> None:
        self._state = Downstream1._read_head
        if self._paused:
            self.resume_reading()

    def _schedule_ahead(self) -> None:
        if not self._blocked_at:
            # Not from here: the caller is in the middle of its own end.
            asyncio.get_running_loop().call_soon(self._parse_ahead)

    def _go_on(self) -> None:
        super()._go_on()
        if self._phase is _Phase.HEAD and self._buffer:
            self._schedule_ahead()

    def _parse_ahead(self) -> None:
        if self.closed or self._phase is not _Phase.HEAD or self._state is not Downstream1._read_ahead:
            return
        self._wheel.watch(self, self._since + self._service.limits.head)
        self._state = Downstream1._read_head
        self._parse()
        if self._phase is _Phase.HEAD and self._state is Downstream1._read_head:
            # What came ahead is not yet a whole head.
            self._go_on_reading()

    # Ends

    def drain(self) -> None:
        """No further request: close if none is under way, else when its answer is."""
        if self._phase is _Phase.HEAD and not self._begun:
            self._close()
        else:
            self._close_after = True

    def due(self, now: float) -> float:
        if self.stalled_for(now) >= self._stall:
            self._give_up(ClientStalled(f"the client took no byte for {self._stall:g} s"))
            self._cut()
            return 0
        if self._paused and self._has_left():
            self._give_up(ClientLeft("the client closed the connection"))
            self._cut()
            return 0
        wait = self._phase_wait(now)
        if wait is not None and wait <= 0:
            self._expire()
            return 0
        look = now + LEFT_LOOK if self._paused else now + STALL_LOOK if self._blocked_at else 0
        if wait is None:
            return look
        return min(look, now + wait) if look else now + wait

    def _has_left(self) -> bool:
        """Whether the client's end, or a RST, has come without being read. One that stands behind more bytes than the
        kernel holds for us cannot be known."""
        raw = self._transport.get_extra_info("socket")
        if raw is None:
            return False
        state = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (_TCP_CLOSE, _TCP_CLOSE_WAIT)

    def _phase_wait(self, now: float) -> float | None:
        """Seconds until this phase has lasted too long, None if it may last."""
        limits = self._service.limits
        match self._phase:
            case _Phase.HEAD:
                idle = self._requests and not self._begun
                return self._since + (limits.keep_alive if idle else limits.head) - now
            case _Phase.BODY:
                if self.gate.closed or self._exchange is None:
                    self._since = now
                    return limits.body_idle
                return max(self._since, self._exchange.body.active) + limits.body_idle - now
            case _Phase.LINGER:
                return self._linger_wait(now)
            case _Phase.BUSY:
                return None

    def _linger_wait(self, now: float) -> float:
        """While the client takes what was sent, it lingers; it has the usual time to take the next byte of it."""
        mark = self._progress()
        if mark != self._stall_mark:
            self._stall_mark = mark
            self._since = now
        limit = self._stall if mark[1] or mark[2] else LINGER_TIME
        return min(self._since + limit - now, STALL_LOOK)

    def _expire(self) -> None:
        if self._phase is _Phase.BODY:
            self._close_after = True
            self._give_up(RequestTimeout(f"no byte of the body came for {self._service.limits.body_idle:g} s"))
        elif self._phase is _Phase.HEAD and self._begun:
            self._refuse(RequestTimeout(f"the header section was not complete after {self._service.limits.head:g} s"))
        else:
            self._cut()

    def cut(self) -> None:
        """Close at once, whatever is under way."""
        if self._framing.until_close and self.head_sent:
            self._reset()
        else:
            self._cut()
