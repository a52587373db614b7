"""Whatever happens in any order: several streams, both ways, pauses, windows that open and shrink, resets on either
side, a socket that takes nothing. Bytes arrive as they were, in order; windows agree; nothing raises."""

from __future__ import annotations

from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire import flood, frames
from tests.net.pair2 import Both, Lane
from tests.wire.peer2 import ROLES, alive, may_send

NOISE = bytes(range(251)) * 400


class Story:
    """One connection, and what should have arrived."""

    def __init__(self, role: str) -> None:
        self.both = Both(role)
        self.peers: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.cancelled: set[int] = set()
        self.lowered = False
        self.updates = 0

    # What may happen. `number` says how much or how.

    def open(self, lane: Lane | None, number: int) -> None:
        both = self.both
        if len(both.lanes) < 6 and not both.connection.blocked:
            both.open()

    def relay_sends(self, lane: Lane | None, number: int) -> None:
        if lane is not None and not lane.finished and not lane.gone:
            at = len(lane.sent) % 251
            lane.send(NOISE[at : at + number + 1])

    def relay_ends(self, lane: Lane | None, number: int) -> None:
        if lane is not None and not lane.finished and not lane.gone and number % 4 == 0:
            lane.finish()

    def relay_cancels(self, lane: Lane | None, number: int) -> None:
        if lane is not None and not lane.gone and number % 4 == 0:
            self.cancelled.add(lane.stream_id)
            lane.cancel()

    def peer_sends(self, lane: Lane | None, number: int) -> None:
        peer = self.both.peer
        if lane is None or not may_send(peer, lane.stream_id):
            return
        padding = number % 256 if number % 3 == 0 else None
        overhead = 0 if padding is None else padding + 1
        window = min(peer.local_flow_control_window(lane.stream_id), 16_384) - overhead
        size = min(number % 20_000, window)
        if size > 0:
            body = self.peers.setdefault(lane.stream_id, bytearray())
            payload = NOISE[len(body) % 251 :][:size]
            peer.send_data(lane.stream_id, payload, pad_length=padding)
            body += payload

    def peer_ends(self, lane: Lane | None, number: int) -> None:
        if lane is not None and may_send(self.both.peer, lane.stream_id) and number % 4 == 0:
            self.ended.add(lane.stream_id)
            if number % 8:
                self.both.peer.end_stream(lane.stream_id)
            else:
                self.both.peer.send_headers(lane.stream_id, [(b"x-sum", b"1")], end_stream=True)

    def peer_resets(self, lane: Lane | None, number: int) -> None:
        if lane is not None and lane.stream_id in dict(alive(self.both.peer)) and number % 4 == 0:
            self.cancelled.add(lane.stream_id)
            self.both.peer.reset_stream(lane.stream_id, frames.CANCEL)

    def peer_opens_a_window(self, lane: Lane | None, number: int) -> None:
        engine = self.both.connection.engine
        fair = flood.WINDOW_UPDATES_FREE + flood.WINDOW_UPDATES_PER_STREAM * engine.opened
        if self.updates >= fair + flood.WINDOW_UPDATES_PER_DATA * engine.data_sent:
            return
        self.updates += 1
        if number % 2 or lane is None or lane.stream_id not in dict(alive(self.both.peer)):
            self.both.peer.increment_flow_control_window(number + 1)
        else:
            self.both.peer.increment_flow_control_window(number + 1, lane.stream_id)

    def peer_changes_all_windows(self, lane: Lane | None, number: int) -> None:
        self.both.wheel.now += 1
        self.lowered = True
        self.both.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: number})

    def relay_pauses(self, lane: Lane | None, number: int) -> None:
        stream = None if lane is None else self.both.connection.open_streams.get(lane.stream_id)
        if stream is not None and not stream.gate.closed:
            stream.gate.hold()

    def relay_goes_on(self, lane: Lane | None, number: int) -> None:
        stream = None if lane is None else self.both.connection.open_streams.get(lane.stream_id)
        if stream is not None and stream.gate.closed:
            stream.gate.release()

    def socket_stops(self, lane: Lane | None, number: int) -> None:
        self.both.transport.room = False

    def socket_goes_on(self, lane: Lane | None, number: int) -> None:
        self.both.transport.room = True
        if self.both.connection.blocked:
            self.both.connection.resume_writing()

    def turn(self, lane: Lane | None, number: int) -> None:
        self.both.loop.turn()

    def peer_reads(self, lane: Lane | None, number: int) -> None:
        self.both.give()

    def relay_reads(self, lane: Lane | None, number: int) -> None:
        self.both.take([number + 1])

    def settle(self, lane: Lane | None, number: int) -> None:
        self.both.settle([number + 1] if number % 2 else None)

    # What must be so

    def check(self) -> None:
        both = self.both
        assert not both.complaints
        assert not both.transport.ends
        assert not both.connection.engine.over
        for lane in both.lanes:
            sent = self.peers.get(lane.stream_id, bytearray())
            assert sent.startswith(lane.sink.body)
            assert lane.sent.startswith(both.got.get(lane.stream_id, b""))
        h2 = both.connection.engine.h2
        assert h2.outbound_flow_control_window >= 0
        assert self.lowered or all(stream.outbound_flow_control_window >= 0 for _, stream in alive(h2))

    def check_settled(self) -> None:
        both = self.both
        if both.connection.blocked:
            return
        both.check()
        for lane in both.lanes:
            if not lane.gone and lane.stream_id not in self.cancelled:
                assert lane.sink.body == self.peers.get(lane.stream_id, b"")

    def end_well(self) -> None:
        """Everything is let go: what nobody has cancelled arrives whole."""
        both = self.both
        self.socket_goes_on(None, 0)
        both.settle()
        for lane in both.lanes:
            self.relay_goes_on(lane, 0)
            if not lane.gone and not lane.finished:
                lane.finish()
            both.settle()
        both.wheel.now += 1
        both.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30})
        both.peer.increment_flow_control_window(1 << 29)
        both.settle()
        for lane in both.lanes:
            if lane.stream_id in self.cancelled:
                continue
            if not lane.errors and both.over.get(lane.stream_id) == "ended":
                assert both.got.get(lane.stream_id, b"") == lane.sent
            assert lane.stream_id in both.over
            assert not lane.errors
            if lane.stream_id in self.ended and not lane.gone:
                assert lane.sink.body == self.peers.get(lane.stream_id, b"")
        self.check()


STEPS = [
    name
    for name in vars(Story)
    if name.startswith(("relay_", "peer_", "socket_")) or name in ("open", "turn", "settle")
] + ["relay_sends", "peer_sends", "open", "settle"]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(ROLES),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5), st.integers(0, 70_000)), min_size=20, max_size=100),
)
def test_anything(role: str, steps: list[tuple[str, int, int]]) -> None:
    story = Story(role)
    for name, which, number in [("open", 0, 0), ("open", 0, 0), *steps]:
        lanes = story.both.lanes
        getattr(story, name)(lanes[which % len(lanes)] if lanes else None, number)
        story.check()
        if name == "settle":
            story.check_settled()
    story.end_well()
