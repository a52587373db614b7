"""What the provider says, and what of it is true: the same request, made without the relay."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.invariants.readers import Reader1, Sight
from tests.invariants.telling import Event, Texts, is_terminal, parse, spoken
from tests.robustness import peers

_ASKED = {dialect.name: (dialect.path, dialect.asked(stream=True)) for dialect in peers.DIALECTS}
DIALECTS = (*_ASKED, "opaque")
PLACE = 3

# Behind these the provider's stream is cut, and how much of it has come is not known before.
SPOILED = frozenset({"mid-stall", "bad-chunk", "cut-reset"})
LIES = ("none", "cut", "short", "error", "half-event", "no-done", "bad-utf8", "after-end", *sorted(SPOILED))


@dataclass(frozen=True)
class Script:
    """One generation. `at`: content events before the lie; `pace`: what changes when it is said, and how it is packed,
    but not what is said; `upstream`: the version of HTTP between relay and provider."""

    dialect: str = "chat"
    seed: int = 1
    events: int = 20
    size: int = 0
    content: str = ""
    lie: str = "none"
    at: int = PLACE
    pace: str = ""
    interval: int = 0
    upstream: str = "1"

    @property
    def path(self) -> str:
        path = _ASKED[self.dialect][0] if self.dialect != "opaque" else "/sse/ticker"
        return ("/two" if self.upstream == "2" else "") + path

    @property
    def method(self) -> str:
        return "GET" if self.dialect == "opaque" else "POST"

    @property
    def document(self) -> dict[str, object]:
        return _ASKED[self.dialect][1] if self.dialect != "opaque" else {}

    @property
    def said(self) -> str:
        """What follows from the provider's keys alone."""
        spoiled = "none" if self.lie in SPOILED or self.lie == "after-end" else self.lie
        lie = f"; lie={spoiled}; at={self.at}" if spoiled != "none" else ""
        if lie and self.pace.startswith("burst"):
            lie += f"; {self.pace}"  # these spoil what is said together
        return f"seed={self.seed}; events={self.events}; size={self.size}; {self.content}{lie}"

    @property
    def simulate(self) -> str:
        lie = f"; lie={self.lie}; at={self.at}" if self.lie != "none" else ""
        base = f"seed={self.seed}; events={self.events}; size={self.size}; {self.content}{lie}"
        return f"{base}; {self.pace}; interval={self.interval}ms"

    @property
    def place(self) -> int:
        """Content events before the lie."""
        return min(self.at, self.events)

    @property
    def goal(self) -> int:
        """Content events that the provider will say."""
        return self.place if self.lie in _CUTTING else self.events

    @property
    def stalls(self) -> bool:
        """Whether the provider falls silent for ever."""
        return self.lie == "mid-stall"


_CUTTING = SPOILED | {"cut", "short", "error", "half-event", "no-done"}


@dataclass(frozen=True)
class Truth:
    """`body` as the provider sends it; `events` that a reader of its own has; `whole`: it ends as its dialect ends."""

    body: bytes
    events: list[Event]
    texts: Texts
    whole: bool


def learn(address: tuple[str, int], script: Script) -> Truth:
    """Ask the provider itself, over HTTP/1.1 and without a pause. A lie that SPOILED names is left out."""
    fields = [("Content-Type", "application/json"), ("Simulate", f"{script.said}; interval=0")]
    path = script.path.removeprefix("/two")
    reader = Reader1(address, script.method, path, json.dumps(script.document).encode(), fields, Sight())
    reader.rest()
    assert reader.status == 200, bytes(reader.body)
    events = parse(bytes(reader.body))
    whole = reader.clean if script.dialect == "opaque" else bool(events) and is_terminal(script.dialect, events[-1])
    return Truth(bytes(reader.body), events, spoken(script.dialect, events), whole)
