"""What the relay itself puts into a stream: a placeholder for who asks for one, once; heartbeats, between events alone.
Neither has an id, is kept, or is counted."""

from __future__ import annotations

import json

from tests.pairs.calls import Outcome
from tests.robustness.peers import CHAT, DIALECTS
from tests.streams.ground import (
    AS_EVENTS,
    DEFERRED,
    FOUR,
    SCRIPTED,
    STALLS,
    Ground,
    becomes,
    begin,
    cancel,
    defer,
    poll,
    read,
    read_by,
    refusal,
    state,
    stream_id_of,
    whole,
)
from tests.streams.heard import Heard, hear, plain
from tests.streams.script import DONE, Script, delta

_ASKED = {"Relay-Placeholder": "1"}
_PROMPT = "placeholder = 0.1"
_BEATS = "heartbeat = 0.12"


def _waited(answer: Outcome, times: int = 1) -> Heard:
    """A whole answer with so many placeholders, all before the first event."""
    assert (answer.status, answer.clean) == (200, True), answer.body[:300]
    heard = hear(answer.body)
    assert [event.name for event in heard.own] == ["relay.waiting"] * times
    for event in heard.own:
        said = json.loads(event.data)
        assert said["id"] == answer.headers["relay-stream-id"]
        assert said["waited_ms"] >= 100
    if times and heard.events:
        assert answer.body.index(b"relay.waiting") < answer.body.index(b"\nid: ")
    return heard


@SCRIPTED
def test_placeholder_comes_once_before_a_first_token_that_takes_its_time(ground: Ground) -> None:
    with Script() as script, ground.source() as source:
        relay = ground.make_relay(url=script.url, timeouts=f"{_PROMPT}\n{_BEATS}")
        with ground.agent(relay) as agent:
            for dialect in DIALECTS:
                told = source.post(dialect.path, dialect.asked(stream=True), "events=5; interval=0").answer().body
                call = begin(agent, "", dialect, **_ASKED)
                call.wait_for(b"relay.waiting")
                # No second one comes, however long it takes.
                for _ in range(2):
                    call.wait_for(b":\n")
                script.tell(told)
                script.end()
                heard = _waited(call.answer())
                assert heard.said == plain(told)
                # It is nobody else's, and in no count.
                again = read(agent, heard.stream_id, **_ASKED).answer()
                assert _waited(again, 0).said == plain(told)
                assert state(agent, heard.stream_id)["events"] == len(plain(told))


@FOUR
def test_reader_of_a_stream_that_still_waits_gets_one_of_his_own(ground: Ground) -> None:
    """Also before the provider's head; and only those who ask."""
    relay = ground.relay_with(timeouts=_PROMPT)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        for simulate in ("delay=60", "first=60"):
            stream_id = defer(agent, simulate)
            without = read(agent, stream_id)
            calls = [read(reader, stream_id, **_ASKED) for reader in (agent, other, other)]
            for call in calls:
                call.wait_for(b"relay.waiting")
            cancel(other, stream_id)
            for call in calls:
                answer = call.answer()
                ground.broken_off(answer)
                waiting, error = hear(answer.body).own
                assert waiting.name == "relay.waiting"
                assert json.loads(error.data)["error"]["code"] == "cancelled"
            refusal(without.answer(), 410, "cancelled")


def test_token_that_is_faster_needs_no_placeholder(ground: Ground) -> None:
    for timeouts in ("placeholder = 5", "placeholder = 0"):
        with ground.agent(ground.relay_with(timeouts=timeouts)) as agent:
            _waited(begin(agent, "first=200ms; events=5; interval=0", **_ASKED).answer(), 0)


def test_placeholder_does_not_come_between_tokens(ground: Ground) -> None:
    with ground.agent(ground.relay_with(timeouts=_PROMPT)) as agent:
        call = begin(agent, "events=3; interval=300ms", **_ASKED)
        stream_id = stream_id_of(call)
        late = read(agent, stream_id, "latest", **_ASKED)
        assert not hear(late.answer().body).own
        whole(call.answer())


@SCRIPTED
def test_transparent_stream_gets_one_where_it_is_asked_for(ground: Ground) -> None:
    told = delta("a") + DONE
    for headers in (_ASKED, {}):
        with Script() as script, ground.agent(ground.make_relay(url=script.url, timeouts=_PROMPT)) as agent:
            call = agent.post(CHAT.path, CHAT.asked(stream=True), "", headers)
            script.asked()
            if headers:
                call.wait_for(b"relay.waiting")
            script.tell(told)
            script.end()
            answer = call.answer()
            assert answer.body.endswith(told)
            own = plain(answer.body.removesuffix(told))
            assert [name for name, _ in own] == (["relay.waiting"] if headers else [])
            if own:
                assert json.loads(own[0][1])["id"] == answer.headers["relay-stream-id"]


@SCRIPTED
def test_placeholder_does_not_come_inside_an_event(ground: Ground) -> None:
    """Of a transparent stream an event that is too long to be held is passed on in pieces."""
    long = b"data: " + b"x" * 3000
    with Script(long) as script:
        relay = ground.make_relay(url=script.url, timeouts=f"{_PROMPT}\n{_BEATS}\nidle = 0.5", limits="event = 1024")
        with ground.agent(relay) as agent:
            answer = agent.post(CHAT.path, CHAT.asked(stream=True), "", _ASKED).answer()
            ground.broken_off(answer)
            assert len(answer.body) > 2000
            assert long.startswith(answer.body)


