"""The two ends of an HTTP/2 connection that a script can play, and the verdicts it can ask for.

A verdict follows h2spec: a connection error is a GOAWAY with one of the codes, or the connection's end, whatever was
said before it; a stream error is a RST_STREAM with one of the codes on that stream, or a connection error. But unless
H2_EXACT=0 says so, a wrong code is a failure, as is an end without GOAWAY.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Self

from hpack import Decoder

from tests.http2 import frames
from tests.http2.frames import Code, Fields, Frame, Kind, Setting

# How long a verdict may take before the script gives up on it (seconds).
DEADLINE = 8.0
EXACT = os.environ.get("H2_EXACT", "1") == "1"
_OPAQUE = b"conforms"


class Peer:
    """One end: sends any bytes, reads frames. `seen` is every frame that came."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.seen: list[Frame] = []
        self.settings: dict[int, int] = {}
        self._buffer = b""
        self._decoder = Decoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """In one write, so that they most likely come in one read. To who has left: what he said tells why."""
        try:
            self.socket.settimeout(DEADLINE)
            self.socket.sendall(b"".join(pieces))
        except (ConnectionError, ssl.SSLError):
            pass

    def finish(self) -> None:
        """Say that nothing more comes, and read until the other side has closed as well."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return
        self.read_to_end()

    def read_to_end(self) -> bytes:
        """All bytes, frames or not, until the connection ends."""
        deadline = time.monotonic() + DEADLINE
        while more := self._receive(deadline):
            self._buffer += more
        rest, self._buffer = self._buffer, b""
        return rest

    # What must come.

    def expect_settings(self) -> Frame:
        """The first frame of a connection (3.4)."""
        first = self.read(time.monotonic() + DEADLINE)
        assert first is not None, "the connection ended before SETTINGS"
        assert first.kind == Kind.SETTINGS, f"the first frame is {first}"
        assert not first.is_ack, "the first frame is an acknowledgment"
        self.settings = first.settings()
        return first

    def expect_settings_ack(self) -> None:
        self._until(lambda came: came.kind == Kind.SETTINGS and came.is_ack, "an acknowledgment of SETTINGS")

    def expect_ping_ack(self, opaque: bytes = _OPAQUE) -> None:
        """The next acknowledgment of a PING is this one's."""
        came = self._until(lambda came: came.kind == Kind.PING and came.is_ack, "a PING's acknowledgment")
        assert came.payload == opaque, f"the PING {came.payload!r} was acknowledged, which is not {opaque!r}"

    def expect_alive(self) -> None:
        """A PING goes and comes back: all before it was taken."""
        self.send(frames.ping(_OPAQUE))
        self.expect_ping_ack()

    def expect_headers(self, stream: int) -> Frame:
        return self._until_of(stream, lambda came: came.kind == Kind.HEADERS, f"HEADERS on stream {stream}")

    def expect_data(self, stream: int) -> Frame:
        """The next DATA of a stream that says something: octets, or the end."""
        return self._until_of(
            stream,
            lambda came: came.kind == Kind.DATA and bool(came.payload or came.ends_stream),
            f"DATA on stream {stream}",
        )

    def expect_end(self, stream: int) -> None:
        """Until the other side has ended the stream, as it should."""
        self._until_of(stream, lambda came: came.ends_stream, f"the end of stream {stream}")

    # What must go wrong.

    def expect_connection_error(self, *codes: Code) -> None:
        """The connection ends, by GOAWAY with one of the codes or without."""
        self._expect_error(codes, lambda came: False, f"a connection error {_names(codes)}")

    def expect_stream_error(self, stream: int, *codes: Code) -> None:
        """The stream ends by RST_STREAM with one of the codes, or the connection does."""
        self._expect_error(
            codes,
            lambda came: came.kind == Kind.RST_STREAM and came.stream == stream,
            f"an error {_names(codes)} of stream {stream}",
        )

    def _expect_error(self, codes: tuple[Code, ...], reset: Callable[[Frame], bool], what: str) -> None:
        came = self._verdict(
            lambda came: (came.kind == Kind.GOAWAY or reset(came)) and (EXACT or came.code in codes), what
        )
        if EXACT:
            assert came is not None, f"the connection ended without {what}; {self._story()}"
            assert came.code in codes, f"{came}, not {what}"

    def expect_goaway(self, *codes: Code) -> Frame:
        """A GOAWAY and nothing less."""
        came = self._verdict(lambda came: came.kind == Kind.GOAWAY, f"GOAWAY {_names(codes)}")
        assert came is not None, f"the connection ended without GOAWAY; {self._story()}"
        assert came.code in codes, f"{came}, not {_names(codes)}"
        return came

    def expect_reset(self, stream: int, *codes: Code) -> None:
        """A RST_STREAM, and the connection lives on."""
        came = self._verdict(
            lambda came: came.kind == Kind.GOAWAY or (came.kind == Kind.RST_STREAM and came.stream == stream),
            f"RST_STREAM {_names(codes)} on stream {stream}",
        )
        assert came is not None, f"the connection ended; {self._story()}"
        assert came.kind == Kind.RST_STREAM, f"{came}, not a stream error alone"
        assert came.code in codes, f"{came}, not {_names(codes)}"
        self.expect_alive()

    def expect_close_or_ping_ack(self, opaque: bytes) -> None:
        came = self._verdict(lambda came: came.kind == Kind.PING and came.is_ack, "the end or a PING's acknowledgment")
        assert came is None or came.payload == opaque

    def expect_close(self) -> None:
        """The connection ends, whatever is said before."""
        self._verdict(lambda came: False, "the connection's end")

    # Reading.

    def read(self, deadline: float) -> Frame | None:
        """The next frame, a field block as one with its CONTINUATIONs; None at the connection's end."""
        came = self._read_one(deadline)
        if came is None:
            return None
        if came.kind == Kind.HEADERS:
            content = came.payload
            if came.flags & frames.PADDED:
                content = content[1 : len(content) - content[0]]
            if came.flags & frames.WITH_PRIORITY:
                content = content[5:]
            flags = came.flags
            while not flags & frames.END_HEADERS:
                more = self._read_one(deadline)
                if more is None:
                    return None
                assert more.kind == Kind.CONTINUATION, f"{more} inside a field block"
                assert more.stream == came.stream, f"{more} inside a field block of stream {came.stream}"
                content, flags = content + more.payload, flags | more.flags
            decoded = tuple((_text(pair[0]), _text(pair[1])) for pair in self._decoder.decode(content))
            came = Frame(Kind.HEADERS, flags, came.stream, content, decoded)
        elif came.kind == Kind.DATA and came.flags & frames.PADDED:
            came = Frame(Kind.DATA, came.flags, came.stream, came.payload[1 : len(came.payload) - came.payload[0]])
        self.seen.append(came)
        return came

    def _read_one(self, deadline: float) -> Frame | None:
        while not self.waiting:
            more = self._receive(deadline)
            if not more:
                return None
            self._buffer += more
        end = self._announced()
        stream = int.from_bytes(self._buffer[5 : frames.HEADER], "big") & frames.MAX_WINDOW
        came = Frame(self._buffer[3], self._buffer[4], stream, self._buffer[frames.HEADER : end])
        self._buffer = self._buffer[end:]
        return came

    @property
    def waiting(self) -> bool:
        """Whether a frame can be read without the socket."""
        return len(self._buffer) >= frames.HEADER and len(self._buffer) >= self._announced()

    def _announced(self) -> int:
        return frames.HEADER + int.from_bytes(self._buffer[:3], "big")

    def _receive(self, deadline: float) -> bytes:
        try:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            return self.socket.recv(65536)
        except TimeoutError:
            raise AssertionError(f"nothing came for {DEADLINE} s; {self._story()}") from None
        except (ConnectionError, ssl.SSLError):
            return b""

    def _until(self, wanted: Callable[[Frame], bool], what: str) -> Frame:
        came = self._verdict(lambda came: wanted(came) or came.kind == Kind.GOAWAY, what)
        assert came is not None, f"the connection ended before {what}; {self._story()}"
        assert wanted(came), f"{came} came before {what}; {self._story()}"
        return came

    def _until_of(self, stream: int, wanted: Callable[[Frame], bool], what: str) -> Frame:
        def of_stream(came: Frame) -> bool:
            return came.stream == stream and (wanted(came) or came.kind == Kind.RST_STREAM)

        came = self._until(of_stream, what)
        assert wanted(came), f"{came} came before {what}; {self._story()}"
        return came

    def _verdict(self, wanted: Callable[[Frame], bool], what: str) -> Frame | None:
        deadline = time.monotonic() + DEADLINE
        try:
            while (came := self.read(deadline)) is not None:
                if wanted(came):
                    return came
        except AssertionError as silent:
            raise AssertionError(f"{what} did not come: {silent}") from None
        return None

    def _story(self) -> str:
        return "so far: " + (", ".join(map(str, self.seen)) or "no frame")


