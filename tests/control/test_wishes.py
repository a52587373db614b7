"""What a request asks of the relay: understood in every form that can be meant, refused in every other."""

from __future__ import annotations

import math

import pytest

from relay.control import wishes
from relay.control.wishes import NOTHING, Wishes
from relay.core.follower import Flush
from relay.errors import BadRequest
from relay.flow.overflow import MOST_EVENTS_HELD, Mode
from relay.wire.head import EMPTY, RequestHead
from relay.wire.http1 import parse_request


def read(*fields: str) -> Wishes:
    head = "".join(f"{field}\r\n" for field in ("POST / HTTP/1.1", "Host: relay", *fields))
    return wishes.read(parse_request(head.encode("latin-1") + b"\r\n"))


def refused(field: str) -> str:
    """What is said to it: names the field."""
    with pytest.raises(BadRequest) as caught:
        read(field)
    assert caught.value.status == 400
    assert caught.value.message.startswith(field.partition(":")[0])
    return caught.value.message


def test_who_asks_for_nothing_gets_nothing() -> None:
    assert read() is NOTHING
    assert read("Content-Type: application/json", "X-Relay: 1", "Accept: text/event-stream") is NOTHING
    assert read("Relay-Unknown: 1") == NOTHING
    assert Wishes(False, None, None, None, False, False, None, None) == NOTHING


def test_everything_at_once() -> None:
    said = read(
        "RELAY-RESUMABLE: 1",
        "relay-overflow: drop",
        "Relay-Flush: 8, 20ms",
        "Relay-On-Disconnect: cancel-after=5",
        "Relay-Placeholder: 1",
        "Prefer: respond-async",
        "Idempotency-Key: a key",
        "Last-Event-ID: x-1",
    )
    assert said == Wishes(True, Mode.DROP, Flush(8, 0.02), 5.0, True, True, b"a key", b"x-1")


@pytest.mark.parametrize("name", ["Relay-Resumable", "Relay-Placeholder"])
def test_switch_is_1_or_0(name: str) -> None:
    field = name.removeprefix("Relay-").lower()
    assert getattr(read(f"{name}: 1"), field) is True
    assert getattr(read(f"{name}: 0"), field) is False
    for value in ("", "2", "01", "true", "on", "yes", "1,0", "-1"):
        refused(f"{name}: {value}")


@pytest.mark.parametrize("mode", list(Mode))
def test_overflow_is_one_of_the_modes(mode: Mode) -> None:
    assert read(f"Relay-Overflow: {mode.value}").overflow is mode
    assert read(f"Relay-Overflow: {mode.value.upper()}").overflow is mode


@pytest.mark.parametrize("value", ["", "block", "merge, drop", "merge;x", "pau\u00dfe"])
def test_any_other_overflow_is_refused_and_told_which_there_are(value: str) -> None:
    message = refused(f"Relay-Overflow: {value}")
    assert all(mode.value in message for mode in Mode)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20ms", Flush(MOST_EVENTS_HELD, 0.02)),
        ("8", Flush(8, 0.1)),
        ("8, 20ms", Flush(8, 0.02)),
        ("8,20ms", Flush(8, 0.02)),
        ("8 ,  20ms", Flush(8, 0.02)),
        ("1", Flush()),
        ("0", Flush()),
        ("0ms", Flush()),
        ("1000", Flush(1000, 0.1)),
        ("5000ms", Flush(MOST_EVENTS_HELD, 5.0)),
        ("1s", Flush(MOST_EVENTS_HELD, 1.0)),
        ("8, 2s", Flush(8, 2.0)),
    ],
)
def test_flush_is_a_number_a_time_or_both(value: str, expected: Flush) -> None:
    assert read(f"Relay-Flush: {value}").flush == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", ",", "8,", ",20ms", "ms", "-1", "1.5ms", "20s", "20 ms", "8 20ms", "820msx", "8, 20ms, 3", "8;20ms"),
        *("5001ms", "1001", "9999ms", "99999", "\u00b2ms", "1e3ms", "20ms, 8"),
    ],
)
def test_any_other_flush_is_refused(value: str) -> None:
    refused(f"Relay-Flush: {value}")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("continue", math.inf),
        ("Continue", math.inf),
        ("cancel", 0.0),
        ("cancel-after=0", 0.0),
        ("cancel-after=5", 5.0),
        ("cancel-after=5s", 5.0),
        ("CANCEL-AFTER=0.25", 0.25),
        ("cancel-after=86400", 86400.0),
    ],
)
def test_grace_is_for_ever_or_so_many_seconds(value: str, seconds: float) -> None:
    assert read(f"Relay-On-Disconnect: {value}").grace == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", "stop", "continue=1", "cancel=1", "cancel, continue", "cancel-after", "cancel-after=", "cancel-after= 1"),
        *(
            f"cancel-after={number}"
            for number in ("-1", "1e3", "86401", "inf", "nan", "1ms", "1 s", "\u00b2", "1.2345", ".5")
        ),
    ],
)
def test_any_other_grace_is_refused(value: str) -> None:
    assert "cancel-after=SECONDS" in refused(f"Relay-On-Disconnect: {value}")


@pytest.mark.parametrize("value", ["respond-async", "wait=1, respond-async", "Respond-Async;a=b", "x,respond-async ,y"])
def test_preference_for_an_answer_elsewhere(value: str) -> None:
    assert read(f"Prefer: {value}").respond_async


@pytest.mark.parametrize("value", ["", "wait=1", "respond-asynchronously", "x-respond-async", "a;respond-async"])
def test_other_preferences_are_not_ours(value: str) -> None:
    assert not read(f"Prefer: {value}").respond_async


def test_key_is_kept_as_it_is_and_bounded() -> None:
    assert read("Idempotency-Key: \xff {}'").key == b"\xff {}'"
    assert read("Idempotency-Key: " + "k" * 255).key == b"k" * 255
    for value in ("", "k" * 256):
        refused(f"Idempotency-Key: {value}")


def test_empty_last_event_id_is_none() -> None:
    assert read("Last-Event-ID:").last_event_id is None
    assert read("Last-Event-ID: latest").last_event_id == b"latest"


def test_fields_are_understood_whatever_version_brought_them() -> None:
    fields = [(b"host", b"relay"), (b"relay-resumable", b"1"), (b"prefer", b"respond-async")]
    head = RequestHead(b"POST", b"/", fields, EMPTY, b"2", keep_alive=True, expects_continue=False)
    said = wishes.read(head)
    assert said.resumable
    assert said.respond_async
