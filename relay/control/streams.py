"""The streams that the relay knows, as its own resources: read again, asked after, cancelled, from any connection.

    GET    /v1/streams                   those of this caller
    GET    /v1/streams/{id}              its events, from Last-Event-ID or ?last_event_id= on, then live
           Accept: application/json      its state; with ?after=N, or &wait=20s, the events behind N (long polling)
    DELETE /v1/streams/{id}              cancel; the same as POST /v1/streams/{id}/cancel
    GET    /v1/responses/{id}?stream=true&starting_after=N
    POST   /v1/responses/{id}/cancel     the same by a provider's own name, as OpenAI's SDKs ask
    POST   anything                      with Last-Event-ID of a stream, or an Idempotency-Key that began one

An id is 128 random bits, and whoever has it may read its stream: a browser's own EventSource can send nothing else. But
who sends a credential sends the one that the stream was begun with, and a list is for those alone who send one.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

import orjson

from relay.control import auth, caller
from relay.control.router import Resumable, Route
from relay.control.state import State, describe
from relay.control.wishes import Wishes
from relay.errors import (
    AheadOfTail,
    BadRequest,
    EventsGone,
    KeyReused,
    MethodNotAllowed,
    NotFound,
    NotKept,
    Orphaned,
    RequestPending,
    StreamFailed,
    TooManyOrphans,
)
from relay.wire import headers, sse
from relay.wire.head import Headers, RequestHead

if TYPE_CHECKING:
    from relay.control.generation import Generation
    from relay.control.office import Office
    from relay.core.request import RequestBody

JSON: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
LATEST = -1
# A long poll waits for so many seconds at the most, and gets so many events (and bytes of them) at once.
_WAIT_MOST = 60.0
_POLL_EVENTS = 1000
_POLL_BYTES = 64 * 1024
_LIST_MOST = 1000
_ROOT = b"/v1/streams"
_STREAM = re.compile(rb"/v1/streams/([A-Za-z0-9_-]{22})(/cancel)?")
_RESPONSE = re.compile(rb".*/v1/responses/(resp_[A-Za-z0-9_-]{1,128})(/cancel)?")
_EVENT_ID = re.compile(r"([A-Za-z0-9_-]{22})-([0-9]{1,15})")


class Reply(NamedTuple):
    """An answer that is known at once."""

    status: int
    fields: Headers
    body: bytes


class Join(NamedTuple):
    """Read this stream, from behind event `after` on. `native`: by its own name, so that its head is the relay's."""

    generation: Generation
    after: int
    native: bool


class Poll(NamedTuple):
    """Answer when there is an event behind `after`, or after `wait` seconds."""

    generation: Generation
    after: int
    wait: float


Errand = Reply | Join | Poll


def errand(office: Office, request: RequestHead, wishes: Wishes) -> Errand | None:
    """What a request wants of a stream that is known; None where it is for a provider. Raises RelayError."""
    path = request.path
    if path == _ROOT or path.startswith(_ROOT + b"/"):
        auth.check_origin(request, office.hosts)
        return _resource(office, request, wishes)
    found = _RESPONSE.fullmatch(path)
    if found is not None:
        return _response(office, request, found[1].decode(), cancel=bool(found[2]))
    if request.method == b"POST":
        return _again(office, request, wishes)
    return None


def _resource(office: Office, request: RequestHead, wishes: Wishes) -> Errand:
    if request.path == _ROOT:
        _allow(request, b"GET")
        return _list(office, request)
    found = _STREAM.fullmatch(request.path)
    if found is None:
        raise NotFound("there is no such stream")
    stream_id = found[1].decode()
    if found[2] or request.method == b"DELETE":
        _allow(request, b"POST" if found[2] else b"DELETE")
        return _cancel(office, request, stream_id)
    _allow(request, b"GET", b"DELETE")
    generation = office.hub.find(stream_id)
    query = _query(request)
    accept = (request.get(b"accept") or b"").lower()
    as_json = b"application/json" in accept and b"text/event-stream" not in accept
    if generation is None or not _is_for(generation.owner, request):
        # Who asks for events must not take a state for the last of them.
        state = office.ended.find(stream_id) if as_json and "after" not in query else None
        if state is not None and _is_for(state.owner, request):
            return _json(state.document)
        raise NotFound("there is no such stream, or it is no longer kept")
    generation.visit()
    if as_json:
        if "after" not in query:
            return _json(describe(generation))
        after = _position(query["after"], generation)
        check_position(generation, after)
        return Poll(generation, _settled(generation, after), _wait(query.get("wait")))
    said = wishes.last_event_id
    text = said.decode("latin-1") if said is not None else query.get("last_event_id", query.get("after", "0"))
    return _join(generation, _position(text, generation), native=True)


