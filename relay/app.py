"""Wiring: the only file that knows every floor. Builds the relay from a configuration, runs it, drains it.

SIGTERM, SIGINT   accept no more, close what is idle, let live streams end, for `drain` seconds at most
once more         break off what is left, now
SIGHUP            read the certificate's files again
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import resource
import signal
import ssl
import sys
from collections.abc import Callable

import uvloop

from relay import config as configuration
from relay.control import refusal
from relay.control.access import AccessLog
from relay.control.exchange import Exchange
from relay.control.generation import Generation
from relay.control.office import Office, Retention, Timing
from relay.control.router import Resumable, Route, Router, Upstream
from relay.control.tokens import token
from relay.core.follower import Flush
from relay.core.hub import Hub
from relay.errors import ConfigError, Drained, RelayError
from relay.flow.overflow import Mode
from relay.net.certificate import Certificate
from relay.net.dial import Http, Origin, PoolLimits
from relay.net.poller import Poller
from relay.net.pool import Pool
from relay.net.pulse import Pulse
from relay.net.server import Address, Server
from relay.net.service import Client, ClientLimits
from relay.net.timers import Wheel
from relay.schema import Config, UpstreamTable
from relay.wire import dialect
from relay.wire.head import RequestHead
from relay.wire.headers import Credential

# Descriptors for what is not a relayed connection: the loop's own, listening sockets, logs, a resolver.
_SPARE_DESCRIPTORS = 64
# What uvloop says where TLS had something to write, and its socket had just been closed.
_TLS_FAILED = "Fatal error on SSL protocol"
_CLOSED = "the handler is closed"
# After streams were broken off: what their readers get to take the last event (seconds).
_PARTING = 0.5


def run(config: Config, say: Callable[[str], None] | None = None) -> int:
    """Serve until a signal says otherwise; returns the exit code. Raises ConfigError before anything is served."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, say or _say))


async def _serve(config: Config, say: Callable[[str], None]) -> int:
    app = App(config, say)
    for url in await app.start():
        say(f"relay listening on {url}")
    await app.serve()
    return 0


