"""What is started: the programs written in C, and the relays with their configurations."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchError

HERE = Path(__file__).resolve().parent
SOURCES = {"load": sorted(HERE.glob("load/*.c")), "floor": [HERE / "floor.c"]}


def build(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for name, sources in SOURCES.items():
        program = directory / name
        newest = max(path.stat().st_mtime for source in sources for path in source.parent.glob("*.[ch]"))
        if program.exists() and program.stat().st_mtime > newest:
            continue
        compiler = shlex.split(os.environ.get("CC", "gcc"))
        command = [*compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(program), *map(str, sources)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            raise BenchError(f"no C compiler: {compiler[0]}: {error.strerror}") from error
        if done.returncode:
            raise BenchError(f"{name} does not compile: {(done.stderr.splitlines() or ['?'])[0]}")


def flags(**values: object) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items())
    return [part for pair in pairs for part in pair]


NGINX_CONF = """\
{user}
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log error;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream provider {{
        server 127.0.0.1:{provider};
        keepalive 20000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

RELAY_CONF = """\
[server]
listen = ["127.0.0.1:{port}"]
max_connections = 20000

[[upstream]]
name = "provider"
url = "http://127.0.0.1:{provider}"
max_connections = {connections}
{http}
[[route]]
path = "/*"
upstream = "provider"
{resumable}"""


RELAYS = ("relay", "resumable", "other")


@dataclass(frozen=True)
class Provider:
    """Where a relay finds it, and how it may be used."""

    port: int
    http: int
    connections: int


@dataclass(frozen=True)
class Programs:
    directory: Path  # of what build() makes
    relay: str
    nginx: str
    other: str = ""  # a relay to be compared with, such as the one before a change

    @property
    def load(self) -> str:
        return str(self.directory / "load")

    def command(self, subject: str, port: int, provider: Provider, directory: Path) -> list[str]:
        """How a subject is started; its files go to the directory."""
        if subject == "floor":
            return [str(self.directory / "floor"), *flags(listen=port, connect=provider.port)]
        config = directory / f"{subject}.conf"
        if subject == "nginx":
            text = NGINX_CONF.format(
                user="user root;" if os.geteuid() == 0 else "",
                files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                dir=directory,
                port=port,
                provider=provider.port,
            )
            command = [self.nginx, "-p", str(directory), "-e", str(directory / "nginx-error.log")]
        else:
            text = RELAY_CONF.format(
                port=port,
                provider=provider.port,
                connections=provider.connections,
                http='http = "2"\n' if provider.http == 2 else "",
                resumable='resumable = "always"\n' if subject == "resumable" else "",
            )
            command = [self.other if subject == "other" else self.relay, "serve"]
        config.write_text(text)
        return [*command, "-c", str(config)]
