"""Header blocks made to cost: without end (A3), or small and large at once (A4). HPACK sees none of the former."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.ground import Ground, one_line
from tests.attacks.script import asking, streams
from tests.http2 import frames
from tests.http2.frames import END_HEADERS, END_STREAM, MAX_FRAME, Code, Kind, Setting

_KIB = 1024
_REQUEST = frames.block(asking())


def _unfinished(block: bytes = _REQUEST) -> bytes:
    """HEADERS behind which CONTINUATION has to come."""
    return frames.headers(1, block, END_STREAM)


def _more(content: bytes, count: int) -> list[bytes]:
    return [frames.continuation(1, content, 0)] * count


# A3

_FIELD = frames.block([("x-fill", "y" * 100)])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([_unfinished(), *_more(b"", 10_000)], id="empty"),
        pytest.param([_unfinished(), *_more(_FIELD[:1], 10_000)], id="small"),
        pytest.param([_unfinished(), *_more(b"x" * MAX_FRAME, 5)], id="large"),
        pytest.param([_unfinished(), *_more(_FIELD * 100, 5000)], id="never-ending"),
    ],
)
def test_continuation_flood(ground: Ground, script: list[bytes], request: pytest.FixtureRequest) -> None:
    with ground.attack(f"A3 CONTINUATION {request.node.callspec.id}") as case:
        attacker = case.connect()
        attacker.send(*script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)
    assert case.stats["requests"] == 0


@pytest.mark.parametrize("opening", [_unfinished(), _unfinished(b""), frames.headers(1, _REQUEST)[:-1]])
def test_header_block_that_stays_open(ground: Ground, opening: bytes) -> None:
    with ground.attack("A3 header block held open") as case:
        attacker = case.connect()
        attacker.send(opening)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)
    assert "header section was not complete" in case.lines[0]["detail"]
    assert case.stats["requests"] == 0


def test_slow_continuation_does_not_prolong_a_head(ground: Ground) -> None:
    """Frames and bytes come all the time; the block's time runs from its first byte on."""
    block = _REQUEST + _FIELD
    pieces = [_unfinished(block[:10]), *(frames.continuation(1, block[at : at + 30], 0) for at in range(10, 220, 30))]
    # Byte by byte, so that a frame is always about to come.
    script = b"".join(pieces)
    with ground.attack("A3 CONTINUATION slow") as case:
        attacker = case.connect()
        assert not attacker.drip((script[at : at + 1] for at in range(len(script))), 0.02), "5 s with a limit of 0.5 s"
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


def test_dribbled_frames_in_the_middle_of_requests(ground: Ground) -> None:
    """The same on a connection with a stream that lives: a head that never comes ends them both."""
    with ground.attack("A3 frame dribbled") as case:
        attacker = case.connect()
        attacker.send(frames.headers(1, _REQUEST))
        attacker.of(1, Kind.DATA)
        head = frames.headers(3, _REQUEST)
        assert not attacker.drip((head[at : at + 1] for at in range(len(head))), 0.05)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)
    assert case.stats["aborted"] == 1


# A4

_LARGE = ("x-large", "v" * 3900)
_INDEXED = b"\xbe"  # the newest entry of the dynamic table


def _insert(name: str, value: str) -> bytes:
    """A literal with incremental indexing."""
    return b"\x40" + frames.string(name) + frames.string(value)


def _bombs() -> Iterator[tuple[str, bytes]]:
    references = _INDEXED * (MAX_FRAME - 5000)
    yield "one-entry", _REQUEST + _insert(*_LARGE) + references
    yield "small-entry", _REQUEST + _insert("x", "y") + references
    yield "empty-fields", _REQUEST + b"\x00\x01x\x00" * 4000
    yield "huffman", _REQUEST + b"\x00" + frames.string("x") + frames.string("0" * 40_000, huffman=True)
    yield "inserts", _REQUEST + _insert("x", "y") * 3000
    # Each field is cheap, and a list of so many is not.
    yield "static", b"\x82\x84\x86" + b"\x90" * 16_000


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in _bombs()])
def test_header_bomb(ground: Ground, block: bytes, request: pytest.FixtureRequest) -> None:
    """More than a list may hold ends the connection, because the table cannot be known any more."""
    assert len(block) < MAX_FRAME + 10_000
    first, rest = block[:MAX_FRAME], block[MAX_FRAME:]
    script = frames.headers(1, first, END_STREAM | (0 if rest else END_HEADERS))
    script += frames.continuation(1, rest) if rest else b""
    with ground.attack(f"A4 bomb {request.node.callspec.id}") as case:
        attacker = case.connect()
        attacker.send(script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM, Code.COMPRESSION_ERROR)
    one_line(case, attacker.frames[-1].code)
    assert case.stats["requests"] == 0


