"""Each subject is started by its own command in front of the simulated provider, and gives its events on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks import install_peers
from benchmarks.processes import free_port
from benchmarks.subjects import Haproxy, Litellm, Nginx, Programs, Setting, Sglang, Subject, build, subjects
from tests.programs import BIN, PATIENCE, ROOT, Provider, chat, running

BUILT = ROOT / ".venv" / "bench"
EVERYBODY = subjects(Programs(BUILT, str(BIN / "relay"), other=str(BIN / "relay")))
REWRITES = {"litellm"}  # who writes events anew
NUMBERS = {"resumable"}  # who adds to them
COMPILED = {"floor", "fan"}


def startable(ability: str = "") -> list[str]:
    """Those that are here, or will be when they are compiled."""
    return [
        name
        for name, subject in EVERYBODY.items()
        if name not in ("direct", "fan", "other")
        and (name in COMPILED or not subject.missing())
        and (not ability or ability in subject.abilities)
    ]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build(BUILT)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running(Provider("--set", "events=5", "--set", "interval=1ms")) as made:
        yield made


def setting(provider: Provider, directory: Path, **more: object) -> Setting:
    values: dict[str, object] = {"provider_http": 1, "connections": 10, "streams": 10, **more}
    return Setting(port=free_port(), provider_port=provider.port, directory=directory, **values)  # type: ignore[arg-type]


@contextlib.contextmanager
def started(subject: Subject, told: Setting) -> Iterator[None]:
    """Runs it until the block ends, from when it is ready."""
    errors = told.directory / "stderr"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            subject.command(told),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **(subject.environment(told) or {})},
        )
    try:
        deadline = time.monotonic() + subject.ready_seconds
        while not is_ready(subject, told):
            assert process.poll() is None, f"{subject.name} ended: {errors.read_text()}"
            assert time.monotonic() < deadline, f"{subject.name} is not ready: {errors.read_text()}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(subject: Subject, told: Setting) -> bool:
    try:
        if not subject.ready_path:
            socket.create_connection(("127.0.0.1", told.port), 1).close()
            return True
        scheme = "https" if told.is_secure else "http"
        answer = httpx.get(f"{scheme}://127.0.0.1:{told.port}{subject.ready_path}", timeout=5, verify=False)
    except (OSError, httpx.HTTPError):
        return False
    return answer.status_code == 200


def ask(port: int, tls: ssl.SSLContext | None = None) -> bytes:
    """The body of a streamed answer."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    )
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(chat()), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        assert (answer.getheader("Content-Type") or "").startswith("text/event-stream")
        return body


def data(body: bytes) -> list[str]:
    """What the events say."""
    return [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]


def texts(body: bytes) -> list[str]:
    return [
        choice["delta"].get("content") or ""
        for said in data(body)
        if said != "[DONE]"
        for choice in json.loads(said)["choices"]
    ]


@pytest.mark.parametrize("name", startable())
def test_a_stream_comes_through(name: str, provider: Provider, tmp_path: Path) -> None:
    told = setting(provider, tmp_path)
    direct = ask(provider.port)
    with started(EVERYBODY[name], told):
        body = ask(told.port)
    if name in REWRITES:
        assert texts(body) == texts(direct)
        assert data(body)[-1] == "[DONE]"
    elif name in NUMBERS:
        assert data(body) == data(direct)
    else:
        assert body == direct


@pytest.mark.parametrize("name", [name for name in startable("tls") if name not in NUMBERS])
def test_over_tls_it_speaks_both_versions(name: str, provider: Provider, tmp_path: Path) -> None:
    certificate, key = Programs(tmp_path, "").certificate()
    told = setting(provider, tmp_path, certificate=certificate, key=key)
    subject = EVERYBODY[name]
    trust = ssl.create_default_context(cafile=str(certificate))
    with started(subject, told):
        assert ask(told.port, trust) == ask(provider.port)
        with httpx.Client(http2=True, verify=trust, timeout=PATIENCE) as client:
            answer = client.post(f"https://127.0.0.1:{told.port}/v1/chat/completions", json=chat())
    assert answer.http_version == "HTTP/2"
    assert answer.content == ask(provider.port)


