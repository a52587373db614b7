"""The configuration file: read, and checked for what no schema can say; one clear error per mistake. Read by app alone.

The schema is schema.py's. A mistake names the file, the line, the key, what was expected, and the nearest name that
exists. Nothing here opens a socket.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from relay.errors import ConfigError
from relay.flow.overflow import MOST_EVENTS_HELD, MOST_HELD
from relay.mistake import Mistake, nearest
from relay.net.certificate import Certificate
from relay.net.dial import is_link_local
from relay.schema import TABLES, Config, Listen, RouteTable, UpstreamTable, decode

_KEY_HEADERS = {"bearer": ("authorization", "Bearer "), "x-api-key": ("x-api-key", ""), "api-key": ("api-key", "")}
# Of one connection. Whoever means to have no limit is told that there is one.
_MOST_STREAMS = 10_000
# Timeouts that guard the process itself: without them one peer could hold a connection for ever.
_NEEDED = ("request_head", "request_body", "keep_alive", "write", "queue", "connect", "upstream_idle", "pong")


def load(path: str) -> Config:
    """Read and check a file. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = ""
        if "declare" in str(error) and "twice" in str(error):
            hint = "; of [[upstream]] and [[route]] there may be several, in double brackets"
        raise ConfigError(f"{path}: not valid TOML: {error}{hint}") from None
    try:
        config = msgspec.convert(raw, Config, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigError(Mistake(path, text, str(error), TABLES).text()) from None
    check(config, path)
    return config


def of_upstream(url: str, *, listen: list[str] | None = None, api_key_env: str | None = None) -> Config:
    """The configuration of `relay serve --upstream URL`: one provider for every path."""
    name = split_url(url, "--upstream").hostname or ""
    config = Config(
        server=Listen(listen=listen) if listen else Listen(),
        upstream=[UpstreamTable(name=name, url=url, api_key_env=api_key_env)],
        route=[RouteTable(path="/*", upstream=name)],
    )
    check(config, "the command line")
    return config


def check(config: Config, place: str) -> None:
    """What no schema can say. Raises ConfigError; `place` is the file's name, or the option's."""
    if not config.upstream:
        raise ConfigError(f"{place}: no [[upstream]]: name at least one provider, with its name and url")
    if not config.route:
        raise ConfigError(f'{place}: no [[route]]: say which paths go where, as path = "/*", upstream = "…"')
    if not config.server.listen and not config.server.listen_tls:
        raise ConfigError(f'{place}: [server] listen is empty: name at least one address, as "127.0.0.1:8080"')
    for entry in config.server.listen:
        split_address(entry, f"{place}: [server] listen")
    _check_tls(config.server, place)
    _check_overlap(config.server, place)
    for network in config.server.trusted:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ConfigError(f"{place}: [server] trusted: {network!r} is not a network like 10.0.0.0/8") from None
    for host in config.server.hosts:
        if not re.fullmatch(r"[A-Za-z0-9.-]+", host):
            raise ConfigError(f"{place}: [server] hosts: {host!r} is not a name like relay.example.org, without a port")
    for name in _NEEDED:
        if getattr(config.timeouts, name) <= 0:
            raise ConfigError(
                f"{place}: [timeouts] {name} must be above 0: it keeps one peer from holding a place for ever"
            )
    for name in config.timeouts.__struct_fields__:
        if getattr(config.timeouts, name) < 0:
            raise ConfigError(f"{place}: [timeouts] {name} must not be negative")
    for name in ("finished", "orphan", "orphan_grace"):
        if getattr(config.retention, name) < 0:
            raise ConfigError(f"{place}: [retention] {name} must not be negative")
    if config.limits.replay_body < 0:
        raise ConfigError(f"{place}: [limits] replay_body must not be negative")
    _check_counts(config, place)
    names = _check_upstreams(config, place)
    _check_routes(config, place, names)
    _check_exposure(config, place)


def _check_tls(server: Listen, place: str) -> None:
    for entry in server.listen_tls:
        split_address(entry, f"{place}: [server] listen_tls")
    for key in ("certificate", "certificate_key"):
        file = getattr(server, key)
        if file is None and (server.listen_tls or server.certificate or server.certificate_key):
            raise ConfigError(f"{place}: [server] {key} is missing: listen_tls needs a certificate and its key")
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"{place}: [server] {key} {file!r} is not a file")
    if server.certificate is not None and server.certificate_key is not None:
        try:
            Certificate(server.certificate, server.certificate_key)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error.message}") from None
    if server.certificate is not None and not server.listen_tls:
        raise ConfigError(f'{place}: [server] listen_tls is missing: say where to speak TLS, as ["127.0.0.1:8443"]')


