"""What the tests of resumable streams share: how they are asked for, how they break, and what went over the wire.

client ---- Tap ------- relay       keeps what the client was sent, as bytes; breaks its connections at chosen events
client ---- Cutter ---- relay       breaks them at chosen bytes (tests.browser.cutter)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, Self

from tests.programs import PATIENCE, Client, Provider, Relay

ASK = {"Relay-Resumable": "1"}
# Between its events there is time for some heartbeats.
SLOW = "seed=5; events=4; first=300ms; interval=300ms"
# Many events, each a read of its own in the client or not, as it comes.
LONG = "seed=5; events=60; interval=0; split=5"
# Few enough for a test, and slow enough that a reader can come back while it runs.
LIVE = "seed=5; events=60; interval=5ms"
# The same by another seed: what the provider calls a response follows from it, and a real one's names are unique.
OWN = "seed={}; events=60; interval=5ms"
ENDLESS = "seed=5; events=1000000; interval=10ms"
# Some 500 kB of events: more than lies between the relay and a client that does not read, less than a reader may lag.
MUCH = "seed=5; events=1400; size=100; interval=0; reasoning=1; tools=1"
# For the socket of a client that shall not take much ahead.
SMALL = (socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
# How a stream breaks off. The first four are the provider's doing, the last the relay's own: `strict` waits no longer.
BREAKS = ("cut", "cut-reset", "half-event", "no-done", "mid-stall")
# A heartbeat is a chunk of its own.
_HEARTBEAT = b"2\r\n:\n\r\n"
_EVENT_STREAM = b"\r\ncontent-type: text/event-stream"
_ID = re.compile(rb"^id: [A-Za-z0-9_-]{22}-(\d+)$", re.MULTILINE)


def broken(how: str) -> str:
    return f"seed=5; events=9; at=4; interval=0; lie={how}"


def dechunked(raw: bytes) -> bytes:
    """The body of an answer in chunks, as far as it came."""
    body, rest = b"", raw.partition(b"\r\n\r\n")[2]
    while (head := rest.partition(b"\r\n"))[1] and (size := int(head[0], 16)):
        body += head[2][:size]
        rest = head[2][size + 2 :]
    return body


def numbers(body: bytes) -> list[int]:
    """Those of the ids of the events in it."""
    return [int(number) for number in _ID.findall(body)]


def said(provider: Provider, simulate: str) -> str:
    """The whole text, by the provider's own JSON answer."""
    with contextlib.closing(http.client.HTTPConnection(*provider.address, timeout=PATIENCE)) as connection:
        body = json.dumps({"model": "sim-1", "messages": []})
        connection.request("POST", "/v1/chat/completions", body, {"Simulate": simulate})
        text: str = json.loads(connection.getresponse().read())["choices"][0]["message"]["content"]
    assert text
    return text


def cancel(relay: Relay, stream_id: str) -> str:
    """Somebody else cancels a stream; its state."""
    with Client(relay.address) as other:
        other.request("POST", f"/v1/streams/{stream_id}/cancel", b"")
        answer = other.answer()
    assert answer.status == 200, answer
    state: str = json.loads(answer.body)["state"]
    return state


class Tap:
    """A TCP proxy; `answers` is what each of the connections through it was sent. `cuts`: (events, bytes) that pass of
    the first answer that is an event stream, of the second, …, the bytes being those behind the events; of further
    ones all passes. The first cut is a FIN, the second a RST, and so on. `made`: cuts so far."""

    def __init__(self, address: tuple[str, int], cuts: Iterable[tuple[int, int]] = ()) -> None:
        self._address = address
        self._cuts = deque(cuts)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.answers: list[bytearray] = []
        self.made = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        for one in (self._server, *self._sockets):
            _shut(one, socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def the_answer(self) -> bytes:
        """The one that was an event stream, and all behind it on its connection."""
        [answer] = [bytes(answer) for answer in self.answers if _EVENT_STREAM in answer]
        return answer[answer.rindex(b"HTTP/1.1 ", 0, answer.index(_EVENT_STREAM)) :]

    def assert_heartbeats(self) -> None:
        """There were some between two events, and not only before the first; and the events have ids."""
        answer = self.the_answer()
        first, last = answer.index(b"\ndata:"), answer.rindex(b"\ndata:")
        assert _HEARTBEAT * 2 in answer[first:last], answer
        counted = numbers(dechunked(answer))
        assert counted == list(range(1, len(counted) + 1))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                relay = socket.create_connection(self._address)
                self._sockets += [client, relay]
                self.answers.append(bytearray())
                for carry, *arguments in ((_pass, client, relay), (self._answer, relay, client, self.answers[-1])):
                    self._threads.append(threading.Thread(target=carry, args=arguments))
                    self._threads[-1].start()

    def _answer(self, relay: socket.socket, client: socket.socket, kept: bytearray) -> None:
        begun, cut = 0, None
        with contextlib.suppress(OSError):
            while data := relay.recv(65536):
                kept += data
                if cut is None and self._cuts and (begun := kept.find(_EVENT_STREAM, begun)) >= 0:
                    cut = self._cuts.popleft()
                begun = max(begun, 0)
                surplus = len(kept) - _place(kept, begun, *cut) if cut is not None else 0
                if surplus > 0:
                    client.sendall(data[:-surplus])
                    self._cut(client, relay)
                    return
                client.sendall(data)
        _shut(client)

    def _cut(self, client: socket.socket, relay: socket.socket) -> None:
        self.made += 1
        abortive = self.made % 2 == 0
        if abortive:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        # Another thread waits in it: as long as it does, closing it does nothing.
        client.shutdown(socket.SHUT_RD if abortive else socket.SHUT_RDWR)
        client.close()
        _shut(relay, socket.SHUT_RDWR)


def _place(kept: bytearray, begun: int, events: int, more: int) -> int:
    """Where so many events, and so many bytes, end; beyond the end of what there is if they are not there yet."""
    at = begun
    for _ in range(events):
        at = kept.find(b"\n\n", at) + 2
        if at < 2:
            return len(kept) + 1
    return at + more


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _shut(sink)


def _shut(sink: socket.socket, how: int = socket.SHUT_WR) -> None:
    with contextlib.suppress(OSError):
        sink.shutdown(how)


def assert_broken(text: str, whole: str) -> None:
    """Something came, all of it right, and not everything."""
    assert text
    assert whole.startswith(text)
    assert text != whole


def assert_merged(relay: Relay, path: str) -> None:
    """The next answer from that path with merged events in it came to its end."""
    while not (line := relay.access_line(path=path, dropped=0))["merged"]:
        pass
    assert line["reason"] == "finished"


Heard = dict[str, Any]
