"""curl on streams that can be resumed: the bytes as they come, and by its exit code whether it takes them for whole."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.cutter import Cutter
from tests.clients.resumable import BREAKS, ENDLESS, LIVE, SLOW, broken, cancel, numbers
from tests.peers.conftest import find
from tests.programs import PATIENCE, Provider, Relay, chat

CHAT = "/v1/chat/completions"
POST = ("-H", "Content-Type: application/json", "-d", json.dumps(chat()))
ASKED = (*POST, "-H", "Relay-Resumable: 1")
WHOLE = 0
# Body short, connection reset, stream of HTTP/2 reset.
BREACH = (18, 56, 92)
VERSIONS = ("--http1.1", "--http2-prior-knowledge")

Curl = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run() -> Curl:
    """Runs curl to its end: run(url, *arguments, simulate=…)."""
    program = find("curl", "curl")

    def run_once(url: str, *arguments: str, simulate: str = "") -> subprocess.CompletedProcess[bytes]:
        told = ("-H", f"Simulate: {simulate}") if simulate else ()
        command = [program, "-q", "-sSN", "--noproxy", "*", *arguments, *told, url]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE * 2)

    return run_once


def _without_heartbeats(body: bytes) -> bytes:
    return b"".join(line for line in body.splitlines(keepends=True) if line != b":\n")


def _without_ids(body: bytes) -> bytes:
    """What the provider has said."""
    lines = _without_heartbeats(body).splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"id: "))


@pytest.mark.parametrize("version", VERSIONS)
def test_heartbeats_stand_between_events_and_all_else_is_the_providers(
    run: Curl, beating: Relay, provider: Provider, version: str
) -> None:
    done = run(beating.url + CHAT, version, *ASKED, simulate=SLOW)
    direct = run(provider.url + CHAT, *POST, simulate=SLOW)
    assert (done.returncode, direct.returncode) == (WHOLE, WHOLE), done.stderr
    assert _without_ids(done.stdout) == direct.stdout
    blocks = done.stdout.split(b"\n\n")
    # A heartbeat is a line of its own, never inside an event, never an event.
    assert any(block.startswith(b":\n:\n") for block in blocks[1:])
    for block in blocks[:-1]:
        fields = block.lstrip(b":\n").split(b"\n")
        assert sorted(field.partition(b":")[0] for field in fields) == [b"data", b"id"], block
    assert numbers(done.stdout) == list(range(1, 8))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("how", BREAKS)
def test_stream_that_breaks_off_is_an_error(run: Curl, strict: Relay, version: str, how: str) -> None:
    """Over HTTP/2 curl throws away what it has not read when the reset comes: a slow one may hear that alone."""
    done = run(strict.url + CHAT, version, *ASKED, simulate=broken(how))
    assert done.returncode in BREACH, (done.returncode, done.stderr)
    if version == "--http1.1" or done.stdout:
        assert numbers(done.stdout) == [1, 2, 3, 4, 5]
        last = done.stdout.rstrip().split(b"\n\n")[-1].lstrip(b":\n")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] in ("upstream_cut", "upstream_timeout")
    assert b"[DONE]" not in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_stream_that_another_cancels_is_an_error(run: Curl, beating: Relay, counted: Provider, version: str) -> None:
    accepted = run(beating.url + CHAT, *POST, "-H", "Prefer: respond-async", simulate=ENDLESS)
    stream_id = json.loads(accepted.stdout)["id"]
    place = f"{beating.url}/v1/streams/{stream_id}"
    command = [find("curl", "curl"), "-q", "-sSN", "--noproxy", "*", version, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        assert reading.stdout is not None
        assert reading.stdout.readline().startswith(b"data: ")
        assert cancel(beating, stream_id) == "cancelled"
        rest = reading.stdout.read()
    assert reading.returncode in BREACH
    assert counted.wait(aborted=1)["finished"] == 0
    # What came can still be read, and is still no whole.
    again = run(place, "--http1.1")
    assert again.returncode in BREACH
    assert b'"code":"cancelled"' in again.stdout
    if version == "--http1.1":
        assert b'"code":"cancelled"' in rest
        assert numbers(again.stdout)[-1] == numbers(rest)[-1]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("by", ["Last-Event-ID", "last_event_id", "number"])
def test_cut_reader_goes_on_where_it_was(
    run: Curl, beating: Relay, counted: Provider, tmp_path: Path, by: str, version: str
) -> None:
    """Inside an event: what it has of that is left out of what it keeps."""
    head = tmp_path / "head"
    with Cutter(beating.address, (2503,)) as cutter:
        first = run(cutter.url + CHAT, *ASKED, "-D", str(head), simulate=LIVE)
    assert first.returncode in BREACH
    fields = dict(line.split(": ", 1) for line in head.read_text().splitlines()[1:] if line)
    stream_id = fields["relay-stream-id"]
    kept = first.stdout[: first.stdout.rindex(b"\n\n") + 2]
    last = numbers(kept)[-1]
    place = f"{beating.url}/v1/streams/{stream_id}"
    asked = {
        "Last-Event-ID": (place, "-H", f"Last-Event-ID: {stream_id}-{last}"),
        "last_event_id": (f"{place}?last_event_id={stream_id}-{last}",),
        "number": (f"{place}?last_event_id={last}",),
    }
    rest = run(*asked[by], version)
    assert rest.returncode == WHOLE, rest.stderr
    whole = kept + rest.stdout
    assert numbers(whole) == list(range(1, 64))
    assert counted.wait(finished=1)["requests"] == 1
    assert _without_ids(whole) == run(counted.url + CHAT, *POST, simulate=LIVE).stdout


def test_finished_stream_that_was_read_is_a_204(run: Curl, beating: Relay) -> None:
    done = run(beating.url + CHAT, *ASKED, simulate="events=3; interval=0")
    last = done.stdout.rpartition(b"id: ")[2].strip().decode()
    place = f"{beating.url}/v1/streams/{last.rpartition('-')[0]}"
    told = run(place, "-H", f"Last-Event-ID: {last}", "-w", "%{http_code}")
    assert (told.returncode, told.stdout) == (WHOLE, b"204")
    assert _without_heartbeats(run(place).stdout) == _without_heartbeats(done.stdout)


def test_same_key_gives_the_same_events(run: Curl, beating: Relay, counted: Provider) -> None:
    key = ("-H", "Idempotency-Key: curl")
    first, second = (run(beating.url + CHAT, *ASKED, *key, simulate=LIVE) for _ in range(2))
    assert (first.returncode, second.returncode) == (WHOLE, WHOLE)
    assert numbers(first.stdout) == numbers(second.stdout) == list(range(1, 64))
    assert _without_heartbeats(first.stdout) == _without_heartbeats(second.stdout)
    other = json.dumps(chat(model="sim-2"))
    status = ("-o", "/dev/null", "-w", "%{http_code}")
    refused = run(beating.url + CHAT, "-H", "Relay-Resumable: 1", *key, "-d", other, *status)
    assert refused.stdout == b"422"
    assert counted.stats()["requests"] == 1
