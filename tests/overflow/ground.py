"""A relay with a route for each overflow and flush, readers that stick, and what an answer's events say."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pairs.agent1 import Agent1
from tests.pairs.agent2 import Client2
from tests.pairs.calls import Agent, Call, Fields, pairs
from tests.programs import PATIENCE, Client, Provider, Relay, chat
from tests.robustness.peers import CHAT, until

KIB = 1024
MIB = 1024 * KIB
RESUMABLE = {"Relay-Resumable": "1"}
# For who shall get everything as it came, however slow the machine is just now: the provider waits for him. It does so
# for the one who began the stream.
PATIENT = {"Relay-Overflow": "pause"}
# Behind each prefix the same provider; over HTTP/2 where it is to be held, since a window is less than a kernel takes.
ROUTES = {
    "/merge": 'overflow = "merge"',
    "/disconnect": 'overflow = "disconnect"',
    "/pause": 'overflow = "pause"',
    "/held": "",
    "/drop": 'overflow = "drop"',
    "/eight": "flush_events = 8",
    "/soon": 'flush = "200ms"',
    "/late": 'flush = "5s"',
    "/even": 'smooth = "60ms"',
    "/always": 'resumable = "always"',
}
_STREAM_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_ID_LINE = re.compile(rb"^id: ([A-Za-z0-9_-]{22})-(\d+)\n", re.MULTILINE)
# Of the texts of all dialects.
_TEXTS = ("content", "reasoning_content", "refusal", "arguments", "text", "thinking", "partial_json", "delta")


class Narrow(Client):
    """A client whose kernel takes little: about 100 KiB lie between it and the relay when it sticks."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        # Else a segment of the loopback is larger than the buffer, and the kernel sends by a timer.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""


class NarrowAgent(Agent1):
    def connect(self) -> Client:
        client = Narrow(self._address, self._tls)
        self.clients.append(client)
        return client


def open_up(agent: Agent) -> None:
    """Its kernel takes much from now on, so that a test need not wait for it."""
    if isinstance(agent, NarrowAgent):
        for client in agent.clients:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)


@dataclass
class Site:
    """The provider, and the relay in front of it."""

    provider: Provider
    relay: Relay
    certificate: Path

    def agent(self, speak: str, *, wide: bool = False) -> Agent:
        """A client: of HTTP/1.1 or 2, in the clear or over TLS. One whose answer is left alone is stuck; one with wide
        buffers keeps up."""
        version, _, secure = speak.partition("-")
        address = self.relay.secure_address if secure else self.relay.address
        tls = None
        if secure:
            tls = ssl.create_default_context(cafile=str(self.certificate))
            tls.set_alpn_protocols(["h2" if version == "2" else "http/1.1"])
        if version == "2":
            return Client2(address, tls, window=4 * MIB if wide else 65535)
        return Agent1(address, tls) if wide else NarrowAgent(address, tls)

    def state(self, stream_id: str) -> dict[str, Any]:
        with Client(self.relay.address) as client:
            client.request("GET", f"/v1/streams/{stream_id}", headers={"Accept": "application/json"})
            state: dict[str, Any] = json.loads(client.answer().body)
            return state

    def over(self, stream_id: str, state: str = "finished") -> dict[str, Any]:
        """Until the stream has ended so."""

        def look() -> dict[str, Any] | None:
            seen = self.state(stream_id)
            if seen.get("state") in ("waiting", "streaming"):
                return None
            return seen

        seen = until(look, f"the end of {stream_id}")
        assert seen is not None
        assert seen["state"] == state, seen
        return seen

    def line(self, request_id: str) -> dict[str, Any]:
        """The access line of a request, whenever it comes among others."""

        def find() -> dict[str, Any] | None:
            lines = [json.loads(line) for line in self.relay.output[:]]
            # One of a generation itself has no client.
            return next(
                (line for line in lines if line.get("request_id") == request_id and "generation" not in line), None
            )

        found = until(find, f"the access line of {request_id}")
        assert found is not None
        return found

    def still(self) -> int:
        """The bytes that the provider has said when it says no more for a while."""
        looks: list[int] = []

        def look() -> int:
            looks.append(self.provider.stats()["bytes"])
            return looks[-1] if len(looks) > 5 and len(set(looks[-5:])) == 1 else 0

        return until(look, "a provider that is still")


def ask(agent: Agent, simulate: str, headers: Fields = (), *, prefix: str = "", name: str = "") -> Call:
    """A chat completion, whose stream's name is known when this returns."""
    fields = [*pairs(headers), *([("X-Request-Id", name)] if name else [])]
    call = agent.post(prefix + CHAT.path, chat(), simulate, fields)
    assert call.head() == 200
    return call


def name_of(call: Call) -> str:
    found = dict(call.fields)["relay-stream-id"]
    assert _STREAM_ID.fullmatch(found)
    return found


def resume(agent: Agent, stream_id: str, after: object = 0, headers: Fields = ()) -> Call:
    return agent.ask("GET", f"/v1/streams/{stream_id}", None, [("Last-Event-ID", str(after)), *pairs(headers)])


