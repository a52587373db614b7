"""One request and its answer: admit -> route -> connect -> commit -> finish.

        start ----> route ----> acquire ----> ask ----> answered ----> transfer ----> delivered
          |           |            |           |                          |
          own answer  404, 403     429..504    unanswered: repeat once    ended: finish, or error event and abort
                                               or 502, 504

Only `acquire` waits, in a task that ends with it; everything else happens in the call that caused it. The answer's
head is committed with its first byte, so that whatever fails before still gets a real status. What happens later can
only be told by an abort: no answer that is not whole ever ends cleanly.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import secrets
import time
from dataclasses import dataclass, field

from relay.control import auth, retry
from relay.control.access import AccessLog, Line
from relay.control.router import Route, Router
from relay.core.inflated import InflatedStream
from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.core.stream import Stream
from relay.core.transfer import Receiver, Transfer
from relay.errors import (
    CloseReason,
    Drained,
    NotFound,
    PayloadTooLarge,
    RelayError,
    RemoteProtocolError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from relay.flow.overflow import ANSWER
from relay.net.downstream1 import Downstream1
from relay.net.timers import Wheel
from relay.net.upstream1 import Upstream1
from relay.wire import dialect, headers, http1
from relay.wire.dialect import Ending
from relay.wire.encoding import inflater
from relay.wire.http1 import Headers, RequestHead, ResponseHead

# How long a stream may be silent before its last event is looked at (seconds): one whose provider has sent the
# terminal event, but not closed, ends then.
SETTLE = 5.0
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_REQUEST_ID_LIMIT = 128
_PATH_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; 0 is off. `head`: from the request's end to the answer's head. `first_event`: from there to the first
    byte of its body. `idle`: silence after it. `total`: the whole exchange. `heartbeat`: silence before a comment."""

    head: float = 120.0
    first_event: float = 120.0
    idle: float = 300.0
    total: float = 0.0
    heartbeat: float = 15.0


@dataclass(slots=True)
class Office:
    """What all exchanges share. Sizes in bytes."""

    router: Router
    wheel: Wheel
    access: AccessLog
    timing: Timing
    request_limit: int
    replay_limit: int
    event_limit: int
    inflate_limit: int
    trusted: tuple[Network, ...] = ()
    draining: bool = False
    open: dict[str, Exchange] = field(default_factory=dict)

    def trusts(self, peer: str) -> bool:
        """Whether a peer is a proxy of ours, whose word on the client before it counts."""
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self.trusted)


class _Phase(enum.Enum):
    NEW = enum.auto()
    QUEUED = enum.auto()
    ASKED = enum.auto()
    STREAMING = enum.auto()
    DELIVERING = enum.auto()
    DONE = enum.auto()


