"""What h2 keeps of an HTTP/2 connection: the states of its streams, its settings, the header compression.

h2 never sees DATA, which costs it 17 us a frame, nor GOAWAY, which would end its state machine under live streams; and
it sees no frame that is too long, too frequent or out of place, because it limits none of that (http2.py). Its windows
for what we may send are kept up by hand; its windows for what the peer may send stay still, and ours count.
"""

from __future__ import annotations

from collections.abc import Callable

import hpack
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.events import (
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs

from relay.wire import flood, frames, heads2
from relay.wire.block2 import BLOCK_LIMIT
from relay.wire.head import Headers
from relay.wire.listener2 import Broken, Listener, Stream

# A list of fields (bytes, as RFC 9113, 6.5.2 counts them).
LIST_LIMIT = 32 * 1024
# Streams that we reset: what was under way on them is not the peer's mistake. So many of the latest are known.
_RESET_KNOWN = 1024
# Streams that are through but for their reset may be so many more (connection2.py).
LATE_RESETS = 32


class _H2(H2Connection):
    # As many closed streams as may be asked about; its own 65,536 cost 6.6 MB.
    MAX_CLOSED_STREAMS = 256

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        # It counts a body's length by itself, and takes a wrong one for a mistake in the connection; so it is told
        # that there is no body. heads2.py and stream2.py count.
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.request_method = b"HEAD"
        return stream


class State:
    """`h2` with what it needs around it; what of a connection can be told apart from the walk through its frames.

    `streams` holds those that DATA may come for: the listener enters one when its head has come, and it is removed when
    the peer has ended or reset it. `opened`: how many streams there were."""

    __slots__ = (
        "_budgets",
        "_client",
        "_clock",
        "_excess",
        "_listener",
        "_over",
        "_reset",
        "emit",
        "h2",
        "opened",
        "streams",
    )

    def __init__(
        self, listener: Listener, emit: Callable[[bytes], None], clock: flood.Clock, *, client: bool, streams: int
    ) -> None:
        self._listener = listener
        self.emit = emit
        self._clock = clock
        self._client = client
        self.streams: dict[int, Stream] = {}
        self._over = False
        self._excess = ""
        self.opened = 0
        self._reset: dict[int, None] = {}
        self._budgets = flood.Budgets()
        self.h2 = self._make_h2(streams)

    def _make_h2(self, streams: int) -> H2Connection:
        # What enters is checked in heads2.py, and what leaves was checked when it entered, or is our own.
        h2 = _H2(
            H2Configuration(
                client_side=self._client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # Initial values bind at once, not only after the peer's ACK. h2 closes the connection of a peer that opens
        # one stream too many, so it is told of more, and the listener refuses the rest. A server opens none,
        # but for h2 each head counts that comes for a stream which it has forgotten.
        known = frames.STREAM_ID_LIMIT if self._client else 2 * streams + 2 * LATE_RESETS
        own = {SettingCodes.MAX_CONCURRENT_STREAMS: known, SettingCodes.ENABLE_PUSH: 0}
        h2.local_settings = Settings(client=self._client, initial_values=own)
        h2.decoder.max_header_list_size = LIST_LIMIT
        # What it would say at the start is said in `greet`.
        h2.initiate_connection()
        h2.clear_outbound_data_buffer()
        # A block comes to it whole.
        h2.max_inbound_frame_size = BLOCK_LIMIT + frames.FRAME_LIMIT
        if not self._client:
            h2.receive_data(frames.PREFACE)
        return h2

    def _tell(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Let h2 have a frame, and the listener what came of it."""
        h2 = self.h2
        try:
            events = h2.receive_data(frames.header(len(payload), kind, flags, stream_id) + payload)
        except H2Error as error:
            h2.clear_outbound_data_buffer()
            # Its words are not ours to repeat: they may quote what the peer sent.
            code = int(getattr(error, "error_code", frames.PROTOCOL_ERROR))
            if isinstance(error.__cause__, hpack.HPACKError) and code == frames.PROTOCOL_ERROR:
                code = frames.COMPRESSION_ERROR
            raise Broken(code, f"h2 refuses a frame: {type(error).__name__}") from None
        answer = h2.data_to_send()
        if answer:
            self.emit(answer)
            if answer[3] == frames.RST_STREAM:
                self._charge_reset()
        for event in events:
            self._hear(event)

    def _decode(self, fields: bytes) -> None:
        """A head that was under way as we reset its stream: it concerns nobody, but the compression has to know it. (h2
        would answer with a second reset, and after a while with the connection's end.)"""
        try:
            self.h2.decoder.decode(fields, raw=True)
        except hpack.HPACKError:
            raise Broken(frames.COMPRESSION_ERROR, "a header block cannot be decoded") from None

    def _hear(self, event: Event) -> None:
        listener = self._listener
        if isinstance(event, (RequestReceived, ResponseReceived, InformationalResponseReceived)):
            self.opened += not isinstance(event, InformationalResponseReceived)
            ended = not isinstance(event, InformationalResponseReceived) and event.stream_ended is not None
            listener.head_came(event.stream_id, event.headers, ended)
        elif isinstance(event, TrailersReceived):
            try:
                heads2.check_trailers(event.headers)
            except heads2.Malformed as error:
                self.break_stream(event.stream_id, frames.PROTOCOL_ERROR, error.message)
                return
            if event.stream_id in self.streams:
                self._end(event.stream_id)
        elif isinstance(event, StreamReset):
            self.streams.pop(event.stream_id, None)
            listener.reset_came(event.stream_id, int(event.error_code))
        elif isinstance(event, RemoteSettingsChanged):
            listener.settings_came()

    def _end(self, stream_id: int) -> None:
        self.streams.pop(stream_id, None)
        self._listener.ended(stream_id)

    def _is_idle(self, stream_id: int) -> bool:
        """Whether a stream was never opened (section 5.1.1): a client's are odd, and nobody pushes here."""
        highest = self.h2.highest_outbound_stream_id if self._client else self.h2.highest_inbound_stream_id
        return stream_id > highest or stream_id % 2 == 0

    # What goes out, DATA aside

    def send_head(self, stream_id: int, fields: Headers, *, end: bool) -> H2Stream:
        """Send a head, informational or final; `end`: nothing follows. Returns h2's stream, whose
        `outbound_flow_control_window` is to be kept up by whoever sends DATA on it."""
        self.h2.send_headers(stream_id, fields, end_stream=end)
        self.emit(self.h2.data_to_send())
        stream = self.h2.streams[stream_id]
        stream.request_method = b"HEAD"  # see _H2
        return stream

    def send_end(self, stream_id: int) -> None:
        """End our side of a stream with an empty DATA frame."""
        stream = self.h2.streams.get(stream_id)
        if stream is not None and not stream.closed:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
            self.emit(frames.header(0, frames.DATA, frames.END_STREAM, stream_id))

    def reset(self, stream_id: int, code: int, *, charge: bool = False) -> None:
        """Give a stream up. `charge`: the peer made us do it, and may only so often."""
        self.streams.pop(stream_id, None)
        if charge:
            self._charge_reset()
        stream = self.h2.streams.get(stream_id)
        if stream is None or stream.closed or self._over:
            return
        stream.state_machine.process_input(StreamInputs.SEND_RST_STREAM)
        self.emit(frames.rst_stream(stream_id, code))
        self._reset[stream_id] = None
        if len(self._reset) > _RESET_KNOWN:
            del self._reset[next(iter(self._reset))]

    def goaway(self, last_stream_id: int, code: int) -> None:
        """Say which streams may still be answered; h2 is not told, because it would stop."""
        if not self._over:
            self.emit(frames.goaway(last_stream_id, code))

    @property
    def over(self) -> bool:
        """Whether nothing more is listened to."""
        return self._over

    def end_connection(self) -> None:
        """Nothing more is listened to."""
        self._over = True
        self.streams.clear()

    def break_stream(self, stream_id: int, code: int, message: str) -> None:
        """Reset a stream for a mistake of the peer's."""
        self.reset(stream_id, code, charge=True)
        self._listener.stream_broke(stream_id, code, message)

    def _charge_reset(self) -> None:
        # A provider can reset no more than we have asked for.
        if not self._client and not self._budgets.resets.take(self._clock.now):
            self._excess = "too many streams were reset"