def _response(office: Office, request: RequestHead, name: str, *, cancel: bool) -> Errand | None:
    generation = office.hub.known_as(("response", name))
    if generation is None or not hmac.compare_digest(generation.owner, caller.owner(request)):
        return None
    if cancel:
        if request.method != b"POST":
            return None
        auth.check_origin(request, office.hosts)
        generation.cancel()
        return _json(_as_response(generation, name))
    query = _query(request)
    if request.method != b"GET" or query.get("stream") != "true" or not generation.resumable:
        return None
    auth.check_origin(request, office.hosts)
    number = query.get("starting_after")
    if number is not None and not re.fullmatch(r"[0-9]{1,15}", number):
        raise BadRequest("starting_after: a sequence number is expected")
    errand = _join(generation, 0 if number is None else _seq_of(generation, int(number)), native=True)
    if isinstance(errand, Reply) and errand.status == 204:
        # Which would stop an EventSource; an SDK that asks here wants a stream, and openai-node throws at a 204.
        return Reply(200, headers.of_stream(generation.stream_id.encode()), b"")
    return errand


def _again(office: Office, request: RequestHead, wishes: Wishes) -> Errand | None:
    """A request that may have been sent before."""
    if wishes.last_event_id is not None:
        found = _EVENT_ID.fullmatch(wishes.last_event_id.decode("latin-1"))
        if found is None:
            return None  # not one of ours
        generation = office.hub.find(found[1])
        if generation is None or not _is_for(generation.owner, request):
            # Generating anew would put another answer behind what the reader has of this one.
            raise NotFound("there is no such stream, or it is no longer kept")
        auth.check_origin(request, office.hosts)
        return _join(generation, int(found[2]), native=False)
    if wishes.key is not None:
        generation = office.hub.known_as(key_name(request, wishes.key))
        if generation is not None and not _is_void(generation):
            auth.check_origin(request, office.hosts)
            if not _is_readable(generation):
                raise RequestPending("the first request with this Idempotency-Key is still being answered")
            return Join(generation, 0, native=False)
        if generation is not None:
            office.hub.remove(generation)
    return None


def key_name(request: RequestHead, key: bytes) -> tuple[object, ...]:
    """What a caller's key is unique in: its own requests for this target."""
    return "key", caller.owner(request), request.target, key


def _is_readable(generation: Generation) -> bool:
    """Whether others may have its answer too, or will: a plain one passes through to the one who asked."""
    return generation.state is State.WAITING or generation.fanout is not None or generation.captured is not None


def _is_void(generation: Generation) -> bool:
    """Whether it has ended with nothing that could be read, by no will of its caller's: he may try again."""
    ended = generation.state is State.FAILED or isinstance(generation.error, Orphaned)
    return ended and not generation.events


def _join(generation: Generation, after: int, *, native: bool) -> Errand:
    if not generation.resumable:
        raise NotKept("nothing is kept of this stream: it was not asked for with Relay-Resumable: 1")
    if not _is_readable(generation):
        raise NotKept("nothing is kept of this answer: it is no event stream")
    check_position(generation, after)
    if generation.over and generation.captured is None and _settled(generation, after) == generation.events:
        if generation.state is State.FINISHED:
            return Reply(204, [(b"relay-stream-id", generation.stream_id.encode())], b"")
        if generation.error is not None:
            raise StreamFailed(generation.error)
    return Join(generation, after, native)


def check_position(generation: Generation, after: int) -> None:
    """Raises what a reader is told who asks for events that are not, or no longer, there."""
    if after == LATEST:
        return
    log = generation.log
    tail = generation.events
    if after > tail:
        raise AheadOfTail(f"the stream has {tail} events so far")
    if log is not None and after < tail and after + 1 < log.oldest:
        raise EventsGone(log.oldest)


def check_join(office: Office, join: Join, wishes: Wishes, body: RequestBody) -> None:
    """The whole of a request is here, and what its head had asked for may have changed since. Raises what its client is
    told then; and who sends an Idempotency-Key again must send the same request."""
    generation = join.generation
    by_key = wishes.key is not None and not join.native
    if office.hub.find(generation.stream_id) is not generation:
        if by_key:
            raise RequestPending("what this Idempotency-Key began has just been forgotten")
        raise NotFound("there is no such stream, or it is no longer kept")
    check_position(generation, join.after)
    if by_key and not generation.body.same_as(body):
        if not generation.body.ended:
            raise RequestPending("the first request with this Idempotency-Key is still being sent")
        raise KeyReused("this Idempotency-Key was sent with another body before")


def will_be_kept(office: Office, route: Route, wishes: Wishes) -> bool:
    """Whether what a request begins can be resumed. Raises TooManyOrphans where nobody would read it at first, and
    there are too many of that kind."""
    asked = wishes.resumable or wishes.respond_async
    if not office.retention.finished or not (
        route.resumable is Resumable.ALWAYS or (route.resumable is Resumable.ASK and asked)
    ):
        return False
    if wishes.respond_async and len(office.orphans) >= office.retention.orphans:
        raise TooManyOrphans("too many streams have no reader; read one, or try again later")
    return True


