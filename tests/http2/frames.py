"""Frames (RFC 9113, 4.1) and field blocks (RFC 7541) as bytes; nothing here checks what it is asked to build.

Field blocks are literals without indexing (RFC 7541, 6.2.2) and without state: a block may be sent twice, on another
connection or cut anywhere, and means the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = 9
# What a frame may carry before anybody says otherwise, and the least that may be said (octets).
MAX_FRAME = 2**14
MAX_WINDOW = 2**31 - 1

# Flags; the first two share a bit in different frames.
END_STREAM = 0x01
ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
WITH_PRIORITY = 0x20

Fields = Iterable[tuple[str, str]]


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


@dataclass(frozen=True)
class Frame:
    """A frame as it came. HEADERS and its CONTINUATIONs are one, with `fields`, and without padding or priority."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def ends_stream(self) -> bool:
        return self.kind in (Kind.DATA, Kind.HEADERS) and bool(self.flags & END_STREAM)

    @property
    def is_ack(self) -> bool:
        return self.kind in (Kind.SETTINGS, Kind.PING) and bool(self.flags & ACK)

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        offset = 4 if self.kind == Kind.GOAWAY else 0
        return int.from_bytes(self.payload[offset : offset + 4], "big")

    @property
    def last_stream(self) -> int:
        """The last stream id of GOAWAY."""
        return int.from_bytes(self.payload[:4], "big") & MAX_WINDOW

    def settings(self) -> dict[int, int]:
        return dict(struct.iter_unpack(">HL", self.payload))

    def __str__(self) -> str:
        name = Kind(self.kind).name if self.kind in list(Kind) else f"type {self.kind}"
        said = ""
        if self.kind in (Kind.RST_STREAM, Kind.GOAWAY):
            said = f" {Code(self.code).name}" if self.code in list(Code) else f" {self.code}"
        return f"{name}(stream {self.stream}, flags {self.flags:#x}, {len(self.payload)} octets{said})"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame; bit 31 of `stream` is the reserved one."""
    return struct.pack(">L", len(payload))[1:] + struct.pack(">BBL", kind, flags, stream) + payload


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    return frame(Kind.DATA, flags, stream, content)


def headers(stream: int, block: bytes, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(Kind.HEADERS, flags, stream, block)


def continuation(stream: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    return frame(Kind.CONTINUATION, flags, stream, block)


def dependency(on: int = 0, weight: int = 256, *, exclusive: bool = False) -> bytes:
    """The five octets of PRIORITY, and of HEADERS with priority."""
    return struct.pack(">LB", on | (0x80000000 if exclusive else 0), weight - 1)


def priority(stream: int, on: int = 0, weight: int = 256, *, exclusive: bool = False) -> bytes:
    return frame(Kind.PRIORITY, 0, stream, dependency(on, weight, exclusive=exclusive))


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(Kind.RST_STREAM, 0, stream, struct.pack(">L", code))


def settings(*values: tuple[int, int]) -> bytes:
    return frame(Kind.SETTINGS, 0, 0, b"".join(struct.pack(">HL", *value) for value in values))


def settings_ack() -> bytes:
    return frame(Kind.SETTINGS, ACK, 0)


def push_promise(stream: int, promised: int, block: bytes) -> bytes:
    return frame(Kind.PUSH_PROMISE, END_HEADERS, stream, struct.pack(">L", promised) + block)


def ping(opaque: bytes, flags: int = 0) -> bytes:
    return frame(Kind.PING, flags, 0, opaque)


def goaway(last_stream: int = 0, code: int = Code.NO_ERROR) -> bytes:
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">LL", last_stream, code))


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, struct.pack(">L", increment))


def padded(content: bytes, length: int) -> bytes:
    """A payload for the flag PADDED."""
    return bytes([length]) + content + bytes(length)


def block(fields: Fields) -> bytes:
    """A field block of literals without indexing, names as they are written."""
    return b"".join(b"\x00" + string(name) + string(value) for name, value in fields)


def integer(prefix: int, value: int, pattern: int = 0) -> bytes:
    """An integer with a prefix of so many bits, after the bits of a pattern (RFC 7541, 5.1)."""
    limit = 2**prefix - 1
    if value < limit:
        return bytes([pattern | value])
    encoded, value = bytearray([pattern | limit]), value - limit
    while value >= 128:
        encoded.append(value % 128 | 128)
        value //= 128
    encoded.append(value)
    return bytes(encoded)


def string(text: str, *, huffman: bool = False) -> bytes:
    """A string literal (RFC 7541, 5.2)."""
    octets = text.encode("latin-1")
    if huffman:
        octets = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(octets)
    return integer(7, len(octets), 0x80 if huffman else 0) + octets


def table_size(value: int) -> bytes:
    """A dynamic table size update (RFC 7541, 6.3)."""
    return integer(5, value, 0x20)
