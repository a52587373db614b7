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
import secrets
import time

from relay.control import auth, caller, health, retry
from relay.control.access import Record
from relay.control.office import Office
from relay.control.router import Route
from relay.core.inflated import InflatedStream
from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.core.stream import Stream
from relay.core.transfer import Receiver, Transfer
from relay.errors import (
    ClientGone,
    CloseReason,
    Drained,
    NotFound,
    PayloadTooLarge,
    RelayError,
    RemoteProtocolError,
    UpstreamCut,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER
from relay.net.service import Call, Client
from relay.wire import dialect, headers
from relay.wire.dialect import Ending
from relay.wire.encoding import inflater
from relay.wire.head import Headers, RequestHead, ResponseHead

# How long a stream may be silent before its last event is looked at (seconds): one whose provider has sent the
# terminal event, but not closed, ends then.
SETTLE = 5.0


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
        "_asked_at",
        "_beat_at",
        "_client",
        "_connection",
        "_dialect",
        "_office",
        "_phase",
        "_receiver",
        "_record",
        "_request",
        "_route",
        "_task",
        "_transfer",
        "body",
        "tick",
    )

    def __init__(self, office: Office, request: RequestHead, client: Client) -> None:
        self.tick = 0
        self._office = office
        self._request = request
        self._client = client
        self._phase = _Phase.NEW
        self._dialect = dialect.of(request.path)
        self._record = Record(
            request,
            caller.client_address(client.peer, request, office.trusted),
            caller.request_id(request),
            secrets.token_urlsafe(16),
            self._dialect.name,
        )
        self._route: Route | None = None
        self._task: asyncio.Task[None] | None = None
        self._connection: Call | None = None
        self._transfer: Transfer | None = None
        self._receiver: Receiver | None = None
        self._asked_at = 0.0
        self._answered_at = 0.0
        self._beat_at = 0.0
        self.body = RequestBody(
            client.gate, office.wheel, limit=office.request_limit, keep=office.replay_limit, overrun=self._overrun
        )
        office.open[self._record.stream_id] = self

    def __repr__(self) -> str:
        return f"<Exchange {self._record.request_id} {self._phase.name.lower()}>"

    @property
    def done(self) -> bool:
        return self._phase is _Phase.DONE

    # Admit, route, connect

    def start(self) -> None:
        """The head was read; the body may still be coming."""
        own = health.answer(self._request, draining=self._office.draining)
        if own is not None:
            self._respond(*own)
            return
        try:
            if self._client.secure and self._office.certificate is not None:
                auth.check_authority(self._request, self._office.certificate)
            if (self._request.framing.length or 0) > self._office.request_limit:
                raise self._too_large()
            route = self._route = self._find_route()
        except RelayError as error:
            self._refuse(error)
            return
        self._record.route, self._record.upstream = route.pattern, route.upstream.name
        self._client.proceed()
        self._watch(self._office.timing.total)
        self._find_connection()

    def _find_route(self) -> Route:
        route = self._office.router.match(self._request.path)
        if route is None:
            raise NotFound("no route for this path")
        if route.upstream.credential is not None:
            auth.check_origin(self._request, self._office.hosts)
        return route

    def _find_connection(self) -> None:
        """Ask on an idle connection at once; else wait for one in a task."""
        assert self._route is not None
        self._phase = _Phase.QUEUED
        fresh = self._record.attempts > 0
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
        except Exception as error:
            # A defect, or something of the system's: the client must not wait for ever because of it.
            self._task = None
            self._fail(UpstreamError("no connection to the provider could be had", repr(error)))
            return
        self._task = None
        if self._phase is _Phase.QUEUED:
            self._ask(connection)
        else:
            connection.cancel()

    def _ask(self, connection: Call) -> None:
        assert self._route is not None
        request, route = self._request, self._route
        self._phase = _Phase.ASKED
        self._connection = connection
        self._record.attempts += 1
        self._record.upstream_http = connection.http
        self._asked_at = self._office.wheel.now
        upstream = route.upstream
        fields = headers.to_upstream(
            request,
            authority=upstream.authority,
            request_id=self._record.request_id.encode(),
            credential=upstream.credential,
            identity=self._wants_identity(),
            client=self._client.peer.encode() if upstream.forwarded else None,
            forwarded=caller.forwarded(self._client.peer, request, self._office.trusted),
        )
        if request.framing.empty and not self.body.ended:
            self.body.end()
        self._watch(self._office.timing.head)
        connection.ask(request.method, route.target(request.target), fields, request.framing, self, self.body.reader)

    def _wants_identity(self) -> bool:
        """Whether the answer's events may have to be read: then the provider should not compress them."""
        accept = self._request.get(b"accept") or b""
        return not self._dialect.opaque or headers.EVENT_STREAM in accept.lower()

    # The provider has something to say

    def answered(self, head: ResponseHead) -> Receiver:
        self._receiver = self._prepare(head)
        return self._receiver

    def _prepare(self, head: ResponseHead) -> Receiver:
        assert self._connection is not None
        assert self._route is not None
        self.body.settle()
        self._request = self._request.bare()
        self._phase = _Phase.STREAMING
        self._answered_at = self._office.wheel.now
        self._record.status = head.status
        self._record.upstream_request_id = head.get(b"x-request-id") or head.get(b"request-id")
        event_stream = headers.is_event_stream(head) and self._request.method != b"HEAD"
        fields = headers.to_client(
            head,
            request_id=self._record.request_id.encode(),
            stream_id=self._record.stream_id.encode(),
            event_stream=event_stream,
            cookies=self._route.upstream.credential is None,
        )
        if event_stream:
            return self._begin_stream(head, fields, self._connection.gate)
        reader = Reader(ANSWER, self._connection.gate)
        length = head.framing.length
        if self._request.method == b"HEAD" or head.status == 304:
            # The length of what these do not send is a fact of its own.
            fields += [field for field in head.headers if field[0] == b"content-length"]
        transfer = self._transfer = Transfer(reader, self, self._office.wheel)
        bodiless = self._request.method == b"HEAD" or head.status in (204, 304)
        self._client.start(head.status, fields, length, reader, bodiless=bodiless)
        self._watch_answer()
        return transfer

    def _begin_stream(self, head: ResponseHead, fields: Headers, provider: Gate) -> Receiver:
        office = self._office
        decoder, failure = None, None
        try:
            decoder = inflater(head.get(b"content-encoding"), office.inflate_limit)
        except RemoteProtocolError as error:
            failure = UpstreamInvalid(f"the provider's answer is invalid: {error.message}")
        # What inflates stands between the reader and the provider, and is held in its place.
        gate = provider if decoder is None else Gate(None)
        reader = Reader(ANSWER, gate)
        stream = self._transfer = Stream(reader, self, office.wheel, self._dialect, office.event_limit)
        if failure is not None:
            self._give_up(failure)
            return stream
        self._client.start(head.status, fields, None, reader)
        if self._dialect.opaque:
            # Nobody knows how long its first event may take, and its reader may wait for the head.
            self._client.flush_head()
        self._watch_answer()
        if decoder is None:
            return stream
        return InflatedStream(stream, decoder, gate, provider, self._provider_parted, self._give_up)

    def unanswered(self, error: UpstreamError) -> None:
        self._connection = None
        if retry.may_repeat(error, self.body, self._record.attempts):
            self.body.rewind()
            self._find_connection()
        else:
            self._fail(error)

    def _provider_parted(self) -> None:
        """The provider has sent all; its connection may already serve another request."""
        self._connection = None

    def transfer_began(self) -> None:
        self._record.first_at = time.monotonic()

    def transfer_ended(self, error: RelayError | None) -> None:
        """Finish the client's side when it has taken what waits; or break it off so that it sees it."""
        transfer = self._transfer
        assert transfer is not None
        self._connection = None
        self.body.drop()
        if self._phase is not _Phase.STREAMING:
            return  # it has been given up before; an end is told once
        self._phase = _Phase.DELIVERING
        self._record.error = error
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
        if not isinstance(error, ClientGone):
            self._fail(error)
        else:
            self._release_provider()
            # Of an answer that was already being broken off, the first reason is the one.
            error = self._record.error = self._record.error or error
            if not self._client.head_sent or not self._record.status:
                self._record.status = error.status
            self._finish(error.reason)

    def drained(self) -> None:
        """The relay waits no longer."""
        self.stop(Drained("the relay is stopping"))

    def delivered(self) -> None:
        """The client's connection has sent the answer to its end, or broken it off."""
        if not self.done:
            error = self._record.error
            self._finish(error.reason if error is not None else CloseReason.FINISHED)

    def _overrun(self) -> None:
        self._fail(self._too_large())

    def _too_large(self) -> RelayError:
        return PayloadTooLarge(f"the body may have at most {self._office.request_limit} bytes")

    def _give_up(self, error: RelayError) -> None:
        """Cancel the provider and end the answer, as if the provider had broken off."""
        self._release_provider()
        receiver = self._receiver or self._transfer
        if receiver is None:
            self._refuse(error)
        else:
            receiver.fail(error)

    def _fail(self, error: RelayError) -> None:
        """Something failed on our side of the provider; whatever it was doing is cancelled."""
        if self.done:
            return
        self._record.error = error
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
        self._record.error = error
        fields: Headers = [(b"content-type", b"application/json")]
        if error.retry_after is not None:
            fields.append((b"retry-after", b"%d" % error.retry_after))
        if error.retryable:
            fields.append((b"x-should-retry", b"true"))
        self._respond(error.status, fields, self._dialect.error_body(error, self._record.request_id))

    def _respond(self, status: int, fields: Headers, body: bytes) -> None:
        self._record.status = status
        self.body.drop()
        self._client.respond(status, [*fields, (b"x-request-id", self._record.request_id.encode())], body)

    def _finish(self, reason: CloseReason) -> None:
        self._phase = _Phase.DONE
        self._office.wheel.forget(self)
        self._office.open.pop(self._record.stream_id, None)
        self.body.drop()
        transfer = self._transfer
        self._office.access.write(
            self._record.line(
                reason,
                bytes_in=self.body.bytes,
                bytes_out=transfer.bytes if transfer is not None else 0,
                events=transfer.events if isinstance(transfer, Stream) else 0,
            )
        )
        # Whoever still knows this exchange, it should not cost what it carried.
        self._request = self._request.bare()
        self._transfer = self._receiver = None

    # Time

    def _watch(self, after: float) -> None:
        if after:
            self._office.wheel.watch(self, self._office.wheel.now + after)

    def _watch_answer(self) -> None:
        """Look again when the first of an answer's deadlines may have come."""
        timing = self._office.timing
        self._watch(min(limit for limit in (timing.heartbeat, timing.first_event, timing.idle, SETTLE) if limit))

    def due(self, now: float) -> float:
        if self._phase in (_Phase.DELIVERING, _Phase.DONE):
            return 0
        total = self._office.timing.total
        left = self._record.started_at + total - time.monotonic()
        if total and left <= 0:
            self._fail(UpstreamTimeout(f"the exchange took longer than {total:g} s"))
            return 0
        when = 0.0
        if self._phase is _Phase.ASKED:
            when = self._due_asked(now)
        elif self._phase is _Phase.STREAMING:
            when = self._due_streaming(now)
        if total and not self.done:
            return min(when, now + left) if when else now + left
        return when

    def _due_asked(self, now: float) -> float:
        limit = self._office.timing.head
        since = self._asked_at
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
            transfer.active = self._answered_at = now
        limit = timing.idle if transfer.began else timing.first_event
        # Comments keep a stream alive, but are no first event.
        since = transfer.active if transfer.began else self._answered_at
        silent = now - transfer.active
        if limit and now - since >= limit:
            what = "was silent for" if transfer.began else "sent no event for"
            self._give_up(UpstreamTimeout(f"the provider {what} {limit:g} s"))
            return 0
        when = since + limit if limit else now + SETTLE
        if isinstance(transfer, Stream):
            if silent >= SETTLE and transfer.began and transfer.ending() is not Ending.OPEN:
                # The provider has said all, but not closed.
                self._give_up(UpstreamCut("the provider did not end its answer"))
                return 0
            when = min(when, now + min(timing.idle or SETTLE, SETTLE), self._beat(transfer, now))
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
