"""A connection that its peer resets: what came before is heard, nothing is kept, and it serves nobody else."""

from __future__ import annotations

import gc
import socket
from functools import partial
from typing import cast

import pytest

from relay.core.reader import Reader
from relay.errors import RelayError, UpstreamError
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER
from relay.net.timers import Wheel
from relay.net.transport import SocketTransport
from relay.net.upstream1 import Upstream1
from relay.wire.head import EMPTY, ResponseHead
from tests.net.pooling import run, until
from tests.net.scene import MUCH, RESET, Heard, scene, turns


@pytest.mark.parametrize("blocked", [False, True])
def test_a_peer_that_resets_ends_the_connection_and_says_why(blocked: bool) -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = await stage.over_tcp(protocol)
            if blocked:
                transport.pause_reading()
                transport.write(MUCH * 4)
                assert "pause" in protocol.told
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.close()
            if not blocked:
                transport.write(b"a write may tell as well as a read")
            await until(lambda: protocol.lost)
            assert isinstance(protocol.error, ConnectionResetError | BrokenPipeError)
            assert protocol.told.count("lost") == 1

    run(test)


@pytest.mark.parametrize("blocked", [False, True])
def test_what_came_before_a_reset_is_heard_before_it(blocked: bool) -> None:
    """As of a provider that refuses a request which it has not read to its end."""

    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = await stage.over_tcp(protocol)
            transport.write(MUCH * 4 if blocked else b"not read")
            await turns()
            peer.send(b"413")
            peer.close()  # with bytes unread, which the kernel says by a reset
            transport.write(b"on a connection that was reset")
            transport.write(b"once more")
            await until(lambda: protocol.lost)
            assert bytes(protocol.got) == b"413"
            assert "eof" not in protocol.told
            assert "resume" not in protocol.told
            assert isinstance(protocol.error, ConnectionResetError | BrokenPipeError)

    run(test)


def test_a_connection_that_was_reset_is_freed_without_the_collector() -> None:
    """The error that a write was told of knows the frames that it came through, and they this connection."""

    async def test() -> None:
        gc.collect()
        gc.disable()
        try:
            with scene() as stage:
                for _ in range(5):
                    protocol = Heard()
                    transport, peer = await stage.over_tcp(protocol)
                    transport.write(b"not read")
                    await turns()
                    peer.close()
                    transport.write(b"on a connection that was reset")
                    assert transport.is_reset
                    await until(partial(getattr, protocol, "lost"))
                del transport
                await turns()
                assert not [each for each in gc.get_objects() if type(each) is SocketTransport]
        finally:
            gc.enable()

    run(test)


_GONE = ConnectionResetError(104, "Connection reset by peer")


def test_later_writes_change_nothing_about_a_reset_connection() -> None:
    """Not even while its answer is held back: a write that fails may end only what nobody reads."""

    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            peer.send(b"the answer")
            transport.failed(_GONE)
            transport.pause_reading()
            transport.failed(BrokenPipeError(32, "Broken pipe"))
            await turns()
            assert not protocol.lost
            transport.resume_reading()
            await until(lambda: bytes(protocol.got) == b"the answer")
            peer.close()
            await until(lambda: protocol.lost)
            assert protocol.error is _GONE

    run(test)


class House:
    """A pool that only counts, and who has asked."""

    def __init__(self) -> None:
        self.now = 1.0
        self.released = 0
        self.gone = 0
        self.ends = 0

    def release(self, connection: Upstream1) -> None:
        self.released += 1

    def lost(self, connection: Upstream1) -> None:
        self.gone += 1

    def watch(self, timed: object, when: float) -> None:
        pass

    def forget(self, timed: object) -> None:
        pass

    def answered(self, head: ResponseHead) -> House:
        return self

    def unanswered(self, error: UpstreamError) -> None:
        raise AssertionError(error)

    def feed(self, payload: bytes) -> None:
        assert payload == b"no"

    def end(self) -> None:
        self.ends += 1

    def fail(self, error: RelayError) -> None:
        raise AssertionError(error)


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_was_reset_serves_no_further_request(reset: bool) -> None:
    async def test() -> None:
        with scene() as stage:
            house = House()
            connection = Upstream1(cast(Wheel, house), house, 60, 60)
            transport, peer = stage.pair(connection)
            connection.ask(b"POST", b"/", [(b"host", b"h")], EMPTY, house, Reader(ANSWER, Gate(None)))
            connection.finish()
            if reset:
                transport.failed(_GONE)
            peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
            await until(lambda: house.ends == 1)
            await turns()
            assert (house.released, house.gone) == ((0, 1) if reset else (1, 0))

    run(test)
