"""Frames written by hand are what hyperframe reads, and the other way round (RFC 9113, 4 and 6)."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe import frame as hyper
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import frames

STREAM = st.integers(1, frames.STREAM_ID_LIMIT)
CODE = st.integers(0, 2**32 - 1)


def parsed(data: bytes) -> hyper.Frame:
    found, length = hyper.Frame.parse_frame_header(memoryview(data[: frames.HEADER_SIZE]))
    assert length == len(data) - frames.HEADER_SIZE
    found.parse_body(memoryview(data[frames.HEADER_SIZE :]))
    return found


@settings(deadline=None)
@given(st.integers(0, 2**24 - 1), st.integers(0, 9), STREAM | st.just(0))
def test_a_header_holds_its_numbers(length: int, kind: int, stream_id: int) -> None:
    data = frames.header(length, kind, 0xFF, stream_id)
    assert len(data) == frames.HEADER_SIZE
    assert data[:3] == length.to_bytes(3, "big")
    high, low, found, flags, of = frames.HEADER.unpack(data)
    assert (high << 8 | low, found, flags, of) == (length, kind, 0xFF, stream_id)


@settings(deadline=None)
@given(STREAM, st.binary(max_size=30), st.booleans())
def test_data(stream_id: int, payload: bytes, end: bool) -> None:
    flags = frames.END_STREAM if end else 0
    found = parsed(frames.header(len(payload), frames.DATA, flags, stream_id) + payload)
    assert isinstance(found, hyper.DataFrame)
    assert (found.stream_id, found.data, "END_STREAM" in found.flags) == (stream_id, payload, end)


@settings(deadline=None)
@given(STREAM, CODE)
def test_rst_stream(stream_id: int, code: int) -> None:
    found = parsed(frames.rst_stream(stream_id, code))
    assert isinstance(found, hyper.RstStreamFrame)
    assert (found.stream_id, found.error_code) == (stream_id, code)


@settings(deadline=None)
@given(STREAM | st.just(0), st.integers(1, frames.WINDOW_LIMIT))
def test_window_update(stream_id: int, increment: int) -> None:
    found = parsed(frames.window_update(stream_id, increment))
    assert isinstance(found, hyper.WindowUpdateFrame)
    assert (found.stream_id, found.window_increment) == (stream_id, increment)


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=8), st.booleans())
def test_ping(data: bytes, ack: bool) -> None:
    found = parsed(frames.ping(data, ack=ack))
    assert isinstance(found, hyper.PingFrame)
    assert (found.opaque_data, "ACK" in found.flags, found.stream_id) == (data, ack, 0)


@settings(deadline=None)
@given(STREAM | st.just(0), CODE)
def test_goaway(last: int, code: int) -> None:
    found = parsed(frames.goaway(last, code))
    assert isinstance(found, hyper.GoAwayFrame)
    assert (found.last_stream_id, found.error_code, found.stream_id) == (last, code, 0)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 2**16 - 1), CODE, max_size=10))
def test_settings(values: dict[int, int]) -> None:
    data = frames.settings(values)
    found = parsed(data)
    assert isinstance(found, hyper.SettingsFrame)
    assert found.settings == values
    assert frames.parse_settings(data[frames.HEADER_SIZE :]) == list(values.items())


def test_a_setting_that_comes_twice_is_there_twice() -> None:
    assert frames.parse_settings(frames.setting(4, 1) + frames.setting(4, 2)) == [(4, 1), (4, 2)]


@settings(deadline=None)
@given(CODE, CODE)
def test_numbers_are_read_where_they_are(first: int, second: int) -> None:
    payload = first.to_bytes(4, "big") + second.to_bytes(4, "big")
    assert (frames.parse_long(payload), frames.parse_long(payload, 4)) == (first, second)


@pytest.mark.parametrize("code", ErrorCodes)
def test_errors_have_the_numbers_of_the_rfc(code: ErrorCodes) -> None:
    assert getattr(frames, code.name) == code


@pytest.mark.parametrize("name", "HEADER_TABLE_SIZE ENABLE_PUSH MAX_CONCURRENT_STREAMS INITIAL_WINDOW_SIZE".split())
def test_settings_have_the_numbers_of_the_rfc(name: str) -> None:
    assert getattr(frames, name) == SettingCodes[name]


def test_kinds_flags_and_limits_are_those_of_the_rfc() -> None:
    for name, kind in (
        ("DATA", hyper.DataFrame),
        ("HEADERS", hyper.HeadersFrame),
        ("PRIORITY", hyper.PriorityFrame),
        ("RST_STREAM", hyper.RstStreamFrame),
        ("SETTINGS", hyper.SettingsFrame),
        ("PUSH_PROMISE", hyper.PushPromiseFrame),
        ("PING", hyper.PingFrame),
        ("GOAWAY", hyper.GoAwayFrame),
        ("WINDOW_UPDATE", hyper.WindowUpdateFrame),
        ("CONTINUATION", hyper.ContinuationFrame),
    ):
        assert getattr(frames, name) == kind.type
    bits = {flag.name: flag.bit for flag in hyper.HeadersFrame.defined_flags}
    assert bits == {
        "END_STREAM": frames.END_STREAM,
        "END_HEADERS": frames.END_HEADERS,
        "PADDED": frames.PADDED,
        "PRIORITY": frames.PRIORITIZED,
    }
    assert (SettingCodes.MAX_FRAME_SIZE, SettingCodes.MAX_HEADER_LIST_SIZE) == (
        frames.MAX_FRAME_SIZE,
        frames.MAX_HEADER_LIST_SIZE,
    )
    assert (frames.FRAME_LIMIT, frames.DEFAULT_WINDOW, frames.WINDOW_LIMIT) == (2**14, 2**16 - 1, 2**31 - 1)
    assert frames.PREFACE == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
