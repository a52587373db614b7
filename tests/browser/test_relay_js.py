"""relay.js in Node: what its head promises, against the real relay and over connections that are cut."""

from __future__ import annotations

import base64
from random import Random
from typing import Any

import pytest

from tests.browser.conftest import Node, stepping
from tests.browser.cutter import Cutter
from tests.browser.telling import PATHS, told
from tests.conftest import RelayMaker
from tests.programs import Provider, Relay

_EVENTS = 120
# Events of the stream beside those with text: how each dialect begins, and how it ends.
_AROUND = {"chat": 3, "completions": 2, "responses": 8, "messages": 6}


def _assert_whole(heard: dict[str, Any], text: str, count: int) -> None:
    assert "error" not in heard, heard["error"]
    assert heard["whole"]
    assert heard["state"] == "done"
    assert heard["numbers"] == list(range(1, count + 1))
    assert heard["text"] == text


@pytest.mark.parametrize("dialect", PATHS)
def test_every_dialect_comes_whole(node: Node, relay: Relay, counted: Provider, dialect: str) -> None:
    simulate = f"seed=5; events={_EVENTS}; interval=0; split=3"
    heard = node("all", url=relay.url + PATHS[dialect], simulate=simulate)
    _assert_whole(heard, told(counted, simulate), _EVENTS + _AROUND[dialect])
    assert heard["changes"] == ["connecting", "open", "done"]


