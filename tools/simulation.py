"""What one answer of the simulated provider is to be like: the keys, their values and the names of the lies.

Keys come from the command line (`--set key=value`, for every answer) and from the request's own header
(`Simulate: key=value; key=value`, for one answer, wins). Durations are seconds (`0.02`) or carry a unit
(`20ms`, `1.5s`); sizes are bytes or carry one (`64KiB`, `256MiB`); flags are 0 or 1. Everything random
follows from `seed`.

A key that a protocol has no counterpart for changes nothing there (`padding` over HTTP/1.1, `framing=chunked` over
HTTP/2). A lie that a protocol cannot tell is refused, since a test that rests on it would hold nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

# Instead of an answer; the reader never sees a complete head.
BEFORE_HEAD = frozenset({"close", "reset", "stall", "endless-head", "garbage", "switch"})
# The head is spoiled, the rest is the true answer.
IN_HEAD = frozenset(
    {
        "slow-head",
        "huge-head",
        "nul-header",
        "bare-lf",
        "cl-te",
        "two-lengths",
        "hints",
        "hint",
        "bad-version",
        "obs-fold",
    }
)
AFTER_HEAD = frozenset({"head-close", "head-reset", "head-stall"})
# After `at` content events; in an answer that is no stream, in the middle of its body.
MID_BODY = frozenset(
    {
        "cut",
        "cut-reset",
        "mid-stall",
        "bad-chunk",
        "chunk-extension-flood",
        "error",
        "half-event",
        "short",
        "endless-line",
        "bomb",
        "bad-utf8",
        "no-done",
    }
)
AT_END = frozenset({"after-end", "long", "trailers", "hold-open"})
# About what the connection does after a true answer.
KEEP_ALIVE = frozenset({"stale", "close-idle", "half-answer-stale"})
# A false content-length under an HTTP/2 body, whose end another layer tells (RFC 9113, 8.1.1).
LENGTHS_2 = frozenset({"length_long", "length_short"})
# What HTTP/2 alone can do after `at` events: say that it goes away, or stop reacting.
MID_BODY_2 = frozenset({"goaway", "graceful", "deaf"})
ONLY_HTTP2 = frozenset({"refuse"}) | LENGTHS_2 | MID_BODY_2
# HTTP/2 has neither a version in its heads nor extensions of its frames.
ONLY_HTTP1 = frozenset({"bad-version", "chunk-extension-flood"})
LIES = BEFORE_HEAD | IN_HEAD | AFTER_HEAD | MID_BODY | AT_END | KEEP_ALIVE | ONLY_HTTP2

# RFC 9113, 7: the number of an error code is its place.
ERROR_CODES = """
    NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR
    REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED
""".split()
INTERNAL_ERROR = ERROR_CODES.index("INTERNAL_ERROR")
PLACE = 3  # events before a lie that does not say how many

# Some lies can be told in one framing only.
FRAMING_OF_LIE = {
    "cl-te": "chunked",
    "bad-chunk": "chunked",
    "chunk-extension-flood": "chunked",
    "bomb": "chunked",
    "trailers": "chunked",
    "hold-open": "chunked",
    "two-lengths": "length",
    "short": "length",
    "long": "length",
    "length_long": "length",
    "length_short": "length",
}


class BadSimulation(ValueError):
    """A key that does not exist, or a value that the key does not take; the message names both."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """One answer's behaviour; the meaning of each field stands in KEYS."""

    seed: int = 1
    events: int = 20
    interval: float = 0.02
    delay: float = 0.0
    first: float = 0.0
    size: int = 0
    jitter: float = 0.0
    burst: int = 1
    n: int = 0
    reasoning: bool = False
    tools: bool = False
    unicode: bool = True
    usage: str = "asked"
    done: bool = True
    ping: int = 0
    crlf: bool = False
    cr: bool = False
    gzip: bool = False
    encoding: str = "identity"
    framing: str = "auto"
    http10: bool = False
    split: int | None = None
    gap: float = 0.0
    sndbuf: int = 0
    status: int = 200
    retry_after: float | None = None
    lie: str = "none"
    at: int | None = None
    total: int = 256 * 1024 * 1024
    code: int = INTERNAL_ERROR
    times: int = 1
    key: str = ""
    padding: int | None = None
    frame: int = 0
    empty: int = 0
    join: bool = False
    length: bool = False
    trailers: bool = False
    informational: int = 0
    window: int | None = None

    def coding(self) -> str:
        """The content coding of the body; a bomb is always gzip."""
        return "gzip" if self.lie == "bomb" or (self.gzip and self.encoding == "identity") else self.encoding

    @property
    def place(self) -> int:
        """How many content events come before the lie."""
        return min(PLACE if self.at is None else self.at, self.events)

    def body_framing(self, *, known_length: bool, old_reader: bool) -> str:
        """`chunked`, `length` or `close`; `old_reader` is one that spoke HTTP/1.0 and so knows no chunks."""
        if self.lie in FRAMING_OF_LIE:
            return FRAMING_OF_LIE[self.lie]
        if self.http10:
            return "close"
        if self.framing != "auto":
            return self.framing
        if known_length or self.length:
            return "length"
        return "close" if old_reader else "chunked"


def _integer(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(f"must be {least} to {most}")
        return value

    return parse


def duration(text: str) -> float:
    """Seconds from `0.02`, `20ms` or `1.5s`; 0 to one day."""
    for suffix, scale in (("ms", 1000.0), ("s", 1.0), ("", 1.0)):
        if text.endswith(suffix):
            seconds = float(text.removesuffix(suffix)) / scale
            break
    if not math.isfinite(seconds) or not 0 <= seconds <= 86400:
        raise ValueError("must be 0 s to one day")
    return seconds


def _size(text: str) -> int:
    for suffix, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("", 1)):
        if text.endswith(suffix):
            number = int(text.removesuffix(suffix)) * scale
            break
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("must be 0 to 1")
    return value


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return text

    return parse