def _settled(generation: Generation, after: int) -> int:
    return generation.events if after == LATEST else after


def _position(text: str, generation: Generation) -> int:
    """Of an event id, a bare number, or `latest`."""
    if text == "latest":
        return LATEST
    if re.fullmatch(r"[0-9]{1,15}", text):
        return int(text)
    found = _EVENT_ID.fullmatch(text)
    if found is None:
        raise BadRequest("an event's id, its number, or latest is expected")
    if found[1] != generation.stream_id:
        raise BadRequest("that event is another stream's")
    return int(found[2])


def _seq_of(generation: Generation, number: int) -> int:
    """The event with a provider's own sequence number; they count from 0 without holes, as our own do from 1, unless a
    provider does otherwise."""
    log = generation.log
    if log is None or log.oldest > log.tail:
        return number + 1
    guess = number + 1
    if log.oldest <= guess <= log.tail and generation.dialect.sequence(log.read(guess - 1, 1)[0]) == number:
        return guess
    after = log.oldest - 1
    while after < log.tail:
        for event in log.read(after, _POLL_BYTES):
            found = generation.dialect.sequence(event)
            if found is not None and found > number:
                return after
            after += 1
    last = generation.dialect.sequence(log.read(log.tail - 1, 1)[0])
    return log.tail if last is not None and last == number else max(number + 1, log.tail + 1)


# Documents


def accepted(generation: Generation) -> Reply:
    """202: the stream has begun, and will be read elsewhere (RFC 7240, 4.1)."""
    place = f"/v1/streams/{generation.stream_id}"
    fields = [*JSON, (b"location", place.encode()), (b"preference-applied", b"respond-async")]
    fields.append((b"relay-stream-id", generation.stream_id.encode()))
    document = {"id": generation.stream_id, "object": "relay.stream", "state": generation.state.value, "url": place}
    return Reply(202, fields, orjson.dumps(document))


def events_behind(generation: Generation, after: int) -> Reply:
    """What a long poll gets."""
    log = generation.log
    events = []
    if log is not None:
        for seq, event in enumerate(log.read(after, _POLL_BYTES)[:_POLL_EVENTS], after + 1):
            fields = sse.fields(event)
            kind = fields.get(b"event", b"message").decode(errors="replace")
            events.append({"seq": seq, "event": kind, "data": fields[b"data"].decode(errors="replace")})
    document = {"state": generation.state.value, "tail": generation.events, "events": events}
    return Reply(200, JSON, orjson.dumps(document))


def _list(office: Office, request: RequestHead) -> Reply:
    owner = caller.owner(request)
    mine = [generation for generation in office.hub if owner and hmac.compare_digest(generation.owner, owner)]
    document: dict[str, object] = {
        "object": "list",
        "data": [describe(generation) for generation in mine[-_LIST_MOST:]],
    }
    if not owner:
        document["note"] = "a request without a credential has no list; streams are known to it by their ids alone"
    return Reply(200, JSON, orjson.dumps(document))


def _cancel(office: Office, request: RequestHead, stream_id: str) -> Reply:
    generation = office.hub.find(stream_id)
    if generation is not None and _is_for(generation.owner, request):
        generation.cancel()
        return _json(describe(generation))
    state = office.ended.find(stream_id)
    if state is not None and _is_for(state.owner, request):
        return _json(state.document)
    raise NotFound("there is no such stream, or it is no longer kept")


def _as_response(generation: Generation, name: str) -> dict[str, object]:
    """As much of OpenAI's Response object as is known here."""
    status = {State.FINISHED: "completed", State.CANCELLED: "cancelled", State.FAILED: "failed"}
    return {
        "id": name,
        "object": "response",
        "status": status.get(generation.state, "in_progress"),
        "output": [],
        "error": None,
        "incomplete_details": None,
        "metadata": {},
        "model": "",
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }


def _json(document: dict[str, object]) -> Reply:
    return Reply(200, JSON, orjson.dumps(document))


# What a request says


def _is_for(owner: bytes, request: RequestHead) -> bool:
    """Whether a request that knows the id may have the stream: it has a credential of the same owner, or none."""
    given = caller.owner(request)
    return not given or not owner or hmac.compare_digest(owner, given)


def _allow(request: RequestHead, *methods: bytes) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(b", ".join(methods).decode())


def _query(request: RequestHead) -> dict[str, str]:
    try:
        return dict(parse_qsl(request.target.partition(b"?")[2].decode(), keep_blank_values=True, max_num_fields=32))
    except ValueError:
        raise BadRequest("the query cannot be read") from None


def _wait(text: str | None) -> float:
    if text is None:
        return 0.0
    found = re.fullmatch(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)(ms|s)?", text)
    if found is None:
        raise BadRequest('wait: a time like "20s" is expected')
    return min(float(found[1]) / (1000 if found[2] == "ms" else 1), _WAIT_MOST)
