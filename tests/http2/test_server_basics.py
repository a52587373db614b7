"""What a server must take: every frame in its place, every ordinary exchange (h2spec: generic/1 to generic/4)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.conftest import Target
from tests.http2.frames import END_HEADERS, END_STREAM, PADDED, WITH_PRIORITY, Code, Setting
from tests.http2.peers import MORE_FIELDS, NO_WINDOW, ClientPeer


def test_the_preface_is_taken(server: Target) -> None:
    """3.4: a connection begins with the client's preface, and a SETTINGS frame is the server's."""
    with server.connect() as peer:
        peer.handshake()


# 5.1: frames that a state allows.


def test_priority_on_an_idle_stream(peer: ClientPeer) -> None:
    """5.1, idle: PRIORITY may come in any state."""
    peer.send(frames.priority(1))
    peer.expect_alive()


def test_window_update_on_a_half_closed_stream(peer: ClientPeer) -> None:
    """5.1, half-closed (remote): WINDOW_UPDATE is expected, and opens the window for the answer."""
    peer.send(frames.settings(NO_WINDOW), peer.get(1), frames.window_update(1, 1))
    assert len(peer.expect_data(1).payload) == 1


def test_priority_on_a_half_closed_stream(peer: ClientPeer) -> None:
    """5.1, half-closed (remote): PRIORITY may come in any state, and changes nothing."""
    peer.send(frames.settings(NO_WINDOW), peer.get(1), frames.priority(1), frames.window_update(1, 1))
    assert len(peer.expect_data(1).payload) == 1


def test_rst_stream_on_a_half_closed_stream(peer: ClientPeer) -> None:
    """5.1, half-closed (remote): RST_STREAM ends the stream and nothing else."""
    peer.send(peer.get(1), frames.rst_stream(1))
    peer.expect_alive()


def test_priority_on_a_closed_stream(peer: ClientPeer) -> None:
    """5.1, closed: PRIORITY may come in any state."""
    peer.send(peer.get(1))
    peer.expect_end(1)
    peer.send(frames.priority(1))
    peer.expect_alive()


# 6.1 to 6.10: each frame.


def test_data(peer: ClientPeer) -> None:
    """6.1: a request's body is DATA, the last with END_STREAM."""
    peer.send(peer.post(1), frames.data(1, b"test", END_STREAM))
    peer.expect_headers(1)


def test_several_data(peer: ClientPeer) -> None:
    """6.1: a body may come in any number of DATA frames."""
    peer.send(peer.post(1), frames.data(1, b"test"), frames.data(1, b"test"), frames.data(1, b"test", END_STREAM))
    peer.expect_headers(1)


def test_padded_data(peer: ClientPeer) -> None:
    """6.1: DATA may be padded; padding is no part of the body."""
    content = frames.padded(b"test", 6)
    peer.send(peer.post(1, ("content-length", "4")), frames.data(1, content, PADDED | END_STREAM))
    peer.expect_headers(1)


def test_headers(peer: ClientPeer) -> None:
    """6.2: HEADERS opens a stream."""
    peer.send(frames.headers(1, peer.block()))
    peer.expect_headers(1)


def test_padded_headers(peer: ClientPeer) -> None:
    """6.2: HEADERS may be padded."""
    peer.send(frames.headers(1, frames.padded(peer.block(), 6), END_HEADERS | END_STREAM | PADDED))
    peer.expect_headers(1)


def test_headers_with_priority(peer: ClientPeer) -> None:
    """6.2: HEADERS may carry the fields of the old priority scheme, which are parsed and ignored."""
    content = frames.dependency(0, 256) + peer.block()
    peer.send(frames.headers(1, content, END_HEADERS | END_STREAM | WITH_PRIORITY))
    peer.expect_headers(1)


@pytest.mark.parametrize(
    "priority",
    [
        pytest.param(frames.priority(1, weight=1), id="weight-1"),
        pytest.param(frames.priority(1, weight=256), id="weight-256"),
        pytest.param(frames.priority(1, on=2), id="dependency"),
        pytest.param(frames.priority(1, on=0, exclusive=True), id="exclusive"),
    ],
)
def test_priority(peer: ClientPeer, priority: bytes) -> None:
    """6.3: PRIORITY is taken with any weight and dependency."""
    peer.send(priority, peer.get(1))
    peer.expect_headers(1)


def test_priority_does_not_use_up_stream_ids(peer: ClientPeer) -> None:
    """6.3: PRIORITY on an idle stream opens nothing: lower ids may still be used."""
    peer.send(frames.priority(5, weight=256), peer.get(3))
    peer.expect_headers(3)


