"""Ids stand where they belong whatever the provider's stream looks like, and wherever its reads are cut."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import pytest

from relay.core.fanout import Fanout
from relay.core.follower import Follower
from relay.core.log import EventLog
from relay.core.logged import LoggedStream
from relay.flow.overflow import Mode, lag
from relay.wire import dialect
from tests.core.fakes import Clock, Owner, Sink
from tests.pairs.calls import Agent
from tests.pairs.origin import Reply
from tests.robustness.peers import until
from tests.streams.ground import SCRIPTED, Ground, begin, broken, read, state, stream_id_of, whole
from tests.streams.heard import hear, plain
from tests.streams.script import DONE, Script, delta

_CASES = {
    "bom": b"\xef\xbb\xbfdata: a\n\n" + DONE,
    "bom-comment": b"\xef\xbb\xbf: hello\n\ndata: a\n\n" + DONE,
    "bom-id": b"\xef\xbb\xbfid: 9\ndata: a\n\n" + DONE,
    "own-ids": b"id: 1\ndata: a\n\nid\ndata: b\n\ndata: c\nid: 3\n\nid:4\nretry: 10\ndata: d\n\n" + DONE,
    "ids-of-ours": b"id: AAAAAAAAAAAAAAAAAAAAAA-7\ndata: a\n\n" + DONE,
    "id-alone": b"id: 5\n\ndata: a\n\nid: 6\n\nid: 7\n\n" + DONE,
    "retry-alone": b"retry: 3000\n\ndata: a\n\nretry: 1\n\n" + DONE,
    "retry-inside": b"retry: 5\ndata: a\n\ndata: b\nretry: 5\n\nid: 1\nretry: 5\ndata: c\n\n" + DONE,
    "comments": b": hello\n\n: x\ndata: a\n: y\ndata: b\n\n:\n\n:z\n" + DONE,
    "no-data": b"event: ping\n\ndata: a\n\nevent: x\nid: 1\n\n" + DONE,
    "no-value": b"data\n\ndata:\n\ndata: a\ndata\n\nevent\ndata: b\n\n" + DONE,
    "empty-lines": b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n" + DONE,
    "unknown": b"identity: 1\ndata: a\n\nid : 7\ndata: b\n\nDATA: x\ndata: c\n\nfoo\ndata: d\n\n" + DONE,
    "no-space": b"data:a\n\nevent:e\ndata:b\n\n" + DONE,
    "several": b"".join(b"event: e%d\ndata: %d\ndata: more\n\n" % (n, n) for n in range(200)) + DONE,
    "crlf": b"id: 1\r\nevent: e\r\ndata: a\r\n\r\n: c\r\n\r\ndata: b\r\nretry: 1\r\n\r\ndata: [DONE]\r\n\r\n",
    "cr": b"id: 1\revent: e\rdata: a\r\r: c\r\rdata: b\rretry: 1\r\rdata: [DONE]\r\r",
    "mixed": b"data: a\r\n\ndata: b\n\r\ndata: c\r\rdata: d\n\nevent: x\rdata: e\r\n\r\n" + DONE,
    "utf-8": "data: żółć 👩\u200d💻 日本\n\nevent: ü\ndata: \u2028\u0085\n\n".encode() + DONE,
}
# Of the last event's empty line some senders know nothing; it is the last all the same.
_UNFINISHED = (b"data: a\n\ndata: [DONE]", b"data: a\n\ndata: [DONE]\n", b"data: a\r\n\r\ndata: [DONE]\r\n")
_STREAM = (("Content-Type", "text/event-stream"),)


@contextlib.contextmanager
def _saying(ground: Ground, body: bytes) -> Iterator[Agent]:
    """A client of a relay whose provider says this to everything."""
    with ground.origin(Reply(fields=_STREAM, body=body, framed=False)) as origin:
        relay = ground.relay_with(url=origin.url)
        with ground.agent(relay) as agent:
            yield agent


@pytest.mark.parametrize("case", _CASES)
def test_every_event_gets_its_id_and_nothing_else_does(ground: Ground, case: str) -> None:
    body = _CASES[case]
    with _saying(ground, body) as agent:
        heard = whole(begin(agent).answer(), last=len(plain(body)))
        assert heard.said == plain(body)
        assert whole(read(agent, heard.stream_id).answer()).said == plain(body)


@pytest.mark.parametrize("body", _UNFINISHED)
def test_last_event_without_its_empty_line_gets_both(ground: Ground, body: bytes) -> None:
    with _saying(ground, body) as agent:
        heard = whole(begin(agent).answer(), last=2)
        assert heard.said == [("message", "a"), ("message", "[DONE]")]


def test_half_an_event_at_the_end_reaches_nobody(ground: Ground) -> None:
    for rest in (b"data: b", b"id: 4", b"event: x\nda", b'data: {"choices":[{"delta"\n', b"\xef"):
        with _saying(ground, b"data: a\n\n" + rest) as agent:
            heard = broken(ground, begin(agent).answer(), "upstream_cut")
            assert heard.said == [("message", "a")]


# Wherever it is cut


class _Pulse:
    """Nobody here is held back."""

    def now(self) -> float:
        return 0.0

    def at(self, when: float, call: Callable[[], None]) -> None:
        raise AssertionError("somebody waits")

    def soon(self, call: Callable[[], None]) -> None:
        raise AssertionError("somebody has had his turn")


def _relayed(reads: Iterable[bytes], limit: int = 1 << 20) -> tuple[bytes, int]:
    """What a reader gets of these reads, and how often an event was said to be too long."""
    clock, log, sink = Clock(), EventLog(1 << 20), Sink()
    overlong: list[None] = []
    fanout = Fanout(
        "s" * 22,
        log,
        dialect.CHAT,
        clock,
        _Pulse(),
        numbered=True,
        keeps=True,
    )
    stream = LoggedStream(fanout, Owner(), clock, dialect.CHAT, limit)
    stream.overlong = lambda: overlong.append(None)
    follower = Follower(fanout, 0, lag(Mode.DISCONNECT), lambda error: None)
    follower.attach(sink, blocked=False)
    for piece in reads:
        stream.feed(piece)
    stream.end()
    return sink.body, len(overlong)


@pytest.mark.parametrize("case", _CASES)
def test_ids_are_the_same_wherever_the_reads_are_cut(case: str) -> None:
    body = _CASES[case]
    cuts = [[body[:at], body[at:]] for at in range(1, min(len(body), 300))]
    cuts += [[body[at : at + size] for at in range(0, len(body), size)] for size in (1, 2, 3, 5, 7)]
    for reads in cuts:
        heard = hear(_relayed(reads)[0])
        heard.tiles(1, len(plain(body)))
        assert heard.said == plain(body), reads


def test_event_that_is_too_long_is_never_given_in_half() -> None:
    """However the reads fall around the limit."""
    limit = 100
    for size in (limit - 10, limit - 7, limit - 6, limit, limit + 1, limit + 50, 3 * limit):
        event = b"data: %b\n\n" % (b"x" * size)
        body = b"data: a\n\n" + event + DONE
        for step in (1, 2, 3, 9, limit - 1, limit, limit + 1, len(body)):
            for first in range(step):
                reads = [body[:first], *(body[at : at + step] for at in range(first, len(body), step))]
                relayed, overlong = _relayed(filter(None, reads), limit)
                said = {data for _, data in hear(relayed).said}
                assert said <= {"a", "x" * size, "[DONE]"}, (size, step, first)
                # Whole, or its stream is given up.
                assert overlong or "x" * size in said, (size, step, first)


@SCRIPTED
def test_event_that_is_too_long_breaks_the_stream_off(ground: Ground) -> None:
    """It cannot be kept whole, and half of it would pass for an event."""
    with Script(delta("a")) as script, contextlib.ExitStack() as stack:
        relay = ground.make_relay(url=script.url, limits="event = 1024", retention="stream = 1024")
        agent = stack.enter_context(ground.agent(relay))
        call = begin(agent)
        stream_id = stream_id_of(call)
        call.wait_for(b"\n\n")
        fed = state(agent, stream_id)["bytes"]
        # One byte more than may wait for its end.
        script.tell(b"data: " + b"x" * 1019)

        def taken() -> bool:
            seen = state(agent, stream_id)
            return bool(seen["bytes"] > fed or seen["state"] != "streaming")

        until(taken, "the relay's look at the event")
        with contextlib.suppress(OSError):
            script.tell(b"x" * 2000 + b"\n\n" + DONE)
            script.end()
        heard = broken(ground, call.answer(), "upstream_invalid")
        assert heard.said == plain(delta("a"))
