"""What one turn of the loop writes leaves at its end, for one socket after another: on real sockets, in order, and
nothing is left behind, whatever becomes of the connection in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.net.poller import POSTED_LIMIT, POSTED_MOST
from relay.net.transport import SocketTransport
from relay.wire import chunked
from tests.net.pooling import run, until
from tests.net.scene import MUCH, Answering, Heard, Scene, read_all, scene, turns

EVENT = b"data: an event\n\n"


def answering(stage: Scene) -> tuple[Answering, SocketTransport, socket.socket]:
    connection = Answering()
    return connection, *stage.pair(connection)


def arrived(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_what_is_sent_outside_of_a_read_leaves_with_the_next_turn() -> None:
    async def test() -> None:
        with scene() as stage:
            connection, _, peer = answering(stage)
            connection.send(EVENT)
            assert arrived(peer) == b""
            await turns(2)
            assert arrived(peer) == chunked.encode(EVENT)
            assert (stage.poller.posted, stage.poller.woken) == ([], False)

    run(test)


def test_what_a_read_brings_leaves_when_all_have_been_read() -> None:
    """And before the loop sees to anything else."""

    async def test() -> None:
        with scene() as stage:
            connections = [answering(stage) for _ in range(3)]
            seen: list[list[bytes]] = []

            def came(connection: Answering) -> None:
                connection.send(EVENT)
                seen.append([arrived(peer) for _, _, peer in connections])

            providers = [stage.pair(Heard(partial(came, connection)))[1] for connection, _, _ in connections]
            for provider in providers:
                provider.send(b"x")
            await until(lambda: len(seen) == 3)
            assert seen == [[b""] * 3] * 3
            assert [arrived(peer) for _, _, peer in connections] == [chunked.encode(EVENT)] * 3

    run(test)


def test_no_more_than_so_many_wait() -> None:
    async def test() -> None:
        with scene() as stage:
            connections = [answering(stage) for _ in range(POSTED_MOST + 1)]
            for connection, _, _ in connections:
                connection.send(EVENT)
            assert [bool(arrived(peer)) for _, _, peer in connections] == [True] * POSTED_MOST + [False]
            await turns(2)
            assert arrived(connections[-1][2]) == chunked.encode(EVENT)

    run(test)


def test_what_is_posted_waits_for_no_more_than_so_many_reads() -> None:
    """Whatever those reads cost, and whether they bring anything to be sent."""

    async def test() -> None:
        with scene() as stage:
            connection, _, peer = answering(stage)
            seen: list[bytes] = []
            providers = [stage.pair(Heard(lambda: connection.send(EVENT)))[1]]
            for _ in range(2 * POSTED_MOST):
                providers.append(stage.pair(Heard(lambda: seen.append(arrived(peer))))[1])
            for provider in providers:
                provider.send(b"x")
            await until(lambda: len(seen) == 2 * POSTED_MOST)
            assert [number for number, data in enumerate(seen, 1) if data] == [POSTED_MOST]

    run(test)


@pytest.mark.parametrize("more", [b"and more", b"x" * POSTED_LIMIT])
def test_a_second_piece_takes_the_first_one_along(more: bytes) -> None:
    async def test() -> None:
        with scene() as stage:
            connection, transport, peer = answering(stage)
            connection.send(EVENT)
            assert transport.get_write_buffer_size() == len(chunked.encode(EVENT))
            connection.send(more)
            assert transport.get_write_buffer_size() == 0
            assert arrived(peer) == chunked.encode(EVENT) + chunked.encode(more)

    run(test)


@pytest.mark.parametrize("end", ["close", "abort", "write_eof", "the poller's"])
def test_an_end_comes_behind_what_was_posted(end: str) -> None:
    async def test() -> None:
        with scene() as stage:
            connection, transport, peer = answering(stage)
            connection.send(EVENT)
            if end == "the poller's":
                stage.poller.close()
            else:
                getattr(transport, end)()
            assert await read_all(peer) == chunked.encode(EVENT)

    run(test)


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_an_end_waits_for_the_rest_of_what_was_posted(end: str) -> None:
    async def test() -> None:
        with scene() as stage:
            connection, transport, peer = answering(stage)
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the system's least
            piece = b"x" * (POSTED_LIMIT - 10)
            connection.send(piece)
            getattr(transport, end)()
            assert transport.get_write_buffer_size() > 0
            assert await read_all(peer) == chunked.encode(piece)

    run(test)


def test_a_close_waits_for_what_is_posted_when_the_rest_has_been_taken() -> None:
    piece = b"x" * (POSTED_LIMIT - 10)

    async def test() -> None:
        with scene() as stage:

            class Resumed(Answering):
                def resume_writing(self) -> None:
                    if not sent:
                        sent.append(piece)
                        self._go_on()
                        self.send(piece)

            sent: list[bytes] = []
            transport, peer = stage.pair(Resumed())
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            transport.write(MUCH)
            transport.close()
            assert await read_all(peer) == MUCH + chunked.encode(piece)

    run(test)


@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
def test_a_peer_that_has_gone_is_noticed_at_the_end(end: str) -> None:
    async def test() -> None:
        with scene() as stage:
            connection, transport, peer = answering(stage)
            other, _, healthy = answering(stage)
            transport.pause_reading()
            peer.close()
            connection.send(EVENT)
            other.send(EVENT)
            getattr(transport, end)()
            await until(lambda: connection.lost)
            assert arrived(healthy) == chunked.encode(EVENT)
            assert (stage.complaints, transport.posted, stage.poller.posted) == ([], b"", [])

    run(test)


def test_a_socket_that_takes_no_more_blocks_its_reader_and_no_other() -> None:
    async def test() -> None:
        with scene() as stage:
            connection, transport, peer = answering(stage)
            other, _, healthy = answering(stage)
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sent = 0
            while not connection._blocked_at:
                connection.send(EVENT)
                other.send(EVENT)
                await turns(2)
                assert arrived(healthy) == chunked.encode(EVENT)
                sent += 1
            transport.write_eof()
            assert await read_all(peer) == chunked.encode(EVENT) * sent

    run(test)


@pytest.mark.parametrize(
    "acts",
    [
        ["abort", "one", "two", "three"],
        ["one", "abort", "two", "three", "four"],
        ["abort", "x" * 2 * POSTED_LIMIT, "one"],
        ["one", "abort", "close"],
    ],
)
def test_nothing_is_sent_behind_a_gap(acts: list[str]) -> None:
    """Whoever sends on a connection that was aborted in this turn."""

    async def test() -> None:
        with scene() as stage:
            connection, transport, peer = answering(stage)
            chunks = [chunked.encode(act.encode()) for act in acts if act not in ("abort", "close")]

            def came() -> None:
                for act in acts:
                    if act in ("abort", "close"):
                        getattr(transport, act)()
                    else:
                        connection.send(act.encode())

            _, provider = stage.pair(Heard(came))
            provider.send(b"x")
            got = await read_all(peer)
            assert b"".join(chunks).startswith(got)
            if acts[-1] == "close":
                assert got == chunks[0], "it was sent before the end"

    run(test)


def test_whatever_ends_a_batch_what_was_posted_in_it_leaves() -> None:
    async def test() -> None:
        with scene() as stage:
            connection, _, peer = answering(stage)

            def cancelled() -> None:
                connection.send(EVENT)
                raise asyncio.CancelledError

            _, provider = stage.pair(Heard(cancelled))
            provider.send(b"x")
            await until(lambda: len(stage.complaints) == 1)
            assert arrived(peer) == chunked.encode(EVENT)
            connection.send(EVENT)
            await turns(2)
            assert arrived(peer) == chunked.encode(EVENT)

    run(test)


def test_who_is_paused_may_have_something_to_say_elsewhere() -> None:
    async def test() -> None:
        with scene() as stage:
            others = [answering(stage) for _ in range(2 * POSTED_MOST)]

            class Talkative(Answering):
                def pause_writing(self) -> None:
                    for other, _, _ in others:
                        other.send(EVENT)

            transport, _ = stage.pair(Talkative())
            transport.posted = MUCH
            stage.poller.posted.append(transport)
            others[0][0].send(EVENT)
            await turns(3)
            got = [arrived(peer) for _, _, peer in others]
            assert got == [chunked.encode(EVENT) * 2] + [chunked.encode(EVENT)] * (len(others) - 1)

    run(test)


def test_a_defect_on_being_paused_costs_nobody_else_his_piece() -> None:
    async def test() -> None:
        with scene() as stage:

            class Broken(Answering):
                def pause_writing(self) -> None:
                    raise ZeroDivisionError

            broken = Broken()
            transport, _ = stage.pair(broken)
            other, _, healthy = answering(stage)
            transport.posted = MUCH
            stage.poller.posted.append(transport)
            other.send(EVENT)
            await until(lambda: broken.lost)
            assert arrived(healthy) == chunked.encode(EVENT)
            assert len(stage.complaints) == 1

    run(test)


_ACTS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 2), st.sampled_from([1, 200, POSTED_LIMIT - 100, 70_000, 400_000])),
    st.tuples(st.sampled_from(["write", "read"]), st.integers(0, 2), st.sampled_from([1, 300, 100_000])),
    st.tuples(st.sampled_from(["turn", "eof", "close", "abort"]), st.integers(0, 2), st.just(0)),
)


@given(acts=st.lists(_ACTS, max_size=40))
@settings(max_examples=150, deadline=None)
def test_whatever_is_done_each_peer_gets_its_own_in_order(acts: list[tuple[str, int, int]]) -> None:
    async def test() -> None:
        with scene() as stage:
            made = [answering(stage) for _ in range(3)]
            written, read = [bytearray() for _ in made], [bytearray() for _ in made]
            ended, aborted = set[int](), set[int]()
            for act, number, size in acts:
                connection, transport, peer = made[number]
                piece = bytes([65 + len(written[number]) % 26]) * size
                match act:
                    case "send" if number not in ended or number in aborted:
                        # Who aborts may still send in this turn, until he hears of it.
                        connection.send(piece)
                        written[number] += chunked.encode(piece)
                    case "write" if number not in ended:
                        transport.write(piece)
                        written[number] += piece
                    case "read":
                        with contextlib.suppress(BlockingIOError):
                            read[number] += peer.recv(size)
                    case "turn":
                        await turns(2)
                    case "eof" | "close" | "abort" if number not in ended:
                        if act == "abort":
                            aborted.add(number)  # what the socket does not take is lost
                        getattr(transport, {"eof": "write_eof"}.get(act, act))()
                        ended.add(number)
            for number, (_, transport, peer) in enumerate(made):
                transport.close()
                read[number] += await read_all(peer)
                if number in aborted:
                    assert written[number].startswith(read[number])
                else:
                    assert read[number] == written[number]
            await until(lambda: all(connection.lost for connection, _, _ in made))
            assert (stage.complaints, stage.poller.posted) == ([], [])

    run(test)
