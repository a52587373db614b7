"""A generation's event stream whose events are numbered and kept: a Stream in front of a Fanout.

        provider socket -> LoggedStream.feed -> Fanout.one -> sink.send -> client socket

The usual case, one event as it came, is told from all others here, once; else the Stream would look at it, and the
Fanout again.
"""

from __future__ import annotations

from relay.core.fanout import Fanout
from relay.core.stream import Stream
from relay.core.transfer import Clock, Owner
from relay.wire import sse
from relay.wire.dialect import HEAD, Dialect

_STARTS = (b"data:", b"event:")


class LoggedStream(Stream):
    """A Stream that looks a little closer at the usual case: the event must be fit to stand behind an id."""

    __slots__ = ("_one",)

    def __init__(self, fanout: Fanout, owner: Owner, clock: Clock, dialect: Dialect, event_limit: int) -> None:
        super().__init__(fanout, owner, clock, dialect, event_limit)
        self._one = fanout.one

    def feed(self, payload: bytes) -> None:
        if (
            payload.endswith(b"\n\n")
            and payload.startswith(_STARTS)
            and payload.count(b"\n\n") == 1
            and 13 not in payload
            and b"\nid" not in payload
            and not self._pending
            and self.began
            and (payload.startswith(b"data:") or b"\ndata:" in payload)
        ):
            self.events += 1
            self.last = payload if len(payload) < HEAD else sse.head(payload, HEAD)
            self.bytes += len(payload)
            self.active = self._clock.now
            self._one(payload)
        else:
            super().feed(payload)
