"""A reader's HTTP/2 connection (RFC 9113): frames in, by h2; one task for each stream's answer.

The referee judges every frame that comes in; its verdicts are in the counts, and a violation ends the connection. A
stream ends at once when its reader resets it, and all do when the connection is lost or the reader sends a FIN: those
answers are aborted. Those that go down with a connection that a lie breaks off are broken, as is what a GOAWAY leaves
behind.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import cast

import orjson
from answer import Outcome
from answer2 import Answer2
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame, WindowUpdateFrame
from intake import MAX_BODY, Request
from outlet import Outlet
from referee import HIGHEST_STREAM, Referee
from serve1 import prepare
from service import Provider, said
from simulation import ERROR_CODES
from stream2 import Stream

NO_ERROR = ERROR_CODES.index("NO_ERROR")
REFUSED_STREAM = ERROR_CODES.index("REFUSED_STREAM")
GRACE = 0.05  # seconds between the two GOAWAYs of a graceful end (RFC 9113, 6.8: at least a round trip)
HALF_A_FRAME = b"\x00\x00\x10\x01"  # of the nine bytes before a frame


class Connection2(asyncio.Protocol):
    """One reader's connection."""

    h2: Referee
    outlet: Outlet
    _transport: asyncio.Transport

    def __init__(self, provider: Provider, max_streams: int) -> None:
        self.counts = provider.counts
        self._provider = provider
        self._max_streams = max_streams
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}  # streams that wait for a window or the socket
        self._number = 0  # given when the first counted request comes
        self._asked = False
        self._counted = 0  # streams under way that are in the counts
        self._frames: list[Frame] = []  # seen before it was known whether they are in the counts
        self._last: int | None = None  # the stream id of the last GOAWAY: what is above it is ignored
        self._deaf = False
        self._over = False
        self._send_buffer = 0
        self._next_lie = ""  # what a keep-alive lie does to the next request

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.h2 = Referee(self._max_streams, self._seen, self._complain)
        self.outlet = Outlet(self._transport, self.h2.data_to_send, self._wake_all)
        prepare(self._transport)  # may already pause the outlet, for what TLS has still to write
        self.h2.initiate_connection()
        self.outlet.soon()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self._over:
            return
        try:
            events = self.h2.receive_data(data)
        except H2Error as error:
            # What came before the fault in the same read has come all the same.
            with suppress(H2Error):
                for event in self.h2.reported():
                    self._happened(event)
            self._fail(error)
            return
        for event in events:
            self._happened(event)
        self.outlet.soon()
        self._close_if_done()

    def eof_received(self) -> bool:
        if self._streams:
            self._readers_left()
            self._transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self.outlet.lost()
        self._readers_left()
        if self._number:
            self.counts.add_open(-1, http2=True)
        elif not self._asked:
            self.counts.add("connections_silent")
            for frame in self._frames:
                self._tally(frame)

    def pause_writing(self) -> None:
        self.outlet.paused(True)

    def resume_writing(self) -> None:
        self.outlet.paused(False)

    # For streams and answers

    async def change(self, number: int) -> None:
        """Until it may be otherwise how much the stream can send."""
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            if self._waiting.get(number) is future:
                del self._waiting[number]

    def settings(self, changed: dict[SettingCodes | int, int]) -> None:
        self.h2.update_settings(changed)
        self.outlet.soon()

    def go_away(self, last: int) -> None:
        """GOAWAY: streams above `last` are left alone, the connection closes when the others have ended."""
        self.outlet.flush()
        self.outlet.write(self.h2.goaway(last))
        self._last = last if self._last is None else min(self._last, last)
        for stream in [stream for stream in self._streams.values() if stream.number > last]:
            self.counts.add("ignored")
            self._drop(stream, "broken")
        self._close_if_done()

    def go_away_gracefully(self) -> None:
        """The two steps of RFC 9113, 6.8: no new streams, please; and then, which ones came all the same."""
        self.outlet.flush()
        self.outlet.write(self.h2.goaway(HIGHEST_STREAM))
        asyncio.get_running_loop().call_later(GRACE, self._really_go_away)

    def deafen(self) -> None:
        """No reaction any more; only that the reader closes is still noticed."""
        self._deaf = True
        self.outlet.silence()

    # Frames

    def _seen(self, frame: Frame) -> None:
        if self._number:
            self._tally(frame)
        else:
            self._frames.append(frame)

    def _tally(self, frame: Frame) -> None:
        if isinstance(frame, WindowUpdateFrame):
            self.counts.add("window_updates")
        elif isinstance(frame, RstStreamFrame):
            code = frame.error_code
            self.counts.add_reset(ERROR_CODES[code] if code < len(ERROR_CODES) else f"0x{code:x}")
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.counts.add("pings_received")
        elif isinstance(frame, GoAwayFrame):
            self.counts.add("goaways_received")

    def _complain(self, message: str) -> None:
        self.counts.add_error(message)

    def _happened(self, event: Event) -> None:
        match event:
            case DataReceived():
                # Also for what is ignored: the window of the connection is everybody's.
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if stream := self._streams.get(event.stream_id):
                    self._body_came(stream, event.data)
            case WindowUpdated():
                if event.stream_id:
                    self._wake(event.stream_id)
                else:
                    self._wake_all()
            case RequestReceived():
                self._request_came(event)
            case StreamEnded():
                if stream := self._streams.get(event.stream_id):
                    self._start(stream)
            case StreamReset():
                if not event.remote_reset:
                    self._complain(f"stream {event.stream_id}: {event.error_code!r}")
                if stream := self._streams.get(event.stream_id):
                    self._drop(stream, "aborted")
            case RemoteSettingsChanged():
                self._wake_all()

    def _fail(self, error: H2Error) -> None:
        """h2 has written the GOAWAY that says why."""
        self._complain(f"{type(error).__name__}: {error}" + (f" ({error.__cause__})" if error.__cause__ else ""))
        self._readers_left()
        self._over = True
        self.outlet.close()

    # Requests

    def _request_came(self, event: RequestReceived) -> None:
        number = event.stream_id
        if self._last is not None and number > self._last:
            self.counts.add("ignored")
            return
        headers = [(str(name), str(value)) for name, value in event.headers]
        pseudo = dict(reversed(headers))
        request = Request(pseudo.get(":method", ""), pseudo.get(":path", ""), "HTTP/2", headers)
        counted = not request.path.startswith("/sim/")
        stream = Stream(self, number, request, counted=counted)
        self._asked = True
        if len(self._streams) >= self._max_streams:
            # It may not know the limit yet; if it does, h2 has seen to it.
            self.counts.add("refused")
            self.h2.reset_stream(number, REFUSED_STREAM)
            return
        if counted:
            self._count_connection()
        if counted and self._provider.refuses(request):
            self._provider.arrival(request, self._number)
            self.counts.add("refused")
            self.counts.add("broken")
            self.h2.reset_stream(number, REFUSED_STREAM)
            return
        self._streams[number] = stream
        if counted:
            self._counted += 1
            self.counts.add_stream(1, self._counted)
        if event.stream_ended is None and (request.header("expect") or "").lower() == "100-continue":
            stream.headers([(":status", "100")])

    def _count_connection(self) -> None:
        if not self._number:
            self._provider.connections += 1
            self._number = self._provider.connections
            self.counts.add("connections")
            self.counts.add_open(1, http2=True)
            for frame in self._frames:
                self._tally(frame)
        self._frames.clear()

    def _body_came(self, stream: Stream, data: bytes) -> None:
        body = stream.request.body
        body += data
        if len(body) > MAX_BODY and stream.task is None:
            content = orjson.dumps(said(f"a body over {MAX_BODY} bytes"))
            stream.task = asyncio.get_running_loop().create_task(self._refuse(stream, 413, content))

    async def _refuse(self, stream: Stream, status: int, content: bytes) -> None:
        """Answer without having read everything: what is still under way need not come (RFC 9113, 8.1)."""
        await self._document(stream, status, content)
        stream.code = NO_ERROR
        self._go_on(stream, Outcome.CANCEL)

    def _start(self, stream: Stream) -> None:
        if stream.task is not None:
            return
        if stream.counted:
            stream.arrival = self._provider.arrival(stream.request, self._number)
        answer = self._answer(stream) if stream.counted else self._tell(stream)
        stream.task = asyncio.get_running_loop().create_task(answer)

    async def _tell(self, stream: Stream) -> None:
        status, content = await self._provider.told(stream.request)
        await self._document(stream, status, orjson.dumps(content))
        self._go_on(stream, Outcome.REUSE)

    async def _document(self, stream: Stream, status: int, content: bytes) -> None:
        fields = [("content-type", "application/json"), ("content-length", str(len(content)))]
        stream.headers([(":status", str(status)), *fields])
        await stream.data(content, end=True)

    async def _answer(self, stream: Stream) -> None:
        if self._next_lie:
            if self._next_lie == "half-answer-stale":
                stream.raw(HALF_A_FRAME)
            self._go_on(stream, Outcome.BREAK)
            return
        simulation, script = self._provider.prepared(stream.request)
        if simulation.sndbuf and simulation.sndbuf != self._send_buffer:
            self._send_buffer = simulation.sndbuf
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        try:
            outcome = await Answer2(stream, stream.request, script, simulation).run()
        except H2Error as error:
            # Our own fault, or a reader's that h2 noticed only now.
            self._fail(error)
            return
        if simulation.lie in ("stale", "half-answer-stale"):
            self._next_lie = simulation.lie
        self._go_on(stream, Outcome.CLOSE if simulation.lie == "close-idle" else outcome)

    # Ends

    def _go_on(self, stream: Stream, outcome: Outcome) -> None:
        """After an answer: count it, and what becomes of the stream and the connection."""
        whole = outcome in (Outcome.REUSE, Outcome.CLOSE)
        if outcome is Outcome.CANCEL:
            with suppress(StreamClosedError):  # the request's end has come meanwhile, and nothing is left to reset
                self.h2.reset_stream(stream.number, stream.code)
            self.outlet.soon()
        stream.task = None  # it is this one, and ends by itself
        self._drop(stream, "finished" if whole else "broken")
        if outcome in (Outcome.CLOSE, Outcome.BREAK, Outcome.RESET):
            self._over = True
            for other in list(self._streams.values()):
                self._drop(other, "broken")
            if outcome is Outcome.RESET:
                self.outlet.abort()
            else:
                self.outlet.close()
        else:
            self._close_if_done()

    def _drop(self, stream: Stream, end: str) -> None:
        """The stream is over, and so is its answer; `end` is the counter that its request counts for."""
        self._streams.pop(stream.number, None)
        if stream.task is not None:
            stream.task.cancel()
            stream.task = None
        if stream.counted:
            self._counted -= 1
            self.counts.add_stream(-1, self._counted)
        if stream.arrival is not None:
            if end == "aborted":
                stream.arrival.gone = time.monotonic()
            stream.arrival = None
            self.counts.add(end)

    def _readers_left(self) -> None:
        """The generations stop now; what was still to be sent is thrown away."""
        for stream in list(self._streams.values()):
            self._drop(stream, "aborted")

    def _really_go_away(self) -> None:
        if not self._over:
            self.go_away(self.h2.highest_inbound_stream_id)

    def _close_if_done(self) -> None:
        if self._last is not None and not self._streams and not self._over:
            self._over = True
            self.outlet.close()

    # Waiting streams

    def _wake(self, number: int) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(None)

    def _wake_all(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
