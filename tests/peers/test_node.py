"""Node's own HTTP/2 client (session.mjs), which everything that runs on Node shares."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.peers.conftest import SecuredMaker, find
from tests.peers.secured import SecuredRelay
from tests.programs import PATIENCE, Provider

_SCRIPT = Path(__file__).with_name("session.mjs")
_CANCEL, _INTERNAL = 8, 2


def _command(relay: SecuredRelay, how: str, scenario: str, path: str, simulate: str) -> list[str]:
    node = find("node", "nodejs")
    return [node, str(_SCRIPT), relay.base(how), str(relay.pair.certificate), scenario, path, simulate]


def _run(relay: SecuredRelay, how: str, scenario: str, path: str, simulate: str) -> dict[str, Any]:
    done = subprocess.run(
        _command(relay, how, scenario, path, simulate), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert not said["errors"], said
    return said


def test_stream(secured: SecuredRelay, how: str, route: str) -> None:
    said = _run(secured, how, "stream", f"{route}/sse/ticker", "events=50; interval=2ms; split=3")
    (stream,) = said["streams"]
    assert (stream["status"], stream["events"], stream["error"], stream["code"]) == (200, 50, None, 0)
    assert said["settings"]["maxConcurrentStreams"] == 100


def test_fifty_at_once_on_a_session(secured: SecuredRelay, how: str, route: str) -> None:
    said = _run(secured, how, "many", f"{route}/sse/ticker", "events=20; interval=50ms")
    assert said["atOnce"] == 50
    assert [(stream["events"], stream["error"]) for stream in said["streams"]] == [(20, None)] * 50


def test_upload(secured: SecuredRelay, how: str, route: str) -> None:
    echoed = json.loads(_run(secured, how, "post", f"{route}/echo", "")["text"])
    assert echoed["body_length"] == 5 * 1024 * 1024
    assert echoed["body_sha256"] == hashlib.sha256(b"x" * echoed["body_length"]).hexdigest()


def test_cancel(secured: SecuredRelay, how: str, route: str, counted: Provider) -> None:
    """One stream is given up, and the provider stops; the other goes on to its end."""
    said = _run(secured, how, "cancel", f"{route}/sse/ticker", "events=1000000; interval=10ms")
    assert counted.wait(aborted=1)["finished"] == 1
    cancelled, other = said["streams"]
    assert cancelled["code"] == _CANCEL
    assert (other["events"], other["error"]) == (20, None)


@pytest.mark.parametrize("lie", ["cut", "no-done"])
def test_cut_stream_is_an_error(secured: SecuredRelay, how: str, route: str, lie: str) -> None:
    said = _run(secured, how, "stream", f"{route}/sse/ticker", "interval=0; lie=cut; at=3")
    (stream,) = said["streams"]
    assert (stream["status"], stream["error"], stream["code"]) == (200, "ERR_HTTP2_STREAM_ERROR", _INTERNAL)
    assert stream["events"] == 3


def test_goaway_on_drain(make_secured: SecuredMaker, how: str, counted: Provider) -> None:
    """Streams that are open go on to their end; a session that is told to go opens no further ones."""
    relay = make_secured()
    command = _command(relay, how, "drain", "/sse/ticker", "events=30; interval=50ms")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        relay.send_signal(signal.SIGTERM)
        said = json.loads(process.communicate(timeout=PATIENCE)[0])
    assert relay.process.wait(PATIENCE) == 0
    assert [code for code, _ in said["goaway"]] == [0, 0]
    assert said["late"] in ("ERR_HTTP2_GOAWAY_SESSION", "ERR_HTTP2_INVALID_SESSION")
    assert [(stream["events"], stream["error"]) for stream in said["streams"]] == [(30, None)] * 20
    assert counted.stats()["finished"] == 20
