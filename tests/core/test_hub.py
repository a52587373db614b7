"""Streams are found by every name they have, until they go; and which go first when all together keep too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core.hub import OVERHEAD, Hub
from relay.core.log import EventLog


class Stream:
    """What the hub sees of one; it keeps a log of any size. `lacked`: the first event that a reader still lacks."""

    def __init__(self, stream_id: str, log: EventLog | None = None) -> None:
        self.stream_id = stream_id
        self.log = log
        self.lacked = 1 << 30
        self.removals = 0

    @property
    def weight(self) -> int:
        return self.log.kept if self.log is not None else 0

    def forget(self, *, all_of_it: bool) -> None:
        if self.log is not None:
            self.log.forget(self.log.tail if all_of_it else min(self.log.oldest, self.lacked - 1))

    def removed(self) -> None:
        self.removals += 1

    def grow(self, hub: Hub[Stream], size: int) -> None:
        assert self.log is not None
        self.log.append(b"x" * size)
        hub.looked(self)


def kept(hub: Hub[Stream], name: str, size: int = 0) -> Stream:
    """One more stream, that keeps so many bytes."""
    stream = Stream(name, EventLog(1 << 30))
    hub.add(stream)
    if size:
        stream.grow(hub, size)
    return stream


def names(hub: Hub[Stream]) -> list[str]:
    return [stream.stream_id for stream in hub]


# Names


def test_stream_is_found_by_its_id_until_it_is_removed() -> None:
    hub: Hub[Stream] = Hub(1 << 20)
    first, second = kept(hub, "a"), kept(hub, "b")
    assert (hub.find("a"), hub.find("b"), hub.find("c")) == (first, second, None)
    assert (names(hub), len(hub)) == (["a", "b"], 2)
    hub.remove(first)
    assert (hub.find("a"), names(hub), len(hub)) == (None, ["b"], 1)
    assert (first.removals, second.removals) == (1, 0)
    # Once more is as good as once.
    hub.remove(first)
    assert first.removals == 1


def test_first_to_have_a_name_keeps_it_and_takes_it_along() -> None:
    hub: Hub[Stream] = Hub(1 << 20)
    first, second = kept(hub, "a"), kept(hub, "b")
    hub.alias(("key", b"x"), first)
    hub.alias(("key", b"x"), second)
    hub.alias(("response", "x"), first)
    assert hub.known_as(("key", b"x")) is first
    assert hub.known_as(("response", "x")) is first
    assert hub.known_as(("x",)) is None
    hub.remove(first)
    assert hub.known_as(("key", b"x")) is None
    assert hub.known_as(("response", "x")) is None
    hub.alias(("key", b"x"), second)
    assert hub.known_as(("key", b"x")) is second


def test_who_has_gone_gets_no_name() -> None:
    hub: Hub[Stream] = Hub(1 << 20)
    stream = kept(hub, "a")
    hub.remove(stream)
    hub.alias(("key",), stream)
    hub.finished(stream)
    hub.looked(stream)
    assert hub.known_as(("key",)) is None
    assert hub.bytes == 0


def test_those_that_are_looked_through_may_go_meanwhile() -> None:
    hub: Hub[Stream] = Hub(1 << 20)
    for name in "abc":
        kept(hub, name)
    for stream in hub:
        hub.remove(stream)
    assert len(hub) == 0


# Room


def test_what_is_kept_is_counted_with_what_a_stream_costs_besides() -> None:
    hub: Hub[Stream] = Hub(1 << 20)
    stream = kept(hub, "a", 1000)
    assert hub.bytes == 1000 + OVERHEAD
    stream.grow(hub, 500)
    assert hub.bytes == 1500 + OVERHEAD
    other = Stream("b")
    hub.add(other)
    hub.finished(other)
    assert hub.bytes == 1500 + 2 * OVERHEAD
    hub.remove(stream)
    hub.remove(other)
    assert hub.bytes == 0


def test_finished_go_first_and_of_those_the_one_that_ended_first() -> None:
    hub: Hub[Stream] = Hub(5 * (1000 + OVERHEAD))
    running = kept(hub, "running", 1000)
    streams = [kept(hub, name, 1000) for name in "abcd"]
    for name in "cadb":
        hub.finished(next(stream for stream in streams if stream.stream_id == name))
    assert len(hub) == 5
    gone = []
    for number in range(4):
        kept(hub, f"new{number}", 1000)
        gone.append([name for name in "cadb" if hub.find(name) is None])
    assert gone == [["c"], ["c", "a"], ["c", "a", "d"], ["c", "a", "d", "b"]]
    assert hub.find("running") is running
    assert running.weight == 1000


def test_those_that_run_lose_only_what_can_be_replayed_the_largest_first() -> None:
    hub: Hub[Stream] = Hub(3 * OVERHEAD + 4000)
    streams = [kept(hub, name) for name in "abc"]
    for stream, events in zip(streams, (2, 10, 5), strict=True):
        for _ in range(events):
            stream.grow(hub, 200)
    assert [stream.weight for stream in streams] == [400, 2000, 1000]
    streams[2].grow(hub, 1000)
    # That was 400 too much: the largest loses its oldest, as much of it as makes another the largest, or room enough.
    assert [stream.weight for stream in streams] == [400, 1800, 1800]
    streams[0].grow(hub, 200)
    assert [stream.weight for stream in streams] == [600, 1600, 1800]
    assert names(hub) == ["a", "b", "c"]
    assert [stream.removals for stream in streams] == [0, 0, 0]


def test_what_a_reader_still_lacks_goes_last() -> None:
    hub: Hub[Stream] = Hub(2 * OVERHEAD + 3000)
    large, small = kept(hub, "large"), kept(hub, "small")
    for _ in range(10):
        large.grow(hub, 200)
    for _ in range(5):
        small.grow(hub, 200)
    large.lacked = 3
    large.grow(hub, 400)
    assert (large.weight, small.weight) == (2000, 1000)
    assert large.log is not None
    assert large.log.oldest == 3
    # There is no other way: all of it goes, and who lacked it is told.
    large.grow(hub, 2000)
    assert large.weight == 0
    assert hub.bytes <= 2 * OVERHEAD + 3000


def test_one_alone_is_not_larger_than_all_together() -> None:
    hub: Hub[Stream] = Hub(10_000)
    stream = kept(hub, "a")
    for _ in range(50):
        stream.grow(hub, 1000)
        assert hub.bytes <= 10_000
    assert hub.find("a") is stream


def test_one_that_finishes_above_the_limit_goes_at_once() -> None:
    hub: Hub[Stream] = Hub(1000)
    stream = kept(hub, "a")
    hub.alias(("key",), stream)
    hub.finished(stream)
    assert hub.find("a") is None
    assert hub.known_as(("key",)) is None
    assert (hub.bytes, stream.removals) == (0, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["grow", "finish", "remove", "alias"]), st.integers(0, 7), st.integers(1, 3000)),
        max_size=80,
    )
)
def test_count_is_the_sum_and_within_the_limit_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    limit = 8 * OVERHEAD + 8000
    hub: Hub[Stream] = Hub(limit)
    streams = [kept(hub, f"s{number}") for number in range(8)]
    ended: set[str] = set()
    for step, number, size in steps:
        stream = streams[number]
        if step == "grow" and stream.stream_id not in ended:
            stream.grow(hub, size)
        elif step == "finish":
            ended.add(stream.stream_id)
            hub.finished(stream)
        elif step == "remove":
            hub.remove(stream)
        elif step == "alias":
            hub.alias(("name", size), stream)
        assert hub.bytes <= limit
        assert hub.bytes == sum(hub._sizes.values())
        assert set(hub._sizes) <= {one.stream_id for one in hub}
        for one in streams:
            assert one.removals == (hub.find(one.stream_id) is None)
        for name, owner in hub._aliases.items():
            assert hub.known_as(name) is hub.find(owner.stream_id)
