"""What a configuration file may say: its tables, their keys, and the units of their values.

msgspec checks a file against these classes; what no schema can say is config.py's. sample.toml explains every value.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 10**6, "GB": 10**9}


class Seconds(float):
    """A duration: "250ms", "30s", "5m", "1h", or a number of seconds."""


class Size(int):
    """A number of bytes: "64KiB", "32MiB", or a plain integer."""


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file: unknown keys are mistakes."""


class Listen(_Table, frozen=True):
    """`[server]`"""

    listen: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.1:8080"])
    listen_tls: list[str] = []
    certificate: str | None = None
    certificate_key: str | None = None
    allow_open: bool = False
    trusted: list[str] = []
    hosts: list[str] = []
    max_connections: int = 10_000
    max_streams: int = 100
    access_log: Literal["json", "text", "off"] = "json"
    page: bool = True


class UpstreamTable(_Table, frozen=True):
    """`[[upstream]]`"""

    name: str
    url: str
    api_key_env: str | None = None
    api_key_header: Literal["bearer", "x-api-key", "api-key"] = "bearer"
    ca_file: str | None = None
    http: Literal["auto", "1.1", "2"] = "auto"
    max_connections: int = 1024
    max_streams: int = 100
    forward_client: bool = False
    allow_link_local: bool = False


class RouteTable(_Table, frozen=True):
    """`[[route]]`"""

    path: str
    upstream: str
    strip_prefix: str = ""
    resumable: Literal["ask", "always", "never"] = "ask"
    overflow: Literal["merge", "disconnect", "pause", "drop"] | None = None
    flush: Seconds = Seconds(0)
    flush_events: int = 1
    smooth: Seconds = Seconds(0)


class RetentionTable(_Table, frozen=True):
    """`[retention]`"""

    finished: Seconds = Seconds(600)
    orphan: Seconds = Seconds(3600)
    orphan_grace: Seconds = Seconds(30)
    orphans: int = 10_000
    stream: Size = Size(8 * 1024**2)
    total: Size = Size(256 * 1024**2)


class Timeouts(_Table, frozen=True):
    """`[timeouts]`; 0 switches one off where that makes sense."""

    request_head: Seconds = Seconds(10)
    request_body: Seconds = Seconds(30)
    keep_alive: Seconds = Seconds(75)
    write: Seconds = Seconds(60)
    queue: Seconds = Seconds(30)
    connect: Seconds = Seconds(5)
    head: Seconds = Seconds(120)
    first_event: Seconds = Seconds(120)
    idle: Seconds = Seconds(300)
    total: Seconds = Seconds(0)
    heartbeat: Seconds = Seconds(15)
    placeholder: Seconds = Seconds(0.5)
    upstream_idle: Seconds = Seconds(60)
    ping: Seconds = Seconds(30)
    pong: Seconds = Seconds(10)
    drain: Seconds = Seconds(300)


class Limits(_Table, frozen=True):
    """`[limits]`"""

    request_body: Size = Size(32 * 1024**2)
    replay_body: Size = Size(1024**2)
    event: Size = Size(1024**2)
    inflated: Size = Size(32 * 1024**2)
    waiting: int = 1024


class Config(_Table, frozen=True):
    """A whole file."""

    server: Listen = Listen()
    upstream: list[UpstreamTable] = []
    route: list[RouteTable] = []
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    retention: RetentionTable = RetentionTable()


TABLES: dict[str, type[_Table]] = {
    "": Config,
    "server": Listen,
    "upstream": UpstreamTable,
    "route": RouteTable,
    "timeouts": Timeouts,
    "limits": Limits,
    "retention": RetentionTable,
}


def decode(kind: type, value: Any) -> Any:
    """A value of the file as what the schema has there (msgspec's dec_hook). Raises ValueError for a mistake."""
    if kind is Seconds:
        return _seconds(value)
    if kind is Size:
        return _size(value)
    raise NotImplementedError(kind)


def _seconds(value: Any) -> Seconds:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return Seconds(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('Expected a duration like "30s", "250ms" or "5m"')
    return Seconds(float(match[1]) * _UNITS[match[2]])


def _size(value: Any) -> Size:
    if isinstance(value, int) and not isinstance(value, bool):
        return Size(value)
    match = re.fullmatch(r"(\d+) ?([A-Za-z]*)", value) if isinstance(value, str) else None
    if match is None or match[2] not in _SIZES:
        raise ValueError('Expected a size like "64KiB" or "32MiB"')
    return Size(int(match[1]) * _SIZES[match[2]])