# What an answer says


@dataclass(frozen=True)
class Event:
    """`seq`: its number, 0 for one that has none. `raw`: the event without it."""

    seq: int
    raw: bytes

    @property
    def text(self) -> str:
        return "".join(found for _, found in _walk(self._json()))

    @property
    def shape(self) -> object:
        """Everything but its text."""
        return _without(self._json())

    def _json(self) -> Any:
        data = b"".join(line[6:] for line in self.raw.split(b"\n") if line.startswith(b"data: "))
        return json.loads(data) if data.startswith(b"{") else None

    @property
    def gap(self) -> tuple[int, int] | None:
        if not self.raw.startswith(b"event: relay.gap\n"):
            return None
        found = self._json()
        return found["first"], found["last"]


def _walk(found: Any) -> Iterator[tuple[str, str]]:
    if isinstance(found, dict):
        for name, value in found.items():
            if name in _TEXTS and isinstance(value, str):
                yield name, value
            else:
                yield from _walk(value)
    elif isinstance(found, list):
        for value in found:
            yield from _walk(value)


def _without(found: Any) -> Any:
    if isinstance(found, dict):
        return {
            name: None if name in _TEXTS and isinstance(value, str) else _without(value)
            for name, value in found.items()
            if name not in ("sequence_number", "obfuscation")
        }
    return [_without(value) for value in found] if isinstance(found, list) else found


def events_of(body: bytes, stream_id: str = "") -> list[Event]:
    """The events of a body, each whole; their ids are this stream's."""
    body = body.replace(b":\n", b"") if body.startswith(b":\n") or b"\n\n:\n" in body else body
    assert body == b"" or body.endswith(b"\n\n"), f"an event cut in half: {body[-200:]!r}"
    events = []
    for block in body.split(b"\n\n")[:-1]:
        found = _ID_LINE.search(block + b"\n")
        raw = block + b"\n\n"
        if found is None:
            events.append(Event(0, raw))
            continue
        assert not stream_id or found[1].decode() == stream_id
        events.append(Event(int(found[2]), _ID_LINE.sub(b"", raw, count=1)))
    return events


def first_of(got: list[Event], wanted: list[Event]) -> int:
    """The last event that a reader who joined in the middle has not seen; his first may be merged of several."""
    at = got[0].seq
    while got[0].raw != wanted[at - 1].raw and "".join(one.text for one in wanted[at - 1 : got[0].seq]) != got[0].text:
        at -= 1
    return at - 1


def whole_events(body: bytes) -> bytes:
    """Of a body that was broken off: what a reader was given."""
    return body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""


@dataclass
class Account:
    """How a reader's events stand for those that there were."""

    merged: int = 0
    dropped: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)


def account(got: list[Event], wanted: list[Event], after: int = 0) -> Account:
    """What was merged and dropped on the way from all events to those that a reader got; all that is neither is the
    same byte by byte, and nothing is missing, up to the last that it got."""
    found = Account()
    last = after
    for event in got:
        if event.gap is not None:
            assert event.gap[0] == last + 1 <= event.gap[1]
            found.gaps.append(event.gap)
            found.dropped += event.gap[1] - last
            last = event.gap[1]
            continue
        seq = event.seq or _reaches(event, wanted, last)
        members = wanted[last:seq]
        assert members, f"event {seq} behind {last}"
        if len(members) == 1:
            assert event.raw == members[0].raw
        else:
            assert event.text == "".join(member.text for member in members)
            assert {repr(member.shape) for member in members} == {repr(event.shape)}
            assert len(event.raw) <= 16 * KIB
        found.merged += len(members) - 1
        last = seq
    assert last <= len(wanted)
    return found


def _reaches(event: Event, wanted: list[Event], last: int) -> int:
    """Up to which event one without a number goes."""
    if event.raw == wanted[last].raw:
        return last + 1
    length, seq = 0, last
    while length < len(event.text):
        length += len(wanted[seq].text)
        seq += 1
    return seq


def config(provider: Provider, certificate: tuple[Path, Path]) -> str:
    tables = [
        f'[[route]]\npath = "{prefix}/*"\nstrip_prefix = "{prefix}"\n{extra}\n'
        f'upstream = "{"windows" if prefix in ("/pause", "/held") else "provider"}"'
        for prefix, extra in ROUTES.items()
    ]
    return "\n".join(
        [
            '[server]\nlisten = ["127.0.0.1:0"]\nlisten_tls = ["127.0.0.1:0"]',
            f'certificate = "{certificate[0]}"\ncertificate_key = "{certificate[1]}"',
            f'[[upstream]]\nname = "provider"\nurl = "{provider.url}"',
            f'[[upstream]]\nname = "windows"\nurl = "{provider.url}"\nhttp = "2"',
            *tables,
            '[[route]]\npath = "/*"\nupstream = "provider"',
            # The cap of all logs: what one test leaves must not be made room for in the next.
            '[retention]\ntotal = "1GiB"\nstream = "64MiB"',
        ]
    )
