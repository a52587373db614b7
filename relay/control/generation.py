"""What a provider is asked once, and what comes of it: the answer, its end, what is kept of it.

        asking ----> answered ----> ended
          |             |
        429..504     cut, silent, cancelled: an error, told to every listener

One exchange may listen, or many, or for a while none: a generation that is resumable outlives its readers by a grace
period, and its log by the time it is kept. One that is not ends with the exchange that began it.
"""

from __future__ import annotations

import sys
import time

from relay.control.access import Record
from relay.control.asking import Asking
from relay.control.audience import Audience, Listener
from relay.control.capture import Capture, Captured
from relay.control.office import Office
from relay.control.patience import Patience
from relay.control.router import Route
from relay.control.state import State
from relay.control.wishes import Wishes
from relay.core.fanout import Fanout
from relay.core.inflated import InflatedStream
from relay.core.log import EventLog
from relay.core.logged import LoggedStream
from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.core.stream import Stream
from relay.core.transfer import Receiver, Transfer
from relay.errors import (
    Cancelled,
    CloseReason,
    RelayError,
    RemoteProtocolError,
    UpstreamInvalid,
)
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER, LAG_BYTES
from relay.wire import headers
from relay.wire.dialect import Dialect, Ending
from relay.wire.encoding import inflater
from relay.wire.head import NO_FIELDS, Headers, RequestHead, ResponseHead

_ENDED = (State.FINISHED, State.FAILED, State.CANCELLED)