def test_bomb_within_the_limits_again_and_again(ground: Ground) -> None:
    """Blocks of ten bytes that are lists of 28 KiB: what they are good for is a hundred refused requests."""
    first = frames.headers(1, _REQUEST + _insert(*_LARGE))
    again = frames.block(asking("/v1/none")) + _INDEXED * 7
    script = [frames.headers(stream, again) + frames.rst_stream(stream) for stream in streams(5000, 3)]
    with ground.attack("A4 bombs within the limits") as case:
        attacker = case.connect()
        attacker.send(first, *script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([b"\x20" * 10_000 + _REQUEST], id="start"),
        pytest.param([b"\x3f\xe1\x1f\x20" * 4000 + _REQUEST], id="start-up-and-down"),
        pytest.param([b"\x20", b"\x20" * 10_000, _REQUEST], id="continuation"),
        pytest.param([b"", b"\x20" * 3, _REQUEST], id="three-in-continuation"),
        pytest.param([_REQUEST, b"\x20" * 10_000], id="behind-fields"),
        pytest.param([frames.table_size(4097) + _REQUEST], id="larger-than-allowed"),
        pytest.param([b"\x3f" + b"\xff" * 16_000 + b"\x00"], id="endless-integer"),
        pytest.param([b"\x3f" + b"\x80" * 16_000], id="endless-zeros"),
        pytest.param([b"\x00\x7f" + b"\xff" * 16_000 + b"\x00"], id="endless-length"),
    ],
)
def test_table_size_updates(ground: Ground, blocks: list[bytes], request: pytest.FixtureRequest) -> None:
    script = [frames.headers(1, blocks[0], END_STREAM | (END_HEADERS if len(blocks) == 1 else 0))]
    script += [frames.continuation(1, block, 0) for block in blocks[1:-1]]
    script += [frames.continuation(1, blocks[-1])] if len(blocks) > 1 else []
    with ground.attack(f"A4 table size {request.node.callspec.id}") as case:
        attacker = case.connect()
        attacker.send(*script)
        attacker.ended_by(Code.COMPRESSION_ERROR)
    one_line(case, Code.COMPRESSION_ERROR)
    assert case.stats["requests"] == 0


def test_table_size_updates_in_every_block(ground: Ground) -> None:
    """Two are allowed in each: their cost is in proportion to the requests, which are limited themselves."""
    block = b"\x20\x3f\xe1\x1f" + frames.block(asking("/v1/none"))
    script = [frames.headers(stream, block) + frames.rst_stream(stream) for stream in streams(5000)]
    with ground.attack("A4 table size in every block") as case:
        attacker = case.connect()
        attacker.send(*script)
        attacker.ended_by(Code.ENHANCE_YOUR_CALM)
    one_line(case, Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("size", [2**32 - 1, 2**31, 64 * _KIB])
def test_huge_table_of_the_clients(ground: Ground, size: int) -> None:
    """A client may offer a table of 4 GiB; the relay does not fill it."""
    with ground.attack(f"A4 table of {size // _KIB} KiB offered", growth=4 * _KIB * _KIB) as case:
        attacker = case.connect((Setting.HEADER_TABLE_SIZE, size))
        for stream in streams(500):
            # Its id comes back in the answer's head.
            block = frames.block(asking("/healthz", "", "GET", ("x-request-id", f"{stream:x>100}")))
            attacker.send(frames.headers(stream, block))
            assert attacker.of(stream, Kind.HEADERS).fields[0] == (":status", "200")
        attacker.alive()
        attacker.send(frames.goaway())
        attacker.read_to_end()