class ClientPeer(Peer):
    """A client, in front of a server under test."""

    def __init__(self, connection: socket.socket, head: Fields) -> None:
        super().__init__(connection)
        self._head = tuple(head)

    def handshake(self, *values: tuple[int, int]) -> None:
        """Both prefaces and both acknowledgments (3.4)."""
        self.send(frames.PREFACE, frames.settings(*values))
        self.expect_settings()
        self.send(frames.settings_ack())
        self.expect_settings_ack()

    def head(self, *more: tuple[str, str], without: str = "", **pseudo: str) -> list[tuple[str, str]]:
        """The fields of a request that is answered "ok" and a line feed; method="POST" and the like replace."""
        fields = [(name, pseudo.get(name[1:], value)) for name, value in self._head if name != without]
        return [*fields, *more]

    def block(self, *more: tuple[str, str], without: str = "", **pseudo: str) -> bytes:
        return frames.block(self.head(*more, without=without, **pseudo))

    def upload(self, *more: tuple[str, str]) -> bytes:
        """The field block of a request that is answered when its body is whole."""
        return self.block(*more, method="POST", path="/echo")

    def get(self, stream: int) -> bytes:
        """A whole request."""
        return frames.headers(stream, self.block())

    def post(self, stream: int, *more: tuple[str, str]) -> bytes:
        """A request that stays open: its body is still to come."""
        return frames.headers(stream, self.upload(*more), frames.END_HEADERS)


