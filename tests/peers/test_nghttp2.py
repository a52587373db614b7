"""nghttp2's own client and load generator."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.peers.conftest import find
from tests.peers.secured import SecuredRelay
from tests.programs import PATIENCE

_STREAMS = 1000
_EVENTS = 5


def test_nghttp(secured: SecuredRelay, how: str, route: str) -> None:
    """Streams with padding, priorities and a dozen requests; nghttp complains of every violation."""
    url = f"{secured.base(how)}{route}/sse/ticker"
    told = ["-H", f"simulate: events={_EVENTS}; interval=5ms", "--multiply", "12", "--padding", "64"]
    done = subprocess.run([find("nghttp", "nghttp2-client"), *told, url], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.replace(b"Some requests were not processed", b"?").count(b"?"), done.stderr
    assert done.stdout.count(b"event: tick\n") == 12 * _EVENTS


def test_nghttp_sees_the_frames_it_expects(secured: SecuredRelay, how: str) -> None:
    done = subprocess.run(
        [find("nghttp", "nghttp2-client"), "--verbose", "--null-out", "--no-dep", f"{secured.base(how)}/healthz"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert done.returncode == 0, done.stderr
    assert "[SETTINGS_MAX_CONCURRENT_STREAMS(0x03):100]" in said
    assert re.search(r"recv \(stream_id=\d+\) :status: 200", said)
    assert "ERROR" not in said.replace("NO_ERROR", "")
    assert "RST_STREAM" not in said


@pytest.mark.parametrize("streams", ["10", "100"])
def test_h2load(secured: SecuredRelay, how: str, route: str, streams: str) -> None:
    """A thousand streams on ten connections: every one succeeds."""
    told = ["-n", str(_STREAMS), "-c", "10", "-m", streams, "-H", f"simulate: events={_EVENTS}; interval=1ms"]
    url = f"{secured.base(how)}{route}/sse/ticker"
    done = subprocess.run(
        [find("h2load", "nghttp2-client"), *told, url], capture_output=True, text=True, timeout=PATIENCE * 2
    )
    assert done.returncode == 0, done.stderr
    wanted = (
        f"requests: {_STREAMS} total, {_STREAMS} started, {_STREAMS} done, {_STREAMS} succeeded, "
        "0 failed, 0 errored, 0 timeout"
    )
    assert wanted in done.stdout, done.stdout
    assert f"status codes: {_STREAMS} 2xx" in done.stdout
