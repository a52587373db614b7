"""Where a request goes: the first route of the configuration whose pattern fits its path."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from relay.core.follower import AT_ONCE, Flush
from relay.flow.overflow import Mode
from relay.net.pool import Pool
from relay.wire.headers import Credential


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider. `authority` is its Host field; `base` a path in front of every target, without a slash at its end.
    `forwarded`: whether it is told the client's address."""

    name: str
    pool: Pool
    authority: bytes
    base: bytes
    credential: Credential | None
    forwarded: bool


class Resumable(enum.StrEnum):
    """Which event streams of a route are kept so that they can be resumed."""

    ASK = "ask"  # those whose request says so
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern` is a path, or the start of one and `*`. `strip` is taken off the path's start on the way upstream.
    `overflow` and `flush` are what readers get that do not ask for others."""

    pattern: str
    upstream: Upstream
    strip: bytes = b""
    resumable: Resumable = Resumable.ASK
    overflow: Mode | None = None
    flush: Flush = AT_ONCE

    def fits(self, path: bytes) -> bool:
        literal = self.pattern.encode()
        if literal.endswith(b"*"):
            return path.startswith(literal[:-1])
        return path == literal

    def target(self, target: bytes) -> bytes:
        """The target as the provider gets it; the query stays as it is."""
        if self.strip and target.startswith(self.strip + b"/"):
            target = target[len(self.strip) :]
        return self.upstream.base + target


class Router:
    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes

    def match(self, path: bytes) -> Route | None:
        for route in self.routes:
            if route.fits(path):
                return route
        return None
