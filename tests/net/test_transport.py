"""A connection in the clear that is its own transport: on real sockets, what its protocol and its peer see of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.net.transport import SocketTransport
from relay.wire import chunked
from relay.wire.input import INPUT
from tests.net.pooling import run, until
from tests.net.scene import MUCH, RESET, Answering, Heard, descriptors, read_all, scene, turns, unanswering


def test_what_comes_is_given_to_the_protocol_and_then_the_end() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            peer.send(b"one")
            await until(lambda: bytes(protocol.got) == b"one")
            peer.send(b" two")
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.lost)
            assert (protocol.told, bytes(protocol.got)) == (["made", "eof", "lost"], b"one two")
            assert protocol.error is None
            assert transport.is_closing()
            assert transport.fileno() == -1
            assert await read_all(peer) == b""

    run(test)


def test_a_taker_is_told_how_much_lies_in_the_buffer() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            taken: list[bytes] = []

            class Taker:
                def take(self, count: int) -> None:
                    taken.append(INPUT[:count])

            transport.tell(Taker())
            peer.send(b"some bytes")
            await until(lambda: bool(taken))
            assert (taken, bytes(protocol.got)) == ([b"some bytes"], b"")

    run(test)


def test_nothing_is_read_while_reading_is_paused_and_no_turn_is_spent_on_a_peer_that_has_gone() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = await stage.over_tcp(protocol)
            transport.pause_reading()
            peer.send(b"late")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.close()  # an event of the kernel's that nobody can leave unheard
            assert stage.poller._epoll.poll(0) == []
            await turns()
            assert (protocol.told, bytes(protocol.got)) == (["made"], b"")
            transport.resume_reading()
            await until(lambda: protocol.lost)
            assert isinstance(protocol.error, ConnectionResetError)

    run(test)


def test_what_a_socket_does_not_take_waits_and_the_protocol_with_it() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            transport.write(MUCH)
            assert protocol.told == ["made", "pause"]
            waiting = transport.get_write_buffer_size()
            assert 0 < waiting < len(MUCH)
            transport.write(b"behind it")
            assert transport.get_write_buffer_size() == waiting + len(b"behind it")
            transport.close()
            transport.write(b", and this")
            assert await read_all(peer) == MUCH + b"behind it, and this"
            await until(lambda: protocol.lost)
            assert protocol.told == ["made", "pause", "resume", "lost"]
            assert protocol.error is None

    run(test)


def test_what_is_written_on_being_resumed_comes_behind_the_rest() -> None:
    async def test() -> None:
        with scene() as stage:

            class Refills(Heard):
                def resume_writing(self) -> None:
                    super().resume_writing()
                    if self.told.count("resume") < 3:
                        transport.write(MUCH)
                    else:
                        transport.write_eof()

            protocol = Refills()
            transport, peer = stage.pair(protocol)
            transport.write(MUCH)
            assert await read_all(peer) == MUCH * 3
            assert protocol.told == ["made", *["pause", "resume"] * 3]
            assert stage.poller._epoll.poll(0) == []  # room to write is waited for by nobody

    run(test)


def test_an_end_waits_for_what_was_written_before_it() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            transport.write(MUCH)
            transport.write_eof()
            transport.write(b"too late")
            assert await read_all(peer) == MUCH
            peer.send(b"still heard")
            await until(lambda: bytes(protocol.got) == b"still heard")
            assert not transport.is_closing()

    run(test)


def test_an_abort_loses_what_waits() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            transport.write(MUCH)
            transport.abort()
            transport.write(b"nobody's")
            assert not protocol.lost  # not within a call of his own
            await until(lambda: protocol.lost)
            arrived = await read_all(peer)
            assert len(arrived) < len(MUCH)
            assert MUCH.startswith(arrived)
            transport.abort()
            transport.close()
            await turns()
            assert protocol.told == ["made", "pause", "lost"]

    run(test)


def test_nothing_is_sent_behind_what_was_dropped() -> None:
    """The poller sends what was posted without asking what became of the connection in this turn."""

    async def test() -> None:
        with scene() as stage:
            transport, peer = stage.pair(Heard())
            transport.abort()
            transport.keep(b"half of a chunk")
            with pytest.raises(BrokenPipeError):
                transport.send(b"another chunk")
            assert await read_all(peer) == b""

    run(test)


def test_nothing_is_written_behind_an_end() -> None:
    async def test() -> None:
        with scene() as stage:
            transport, peer = stage.pair(Heard())
            transport.write(b"all")
            transport.write_eof()
            transport.write(b"too late")
            assert await read_all(peer) == b"all"
            assert not transport.is_reset
            assert not transport.is_closing()

    run(test)


_ACTS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 1, 100, 70_000, 400_000])),
    st.tuples(st.just("read"), st.sampled_from([1, 1000, 300_000])),
    st.tuples(st.sampled_from(["turn", "pause", "resume", "eof", "close"]), st.just(0)),
)


@given(acts=st.lists(_ACTS, max_size=30))
@settings(max_examples=150, deadline=None)
def test_whatever_is_done_the_peer_gets_all_that_was_written_before_the_end(acts: list[tuple[str, int]]) -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            written, read = bytearray(), bytearray()
            ended = False
            for act, size in acts:
                match act:
                    case "write" if not ended:
                        piece = bytes([len(written) % 251]) * size
                        transport.write(piece)
                        written += piece
                    case "read":
                        with contextlib.suppress(BlockingIOError):
                            read += peer.recv(size)
                    case "turn":
                        await turns(2)
                    case "pause":
                        transport.pause_reading()
                    case "resume":
                        transport.resume_reading()
                    case "eof" if not ended:
                        transport.write_eof()
                        ended = True
                    case "close":
                        transport.close()
                        ended = True
                assert ("lost" in protocol.told) <= transport.is_closing()
                if not protocol.lost:
                    blocked = protocol.told.count("pause") - protocol.told.count("resume")
                    assert blocked == bool(transport.get_write_buffer_size())
            transport.close()
            read += await read_all(peer)
            assert read == written
            await until(lambda: protocol.lost)
            assert protocol.error is None
            assert stage.complaints == []

    run(test)


def test_a_chunk_never_overtakes_what_is_kept() -> None:
    async def test() -> None:
        with scene() as stage:
            connection = Answering()
            transport, peer = stage.pair(connection)
            pieces = [b"first", MUCH, b"while it is blocked", b"and more"]
            for piece in pieces:
                connection.send(piece)
            assert transport.get_write_buffer_size() > 0
            transport.write_eof()
            assert await read_all(peer) == b"".join(chunked.encode(piece) for piece in pieces)

    run(test)


def test_a_connection_that_is_refused_leaves_nothing() -> None:
    async def test() -> None:
        with scene() as stage, socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            before = descriptors()
            with pytest.raises(ConnectionRefusedError):
                await SocketTransport(stage.poller, socket.AF_INET).reach(nobody.getsockname())
            assert descriptors() == before

    run(test)


def test_a_connection_that_is_given_up_on_its_way_leaves_nothing() -> None:
    async def test() -> None:
        with scene() as stage, unanswering() as address:
            before = descriptors()
            transport = SocketTransport(stage.poller, socket.AF_INET)
            reaching = asyncio.ensure_future(transport.reach(address))
            await turns()
            assert not reaching.done()
            reaching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reaching
            assert descriptors() == before
            assert transport.get_extra_info("socket") is None

    run(test)
