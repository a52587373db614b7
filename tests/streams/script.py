"""A provider of HTTP/1.1 that says each piece of its event stream when the test says so."""

from __future__ import annotations

from typing import Self

from tests.robustness.peers import Scripted, until

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Script(Scripted):
    """Each request gets the head at once, and what was given for the beginning; or nothing, not even the head."""

    def __init__(self, begin: bytes = b"", *, head: bool = True) -> None:
        super().__init__((_HEAD if head else b"") + (chunk(begin) if begin else b""))

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def asked(self, number: int = 1) -> None:
        """Wait for so many requests."""
        until(lambda: len(self.heads) >= number, f"{number} requests")

    def head(self) -> None:
        self.say(_HEAD)

    def tell(self, piece: bytes) -> None:
        """The next bytes of the stream, as one chunk."""
        self.say(chunk(piece))

    def end(self) -> None:
        self.say(b"0\r\n\r\n")


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def delta(text: str) -> bytes:
    """A chat completion's event."""
    return b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (
        text.encode()
    )


DONE = b"data: [DONE]\n\n"
