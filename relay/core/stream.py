"""One generation's event stream, from the provider's bytes to its reader. `feed` is the hot path of the relay.

        provider socket -> ChunkedBody.take -> Stream.feed -> sink.send -> client socket

Whole events go on as the object they came in; what is unfinished waits in the framer. Nothing is parsed: the last
events are kept by reference, unless their first bytes show that they end nothing, and the dialect looks at them once,
when the stream has ended or fallen silent, to tell a finished answer from one that was cut.

What an event costs here is not its instructions (1 us, if its stream was the last one, too) but the memory of its own
stream, which has left the processor's caches since its last event: 0.2 us for each object that is touched. What was
tried, as CPU per event with it to without it, at 500 x 20/s and 4,000 x 10/s (pairs of runs, medians):

        objects whose methods are called, in place of bound methods      0.95, 1.01     taken: 5 % less memory, too
            (of that, user time                                          0.88, 0.94)
        acknowledgements that wait (relay/net/quiet.py)                  0.94, 0.91     taken
        sockets in place of the loop's transports (relay/net/poller.py)  0.87, 0.89     taken: 42 % less memory, too
        mypyc on this and eight modules around it                        0.94, 0.96     no: 9 % more memory
        two objects fewer: no Reader between, one count for two          0.97, 1.00     no
        huge pages under all of the heap (MADV_COLLAPSE)                    -, 1.00     no: 3 % more memory
"""

from __future__ import annotations

from collections.abc import Callable

from relay.core.transfer import Clock, Owner, Target, Transfer
from relay.errors import RelayError, UpstreamCut, UpstreamReported
from relay.wire import sse
from relay.wire.dialect import HEAD, Dialect, Ending

_BORDERS = sse.BORDERS


