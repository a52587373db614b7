"""curl over HTTP/2: chosen by ALPN, and with prior knowledge. Exit code 92: the stream was reset."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.conftest import find
from tests.peers.secured import SecuredRelay
from tests.programs import PATIENCE, Provider, chat

CHAT = "/v1/chat/completions"
STREAMED = ("-H", "Content-Type: application/json", "-d", json.dumps(chat()))
WHOLE, RESET = 0, 92
LARGE = random.Random(2).randbytes(5 * 1024 * 1024)
CURLE_HTTP2_STREAM = 92

Done = subprocess.CompletedProcess[bytes]
Curl = Callable[..., Done]


@pytest.fixture
def command(secured: SecuredRelay, how: str) -> list[str]:
    version = ["--http2"] if how == "tls" else ["--http2-prior-knowledge"]
    return [find("curl", "curl"), "-q", "-sS", "--noproxy", "*", "--cacert", str(secured.pair.certificate), *version]


@pytest.fixture
def run(command: list[str], secured: SecuredRelay, how: str) -> Curl:
    """Runs curl to its end; what it spoke was HTTP/2."""

    def run_once(target: str, *arguments: str, simulate: str = "", stdin: bytes = b"") -> Done:
        told = ("-H", f"Simulate: {simulate}") if simulate else ()
        whole = [*command, "-w", "%{stderr}%{http_version}", *arguments, *told, secured.base(how) + target]
        done = subprocess.run(whole, input=stdin, capture_output=True, timeout=PATIENCE * 2)
        if done.returncode == WHOLE:
            # Of a stream that was reset it would say 0.
            assert done.stderr.endswith(b"2"), done.stderr
        return done

    return run_once


def test_stream_is_the_providers_byte_by_byte(run: Curl, provider: Provider, route: str) -> None:
    simulate = "seed=3; events=50; interval=1ms; split=3"
    relayed = run(route + CHAT, "-N", *STREAMED, simulate=simulate)
    assert relayed.returncode == WHOLE, relayed.stderr
    direct = subprocess.run(
        ["curl", "-q", "-sSN", *STREAMED, "-H", f"Simulate: {simulate}", provider.url + CHAT], capture_output=True
    )
    assert relayed.stdout == direct.stdout
    assert relayed.stdout.endswith(b"data: [DONE]\n\n")


def test_json(run: Curl, route: str) -> None:
    done = run(f"{route}/v1/models", "-i")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/2 200 \r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["object"] == "list"


def test_head(run: Curl, route: str) -> None:
    done = run(f"{route}/v1/models", "--head")
    assert done.returncode == WHOLE, done.stderr
    assert done.stdout.startswith(b"HTTP/2 200 \r\n")
    assert f"content-length: {len(run(f'{route}/v1/models').stdout)}".encode() in done.stdout


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_upload(run: Curl, tmp_path: Path, route: str, length: str) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    if length == "known":
        done = run(f"{route}/echo", "--data-binary", f"@{file}")
    else:
        done = run(f"{route}/echo", "-T", "-", stdin=LARGE)
    echoed = json.loads(done.stdout)
    assert echoed["body_length"] == len(LARGE)
    assert echoed["body_sha256"] == hashlib.sha256(LARGE).hexdigest()


def test_client_that_waits_for_continue(run: Curl, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    patient = ("-H", "Expect: 100-continue", "--expect100-timeout", "60", "--max-time", f"{PATIENCE:g}")
    done = run("/echo", *patient, "--data-binary", f"@{file}")
    assert json.loads(done.stdout)["body_length"] == len(LARGE)


def test_upload_that_is_too_large_is_told_so(command: list[str], secured: SecuredRelay, how: str) -> None:
    """The answer comes while curl still sends, and is not lost to it."""
    upload = [*command, "-w", "\n%{http_code}", "-T", "-", secured.base(how) + "/echo"]
    # Over HTTP/2 curl 7.88 gives up without a word of what it has (92) if it sends once more before it looks at an
    # answer that ended the stream. That is seldom, and its own: it may not be so each time.
    for _ in range(3):
        done = subprocess.run(upload, input=bytes(33 * 1024 * 1024), capture_output=True, timeout=PATIENCE * 2)
        if done.returncode != CURLE_HTTP2_STREAM:
            break
    body, _, status = done.stdout.rpartition(b"\n")
    assert status == b"413", done
    assert json.loads(body)["error"]["code"] == "payload_too_large"


def test_cancel_in_the_middle_is_seen_by_the_provider(
    command: list[str], secured: SecuredRelay, how: str, route: str, counted: Provider
) -> None:
    endless = ["-H", "Simulate: events=1000000; interval=10ms"]
    whole = [*command, "-N", *STREAMED, *endless, secured.base(how) + route + CHAT]
    with subprocess.Popen(whole, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"data: {")
        process.kill()
    assert counted.wait(aborted=1)["finished"] == 0


@pytest.mark.parametrize("lie", ["cut", "cut-reset", "half-event", "no-done"])
def test_cut_stream_is_an_error(run: Curl, route: str, lie: str) -> None:
    done = run(route + CHAT, "-N", *STREAMED, simulate=f"interval=0; lie={lie}")
    assert done.returncode == RESET, (done.returncode, done.stderr)
    assert b"[DONE]" not in done.stdout


@pytest.mark.parametrize("lie", ["cut", "no-done"])
def test_cut_stream_ends_with_the_error_event(run: Curl, route: str, lie: str) -> None:
    """Every event that came, and why there are no more: the reset is no part of the same read."""
    done = run(route + CHAT, "-N", *STREAMED, simulate=f"interval=0; lie={lie}; at=3")
    events = done.stdout.split(b"\n\n")
    assert b'"error"' in events[-2], done.stdout
    assert len([event for event in events if b'"delta"' in event]) >= 3


def test_cut_json_is_an_error(run: Curl, route: str) -> None:
    """As long as nothing has been passed on it is a status, then a reset."""
    plain = ("-H", "Content-Type: application/json", "-d", json.dumps(chat(stream=False)))
    done = run(route + CHAT, *plain, "-w", "\n%{http_code}", simulate="size=500; lie=cut")
    assert done.returncode == RESET or done.stdout.endswith(b"\n502"), (done.returncode, done.stderr, done.stdout)


@pytest.mark.parametrize("how", ["tls"])
def test_fifty_at_once(command: list[str], secured: SecuredRelay, route: str) -> None:
    """On one connection. (With prior knowledge, curl 7.88 cannot: it fails with any server.)"""
    url = secured.secure_url + route + "/sse/ticker?[1-50]"
    told = ["-H", "Simulate: events=20; interval=10ms", "-w", "%{stderr}\nmade %{num_connects} %{http_version}\n"]
    done = subprocess.run(
        [*command, "--parallel", "--parallel-max", "50", *told, url], capture_output=True, timeout=PATIENCE * 2
    )
    assert done.returncode == WHOLE, done.stderr
    assert done.stdout.count(b"event: tick\n") == 50 * 20
    made = [line.split() for line in done.stderr.splitlines() if line.startswith(b"made")]
    assert [line[2] for line in made] == [b"2"] * 50
    assert sum(int(line[1]) for line in made) == 1


def test_offer_to_upgrade_is_answered_over_http1(secured: SecuredRelay) -> None:
    """RFC 9113 has no upgrade any more: it is ignored."""
    done = subprocess.run(
        [find("curl", "curl"), "-q", "-sS", "--http2", "-w", "%{http_version}", f"{secured.url}/healthz"],
        capture_output=True,
    )
    assert done.stdout == b"ok\n1.1", done.stderr