def _error_code(text: str) -> int:
    return ERROR_CODES.index(text.upper()) if text.upper() in ERROR_CODES else _integer(0, 2**32 - 1)(text)


def _split_seed(text: str) -> int | None:
    return None if text == "off" else int(text)


KEYS: dict[str, tuple[Callable[[str], object], str]] = {
    "seed": (_integer(-(2**63)), "ids, text, times and cuts all follow from it"),
    "events": (_integer(0), "content events in the stream, over all choices"),
    "interval": (duration, "time between content events; 0: as fast as the reader takes them"),
    "delay": (duration, "time before the head"),
    "first": (duration, "time between the head and the first event"),
    "size": (_size, "bytes of text in one event, exactly; 0: one word"),
    "jitter": (_fraction, "share of the interval by which it varies"),
    "burst": (_integer(1), "content events written together in one interval"),
    "n": (_integer(0, 128), "choices; 0: as many as the request's `n`"),
    "reasoning": (_flag, "the first quarter of the events is reasoning"),
    "tools": (_flag, "the last quarter of the events is one tool call's arguments"),
    "unicode": (_flag, "emoji, CJK, combining and right-to-left words in the text"),
    "usage": (_one_of("asked", "always", "never"), "the usage chunk of OpenAI's chat and completion streams"),
    "done": (_flag, "send the dialect's terminal event"),
    "ping": (_integer(0), "a comment after every that many events (Anthropic: `event: ping` too); 0: none"),
    "crlf": (_flag, "event streams with CR LF line ends"),
    "cr": (_flag, "event streams with CR line ends"),
    "gzip": (_flag, "short for encoding=gzip"),
    "encoding": (
        _one_of("identity", "gzip", "deflate", "br"),
        "compress the body, flushed at each write, asked or not",
    ),
    "framing": (_one_of("auto", "chunked", "length", "close"), "how the end of the body is told"),
    "http10": (_flag, "answer as HTTP/1.0, delimited by the close"),
    "split": (_split_seed, "cut the body at random into chunks (DATA frames) and socket writes, by this seed; `off`"),
    "gap": (duration, "time between the socket writes of a split body; 0: one turn of the event loop"),
    "sndbuf": (_size, "the socket's send buffer in bytes; 0: the system's"),
    "status": (_integer(200, 599), "400 to 599: an error in the dialect's form instead of the answer"),
    "retry_after": (duration, "the Retry-After field of an answer, in seconds"),
    "lie": (_one_of("none", *sorted(LIES)), "how the answer deceives its reader"),
    "at": (_integer(0), f"content events before the lie; {PLACE} unless told"),
    "total": (_size, "bytes of an endless line, or of what a bomb inflates to"),
    "code": (_error_code, "HTTP/2: the error code of lie=reset and lie=head-reset, by name or number"),
    "times": (_integer(1), "HTTP/2: requests that lie=refuse refuses before it answers"),
    "key": (str, "HTTP/2: requests with the same key are one to lie=refuse; else those with the same Simulate field"),
    "padding": (_integer(0, 255), "HTTP/2: bytes of padding in each DATA frame; unset: none, and no PADDED flag"),
    "frame": (_size, "HTTP/2: the most bytes of content in a DATA frame; 0: as many as the peer takes"),
    "empty": (_integer(0), "HTTP/2: empty DATA frames before each event"),
    "join": (_flag, "HTTP/2: what is said between two waits leaves in as few DATA frames as it can"),
    "length": (_flag, "a content-length in streams too; short for framing=length"),
    "trailers": (_flag, "trailers behind a body, where its framing allows them"),
    "informational": (_integer(0), "103 heads before the final one"),
    "window": (_integer(0, 2**31 - 1), "HTTP/2: the SETTINGS_INITIAL_WINDOW_SIZE that is sent after `at` events"),
}


def read(defaults: Simulation, pairs: Iterable[str]) -> Simulation:
    """`defaults` changed by `key=value` pairs; empty pairs are skipped, the last of a key counts.

    Raises BadSimulation with one line that says what is wrong.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key and not equals:
            continue
        if not equals:
            raise BadSimulation(f"{key!r} has no value: write key=value")
        if key not in KEYS:
            raise BadSimulation(f"unknown key {key!r}; known: {', '.join(KEYS)}")
        try:
            values[key] = KEYS[key][0](value)
        except ValueError as error:
            raise BadSimulation(f"bad value {value!r} for {key!r}: {error}") from None
    simulation = replace(defaults, **values)
    if simulation.crlf and simulation.cr:
        raise BadSimulation("crlf=1 and cr=1 exclude each other")
    if simulation.length and simulation.framing not in ("auto", "length"):
        raise BadSimulation(f"length=1 and framing={simulation.framing} exclude each other")
    if 200 < simulation.status < 400:
        raise BadSimulation(f"bad value '{simulation.status}' for 'status': must be 200 or 400 to 599")
    return simulation


def check(simulation: Simulation, version: str) -> None:
    """Raises BadSimulation when this version of HTTP cannot express what is wanted."""
    other = ONLY_HTTP1 if version == "HTTP/2" else ONLY_HTTP2
    if simulation.lie in other:
        raise BadSimulation(f"lie={simulation.lie} cannot be told over {version}")
    if simulation.http10 and version == "HTTP/2":
        raise BadSimulation("http10=1 cannot be told over HTTP/2")