@SCRIPTED
def test_providers_error_behind_a_placeholder_is_no_clean_end(ground: Ground) -> None:
    with Script(head=False) as script:
        relay = ground.make_relay(url=script.url, timeouts=_PROMPT)
        with ground.agent(relay) as agent:
            stream_id = defer(agent, "")
            script.asked()
            waiting = read(agent, stream_id, **_ASKED)
            waiting.wait_for(b"relay.waiting")
            script.say(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")
            answer = waiting.answer()
            ground.broken_off(answer)
            assert plain(answer.body)[-1][0] != "relay.waiting"
            assert read(agent, stream_id).answer().status == 429


def test_error_after_the_provider_s_head_and_a_placeholder(ground: Ground) -> None:
    with ground.agent(ground.relay_with(timeouts=f"{_PROMPT}\nfirst_event = 0.5")) as agent:
        answer = begin(agent, "first=60", **_ASKED).answer()
        ground.broken_off(answer)
        waiting, error = hear(answer.body).own
        assert waiting.name == "relay.waiting"
        assert json.loads(error.data)["error"]["code"] == "upstream_timeout"


def test_poller_gets_no_placeholder(ground: Ground) -> None:
    with ground.agent(ground.relay_with(timeouts=_PROMPT)) as agent:
        stream_id = defer(agent, "first=300ms; events=2; interval=0")
        answer = poll(agent, stream_id, wait="10s").answer()
        assert b"relay.waiting" not in answer.body
        assert json.loads(answer.body)["events"][0]["seq"] == 1


# Heartbeats


@FOUR
def test_heartbeats_come_while_the_provider_is_silent(ground: Ground) -> None:
    """To each reader, between events, and to nobody who comes later."""
    relay = ground.relay_with(timeouts=_BEATS)
    with ground.agent(relay) as agent, ground.agent(relay) as other:
        told = ground.told("events=3; interval=300ms")
        first = begin(agent, "events=3; interval=300ms")
        stream_id = stream_id_of(first)
        second = read(other, stream_id)
        for call in (first, second):
            heard = hear(call.answer().body)
            heard.tiles(1, len(told))
            assert heard.said == told
            assert heard.beats > 0
        late = whole(read(other, stream_id).answer())
        assert late.beats == 0
        assert late.said == told


def test_heartbeats_hold_nothing_and_are_in_no_count(ground: Ground) -> None:
    with ground.agent(ground.relay_with(timeouts=_BEATS)) as agent:
        call = begin(agent, STALLS)
        stream_id = stream_id_of(call)
        call.wait_for(b"-4\n\n")
        before = state(agent, stream_id)
        for _ in range(4):
            call.wait_for(b":\n")
        seen = state(agent, stream_id)
        assert (seen["events"], seen["tail"], seen["bytes"]) == (before["events"], before["tail"], before["bytes"])
        assert json.loads(poll(agent, stream_id, 4, wait="300ms").answer().body)["events"] == []
        cancel(agent, stream_id)
        heard = hear(call.answer().body)
        heard.tiles(1, 4)
        assert heard.beats >= 4


def test_heartbeat_is_one_line(ground: Ground) -> None:
    """An empty line behind it would end an event that never began: openai-python fails at that."""
    with ground.agent(ground.relay_with(timeouts=_BEATS)) as agent:
        call = begin(agent, STALLS)
        stream_id = stream_id_of(call)
        call.wait_for(b"-4\n\n")
        call.wait_for(b":\n:\n:\n")
        cancel(agent, stream_id)
        rest = call.answer().body.partition(b"-4\n\n")[2]
        assert rest.lstrip(b":\n").startswith(b"data: ")
        assert b"\n\n:" not in rest
        assert b":\n\n" not in rest.partition(b"data: ")[0]


def test_reader_of_a_stream_that_still_waits_gets_heartbeats(ground: Ground) -> None:
    with ground.agent(ground.relay_with(timeouts=_BEATS)) as agent:
        stream_id = defer(agent, "delay=500ms; events=3; interval=0")
        heard = hear(read(agent, stream_id).answer().body)
        assert heard.beats > 0
        heard.tiles(1)
        assert becomes(agent, stream_id, "finished")


@SCRIPTED
def test_heartbeat_off_is_off(ground: Ground) -> None:
    with Script(delta("a")) as script:
        relay = ground.make_relay(url=script.url, timeouts="heartbeat = 0")
        with ground.agent(relay) as agent:
            call = agent.post(CHAT.path, CHAT.asked(stream=True), "", {**DEFERRED})
            stream_id = call.answer().headers["relay-stream-id"]
            late = agent.ask(target=f"/v1/streams/{stream_id}", headers=AS_EVENTS)
            late.wait_for(b"-1\n\n")
            poll(agent, stream_id, 1, wait="400ms").answer()
            read_by(agent, stream_id, 1)
            script.tell(DONE)
            script.end()
            assert whole(late.answer(), last=2).beats == 0
            refusal(read(agent, stream_id, 3).answer(), 409, "ahead_of_stream")
