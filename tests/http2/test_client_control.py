"""The relay as an HTTP/2 client: SETTINGS, PING, GOAWAY and flow control (RFC 9113, 6.5, 6.7 to 6.9; h2spec's client
tests of these numbers)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.asking import Asked, Origin
from tests.http2.frames import ACK, END_HEADERS, END_STREAM, MAX_WINDOW, Code, Kind, Setting
from tests.http2.peers import RESPONSE

# 6.5: SETTINGS.


def test_settings_ack_with_a_payload(asked: Asked) -> None:
    """6.5: an acknowledgment says nothing else: FRAME_SIZE_ERROR."""
    asked.peer.send(frames.frame(Kind.SETTINGS, ACK, 0, b"\x00"))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


def test_settings_on_a_stream(asked: Asked) -> None:
    """6.5: SETTINGS are about the connection: their stream id is 0."""
    payload = frames.settings((Setting.MAX_CONCURRENT_STREAMS, 100))[frames.HEADER :]
    asked.peer.send(frames.frame(Kind.SETTINGS, 0, asked.stream, payload))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_settings_that_are_not_whole(asked: Asked) -> None:
    """6.5: SETTINGS of other than a multiple of six octets end the connection, FRAME_SIZE_ERROR."""
    asked.peer.send(frames.frame(Kind.SETTINGS, 0, 0, b"\x00\x03\x00"))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        pytest.param(Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW + 1, Code.FLOW_CONTROL_ERROR, id="window-too-great"),
        pytest.param(Setting.MAX_FRAME_SIZE, 2**14 - 1, Code.PROTOCOL_ERROR, id="frame-too-small"),
        pytest.param(Setting.MAX_FRAME_SIZE, 2**24, Code.PROTOCOL_ERROR, id="frame-too-great"),
        pytest.param(Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR, id="push-neither-0-nor-1"),
    ],
)
def test_setting_out_of_its_range(asked: Asked, setting: Setting, value: int, code: Code) -> None:
    """6.5.2: each setting has its range, and its error."""
    asked.peer.send(frames.settings((setting, value)))
    asked.peer.expect_connection_error(code)
    asked.failed()


def test_a_server_does_not_allow_pushes(asked: Asked) -> None:
    """6.5.2: a server may say ENABLE_PUSH 0 and nothing else; a client treats 1 as PROTOCOL_ERROR."""
    asked.peer.send(frames.settings((Setting.ENABLE_PUSH, 1)))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_unknown_setting(asked: Asked) -> None:
    """6.5.2: a setting that nobody knows is ignored."""
    asked.peer.send(frames.settings((0xFF, 1)))
    asked.peer.expect_settings_ack()
    asked.peer.expect_alive()
    asked.peer.answer(asked.stream)
    asked.whole()


def test_settings_are_acknowledged(asked: Asked) -> None:
    """6.5.3: SETTINGS are acknowledged when they are applied, each frame once."""
    asked.peer.send(frames.settings((Setting.ENABLE_PUSH, 0)), frames.settings((Setting.MAX_CONCURRENT_STREAMS, 7)))
    asked.peer.expect_settings_ack()
    asked.peer.expect_settings_ack()
    asked.peer.answer(asked.stream)
    asked.whole()


# 6.7: PING.


def test_ping_is_answered_as_it_was(asked: Asked) -> None:
    """6.7: the acknowledgment carries the PING's eight octets."""
    asked.peer.send(frames.ping(b"as it is"))
    asked.peer.expect_ping_ack(b"as it is")
    asked.peer.answer(asked.stream)
    asked.whole()


def test_ping_ack_is_not_answered(asked: Asked) -> None:
    """6.7: an acknowledgment is not acknowledged."""
    asked.peer.send(frames.ping(b"unwanted", ACK), frames.ping(b"a wanted"))
    asked.peer.expect_ping_ack(b"a wanted")
    asked.peer.answer(asked.stream)
    asked.whole()


def test_ping_on_a_stream(asked: Asked) -> None:
    """6.7: PING is about the connection: its stream id is 0."""
    asked.peer.send(frames.frame(Kind.PING, 0, asked.stream, bytes(8)))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_ping_of_another_length(asked: Asked) -> None:
    """6.7: PING of other than eight octets ends the connection, FRAME_SIZE_ERROR."""
    asked.peer.send(frames.frame(Kind.PING, 0, 0, bytes(6)))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


# 6.8: GOAWAY.


def test_goaway_on_a_stream(asked: Asked) -> None:
    """6.8: GOAWAY is about the connection: its stream id is 0."""
    asked.peer.send(frames.frame(Kind.GOAWAY, 0, asked.stream, bytes(8)))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_goaway_of_another_length(asked: Asked) -> None:
    """4.2: GOAWAY with less than its eight octets is too small for what it must say."""
    asked.peer.send(frames.frame(Kind.GOAWAY, 0, 0, bytes(7)))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