class Generation(Audience):
    """`peer`: the address of whoever asked; `owner`: whose it is. `resumable`: its events are kept, and it outlives its
    readers, by `grace` seconds. `wishes`: of readers that say nothing themselves. `logged`: its readers may lag in ways
    that only a log allows. `whole`: no event may be passed on in pieces. After `opened`: `status` and `fields` of the
    answer, `length` in bytes where it has one, and either `reader`, for its one `taker`, or `fanout`, or `captured`,
    for any number."""

    __slots__ = (
        "_asking",
        "_fields",
        "_logged",
        "_patience",
        "_receiver",
        "_transfer",
        "_until",
        "_whole",
        "bodiless",
        "body",
        "captured",
        "dialect",
        "ended_at",
        "error",
        "fanout",
        "first_at",
        "length",
        "owner",
        "reader",
        "record",
        "resumable",
        "route",
        "state",
        "status",
        "stream_id",
        "taker",
        "tick",
        "wishes",
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
        whole: bool,
        grace: float,
        wishes: Wishes,
    ) -> None:
        super().__init__(office, grace)
        self.tick = 0
        self.record = record
        self.stream_id = record.stream_id
        self.route = route
        self.body = body
        self.dialect = dialect
        self.owner = owner
        self.resumable = resumable
        identity = not dialect.opaque or logged or resumable
        self._asking = Asking(office, request, record, route, body, self, peer=peer, identity=identity)
        self._patience = Patience(office.timing, record.started_at)
        self.wishes = wishes
        self._logged = logged or resumable
        self._whole = whole
        self._transfer: Transfer | None = None
        self._receiver: Receiver | None = None
        self._until = 0.0
        self.state = State.WAITING
        self.error: RelayError | None = None
        self.first_at = self.ended_at = 0.0
        self.status = 0
        self._fields: Headers | bytes = NO_FIELDS
        self.length: int | None = None
        self.bodiless = False
        self.reader: Reader | None = None
        self.taker: Listener | None = None
        self.captured: Captured | None = None
        self.fanout: Fanout | None = self._make_fanout() if resumable else None
        office.hub.add(self)

    def __repr__(self) -> str:
        return f"<Generation {self.stream_id} {self.state}>"

    @property
    def log(self) -> EventLog | None:
        return self.fanout.log if self.fanout is not None and self.resumable else None

    @property
    def weight(self) -> int:
        captured = len(self.captured.body) if self.captured is not None else 0
        return captured + (self.log.kept if self.log is not None else 0)

    def forget(self, *, all_of_it: bool) -> None:
        log = self.log
        if log is None:
            return
        log.forget(log.tail if all_of_it else log.quarter(LAG_BYTES))

    @property
    def over(self) -> bool:
        return self.state in _ENDED

    @property
    def outlives(self) -> bool:
        """Nothing is kept of what is being passed on as it comes."""
        passing = self.state is State.STREAMING and self.fanout is None and self.captured is None
        return self.resumable and not passing

    @property
    def events(self) -> int:
        if self.fanout is not None:
            return self.fanout.log.tail
        return self._transfer.events if isinstance(self._transfer, Stream) else 0

    @property
    def fed(self) -> int:
        if self.fanout is not None:
            return self.fanout.log.total
        return self._transfer.bytes if self._transfer is not None else 0

    @property
    def at_border(self) -> bool:
        """Whether something may be inserted between two events."""
        if self.fanout is not None and self.resumable:
            return True  # its readers get whole events only
        return isinstance(self._transfer, Stream) and self._transfer.at_border

    @property
    def spoke_at(self) -> float:
        """When readers had the last byte of it, by the clock."""
        transfer = self._transfer
        if isinstance(transfer, LoggedStream):
            return transfer.spoke
        return transfer.active if transfer is not None else self._patience.answered_at

    @property
    def is_stream(self) -> bool:
        """Whether what it answers, or will answer, are events."""
        return self.fanout is not None or isinstance(self._transfer, Stream)

    # Ask

    def start(self) -> None:
        self._watch(self._office.timing.total)
        self._asking.start()

    def asked(self) -> None:
        """The request is on its way."""
        self._watch(self._office.timing.head)

    # The provider has something to say

    def answered(self, head: ResponseHead) -> Receiver:
        gate = self._asking.gate
        assert gate is not None
        request = self._asking.request
        self.body.settle()
        self._asking.settle()
        self.state = State.STREAMING
        self._patience.answered_at = self._office.wheel.now
        self.status = self.record.status = head.status
        self.record.upstream_request_id = head.get(b"x-request-id") or head.get(b"request-id")
        event_stream = headers.is_event_stream(head) and request.method != b"HEAD"
        self._fields = headers.to_client(
            head,
            request_id=self.record.request_id.encode(),
            stream_id=self.stream_id.encode(),
            event_stream=event_stream,
            cookies=self.route.upstream.credential is None,
        )
        if event_stream:
            return self._begin_stream(head, gate)
        return self._begin_body(head, gate)

    def _begin_body(self, head: ResponseHead, gate: Gate) -> Receiver:
        listeners = self._listeners
        if self.resumable and not (len(listeners) == 1 and listeners[0].takes_body):
            # Whoever waits for it, or comes later, gets it whole.
            self._receiver = Capture(self, self._captured, self._office.wheel)
            self._watch_answer()
            return self._receiver
        bare = self._asking.request.method == b"HEAD"
        self.length = head.framing.length
        self.bodiless = bare or head.status in (204, 304)
        if bare or head.status == 304:
            # The length of what these do not send is a fact of its own.
            self._fields = self.fields + [field for field in head.headers if field[0] == b"content-length"]
        self.fanout = None
        self.taker = listeners[0] if listeners else None
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
        self.taker = self._listeners[0] if self._listeners and self.reader is not None else None
        made = (self, office.wheel, self.dialect, self._event_limit)
        stream = LoggedStream(self.fanout, *made) if self.fanout is not None else Stream(target, *made)
        self._receiver = self._transfer = stream
        if self.resumable or self._whole:
            stream.overlong = self._overlong
        if failure is not None:
            self.give_up(failure)
            return stream
        if decoder is not None:
            self._receiver = InflatedStream(stream, decoder, gate, provider, self._asking.parted, self.give_up)
        self._open()
        return self._receiver

    def _make_fanout(self) -> Fanout:
        office = self._office
        retention = office.retention
        # Where nothing is kept, the log has what readers lack, and they are bounded themselves.
        log = EventLog(retention.stream, self) if self.resumable else EventLog(sys.maxsize)
        return Fanout(
            self.stream_id,
            log,
            self.dialect,
            office.wheel,
            office.pulse,
            numbered=self.resumable,
            keeps=self.resumable,
        )

    def looked(self) -> None:
        """The log has grown: somebody minds the sum over all logs."""
        self._office.hub.looked(self)

    def _overlong(self) -> None:
        self.give_up(UpstreamInvalid(f"an event is longer than {self._event_limit} bytes and cannot be kept"))

    @property
    def _event_limit(self) -> int:
        """The longest event that is held until it is whole, in bytes: one that is kept may fill its log, as an image in
        an answer does; any other can be passed on in pieces."""
        office = self._office
        return max(office.event_limit, office.retention.stream) if self.resumable else office.event_limit

    def _captured(self, body: bytes) -> None:
        self.captured = Captured(self.status, self.fields, body)

    def _open(self) -> None:
        self._watch_answer()
        for listener in self._listeners:
            listener.opened()
        # Nobody else will be told them where nothing can be resumed.
        self._fields = headers.packed(self.fields) if self.resumable and self.fanout is not None else NO_FIELDS

    @property
    def fields(self) -> Headers:
        """Of the answer, as clients get it."""
        return headers.unpacked(self._fields) if isinstance(self._fields, bytes) else self._fields

    def transfer_began(self) -> None:
        self.first_at = time.monotonic()
        if isinstance(self._transfer, Stream):
            name = self.dialect.response_id(self._transfer.first)
            if name:
                self._office.hub.alias(("response", name), self)

    def transfer_ended(self, error: RelayError | None) -> None:
        self._asking.parted()
        self._end(error)

    # Ends

    def give_up(self, error: RelayError) -> None:
        """Cancel the provider and end the answer, as if the provider had broken off."""
        if self.over:
            return
        self._asking.cancel()
        self.body.drop()
        if self._receiver is None:
            self._end(error)
        else:
            # What has come may be the whole of it all the same.
            self._receiver.fail(error)

    def cancel(self) -> None:
        """Somebody wants no more of it. Whoever reads it is told; what has come can still be read."""
        self.give_up(Cancelled("the stream was cancelled"))

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
        self._office.orphans.pop(self, None)
        orphan = not self._listeners
        for listener in self._listeners:
            if self.captured is not None:
                listener.opened()
            listener.ended(error)
        if self.fanout is not None:
            self.fanout.wake()
        self._receiver = None
        self._keep(orphan)

    def _keep(self, orphan: bool) -> None:
        """What is left of it after its end: one that ended unread stays longer."""
        office = self._office
        office.wheel.forget(self)
        office.ended.note(self)
        # Of one that failed before anything came, its own request was told; others may have been told its name.
        told = self.events or self.state is not State.FAILED or self.wishes.respond_async
        readable = self.fanout is not None and told
        if self.resumable and (readable or self.captured is not None):
            reason = self.error.reason if self.error is not None else CloseReason.FINISHED
            office.access.write(
                self.record.end_line(
                    reason,
                    self.error,
                    generation=self.state.value,
                    status=self.status,
                    bytes_out=self.fed,
                    events=self.events,
                )
            )
            retention = office.retention
            self._until = self.ended_at + (max(retention.orphan, retention.finished) if orphan else retention.finished)
            office.wheel.watch(self, self._until)
            office.hub.finished(self)  # which may let it go at once
        else:
            office.hub.remove(self)

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

    def removed(self) -> None:
        """The hub has let it go: once it is over, only its readers hold what they still need of it. The rest is let go
        here and now; the collector, which would find its circles, does not know how large they are."""
        if self.over:
            self._office.wheel.forget(self)
            self.captured = None
            if self.fanout is not None:
                self.fanout = self._transfer = None

    # Time

    def _watch(self, after: float) -> None:
        if after:
            self._office.wheel.watch(self, self._office.wheel.now + after)

    def _watch_answer(self) -> None:
        """Look again when the first of an answer's deadlines may have come."""
        self._watch(self._patience.first_look)

    def due(self, now: float) -> float:
        if self.over:
            if now >= self._until:
                self._office.hub.remove(self)
                return 0
            return self._until
        receiver = self._receiver
        error, when = self._patience.look(
            now, self._asking, receiver if isinstance(receiver, Capture) else self._transfer
        )
        if error is not None:
            self.give_up(error)
            return 0
        orphan = self._due_orphan(now)
        return 0 if self.over else min((at for at in (when, orphan) if at), default=0)
