"""Who is compared: how each is configured and started, what it can do, and what it is without.

Each has one core, so each runs as one process, worker or thread as far as it can be told. The configurations are what
each one's own documentation recommends for streaming at speed: nothing is buffered, no timeout is shorter than a run.
What is on by default is on, such as a line in a log for each request. Everybody listens on loopback alone.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.building import build as build
from benchmarks.building import certificate
from benchmarks.processes import free_port

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".venv" / "bench"  # where install_peers.py puts them
SBIN = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
LONG = 86400  # seconds: a timeout that no run meets
PLENTY = 20_000  # connections: a limit that no run meets
RESERVED_FILES = 200  # of a process, for all that is no stream
ALL_STREAMS = 9000  # what 20,000 descriptors let a relay have with HTTP/1.1 on both sides


def flags(**values: object) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items())
    return [part for pair in pairs for part in pair]


@dataclass(frozen=True)
class Setting:
    """Of one run."""

    port: int  # where it is to listen, on 127.0.0.1
    provider_port: int
    provider_http: int  # 1 or 2 (cleartext, prior knowledge)
    connections: int  # to the provider, at most
    streams: int  # that will be open
    directory: Path  # for its files
    certificate: Path | None = None  # with key: it then speaks TLS on `port`, HTTP/1.1 and by ALPN HTTP/2
    key: Path | None = None
    client_http: int = 1  # 1 or 2: of clients in the clear, for whom must be told beforehand

    @property
    def is_secure(self) -> bool:
        return self.certificate is not None and self.key is not None


class Subject:
    """One who is compared. `abilities`, of: client2 (HTTP/2 from clients in the clear), provider2, tls, resume
    (Relay-Resumable and GET /v1/streams), fan-out, json (answers that are no streams), many (4,000 streams)."""

    name: ClassVar[str]
    told: ClassVar[str]  # one line for the report
    abilities: ClassVar[frozenset[str]] = frozenset()
    most_streams: ClassVar[int] = ALL_STREAMS
    ready_seconds: ClassVar[float] = 10  # how long its start may take
    ready_cost: ClassVar[float] = 0.1  # how long it takes, usually
    # Answers GET with 200 once requests will be served; "": it is ready when it listens.
    ready_path: ClassVar[str] = ""

    def __init__(self, program: str = "") -> None:
        self.program = program

    def missing(self) -> str:
        """Why it cannot be started, and how to change that, in one sentence; "" if it can."""
        return ""

    def version(self) -> str:
        """As nginx/1.22.1; only for who is not missing."""
        return ""

    def command(self, setting: Setting) -> list[str]:
        """How it is started; its files go to the setting's directory."""
        raise NotImplementedError

    def environment(self, setting: Setting) -> dict[str, str] | None:
        """What its environment has beside ours."""
        return None


class Direct(Subject):
    name = "direct"
    told = "no relay: client and provider alone, for what they and the machine take themselves"
    abilities = frozenset({"client2", "provider2", "json", "many"})

    def command(self, setting: Setting) -> list[str]:
        return []


class Floor(Subject):
    name = "floor"
    told = "recv() and send() in C, which look at no byte: the least that a relay can do"
    abilities = frozenset({"client2", "provider2", "json", "many"})  # HTTP/2 if it is on both sides

    def missing(self) -> str:
        return "" if Path(self.program).exists() else "it is not compiled: a C compiler is needed (apt-get install gcc)"

    def version(self) -> str:
        return f"{self.name}.c"

    def command(self, setting: Setting) -> list[str]:
        return [self.program, *flags(listen=setting.port, connect=setting.provider_port)]


class Fan(Floor):
    name = "fan"
    told = "one send() in C for each reader of a stream: the least that a fan-out can do"
    abilities = frozenset({"fan-out"})


def output_of(command: Sequence[str]) -> str:
    """What a program says about itself, on either output."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return done.stdout


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


class Nginx(Subject):
    name = "nginx"
    told = "nginx with one worker, buffering off, keep-alive to the provider"
    abilities = frozenset({"client2", "tls", "json", "many"})  # HTTP/2 to providers came with 1.29.4
    CONF = """\
{user}
worker_processes 1;  # it has one core
worker_rlimit_nofile {files};
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log error;
events {{ worker_connections 30000; }}
http {{
    access_log {dir}/access.log;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    # Neither side closes a connection because it had many requests (default: 1,000).
    keepalive_requests 1000000;
    upstream provider {{
        server 127.0.0.1:{provider} max_fails=0;  # the only one: never taken for dead
        keepalive 20000;  # idle connections that are kept; needs HTTP/1.1 and an empty Connection below
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} {listen} backlog=4096;
        {tls}
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;  # each event leaves at once
            proxy_read_timeout 1d;
        }}
    }}
}}
"""
    # A shared cache and tickets, as its "Configuring HTTPS servers" recommends.
    TLS = "ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;"

    def __init__(self) -> None:
        super().__init__(shutil.which("nginx", path=SBIN) or "")

    def missing(self) -> str:
        return "" if self.program else "nginx is not installed: apt-get install nginx"

    def version(self) -> str:
        return output_of([self.program, "-v"]).rpartition(": ")[2].split(" ")[0].strip()

    def command(self, setting: Setting) -> list[str]:
        directory, config = setting.directory, setting.directory / "nginx.conf"
        tls = self.TLS.format(certificate=setting.certificate, key=setting.key) if setting.is_secure else ""
        # In the clear it speaks one or the other on a port, over TLS what ALPN says.
        listen = "ssl http2" if tls else "http2" if setting.client_http == 2 else ""
        config.write_text(
            self.CONF.format(
                user="user root;" if os.geteuid() == 0 else "",  # whose the directory is
                files=file_limit(),
                dir=directory,
                port=setting.port,
                provider=setting.provider_port,
                listen=listen,
                tls=tls,
            )
        )
        return [self.program, "-p", str(directory), "-e", str(directory / "nginx-error.log"), "-c", str(config)]


class Haproxy(Subject):
    name = "haproxy"
    told = "HAProxy with one thread, http-no-delay, connections to the provider shared"
    abilities = frozenset({"client2", "provider2", "tls", "json", "many"})
    CONF = """\