class ServerPeer(Peer):
    """A server, behind a client under test."""

    def handshake(self, *values: tuple[int, int]) -> None:
        """Both prefaces, and our acknowledgment; the other one may come with the request."""
        self.expect_preface()
        self.send(frames.settings(*values))
        self.expect_settings()
        self.send(frames.settings_ack())

    def expect_preface(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while len(self._buffer) < len(frames.PREFACE):
            more = self._receive(deadline)
            assert more, f"the connection ended inside the client's preface: {self._buffer!r}"
            self._buffer += more
        preface, self._buffer = self._buffer[: len(frames.PREFACE)], self._buffer[len(frames.PREFACE) :]
        assert preface == frames.PREFACE

    def take_request(self, head: Frame | None = None, *, acked: bool = False) -> Frame:
        """A whole request, the head of which may have come; and the acknowledgment of our SETTINGS, if it has not."""
        whole = head is not None and head.ends_stream
        while not (whole and acked):
            came = self._until(
                lambda came: came.kind in (Kind.HEADERS, Kind.DATA) or (came.kind == Kind.SETTINGS and came.is_ack),
                "a whole request and an acknowledgment of SETTINGS",
            )
            acked = acked or came.kind == Kind.SETTINGS
            head = came if came.kind == Kind.HEADERS else head
            whole = whole or came.ends_stream
        assert head is not None
        return head

    def send_within_windows(self, stream: int, content: bytes, times: int) -> None:
        """DATA of this content, each as soon as both windows have room for it."""
        for count in range(times):
            while self._window(stream) < (count + 1) * len(content):
                self._until(lambda came: came.kind == Kind.WINDOW_UPDATE, "WINDOW_UPDATE")
            self.send(frames.data(stream, content))

    def _window(self, stream: int) -> int:
        """How much may have been sent on a stream, the only one, so far."""

        def given(place: int) -> int:
            updates = (came for came in self.seen if came.kind == Kind.WINDOW_UPDATE and came.stream == place)
            return sum(int.from_bytes(came.payload, "big") for came in updates)

        initial = self.settings.get(Setting.INITIAL_WINDOW_SIZE, 65535)
        return min(initial + given(stream), 65535 + given(0))

    def answer(self, stream: int, content: bytes = b"answer") -> None:
        self.send(frames.headers(stream, RESPONSE, frames.END_HEADERS), frames.data(stream, content, frames.END_STREAM))


# The head of an answer whose length its end says.
RESPONSE = frames.block([(":status", "200"), ("content-type", "text/plain")])
# A field block of its own, for CONTINUATION.
MORE_FIELDS = frames.block([("x-more", "fields"), ("x-and-more", "of them")])
NO_WINDOW = (Setting.INITIAL_WINDOW_SIZE, 0)


def _names(codes: tuple[Code, ...]) -> str:
    return " or ".join(code.name for code in codes)


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
