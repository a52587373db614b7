"""One request and its answer, as its client sees it: admit -> errand -> listen -> deliver.

        start ----> own answer           health, the page, the state of a stream, a refusal
              ----> join, or poll        a stream that is known already
              ----> a generation         which asks a provider, and may outlive this exchange

A generation tells its exchanges when it has opened and when it has ended; between the two, bytes flow from it to the
client's connection without this. The answer's head is committed with its first byte, so that whatever fails before
still gets a real status. What happens later can only be told by an abort: no answer that is not whole ever ends
cleanly.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial

from relay.control import auth, caller, health, page, refusal, streams, wishes
from relay.control.access import Record
from relay.control.generation import Generation
from relay.control.office import Office
from relay.control.polling import Polling
from relay.control.silence import Silence
from relay.control.state import State
from relay.control.streams import Join, Poll, Reply
from relay.control.tokens import token
from relay.core.follower import Follower
from relay.core.reader import Reader
from relay.core.request import RequestBody
from relay.errors import (
    ClientBehind,
    ClientGone,
    ClientLeft,
    CloseReason,
    Drained,
    NotFound,
    NotKept,
    PayloadTooLarge,
    RelayError,
    UpstreamReported,
)
from relay.flow import overflow
from relay.flow.overflow import Lag, Mode
from relay.net.service import Client
from relay.wire import dialect, headers
from relay.wire.head import Headers, RequestHead


class _Phase(enum.Enum):
    NEW = enum.auto()
    WAITING = enum.auto()  # for the rest of the request, for the provider, or for an event
    STREAMING = enum.auto()
    DELIVERING = enum.auto()
    DONE = enum.auto()


class Exchange:
    """`done`: nothing more will happen. An exchange is a generation's listener, and what the client's connection knows
    of the request."""

    __slots__ = (
        "_after",
        "_client",
        "_generation",
        "_lent",
        "_office",
        "_phase",
        "_polling",
        "_reader",
        "_record",
        "_request",
        "_silence",
        "_wishes",
        "body",
        "tick",
    )

    def __init__(self, office: Office, request: RequestHead, client: Client) -> None:
        self.tick = 0
        self._office = office
        self._request = request
        self._client = client
        self._phase = _Phase.NEW
        self._record = Record(
            request,
            caller.client_address(client.peer, request, office.trusted),
            caller.request_id(request),
            token(16),
            dialect.of(request.path).name,
        )
        self._wishes = wishes.NOTHING
        self._polling: Polling | None = None
        self._generation: Generation | None = None
        self._reader: Reader | None = None
        self._after = 0
        self._lent = False  # the body is the generation's
        self._silence = Silence(office.timing, office.wheel.now)
        self.body = RequestBody(
            client.gate, office.wheel, limit=office.request_limit, keep=office.replay_limit, overrun=self._overrun
        )
        if request.get(b"idempotency-key") is not None:
            self.body.digest()
        office.open[self] = None

    def __repr__(self) -> str:
        return f"<Exchange {self._record.request_id} {self._phase.name.lower()}>"

    @property
    def done(self) -> bool:
        return self._phase is _Phase.DONE

    # Admit

    def start(self) -> None:
        """The head was read; the body may still be coming."""
        office, request = self._office, self._request
        own = health.answer(request, draining=office.draining)
        if own is None and office.page:
            own = page.answer(request)
        if own is not None:
            self._respond(*own)
            return
        try:
            if self._client.secure and office.certificate is not None:
                auth.check_authority(request, office.certificate)
            if (request.framing.length or 0) > office.request_limit:
                raise self._too_large()
            self._wishes = wishes.read(request)
            self._silence.placeholder = self._wishes.placeholder
            errand = streams.errand(office, request, self._wishes)
            if errand is None:
                self._generate()
            elif isinstance(errand, Reply):
                self._respond(*errand)
            else:
                self._phase = _Phase.WAITING
                self._await_body(partial(self._run, errand))
        except RelayError as error:
            self._refuse(error)

    def _await_body(self, then: Callable[[], None]) -> None:
        """Do this when the request is whole: its body matters, but only as a whole."""
        if self._request.framing.empty:
            self.body.end()
            then()
        else:
            self.body.skim(then)
            self._client.proceed()

    # A generation of its own

    def _generate(self) -> None:
        office, request, said = self._office, self._request, self._wishes
        route = office.router.match(request.path)
        if route is None:
            raise NotFound("no route for this path")
        if route.upstream.credential is not None:
            auth.check_origin(request, office.hosts)
        self._record.route, self._record.upstream = route.pattern, route.upstream.name
        resumable = streams.will_be_kept(office, route, said)
        mode = said.overflow or route.overflow
        generation = self._generation = Generation(
            office,
            request,
            self._record,
            route,
            self.body,
            dialect.of(request.path),
            peer=self._client.peer,
            owner=caller.owner(request),
            resumable=resumable,
            logged=mode not in (None, Mode.PAUSE) or not (said.flush or route.flush).at_once,
            whole=mode is Mode.DROP,
            grace=office.retention.grace if said.grace is None else said.grace,
            # Who reads it there may be an EventSource, which cannot say what it wants.
            wishes=said if said.respond_async else wishes.NOTHING,
        )
        self._lent = True
        self._phase = _Phase.WAITING
        if resumable and said.key is not None:
            office.hub.alias(streams.key_name(request, said.key), generation)
        if resumable and said.respond_async:
            self.body.then(self._accepted)
        else:
            generation.listen(self)
        self._client.proceed()
        generation.start()

    def _accepted(self) -> None:
        """The request is whole, and its answer will be read elsewhere."""
        generation, self._generation = self._generation, None
        assert generation is not None
        if self._phase is _Phase.WAITING:
            generation.expect()
            self._respond(*streams.accepted(generation))

    # One that is known

    def _run(self, errand: Join | Poll) -> None:
        if self._phase is _Phase.WAITING:
            try:
                self._visit(errand)
            except RelayError as error:
                self._refuse(error)

    def _visit(self, errand: Join | Poll) -> None:
        generation = errand.generation
        self._record.stream_id = generation.stream_id
        self._record.dialect = generation.dialect.name
        if isinstance(errand, Poll):
            self._polling = Polling(self._office, errand, lambda reply: self._respond(*reply), self._refuse)
            self._polling.start()
            return
        said = self._wishes
        streams.check_join(self._office, errand, said, self.body)
        if said.respond_async and not errand.native:
            generation.visit()
            self._respond(*streams.accepted(generation))
            return
        if said.grace is not None:
            generation.grace = said.grace
        self._generation = generation
        self._after = errand.after
        self._silence.placeholder = said.placeholder or generation.wishes.placeholder
        generation.listen(self)
        if errand.native or generation.state is not State.WAITING:
            self.opened()

    # The generation tells

    @property
    def takes_body(self) -> bool:
        """Whether a plain answer may still be passed on to it."""
        return self._phase is _Phase.WAITING

    def opened(self) -> None:
        generation, client = self._generation, self._client
        assert generation is not None
        if generation.captured is not None:
            self._answer_whole(*generation.captured)
            return
        if self._phase is not _Phase.WAITING:
            return  # it has begun already, in the stream's own name
        if generation.fanout is None and generation.taker is not self:
            self._refuse(NotKept("nothing is kept of this answer: it is no event stream"))
            return
        self._phase = _Phase.STREAMING
        self._request = self._request.bare()
        self._record.status = generation.status or 200
        if generation.fanout is not None:
            self._follow(generation)
        else:
            assert generation.reader is not None
            self._reader = generation.reader
            client.start(
                generation.status,
                generation.fields,
                generation.length,
                generation.reader,
                bodiless=generation.bodiless,
            )
        begun = generation.events and not self._lent
        if (begun or generation.dialect.opaque) and generation.is_stream and self._phase is _Phase.STREAMING:
            # Nobody knows how long its first event, or its next, may take, and its reader may wait for the head.
            client.flush_head()
        wheel = self._office.wheel
        if when := self.due(wheel.now):
            wheel.watch(self, when)

    def _follow(self, generation: Generation) -> None:
        """Read its log, from where this client is."""
        fanout, said = generation.fanout, self._wishes
        assert fanout is not None
        after = fanout.log.tail if self._after == streams.LATEST else self._after
        flush = said.flush or generation.wishes.flush or generation.route.flush
        follower = self._reader = Follower(fanout, after, self._lag(generation), self._fell_behind, flush)
        own = (b"x-request-id", self._record.request_id.encode())
        fields = self._own(generation.fields) or [*headers.of_stream(generation.stream_id.encode()), own]
        if generation.last_disconnect is not None:
            fields = [*fields, (b"relay-last-disconnect", generation.last_disconnect.encode())]
        self._client.start(generation.status or 200, fields, None, follower)
        if generation.over:
            self.ended(generation.error)

    def _lag(self, generation: Generation) -> Lag:
        fanout = generation.fanout
        return overflow.chosen(
            self._wishes.overflow or generation.wishes.overflow or generation.route.overflow,
            kept=generation.resumable,
            first=self._lent,
            merges=fanout is not None and fanout.read_delta is not None,
        )

    def _fell_behind(self, error: RelayError) -> None:
        self.stop(error)
        self._client.cut()

    def _answer_whole(self, status: int, fields: Headers, body: bytes) -> None:
        """The provider's answer was no stream after all."""
        reader = self._reader
        if self._phase not in (_Phase.WAITING, _Phase.STREAMING):
            return
        self._phase = _Phase.DELIVERING
        if reader is not None and self._client.head_sent:
            # A heartbeat has gone: what was promised is a stream.
            error = self._record.error = UpstreamReported(f"the provider answered with status {status}")
            assert self._generation is not None
            reader.abort(self._generation.dialect.error_event(error, b"", b""))
            return
        if reader is not None:
            reader.detach()
        self._record.status = status
        named = any(name == b"x-request-id" for name, _ in fields)
        own = [] if named else [(b"x-request-id", self._record.request_id.encode())]
        self._client.respond(status, [*self._own(fields), *own], body)

    def _own(self, fields: Headers) -> Headers:
        return fields if self._lent else headers.for_others(fields)

    def ended(self, error: RelayError | None) -> None:
        """Finish the client's side when it has taken what waits; or break it off so that it sees it."""
        generation, reader = self._generation, self._reader
        if self._phase is _Phase.WAITING and error is not None:
            self._refuse(error)
        if self._phase is not _Phase.STREAMING:
            return
        assert generation is not None
        assert reader is not None
        self._phase = _Phase.DELIVERING
        self._record.error = error
        if error is None:
            reader.finish()
        elif self._client.head_sent or reader.waiting:
            reader.abort(generation.error_event())
        else:
            reader.detach()
            self._refuse(error)

    # Ends

    def stop(self, error: RelayError) -> None:
        """The client left, stalled, or broke the protocol; or the relay stops."""
        if self.done:
            return
        if not isinstance(error, ClientGone):
            self._fail(error)
            return
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

    def _fail(self, error: RelayError) -> None:
        """Something failed on the client's side of the generation, or on ours."""
        if self.done:
            return
        self._record.error = error
        if self._phase is _Phase.DELIVERING:
            self._client.abort()
        elif self._generation is not None:
            self._generation.give_up(error)
            if self._phase is _Phase.WAITING:
                # It does not listen: it would have answered when the request was whole.
                self._generation = None
                self._refuse(error)
        else:
            self._refuse(error)

    def _refuse(self, error: RelayError) -> None:
        """Answer with the error: nothing of an answer has left yet."""
        self._record.error = error
        self._respond(*refusal.answer(error, dialect.of(self._request.path), self._record.request_id))

    def _respond(self, status: int, fields: Headers, body: bytes) -> None:
        self._phase = _Phase.DELIVERING
        if self._polling is not None:
            self._polling.stop()  # it has its answer, whichever
        self._record.status = status
        if self._generation is None and not self._lent:
            self.body.drop()
        self._client.respond(status, [*fields, (b"x-request-id", self._record.request_id.encode())], body)

    def _finish(self, reason: CloseReason) -> None:
        self._phase = _Phase.DONE
        office, generation, reader = self._office, self._generation, self._reader
        office.wheel.forget(self)
        office.open.pop(self, None)
        follower = reader if isinstance(reader, Follower) else None
        bytes_out = events = 0
        if follower is not None:
            bytes_out, events = follower.given, follower.delivered
        elif generation is not None:
            bytes_out, events = generation.fed, generation.events
        if generation is not None:
            self._record.first_at = generation.first_at
        line = self._record.line(reason, bytes_in=self.body.bytes, bytes_out=bytes_out, events=events)
        if follower is not None:
            line["merged"], line["dropped"] = follower.merged, follower.dropped
            follower.detach()
        office.access.write(line)
        if self._polling is not None:
            self._polling.stop()
        if generation is not None:
            known = self._client.head_sent or self._wishes.key is not None
            if self._lent and not self.body.ended and not generation.over:
                generation.give_up(self._record.error or ClientLeft("the request was not sent to its end"))
            generation.leave(self, reason, known=known)
        elif not self._lent:
            self.body.drop()
        self.body.part()
        # Whoever still knows this exchange, it should not cost what it carried.
        self._request = self._request.bare()
        self._polling = self._generation = self._reader = None

    # Time

    def due(self, now: float) -> float:
        """Look at what time may ask for, and say when to look again."""
        generation, reader = self._generation, self._reader
        if self._phase is not _Phase.STREAMING or generation is None or not generation.is_stream:
            return 0
        late_at = 0.0
        if isinstance(reader, Follower):
            late_at = reader.late_at(now)
            if late_at and now >= late_at:
                self._fell_behind(ClientBehind("the reader fell too far behind the stream"))
                return 0
        when = self._silence.look(now, generation, self._client)
        return min(when, late_at) if when and late_at else when or late_at
