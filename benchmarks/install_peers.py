"""Puts the peers that come from PyPI into virtual environments of their own, beside the relay's: .venv/bench/NAME.

    python benchmarks/install_peers.py [litellm] [sglang]

Nothing is done for one that is there already. One that cannot be installed is no error: why it could not is said, and
kept for the report. A minute each with a warm cache; LiteLLM takes 750 MB, SGLang's router 150 MB.
Exit code: 0; 2 if an argument names none of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".venv" / "bench"
SECONDS = 600.0  # for each, at most
# Ranges, so that a result can be had again. LiteLLM from 1.100 on has needed fast-moving neighbours (1.109 a certifi of
# the same week), which not every index has: pip takes the newest that it can complete.
REQUIREMENTS = {
    "litellm": "litellm[proxy]>=1.100,<1.110",
    "sglang": "sglang-router>=0.3.2,<0.4",
}


def install(name: str, directory: Path = PEERS, seconds: float = SECONDS) -> str:
    """Installs one. Returns "" if it is there, else in one line why not."""
    home, requirement = directory / name, REQUIREMENTS[name]
    mark, failed = home / "installed.txt", home / "failed.txt"
    if mark.exists() and mark.read_text() == requirement:
        return ""
    shutil.rmtree(home, ignore_errors=True)  # what was left half done
    home.mkdir(parents=True)
    deadline = time.monotonic() + seconds
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    why = ""
    for command in (
        [_python(), "-m", "venv", str(home)],
        [*pip, "--upgrade", "pip"],  # Debian's of 2023 does not find its way through LiteLLM's requirements
        [*pip, requirement],
    ):
        why = why or _run(command, deadline)
    if why:
        failed.write_text(why)
    else:
        mark.write_text(requirement)
    return why


def _python() -> str:
    """The Python that made this one's virtual environment: one made from within would lean on it."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _run(command: Sequence[str], deadline: float) -> str:
    """ "" or why it failed: the last error that it told."""
    left = deadline - time.monotonic()
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=max(left, 0.001)
        )
    except subprocess.TimeoutExpired:
        return "its installation took too long"
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if not done.returncode:
        return ""
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in said if "error" in line.lower()] or said or [f"exit code {done.returncode}"]
    return errors[-1][:300]


def main(names: Sequence[str]) -> int:
    if unknown := set(names) - set(REQUIREMENTS):
        print(f"install_peers: {min(unknown)!r} is none of {', '.join(REQUIREMENTS)}", file=sys.stderr)
        return 2
    for name in names or REQUIREMENTS:
        if not (PEERS / name / "installed.txt").exists():
            print(f"installing {name} into .venv/bench", flush=True)
        if why := install(name):
            print(f"{name} is left out: {why}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