@pytest.mark.parametrize("name", [name for name in startable("client2") if name not in NUMBERS])
def test_clients_may_know_http2_beforehand(name: str, provider: Provider, tmp_path: Path) -> None:
    told = setting(provider, tmp_path, client_http=2)
    with (
        started(EVERYBODY[name], told),
        httpx.Client(http1=False, http2=True, timeout=PATIENCE) as client,
    ):
        answer = client.post(f"http://127.0.0.1:{told.port}/v1/chat/completions", json=chat())
    assert answer.http_version == "HTTP/2"
    assert answer.content == ask(provider.port)


@pytest.mark.parametrize("name", [name for name in startable("provider2") if name not in {*NUMBERS, *COMPILED}])
def test_it_speaks_http2_with_the_provider(name: str, provider: Provider, tmp_path: Path) -> None:
    told = setting(provider, tmp_path, provider_http=2)
    with started(EVERYBODY[name], told):
        provider.reset()
        body = ask(told.port)
        (head,) = provider.requests()
    assert body == ask(provider.port)
    assert ":path" in dict(head["headers"])


@pytest.mark.parametrize("name", startable())
def test_its_version_has_a_number_or_a_source(name: str) -> None:
    version = EVERYBODY[name].version()
    assert version == "floor.c" or any(character.isdigit() for character in version.partition("/")[2])
    assert "\n" not in version


def test_what_is_missing_is_told_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.subjects.SBIN", str(tmp_path))
    assert Nginx().missing() == "nginx is not installed: apt-get install nginx"
    assert Haproxy().missing() == "HAProxy is not installed: apt-get install haproxy"
    assert Sglang(tmp_path).missing() == "sglang-router is not installed: python benchmarks/install_peers.py"
    nobody = subjects(Programs(tmp_path, ""))
    assert "gcc" in nobody["floor"].missing()
    assert "make install" in nobody["relay"].missing()
    assert "--other" in nobody["other"].missing()
    assert subjects(Programs(tmp_path, "", other="/nowhere"))["other"].missing().endswith("/nowhere")
    assert nobody["direct"].missing() == ""


def test_a_peer_that_could_not_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_peers, "_python", lambda: str(tmp_path / "no-python"))
    why = install_peers.install("litellm", tmp_path)
    assert "No such file" in why
    assert Litellm(tmp_path).missing() == f"litellm is not installed ({why})"
    assert install_peers.install("sglang", tmp_path, seconds=0)


def test_every_subject_is_described() -> None:
    known = {"client2", "provider2", "tls", "resume", "fan-out", "json", "many"}
    for name, subject in EVERYBODY.items():
        assert subject.name == name
        assert subject.told
        assert subject.abilities <= known
        assert ("many" in subject.abilities) == (subject.most_streams >= 4000 and name != "fan")


def test_fan_gives_one_stream_to_all_who_ask(tmp_path: Path) -> None:
    with running(Provider("--set", "events=40", "--set", "interval=5ms")) as provider:
        told = setting(provider, tmp_path)
        with started(EVERYBODY["fan"], told):
            first = http.client.HTTPConnection("127.0.0.1", told.port, timeout=PATIENCE)
            first.request("POST", "/v1/chat/completions", json.dumps(chat()), {"Content-Type": "application/json"})
            answer = first.getresponse()
            begun = answer.read1()
            late = http.client.HTTPConnection("127.0.0.1", told.port, timeout=PATIENCE)
            late.request("GET", "/join")
            joined = late.getresponse()
            rest = joined.read()
            whole = begun + answer.read()
            first.close()
            late.close()
    assert data(whole)[-1] == "[DONE]"
    assert rest
    assert rest != whole
    assert whole.endswith(rest)
