"""Where sockets are read into: one buffer for all of them.

A read is over before the next begins, on one thread; whoever is told of one takes his bytes out at once. (An mmap,
because a slice of it is `bytes`, made in one step; of a bytearray or a memoryview it takes two.)
"""

from __future__ import annotations

import mmap

INPUT = mmap.mmap(-1, 256 * 1024, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
