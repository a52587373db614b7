"""A provider of either version, in threads: what it answers, and when it reads, a test decides."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import H2Error

Field = tuple[str, str]


@dataclass
class Arrived:
    """A request as it came."""

    method: str
    target: str
    fields: list[Field]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.fields]


@dataclass(frozen=True)
class Reply:
    """What to answer. `framed`: the body's length is said; without it only its end tells."""

    status: int = 200
    fields: tuple[Field, ...] = ()
    body: bytes = b""
    framed: bool = True


class Origin:
    """`requests` are those whose head has come. Nothing is read while `reading` is clear. With `early` a request is
    answered as soon as its head is here."""

    def __init__(self, version: str, certificate: tuple[Path, Path] | None = None) -> None:
        self.answer: Callable[[Arrived], Reply] = lambda request: Reply()
        self.early = False
        self.requests: list[Arrived] = []
        self.reading = threading.Event()
        self.reading.set()
        self._serve = self._serve2 if version == "2" else self._serve1
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
            self._tls.set_alpn_protocols(["h2" if version == "2" else "http/1.1"])
        self._open: list[socket.socket] = []
        self._listener = socket.socket()
        # Inherited by what is accepted: little waits in the kernel.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        scheme, port = "https" if self._tls else "http", self._listener.getsockname()[1]
        return f"{scheme}://localhost:{port}" if self._tls else f"{scheme}://127.0.0.1:{port}"

    def close(self) -> None:
        self.reading.set()
        # Wakes the threads, which a close alone would not.
        for place in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                place.shutdown(socket.SHUT_RDWR)
            place.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._run, args=(peer,), daemon=True).start()

    def _run(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, H2Error, h11.ProtocolError):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                peer = self._tls.wrap_socket(peer, server_side=True)
            self._open.append(peer)
            self._serve(peer)
        peer.close()

    def _receive(self, peer: socket.socket) -> bytes:
        self.reading.wait()
        return peer.recv(65536)

    # HTTP/1.1

    def _serve1(self, peer: socket.socket) -> None:
        parser = h11.Connection(h11.SERVER)
        arrived: Arrived | None = None
        while True:
            event = parser.next_event()
            match event:
                case h11.NEED_DATA:
                    data = self._receive(peer)
                    if not data:
                        return
                    parser.receive_data(data)
                case h11.Request():
                    fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                    arrived = Arrived(event.method.decode(), event.target.decode(), fields)
                    self.requests.append(arrived)
                    if self.early:
                        self._reply1(peer, arrived)
                case h11.Data():
                    assert arrived is not None
                    arrived.body += event.data
                case h11.EndOfMessage():
                    assert arrived is not None
                    arrived.whole = True
                    if not self.early:
                        self._reply1(peer, arrived)
                    # The answer is written by hand, since h11 would change its head.
                    parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    parser.send(h11.EndOfMessage())
                    parser.start_next_cycle()

    def _reply1(self, peer: socket.socket, arrived: Arrived) -> None:
        reply = self.answer(arrived)
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in reply.fields]
        body = b"" if arrived.method == "HEAD" else reply.body
        if reply.framed:
            lines.append(f"Content-Length: {len(reply.body)}")
        elif reply.status not in (204, 304):
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        peer.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    # HTTP/2

    def _serve2(self, peer: socket.socket) -> None:
        h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        h2.initiate_connection()
        arrived: dict[int, Arrived] = {}
        unsent: dict[int, bytes] = {}
        while True:
            peer.sendall(h2.data_to_send())
            data = self._receive(peer)
            if not data:
                return
            for event in h2.receive_data(data):
                match event:
                    case RequestReceived():
                        fields = [(str(name), str(value)) for name, value in event.headers]
                        pseudo = dict(fields)
                        request = Arrived(pseudo[":method"], pseudo[":path"], fields)
                        arrived[event.stream_id] = request
                        self.requests.append(request)
                        if self.early:
                            self._reply2(h2, event.stream_id, request, unsent)
                    case DataReceived():
                        arrived[event.stream_id].body += event.data
                        h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case StreamEnded():
                        arrived[event.stream_id].whole = True
                        if not self.early:
                            self._reply2(h2, event.stream_id, arrived[event.stream_id], unsent)
                    case StreamReset():
                        unsent.pop(event.stream_id, None)
                    case WindowUpdated():
                        self._send2(h2, unsent)

    def _reply2(self, h2: H2Connection, number: int, arrived: Arrived, unsent: dict[int, bytes]) -> None:
        reply = self.answer(arrived)
        fields = [(":status", str(reply.status)), *((name.lower(), value) for name, value in reply.fields)]
        if reply.framed:
            fields.append(("content-length", str(len(reply.body))))
        body = b"" if arrived.method == "HEAD" else reply.body
        h2.send_headers(number, fields, end_stream=not body)
        if body:
            unsent[number] = body
            self._send2(h2, unsent)

    def _send2(self, h2: H2Connection, unsent: dict[int, bytes]) -> None:
        for number, body in list(unsent.items()):
            while unsent.get(number):
                rest = unsent[number]
                room = min(h2.local_flow_control_window(number), h2.max_outbound_frame_size)
                if room <= 0:
                    break
                h2.send_data(number, rest[:room], end_stream=len(rest) <= room)
                unsent[number] = rest[room:]
            if not unsent[number]:
                del unsent[number]
            del body
