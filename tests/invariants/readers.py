"""Readers of streams, one step at a time: what is not asked for stays in the socket, or behind the window.

Every byte of a body is kept. `step` takes one thing that came, within a time; whoever wants several readers to go on
together takes a step of each (`together`).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.pairs.agent2 import Client2
from tests.programs import PATIENCE

_RESET = struct.pack("ii", 1, 0)
Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Sight:
    """How a reader reads. `most`: bytes in one step, over HTTP/1.1; `small`: with a receive buffer of 4 KiB, and
    segments so short that the relay's own kernel holds little. `window`: of its stream, over HTTP/2; `shared`: on the
    one connection of all such readers. `flush`: what it asks of the relay for fewer, larger writes."""

    most: int = 65536
    small: bool = False
    window: int = 65535
    shared: bool = False
    flush: str = ""


USUAL = Sight()


class Reader:
    """`body` is what came, `over` says that nothing more will, `clean` that its framing ended it. Without a head the
    status is 0."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = bytearray()
        self.over = False
        self.clean = False
        self.left = False

    @property
    def socket(self) -> socket.socket:
        raise NotImplementedError

    def step(self, timeout: float) -> bool:
        """Whether something came in time."""
        raise NotImplementedError

    def leave(self, how: str) -> None:
        """`fin` or `rst` of the connection; over a shared one only the stream goes."""
        raise NotImplementedError

    def head(self) -> int:
        """The status, when it is here."""
        deadline = time.monotonic() + PATIENCE
        while not self.status and not self.over:
            self.step(max(deadline - time.monotonic(), 0))
            assert time.monotonic() < deadline, "no head came"
        return self.status

    def read(self, amount: int, pause: float = 0.02) -> None:
        """So many more bytes of the body; fewer where nothing comes for a while: somebody holds the provider."""
        wanted = len(self.body) + amount
        while len(self.body) < wanted and not self.over and self.step(pause):
            pass

    def rest(self) -> None:
        """All of it."""
        together([self])


def together(readers: Sequence[Reader], *, first: bool = False) -> None:
    """Read all of them at the same pace, to the end of each, or of the first."""
    deadline = time.monotonic() + PATIENCE
    while waiting := [reader for reader in readers if not reader.over and not reader.left]:
        if first and len(waiting) < len(readers):
            return
        came = [reader.step(0) for reader in waiting]
        if any(came):
            continue
        sockets = {reader.socket.fileno(): reader.socket for reader in waiting}
        left = deadline - time.monotonic()
        assert left > 0, f"{len(waiting)} readers never came to an end; of the first: {bytes(waiting[0].body[-300:])!r}"
        select.select(list(sockets.values()), [], [], min(left, 0.1))


class Reader1(Reader):
    """One request on a connection of its own."""

    def __init__(
        self, address: tuple[str, int], method: str, target: str, body: bytes, fields: Fields, sight: Sight
    ) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sight.small:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._most = sight.most
        self._raw = bytearray()
        self._left: int | None = None  # of the body, or of the chunk
        self._chunked = False
        lines = [f"{method} {target} HTTP/1.1", "Host: relay.test", *(f"{name}: {value}" for name, value in fields)]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def step(self, timeout: float) -> bool:
        if self.over or self.left or not select.select([self._socket], [], [], timeout)[0]:
            return False
        try:
            data = self._socket.recv(self._most)
        except ConnectionError:
            data = b""
        self._raw += data
        while not self.over and self._take():
            pass
        if not data and not self.over:
            self._end(clean=False)
        return True

    def leave(self, how: str) -> None:
        if how == "rst":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
        self.left = True

    def _end(self, *, clean: bool) -> None:
        self.over, self.clean = True, clean
        self._socket.close()

    def _line(self, mark: bytes) -> bytes | None:
        """What stands before the mark, if that is here."""
        at = self._raw.find(mark)
        if at < 0:
            return None
        line = bytes(self._raw[:at])
        del self._raw[: at + len(mark)]
        return line

    def _take(self) -> bool:
        """The next thing of what is here; False when it is not whole."""
        if not self.status:
            head = self._line(b"\r\n\r\n")
            if head is None:
                return False
            self._read_head(head.decode("latin-1"))
            return True
        if self._left is None:
            line = self._line(b"\r\n")
            if line is None:
                return False
            if line:
                self._left = int(line, 16) or None
                if self._left is None and self._line(b"\r\n") is not None:
                    self._end(clean=True)
                elif self._left is None:
                    self._raw[:0] = b"0\r\n"  # its empty line has not come
                    return False
            return True
        piece = self._raw[: self._left]
        self.body += piece
        del self._raw[: len(piece)]
        self._left -= len(piece)
        if self._left:
            return False
        if not self._chunked:
            self._end(clean=True)
        self._left = None
        return True

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.status = int(first.split(" ")[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._chunked = self.fields.get("transfer-encoding") == "chunked"
        if self.status == 204:
            self._end(clean=True)
        elif not self._chunked:
            self._left = int(self.fields["content-length"])


class Reader2(Reader):
    """One stream. `own`: nobody else is on its connection."""

    def __init__(self, client: Client2, method: str, target: str, body: bytes, fields: Fields, *, own: bool) -> None:
        super().__init__()
        self.client = client
        self._own = own
        self._call = client.ask(method, target, body if method == "POST" else None, fields)

    @property
    def socket(self) -> socket.socket:
        return self.client.socket

    def step(self, timeout: float) -> bool:
        call, client = self._call, self.client
        if self.over or self.left:
            return False
        if not call.queue and not call.clean and not call.broken:
            if not client.over and not select.select([client.socket], [], [], timeout)[0]:
                return False
            client.pump()
        if call.status and not self.status:
            self.status, self.fields = call.status, dict(call.fields)
        if call.queue:
            piece = call.queue.popleft()
            self.body += piece
            if piece and not call.clean and not call.broken:
                # As it is read, and not before, more may come.
                client.h2.increment_flow_control_window(len(piece), call.number)
                client.flush()
        elif call.clean or call.broken:
            self.over, self.clean = True, call.clean
            if self._own:
                client.close()
        return True

    def leave(self, how: str) -> None:
        self.left = True
        if not self._own:
            self._call.leave()
        elif how == "rst":
            self.client.reset()
        elif how == "fin":
            self.client.close()
        else:
            self._call.leave()
            self.client.close()