def _check_overlap(server: Listen, place: str) -> None:
    seen: list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address, int]] = []
    for entry in (*server.listen, *server.listen_tls):
        host, port = split_address(entry, place)
        address = ipaddress.ip_address(host)
        for other, at, on in seen:
            both = address == at or (address.version == at.version and (address.is_unspecified or at.is_unspecified))
            if port and port == on and both:
                raise ConfigError(f"{place}: [server] {other!r} and {entry!r} are the same port; give one another")
        seen.append((entry, address, port))


def split_address(entry: str, place: str) -> tuple[str, int]:
    """`host:port` with an IP address as its host, `[…]:port` for IPv6."""
    host, colon, port = entry.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        raise ConfigError(f'{place}: {entry!r} is not an address like "127.0.0.1:8080" or "[::1]:8080"') from None
    if not colon or not 0 <= number <= 65535:
        raise ConfigError(f"{place}: {entry!r} needs a port from 0 to 65535")
    return host, number


def split_url(url: str, place: str) -> SplitResult:
    """An upstream's url: http or https, a host, perhaps a port and a path."""
    if "@" in url or "?" in url or "#" in url:
        # Not quoted: this is where a password or a key stands.
        raise ConfigError(f"{place}: a url may hold no user, query or fragment; a key belongs into api_key_env")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{place}: {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f'{place}: {url!r} is not a url like "https://api.openai.com"')
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{place}: {url!r} holds a character that a url may not hold")
    return parts


