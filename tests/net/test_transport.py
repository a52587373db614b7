"""A connection in the clear that is its own transport: on real sockets, what its protocol and its peer see of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.reader import Reader
from relay.errors import RelayError, UpstreamError
from relay.flow.gate import Gate
from relay.flow.overflow import ANSWER
from relay.net import listener as listening
from relay.net.connection1 import Connection1
from relay.net.listener import Listener
from relay.net.poller import Poller
from relay.net.timers import Wheel
from relay.net.transport import SocketTransport
from relay.net.upstream1 import Upstream1
from relay.wire import chunked
from relay.wire.head import CHUNKED, EMPTY, ResponseHead
from relay.wire.input import INPUT
from tests.core.fakes import Clock
from tests.net.pooling import run, until

_RESET = struct.pack("ii", 1, 0)
_MUCH = bytes(range(256)) * 16384  # more than two sockets hold


class Heard(asyncio.Protocol):
    """Writes down what it is told. `answer` is what it does with the first bytes that come."""

    def __init__(self, answer: Callable[[], None] | None = None) -> None:
        self.told: list[str] = []
        self.got = bytearray()
        self.error: Exception | None = None
        self.answer = answer

    @property
    def lost(self) -> bool:
        return "lost" in self.told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        answer, self.answer = self.answer, None
        if answer is not None:
            answer()

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")
        self.error = error


class Scene:
    """A poller, and connections between it and plain sockets."""

    def __init__(self) -> None:
        self.poller = Poller(asyncio.get_running_loop())
        self.peers: list[socket.socket] = []
        self.complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complaints.append(context))

    def pair(self, protocol: asyncio.BaseProtocol) -> tuple[SocketTransport, socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.peers.append(theirs)
        transport = SocketTransport(self.poller, ours.family, ours.detach())
        transport.begin(protocol)
        return transport, theirs

    async def over_tcp(self, protocol: Heard) -> tuple[SocketTransport, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            transport = SocketTransport(self.poller, socket.AF_INET)
            await transport.reach(server.getsockname())
            theirs, _ = server.accept()
        theirs.setblocking(False)
        self.peers.append(theirs)
        transport.begin(protocol)
        return transport, theirs

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.poller.close()


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    made = Scene()
    try:
        yield made
    finally:
        made.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def read_all(peer: socket.socket) -> bytes:
    """Until its end."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while data := await loop.sock_recv(peer, 1 << 20):
        got += data
    return bytes(got)


# Reading


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
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            peer.close()  # an event of the kernel's that nobody can leave unheard
            assert stage.poller._epoll.poll(0) == []
            await turns()
            assert (protocol.told, bytes(protocol.got)) == (["made"], b"")
            transport.resume_reading()
            await until(lambda: protocol.lost)
            assert isinstance(protocol.error, ConnectionResetError)

    run(test)


def test_a_connection_that_is_dropped_by_another_ones_bytes_hears_no_more() -> None:
    """Both have something in the same batch, and the descriptor of the one is taken again at once."""

    async def test() -> None:
        with scene() as stage:
            protocols: list[Heard] = []
            pairs: list[tuple[SocketTransport, socket.socket]] = []

            def drop_the_other() -> None:
                ((other, _),) = (each for at, each in enumerate(pairs) if not protocols[at].got)
                number = other.fileno()
                other.abort()
                assert stage.pair(late)[0].fileno() != number >= 0

            late = Heard()
            for _ in range(2):
                protocols.append(Heard(drop_the_other))
                pairs.append(stage.pair(protocols[-1]))
            for _, peer in pairs:
                peer.send(b"x")
            await until(lambda: any(protocol.lost for protocol in protocols))
            await turns()
            assert sorted(bytes(protocol.got) for protocol in protocols) == [b"", b"x"]
            assert (late.told, bytes(late.got), stage.complaints) == (["made"], b"", [])

    run(test)


def test_what_another_ones_bytes_pause_keeps_its_own_for_later() -> None:
    """Both have something in the same batch."""

    async def test() -> None:
        with scene() as stage:
            protocols: list[Heard] = []
            pairs: list[tuple[SocketTransport, socket.socket]] = []

            def pause_the_other() -> None:
                (other,) = (each for at, each in enumerate(pairs) if not protocols[at].got)
                other[0].pause_reading()

            for _ in range(2):
                protocols.append(Heard(pause_the_other))
                pairs.append(stage.pair(protocols[-1]))
            for _, peer in pairs:
                peer.send(b"x")
            await until(lambda: any(protocol.got for protocol in protocols))
            await turns()
            assert sorted(bytes(protocol.got) for protocol in protocols) == [b"", b"x"]
            for transport, _ in pairs:
                transport.resume_reading()
            await until(lambda: all(protocol.got for protocol in protocols))

    run(test)


