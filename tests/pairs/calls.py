"""A request and its answer, as a test sees them: the same whichever version of HTTP carries them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from tests.programs import Answer

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
# What an answer ends by, beside its own end and the codes of HTTP/2.
CONNECTION = "connection"


@dataclass
class Outcome(Answer):
    """What came of a request. `fields` are the head's as they came, `informational` the statuses before it, `broken`
    is empty, the code of the RST_STREAM that ended the answer, or CONNECTION. Without a head the status is 0."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)
    broken: str = ""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class Call:
    """A request that was made. Nothing is read of its answer but by these methods: a call that is left alone is a
    reader that is stuck."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: list[tuple[str, str]] = []
        self.informational: list[int] = []
        self.pieces: list[bytes] = []
        self.clean = False
        self.broken = ""
        self._body = bytearray()
        self._waited = 0

    # The request's body, where more of it was announced

    def send(self, data: bytes) -> bool:
        """A piece of the body; False when the other side takes no more of it."""
        raise NotImplementedError

    def end(self) -> None:
        """The body is whole."""
        raise NotImplementedError

    # The answer

    def head(self) -> int:
        """The status, when the head has come."""
        while not self.status:
            assert self._more(), f"no head came: {self.broken}"
        return self.status

    def continues(self) -> None:
        """Until 100 (Continue) has come, and no final head before it."""
        while 100 not in self.informational:
            assert self._more(), f"neither 100 nor a head came: {self.broken}"
            assert not self.status, f"{self.status} without a 100"

    def wait_for(self, mark: bytes) -> bytes:
        """The body up to and with the mark, from behind the last mark on."""
        while (at := self._body.find(mark, self._waited)) < 0:
            assert self._more(), f"the answer ended before {mark!r}: {bytes(self._body[-500:])!r}"
        begin, self._waited = self._waited, at + len(mark)
        return bytes(self._body[begin : self._waited])

    def answer(self) -> Outcome:
        """All of it, what was waited for included."""
        while self._more():
            pass
        return Outcome(
            self.status,
            dict(self.fields),
            bytes(self._body),
            self.clean,
            self.pieces,
            self.fields,
            self.informational,
            self.broken,
        )

    def leave(self) -> None:
        """Nobody wants the answer any more: RST_STREAM(CANCEL), or the connection's end."""
        raise NotImplementedError

    def _more(self) -> bool:
        """Read on, as far as to the next thing that came; False when the answer is over."""
        raise NotImplementedError

    def _take(self, piece: bytes) -> None:
        if piece:
            self.pieces.append(piece)
            self._body += piece


class Agent:
    """A client, with as many connections as its version of HTTP needs for what is under way at once."""

    def ask(
        self,
        method: str = "GET",
        target: str = "/",
        body: bytes | None = None,
        headers: Fields = (),
        *,
        more: bool = False,
        length: int | None = None,
    ) -> Call:
        """Make a request. With `more` its body is sent by the call, and is of this length or of none that is known."""
        raise NotImplementedError

    def post(self, target: str, document: object, simulate: str = "", headers: Fields = ()) -> Call:
        fields = [("Content-Type", "application/json"), *pairs(headers)]
        if simulate:
            fields.append(("Simulate", simulate))
        return self.ask("POST", target, json.dumps(document).encode(), fields)

    def close(self) -> None:
        """Leave by the end of all connections."""
        raise NotImplementedError

    def reset(self) -> None:
        """Leave by a RST of all connections."""
        raise NotImplementedError

    def closed(self) -> bool:
        """Wait until the other side has closed all connections."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def pairs(headers: Fields) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)
