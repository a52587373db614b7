"""Where connections are read into: one buffer for all of them, and for the whole process.

There is one loop, on one thread, and a read is over before the next begins; whoever is told of one takes his bytes out
at once. (An mmap, because a slice of it is `bytes`, made in one step; of a bytearray or a memoryview it takes two.)
"""

from __future__ import annotations

import mmap

INPUT = mmap.mmap(-1, 256 * 1024, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
