"""A client of HTTP/1.1: a connection for each request that is under way; one whose answer was whole serves the next."""

from __future__ import annotations

import ssl

from tests.pairs.calls import CONNECTION, Agent, Call, Fields, pairs
from tests.programs import Client


class Agent1(Agent):
    """`receive_buffer`: of its sockets; a small one makes a reader that is stuck felt at once."""

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None = None, *, receive_buffer: int | None = None
    ) -> None:
        self._address = address
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._idle: list[Client] = []
        self.clients: list[Client] = []

    def connect(self) -> Client:
        """A further connection, with nothing said on it."""
        client = Client(self._address, receive_buffer=self._receive_buffer, tls=self._tls)
        if self._tls is not None:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.selected_alpn_protocol() == "http/1.1"
        self.clients.append(client)
        return client

    def ask(
        self,
        method: str = "GET",
        target: str = "/",
        body: bytes | None = None,
        headers: Fields = (),
        *,
        more: bool = False,
        length: int | None = None,
    ) -> Call1:
        fields = [("Host", "relay.test"), *pairs(headers)]
        chunked = more and length is None
        if chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        elif more or body is not None:
            fields.append(("Content-Length", str(length if more else len(body or b""))))
        client = self._idle.pop() if self._idle else self.connect()
        call = Call1(self, client, method, chunked=chunked, whole=not more)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        call.put(head + (b"" if chunked or body is None else body))
        if chunked and body:
            call.send(body)
        return call

    def served(self, client: Client) -> None:
        """It may serve another request."""
        self._idle.append(client)

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def reset(self) -> None:
        for client in self.clients:
            client.reset()

    def closed(self) -> bool:
        return all(client.closed() for client in self.clients)


class Call1(Call):
    """`client` is its connection."""

    def __init__(self, agent: Agent1, client: Client, method: str, *, chunked: bool, whole: bool) -> None:
        super().__init__()
        self.client = client
        self._agent = agent
        self._method = method
        self._chunked = chunked
        self._whole = whole
        self._over = False
        self._left: int | None = None  # of the body, by its length

    def put(self, data: bytes) -> bool:
        try:
            self.client.send(data)
        except (ConnectionError, ssl.SSLError):
            return False  # what it said, if anything, can still be read
        return True

    def send(self, data: bytes) -> bool:
        return self.put(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        self._whole = True
        if self._chunked:
            self.put(b"0\r\n\r\n")

    def leave(self) -> None:
        self._over = True
        self.client.close()

    def _more(self) -> bool:
        if self._over:
            return False
        if not self.status:
            return self._read_head()
        if self._left is None:
            return self._read_chunk()
        piece = self._read(self._left)
        if piece:
            self._take(piece)
            self._left -= len(piece)
        return self._finish(clean=not self._left) if not piece or not self._left else True

    def _read_head(self) -> bool:
        try:
            head = self.client.read_until(b"\r\n\r\n").decode("latin-1")
        except AssertionError:
            return self._finish(clean=False)
        first, *lines = head.rstrip("\r\n").split("\r\n")
        status = int(first.split(" ")[1])
        if status < 200:
            self.informational.append(status)
            return True
        self.status = status
        for line in lines:
            name, _, value = line.partition(":")
            self.fields.append((name.lower(), value.strip()))
        fields = dict(self.fields)
        if self._method == "HEAD" or status in (204, 304):
            self._left = 0
        elif fields.get("transfer-encoding") != "chunked":
            # The relay never leaves the end of a body to the connection's.
            self._left = int(fields["content-length"])
        if self._left == 0:
            self._finish(clean=True)
        return True

    def _read_chunk(self) -> bool:
        try:
            size = int(self.client.read_until(b"\r\n"), 16)
            if not size:
                assert self.client.read_until(b"\r\n") == b"\r\n"
                return self._finish(clean=True)
        except AssertionError:
            return self._finish(clean=False)
        chunk = b""
        while len(chunk) < size and (data := self._read(size - len(chunk))):
            chunk += data
        self._take(chunk)
        end = b""
        while len(end) < 2 and (data := self._read(2 - len(end))):
            end += data
        if len(chunk) < size or end != b"\r\n":
            return self._finish(clean=False)
        return True

    def _read(self, most: int) -> bytes:
        """The next bytes, b"" at the connection's end."""
        client = self.client
        if not client.buffer:
            client.buffer = client.receive()
        data, client.buffer = client.buffer[:most], client.buffer[most:]
        return data

    def _finish(self, *, clean: bool) -> bool:
        self._over = True
        self.clean = clean
        if not clean:
            self.broken = CONNECTION
        elif self._whole and ("connection", "close") not in self.fields:
            self._agent.served(self.client)
        return False
