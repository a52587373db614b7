"""Providers that lie or break off: a real error before the client's first byte, never a clean end later (C0, C3 – C8).
Silence stands in test_silent_providers, what is sent again in test_provider_connections."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable

import brotli
import pytest

from tests.conftest import RelayMaker
from tests.programs import Client, Provider, Relay, running
from tests.robustness.peers import CHAT, DIALECTS, Dialect, Scripted, ask, refused, serves, until

_MIB = 1024 * 1024
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

# The reader sees no complete head, or one that may not be passed on.
_BEFORE_HEAD = ("close", "reset", "garbage", "switch", "endless-head")
_IN_HEAD = ("huge-head", "nul-header", "bare-lf", "cl-te", "two-lengths", "hints", "bad-version", "obs-fold")
_AFTER_HEAD = ("head-close", "head-reset")
_IN_STREAM = ("cut", "cut-reset", "bad-chunk", "chunk-extension-flood", "half-event", "no-done", "error")
_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.compress(data, wbits=31),
    "deflate": zlib.compress,
    "br": lambda data: bytes(brotli.compress(data, quality=5)),
}
_IN_JSON = ("cut", "cut-reset", "bad-chunk", "chunk-extension-flood", "short")


# C0: before the client's first byte


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("lie", [*_BEFORE_HEAD, *_IN_HEAD, *_AFTER_HEAD])
def test_lie_before_the_first_byte_is_502(relay: Relay, counted: Provider, lie: str, stream: bool) -> None:
    with Client(relay.address) as client:
        answer = ask(client, f"lie={lie}; events=3; interval=0", stream=stream)
        refused(answer, 502)
        # Not the client's fault: its connection serves the next request.
        serves(relay.address, client)
    # One generation was asked for, and one for the request after it. (A reused connection that closes without a byte
    # is another matter: test_provider_connections.)
    assert counted.stats()["requests"] == 2 or lie in ("close", "reset")


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_error_speaks_the_dialect_of_the_path(relay: Relay, dialect: Dialect, stream: bool) -> None:
    with Client(relay.address) as client:
        refused(ask(client, "lie=garbage", stream=stream, dialect=dialect), 502, dialect)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 +200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: \x1b[2J\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"Content-Length: 5\r\n\r\nhello",
        _STREAM + b"Content-Encoding: zstd\r\nContent-Length: 5\r\n\r\nhello",
        _STREAM + b"Content-Encoding: gzip, br\r\nContent-Length: 5\r\n\r\nhello",
        _STREAM + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        _STREAM + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\n\xff\xff\xff\xff\xff",
        _STREAM + b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nhello",
        _OK + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n",
        _OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        _OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        _OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    ],
)
def test_ambiguous_answer_is_502(make_relay: RelayMaker, head: bytes) -> None:
    with Scripted(head) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            client.socket.settimeout(5)
            refused(ask(client, "", stream=True), 502)
        assert len(provider.heads) == 1


# C0: later


@pytest.mark.parametrize("lie", _IN_STREAM)
def test_broken_stream_never_ends_cleanly(relay: Relay, counted: Provider, lie: str) -> None:
    with Client(relay.address) as client:
        answer = ask(client, f"lie={lie}; at=3; events=6; interval=5ms", stream=True)
        assert answer.status == 200
        assert not answer.clean
        assert b"[DONE]" not in answer.body
        assert client.closed()
    serves(relay.address)
    assert counted.stats()["requests"] == 2, "a generation was asked for once more"


@pytest.mark.parametrize("lie", _IN_JSON)
def test_broken_answer_never_ends_cleanly(relay: Relay, counted: Provider, lie: str) -> None:
    with Client(relay.address) as client:
        answer = ask(client, f"lie={lie}; events=40", stream=False)
        # What of it came in one piece with the fault may still be answered with a real status.
        assert answer.status == 502 or not answer.clean
        if not answer.clean:
            assert client.closed()
            with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
                json.loads(answer.body)
    serves(relay.address)
    assert counted.stats()["requests"] == 2


def test_body_shorter_than_its_length_is_passed_on_unfinished(make_relay: RelayMaker) -> None:
    with Scripted(_OK + b"Content-Length: 100\r\n\r\n{", ending="close") as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            answer = ask(client, "", stream=False)
            assert (answer.status, answer.body, answer.clean) == (200, b"{", False)
        assert relay.access_line()["reason"] == "upstream_cut"


@pytest.mark.parametrize("lie", ["hint", "trailers", "close-idle"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_harmless_lie_goes_unnoticed(relay: Relay, lie: str, stream: bool) -> None:
    with Client(relay.address) as client:
        for _ in range(2):
            answer = ask(client, f"lie={lie}; events=3; interval=0", stream=stream)
            assert answer.status == 200
            assert answer.clean
            if not stream:
                json.loads(answer.body)
        serves(relay.address, client)


# C3, C4, C5: too much


def _grows(relay: Relay, before: int) -> int:
    return relay.resident() - before


@pytest.mark.parametrize("encoding", _CODERS)
def test_bomb_in_a_stream_ends_at_its_limit(make_relay: RelayMaker, encoding: str) -> None:
    """A few KB that inflate to 64 MiB: at most a step of it is in memory, and it ends past 8 MiB."""
    event = b"data: {}\n\n"
    bomb = event + b"data: " + b"0" * (64 * _MIB) + b"\n\n"
    coded = _CODERS[encoding](bomb)
    fields = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding.encode(), len(coded))
    with Scripted(_STREAM + fields + coded) as provider:
        relay = make_relay(upstream=provider.url, limits='inflated = "8MiB"\nevent = "64KiB"')
        before = relay.resident()
        peak = 0
        with Client(relay.address) as client:
            client.post(CHAT.path, CHAT.asked(stream=True))
            received = 0
            while data := client.receive():
                received += len(data)
                peak = max(peak, _grows(relay, before))
                tail = data
        assert len(event) < received < 9 * _MIB
        assert not tail.endswith(b"0\r\n\r\n")
        # Its own length, one step, the ring and what the decoder's window is.
        assert peak < 8 * _MIB
        assert relay.access_line()["reason"] == "upstream_invalid"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_bomb_that_the_relay_need_not_open_passes_unopened(relay: Relay, stream: bool) -> None:
    """Only an event stream is looked into; a stream's bomb ends, a JSON answer's passes in the size it came."""
    with Client(relay.address) as client:
        answer = ask(client, "lie=bomb; total=64MiB; events=4; interval=0", stream=stream)
        if stream:
            assert not answer.clean
        else:
            assert answer.clean
            assert answer.headers["content-encoding"] == "gzip"
            assert len(answer.body) < _MIB


def test_endless_line_costs_no_memory_and_arrives_unchanged(make_relay: RelayMaker) -> None:
    relay = make_relay()
    total = 32 * _MIB
    before = relay.resident()
    peak = filling = 0
    with Client(relay.address) as client:
        client.post(CHAT.path, CHAT.asked(stream=True), f"lie=endless-line; total={total}; at=1; interval=0")
        assert client.read_head()[0] == 200
        data, tail = client.buffer, b""
        while data or (data := client.receive()):
            filling += data.count(b"x")
            tail = (tail + data)[-100:]
            peak = max(peak, _grows(relay, before))
            data = b""
    assert relay.access_line(reason="upstream_cut")["bytes"] >= total
    # No event of ours stands inside it, and no clean end behind it.
    assert tail.rstrip(b"\r\n").endswith(b"x" * 50)
    # An abort may keep back as many bytes as an event border has.
    assert total - 4 < filling < total + 1000
    # What an unfinished event may hold, as the framer and as the reader see it.
    assert peak < 6 * _MIB


def test_endless_head_is_refused_at_its_limit(make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay()
    before = relay.resident()
    with Client(relay.address) as client:
        refused(ask(client, "lie=endless-head", stream=True), 502)
    counted.wait(aborted=1)
    assert counted.stats()["bytes"] < _MIB
    assert _grows(relay, before) < _MIB


# C6, C7, C8


def test_bad_utf8_arrives_unchanged(relay: Relay, provider: Provider) -> None:
    for stream in (True, False):
        simulate = "lie=bad-utf8; at=2; events=5; interval=0"
        with Client(relay.address) as client, Client(provider.address) as direct:
            relayed, own = (ask(side, simulate, stream=stream) for side in (client, direct))
            assert relayed.body == own.body
            assert relayed.clean
            if stream:
                with pytest.raises(UnicodeDecodeError):
                    relayed.body.decode()


@pytest.mark.parametrize("lie", ["after-end", "long"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_connection_with_bytes_behind_the_end_is_discarded(make_relay: RelayMaker, lie: str, stream: bool) -> None:
    with running(Provider()) as provider:
        relay = make_relay(upstream=provider.url)
        with Client(relay.address) as client:
            answer = ask(client, f"lie={lie}; events=3; interval=0", stream=stream)
            assert answer.status == 200
            assert b"behind the end" not in answer.body
            provider.wait(connections_open=0)
        serves(relay.address)
        assert provider.stats()["connections"] == 2


def test_connection_with_bytes_that_nobody_asked_for_is_discarded(make_relay: RelayMaker) -> None:
    """They come later than the answer's end; the next answer must not begin with them."""
    answer = _OK + b"Content-Length: 2\r\n\r\n"
    with Scripted(answer + b"{}", ending="keep") as provider:
        relay = make_relay(upstream=provider.url)
        idle = relay.descriptors()
        with Client(relay.address) as client:
            for _ in range(2):
                assert ask(client, "", stream=False).body == b"{}"
            assert provider.connections == 1
            provider.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            until(lambda: relay.descriptors() == idle + 1, "the end of the provider's connection")
            assert ask(client, "", stream=False).body == b"{}"
        assert provider.connections == 2


def test_redirect_is_passed_on_and_not_followed(relay: Relay, counted: Provider) -> None:
    with Client(relay.address) as client:
        client.request("GET", "/redirect")
        answer = client.answer()
        assert answer.status == 302
        assert answer.headers["location"] == "/redirected"
    assert counted.stats()["requests"] == 1


def test_stream_whose_connection_stays_open_ends_with_its_terminal_event(relay: Relay) -> None:
    """The provider has said everything but closes nothing: the client's answer ends cleanly all the same."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(relay.address)) for _ in DIALECTS]
        for client, dialect in zip(clients, DIALECTS, strict=True):
            client.post(dialect.path, dialect.asked(stream=True), "lie=hold-open; events=3; interval=0")
        for client, dialect in zip(clients, DIALECTS, strict=True):
            answer = client.answer()
            assert answer.clean
            assert dialect.terminal in answer.body
            serves(relay.address, client)
