"""A simulated model provider over HTTP/1.1 and HTTP/2, for tests, benchmarks and demonstrations.

    .venv/bin/python tools/provider.py --listen 127.0.0.1:9000 --set interval=50ms --set events=200
    curl -H 'Simulate: lie=cut; at=5' -d '{"stream": true}' http://127.0.0.1:9000/v1/chat/completions

Serves OpenAI's chat completions, completions and responses, Anthropic's messages, Ollama's chat,
`/v1/models`, `/echo`, `/redirect`, `/sse/ticker` and `/raw/...`. What an answer is like, and how it lies, say
the keys of simulation (`--help` lists them). `/sim/stats`, `/sim/wait`, `/sim/requests` and `/sim/reset` tell
what reached the provider; they and their connections are in no count.

One port serves both versions: in clear text a connection's first bytes say which it is (opening), over TLS ALPN
says it before. Over HTTP/1.1 a connection carries one request at a time (serve1), over HTTP/2 many (serve2). An answer
is one task, which ends at once when its reader leaves. Every counted request ends in exactly one of finished, aborted
(by its reader) and broken (by the provider, as a lie).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# The neighbours are found whether this file is run or imported.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import uvloop
from serve1 import Connection1
from service import Provider
from simulation import KEYS, LIES, ONLY_HTTP1, ONLY_HTTP2, BadSimulation, Simulation, read

BACKLOG = 8192  # connections come by the thousand at once
MAX_STREAMS = 100  # what real providers and their proxies allow
LIES2 = {
    "refuse": "RST_STREAM(REFUSED_STREAM) for the first `times` requests with one `key`, at once; then a true answer",
    "goaway": "at `at`: GOAWAY with this stream as the last; those above are ignored, the others end, then it closes",
    "graceful": "at `at`: GOAWAY with 2^31-1, after 50 ms with the real last stream; then as goaway",
    "reset": "with `at`: RST_STREAM(`code`) there; without: before the head",
    "deaf": "from `at` on the connection reacts to nothing; its socket stays open",
    "length_long": "a content-length that is one byte more than the body has",
    "length_short": "a content-length that is one byte less",
}
NOTES = """over HTTP/2, what breaks off the whole connection: close, head-close, close-idle, garbage and stale by FIN,
cut-reset by RST; what breaks off the stream: reset and head-reset by RST_STREAM(`code`), cut and endless-line by
RST_STREAM(INTERNAL_ERROR). short ends in the middle with a longer content-length, bad-chunk is a DATA frame with more
padding than it has bytes, endless-head a header block of CONTINUATION frames, after-end a DATA frame behind END_STREAM.
A lie that the version in use cannot tell is answered by 400."""


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def protocols(provider: Provider, http2: str, max_streams: int) -> Callable[[], asyncio.Protocol]:
    """What a new connection is given to; `http2` is on, off or only."""
    if http2 == "off":
        return lambda: Connection1(provider)
    # Only here, so that all else runs without the h2 package.
    from opening import Opening

    return lambda: Opening(provider, max_streams, only=http2 == "only")


async def serve(
    host: str, port: int, defaults: Simulation, tls: ssl.SSLContext | None, http2: str, max_streams: int
) -> None:
    """Until SIGTERM or SIGINT. Raises OSError when the address cannot be had."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    accept = protocols(Provider(defaults), http2, max_streams)
    server = await loop.create_server(accept, host, port, backlog=BACKLOG, ssl=tls)
    bound = server.sockets[0].getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    print(
        f"provider listening on {'https' if tls else 'http'}://{shown}:{bound[1]}",
        file=sys.stderr,
        flush=True,
    )
    await stopped.wait()
    # Live answers are not waited for: their readers see what a provider's crash looks like.
    server.close()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _streams(text: str) -> int:
    if not text.isdigit() or int(text) > 2**31 - 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of streams")
    return int(text)


def _arguments() -> argparse.Namespace:
    keys = "\n".join(f"  {name:15}{meaning}" for name, (_, meaning) in KEYS.items())
    lies2 = "\n".join(f"  {name:15}{meaning}" for name, meaning in LIES2.items())
    parser = argparse.ArgumentParser(
        description="A simulated model provider over HTTP/1.1 and HTTP/2.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys, for --set and for the request header `Simulate: key=value; key=value`:\n{keys}\n\n"
        f"lies: {', '.join(sorted(LIES - ONLY_HTTP1 - ONLY_HTTP2))}\n"
        f"over HTTP/1.1 alone: {', '.join(sorted(ONLY_HTTP1))}\n\n"
        f"over HTTP/2 alone:\n{lies2}\n\n{NOTES}",
    )
    parser.add_argument(
        "--listen", type=_address, default=("127.0.0.1", 9000), metavar="HOST:PORT", help="port 0: a free one"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every answer")
    parser.add_argument(
        "--http2",
        choices=("on", "off", "only"),
        default="on",
        help="off: never; only: HTTP/1.1 is closed, but for /sim/ (default: %(default)s)",
    )
    parser.add_argument(
        "--max-streams",
        type=_streams,
        default=MAX_STREAMS,
        metavar="N",
        help="SETTINGS_MAX_CONCURRENT_STREAMS (default: %(default)s)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    return parser.parse_args()


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    context.set_alpn_protocols({"on": ["h2", "http/1.1"], "off": ["http/1.1"], "only": ["h2"]}[arguments.http2])
    return context


def main() -> int:
    """0 after a signal; 2 when the arguments or the address cannot be used."""
    arguments = _arguments()
    _raise_file_limit()
    host, port = arguments.listen
    try:
        defaults = read(Simulation(), arguments.set)
        tls = _tls(arguments)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(host, port, defaults, tls, arguments.http2, arguments.max_streams))
    except BadSimulation as error:
        print(f"provider: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"provider: cannot listen on {host}:{port}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
