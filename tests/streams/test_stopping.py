"""Told to stop: readers of streams are served to the end of the drain, orphans hold nothing up, all of it ends in
time and with exit code 0."""

from __future__ import annotations

import json
import signal

from tests.programs import PATIENCE, Relay
from tests.streams.ground import (
    ENDLESS,
    FOUR,
    STALLS,
    Ground,
    begin,
    broken,
    defer,
    poll,
    read,
    refusal,
    stream_id_of,
    whole,
)


def _exit_code(relay: Relay) -> int:
    return relay.process.wait(timeout=PATIENCE)


@FOUR
def test_readers_are_served_to_the_end(ground: Ground) -> None:
    relay = ground.make_relay()
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        first = begin(agent, "events=25; interval=20ms")
        stream_id = stream_id_of(first)
        late = read(other, stream_id)
        late.wait_for(b"-2\n\n")
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining: 2 requests")
        for call in (first, late):
            whole(call.answer())
        assert agent.closed()
        assert other.closed()
    assert _exit_code(relay) == 0
    stats = ground.stats()
    assert (stats["finished"], stats["aborted"]) == (1, 0)


@FOUR
def test_orphans_and_what_is_kept_hold_nothing_up(ground: Ground) -> None:
    """Streams without a reader, and finished ones, go with the relay: their providers are let go."""
    relay = ground.make_relay(timeouts="drain = 3600")
    with ground.agent(relay) as agent:
        whole(begin(agent).answer())
        left = begin(agent, ENDLESS, Relay_On_Disconnect="continue")
        left.wait_for(b"-2\n\n")
        left.leave()
        defer(agent, ENDLESS)
        defer(agent, "delay=60")
        ground.counts.wait(requests=4)
    relay.send_signal(signal.SIGTERM)
    assert _exit_code(relay) == 0
    ground.counts.wait(aborted=3)
    reasons = [json.loads(line) for line in relay.output]
    lost = [line for line in reasons if line.get("generation") == "failed"]
    assert [line["reason"] for line in lost] == ["drained"] * 3


@FOUR
def test_drain_has_an_end_for_all_readers(ground: Ground) -> None:
    relay = ground.make_relay(timeouts="drain = 0.3")
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        first = begin(agent, ENDLESS)
        stream_id = stream_id_of(first)
        first.wait_for(b"-2\n\n")
        readers = [first, read(other, stream_id), read(other, stream_id, 1)]
        for reader in readers[1:]:
            reader.wait_for(b"-2\n\n")
        waiting = read(agent, defer(agent, "delay=60"))
        polling = poll(other, stream_id, "latest", wait="60s")
        silent = begin(agent, STALLS)
        silent.wait_for(b"-4\n\n")
        silently = poll(other, stream_id_of(silent), 4, wait="60s")
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("breaking off")
        for reader in (*readers, silent):
            broken(ground, reader.answer(), "draining")
        refusal(waiting.answer(), 503, "draining")
        # They are answered at the latest when their stream ends, or refused.
        for call in (polling, silently):
            assert call.answer().status in (200, 503)
    assert _exit_code(relay) == 0


def test_second_signal_ends_it_at_once(ground: Ground) -> None:
    relay = ground.make_relay(timeouts="drain = 3600")
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        first = begin(agent, ENDLESS)
        first.wait_for(b"-2\n\n")
        late = read(other, stream_id_of(first))
        late.wait_for(b"-2\n\n")
        waiting = poll(other, stream_id_of(first), "latest", wait="60s")
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("draining")
        relay.send_signal(signal.SIGINT)
        for reader in (first, late):
            broken(ground, reader.answer(), "draining")
        assert waiting.answer().status in (200, 503)
    assert _exit_code(relay) == 0


def test_poll_does_not_hold_the_end_up_beyond_the_drain(ground: Ground) -> None:
    relay = ground.make_relay(timeouts="drain = 0.3")
    with ground.agent(relay) as agent:
        stream_id = defer(agent, "first=60")
        call = poll(agent, stream_id, wait="60s")
        ground.counts.wait(requests=1)
        relay.send_signal(signal.SIGTERM)
        relay.wait_for("breaking off")
        assert call.answer().status in (200, 503)
    assert _exit_code(relay) == 0