def test_a_defect_in_one_protocol_ends_one_connection() -> None:
    async def test() -> None:
        with scene() as stage:

            def fail() -> None:
                raise ZeroDivisionError

            broken, sound = Heard(fail), Heard()
            _, peer = stage.pair(broken)
            _, other = stage.pair(sound)
            peer.send(b"x")
            other.send(b"y")
            await until(lambda: broken.lost and bool(sound.got))
            (complaint,) = stage.complaints
            assert isinstance(complaint["exception"], ZeroDivisionError)
            assert not sound.lost

    run(test)


# Writing


def test_what_a_socket_does_not_take_waits_and_the_protocol_with_it() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            transport.write(_MUCH)
            assert protocol.told == ["made", "pause"]
            waiting = transport.get_write_buffer_size()
            assert 0 < waiting < len(_MUCH)
            transport.write(b"behind it")
            assert transport.get_write_buffer_size() == waiting + len(b"behind it")
            transport.close()
            transport.write(b", and this")
            assert await read_all(peer) == _MUCH + b"behind it, and this"
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
                        transport.write(_MUCH)
                    else:
                        transport.write_eof()

            protocol = Refills()
            transport, peer = stage.pair(protocol)
            transport.write(_MUCH)
            assert await read_all(peer) == _MUCH * 3
            assert protocol.told == ["made", *["pause", "resume"] * 3]
            assert stage.poller._epoll.poll(0) == []  # room to write is waited for by nobody

    run(test)


def test_an_end_waits_for_what_was_written_before_it() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            transport.write(_MUCH)
            transport.write_eof()
            transport.write(b"too late")
            assert await read_all(peer) == _MUCH
            peer.send(b"still heard")
            await until(lambda: bytes(protocol.got) == b"still heard")
            assert not transport.is_closing()

    run(test)


def test_an_abort_loses_what_waits() -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = stage.pair(protocol)
            transport.write(_MUCH)
            transport.abort()
            transport.write(b"nobody's")
            assert not protocol.lost  # not within a call of his own
            await until(lambda: protocol.lost)
            arrived = await read_all(peer)
            assert len(arrived) < len(_MUCH)
            assert _MUCH.startswith(arrived)
            transport.abort()
            transport.close()
            await turns()
            assert protocol.told == ["made", "pause", "lost"]

    run(test)


def test_nothing_is_sent_behind_what_was_dropped() -> None:
    """The hot path sends without asking what became of the connection in this turn."""

    async def test() -> None:
        with scene() as stage:
            transport, peer = stage.pair(Heard())
            transport.abort()
            transport.keep(b"half of a chunk")
            with pytest.raises(BrokenPipeError):
                transport.send(b"another chunk")
            assert await read_all(peer) == b""

    run(test)


@pytest.mark.parametrize("blocked", [False, True])
def test_a_peer_that_resets_ends_the_connection_and_says_why(blocked: bool) -> None:
    async def test() -> None:
        with scene() as stage:
            protocol = Heard()
            transport, peer = await stage.over_tcp(protocol)
            if blocked:
                transport.pause_reading()
                transport.write(_MUCH * 4)
                assert "pause" in protocol.told
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
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
            transport.write(_MUCH * 4 if blocked else b"not read")
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


def test_a_defect_on_being_paused_ends_the_connection_that_was_paused() -> None:
    async def test() -> None:
        with scene() as stage:

            class Broken(Heard):
                def pause_writing(self) -> None:
                    raise ZeroDivisionError

            broken = Broken()
            transport, _ = stage.pair(broken)
            sound = Heard(lambda: transport.write(_MUCH))
            _, other = stage.pair(sound)
            other.send(b"x")
            await until(lambda: broken.lost)
            assert len(stage.complaints) == 1
            assert not sound.lost

    run(test)


class Full:
    """An epoll that takes no more."""

    def __init__(self, poll: Callable[..., Any], closed: bool = False) -> None:
        self.poll = poll
        self.closed = closed

    def register(self, *_: int) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """It was borrowed."""


def test_a_connection_that_cannot_be_watched_is_lost_and_only_that() -> None:
    async def test() -> None:
        with scene() as stage, socket.create_server(("127.0.0.1", 0)) as server:
            protocol, sound = Heard(), Heard()
            transport, _ = stage.pair(protocol)
            _, other = stage.pair(sound)
            before = descriptors()
            transport.pause_reading()
            epoll = stage.poller._epoll
            stage.poller._epoll = Full(epoll.poll)  # type: ignore[assignment]
            transport.resume_reading()
            with pytest.raises(OSError, match="No space"):
                await SocketTransport(stage.poller, socket.AF_INET).reach(server.getsockname())
            stage.poller._epoll = epoll
            await until(lambda: protocol.lost)
            assert isinstance(protocol.error, OSError)
            assert descriptors() == before - 1
            other.send(b"x")
            await until(lambda: bool(sound.got))

    run(test)