def api_key(table: UpstreamTable, place: str) -> tuple[str, str] | None:
    """The header field that carries an upstream's key, name and value; None where the caller brings its own."""
    if table.api_key_env is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", table.api_key_env):
        # Not quoted: it may well be the key itself.
        raise ConfigError(
            f"{place}: upstream {table.name!r}: api_key_env is the name of an environment variable in capitals, as "
            '"OPENAI_API_KEY"; a key itself may not stand here'
        )
    key = os.environ.get(table.api_key_env)
    if not key:
        raise ConfigError(
            f"{place}: upstream {table.name!r}: the environment variable {table.api_key_env} is not set; "
            "set it to the provider's key, or leave out api_key_env so that callers bring their own"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{place}: upstream {table.name!r}: {table.api_key_env} holds characters that no key has")
    name, prefix = _KEY_HEADERS[table.api_key_header]
    return name, prefix + key


def _check_counts(config: Config, place: str) -> None:
    for key, value in (
        ("[server] max_connections", config.server.max_connections),
        ("[server] max_streams", config.server.max_streams),
        ("[limits] waiting", config.limits.waiting),
        ("[limits] event", config.limits.event),
        ("[limits] request_body", config.limits.request_body),
        ("[limits] inflated", config.limits.inflated),
        ("[retention] orphans", config.retention.orphans),
        ("[retention] stream", config.retention.stream),
        ("[retention] total", config.retention.total),
        *((f"upstream {table.name!r}: max_connections", table.max_connections) for table in config.upstream),
        *((f"upstream {table.name!r}: max_streams", table.max_streams) for table in config.upstream),
    ):
        if value < 1:
            raise ConfigError(f"{place}: {key} must be at least 1")
        if key.endswith("max_streams") and value > _MOST_STREAMS:
            raise ConfigError(f"{place}: {key} may be at most {_MOST_STREAMS}; 100 is usual")


def _check_upstreams(config: Config, place: str) -> list[str]:
    names: list[str] = []
    for table in config.upstream:
        if table.name in names:
            raise ConfigError(f"{place}: two upstreams are named {table.name!r}")
        names.append(table.name)
        parts = split_url(table.url, f"{place}: upstream {table.name!r}: url")
        for entry in (*config.server.listen, *config.server.listen_tls):
            if _reaches(parts, *split_address(entry, place)):
                raise ConfigError(f"{place}: upstream {table.name!r}: {table.url} is where the relay itself listens")
        if not table.allow_link_local and is_link_local(parts.hostname or ""):
            raise ConfigError(
                f"{place}: upstream {table.name!r}: {table.url} is a link-local address, where cloud machines keep "
                "their credentials; say allow_link_local = true if it is meant"
            )
        if table.ca_file is not None:
            _check_ca(table.ca_file, f"{place}: upstream {table.name!r}: ca_file {table.ca_file!r}")
        api_key(table, place)
    return names


def _check_ca(file: str, what: str) -> None:
    try:
        content = Path(file).read_bytes()
    except IsADirectoryError:
        raise ConfigError(f"{what} is not a file") from None
    except FileNotFoundError:
        raise ConfigError(f"{what} is not a file") from None
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigError(f"{what} holds no certificates in PEM form")


def _reaches(url: SplitResult, host: str, port: int) -> bool:
    """Whether a url leads to an address that the relay listens on."""
    if not port or port != (url.port or (443 if url.scheme == "https" else 80)):
        return False
    listening = ipaddress.ip_address(host)
    try:
        target = ipaddress.ip_address("127.0.0.1" if url.hostname == "localhost" else url.hostname or "")
    except ValueError:
        return False
    if url.hostname == "localhost" or listening.is_unspecified:
        return target.is_loopback and (listening.is_loopback or listening.is_unspecified)
    return target == listening


def _check_routes(config: Config, place: str, names: list[str]) -> None:
    seen: list[str] = []
    for route in config.route:
        where = f"{place}: route {route.path!r}"
        if not route.path.startswith("/") or "*" in route.path[:-1] or not route.path.isascii():
            raise ConfigError(f'{where}: a path begins with / and may end in *, as "/v1/*"')
        if route.upstream not in names:
            raise ConfigError(f"{where}: there is no upstream {route.upstream!r}{nearest(route.upstream, names)}")
        for earlier in seen:
            if earlier == route.path:
                raise ConfigError(f"{where}: stands there twice; remove one")
            if earlier.endswith("*") and route.path.startswith(earlier[:-1]):
                raise ConfigError(f"{where}: never reached, because {earlier!r} stands before it; put it first")
        seen.append(route.path)
        if route.strip_prefix and not re.fullmatch(r"(/[^/*?#\s]+)+", route.strip_prefix):
            raise ConfigError(f'{where}: strip_prefix is the start of a path without a slash at its end, as "/openai"')
        _check_flush(route, where)
        if route.resumable == "always" and not config.retention.finished:
            raise ConfigError(
                f'{where}: resumable = "always" keeps its streams, but [retention] finished is 0, which keeps nothing'
            )
        table = config.upstream[names.index(route.upstream)]
        base = split_url(table.url, place).path.rstrip("/")
        if base.endswith("/v1") and not route.strip_prefix and ("/v1/".startswith(route.path.rstrip("*")[:4])):
            raise ConfigError(
                f"{where}: a request for /v1/… would ask the provider for {base}/v1/…; "
                f"write url = {table.url.rstrip('/').removesuffix('/v1')!r} for upstream {table.name!r}"
            )


def _check_flush(route: RouteTable, where: str) -> None:
    for key, seconds in (("flush", route.flush), ("smooth", route.smooth)):
        if not 0 <= seconds <= MOST_HELD:
            raise ConfigError(f"{where}: {key} holds events back, and may be from 0 to {MOST_HELD:g} s")
    if not 1 <= route.flush_events <= MOST_EVENTS_HELD:
        raise ConfigError(f"{where}: flush_events may be from 1 to {MOST_EVENTS_HELD}")
    if route.smooth and (route.flush or route.flush_events > 1):
        raise ConfigError(f"{where}: smooth and flush exclude each other: the one spreads events, the other joins them")


def _check_exposure(config: Config, place: str) -> None:
    holders = [table.name for table in config.upstream if table.api_key_env is not None]
    if not holders or config.server.allow_open:
        return
    entries = [("listen", entry) for entry in config.server.listen]
    entries += [("listen_tls", entry) for entry in config.server.listen_tls]
    for key, entry in entries:
        host, _ = split_address(entry, place)
        if not ipaddress.ip_address(host).is_loopback:
            raise ConfigError(
                f"{place}: [server] {key} {entry!r} can be reached from other machines, and upstream {holders[0]!r} "
                "has a key that anybody could spend, because callers are not asked who they are; listen on 127.0.0.1 "
                "behind a proxy that asks, or say allow_open = true in the [server] of a file"
            )