class Stream(Transfer):
    """`events` with data have been fed whole; `last` is the last of them as it came, or empty if it is one that says
    nothing; `first` the first where its dialect wants it. Both are cut to their heads where they are long. `overlong`,
    where it is set, is called for an event that is longer than its limit, instead of passing it on in pieces; it has to
    end the stream."""

    __slots__ = (
        "_event_limit",
        "_framer",
        "_long",
        "_passing",
        "_pending",
        "dialect",
        "events",
        "first",
        "last",
        "overlong",
    )

    def __init__(self, reader: Target, owner: Owner, clock: Clock, dialect: Dialect, event_limit: int) -> None:
        super().__init__(reader, owner, clock)
        self.dialect = dialect
        self._passing = dialect.passing
        self._event_limit = event_limit
        self._framer: sse.Framer | None = None  # few streams need one
        self._pending = False
        self._long = False
        self.overlong: Callable[[], None] | None = None
        self.events = 0
        self.first = b""
        self.last = b""

    def feed(self, payload: bytes) -> None:
        """Pass on the next bytes of the provider's stream: up to their last event border, the rest when its event is
        whole. Called with what one read of the socket gave, so that several events in one read are one write."""
        # One event, by far the most frequent case; the same as _note, without its call. (A byte is looked for by its
        # number: 16 ns against 100.)
        if (
            payload.find(b"\n\n") == len(payload) - 2
            and (payload.startswith(b"data:") or b"\ndata:" in payload)
            and 13 not in payload
            and not self._pending
            and self.began
        ):
            self.events += 1
            if payload.startswith(self._passing):
                # Kept, it would be the largest object of its stream; and to be let go, fetched once more.
                self.last = b""
            else:
                self.last = payload if len(payload) < HEAD else sse.head(payload, HEAD)
        elif self._pending or not payload.endswith(_BORDERS):
            self._feed_pieces(payload)
            return
        elif payload.count(b"\r\n\r\n") == 1 and self._is_one_event(payload):
            self.events += 1
            self.last = payload
        else:
            self._note(payload, sse.count(payload))
        self.bytes += len(payload)
        self.active = self._clock.now
        self.reader.out.send(payload)

    def _is_one_event(self, payload: bytes) -> bool:
        """The same case with lines that end in CRLF: sse-starlette's way."""
        lines = payload.count(b"\r\n")
        return (
            (payload.startswith(b"data:") or b"\ndata:" in payload)
            and payload.count(b"\r") == lines == payload.count(b"\n")
            and len(payload) < HEAD
            and self.began
        )

    @property
    def at_border(self) -> bool:
        """Whether something may be inserted: the reader has whole events only."""
        return not self._inside or self.overlong is not None

    @property
    def _inside(self) -> bool:
        """Whether of an event that is too long to be held a part has gone on."""
        return self._framer is not None and self._framer.inside

    def ending(self) -> Ending:
        """What the events so far say about the stream's end; one of which only a part has come says nothing yet."""
        return Ending.OPEN if self._inside else self.dialect.verdict(self.last)

    def end(self) -> None:
        """The provider's body ended as its framing says. Whether the answer is whole, its dialect tells."""
        rest = self._framer.close() if self._framer is not None else b""
        ended = self.ending() is not Ending.OPEN
        whole = ended or self.dialect.opaque or self.dialect.closes(rest)
        # An id makes an event whole: it may stand behind no half one.
        passes = self.dialect.closes(rest) if self.overlong is not None else whole or self._inside
        if rest and passes:
            # An event without its empty line may yet be the terminal one. Half of any other is dropped, as in `fail`:
            # the error event could not be told from it.
            if not ended:
                self._note(rest, 0)
            self._pass(rest)
        cut = UpstreamCut("the provider's stream ended before its terminal event")
        self._settle(None if self.dialect.opaque else cut)

    def fail(self, error: RelayError) -> None:
        """The provider's body stopped before its end, or somebody gave it up."""
        if self._framer is not None:
            self._framer.close()
        self._settle(error)

    def _settle(self, error: RelayError | None) -> None:
        ending = self.ending()
        if ending is Ending.DONE:
            error = None
        elif ending is Ending.ERROR:
            error = UpstreamReported("the provider reported an error in its stream")
        self._owner.transfer_ended(error)

    def _feed_pieces(self, payload: bytes) -> None:
        """An event that came in several reads, or whose line ends are not the usual ones."""
        if self._framer is None:
            self._framer = sse.Framer(self._event_limit)
        framer = self._framer
        inside = framer.inside
        whole = framer.feed(payload)
        self._pending = framer.pending
        if not whole:
            self.active = self._clock.now
            return
        if framer.inside and self.overlong is not None:
            self.overlong()
            return
        if inside or framer.inside:
            self._note_oversized(whole, inside)
        else:
            self._note(whole, sse.count(whole))
        self._pass(whole)

    def _pass(self, whole: bytes) -> None:
        self.bytes += len(whole)
        self.active = self._clock.now
        self.reader.out.send(whole)

    def _note(self, whole: bytes, events: int) -> None:
        """Keep what the end of the stream may want to know of these events."""
        if not self.began:
            self._note_first(whole)
        self.events += events
        if len(whole) < HEAD:
            if events or sse.has_data(whole):
                self.last = whole
            return
        if block := sse.last(whole):
            self.last = sse.head(block, HEAD)

    def _note_first(self, whole: bytes) -> None:
        """The stream begins with its first event; comments that stand before it are no token."""
        found = next(filter(sse.has_data, sse.split(whole)), None)
        if found is None:
            return
        if self.dialect.names_itself:
            self.first = sse.head(found, HEAD)
        self._begin()

    def _note_oversized(self, piece: bytes, inside: bool) -> None:
        """A piece of an event that is too long to be held: it counts once, when its end has come, if its first piece
        shows that it has data."""
        if not inside:
            self._long = sse.has_data(piece)
            self._note(piece, 0)
        elif not self._inside:
            rest = b"".join(sse.split(piece)[1:])
            self.events += self._long
            if rest:
                self._note(rest, sse.count(rest))
