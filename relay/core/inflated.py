"""A compressed event stream in front of the stream that reads its events.

        provider -> InflatedStream.feed -> Stream.feed -> reader
           ^ held            ^ holds back              | full
           +-----------------+-------------------------+

A few bytes may inflate to megabytes. So what the reader has no room for is not inflated: the decoder stops between two
steps while the reader holds this stream's gate, and meanwhile holds the provider's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relay.core.stream import Stream
from relay.errors import RelayError, RemoteProtocolError, UpstreamCut, UpstreamInvalid
from relay.flow.gate import Gate
from relay.wire.encoding import Inflater


class InflatedStream:
    """Takes the provider's bytes in the place of a Stream. `reader_gate` is the one that the stream's reader holds,
    `provider_gate` the connection's. `parted` is called when the provider is through, which may be long before the
    stream is. `broken` is called, once, for bytes that are not of the coding; it has to give the provider up."""

    __slots__ = (
        "_broken",
        "_holding",
        "_inflater",
        "_over",
        "_parted",
        "_provider_gate",
        "_reader_gate",
        "_stream",
        "_waiting",
        "_whole",
    )

    def __init__(
        self,
        stream: Stream,
        inflater: Inflater,
        reader_gate: Gate,
        provider_gate: Gate,
        parted: Callable[[], None],
        broken: Callable[[RelayError], None],
    ) -> None:
        self._stream = stream
        self._inflater = inflater
        self._reader_gate = reader_gate
        self._provider_gate = provider_gate
        self._parted = parted
        self._broken = broken
        self._waiting: list[Iterator[bytes]] = []
        self._holding = False
        self._over = False  # the stream has been given up, perhaps by a piece that was just fed to it
        self._whole: bool | None = None  # how the provider ended, None for not yet
        reader_gate.source = self

    def feed(self, payload: bytes) -> None:
        self._waiting.append(self._inflater.feed(payload))
        self._pump()

    def end(self) -> None:
        self._parted()
        self._whole = True
        self._pump()

    def fail(self, error: RelayError) -> None:
        # What waits was sent before the failure, but the reader has no room for it; the stream ends here.
        self._over = True
        self._waiting.clear()
        self._stream.fail(error)

    # The source that the reader holds

    def pause_reading(self) -> None:
        if not self._holding:
            self._holding = True
            self._provider_gate.hold()

    def resume_reading(self) -> None:
        self._pump()
        # What was pumped may have filled the reader again.
        if self._holding and not self._reader_gate.closed:
            self._holding = False
            self._provider_gate.release()

    def _pump(self) -> None:
        """Inflate what waits, as far as the reader has room. For one that has left there is nothing to be done."""
        if self._over or self._stream.reader.gone:
            return
        try:
            while self._waiting:
                for piece in self._waiting[0]:
                    self._stream.feed(piece)
                    if self._over or self._reader_gate.closed:
                        return
                if self._waiting:  # else the stream has failed in the meantime
                    self._waiting.pop(0)
        except RemoteProtocolError as error:
            self._waiting.clear()
            self._broken(UpstreamInvalid(f"the provider's answer is invalid: {error.message}"))
            return
        if self._whole:
            self._whole = None
            self._finish()

    def _finish(self) -> None:
        if self._inflater.whole:
            self._stream.end()
        else:
            self._stream.fail(UpstreamCut("the provider's compressed answer ended before its end"))
