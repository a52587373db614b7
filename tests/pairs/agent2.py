"""A client of HTTP/2: one connection for all its requests, by h2 over a blocking socket.

It opens the connection's window as bytes come, so that no call is in another's way, and a stream's window only as its
call is read: a call that nobody reads is a stream that is stuck. GOAWAY is kept from h2, which would end its state
under streams that live on.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings

from tests.pairs.calls import CONNECTION, Agent, Call, Fields, pairs
from tests.programs import PATIENCE

CONNECTION_WINDOW = 16 * 1024 * 1024
_DATA, _GOAWAY = 0, 7
_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"


class Client2(Agent):
    """`goaways` are those that came, as last stream and code; `over` says that the connection has ended. `window`:
    what each stream may send ahead of its reader."""

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None = None,
        *,
        receive_buffer: int | None = None,
        window: int = 65535,
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Else an opened window waits for an acknowledgment of the one before.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self._secure = tls is not None
        if tls is not None:
            secured = tls.wrap_socket(self.socket, server_hostname="localhost")
            assert secured.selected_alpn_protocol() == "h2"
            self.socket = secured
        # Requests that no client should make are made here.
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.h2.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW)
        self.goaways: list[tuple[int, ErrorCodes]] = []
        self.over = False
        self.pongs = 0
        self._rest = b""
        self._calls: dict[int, Call2] = {}
        self.flush()

    def ask(
        self,
        method: str = "GET",
        target: str = "/",
        body: bytes | None = None,
        headers: Fields = (),
        *,
        more: bool = False,
        length: int | None = None,
    ) -> Call2:
        number = self.h2.get_next_available_stream_id()
        call = self._calls[number] = Call2(self, number)
        if self.over:
            call.finish(CONNECTION)
            return call
        fields = [(":method", method), (":scheme", "https" if self._secure else "http")]
        fields += [(":authority", "relay.test"), (":path", target)]
        fields += [(name.lower(), value) for name, value in pairs(headers)]
        if body is not None and not more:
            fields.append(("content-length", str(len(body))))
        elif length is not None:
            fields.append(("content-length", str(length)))
        self.h2.send_headers(number, fields, end_stream=not body and not more)
        self.flush()
        if body:
            # The end in the last frame, as clients have it: an answer may else come before the relay has the end.
            call.send(body, last=not more)
        return call

    def ping(self) -> None:
        """There and back: all that was said before has been taken, and all that was answered at once is here."""
        wanted = self.pongs + 1
        self.h2.ping(b"\0" * 8)
        self.flush()
        while self.pongs < wanted:
            assert self.pump(), "the connection ended before a PING came back"

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def closed(self) -> bool:
        while self.pump():
            pass
        return True

    # Frames

    def flush(self) -> None:
        self.put(self.h2.data_to_send())

    def put(self, data: bytes) -> None:
        """Any bytes."""
        try:
            if data:
                self.socket.sendall(data)
        except (ConnectionError, ssl.SSLError):
            return  # what it said, if anything, can still be read

    def pump(self) -> bool:
        """Read once; False when the connection has ended."""
        if self.over:
            return False
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.over = True
            for call in self._calls.values():
                call.finish(CONNECTION)
            return False
        self._rest += data
        at = 0
        while len(self._rest) - at >= 9:
            end = at + 9 + int.from_bytes(self._rest[at : at + 3])
            if end > len(self._rest):
                break
            self._frame(self._rest[at:end])
            at = end
        self._rest = self._rest[at:]
        self.flush()
        return True

    def _frame(self, frame: bytes) -> None:
        call = self._calls.get(int.from_bytes(frame[5:9]))
        if frame[3] == _GOAWAY:
            self.goaways.append((int.from_bytes(frame[9:13]), ErrorCodes(int.from_bytes(frame[13:17]))))
        elif frame[3] == _DATA and call is not None and call.left:
            # It was under way when the call was left.
            if len(frame) > 9:
                self.h2.increment_flow_control_window(len(frame) - 9)
        else:
            for event in self.h2.receive_data(frame):
                self._happened(event)

    def _happened(self, event: Event) -> None:
        match event:
            case PingAckReceived():
                self.pongs += 1
            case DataReceived():
                if event.flow_controlled_length:
                    self.h2.increment_flow_control_window(event.flow_controlled_length)
                self._calls[event.stream_id].queue.append(event.data)
            case ResponseReceived():
                call = self._calls[event.stream_id]
                fields = [(str(name), str(value)) for name, value in event.headers]
                call.fields = [field for field in fields if field[0] != ":status"]
                call.status = int(dict(fields)[":status"])
            case InformationalResponseReceived():
                fields = [(str(name), str(value)) for name, value in event.headers]
                self._calls[event.stream_id].informational.append(int(dict(fields)[":status"]))
            case StreamEnded():
                self._calls[event.stream_id].finish("")
            case StreamReset():
                self._calls[event.stream_id].finish(ErrorCodes(event.error_code or 0).name)


class Call2(Call):
    """`number` is its stream; `left` says that it has been given up by us, `reset_by` is the code of a RST_STREAM, even
    of one behind the answer's end."""

    def __init__(self, client: Client2, number: int) -> None:
        super().__init__()
        self.client = client
        self.number = number
        self.queue: deque[bytes] = deque()
        self.left = False
        self.reset_by = ""
        self._answered = False
        self._sent = False

    def send(self, data: bytes, *, last: bool = False) -> bool:
        h2 = self.client.h2
        at = 0
        while at < len(data):
            if self.reset_by or self.left:
                return False
            room = min(h2.local_flow_control_window(self.number), h2.max_outbound_frame_size, len(data) - at)
            if room > 0:
                h2.send_data(self.number, data[at : at + room], end_stream=last and at + room == len(data))
                at += room
                self.client.flush()
            elif not self.client.pump():
                return False
        return True

    @property
    def room(self) -> int:
        """What may be sent now."""
        return self.client.h2.local_flow_control_window(self.number)

    def end(self) -> None:
        if not self.reset_by and not self.left:
            self.client.h2.end_stream(self.number)
            self.client.flush()

    def leave(self) -> None:
        if not self._answered and not self.reset_by:
            self.client.h2.reset_stream(self.number, ErrorCodes.CANCEL)
            self.client.flush()
        self.left = True

    def finish(self, broken: str) -> None:
        """Its end, if that has not come before."""
        if broken:
            self.reset_by = broken
        if not self._answered:
            self._answered = True
            self.broken = broken
            self.clean = not broken

    def _more(self) -> bool:
        if self.left:
            return False
        if self.queue:
            piece = self.queue.popleft()
            self._take(piece)
            if piece and not self._answered:
                self.client.h2.increment_flow_control_window(len(piece), self.number)
                self.client.flush()
            return True
        return not self._answered and (self.client.pump() or True)
