"""SETTINGS, PING and flow control at a server (RFC 9113, 6.5, 6.7, 6.9; h2spec: http2/6.5, 6.7, 6.9)."""

from __future__ import annotations

import pytest

from tests.http2 import frames
from tests.http2.frames import ACK, MAX_WINDOW, Code, Kind, Setting
from tests.http2.peers import NO_WINDOW, ClientPeer

# 6.5: SETTINGS.


def test_settings_ack_with_a_payload(peer: ClientPeer) -> None:
    """6.5: an acknowledgment says nothing else: FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Kind.SETTINGS, ACK, 0, b"\x00"))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


def test_settings_on_a_stream(peer: ClientPeer) -> None:
    """6.5: SETTINGS are about the connection: their stream id is 0."""
    peer.send(frames.frame(Kind.SETTINGS, 0, 1, frames.settings((Setting.MAX_CONCURRENT_STREAMS, 100))[9:]))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_settings_that_are_not_whole(peer: ClientPeer) -> None:
    """6.5: SETTINGS of other than a multiple of six octets end the connection, FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Kind.SETTINGS, 0, 0, b"\x00\x03\x00"))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        pytest.param(Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR, id="push-neither-0-nor-1"),
        pytest.param(Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW + 1, Code.FLOW_CONTROL_ERROR, id="window-too-great"),
        pytest.param(Setting.MAX_FRAME_SIZE, 2**14 - 1, Code.PROTOCOL_ERROR, id="frame-too-small"),
        pytest.param(Setting.MAX_FRAME_SIZE, 2**24, Code.PROTOCOL_ERROR, id="frame-too-great"),
    ],
)
def test_setting_out_of_its_range(peer: ClientPeer, setting: Setting, value: int, code: Code) -> None:
    """6.5.2: each setting has its range, and its error."""
    peer.send(frames.settings((setting, value)))
    peer.expect_connection_error(code)


def test_unknown_setting(peer: ClientPeer) -> None:
    """6.5.2: a setting that nobody knows is ignored."""
    peer.send(frames.settings((0xFF, 1)))
    peer.expect_settings_ack()
    peer.expect_alive()


def test_values_are_taken_in_their_order(peer: ClientPeer) -> None:
    """6.5.3: of two values of one setting in one frame the last holds."""
    peer.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 100), (Setting.INITIAL_WINDOW_SIZE, 1)), peer.get(1))
    assert len(peer.expect_data(1).payload) == 1


def test_settings_are_acknowledged(peer: ClientPeer) -> None:
    """6.5.3: SETTINGS are acknowledged when they are applied, each frame once."""
    peer.send(frames.settings((Setting.ENABLE_PUSH, 0)), frames.settings((Setting.MAX_CONCURRENT_STREAMS, 7)))
    peer.expect_settings_ack()
    peer.expect_settings_ack()


# 6.7: PING.


def test_ping_is_answered_as_it_was(peer: ClientPeer) -> None:
    """6.7: the acknowledgment carries the PING's eight octets."""
    peer.send(frames.ping(b"as it is"))
    peer.expect_ping_ack(b"as it is")


def test_ping_ack_is_not_answered(peer: ClientPeer) -> None:
    """6.7: an acknowledgment is not acknowledged."""
    peer.send(frames.ping(b"unwanted", ACK), frames.ping(b"a wanted"))
    peer.expect_ping_ack(b"a wanted")


def test_ping_on_a_stream(peer: ClientPeer) -> None:
    """6.7: PING is about the connection: its stream id is 0."""
    peer.send(frames.frame(Kind.PING, 0, 1, bytes(8)))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_ping_of_another_length(peer: ClientPeer) -> None:
    """6.7: PING of other than eight octets ends the connection, FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Kind.PING, 0, 0, bytes(6)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


# 6.9: WINDOW_UPDATE.


def test_increment_of_0_for_the_connection(peer: ClientPeer) -> None:
    """6.9: an increment of 0 is a PROTOCOL_ERROR, of the connection on stream 0."""
    peer.send(frames.window_update(0, 0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_increment_of_0_for_a_stream(peer: ClientPeer) -> None:
    """6.9: and of the stream on a stream."""
    peer.send(peer.post(1), frames.window_update(1, 0))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("stream", [0, 1])
def test_window_update_of_another_length(peer: ClientPeer, stream: int) -> None:
    """6.9: WINDOW_UPDATE of other than four octets ends the connection, FRAME_SIZE_ERROR."""
    peer.send(peer.post(1), frames.frame(Kind.WINDOW_UPDATE, 0, stream, b"\x00\x00\x01"))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


# 6.9.1 and 6.9.2: windows.


def test_data_fits_the_window(peer: ClientPeer) -> None:
    """6.9.1: a sender sends no more than the window has room for."""
    peer.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 1)), peer.get(1))
    assert len(peer.expect_data(1).payload) == 1


def test_the_connections_window_may_not_grow_too_great(peer: ClientPeer) -> None:
    """6.9.1: a connection's window above 2^31-1 is answered by GOAWAY, FLOW_CONTROL_ERROR."""
    peer.send(frames.window_update(0, MAX_WINDOW), frames.window_update(0, MAX_WINDOW))
    peer.expect_goaway(Code.FLOW_CONTROL_ERROR)


def test_a_streams_window_may_not_grow_too_great(peer: ClientPeer) -> None:
    """6.9.1: a stream's window above 2^31-1 is answered by RST_STREAM, FLOW_CONTROL_ERROR."""
    peer.send(peer.post(1), frames.window_update(1, MAX_WINDOW), frames.window_update(1, MAX_WINDOW))
    peer.expect_reset(1, Code.FLOW_CONTROL_ERROR)


def test_a_changed_initial_window_reaches_open_streams(peer: ClientPeer) -> None:
    """6.9.2: a change of the initial window changes the windows of all streams by the difference."""
    peer.send(frames.settings(NO_WINDOW), peer.get(1))
    peer.expect_headers(1)
    peer.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 1)))
    assert len(peer.expect_data(1).payload) == 1


def test_a_window_may_become_negative(peer: ClientPeer) -> None:
    """6.9.2: also below zero; then nothing is sent until WINDOW_UPDATE makes it positive again."""
    peer.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 2)), peer.get(1))
    assert peer.expect_data(1).payload == b"ok"
    # The window is 0, then -1, then 0 again: nothing may come. Then 1.
    peer.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 1)), frames.window_update(1, 1))
    peer.expect_settings_ack()
    peer.expect_alive()
    assert len([came for came in peer.seen if came.payload and came.kind == Kind.DATA]) == 1
    peer.send(frames.window_update(1, 1))
    assert peer.expect_data(1).payload == b"\n"


def test_a_changed_initial_window_may_not_make_one_too_great(peer: ClientPeer) -> None:
    """6.9.2: a change that takes a window above 2^31-1 ends the connection, FLOW_CONTROL_ERROR."""
    peer.send(frames.settings(NO_WINDOW), peer.get(1), frames.window_update(1, 1))
    peer.expect_data(1)
    peer.send(frames.window_update(1, 2**30), frames.settings((Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW)))
    peer.expect_connection_error(Code.FLOW_CONTROL_ERROR)


def test_initial_window_above_the_greatest(peer: ClientPeer) -> None:
    """6.9.2: SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1 ends the connection, FLOW_CONTROL_ERROR."""
    peer.send(peer.post(1), frames.settings((Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW + 1)))
    peer.expect_connection_error(Code.FLOW_CONTROL_ERROR)
