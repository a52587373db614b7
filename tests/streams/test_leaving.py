"""The last reader leaves: nothing for the grace, then the generation is cancelled; unless he comes back in time, or has
said otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.pairs.calls import Agent, Call
from tests.streams.ground import (
    ENDLESS,
    FOUR,
    Ground,
    becomes,
    begin,
    defer,
    over,
    poll,
    read,
    refusal,
    stream_id_of,
    whole,
)

_BRISK = 'orphan_grace = "300ms"'


def _cancel(agent: Agent, call: Call) -> None:
    call.leave()


def _close(agent: Agent, call: Call) -> None:
    agent.close()


def _reset(agent: Agent, call: Call) -> None:
    agent.reset()


_LEAVES: list[Callable[[Agent, Call], None]] = [_cancel, _close, _reset]
_WAYS = pytest.mark.parametrize("leave", _LEAVES, ids=["cancel", "fin", "rst"])


@FOUR
def test_last_reader_leaves_and_after_the_grace_it_is_cancelled(ground: Ground) -> None:
    relay = ground.relay_with(retention=_BRISK)
    ids = []
    for leave in _LEAVES:
        with ground.agent(relay) as agent:
            call = begin(agent, ENDLESS)
            ids.append(stream_id_of(call))
            call.wait_for(b"-3\n\n")
            leave(agent, call)
    # Who asks for its state is somebody who has not given it up: nobody asks before the end.
    ground.counts.wait(aborted=3)
    with ground.agent(relay) as other:
        for stream_id in ids:
            seen = becomes(other, stream_id, "cancelled")
            assert (seen["error"]["code"], seen["last_disconnect"], seen["readers"]) == ("orphaned", "client_left", 0)
            # What came so far stays readable.
            late = read(other, stream_id, 1).answer()
            assert late.status == 200
            ground.broken_off(late)
            assert late.headers["relay-last-disconnect"] == "client_left"
            refusal(read(other, stream_id, seen["tail"]).answer(), 410, "orphaned")
    if ground.upstream == "2":
        assert ground.stats()["resets_received"]["CANCEL"] == 3


@_WAYS
def test_reader_who_comes_back_in_time_lets_it_go_on(ground: Ground, leave: Callable[[Agent, Call], None]) -> None:
    with ground.agent() as agent, ground.agent() as other:
        call = begin(agent, "events=20; interval=10ms")
        stream_id = stream_id_of(call)
        call.wait_for(b"-3\n\n")
        leave(agent, call)
        whole(read(other, stream_id, 3).answer(), first=4)
    stats = ground.stats()
    assert (stats["requests"], stats["finished"], stats["aborted"]) == (1, 1, 0)


@over("1-2", "2-1")
def test_grace_is_over_when_he_is_back(ground: Ground) -> None:
    """However long it goes on then."""
    relay = ground.relay_with(retention='orphan_grace = "1500ms"')
    with ground.agent(relay) as agent:
        deferred = defer(agent, "events=90; interval=20ms")
        call = begin(agent, "events=90; interval=20ms")
        stream_id = stream_id_of(call)
        call.wait_for(b"-3\n\n")
        call.leave()
        calls = [read(agent, deferred), read(agent, stream_id)]
        for back in calls:
            whole(back.answer())
    stats = ground.stats()
    assert (stats["requests"], stats["finished"], stats["aborted"]) == (2, 2, 0)


def test_one_of_several_readers_leaves_and_nothing_happens(ground: Ground) -> None:
    relay = ground.relay_with(retention=_BRISK)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        first = begin(agent, "events=60; interval=10ms")
        stream_id = stream_id_of(first)
        second = read(other, stream_id)
        second.wait_for(b"-3\n\n")
        first.leave()
        whole(second.answer())
    stats = ground.stats()
    assert (stats["finished"], stats["aborted"]) == (1, 0)


@FOUR
def test_continue_goes_on_without_any_reader(ground: Ground) -> None:
    relay = ground.relay_with(retention=_BRISK)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        call = begin(agent, "events=60; interval=10ms", Relay_On_Disconnect="continue")
        stream_id = stream_id_of(call)
        call.wait_for(b"-3\n\n")
        call.leave()
        ground.counts.wait(finished=1)
        whole(read(other, stream_id).answer())
    assert ground.stats()["aborted"] == 0


def test_continue_goes_on_even_if_he_never_knew_its_name(ground: Ground, agent: Agent) -> None:
    call = begin(agent, "delay=300ms; events=5; interval=0", Relay_On_Disconnect="continue")
    ground.counts.wait(requests=1)
    call.leave()
    ground.counts.wait(finished=1)


@FOUR
@pytest.mark.parametrize("value", ["cancel", "cancel-after=0", "cancel-after=0.2", "Cancel-After=0.200"])
def test_cancel_ends_it_as_early_as_he_said(ground: Ground, agent: Agent, other: Agent, value: str) -> None:
    """The relay's own grace is half a minute."""
    call = begin(agent, ENDLESS, Relay_On_Disconnect=value)
    stream_id = stream_id_of(call)
    call.wait_for(b"-3\n\n")
    call.leave()
    ground.counts.wait(aborted=1)
    assert becomes(other, stream_id, "cancelled")["error"]["code"] == "orphaned"


def test_later_reader_may_say_otherwise(ground: Ground, agent: Agent, other: Agent) -> None:
    call = begin(agent, ENDLESS, Relay_On_Disconnect="continue")
    stream_id = stream_id_of(call)
    call.wait_for(b"-3\n\n")
    call.leave()
    late = read(other, stream_id, Relay_On_Disconnect="cancel")
    late.wait_for(b"-3\n\n")
    late.leave()
    ground.counts.wait(aborted=1)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "stop",
        "cancel-after",
        "cancel-after=",
        "cancel-after=soon",
        "cancel-after = 1",
        "continue; x",
        "cancel,cancel",
    ]
    + [f"cancel-after={number}" for number in ("-1", "1e3", "99999", "0x1")],
)
def test_malformed_wish_is_400(ground: Ground, agent: Agent, value: str) -> None:
    refusal(begin(agent, Relay_On_Disconnect=value).answer(), 400, "bad_request")
    assert ground.stats()["requests"] == 0


def test_orphan_goes_on_no_longer_than_orphans_are_kept(ground: Ground) -> None:
    relay = ground.relay_with(retention='orphan = "300ms"')
    with ground.agent(relay) as agent:
        call = begin(agent, ENDLESS, Relay_On_Disconnect="continue")
        call.wait_for(b"-3\n\n")
        call.leave()
        ground.counts.wait(aborted=1)


def test_one_who_polls_is_a_reader(ground: Ground) -> None:
    """For as long as he waits for an event, even beyond the grace."""
    with ground.agent(ground.relay_with(retention=_BRISK)) as agent:
        stream_id = defer(agent, "first=700ms; events=3; interval=0")
        answer = poll(agent, stream_id, wait="15s").answer()
        assert answer.status == 200
        assert b'"seq":1' in answer.body, answer.body
    assert ground.stats()["aborted"] == 0


def test_reader_that_leaves_before_the_head_has_left(ground: Ground, agent: Agent) -> None:
    """Without a key nobody knows its name: there is nobody to come back."""
    call = begin(agent, "delay=60")
    ground.counts.wait(requests=1)
    call.leave()
    ground.counts.wait(aborted=1)
