"""curl, whose exit code says whether it takes an answer for whole: 0, 18 (body short), 56 (connection reset)."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import PATIENCE, Provider, Relay, chat

CHAT = "/v1/chat/completions"
STREAMED = ("-H", "Content-Type: application/json", "-d", json.dumps(chat()))
WHOLE = 0
SHORT = 18
RESET = 56
LARGE = random.Random(1).randbytes(3 * 1024 * 1024)


@pytest.fixture(scope="session")
def curl() -> str:
    program = shutil.which("curl")
    assert program, "curl is missing: install Debian's curl"
    return program


Curl = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(curl: str, relay: Relay) -> Curl:
    """Runs curl to its end: run(path, *arguments, simulate=…, stdin=…)."""

    def run_once(
        target: str, *arguments: str, simulate: str = "", stdin: bytes = b"", at: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        told = ("-H", f"Simulate: {simulate}") if simulate else ()
        command = [curl, "-q", "-sS", "--noproxy", "*", *arguments, *told, (at or relay.url) + target]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE * 2)

    return run_once


def _head(text: bytes) -> tuple[str, dict[str, str]]:
    """The status line and the fields of the last head in what curl -i or -D wrote."""
    first, *lines = text.decode().strip().split("\r\n\r\n")[-1].split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


# Whole answers


def test_stream_is_the_providers_byte_by_byte(run: Curl, provider: Provider) -> None:
    simulate = "seed=3; events=20; interval=1ms; split=3"
    relayed = run(CHAT, "-N", *STREAMED, simulate=simulate)
    direct = run(CHAT, "-N", *STREAMED, simulate=simulate, at=provider.url)
    assert (relayed.returncode, direct.returncode) == (WHOLE, WHOLE), relayed.stderr
    assert relayed.stdout.endswith(b"data: [DONE]\n\n")
    assert relayed.stdout == direct.stdout


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_whole_stream_is_whole_to_an_old_client(run: Curl, tmp_path: Path, framing: str) -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
    head = tmp_path / "head"
    done = run(CHAT, "--http1.0", "-D", str(head), *STREAMED, simulate=f"interval=0; framing={framing}")
    assert done.returncode == WHOLE, done.stderr
    assert done.stdout.endswith(b"data: [DONE]\n\n")
    status, fields = _head(head.read_bytes())
    assert status.split()[1] == "200"
    assert "transfer-encoding" not in fields
    assert fields["connection"] == "close"


def test_first_event_arrives_before_the_next_is_there(curl: str, relay: Relay, counted: Provider) -> None:
    simulate = f"Simulate: events=2; interval={PATIENCE * 3:g}s"
    command = [curl, "-q", "-sSN", "--noproxy", "*", *STREAMED, "-H", simulate, relay.url + CHAT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"data: {")
        assert counted.stats()["finished"] == 0
        process.kill()
    counted.wait(aborted=1)


def test_head_answers_without_a_body(run: Curl) -> None:
    for target in ("/v1/models", "/sse/ticker", "/healthz"):
        done = run(target, "--head")
        assert done.returncode == WHOLE, done.stderr
        status, fields = _head(done.stdout)
        assert status == "HTTP/1.1 200 OK", target
        assert fields["content-type"]
    assert int(_head(run("/v1/models", "--head").stdout)[1]["content-length"]) == len(run("/v1/models").stdout)


def test_options_reaches_the_provider_and_the_relay(run: Curl) -> None:
    echoed = json.loads(run("/echo", "-X", "OPTIONS").stdout)
    assert (echoed["method"], echoed["target"]) == ("OPTIONS", "/echo")
    asterisk = run("", "-i", "-X", "OPTIONS", "--request-target", "*")
    status, fields = _head(asterisk.stdout)
    assert (asterisk.returncode, status.split()[1]) == (WHOLE, "200")
    assert "OPTIONS" in fields["allow"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate"])
def test_compressed_stream_arrives_as_its_events(run: Curl, provider: Provider, coding: str) -> None:
    """The provider compresses, asked or not: what curl makes of the answer is the events."""
    simulate = f"seed=2; interval=0; encoding={coding}"
    relayed = run(CHAT, "--compressed", *STREAMED, simulate=simulate)
    direct = run(CHAT, "--compressed", *STREAMED, simulate=simulate, at=provider.url)
    assert relayed.returncode == WHOLE, relayed.stderr
    assert relayed.stdout == direct.stdout
    assert relayed.stdout.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate"])
def test_compressed_json_stays_as_it_is(run: Curl, coding: str) -> None:
    done = run("/v1/models", "--compressed", "-i", simulate=f"encoding={coding}")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert done.returncode == WHOLE, done.stderr
    assert _head(head)[1]["content-encoding"] == coding
    assert json.loads(body)["object"] == "list"


# Uploads


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_large_upload_arrives_whole(run: Curl, tmp_path: Path, version: str) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    done = run("/echo", version, "--data-binary", f"@{file}")
    echoed = json.loads(done.stdout)
    assert (echoed["method"], echoed["body_length"]) == ("POST", len(LARGE))
    assert echoed["body_sha256"] == hashlib.sha256(LARGE).hexdigest()


def test_client_that_waits_for_continue_is_told(run: Curl, tmp_path: Path) -> None:
    """It would wait a minute for it: the upload begins because the relay says so."""
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    patient = ("-H", "Expect: 100-continue", "--expect100-timeout", "60", "--max-time", f"{PATIENCE:g}")
    done = run("/echo", "-i", *patient, "--data-binary", f"@{file}")
    assert done.returncode == WHOLE, done.stderr
    assert done.stdout.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    echoed = json.loads(done.stdout.rpartition(b"\r\n\r\n")[2])
    assert echoed["body_sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert "expect" not in {name.lower() for name, _ in echoed["headers"]}


def test_client_that_waits_for_continue_is_refused_before_it_sends(
    run: Curl, make_relay: Callable[..., Relay], tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    relay = make_relay(limits='request_body = "1MiB"')
    patient = ("-H", "Expect: 100-continue", "--expect100-timeout", "60", "--max-time", f"{PATIENCE:g}")
    done = run("/echo", *patient, "-w", "\n%{http_code} %{size_upload}", "--data-binary", f"@{file}", at=relay.url)
    body, _, told = done.stdout.rpartition(b"\n")
    assert told == b"413 0"
    assert json.loads(body)["error"]["code"] == "payload_too_large"


def test_chunked_upload_arrives_whole(run: Curl) -> None:
    done = run("/echo", "-T", "-", stdin=LARGE)
    echoed = json.loads(done.stdout)
    assert (echoed["method"], echoed["body_length"]) == ("PUT", len(LARGE))
    assert echoed["body_sha256"] == hashlib.sha256(LARGE).hexdigest()
    fields = {name.lower(): value for name, value in echoed["headers"]}
    assert fields["transfer-encoding"] == "chunked"
    assert "content-length" not in fields


# Answers that are not whole


@pytest.mark.parametrize("lie", ["cut", "cut-reset", "short", "bad-chunk", "half-event", "no-done"])
def test_cut_stream_is_an_error(run: Curl, lie: str) -> None:
    done = run(CHAT, "-N", *STREAMED, simulate=f"interval=0; lie={lie}")
    assert done.returncode in (SHORT, RESET), (done.returncode, done.stderr)
    assert done.stdout.startswith(b"data: {")
    assert b"[DONE]" not in done.stdout


@pytest.mark.parametrize("lie", ["cut", "cut-reset", "short", "bad-chunk", "half-event", "no-done"])
def test_cut_stream_is_an_error_to_an_old_client(run: Curl, lie: str) -> None:
    """Its body ends with the connection, so that only a reset tells a cut from an end."""
    done = run(CHAT, "-0", *STREAMED, simulate=f"interval=0; lie={lie}")
    assert done.returncode == RESET, (done.returncode, done.stderr)


@pytest.mark.parametrize("lie", ["cut", "short"])
@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_cut_json_is_an_error(run: Curl, version: str, lie: str) -> None:
    plain = ("-H", "Content-Type: application/json", "-d", json.dumps(chat(stream=False)))
    done = run(CHAT, version, *plain, simulate=f"size=500; lie={lie}")
    assert done.returncode in (SHORT, RESET), (done.returncode, done.stderr)


def test_cut_compressed_stream_is_an_error(run: Curl) -> None:
    done = run(CHAT, "--compressed", *STREAMED, simulate="interval=0; encoding=gzip; lie=cut")
    assert done.returncode in (SHORT, RESET), (done.returncode, done.stderr)


def test_cut_opaque_stream_is_an_error(run: Curl) -> None:
    done = run("/sse/ticker", "-N", simulate="interval=0; lie=cut")
    assert done.returncode in (SHORT, RESET), (done.returncode, done.stderr)
    assert done.stdout.count(b"event: tick\n") == 3