global
    nbthread 1  # it has one core
    maxconn {most}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    maxconn {most}
    timeout connect 5s
    timeout client 1d
    timeout server 1d
    timeout http-keep-alive 1d
    option http-no-delay  # what comes is not held back for more: "when low latency is needed"
    option abortonclose  # a client that leaves cancels what waits for it
    http-reuse always  # for servers known to be good: a new request, too, may go out on a used connection
    default-server pool-purge-delay 1h  # idle connections stay
frontend clients
    bind 127.0.0.1:{port} backlog 4096{tls}
    default_backend provider
backend provider
    server provider 127.0.0.1:{provider}{proto}
"""

    def __init__(self) -> None:
        super().__init__(shutil.which("haproxy", path=SBIN) or "")

    def missing(self) -> str:
        return "" if self.program else "HAProxy is not installed: apt-get install haproxy"

    def version(self) -> str:
        words = output_of([self.program, "-v"]).split()
        return f"haproxy/{words[words.index('version') + 1].partition('-')[0]}" if "version" in words else "haproxy"

    def command(self, setting: Setting) -> list[str]:
        config, tls = setting.directory / "haproxy.conf", ""
        if setting.certificate and setting.key:
            both = setting.directory / "haproxy.pem"  # it wants them in one file
            both.touch(mode=0o600)
            both.write_bytes(setting.certificate.read_bytes() + setting.key.read_bytes())
            tls = f" ssl crt {both} alpn h2,http/1.1"
        # In the clear it recognises HTTP/2 by its preface.
        config.write_text(
            self.CONF.format(
                most=(file_limit() - RESERVED_FILES) // 2,  # a connection takes a descriptor on either side
                port=setting.port,
                provider=setting.provider_port,
                tls=tls,
                proto=" proto h2" if setting.provider_http == 2 else "",
            )
        )
        return [self.program, "-db", "-f", str(config)]


class Installed(Subject):
    """A peer that install_peers.py puts into a virtual environment of its own."""

    package: ClassVar[str]

    def __init__(self, directory: Path = PEERS) -> None:
        self.home = directory / self.name
        super().__init__(str(self.home / "bin" / "python"))

    def _found(self) -> str:
        """The version that is installed; "" if none is."""
        marks = sorted(self.home.glob(f"lib/python3*/site-packages/{self.package.replace('-', '_')}-*.dist-info"))
        return marks[0].name.removesuffix(".dist-info").rpartition("-")[2] if marks else ""

    def missing(self) -> str:
        if self._found() and (self.home / "installed.txt").exists():
            return ""
        failed = self.home / "failed.txt"
        why = failed.read_text().strip() if failed.exists() else ""
        return f"{self.package} is not installed" + (f" ({why})" if why else ": python benchmarks/install_peers.py")

    def version(self) -> str:
        return f"{self.package}/{self._found()}"


class Sglang(Installed):
    name = "sglang"
    told = "SGLang's router (Rust), with its backend for any OpenAI-compatible worker"
    package = "sglang-router"
    # With 0.3.2, 9,000 streams of one event a second were carried without an error, and 4,000 of ten at the speed that
    # one core allowed (35,000 events a second). It speaks no HTTP/2 to a worker in the clear.
    abilities = frozenset({"client2", "tls", "json", "many"})
    ready_seconds = 20
    ready_cost = 1.5
    ready_path = "/readiness"  # it listens before it knows of its worker

    def command(self, setting: Setting) -> list[str]:
        tls = flags(tls_cert_path=setting.certificate, tls_key_path=setting.key) if setting.is_secure else []
        return [
            *[self.program, "-m", "sglang_router.launch_router"],
            # A worker of the backend "sglang" must be one: its /health is asked, and what it serves.
            *flags(host="127.0.0.1", port=setting.port, worker_urls=f"http://127.0.0.1:{setting.provider_port}"),
            *flags(backend="openai", policy="random", log_level="error", history_backend="none"),
            *flags(prometheus_host="127.0.0.1", prometheus_port=free_port()),  # the default is any address, port 29000
            *flags(request_timeout_secs=LONG, worker_startup_check_interval=1, shutdown_grace_period_secs=1),
            # One worker: nobody to turn to, so it must not be taken for dead, or asked twice.
            *["--disable-health-check", "--disable-circuit-breaker", "--disable-retries"],
            *tls,
        ]

    def environment(self, setting: Setting) -> dict[str, str] | None:
        return {"TOKIO_WORKER_THREADS": "1"}  # it has one core


class Litellm(Installed):
    name = "litellm"
    told = "LiteLLM's proxy (Python), one worker, no database, no callbacks; it writes each event anew"
    package = "litellm"
    # With 1.106.2 one core gave out near 2,000 events and 25 new streams a second: 500 streams of one event a second
    # were carried, 1,000 only if they began over 20 s, and of 4,000 two thirds never began.
    abilities = frozenset({"json"})  # its own server (uvicorn) speaks HTTP/1.1 alone
    most_streams = 500
    ready_seconds = 60
    ready_cost = 7
    ready_path = "/health/readiness"
    CONF = """\
