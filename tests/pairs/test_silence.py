"""Providers that fall silent: a real 504 before the client's first byte, an error event and an abort after it. All
kinds of silence at once, on one connection where the version allows it."""

from __future__ import annotations

from tests.pairs.pair import TIMED, Pair, over
from tests.robustness.peers import CHAT, DIALECTS, refused
from tests.robustness.test_errors_midstream import _check_error, _events

_BEAT = b":\n"


@TIMED
def test_silence_before_the_first_byte_is_504(pair: Pair) -> None:
    relay = pair.relay_with(timeouts="head = 0.4\nfirst_event = 0.4\nheartbeat = 0")
    simulates = ["lie=stall", "lie=head-stall", "delay=60"]
    with pair.agent(relay) as agent:
        calls = [
            (agent.post(dialect.path, dialect.asked(stream=stream), simulate), dialect)
            for simulate in simulates
            for stream in (True, False)
            for dialect in DIALECTS
        ]
        for call, dialect in calls:
            refused(call.answer(), 504, dialect)
        pair.counts.wait(aborted=len(calls))
        assert agent.post(CHAT.path, CHAT.asked(stream=False)).answer().status == 200
    if pair.upstream == "2":
        stats = pair.stats()
        # Each is cancelled by itself.
        assert stats["resets_received"]["CANCEL"] == len(calls)
        assert stats["http2_errors"]["count"] == 0
        assert stats["http2_connections"]["opened"] <= 2


@TIMED
def test_connection_whose_head_never_ends_is_not_used_again(pair: Pair) -> None:
    """Its bytes keep coming, and behind them nothing else can come: not on this connection, whatever its version."""
    relay = pair.make_relay(timeouts="head = 0.4")
    with pair.agent(relay) as agent:
        refused(agent.post(CHAT.path, CHAT.asked(stream=True), "lie=slow-head; interval=200ms").answer(), 504)
        answer = agent.post(CHAT.path, CHAT.asked(stream=True), "events=2; interval=0").answer()
        assert (answer.status, answer.clean) == (200, True)
    relay.stop()


@TIMED
def test_silence_in_the_middle_ends_in_one_error_event_and_an_abort(pair: Pair) -> None:
    relay = pair.hasty
    with pair.agent(relay) as agent:
        healthy = agent.post(CHAT.path, CHAT.asked(stream=True), "events=4; interval=200ms")
        calls = [
            agent.post(
                dialect.path,
                dialect.asked(stream=True),
                "lie=mid-stall; at=3; events=8; interval=0",
                {"X-Request-Id": f"silent-{dialect.name}"},
            )
            for dialect in DIALECTS
        ]
        plain = agent.post(CHAT.path, CHAT.asked(stream=False), "lie=mid-stall; events=40")
        for call, dialect in zip(calls, DIALECTS, strict=True):
            answer = call.answer()
            pair.broken_off(answer)
            assert answer.status == 200
            _check_error(dialect, _events(b"".join(piece for piece in answer.chunks if piece != _BEAT)))
            line = pair.line(relay, f"silent-{dialect.name}")
            assert (line["status"], line["reason"], line["error"]) == (200, "upstream_timeout", "upstream_timeout")
        answer = plain.answer()
        # Its head leaves with its first bytes, which may just not have come.
        assert answer.status == 504 or not answer.clean
        # One that goes on is never silent, and loses nothing by the others.
        answer = healthy.answer()
        assert answer.clean
        assert b"".join(piece for piece in answer.chunks if piece != _BEAT).endswith(CHAT.terminal)
    pair.counts.wait(aborted=len(calls) + 1)


@TIMED
def test_heartbeat_resets_no_timeout(pair: Pair) -> None:
    relay = pair.hasty
    with pair.agent(relay) as agent:
        simulates = ("lie=head-stall", "first=60")
        calls = [agent.post(CHAT.path, CHAT.asked(stream=True), simulate) for simulate in simulates]
        for call in calls:
            answer = call.answer()
            assert answer.chunks.count(_BEAT) >= 1
            pair.broken_off(answer)
    pair.counts.wait(aborted=2)


@TIMED
def test_whole_exchange_has_a_limit_too(pair: Pair) -> None:
    relay = pair.relay_with(timeouts="total = 0.4")
    with pair.agent(relay) as agent:
        waiting = [agent.post(CHAT.path, CHAT.asked(stream=stream), "delay=60") for stream in (True, False)]
        begun = agent.post(CHAT.path, CHAT.asked(stream=True), "events=10000; interval=20ms")
        for call in waiting:
            refused(call.answer(), 504)
        answer = begun.answer()
        pair.broken_off(answer)
        _check_error(CHAT, _events(answer.body))
    pair.counts.wait(aborted=3)


@over("1-2", "2-2", without=("1-2-tls", "2-2-tls"))
def test_provider_that_does_not_answer_a_ping_is_given_up(pair: Pair) -> None:
    """HTTP/2: a connection that is dead takes its streams along, and the next request gets a live one."""
    relay = pair.relay_with(timeouts='ping = "200ms"\npong = "200ms"')
    with pair.agent(relay) as agent:
        deaf = agent.post(CHAT.path, CHAT.asked(stream=True), "lie=deaf; at=3; events=8; interval=0")
        deaf.wait_for(b"\n\n")
        waiting = agent.post(CHAT.path, CHAT.asked(stream=True), "delay=60")
        answer = deaf.answer()
        pair.broken_off(answer)
        _check_error(CHAT, _events(answer.body))
        refused(waiting.answer(), 504)
        assert agent.post(CHAT.path, CHAT.asked(stream=False)).answer().status == 200
        # One that answers is asked again and again, and kept.
        silent = agent.post(CHAT.path, CHAT.asked(stream=True), "events=8; interval=300ms")
        assert silent.answer().clean
    assert pair.stats()["pings_received"] >= 1