def test_rst_stream(peer: ClientPeer) -> None:
    """6.4: RST_STREAM ends an open stream."""
    peer.send(peer.post(1), frames.rst_stream(1))
    peer.expect_alive()


def test_settings(peer: ClientPeer) -> None:
    """6.5: SETTINGS may come at any time and is acknowledged."""
    peer.send(frames.settings((Setting.MAX_CONCURRENT_STREAMS, 100)))
    peer.expect_settings_ack()


def test_ping(peer: ClientPeer) -> None:
    """6.7: PING is acknowledged with its eight octets."""
    peer.send(frames.ping(b"\x00\xff abcde"))
    peer.expect_ping_ack(b"\x00\xff abcde")


def test_goaway(peer: ClientPeer) -> None:
    """6.8: after a client's GOAWAY without streams, the server still answers or closes."""
    peer.send(frames.goaway(), frames.ping(b"still on"))
    peer.expect_close_or_ping_ack(b"still on")


def test_window_update_of_the_connection(peer: ClientPeer) -> None:
    """6.9: WINDOW_UPDATE on stream 0 is about the connection."""
    peer.send(frames.window_update(0, 1))
    peer.expect_alive()


def test_window_update_of_a_stream(peer: ClientPeer) -> None:
    """6.9: WINDOW_UPDATE on an open stream is about that stream."""
    peer.send(peer.post(1), frames.window_update(1, 1), frames.data(1, b"test", END_STREAM))
    peer.expect_headers(1)


def test_continuation(peer: ClientPeer) -> None:
    """6.10: CONTINUATION goes on with a field block that HEADERS did not end."""
    peer.send(frames.headers(1, peer.block(), END_STREAM), frames.continuation(1, MORE_FIELDS))
    peer.expect_headers(1)


def test_several_continuations(peer: ClientPeer) -> None:
    """6.10: as often as it takes; the cuts may lie anywhere."""
    block = peer.block() + MORE_FIELDS
    peer.send(
        frames.headers(1, block[:5], END_STREAM),
        frames.continuation(1, block[5:6], 0),
        frames.continuation(1, b"", 0),
        frames.continuation(1, block[6:]),
    )
    peer.expect_headers(1)


# 8.1: exchanges.


def test_get_is_answered(peer: ClientPeer) -> None:
    """8.1: the answer comes on the request's stream: HEADERS with one status, DATA, the end."""
    peer.send(peer.get(1))
    head = peer.expect_headers(1)
    assert head.fields[0] == (":status", "200")
    assert peer.expect_data(1).payload == b"ok\n"


def test_head_is_answered(peer: ClientPeer) -> None:
    """8.1: an answer without a body is a HEADERS frame that ends the stream, or an empty DATA does."""
    peer.send(frames.headers(1, peer.block(method="HEAD")))
    peer.expect_headers(1)
    if not peer.seen[-1].ends_stream:
        assert peer.expect_data(1).payload == b""
    assert peer.seen[-1].ends_stream


def test_post_is_answered(peer: ClientPeer) -> None:
    """8.1: a request with a body is answered, and the body reaches who answers it."""
    peer.send(peer.post(1), frames.data(1, b"test", END_STREAM))
    assert peer.expect_headers(1).fields[0] == (":status", "200")
    assert b"test" in peer.expect_data(1).payload


def test_post_with_trailers_is_answered(peer: ClientPeer) -> None:
    """8.1: a trailer section is one more HEADERS, which ends the stream."""
    peer.send(
        peer.post(1, ("trailer", "x-test")),
        frames.data(1, b"test"),
        frames.headers(1, frames.block([("x-test", "ok")])),
    )
    assert peer.expect_headers(1).fields[0] == (":status", "200")


def test_a_code_that_nobody_knows_ends_a_stream(peer: ClientPeer) -> None:
    """7: an unknown error code in RST_STREAM has no meaning of its own."""
    peer.send(peer.post(1), frames.rst_stream(1, 0xFF))
    peer.expect_alive()


def test_a_code_that_nobody_knows_in_goaway(peer: ClientPeer) -> None:
    """7: an unknown error code in GOAWAY has no meaning of its own: the server still answers, or closes."""
    peer.send(frames.goaway(0, 0xFF), frames.ping(b"still on"))
    peer.expect_close_or_ping_ack(b"still on")


def test_refused_codes_are_said_once(peer: ClientPeer) -> None:
    """5.4.2: an endpoint does not answer RST_STREAM with RST_STREAM."""
    peer.send(peer.post(1), frames.rst_stream(1, Code.CANCEL))
    peer.expect_alive()
    assert not [came for came in peer.seen if came.kind == frames.Kind.RST_STREAM]
