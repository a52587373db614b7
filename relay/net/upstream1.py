"""A provider's HTTP/1.1 connection: one request out, one answer in, then back to the pool (RFC 9112).

        IDLE --ask--> HEAD --head--> BODY --end--> IDLE | closed

The body's bytes go from the socket straight into the coding's `take`: while the body lasts it is the transport's taker,
so that the hot path has no frame of ours before it. (Over TLS, it is the connection's `buffer_updated`.)
"""

from __future__ import annotations

import asyncio
import mmap
import select
from collections.abc import Callable
from dataclasses import dataclass
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
    UpstreamTimeout,
)
from relay.flow.gate import Gate
from relay.net.connection import STALL_LOOK
from relay.net.connection1 import Connection1
from relay.net.service import Asker
from relay.net.timers import Wheel
from relay.net.transport import NOBODY, SocketTransport, Taker
from relay.wire import http1
from relay.wire.body import Body, ConnectionBody, LengthBody
from relay.wire.chunked import ChunkedBody
from relay.wire.head import INFORMATIONAL_LIMIT, Framing, Headers, ResponseHead
from relay.wire.input import INPUT

# A reused connection that ends later than this after a request was sent on it (seconds) was not closed for being idle:
# the provider may have taken the request and worked on it.
STALE_WINDOW = 1.0


class Home(Protocol):
    """Where connections come from and go back to: the pool."""

    def release(self, connection: Upstream1) -> None:
        """The connection is free for another request."""

    def lost(self, connection: Upstream1) -> None:
        """The connection is gone."""


@dataclass(slots=True)
class _Question:
    """What is known of a request only until its answer has begun."""

    asker: Asker
    method: bytes
    asked_at: float
    informational: int = 0
    scanned: int = 0


