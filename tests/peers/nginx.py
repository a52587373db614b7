"""nginx as a provider of HTTP/2 over TLS, in front of the simulated one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.peers.conftest import find
from tests.peers.secured import Pair
from tests.programs import PATIENCE, Provider

# Everything that nginx writes stays in its directory.
_CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 1024; }}
http {{
    log_format version "$server_protocol $connection $connection_requests $status";
    access_log {directory}/access.log version;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        keepalive_requests {requests};
        client_max_body_size 64m;
        location / {{
            proxy_pass {provider};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"""


class Nginx:
    """From its ready socket on. `requests`: how many it takes on a connection, then it says GOAWAY."""

    def __init__(self, directory: Path, provider: Provider, pair: Pair, *, requests: int = 1000) -> None:
        directory.mkdir()
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address: tuple[str, int] = free.getsockname()
        self.url = f"https://127.0.0.1:{self._address[1]}"
        config = directory / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                # Started by root it would hand its work to a user who may not write here.
                user="user root;" if os.geteuid() == 0 else "",
                directory=directory,
                port=self._address[1],
                certificate=pair.certificate,
                key=pair.key,
                requests=requests,
                provider=provider.url,
            )
        )
        command = [find("nginx", "nginx"), "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(self._address, timeout=PATIENCE).close()
            except ConnectionRefusedError:
                continue
            return
        self._process.kill()
        raise AssertionError(f"nginx does not listen: {self._process.communicate()[1].decode()}")

    def reload(self) -> None:
        """What `nginx -s reload` does: new workers take new connections, the old ones say GOAWAY to theirs."""
        self._process.send_signal(signal.SIGHUP)

    def generations(self) -> int:
        """How often workers have been started."""
        return (self._directory / "error.log").read_text().count("start worker processes")

    def served(self) -> list[tuple[str, str]]:
        """The version and the connection of each request so far."""
        lines = (self._directory / "access.log").read_text().splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines]

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