@pytest.mark.parametrize("ends", ["", "crlf=1", "cr=1"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("seed", range(4))
def test_text_is_whole_after_cuts_at_any_byte(
    node: Node, relay: Relay, counted: Provider, seed: int, ends: str
) -> None:
    """And the provider was asked once, whether the first cuts left a head of the answer or not."""
    simulate = f"seed={seed}; events={_EVENTS}; interval=0; split={seed}; {ends}"
    text = told(counted, simulate)
    counted.reset()
    random = Random(seed)
    cuts = [random.randrange(2500) for _ in range(30)]
    with Cutter(relay.address, cuts) as cutter:
        heard = node("all", url=cutter.url + PATHS["chat"], simulate=simulate)
        assert cutter.made >= 20
    _assert_whole(heard, text, _EVENTS + _AROUND["chat"])
    assert heard["changes"].count("dropped") >= 20
    assert counted.stats()["opened"] == 1


def test_lost_head_is_asked_for_again_and_not_paid_twice(node: Node, relay: Relay, counted: Provider) -> None:
    simulate = "events=20; interval=0"
    with Cutter(relay.address, [0, 0, 12]) as cutter:
        heard = node("all", url=cutter.url + PATHS["chat"], simulate=simulate)
        assert cutter.made == 3
    assert counted.stats()["opened"] == 1
    _assert_whole(heard, told(counted, simulate), 23)


def test_what_came_while_it_was_cut_off_is_there(relay: Relay, counted: Provider) -> None:
    simulate = "events=50; interval=5ms"
    with stepping("cut", url=relay.url + PATHS["messages"], simulate=simulate, at=5) as reader:
        reader.until("cut")
        counted.wait(finished=1)
        heard = reader.go_on()
    _assert_whole(heard, told(counted, simulate), 56)
    assert heard["changes"] == ["connecting", "open", "dropped", "connecting", "open", "done"]


def test_cancel_frees_the_provider_and_is_no_whole_answer(node: Node, relay: Relay, counted: Provider) -> None:
    simulate = "events=100000; interval=1ms"
    heard = node("cancel", url=relay.url + PATHS["chat"], simulate=simulate, at=4)
    assert counted.wait(aborted=1)["finished"] == 0
    assert "whole" not in heard
    assert heard["error"]["code"] == heard["state"] == heard["changes"][-1] == "cancelled"
    assert heard["numbers"] == [1, 2, 3, 4]
    assert heard["status"]["state"] == "cancelled"
    assert heard["again"] == heard["status"] | {"readers": heard["again"]["readers"]}


def test_whoever_reads_a_stream_that_another_cancels_is_told(node: Node, relay: Relay, counted: Provider) -> None:
    heard = node("elsewhere", url=relay.url + PATHS["chat"], simulate="events=100000; interval=1ms", at=4)
    assert counted.wait(aborted=1)["finished"] == 0
    assert "whole" not in heard
    assert (heard["error"]["status"], heard["error"]["code"]) == (410, "cancelled")
    assert heard["state"] == "cancelled"


@pytest.mark.parametrize(
    ("dialect", "lie", "code"),
    [
        *((dialect, "cut", "upstream_cut") for dialect in PATHS),
        # (To responses an error is an end like others: response.failed.)
        *((dialect, "error", "upstream_reported") for dialect in PATHS if dialect != "responses"),
    ],
)
def test_broken_provider_is_an_error_behind_all_that_came(
    node: Node, relay: Relay, counted: Provider, dialect: str, lie: str, code: str
) -> None:
    heard = node("all", url=relay.url + PATHS[dialect], simulate=f"events=50; interval=0; lie={lie}; at=9")
    assert "whole" not in heard
    assert (heard["error"]["name"], heard["error"]["status"], heard["error"]["code"]) == ("RelayError", 410, code)
    assert heard["state"] == heard["changes"][-1] == "failed"
    assert heard["text"]
    assert told(counted, "events=50").startswith(heard["text"])
    assert heard["numbers"] == list(range(1, len(heard["numbers"]) + 1))
    # The provider's own word is one of its events; the relay's has no number.
    assert len(heard["unnumbered"]) == (lie == "cut")


def test_error_status_is_the_error(node: Node, relay: Relay, counted: Provider) -> None:
    heard = node("all", url=relay.url + PATHS["chat"], simulate="status=401")
    assert heard["error"]["status"] == 401
    assert "simulated 401" in heard["error"]["message"]
    assert heard["changes"] == ["connecting", "failed"]
    assert counted.stats()["requests"] == 1


def test_late_readers_get_what_they_lack(node: Node, relay: Relay, counted: Provider) -> None:
    simulate = "events=60; interval=5ms"
    heard = node("late", url=relay.url + PATHS["chat"], simulate=simulate, at=20)
    text = told(counted, simulate)
    _assert_whole(heard["first"], text, 63)
    late = {str(after): one for after, one in heard["late"]}
    _assert_whole(late["0"], text, 63)
    for after in ("1", "20"):
        assert late[after]["whole"]
        assert late[after]["numbers"] == list(range(int(after) + 1, 64))
    latest = late["latest"]["numbers"]
    assert late["latest"]["whole"]
    assert latest[0] >= 20
    assert latest == list(range(latest[0], 64))
    assert text.endswith(late["latest"]["text"])
    assert heard["end"]["whole"]
    assert heard["end"]["numbers"] == []


def test_what_cannot_be_read_is_said(node: Node, relay: Relay) -> None:
    url = relay.url + PATHS["chat"]
    known = node("all", url=url, simulate="events=5; interval=0")["id"]
    asked = [("unknown", "A" * 22, 0), ("ahead", known, 99)]
    heard = node("refused", url=url, asked=asked)
    assert heard["unknown"]["error"]["status"] == 404
    assert heard["ahead"]["error"]["status"] == 409
    assert heard["unknown"]["error"]["code"] == "not_found"


def test_retry_after_is_waited_for(node: Node, make_relay: RelayMaker, counted: Provider) -> None:
    relay = make_relay(upstream_extra="max_connections = 1", timeouts='queue = "100ms"')
    simulate = "events=100000; interval=1ms"
    heard = node("full", url=relay.url + PATHS["chat"], simulate=simulate, options={"onDisconnect": "cancel"})
    assert heard["delays"]
    assert all(delay >= 1000 for delay in heard["delays"])
    assert counted.stats()["opened"] == 2


def _slow(relay: Relay, provider: Provider, simulate: str, overflow: str) -> dict[str, Any]:
    """What a reader heard who did not read while the provider said all but the first two events."""
    options = {"overflow": overflow}
    with stepping("slow", url=relay.url + PATHS["chat"], simulate=simulate, at=2, options=options) as reader:
        reader.until("waiting")
        provider.wait(finished=1)
        heard = reader.go_on()
    assert "error" not in heard, heard["error"]
    assert heard["whole"]
    return heard


def test_what_waits_for_a_slow_reader_may_be_merged(relay: Relay, counted: Provider) -> None:
    """It is little enough for that, unless the sockets took it all."""
    simulate = "events=1500; interval=0; size=500"
    heard = _slow(relay, counted, simulate, "merge")
    assert heard["text"] == told(counted, simulate)
    assert heard["numbers"] == sorted(set(heard["numbers"]))
    assert heard["numbers"][-1] == 1503


@pytest.mark.parametrize("overflow", ["merge", "disconnect"])
def test_slow_reader_that_is_sent_away_comes_again(make_relay: RelayMaker, counted: Provider, overflow: str) -> None:
    """Twice as much as sockets hold, and less than the relay keeps."""
    relay = make_relay(limits='[retention]\nstream = "64MiB"')
    simulate = "events=300; interval=0; size=64000"
    heard = _slow(relay, counted, simulate, overflow)
    assert "dropped" in heard["changes"]
    assert heard["text"] == told(counted, simulate)
    assert heard["numbers"][-1] == 303


def test_dropped_events_are_said_and_nothing_else_is_missing(relay: Relay, counted: Provider) -> None:
    heard = _slow(relay, counted, "events=300; interval=0; size=64000", "drop")
    assert heard["gaps"]
    dropped = [number for first, last in heard["gaps"] for number in range(first, last + 1)]
    assert sorted(heard["numbers"] + dropped) == list(range(1, 304))


# What no real relay says


def _events(*numbers: int, text: str = "word ") -> str:
    return "".join(
        f'id: s-{number}\ndata: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n' for number in numbers
    )


def _end(number: int) -> str:
    return f"id: s-{number}\ndata: [DONE]\n\n"


def test_repeated_events_are_left_out(node: Node) -> None:
    answers = [{"body": _events(1, 2, 3)}, {"body": _events(2, 3, 4, 4, 1) + _end(5), "whole": True}]
    heard = node("scripted", answers=answers)
    assert heard["whole"]
    assert heard["numbers"] == [1, 2, 3, 4, 5]
    assert heard["asked"][1]["headers"]["last-event-id"] == "s-3"


@pytest.mark.parametrize("overflow", ["merge", "disconnect", None])
def test_hole_is_an_error(node: Node, overflow: str | None) -> None:
    """Where deltas may be merged, one of them may stand for those before it; nothing else may."""
    options = {} if overflow is None else {"overflow": overflow}
    merged = node("scripted", answers=[{"body": _events(1, 4) + _end(5), "whole": True}], options=options)
    hole = node("scripted", answers=[{"body": _events(1, 2) + _end(4), "whole": True}], options=options)
    assert ("whole" in merged) == (overflow != "disconnect")
    assert "whole" not in hole
    assert hole["error"]["code"] == "hole"
    assert hole["numbers"] == [1, 2]


def test_gap_closes_only_what_it_names(node: Node) -> None:
    gap = 'event: relay.gap\ndata: {"first":2,"last":4}\n\n'
    told_of = _events(1) + gap + _events(5) + _end(6)
    wrong = _events(1) + gap + _events(7) + _end(8)
    options = {"overflow": "drop"}
    heard = node("scripted", answers=[{"body": told_of, "whole": True}], options=options)
    assert heard["whole"]
    assert (heard["numbers"], heard["gaps"]) == ([1, 5, 6], [[2, 4]])
    heard = node("scripted", answers=[{"body": wrong, "whole": True}], options=options)
    assert heard["error"]["code"] == "hole"


def test_gateway_that_finds_nobody_home_is_asked_again(node: Node) -> None:
    html = {"Content-Type": "text/html"}
    answers = [
        {"body": _events(1)},
        {"status": 502, "fields": html, "body": "<html>", "whole": True},
        {"status": 503, "fields": {"Retry-After": "0"}, "body": '{"error":{"code":"draining"}}', "whole": True},
        {"body": _events(2) + _end(3), "whole": True},
    ]
    heard = node("scripted", answers=answers)
    assert heard["whole"]
    assert heard["numbers"] == [1, 2, 3]
    assert heard["changes"].count("dropped") == 3


@pytest.mark.parametrize("status", [400, 404, 409, 410, 500, 502, 503, 504])
def test_relay_that_says_no_is_believed(node: Node, status: int) -> None:
    body = '{"error":{"message":"no","type":"t","param":null,"code":"its_code"}}'
    answers = [{"body": _events(1)}, {"status": status, "body": body, "whole": True}]
    heard = node("scripted", answers=answers, last={"status": 204, "whole": True})
    assert "whole" not in heard
    error = heard["error"]
    assert (error["status"], error["code"], error["message"]) == (status, "its_code", "no")
    assert len(heard["asked"]) == 2


@pytest.mark.parametrize("after", ["3600", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_nobody_is_waited_for_all_day(node: Node, after: str) -> None:
    answer = {"status": 503, "fields": {"Retry-After": after}, "body": "{}", "whole": True}
    heard = node("scripted", answers=[answer])
    assert heard["error"]["status"] == 503
    assert len(heard["asked"]) == 1


def test_no_progress_is_given_up(node: Node) -> None:
    """Ten tries; those before the last event do not count."""
    nothing = {"body": ":\n"}
    answers = [*[nothing] * 9, {"body": _events(1)}]
    heard = node("scripted", answers=answers, last=nothing)
    assert heard["error"]["code"] == "unreachable"
    assert heard["numbers"] == [1]
    assert len(heard["asked"]) == 20
    assert len({one["headers"]["idempotency-key"] for one in heard["asked"] if one["method"] == "POST"}) == 1


def test_without_a_network_a_relay_that_is_there_is_found_and_no_try_counts(node: Node) -> None:
    """As on a laptop in a train, whose relay runs on the laptop."""
    nothing = {"body": ":\n"}
    answers = [{"body": _events(1)}, *[nothing] * 12]
    rest = {"body": _events(2) + _end(3), "whole": True}
    heard = node("scripted", answers=answers, last=rest, offline=True, options={"silence": 0})
    assert heard["whole"]
    assert heard["numbers"] == [1, 2, 3]


def test_silent_connection_is_dead(node: Node) -> None:
    rest = {"body": _events(2) + _end(3), "whole": True}
    heard = node("scripted", answers=[{"body": _events(1), "hangs": True}], last=rest, options={"silence": 100})
    assert heard["whole"]
    assert heard["numbers"] == [1, 2, 3]


def test_events_without_numbers_cannot_be_resumed(node: Node) -> None:
    heard = node("scripted", answers=[{"body": "data: 1\n\n"}], last={"body": "data: 1\n\n"})
    assert heard["error"]["code"] == "not_resumable"
    assert heard["unnumbered"] == ["1"]


def test_answer_that_is_no_stream_is_an_error(node: Node) -> None:
    heard = node("scripted", answers=[{"fields": {"Content-Type": "application/json"}, "body": "{}", "whole": True}])
    assert (heard["error"]["status"], heard["error"]["code"]) == (200, "not_a_stream")


def test_wishes_are_said_as_the_relay_reads_them(node: Node) -> None:
    options = {"overflow": "drop", "flush": 20, "onDisconnect": "cancel-after=5", "placeholder": True}
    waiting = "event: relay.waiting\ndata: {}\n\n"
    answers = [{"body": waiting + _events(1)}, {"body": _end(2), "whole": True}]
    heard = node("scripted", answers=answers, options={**options, "headers": {"Authorization": "Bearer key"}})
    assert heard["whole"]
    assert heard["numbers"] == [1, 2]
    assert heard["changes"][:4] == ["connecting", "open", "waiting", "open"]
    post, get = (one["headers"] for one in heard["asked"])
    for asked in (post, get):
        assert (asked["relay-overflow"], asked["relay-flush"]) == ("drop", "20ms")
        assert (asked["accept"], asked["authorization"]) == ("text/event-stream", "Bearer key")
    assert (post["relay-resumable"], post["relay-placeholder"]) == ("1", "1")
    assert post["relay-on-disconnect"] == "cancel-after=5"
    assert "relay-on-disconnect" not in get


# The event stream format

_FORMAT = (
    "\ufeff: a comment\r\n:\n\nid: a-1\r\ndata: x\r\ndata:  y\r\r\nevent: e\rdata\r\rdata: 🌍é\nid: b\0c\n\n"
    "id\ndata: z\n\nretry: 3\n\ndata:\n\nother: 1\nid: q\n\ndata: last\r\n\r\ndata: never ended\n"
)


def test_format_is_read_as_its_standard_says_however_it_is_cut(node: Node) -> None:
    """WHATWG HTML, 9.2.6: three line ends, a BOM, comments, several lines of data, ids that last, one with NUL, blocks
    without data, a block without an end."""
    heard = node("parser", bytes=base64.b64encode(_FORMAT.encode()).decode())
    names = ("event", "data", "id", "lastEventId")
    assert [tuple(event[name] for name in names) for event in heard["whole"]] == [
        ("message", "x\n y", "a-1", "a-1"),
        ("e", "", None, "a-1"),
        ("message", "🌍é", None, "a-1"),
        ("message", "z", "", ""),
        ("message", "", None, ""),
        ("message", "last", None, "q"),
    ]
    assert heard["wrong"] == []
    assert heard["single"]


@pytest.mark.parametrize("piece", ["data: no end of the line ", "data: no end of the event\n", ": no end of it "])
def test_endless_event_is_given_up(node: Node, piece: str) -> None:
    heard = node("long", piece=piece)
    assert heard["code"] == "event_too_long"
    assert heard["taken"] < 2000