def test_closing_the_poller_ends_all_that_is_open_or_about_to_be() -> None:
    async def test() -> None:
        with (
            scene() as stage,
            socket.create_server(("127.0.0.1", 0), backlog=0) as full,
            contextlib.ExitStack() as stack,
        ):
            stack.enter_context(socket.create_connection(full.getsockname()))
            protocol, paused = Heard(), Heard()
            stage.pair(protocol)
            stage.pair(paused)[0].pause_reading()
            reaching = asyncio.ensure_future(SocketTransport(stage.poller, socket.AF_INET).reach(full.getsockname()))
            await turns()
            stage.poller.close()
            await until(lambda: protocol.lost and paused.lost and reaching.done())
            assert isinstance(reaching.exception(), ConnectionAbortedError)
            late = Heard()
            stage.pair(late)
            await until(lambda: late.lost)

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
                    await until(lambda protocol=protocol: protocol.lost)  # type: ignore[misc]
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


class Answering(Connection1):
    """In the middle of an answer in chunks, whose reader does not keep to what it is told."""

    def __init__(self) -> None:
        super().__init__(cast(Wheel, Clock()), 60.0)
        self._begin(b"", CHUNKED, Reader(ANSWER, Gate(None)))
        self._take_head()

    def pause_writing(self) -> None:
        self._blocked_at = 1.0
        self._hold()

    def _ignore(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        pass


def test_a_chunk_never_overtakes_what_is_kept() -> None:
    async def test() -> None:
        with scene() as stage:
            connection = Answering()
            transport, peer = stage.pair(connection)
            pieces = [b"first", _MUCH, b"while it is blocked", b"and more"]
            for piece in pieces:
                connection.send(piece)
            assert transport.get_write_buffer_size() > 0
            transport.write_eof()
            assert await read_all(peer) == b"".join(chunked.encode(piece) for piece in pieces)

    run(test)


# Connecting


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


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
        # A listener whose queue is full does not answer.
        with (
            scene() as stage,
            socket.create_server(("127.0.0.1", 0), backlog=0) as full,
            contextlib.ExitStack() as stack,
        ):
            stack.enter_context(socket.create_connection(full.getsockname()))
            before = descriptors()
            transport = SocketTransport(stage.poller, socket.AF_INET)
            reaching = asyncio.ensure_future(transport.reach(full.getsockname()))
            await turns()
            assert not reaching.done()
            reaching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reaching
            assert descriptors() == before
            assert transport.get_extra_info("socket") is None

    run(test)


# Accepting


def test_connections_come_in_and_no_more_after_the_end() -> None:
    async def test() -> None:
        with scene() as stage:
            came: list[Heard] = []

            def make() -> Heard:
                came.append(Heard())
                return came[-1]

            bound = socket.create_server(("127.0.0.1", 0))
            bound.setblocking(False)
            address = bound.getsockname()
            listener = Listener(bound, 100, stage.poller, make)
            for number in range(40):  # more than one turn takes
                stage.peers.append(socket.create_connection(address))
                stage.peers[-1].send(b"%d" % number)
            await until(lambda: [bytes(each.got) for each in came] == [b"%d" % number for number in range(40)])
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)

    run(test)


def test_who_has_reset_before_he_was_accepted_is_known_by_his_address() -> None:
    async def test() -> None:
        with scene() as stage:
            peers: list[str] = []

            class Named(Heard):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    peers.append(transport.peer)  # type: ignore[attr-defined]

            bound = socket.create_server(("127.0.0.1", 0))
            bound.setblocking(False)
            client = socket.create_connection(bound.getsockname())
            client.send(b"a request")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            listener = Listener(bound, 100, stage.poller, Named)
            await until(lambda: bool(peers))
            assert peers == ["127.0.0.1"]
            listener.close()

    run(test)


def test_what_is_turned_away_takes_one_descriptor_at_a_time() -> None:
    async def test() -> None:
        with scene() as stage:
            most: list[int] = []

            class Unwanted(Heard):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    most.append(descriptors())
                    transport.abort()  # type: ignore[attr-defined]

            bound = socket.create_server(("127.0.0.1", 0))
            bound.setblocking(False)
            for _ in range(10):
                stage.peers.append(socket.create_connection(bound.getsockname()))
            before = descriptors()
            listener = Listener(bound, 100, stage.poller, Unwanted)
            await until(lambda: len(most) == 10)
            assert max(most) == before + 1
            listener.close()

    run(test)


def lowest_free() -> int:
    """The next descriptor's number."""
    number = os.dup(0)
    os.close(number)
    return number


def test_without_a_descriptor_left_clients_wait_and_the_loop_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PAUSE", 3600)

    async def test() -> None:
        with scene() as stage:
            came: list[Heard] = []

            def make() -> Heard:
                came.append(Heard())
                return came[-1]

            bound = socket.create_server(("127.0.0.1", 0))
            bound.setblocking(False)
            listener = Listener(bound, 100, stage.poller, make)
            stage.peers.append(socket.create_connection(bound.getsockname()))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), hard))
            try:
                await until(lambda: len(stage.complaints) == 1)
                await turns(100)
                assert len(stage.complaints) == 1
                assert came == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            listener._listen()  # as the timer would
            await until(lambda: bool(came))
            listener.close()

    run(test)
