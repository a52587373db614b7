"""When a provider is told that its bytes have come: not from within the read of each event.

A kernel acknowledges a small segment by itself as soon as it has been read (Linux: __tcp_cleanup_rbuf), unless it
takes the connection for a dialogue, where the acknowledgement waits to travel with an answer. A stream of tokens is no
dialogue, so each event costs a packet back, sent from within the read: 3 to 4 us of the 20 to 25 that an event costs in
all, and some more at the provider. TCP_QUICKACK (tcp(7)) says which of the two it is, but the kernel forgets it with
every acknowledgement that it sends late; so it is said before every read, for half a microsecond. Events that come
close then share a packet; of all others it is sent by the kernel's timer, for many connections at once.

CPU per event of the process, with this to without (six interleaved pairs each, Linux 6.18): 0.94 at 500 x 20/s, 0.91 at
4,000 x 10/s; of a loop of recv() and send() in C, 0.71 and 0.77, while client and provider use as much as before. What
the timer takes is counted as nobody's. On HTTP/2, where one connection carries a hundred streams, it makes no
difference (1.01), so it is not done there.

What speaks against it is a provider that uses Nagle's algorithm (RFC 9293, 3.7.4): it keeps its next event back until
the last is acknowledged, for up to 40 ms. Where the kernel lets us bound that (TCP_DELACK_MAX_US, Linux 6.15), it is 8
to 12 ms, and only for events that come closer than that; on an older kernel its own way is kept.
"""

from __future__ import annotations

import socket

# An acknowledgement waits for so long at the most (microseconds). RFC 9293, 3.8.6.3, allows for 500 ms. A kernel takes
# no less than two of its ticks, of which it has 250 a second, or more.
_LATEST = 8000
_TCP_DELACK_MAX_US = 46  # of <linux/tcp.h>


def hush(connection: socket.SocketType) -> bool:
    """Bound the delay; False where the kernel cannot, and nothing may be said."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_DELACK_MAX_US, _LATEST)
    except OSError:
        return False
    return True
