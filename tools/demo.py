"""`make run`: a simulated provider and the relay in front of it, until Ctrl-C.

Prints where the relay listens, its page, and one line to try. Exit code 0 after Ctrl-C, 2 if the address is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
# Tokens slow enough to be seen coming one by one.
SIMULATION = ("--set", "events=40", "--set", "interval=80ms")

TEXT = """
relay listens on http://{address}, in front of a simulated provider. Open in a browser:

  http://{address}/        a prompt, tokens as they come; cut the connection, resume, cancel

or try, in another terminal:

  curl -N http://{address}/v1/chat/completions -d '{{"model": "sim-1", "stream": true, "messages": []}}'

or point an SDK at it: OPENAI_BASE_URL=http://{address}/v1 OPENAI_API_KEY=any. Ctrl-C ends both. Requests so far:
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="A simulated provider and the relay in front of it.")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT")
    listen = parser.parse_args().listen
    with contextlib.ExitStack() as programs:
        provider = start(programs, [sys.executable, str(HERE / "provider.py"), "--listen", "127.0.0.1:0", *SIMULATION])
        origin = wait(provider, r"provider listening on (\S+)")
        if origin is None:
            return 2
        relay = start(
            programs,
            [*relay_command(), "serve", "--upstream", origin, "--listen", listen, "--log-format", "text"],
        )
        address = wait(relay, r"relay listening on http://(\S+)")
        if address is None:
            return relay.wait()
        print(TEXT.format(address=address), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            relay.wait()
            print("the relay has ended", file=sys.stderr)
            return 1
    return 0


def relay_command() -> list[str]:
    return [str(Path(sys.executable).with_name("relay"))]


def start(programs: contextlib.ExitStack, command: list[str]) -> subprocess.Popen[str]:
    """A child that ends with this process, however this one ends."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
    programs.callback(end, process)
    return process


def end_with_parent() -> None:
    """In the child: ask Linux for a SIGTERM when the parent has died (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def end(process: subprocess.Popen[str]) -> None:
    """As a service manager would; a second signal breaks off what is still streaming."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
            return


def wait(process: subprocess.Popen[str], pattern: str) -> str | None:
    """What the ready line names, or None when the program ended; whatever else it says is passed on."""
    stream: IO[str] | None = process.stderr
    assert stream is not None
    for line in stream:
        match = re.search(pattern, line)
        if match:
            return match[1]
        print(line, end="", file=sys.stderr)
    process.wait()
    return None


if __name__ == "__main__":
    # A service manager's signal is a Ctrl-C; and a shell that starts this in the background has both ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
