"""h2's server side of a connection, made a stricter judge of what its peer sends (RFC 9113).

h2 keeps the windows, the states and the header rules; what it refuses is a ProtocolError. Four things are added:
every frame is seen before h2 hides some of them; what h2 forgives without a word is called an error as well; each
setting holds from its own acknowledgement on, the limit on streams too, since before it the peer cannot know them
(6.5.3); and a GOAWAY, in either direction, leaves the streams that it allows alive (6.8), while h2 ends the connection
with it.

The methods that are overridden are h2's own and not for users: h2 is held to one minor version for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.events import ConnectionTerminated, Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from h2.windows import WindowManager
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

MAX_HEADER_LIST = 1024 * 1024  # as much as a head over HTTP/1.1 may have
HIGHEST_STREAM = 2**31 - 1
LONG_FIELD = 4096


class Window(WindowManager):
    """A stream's window of what its peer may send. Below zero, an empty frame is still allowed (6.9.2)."""

    def window_consumed(self, size: int) -> None:
        if size:
            super().window_consumed(size)


class Plainly(Encoder):
    """Spares long fields the Huffman code, which costs hpack seconds for a huge one, and everybody waits."""

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        fields = list(headers)
        return super().encode(fields, huffman=huffman and all(len(value) < LONG_FIELD for _, value, *_ in fields))


class Referee(H2Connection):
    """`seen` is called with each frame; `complaint` with each violation that does not end the connection."""

    def __init__(self, max_streams: int, seen: Callable[[Frame], None], complaint: Callable[[str], None]) -> None:
        # Headers go out as they are given: some lies are in them. What comes in is checked, and kept as it came.
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self.encoder = Plainly()
        self._reported: list[Event] = []
        self._seen = seen
        self._complaint = complaint
        self._max_streams = max_streams
        self._proposed: deque[dict[SettingCodes | int, int]] = deque()  # settings that the peer has not acknowledged
        self._limits = {SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST}
        self.decoder.max_header_list_size = MAX_HEADER_LIST

    def initiate_connection(self) -> None:
        limits = {**self._limits, SettingCodes.MAX_CONCURRENT_STREAMS: self._max_streams}
        self.local_settings = Settings(client=False, initial_values=limits)
        super().initiate_connection()
        # Said, and not yet held against the peer.
        self.local_settings = Settings(client=False, initial_values=self._limits)
        self._proposed.append({SettingCodes.MAX_CONCURRENT_STREAMS: self._max_streams})

    def update_settings(self, new_settings: dict[SettingCodes | int, int]) -> None:
        # h2 takes the first acknowledgement that comes for that of all settings under way.
        self._proposed.append(new_settings)
        frame = SettingsFrame(0)
        frame.settings = dict(new_settings)
        self._prepare_for_sending([frame])

    def goaway(self, last_stream_id: int) -> bytes:
        """The bytes of a GOAWAY without an error, of which h2 knows nothing."""
        return GoAwayFrame(0, last_stream_id=last_stream_id).serialize()

    def unaccounted(self, size: int) -> None:
        """DATA was written past h2: the peer's window for the connection is smaller by it."""
        self.outbound_flow_control_window -= size

    def receive_data(self, data: Any) -> list[Event]:
        self._reported.clear()
        return super().receive_data(data)

    def reported(self) -> list[Event]:
        """The events of the last `receive_data` up to where it raised an error; h2 keeps them to itself."""
        return self._reported

    # From h2

    def _receive_frame(self, frame: Frame) -> list[Event]:
        self._seen(frame)
        if isinstance(frame, SettingsFrame) and "ACK" in frame.flags:
            if self._proposed:
                self.local_settings.update(self._proposed.popleft())
            else:
                self._complaint("an acknowledgement of SETTINGS that were not sent")
        elif isinstance(frame, RstStreamFrame) and frame.stream_id > self.highest_inbound_stream_id:
            raise ProtocolError(f"RST_STREAM on idle stream {frame.stream_id}")  # 5.1
        elif isinstance(frame, (DataFrame, HeadersFrame)) and self._stream_is_closed_by_end(frame.stream_id):
            # h2 answers such DATA with a RST_STREAM and says nothing.
            self._complaint(f"{type(frame).__name__} on stream {frame.stream_id} after its end")
        events = super()._receive_frame(frame)
        self._reported += events
        return events

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._inbound_window_manager = Window(self.local_settings.initial_window_size)
        return stream