class Upstream1(Connection1, asyncio.BufferedProtocol):
    """The sink of one request's body at a time. `served`: how many requests it has answered."""

    __slots__ = (
        "_body",
        "_buffer",
        "_home",
        "_keep",
        "_question",
        "_sent_whole",
        "_transfer",
        "buffer_updated",
        "gate",
        "idle_since",
        "idle_time",
        "served",
    )

    def __init__(self, wheel: Wheel, home: Home, stall: float, idle_time: float) -> None:
        super().__init__(wheel, stall)
        self.buffer_updated: Callable[[int], None] = NOBODY.take  # type: ignore[assignment]
        self._home = home
        self._buffer: bytearray | None = None
        self._question: _Question | None = None
        self._transfer: Receiver | None = None
        self._body: Body | None = None
        self._keep = False
        self._sent_whole = False
        self.gate = Gate(None)
        self.served = 0
        self.idle_time = idle_time
        self.idle_since = wheel.now

    # Asking

    @property
    def http(self) -> str:
        return "1.1"

    def ask(
        self, method: bytes, target: bytes, headers: Headers, framing: Framing, asker: Asker, reader: Reader
    ) -> None:
        """Send a request: its head at once, with as much of its body as `reader` has waiting; the rest as it comes."""
        if framing.chunked:
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        head = http1.request_head(method, target, headers)
        self._question = _Question(asker, method, self._wheel.now)
        self._buffer = bytearray()
        self._sent_whole = False
        self.gate = Gate(self)
        self._begin(head, framing, reader)
        self.flush_head()

    def finish(self) -> None:
        """The request is whole."""
        self._sent_whole = True
        self._end_message()

    def abort(self) -> None:
        """The request will not become whole."""
        self.cancel()

    def cancel(self) -> None:
        """Nobody wants the answer any more: close at once, so that the provider stops generating."""
        self._forget()
        self._cut()

    def cut(self) -> None:
        """Close at once, whatever is under way."""
        self.cancel()

    @property
    def usable(self) -> bool:
        """Whether a request may be sent on it; a provider may close it at any time all the same."""
        return not self.closed and not self._transport.is_closing()

    @property
    def quiet(self) -> bool:
        """Whether an idle connection is usable, and nothing lies unread on it: neither its end, which would cost a
        repeat, nor bytes behind the last answer, which would be taken for the next one."""
        if not self.usable:
            return False
        raw = self._transport.get_extra_info("socket")
        if raw is None:
            return True
        unread = select.poll()
        unread.register(raw.fileno(), select.POLLIN | select.POLLRDHUP)
        return not unread.poll(0)

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._give(self)
        if isinstance(self._transport, SocketTransport):
            self._transport.hush()

    def get_buffer(self, hint: int) -> mmap.mmap:
        return INPUT

    def _give(self, taker: Taker) -> None:
        """From now on the connection's bytes are the taker's."""
        transport = self._transport
        if isinstance(transport, SocketTransport):
            transport.tell(taker)
        elif self.buffer_updated != taker.take:
            self.buffer_updated = taker.take
            if not self.closed:
                # uvloop keeps the bound method, so it is told.
                transport.set_protocol(self)

    def _ignore(self) -> None:
        self._give(NOBODY)

    def take(self, count: int) -> None:
        """A head comes, or what nobody has asked for."""
        question = self._question
        if question is None or self._buffer is None:
            # Bytes that nobody asked for: whatever they are, the next answer must not begin with them.
            self._cut()
            return
        self._buffer += INPUT[:count]
        try:
            head = self._find_final(question, self._buffer)
        except RemoteProtocolError as error:
            self._unanswer(UpstreamInvalid(f"the provider's answer is invalid: {error.message}"))
            return
        if head is not None:
            rest = bytes(self._buffer)
            self._buffer = None
            self._begin_body(question, head, rest)

    def _find_final(self, question: _Question, buffer: bytearray) -> ResponseHead | None:
        while end := http1.find_head(buffer, http1.RESPONSE_HEAD_LIMIT, question.scanned):
            question.scanned = 0
            head = http1.parse_response(bytes(buffer[:end]), question.method)
            del buffer[:end]
            if head.status >= 200:
                return head
            if head.status == 101:
                raise RemoteProtocolError("a switch of protocols that nobody asked for")
            question.informational += 1
            if question.informational > INFORMATIONAL_LIMIT:
                raise RemoteProtocolError("too many informational responses")
        question.scanned = len(buffer)
        return None

    def _begin_body(self, question: _Question, head: ResponseHead, rest: bytes) -> None:
        asker, method = question.asker, question.method
        self._question = None
        framing = head.framing
        # A provider that sends a body where none may be would have it read as the next answer.
        bodiless = method == b"HEAD" or head.status in (204, 304)
        self._keep = head.keep_alive and not framing.until_close and not bodiless
        transfer = self._transfer = asker.answered(head)
        if not self.usable:
            self._transfer = None  # the asker did not like the head, and has cancelled
            return
        if framing.empty:
            self.body_ended(rest)
            return
        body = self._body = self._body_of(framing)
        body.pour(transfer)
        if rest:
            body.receive(rest)
        if self._body is body:
            self._give(body)

    def _body_of(self, framing: Framing) -> Body:
        if framing.chunked:
            return ChunkedBody(self)
        return ConnectionBody(self) if framing.length is None else LengthBody(self, framing.length)

    def body_ended(self, rest: bytes) -> None:
        transfer = self._transfer
        self._forget()
        self.served += 1
        if self._keep and self._sent_whole and not rest and not self.closed and not self._is_reset:
            self._give(self)
            self.idle_since = self._wheel.now
            self._wheel.watch(self, self.idle_since + self.idle_time)
            self._home.release(self)
        else:
            self._cut()
        if transfer is not None:
            transfer.end()

    def body_failed(self, error: RemoteProtocolError) -> None:
        self._fail(UpstreamInvalid(f"the provider's answer is invalid: {error.message}"))

    def _ended(self) -> None:
        # The end of a body that lasts until the connection's; of anything else it is a cut (connection_lost).
        if self._body is not None and isinstance(self._body, ConnectionBody):
            self._body.eof()
        # The transport would wait for what we still have to send, which nobody takes any more.
        self._cut()

    def _left(self, error: Exception | None) -> None:
        super()._left(error)
        if self.secure:
            # The loop's TLS would keep the methods that it has stored, they this connection, and it the loop's TLS.
            self._transport.set_protocol(_GONE)
        self._home.lost(self)
        question = self._question
        untouched = (
            self.served > 0
            and question is not None
            and not self._buffer
            and not question.informational
            and self._wheel.now - question.asked_at < STALE_WINDOW
        )
        self._unanswer(UpstreamClosed("the provider closed the connection before its answer", untouched=untouched))
        self._fail(UpstreamCut("the provider's connection ended in the middle of its answer"))

    # Ends

    def _fail(self, error: RelayError) -> None:
        """The answer stops here."""
        transfer = self._transfer
        self._forget()
        self._cut()
        if transfer is not None:
            transfer.fail(error)

    def _unanswer(self, error: UpstreamError) -> None:
        """There will be no answer; of one that has begun `_fail` tells."""
        question = self._question
        if question is not None:
            self._forget()
            self._cut()
            question.asker.unanswered(error)

    def _forget(self) -> None:
        """Whoever has asked is told nothing further."""
        self._question = None
        self._transfer = None
        if self._body is not None:
            self._body.spill()
            self._body = None
        self.gate.retire()

    def due(self, now: float) -> float:
        if self._blocked_at:
            if self.stalled_for(now) >= self._stall:
                late = UpstreamTimeout(f"the provider took no byte of the request for {self._stall:g} s")
                self._unanswer(late)
                self._fail(late)
                return 0
            return now + STALL_LOOK
        if self._question is None and self._transfer is None:
            expires = self.idle_since + self.idle_time
            if now >= expires:
                self._close()
                return 0
            return expires
        return 0


_GONE = asyncio.BufferedProtocol()
