"""What a provider is asked once: route -> connect -> ask -> answered -> the stream, its readers, its end.

        ask ----> acquire ----> asked ----> answered ----> ended
                    |             |            |
                 429..504      unanswered:   cut, silent, cancelled: an error, told to every listener
                               repeat once
                               or 502, 504

One exchange may listen, or many, or for a while none: a generation that is resumable outlives its readers by a grace
period, and its log by the time it is kept. One that is not ends with the exchange that began it.

Only `acquire` waits, in a task that ends with it; everything else happens in the call that caused it.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from typing import Protocol

from relay.control import caller, retry
from relay.control.access import Line, Record
from relay.control.capture import Capture, Captured
from relay.control.office import Office
from relay.control.router import Route
from relay.core.fanout import Fanout
from relay.core.inflated import InflatedStream
from relay.core.log import EventLog
from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.core.stream import Stream
from relay.core.transfer import Receiver, Transfer
from relay.errors import (
    Cancelled,
    CloseReason,
    Orphaned,
    RelayError,
    RemoteProtocolError,
    UpstreamCut,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER
from relay.net.service import Call
from relay.wire import headers
from relay.wire.dialect import Dialect, Ending
from relay.wire.encoding import inflater
from relay.wire.head import Headers, RequestHead, ResponseHead

# How long a stream may be silent before its last event is looked at (seconds): one whose provider has sent the
# terminal event, but not closed, ends then.
SETTLE = 5.0


class State(enum.StrEnum):
    WAITING = "waiting"  # for a connection, or for the provider's answer
    STREAMING = "streaming"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDED = (State.FINISHED, State.FAILED, State.CANCELLED)


class Listener(Protocol):
    """An exchange whose answer this is."""

    @property
    def takes_body(self) -> bool:
        """Whether a plain answer may still be passed on to it."""

    def opened(self) -> None:
        """The provider has answered: `status`, `fields` and what follows them are known."""

    def ended(self, error: RelayError | None) -> None:
        """There will be no more of it. What waits has yet to be delivered."""


class Generation:
    """`peer`: the address of whoever asked; `owner`: whose it is. `resumable`: its events are kept, and it outlives its
    readers, by `grace` seconds. `logged`: its readers may lag in ways that only a log allows. After `opened`: `status`
    and `fields` of the answer, `length` in bytes where it has one, and either `reader`, for the one listener, or
    `fanout`, or `captured`, for any number."""

    __slots__ = (
        "_answered_at",
        "_asked_at",
        "_call",
        "_listeners",
        "_logged",
        "_office",
        "_orphaned_at",
        "_peer",
        "_receiver",
        "_request",
        "_started_at",
        "_task",
        "_transfer",
        "_until",
        "bodiless",
        "body",
        "captured",
        "dialect",
        "ended_at",
        "error",
        "fanout",
        "fields",
        "first_at",
        "grace",
        "last_disconnect",
        "length",
        "owner",
        "reader",
        "record",
        "resumable",
        "route",
        "state",
        "status",
        "stream_id",
        "tick",
    )

    def __init__(
        self,
        office: Office,
        request: RequestHead,
        record: Record,
        route: Route,
        body: RequestBody,
        dialect: Dialect,
        *,
        peer: str,
        owner: bytes,
        resumable: bool,
        logged: bool,
        grace: float,
    ) -> None:
        self.tick = 0
        self._office = office
        self._request = request
        self.record = record
        self.stream_id = record.stream_id
        self.route = route
        self.body = body
        self.dialect = dialect
        self._peer = peer
        self.owner = owner
        self.resumable = resumable
        self.grace = grace
        self._logged = logged or resumable
        self._listeners: dict[Listener, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._call: Call | None = None
        self._transfer: Transfer | None = None
        self._receiver: Receiver | None = None
        self._started_at = time.monotonic()
        self._until = 0.0
        self._asked_at = self._answered_at = self._orphaned_at = 0.0
        self.state = State.WAITING
        self.error: RelayError | None = None
        self.first_at = self.ended_at = 0.0
        self.last_disconnect: str | None = None
        self.status = 0
        self.fields: Headers = []
        self.length: int | None = None
        self.bodiless = False
        self.reader: Reader | None = None
        self.captured: Captured | None = None
        self.fanout: Fanout | None = self._make_fanout() if resumable else None
        office.hub.add(self)

    def __repr__(self) -> str:
        return f"<Generation {self.stream_id} {self.state}>"

    @property
    def log(self) -> EventLog | None:
        return self.fanout.log if self.fanout is not None and self.resumable else None

    @property
    def over(self) -> bool:
        return self.state in _ENDED

    @property
    def readers(self) -> int:
        return len(self._listeners)

    @property
    def events(self) -> int:
        if self.fanout is not None:
            return self.fanout.log.tail
        return self._transfer.events if isinstance(self._transfer, Stream) else 0

    @property
    def fed(self) -> int:
        return self._transfer.bytes if self._transfer is not None else 0

    @property
    def at_border(self) -> bool:
        """Whether something may be inserted between two events."""
        if self.fanout is not None:
            return True
        return isinstance(self._transfer, Stream) and self._transfer.at_border

    @property
    def spoke_at(self) -> float:
        """When readers had the last byte of it, by the clock."""
        if self.fanout is not None:
            return self.fanout.spoke
        return self._transfer.active if self._transfer is not None else self._answered_at

    @property
    def is_stream(self) -> bool:
        """Whether what it answers, or will answer, are events."""
        return self.fanout is not None or isinstance(self._transfer, Stream)

    # Listeners

    def listen(self, listener: Listener) -> None:
        self._orphaned_at = 0.0
        self._listeners[listener] = None

    def leave(self, listener: Listener, reason: CloseReason, *, known: bool) -> None:
        """A listener has gone. `known`: it may come back, because it knows what this is called."""
        if self._listeners.pop(listener, self) is self:
            return
        if reason is not CloseReason.FINISHED:
            self.last_disconnect = reason.value
        if self._listeners:
            return
        if self.over:
            return
        if not self.resumable or not self.grace or not (known or self.grace == math.inf):
            self.give_up(Orphaned("the reader has left"))
        else:
            self.expect()

    def visit(self) -> None:
        """Somebody asks how it goes: that counts as a reader who comes back."""
        if self._orphaned_at:
            self._orphaned_at = self._office.wheel.now

    def expect(self) -> None:
        """Nobody reads it, but somebody knows its name."""
        self._orphaned_at = self._office.wheel.now
        self._watch(self._orphan_left(self._orphaned_at))

    def _orphan_left(self, now: float) -> float:
        """Seconds that it may still be without a reader."""
        return self._orphaned_at + min(self.grace, self._office.retention.orphan) - now

    # Ask

    def start(self) -> None:
        """Ask on an idle connection at once; else wait for one in a task."""
        self._watch(self._office.timing.total)
        self._find_connection()

    def _find_connection(self) -> None:
        fresh = self.record.attempts > 0
        call = None if fresh else self.route.upstream.pool.take()
        if call is not None:
            self._ask(call)
        else:
            self._task = asyncio.get_running_loop().create_task(self._acquire(fresh))

    async def _acquire(self, fresh: bool) -> None:
        try:
            call = await self.route.upstream.pool.acquire(fresh=fresh)
        except RelayError as error:
            self._task = None
            self.give_up(error)
            return
        except Exception as error:
            # A defect, or something of the system's: the client must not wait for ever because of it.
            self._task = None
            self.give_up(UpstreamError("no connection to the provider could be had", repr(error)))
            return
        self._task = None
        if self.state is State.WAITING:
            self._ask(call)
        else:
            call.cancel()

    def _ask(self, call: Call) -> None:
        request, upstream = self._request, self.route.upstream
        self._call = call
        self.record.attempts += 1
        self.record.upstream_http = call.http
        self._asked_at = self._office.wheel.now
        fields = headers.to_upstream(
            request,
            authority=upstream.authority,
            request_id=self.record.request_id.encode(),
            credential=upstream.credential,
            identity=self._wants_identity(),
            client=self._peer.encode() if upstream.forwarded else None,
            forwarded=caller.forwarded(self._peer, request, self._office.trusted),
        )
        if request.framing.empty and not self.body.ended:
            self.body.end()
        self._watch(self._office.timing.head)
        call.ask(request.method, self.route.target(request.target), fields, request.framing, self, self.body.reader)

    def _wants_identity(self) -> bool:
        """Whether the answer's events may have to be read: then the provider should not compress them."""
        accept = self._request.get(b"accept") or b""
        return self._logged or not self.dialect.opaque or headers.EVENT_STREAM in accept.lower()

    # The provider has something to say

    def answered(self, head: ResponseHead) -> Receiver:
        assert self._call is not None
        request = self._request
        self.body.settle()
        self._request = request.bare()
        self.state = State.STREAMING
        self._answered_at = self._office.wheel.now
        self.status = self.record.status = head.status
        self.record.upstream_request_id = head.get(b"x-request-id") or head.get(b"request-id")
        event_stream = headers.is_event_stream(head) and request.method != b"HEAD"
        self.fields = headers.to_client(
            head,
            request_id=self.record.request_id.encode(),
            stream_id=self.stream_id.encode(),
            event_stream=event_stream,
            cookies=self.route.upstream.credential is None,
        )
        if event_stream:
            return self._begin_stream(head, self._call.gate)
        return self._begin_body(head, self._call.gate)

    def _begin_body(self, head: ResponseHead, gate: Gate) -> Receiver:
        listeners = list(self._listeners)
        if self.resumable and not (len(listeners) == 1 and listeners[0].takes_body):
            # Whoever waits for it, or comes later, gets it whole.
            self._receiver = Capture(self, self._captured)
            self._watch_answer()
            return self._receiver
        bare = self._request.method == b"HEAD"
        self.length = head.framing.length
        self.bodiless = bare or head.status in (204, 304)
        if bare or head.status == 304:
            # The length of what these do not send is a fact of its own.
            self.fields += [field for field in head.headers if field[0] == b"content-length"]
        self.fanout = None
        self.reader = Reader(ANSWER, gate)
        transfer = self._receiver = self._transfer = Transfer(self.reader, self, self._office.wheel)
        self._open()
        return transfer

    def _begin_stream(self, head: ResponseHead, provider: Gate) -> Receiver:
        office = self._office
        decoder, failure = None, None
        try:
            decoder = inflater(head.get(b"content-encoding"), office.inflate_limit)
        except RemoteProtocolError as error:
            failure = UpstreamInvalid(f"the provider's answer is invalid: {error.message}")
        if self._logged and self.fanout is None:
            self.fanout = self._make_fanout()
        # What inflates stands between the reader and the provider, and is held in its place.
        gate = provider if decoder is None else Gate(None)
        if self.fanout is not None:
            self.fanout.gate.source = provider if decoder is None else None
            gate = self.fanout.gate
        target = self.fanout or Reader(ANSWER, gate)
        self.reader = target if isinstance(target, Reader) else None
        stream = self._receiver = self._transfer = Stream(target, self, office.wheel, self.dialect, office.event_limit)
        if failure is not None:
            self.give_up(failure)
            return stream
        if decoder is not None:
            self._receiver = InflatedStream(stream, decoder, gate, provider, self._parted, self.give_up)
        self._open()
        return self._receiver

    def _make_fanout(self) -> Fanout:
        office = self._office
        limit = office.retention.stream if self.resumable else office.event_limit
        log = EventLog(limit, self._looked if self.resumable else None)
        return Fanout(
            self.stream_id,
            log,
            self.dialect,
            office.wheel,
            office.pulse,
            numbered=self.resumable,
            keeps=self.resumable,
            limit=office.event_limit,
            overlong=self._overlong,
        )

    def _looked(self) -> None:
        self._office.hub.looked(self)

    def _overlong(self) -> None:
        self.give_up(UpstreamInvalid(f"an event is longer than {self._office.event_limit} bytes and cannot be kept"))

    def _captured(self, body: bytes) -> None:
        self.captured = Captured(self.status, self.fields, body)
        self._open()

    def _open(self) -> None:
        self._watch_answer()
        for listener in list(self._listeners):
            listener.opened()

    def unanswered(self, error: UpstreamError) -> None:
        self._call = None
        if retry.may_repeat(error, self.body, self.record.attempts):
            self.body.rewind()
            self._find_connection()
        else:
            self.give_up(error)

    def _parted(self) -> None:
        """The provider has sent all; its connection may already serve another request."""
        self._call = None

    def transfer_began(self) -> None:
        self.first_at = time.monotonic()
        if isinstance(self._transfer, Stream):
            name = self.dialect.response_id(self._transfer.first)
            if name:
                self._office.hub.alias(("response", name), self)

    def transfer_ended(self, error: RelayError | None) -> None:
        self._call = None
        self._end(error)

    # Ends

    def give_up(self, error: RelayError) -> None:
        """Cancel the provider and end the answer, as if the provider had broken off."""
        if self.over:
            return
        self._release_provider()
        if self._receiver is None:
            self._end(error)
        else:
            # What has come may be the whole of it all the same.
            self._receiver.fail(error)

    def cancel(self) -> None:
        """Somebody wants no more of it. Whoever reads it is told; what has come can still be read."""
        self.give_up(Cancelled("the stream was cancelled"))

    def _release_provider(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self.body.drop()

    def _end(self, error: RelayError | None) -> None:
        if self.over:
            return  # it has been given up before; an end is told once
        self.body.drop()
        self.error = error
        refused = self.captured is not None and self.captured.status >= 400
        self.state = State.FINISHED if error is None and not refused else State.FAILED
        if isinstance(error, Cancelled):
            self.state = State.CANCELLED
        self.ended_at = self._office.wheel.now
        orphan = not self._listeners
        for listener in list(self._listeners):
            listener.ended(error)
        if self.fanout is not None:
            self.fanout.wake()
        self._receiver = None
        self._request = self._request.bare()
        self._keep(orphan)

    def _keep(self, orphan: bool) -> None:
        """What is left of it after its end: one that ended unread stays longer."""
        office = self._office
        office.wheel.forget(self)
        office.ended.note(self)
        if self.resumable and (self.fanout is not None or self.captured is not None):
            office.access.write(self._line())
            retention = office.retention
            self._until = self.ended_at + (max(retention.orphan, retention.finished) if orphan else retention.finished)
            office.hub.finished(self)
            office.wheel.watch(self, self._until)
        else:
            office.hub.remove(self)

    def _line(self) -> Line:
        return {
            "request_id": self.record.request_id,
            "stream_id": self.stream_id,
            "generation": self.state.value,
            "route": self.record.route,
            "upstream": self.record.upstream,
            "upstream_http": self.record.upstream_http,
            "attempts": self.record.attempts,
            "status": self.status,
            "dialect": self.dialect.name,
            "bytes": self.fed,
            "events": self.events,
            "duration_ms": round((time.monotonic() - self._started_at) * 1000, 3),
            "reason": (self.error.reason if self.error is not None else CloseReason.FINISHED).value,
            **({"error": self.error.code} if self.error is not None else {}),
        }

    def error_event(self) -> bytes:
        """What a reader of events is told where they break off, in its dialect; the provider's own error is enough."""
        stream, error = self._transfer, self.error
        if error is None or not self.is_stream:
            return b""
        if not isinstance(stream, Stream):
            return self.dialect.error_event(error, b"", b"")
        if not stream.at_border or stream.ending() is Ending.ERROR:
            return b""
        return self.dialect.error_event(error, stream.first, stream.last)

    # Time

    def _watch(self, after: float) -> None:
        if after:
            self._office.wheel.watch(self, self._office.wheel.now + after)

    def _watch_answer(self) -> None:
        """Look again when the first of an answer's deadlines may have come."""
        timing = self._office.timing
        self._watch(min(limit for limit in (timing.first_event, timing.idle, SETTLE) if limit))

    def due(self, now: float) -> float:
        if self.over:
            if now >= self._until:
                self._office.hub.remove(self)
                return 0
            return self._until
        looks = (self._due_total(now), self._due_orphan(now), self._due_asked(now), self._due_streaming(now))
        return 0 if self.over else min((when for when in looks if when), default=0)

    def _due_total(self, now: float) -> float:
        total = self._office.timing.total
        if not total:
            return 0
        left = self._started_at + total - time.monotonic()
        if left <= 0:
            self.give_up(UpstreamTimeout(f"the exchange took longer than {total:g} s"))
        return now + left

    def _due_orphan(self, now: float) -> float:
        if not self._orphaned_at:
            return 0
        left = self._orphan_left(now)
        if left <= 0:
            self.give_up(Orphaned("nobody has come back to read the stream"))
        return now + left

    def _due_asked(self, now: float) -> float:
        limit = self._office.timing.head
        if not limit or self.state is not State.WAITING or self._call is None:
            return 0
        since = self._asked_at
        if not self._request.framing.empty:
            # The client may take its time with the body; it has a limit of its own.
            since = max(since, self.body.active) if self.body.ended else now
        if now - since >= limit:
            self.give_up(UpstreamTimeout(f"the provider did not begin its answer in {limit:g} s"))
        return since + limit

    def _due_streaming(self, now: float) -> float:
        transfer, call = self._transfer, self._call
        if transfer is None or call is None or self.state is not State.STREAMING:
            return 0
        timing = self._office.timing
        if call.gate.closed:
            # The provider is held because the client does not read: the silence is not the provider's.
            transfer.active = self._answered_at = now
        limit = timing.idle if transfer.began else timing.first_event
        # Comments keep a stream alive, but are no first event.
        since = transfer.active if transfer.began else self._answered_at
        if limit and now - since >= limit:
            what = "was silent for" if transfer.began else "sent no event for"
            self.give_up(UpstreamTimeout(f"the provider {what} {limit:g} s"))
            return 0
        when = since + limit if limit else now + SETTLE
        if isinstance(transfer, Stream):
            if now - transfer.active >= SETTLE and transfer.began and transfer.ending() is not Ending.OPEN:
                # The provider has said all, but not closed.
                self.give_up(UpstreamCut("the provider did not end its answer"))
                return 0
            when = min(when, now + min(timing.idle or SETTLE, SETTLE))
        return when
