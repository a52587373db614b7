"""Where clients come in, in the clear: each accepted connection becomes a SocketTransport."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from relay.net.poller import Poller
from relay.net.transport import UNKNOWN, SocketTransport

# So many are accepted before the loop sees to anything else: a burst of clients must not hold up the streams.
_BATCH = 16
# If it cannot be done (without a descriptor left, or memory), nothing is accepted for so long (seconds).
_PAUSE = 1.0
# What accept(2) says of one connection, and not of all.
_ITS_OWN = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
    }
)


class Listener:
    """Of a bound socket, which is its own from now on; `make` makes the protocol of each connection."""

    def __init__(
        self, bound: socket.socket, backlog: int, poller: Poller, make: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._socket = bound
        self._poller = poller
        self._make = make
        self._pause: asyncio.TimerHandle | None = None
        bound.listen(backlog)
        self._listen()

    def close(self) -> None:
        """Accept no more. Who was not accepted yet gets a RST."""
        if self._pause is not None:
            self._pause.cancel()
        self._poller.loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _listen(self) -> None:
        self._pause = None
        self._poller.loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                client, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _ITS_OWN:
                    continue
                self._wait(error)
                return
            # What accept() says stands, even if the client has reset the connection by the time it is asked for.
            peer = address[0] if isinstance(address, tuple) else UNKNOWN
            transport = SocketTransport(self._poller, client.family, client.detach(), peer)
            transport.begin(self._make())
            if transport.is_closing():
                return  # there are too many: no more descriptors for what is turned away than one at a time

    def _wait(self, error: OSError) -> None:
        loop = self._poller.loop
        loop.remove_reader(self._socket.fileno())
        self._pause = loop.call_later(_PAUSE, self._listen)
        loop.call_exception_handler({"message": "no client can be accepted for a moment", "exception": error})
