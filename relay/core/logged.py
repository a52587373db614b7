"""A generation's event stream whose events are numbered and kept: a Stream in front of a Fanout.

        provider socket -> ChunkedBody.take -> LoggedStream.feed -> sink.send -> client socket

The usual case, one event as it came, is told from all others here, once, and is numbered, kept and sent on in the same
frame; else the Stream would look at it, and the Fanout again.
"""

from __future__ import annotations

from relay.core.fanout import Fanout
from relay.core.log import LARGE, SEGMENT
from relay.core.stream import Stream
from relay.core.transfer import Clock, Owner
from relay.wire import sse
from relay.wire.dialect import HEAD, Dialect


class LoggedStream(Stream):
    """A Stream that looks closer at the usual case: one event that is fit to stand in front of an id, which is a line
    of data, or one with its name before it, and LF for their ends. `events` and `bytes` are the log's to count."""

    __slots__ = ("_fanout", "_recent", "_spoke", "_tag", "_unheard")

    def __init__(self, fanout: Fanout, owner: Owner, clock: Clock, dialect: Dialect, event_limit: int) -> None:
        super().__init__(fanout, owner, clock, dialect, event_limit)
        self._fanout = fanout
        self._tag = fanout.tag
        self._recent = fanout.log.recent
        self._spoke = clock.now
        self._unheard = 0  # what came last was no event, and came behind so many

    @property
    def spoke(self) -> float:
        """When readers had the last byte of it, by the clock."""
        return self._spoke if self.events == self._unheard else self.active

    def feed(self, payload: bytes) -> None:
        # Where its last line begins and ends.
        line, end, size = 0, payload.find(10), len(payload)
        if end != size - 2 and payload.startswith(b"event:"):
            line = end + 1
            end = payload.find(10, line)
        if (
            end != size - 2
            or not payload.startswith(b"data:", line)
            or payload[-1] != 10
            or 13 in payload
            or self._pending
            or not self.began
        ):
            self._feed_any(payload)
            return
        seq = self.events = self.events + 1
        self.last = payload if size < HEAD else sse.head(payload, HEAD)  # the log has it anyway
        self.active = self._clock.now
        self._recent.append(payload)
        # As Fanout.mark, without its call.
        framed = b"%b%b%d\n\n" % (payload[:-1], self._tag, seq) if self._tag else payload
        fanout = self._fanout
        for reader in fanout.readers:
            reader.out.send(framed)
        if not seq % SEGMENT or size >= LARGE:
            # Behind the readers: this may forget what they look at.
            log = fanout.log
            log.settle()
            self._recent = log.recent
        if fanout.watched:
            fanout.after()

    def _feed_any(self, payload: bytes) -> None:
        """What is not one such event."""
        log, spoke, before = self._fanout.log, self.spoke, self.events
        super().feed(payload)
        self.events, self._recent = log.tail, log.recent
        if self.events == before:
            self._spoke, self._unheard = spoke, before