class Exchange:
    """`done`: nothing more will happen. An exchange is its provider connection's asker, its transfer's owner, and
    what the client's connection knows of the request."""

    __slots__ = (
        "_answered_at",
        "_attempts",
        "_beat_at",
        "_client",
        "_connection",
        "_dialect",
        "_error",
        "_first_at",
        "_office",
        "_phase",
        "_request",
        "_request_id",
        "_route",
        "_started_at",
        "_status",
        "_stream_id",
        "_task",
        "_transfer",
        "_upstream_request_id",
        "body",
        "tick",
    )

    def __init__(self, office: Office, request: RequestHead, client: Downstream1) -> None:
        self.tick = 0
        self._office = office
        self._request = request
        self._client = client
        self._phase = _Phase.NEW
        self._request_id = _request_id(request)
        self._stream_id = secrets.token_urlsafe(16)
        self._route: Route | None = None
        self._dialect = dialect.of(request.path)
        self._task: asyncio.Task[None] | None = None
        self._connection: Upstream1 | None = None
        self._transfer: Transfer | None = None
        self._attempts = 0
        self._status = 0
        self._error: RelayError | None = None
        self._upstream_request_id: bytes | None = None
        self._started_at = time.monotonic()
        self._answered_at = 0.0
        self._first_at = 0.0
        self._beat_at = 0.0
        self.body = RequestBody(
            client.gate, office.wheel, limit=office.request_limit, keep=office.replay_limit, overrun=self._overrun
        )
        office.open[self._stream_id] = self

    def __repr__(self) -> str:
        return f"<Exchange {self._request_id} {self._phase.name.lower()}>"

    @property
    def done(self) -> bool:
        return self._phase is _Phase.DONE

    # Admit, route, connect

    def start(self) -> None:
        """The head was read; the body may still be coming."""
        try:
            if self._answer_ourselves():
                return
            self._route = self._find_route()
        except RelayError as error:
            self._refuse(error)
            return
        self._client.proceed()
        if self._office.timing.total:
            self._office.wheel.watch(self, self._started_at + self._office.timing.total)
        self._find_connection()

    def _answer_ourselves(self) -> bool:
        request = self._request
        if request.target == b"*":
            self._respond(204, [(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")], b"")
        elif request.method in (b"GET", b"HEAD") and request.path == b"/healthz":
            self._respond(200, [(b"content-type", b"text/plain")], b"ok\n")
        elif request.method in (b"GET", b"HEAD") and request.path == b"/readyz":
            ready = not self._office.draining
            status, text = (200, b"ok\n") if ready else (503, b"draining\n")
            self._respond(status, [(b"content-type", b"text/plain")], text)
        else:
            return False
        return True

    def _find_route(self) -> Route:
        route = self._office.router.match(self._request.path)
        if route is None:
            raise NotFound("no route for this path")
        auth.check_origin(self._request, route.upstream)
        return route

    def _find_connection(self) -> None:
        """Ask on an idle connection at once; else wait for one in a task."""
        assert self._route is not None
        self._phase = _Phase.QUEUED
        fresh = self._attempts > 0
        connection = None if fresh else self._route.upstream.pool.take()
        if connection is not None:
            self._ask(connection)
        else:
            self._task = asyncio.get_running_loop().create_task(self._acquire(self._route, fresh))

    async def _acquire(self, route: Route, fresh: bool) -> None:
        try:
            connection = await route.upstream.pool.acquire(fresh=fresh)
        except RelayError as error:
            self._task = None
            self._fail(error)
            return
        self._task = None
        if self._phase is _Phase.QUEUED:
            self._ask(connection)
        else:
            connection.cancel()

    def _ask(self, connection: Upstream1) -> None:
        assert self._route is not None
        request, route = self._request, self._route
        self._phase = _Phase.ASKED
        self._connection = connection
        self._attempts += 1
        self._answered_at = self._office.wheel.now
        upstream = route.upstream
        fields = headers.to_upstream(
            request,
            authority=upstream.authority,
            request_id=self._request_id.encode(),
            credential=upstream.credential,
            identity=self._wants_identity(),
            client=self._client.peer.encode() if upstream.forwarded else None,
            forwarded=headers.forwarded_fields(request) if self._office.trusts(self._client.peer) else [],
        )
        head = http1.request_head(request.method, route.target(request.target), fields)
        if request.framing.empty and not self.body.ended:
            self.body.end()
        self._watch(self._office.timing.head)
        connection.ask(head, request.method, request.framing, self, self.body.reader)

    def _wants_identity(self) -> bool:
        """Whether the answer's events may have to be read: then the provider should not compress them."""
        accept = self._request.get(b"accept") or b""
        return not self._dialect.opaque or headers.EVENT_STREAM in accept.lower()

    # The provider has something to say

    def answered(self, head: ResponseHead) -> Receiver:
        assert self._connection is not None
        assert self._route is not None
        self.body.settle()
        self._request = self._request.bare()
        self._phase = _Phase.STREAMING
        self._answered_at = self._office.wheel.now
        self._status = head.status
        self._upstream_request_id = head.get(b"x-request-id") or head.get(b"request-id")
        event_stream = headers.is_event_stream(head) and self._request.method != b"HEAD"
        fields = headers.to_client(
            head,
            request_id=self._request_id.encode(),
            stream_id=self._stream_id.encode(),
            event_stream=event_stream,
            cookies=self._route.upstream.credential is None,
        )
        reader = Reader(ANSWER, self._connection.gate)
        if event_stream:
            return self._begin_stream(head, fields, reader)
        length = head.framing.length
        if head.framing.empty and head.get(b"content-length") not in (None, b"0"):
            # The length of what HEAD or 304 do not send is a fact of its own.
            fields.append((b"content-length", head.get(b"content-length") or b""))
        transfer = self._transfer = Transfer(reader, self, self._office.wheel)
        bodiless = head.framing.empty and (self._request.method == b"HEAD" or head.status in (204, 304))
        self._client.start(head.status, fields, length, reader, bodiless=bodiless)
        self._watch(self._office.timing.first_event)
        return transfer

    def _begin_stream(self, head: ResponseHead, fields: Headers, reader: Reader) -> Receiver:
        stream = Stream(reader, self, self._office.wheel, self._dialect, self._office.event_limit)
        self._transfer = stream
        try:
            decoder = inflater(head.get(b"content-encoding"), self._office.inflate_limit)
        except RemoteProtocolError as error:
            self._give_up(UpstreamInvalid(f"the provider's answer is invalid: {error.message}"))
            return stream
        self._client.start(head.status, fields, None, reader)
        if self._dialect.opaque:
            # Nobody knows how long its first event may take, and its reader may wait for the head.
            self._client.flush_head()
        self._watch(min(self._office.timing.heartbeat or SETTLE, SETTLE))
        return stream if decoder is None else InflatedStream(stream, decoder, self._give_up)

    def unanswered(self, error: UpstreamError) -> None:
        self._connection = None
        if retry.may_repeat(error, self.body, self._attempts):
            self.body.rewind()
            self._find_connection()
        else:
            self._fail(error)

    def transfer_began(self) -> None:
        self._first_at = time.monotonic()

    def transfer_ended(self, error: RelayError | None) -> None:
        """Finish the client's side when it has taken what waits; or break it off so that it sees it."""
        transfer = self._transfer
        assert transfer is not None
        self._connection = None
        self.body.drop()
        if self.done:
            return
        self._phase = _Phase.DELIVERING
        self._error = error
        if error is None:
            transfer.reader.finish()
        elif self._client.head_sent:
            self._send_error_event(transfer, error)
            transfer.reader.abort()
        else:
            transfer.reader.detach()
            self._refuse(error)

    def _send_error_event(self, transfer: Transfer, error: RelayError) -> None:
        """Tell the reader of a stream why it breaks off, in its dialect; the provider's own error event is enough."""
        if isinstance(transfer, Stream) and transfer.at_border and transfer.ending() is not Ending.ERROR:
            event = self._dialect.error_event(error, transfer.first, transfer.last)
            if event:
                transfer.reader.send(event)

    # Ends

    def stop(self, error: RelayError) -> None:
        """The client left, stalled, or broke the protocol; or the relay stops."""
        if self.done:
            return
        there = error.reason not in (CloseReason.CLIENT_LEFT, CloseReason.CLIENT_STALLED)
        if there:
            self._fail(error)
        else:
            self._release_provider()
            self._error = error
            if not self._client.head_sent or not self._status:
                self._status = error.status
            self._finish(error.reason)

    def drained(self) -> None:
        """The relay waits no longer."""
        self.stop(Drained("the relay is stopping"))

    def delivered(self) -> None:
        """The client's connection has sent the answer to its end, or broken it off."""
        if not self.done:
            self._finish(self._error.reason if self._error is not None else CloseReason.FINISHED)

    def _overrun(self) -> None:
        self._fail(PayloadTooLarge(f"the body may have at most {self._office.request_limit} bytes"))

    def _give_up(self, error: RelayError) -> None:
        """Cancel the provider and end the answer, as if the provider had broken off."""
        self._release_provider()
        transfer = self._transfer
        if transfer is None:
            self._refuse(error)
        elif isinstance(transfer, Stream):
            transfer.fail(error)
        else:
            self.transfer_ended(error)

    def _fail(self, error: RelayError) -> None:
        """Something failed on our side of the provider; whatever it was doing is cancelled."""
        if self.done:
            return
        self._error = error
        if self._phase is _Phase.DELIVERING:
            self._client.abort()
        else:
            self._give_up(error)

    def _release_provider(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cancel()
        self.body.drop()

    def _refuse(self, error: RelayError) -> None:
        """Answer with the error: nothing of an answer has left yet."""
        self._error = error
        fields: Headers = [(b"content-type", b"application/json")]
        if error.retry_after is not None:
            fields.append((b"retry-after", b"%d" % error.retry_after))
        if error.retryable:
            fields.append((b"x-should-retry", b"true"))
        self._respond(error.status, fields, self._dialect.error_body(error, self._request_id))

    def _respond(self, status: int, fields: Headers, body: bytes) -> None:
        self._status = status
        self.body.drop()
        self._client.respond(status, [*fields, (b"x-request-id", self._request_id.encode())], body)

    def _finish(self, reason: CloseReason) -> None:
        self._phase = _Phase.DONE
        self._office.wheel.forget(self)
        self._office.open.pop(self._stream_id, None)
        self.body.drop()
        self._office.access.write(self._line(reason))

    def _line(self, reason: CloseReason) -> Line:
        transfer = self._transfer
        upstream = self._route.upstream.name if self._route is not None else None
        line: Line = {
            "time": "",
            "request_id": self._request_id,
            "stream_id": self._stream_id,
            "client": self._client.peer,
            "method": self._request.method.decode("ascii", "replace"),
            "path": self._request.path[:_PATH_LIMIT].decode("ascii", "replace"),
            "route": self._route.pattern if self._route is not None else None,
            "upstream": upstream,
            "status": self._status,
            "dialect": self._dialect.name,
            "bytes_in": self.body.bytes,
            "bytes": transfer.bytes if transfer is not None else 0,
            "events": transfer.events if isinstance(transfer, Stream) else 0,
            "attempts": self._attempts,
            "first_event_ms": _ms(self._first_at - self._started_at) if self._first_at else None,
            "duration_ms": _ms(time.monotonic() - self._started_at),
            "reason": reason.value,
        }
        if self._upstream_request_id is not None:
            line["upstream_request_id"] = self._upstream_request_id[:_REQUEST_ID_LIMIT].decode("ascii", "replace")
        if self._error is not None:
            line["error"] = self._error.code
        return line

    # Time

    def _watch(self, after: float) -> None:
        if after:
            self._office.wheel.watch(self, self._office.wheel.now + after)

    def due(self, now: float) -> float:
        timing = self._office.timing
        spent = time.monotonic() - self._started_at
        if 0 < timing.total <= spent and self._phase is not _Phase.DELIVERING:
            self._fail(UpstreamTimeout(f"the exchange took longer than {timing.total:g} s"))
            return 0
        match self._phase:
            case _Phase.ASKED:
                return self._due_asked(now)
            case _Phase.STREAMING:
                return self._due_streaming(now)
            case _:
                return now + timing.total if timing.total and not self.done else 0

    def _due_asked(self, now: float) -> float:
        limit = self._office.timing.head
        since = self._answered_at
        if not self._request.framing.empty:
            # The client may take its time with the body; it has a limit of its own.
            since = max(since, self.body.active) if self.body.ended else now
        if not limit:
            return 0
        if now - since >= limit:
            self._fail(UpstreamTimeout(f"the provider did not begin its answer in {limit:g} s"))
            return 0
        return since + limit

    def _due_streaming(self, now: float) -> float:
        transfer, connection = self._transfer, self._connection
        if transfer is None or connection is None:
            return 0
        timing = self._office.timing
        if connection.gate.closed:
            # The provider is held because the client does not read: the silence is not the provider's.
            transfer.active = now
        limit = timing.idle if transfer.began else timing.first_event
        silent = now - transfer.active
        if limit and silent >= limit:
            what = "was silent for" if transfer.began else "sent no event for"
            self._give_up(UpstreamTimeout(f"the provider {what} {limit:g} s"))
            return 0
        when = transfer.active + limit if limit else now + SETTLE
        if isinstance(transfer, Stream):
            if silent >= SETTLE and transfer.began and transfer.ending() is Ending.DONE:
                self._release_provider()
                self.transfer_ended(None)
                return 0
            when = min(when, now + SETTLE, self._beat(transfer, now))
        return when

    def _beat(self, stream: Stream, now: float) -> float:
        """Send a heartbeat if one is due; return when the next one is."""
        every = self._office.timing.heartbeat
        if not every:
            return now + SETTLE
        if now - max(stream.active, self._beat_at) >= every:
            self._beat_at = now
            if stream.at_border:
                self._client.heartbeat()
        return max(stream.active, self._beat_at) + every


def _request_id(request: RequestHead) -> str:
    """The caller's own id if it is fit to be logged and sent on, else a new one."""
    given = request.get(b"x-request-id")
    if given and len(given) <= _REQUEST_ID_LIMIT and given.isascii():
        text = given.decode()
        if all(char.isalnum() or char in "-_.:/+=" for char in text):
            return text
    return secrets.token_urlsafe(12)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
