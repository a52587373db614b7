"""A compressed event stream in front of the stream that reads its events."""

from __future__ import annotations

from collections.abc import Callable

from relay.core.stream import Stream
from relay.errors import RelayError, RemoteProtocolError, UpstreamCut, UpstreamInvalid
from relay.wire.encoding import Inflater


class InflatedStream:
    """Takes the provider's bytes in the place of a Stream. `broken` is called, once, for bytes that are not of the
    coding; it has to give the provider up."""

    __slots__ = ("_broken", "_inflater", "_stream")

    def __init__(self, stream: Stream, inflater: Inflater, broken: Callable[[RelayError], None]) -> None:
        self._stream = stream
        self._inflater = inflater
        self._broken = broken

    def feed(self, payload: bytes) -> None:
        try:
            for piece in self._inflater.feed(payload):
                self._stream.feed(piece)
        except RemoteProtocolError as error:
            self._broken(UpstreamInvalid(f"the provider's answer is invalid: {error.message}"))

    def end(self) -> None:
        if self._inflater.whole:
            self._stream.end()
        else:
            self._stream.fail(UpstreamCut("the provider's compressed answer ended before its end"))

    def fail(self, error: RelayError) -> None:
        self._stream.fail(error)
