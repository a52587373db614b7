"""Names are the system's random bytes, each used once, whatever their sizes."""

from __future__ import annotations

import base64
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from relay.control import tokens


def decoded(name: str) -> bytes:
    return base64.urlsafe_b64decode(name + "=" * (-len(name) % 4))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=300))
def test_no_byte_is_used_twice(sizes: list[int]) -> None:
    pieces: list[bytes] = []

    def counting(size: int) -> bytes:
        """Random bytes as they never come: numbered."""
        start = sum(map(len, pieces))
        pieces.append(b"".join((start + 2 * n).to_bytes(2, "big") for n in range(size // 2)))
        return pieces[-1]

    tokens._random, tokens._at = b"", 0
    with mock.patch("os.urandom", counting):
        given_out = [decoded(tokens.token(size)) for size in sizes]
    tokens._random, tokens._at = b"", 0
    assert [len(piece) for piece in given_out] == sizes
    made = b"".join(pieces)
    at = 0
    for piece in given_out:
        found = made.find(piece, at)
        assert found >= at
        at = found + len(piece)


def test_names_fit_in_urls_and_differ() -> None:
    names = {tokens.token(16) for _ in range(10_000)}
    assert len(names) == 10_000
    assert all(len(name) == 22 and name.replace("-", "").replace("_", "").isalnum() for name in names)