model_list:
  - model_name: "*"
    litellm_params:
      model: "openai/*"
      api_base: "http://127.0.0.1:{provider}/v1"
      api_key: "none"
      timeout: {long}
      stream_timeout: {long}
litellm_settings:
  drop_params: true  # what a provider does not know is no error
  telemetry: false
  callbacks: []
  num_retries: 0
  request_timeout: {long}
router_settings:
  disable_cooldowns: true  # the only provider is never taken for dead
"""

    def command(self, setting: Setting) -> list[str]:
        config = setting.directory / "litellm.yaml"
        config.write_text(self.CONF.format(provider=setting.provider_port, long=LONG))
        command = [str(self.home / "bin" / "litellm"), *flags(config=config, host="127.0.0.1", port=setting.port)]
        return [*command, "--num_workers", "1"]

    def environment(self, setting: Setting) -> dict[str, str] | None:
        return {
            "LITELLM_LOG": "ERROR",  # with production mode: what its production page says
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no download of prices when it starts
            # Its default of 500 connections to one host is where it would stop otherwise; 0 means aiohttp's 100.
            "AIOHTTP_CONNECTOR_LIMIT": str(PLENTY),
            "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": str(PLENTY),
            # No key, which spares it the work of checking one: the load has none. It listens on loopback alone.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }


class Relay(Subject):
    name = "relay"
    told = "this relay"
    abilities = frozenset({"client2", "provider2", "tls", "resume", "fan-out", "json", "many"})
    ready_cost = 0.4
    resumable: ClassVar[str] = "ask"
    CONF = """\
[server]
listen = [{plain}]
{secure}
max_connections = {plenty}

[[upstream]]
name = "provider"
url = "http://127.0.0.1:{provider}"
max_connections = {connections}
http = "{http}"

[[route]]
path = "/*"
upstream = "provider"
resumable = "{resumable}"
"""

    def missing(self) -> str:
        return "" if shutil.which(self.program) else "the relay is not installed: make install, or --relay PROGRAM"

    def version(self) -> str:
        return output_of([self.program, "--version"]).strip().replace(" ", "/")

    def command(self, setting: Setting) -> list[str]:
        config, where = setting.directory / f"{self.name}.toml", f'"127.0.0.1:{setting.port}"'
        secure = f'listen_tls = [{where}]\ncertificate = "{setting.certificate}"\ncertificate_key = "{setting.key}"'
        config.write_text(
            self.CONF.format(
                plain="" if setting.is_secure else where,
                secure=secure if setting.is_secure else "",
                plenty=PLENTY,
                provider=setting.provider_port,
                connections=setting.connections,
                http="2" if setting.provider_http == 2 else "auto",
                resumable=self.resumable,
            )
        )
        return [self.program, "serve", "-c", str(config)]


class Resumable(Relay):
    name = "resumable"
    told = 'this relay with resumable = "always": every stream is kept and numbered'
    resumable = "always"


class Other(Relay):
    name = "other"
    told = "the relay that --other names, such as the one before a change"

    def missing(self) -> str:
        if not self.program:
            return "no other relay is named: --other PROGRAM"
        return "" if shutil.which(self.program) else f"--other: there is no program {self.program}"


@dataclass(frozen=True)
class Programs:
    directory: Path  # of what build() makes
    relay: str
    other: str = ""  # a relay to be compared with, such as the one before a change

    def certificate(self) -> tuple[Path, Path]:
        """The files of a certificate for loopback and of its key. Raises BenchError if it cannot be made."""
        return certificate(self.directory)


def subjects(programs: Programs) -> dict[str, Subject]:
    """Everybody, by name, in the order of a report."""
    made: list[Subject] = [
        Direct(),
        Floor(str(programs.directory / "floor")),
        Fan(str(programs.directory / "fan")),
        Nginx(),
        Haproxy(),
        Sglang(),
        Litellm(),
        Relay(programs.relay),
        Resumable(programs.relay),
        Other(programs.other),
    ]
    return {subject.name: subject for subject in made}