class App:
    """One relay in one event loop."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._clients = config.server.max_connections
        self._fit_descriptors()
        self._wheel = Wheel(self._loop)
        self._poller = Poller(self._loop)
        self._pulse = Pulse(self._loop)
        self._access = AccessLog(config.server.access_log)
        self._certificate = self._read_certificate()
        self._upstreams = {table.name: self._upstream(table) for table in config.upstream}
        limits, timeouts, retention = config.limits, config.timeouts, config.retention
        self.office = Office(
            router=Router(self._routes()),
            wheel=self._wheel,
            pulse=self._pulse,
            access=self._access,
            timing=Timing(
                head=timeouts.head,
                first_event=timeouts.first_event,
                idle=timeouts.idle,
                total=timeouts.total,
                heartbeat=timeouts.heartbeat,
                placeholder=timeouts.placeholder,
            ),
            retention=Retention(
                finished=retention.finished,
                orphan=retention.orphan,
                grace=retention.orphan_grace,
                orphans=retention.orphans,
                stream=retention.stream,
            ),
            hub=Hub[Generation](retention.total),
            request_limit=limits.request_body,
            replay_limit=limits.replay_body,
            event_limit=limits.event,
            inflate_limit=limits.inflated,
            hosts=frozenset(host.lower().encode() for host in config.server.hosts),
            trusted=tuple(ipaddress.ip_network(network) for network in config.server.trusted),
            certificate=self._certificate,
            page=config.server.page,
        )
        self._server = Server(
            self._wheel,
            self._poller,
            ClientLimits(
                head=timeouts.request_head,
                body_idle=timeouts.request_body,
                keep_alive=timeouts.keep_alive,
                stall=timeouts.write,
                streams=config.server.max_streams,
            ),
            self._clients,
            self._exchange,
            self._refuse,
            self._broke,
        )

    async def start(self) -> list[str]:
        """Listen. Returns the urls; raises ConfigError for an address that cannot be had."""
        self._loop.set_exception_handler(self._complain)
        server = self._config.server
        urls = [f"http://{address}" for address in await self._server.listen(_addresses(server.listen))]
        if self._certificate is not None:
            secure = await self._server.listen(_addresses(server.listen_tls), self._certificate)
            urls += [f"https://{address}" for address in secure]
        self._wheel.start()
        self._access.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        self._loop.add_signal_handler(signal.SIGHUP, self.reload)
        # What lives from here to the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        return urls

    async def serve(self) -> None:
        """Until somebody stops it, then until the drain is over."""
        await self._stopping.wait()
        await self._drain()
        self._wheel.close()
        self._pulse.close()
        self._poller.close()
        self._access.close()

    def stop(self) -> None:
        """First time: drain. Second time: now."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def reload(self) -> None:
        """Take up a renewed certificate; open connections stay, and a mistake in it leaves the old one in force."""
        if self._certificate is None:
            self._say("relay: nothing to reload: there is no certificate")
            return
        try:
            self._certificate.reload()
        except ConfigError as error:
            self._say(f"relay: {error.message}; the old certificate stays in force")
        else:
            self._say(f"relay certificate reloaded: {self._certificate}")

    async def _drain(self) -> None:
        office = self.office
        office.draining = True
        self._server.drain()
        for upstream in self._upstreams.values():
            upstream.pool.close()
        if office.open:
            left = self._config.timeouts.drain
            self._say(
                f"relay draining: {len(office.open)} requests may go on for {left:g} s; another signal breaks them off"
            )
        waits = [self._loop.create_task(event.wait()) for event in (self._server.empty, self._hurry)]
        await asyncio.wait(waits, timeout=self._config.timeouts.drain, return_when=asyncio.FIRST_COMPLETED)
        if office.open:
            self._say(f"relay breaking off {len(office.open)} requests")
            for exchange in list(office.open):
                exchange.drained()
            await asyncio.wait(waits[:1], timeout=_PARTING)
        self._server.cut()
        for generation in office.hub:
            generation.give_up(Drained("the relay is stopping"))
        # Their ends have yet to be told, and logged.
        await asyncio.wait(waits[:1], timeout=_PARTING)
        for wait in waits:
            wait.cancel()

    # Building

    def _read_certificate(self) -> Certificate | None:
        server = self._config.server
        if server.certificate is None or server.certificate_key is None:
            return None
        certificate = Certificate(server.certificate, server.certificate_key)
        if certificate.until < datetime.datetime.now(datetime.UTC):
            self._say(f"relay: the certificate has ended, no client will accept it: {certificate}")
        return certificate

    def _routes(self) -> list[Route]:
        return [
            Route(
                table.path,
                self._upstreams[table.upstream],
                table.strip_prefix.encode(),
                Resumable(table.resumable),
                Mode(table.overflow) if table.overflow else None,
                Flush.of(table.flush_events, table.flush, table.smooth),
            )
            for table in self._config.route
        ]

    def _upstream(self, table: UpstreamTable) -> Upstream:
        place = f"upstream {table.name!r}"
        url = configuration.split_url(table.url, place)
        tls = _tls(table.ca_file, table.http, place) if url.scheme == "https" else None
        host = url.hostname or ""
        port = url.port or (443 if tls else 80)
        timeouts = self._config.timeouts
        pool = Pool(
            Origin(table.name, host, port, tls, link_local=table.allow_link_local, http=table.http),
            PoolLimits(
                connections=table.max_connections,
                waiting=self._config.limits.waiting,
                connect=timeouts.connect,
                queue=timeouts.queue,
                idle=timeouts.upstream_idle,
                stall=timeouts.write,
                streams=table.max_streams,
                ping=timeouts.ping,
                pong=timeouts.pong,
            ),
            self._wheel,
            self._poller,
        )
        key = configuration.api_key(table, place)
        return Upstream(
            name=table.name,
            pool=pool,
            authority=(url.netloc if url.port else f"[{host}]" if ":" in host else host).encode(),
            base=url.path.rstrip("/").encode(),
            credential=Credential(key[0].encode(), key[1].encode()) if key else None,
            forwarded=table.forward_client,
        )

    def _exchange(self, request: RequestHead, client: Client) -> Exchange:
        return Exchange(self.office, request, client)

    def _refuse(self, client: Client, error: RelayError) -> None:
        """A request that never became one: its answer and its line in the log."""
        request_id = token(12)
        self._access.write(
            {
                "request_id": request_id,
                "client": client.peer,
                "status": error.status,
                "reason": error.reason.value,
                "error": error.code,
            }
        )
        status, fields, body = refusal.answer(error, dialect.OPAQUE, request_id)
        client.respond(status, [*fields, (b"x-request-id", request_id.encode())], body)

    def _broke(self, peer: str, error: RelayError) -> None:
        """A client's connection or stream that ended for breaking the rules: a line in the log."""
        self._access.write({"client": peer, "reason": error.reason.value, "error": error.code, "detail": error.message})

    def _fit_descriptors(self) -> None:
        """As many connections as there are descriptors for: better refused at the door than failed in the house."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if hard == resource.RLIM_INFINITY:
            return
        providers = sum(table.max_connections for table in self._config.upstream)
        wanted = self._clients + providers + _SPARE_DESCRIPTORS
        if wanted > hard:
            # A stream takes one of each side.
            self._clients = max((hard - _SPARE_DESCRIPTORS) - min(providers, (hard - _SPARE_DESCRIPTORS) // 2), 1)
            self._say(
                f"relay: the limit of {hard} open files leaves room for {self._clients} client connections "
                f"({self._config.server.max_connections} configured) beside {providers} to providers"
            )

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A defect, or a condition of the system, outside any exchange: one line, never what a peer sent."""
        error = context.get("exception")
        if context.get("message") == _TLS_FAILED and isinstance(error, RuntimeError) and _CLOSED in str(error):
            return  # the socket was lost in this very turn, and `connection_lost` is on its way
        detail = f": {type(error).__name__}" if isinstance(error, BaseException) else ""
        trace = error.__traceback__ if isinstance(error, BaseException) else None
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
        self._say(f"relay internal: {context.get('message')}{detail}{where}")


def _addresses(entries: list[str]) -> list[Address]:
    return [Address(*configuration.split_address(entry, "listen")) for entry in entries]


def _tls(ca_file: str | None, http: Http, place: str) -> ssl.SSLContext:
    """The system's trust, or a file's; TLS 1.2 and up."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"{place}: ca_file {ca_file!r} holds no certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols({"auto": ["h2", "http/1.1"], "1.1": ["http/1.1"], "2": ["h2"]}[http])
    return context


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
