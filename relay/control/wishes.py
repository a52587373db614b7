"""What a request asks of the relay itself, by fields that no provider gets to see.

Relay-Resumable: 1                                events get ids, and can be had again
Relay-Overflow: merge | disconnect | pause | drop what happens when the reader lags
Relay-Flush: 20ms, or 8, or 8, 20ms               how many events, or for how long, may wait for others
Relay-On-Disconnect: continue | cancel | cancel-after=SECONDS
Relay-Placeholder: 1                              an event of the relay's while there is no first token
Prefer: respond-async                             202 at once, the answer at its Location (RFC 7240, 4.1)
Idempotency-Key, Last-Event-ID                    the same request again: resume, do not generate anew
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from relay.core.follower import Flush
from relay.errors import BadRequest
from relay.flow.overflow import MOST_EVENTS_HELD, MOST_HELD, Mode
from relay.wire.head import RequestHead

_NAMES = frozenset({b"prefer", b"idempotency-key", b"last-event-id"})
_FLUSH = re.compile(rb"(?:(\d{1,9})(?:\s*,\s*|$))?(?:(\d{1,9})(ms|s))?")
_KEY_LIMIT = 255
_GRACE_MOST = 24 * 3600


@dataclass(frozen=True, slots=True)
class Wishes:
    """None, or False, for what is not said. `grace`: seconds for which the stream may be without a reader; infinite for
    as long as it is kept at all."""

    resumable: bool = False
    overflow: Mode | None = None
    flush: Flush | None = None
    grace: float | None = None
    placeholder: bool = False
    respond_async: bool = False
    key: bytes | None = None
    last_event_id: bytes | None = None


NOTHING = Wishes()


def read(request: RequestHead) -> Wishes:
    """Raises BadRequest for what is said and cannot be meant."""
    said = {name: value for name, value in request.headers if name in _NAMES or name.startswith(b"relay-")}
    if not said:
        return NOTHING
    key = said.get(b"idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY_LIMIT:
        raise BadRequest(f"Idempotency-Key: 1 to {_KEY_LIMIT} bytes are expected")
    grace = _grace(said.get(b"relay-on-disconnect"))
    respond_async = _prefers_async(said.get(b"prefer", b""))
    if respond_async and grace == 0:
        raise BadRequest("Relay-On-Disconnect: cancel with Prefer: respond-async leaves nobody time to read the answer")
    return Wishes(
        resumable=_switch(said, b"relay-resumable"),
        overflow=_overflow(said.get(b"relay-overflow")),
        flush=_flush(said.get(b"relay-flush")),
        grace=grace,
        placeholder=_switch(said, b"relay-placeholder"),
        respond_async=respond_async,
        key=key,
        last_event_id=said.get(b"last-event-id") or None,
    )


def _switch(said: dict[bytes, bytes], name: bytes) -> bool:
    value = said.get(name, b"0").strip()
    if value not in (b"0", b"1"):
        raise BadRequest(f"{name.decode().title()}: 1 or 0 is expected")
    return value == b"1"


def _overflow(value: bytes | None) -> Mode | None:
    if value is None:
        return None
    try:
        return Mode(value.decode("latin-1").strip().lower())
    except ValueError:
        raise BadRequest(f"Relay-Overflow: one of {', '.join(Mode)} is expected") from None


def _flush(value: bytes | None) -> Flush | None:
    if value is None:
        return None
    said = value.strip()
    found = _FLUSH.fullmatch(said)
    if not found or not said or said.endswith(b","):
        raise BadRequest(
            'Relay-Flush: a time like "20ms" or "1s", a number of events like "8", or "8, 20ms" is expected'
        )
    events, after = int(found[1] or 0), int(found[2] or 0) / (1 if found[3] == b"s" else 1000)
    if after > MOST_HELD or events > MOST_EVENTS_HELD:
        raise BadRequest(f"Relay-Flush: {MOST_HELD * 1000:g}ms and {MOST_EVENTS_HELD} events are the most")
    return Flush.of(events, after)


def _grace(value: bytes | None) -> float | None:
    if value is None:
        return None
    text = value.decode("latin-1").strip().lower()
    if text == "continue":
        return math.inf
    if text == "cancel":
        return 0.0
    name, _, seconds = text.partition("=")
    found = re.fullmatch(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)s?", seconds)
    if name == "cancel-after" and found is not None and float(found[1]) <= _GRACE_MOST:
        return float(found[1])
    raise BadRequest('Relay-On-Disconnect: "continue", "cancel" or "cancel-after=SECONDS" is expected')


def _prefers_async(value: bytes) -> bool:
    return any(part.partition(b";")[0].strip().lower() == b"respond-async" for part in value.split(b","))