def test_goaway_lets_streams_up_to_its_last_one_finish(asked: Asked) -> None:
    """6.8: streams up to the last one that GOAWAY names are carried on to their end."""
    asked.begin(b"answer, ")
    asked.peer.send(frames.goaway(asked.stream), frames.data(asked.stream, b"whole", END_STREAM))
    asked.whole(b"answer, whole")


def test_two_goaways_that_close_gently(asked: Asked) -> None:
    """6.8: a server that leaves may first name the greatest id there is, and the real one afterwards."""
    asked.peer.send(frames.goaway(MAX_WINDOW))
    asked.begin(b"answer, ")
    asked.peer.send(frames.goaway(asked.stream), frames.data(asked.stream, b"whole", END_STREAM))
    asked.whole(b"answer, whole")


def test_goaway_with_a_code_that_nobody_knows(asked: Asked) -> None:
    """7: an unknown error code has no meaning of its own."""
    asked.begin(b"answer, ")
    asked.peer.send(frames.goaway(asked.stream, 0xFF), frames.data(asked.stream, b"whole", END_STREAM))
    asked.whole(b"answer, whole")


@pytest.mark.parametrize("refused", ["goaway", "refused_stream"])
def test_a_request_that_was_not_taken_is_made_again(origin: Origin, refused: str) -> None:
    """8.7: what is above GOAWAY's last stream, or was REFUSED_STREAM, was not processed and may be sent again."""
    if origin.relay is None:
        pytest.skip("a client of one request need not repeat it")
    call = origin.call()
    first = origin.accept()
    first.handshake()
    stream = first.take_request().stream
    first.send(frames.goaway(0) if refused == "goaway" else frames.rst_stream(stream, Code.REFUSED_STREAM))
    second, head = origin.again(first)
    assert refused != "goaway" or second is not first, "a new stream on a connection after GOAWAY"
    second.answer(head.stream)
    outcome = call.outcome()
    assert (outcome.status, outcome.clean, outcome.body) == (200, True, b"answer")


# 6.9: WINDOW_UPDATE and the windows.


def test_increment_of_0_for_the_connection(asked: Asked) -> None:
    """6.9: an increment of 0 is a PROTOCOL_ERROR, of the connection on stream 0."""
    asked.peer.send(frames.window_update(0, 0))
    asked.peer.expect_connection_error(Code.PROTOCOL_ERROR)
    asked.failed()


def test_increment_of_0_for_a_stream(asked: Asked) -> None:
    """6.9: and of the stream on a stream."""
    asked.begin()
    asked.peer.send(frames.window_update(asked.stream, 0))
    asked.peer.expect_stream_error(asked.stream, Code.PROTOCOL_ERROR)
    asked.failed()


@pytest.mark.parametrize("stream", [0, 1])
def test_window_update_of_another_length(asked: Asked, stream: int) -> None:
    """6.9: WINDOW_UPDATE of other than four octets ends the connection, FRAME_SIZE_ERROR."""
    asked.peer.send(frames.frame(Kind.WINDOW_UPDATE, 0, stream, b"\x00\x00\x01"))
    asked.peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    asked.failed()


def test_the_connections_window_may_not_grow_too_great(asked: Asked) -> None:
    """6.9.1: a connection's window above 2^31-1 is answered by GOAWAY, FLOW_CONTROL_ERROR."""
    asked.peer.send(frames.window_update(0, MAX_WINDOW), frames.window_update(0, MAX_WINDOW))
    asked.peer.expect_goaway(Code.FLOW_CONTROL_ERROR)
    asked.failed()


def test_a_streams_window_may_not_grow_too_great(asked: Asked) -> None:
    """6.9.1: a stream's window above 2^31-1 is answered by RST_STREAM, FLOW_CONTROL_ERROR."""
    asked.begin()
    asked.peer.send(frames.window_update(asked.stream, MAX_WINDOW), frames.window_update(asked.stream, MAX_WINDOW))
    asked.peer.expect_stream_error(asked.stream, Code.FLOW_CONTROL_ERROR)
    asked.failed()


def test_the_client_opens_its_windows_again(asked: Asked) -> None:
    """6.9: what the receiver has taken it gives back, so that a long answer comes through."""
    total, piece = 10 * 2**14, b"x" * 2**14
    asked.peer.send(frames.headers(asked.stream, RESPONSE, END_HEADERS))
    asked.peer.send_within_windows(asked.stream, piece, total // len(piece))
    asked.peer.send(frames.data(asked.stream, b"", END_STREAM))
    asked.whole(b"x" * total)
