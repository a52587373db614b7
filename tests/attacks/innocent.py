"""An innocent reader of one endless event stream, as a process of its own: innocent.py PORT.

Its own process, because its clock must not wait for the attacker's. Standard output gets a line for each event: the
event's number and the monotonic time at which it came.
"""

from __future__ import annotations

import re
import socket
import sys
import time

INTERVAL = 0.01
_REQUEST = f"GET /sse/ticker HTTP/1.1\r\nHost: a\r\nSimulate: events=100000000; interval={INTERVAL:g}s\r\n\r\n"
_EVENT = re.compile(rb"id: (\d+)\nevent: tick\n")


def main() -> None:
    port = int(sys.argv[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(_REQUEST.encode())
        print(f"innocent reads from {port}", file=sys.stderr, flush=True)
        rest = b""
        while data := connection.recv(65536):
            now = time.monotonic()
            rest += data
            at = 0
            for event in _EVENT.finditer(rest):
                at = event.end()
                print(int(event[1]), now)
            sys.stdout.flush()
            rest = rest[at:]


if __name__ == "__main__":
    main()
