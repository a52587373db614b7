"""The access log never holds anybody up, and counts what it could not write (robustness E6)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from relay.control.access import LINES_LIMIT, AccessLog


def test_lines_arrive_in_order(tmp_path: Path) -> None:
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    log = AccessLog("json", descriptor)
    log.start()
    for number in range(2500):
        log.write({"request_id": str(number), "status": 200})
    log.close()
    os.close(descriptor)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["request_id"] for line in lines] == [str(number) for number in range(2500)]
    assert log.dropped == 0


def test_full_disk_drops_and_counts() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog("json", descriptor)
    log.start()
    for _ in range(10):
        log.write({"status": 200})
    log.close()
    os.close(descriptor)
    assert log.dropped == 10


def test_stuck_pipe_holds_nobody_up() -> None:
    """A reader of the log that does not read: lines wait up to the bound, the rest are counted."""
    reading, writing = os.pipe()
    log = AccessLog("json", writing)
    log.start()
    sent = 4 * LINES_LIMIT
    for _ in range(sent):
        log.write({"status": 200})
    assert log.dropped >= sent - 2 * LINES_LIMIT - 5000
    os.close(reading)  # the thread's write fails now, so that it ends
    log.close()
    os.close(writing)


def test_text_says_the_same_to_people(tmp_path: Path) -> None:
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    log = AccessLog("text", descriptor)
    log.start()
    log.write({"status": 502, "method": "POST", "path": "/v1/messages", "upstream": "a", "error": "upstream_cut"})
    log.close()
    os.close(descriptor)
    line = file.read_text()
    assert "502 POST /v1/messages upstream=a" in line
    assert line.endswith("upstream_cut\n")


def test_off_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    log = AccessLog("off", descriptor)
    log.start()
    log.write({"status": 200})
    log.close()
    os.close(descriptor)
    assert file.read_bytes() == b""
