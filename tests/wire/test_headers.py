"""Which fields cross the relay, in both directions."""

from __future__ import annotations

import pytest

from relay.wire import headers
from relay.wire.head import EMPTY, Headers, RequestHead, ResponseHead
from relay.wire.headers import Credential
from relay.wire.http1 import parse_request, parse_response

KEY = Credential(b"authorization", b"Bearer sk-ours")


def asked(*fields: bytes, line: bytes = b"POST /v1/x HTTP/1.1") -> RequestHead:
    return parse_request(b"\r\n".join([line, b"Host: relay.test", *fields, b"", b""]))


def upstream(
    request: RequestHead,
    *,
    credential: Credential | None = None,
    identity: bool = False,
    client: bytes | None = None,
    trusted: bool = False,
) -> Headers:
    return headers.to_upstream(
        request,
        authority=b"provider.test",
        request_id=b"id-1",
        credential=credential,
        identity=identity,
        client=client,
        forwarded=headers.forwarded_fields(request) if trusted else [],
    )


def answered(*fields: bytes, status: bytes = b"200 OK") -> ResponseHead:
    return parse_response(b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""]), b"POST")


def client(response: ResponseHead, *, event_stream: bool = False, cookies: bool = True) -> Headers:
    return headers.to_client(
        response, request_id=b"id-1", stream_id=b"stream-1", event_stream=event_stream, cookies=cookies
    )


def values(fields: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in fields if key == name]


def test_a_request_crosses_in_its_order_with_the_hops_own_fields_around_it() -> None:
    request = asked(
        b"Content-Type: application/json", b"User-Agent: sdk", b"Accept: */*", b"Authorization: Bearer theirs"
    )
    assert upstream(request) == [
        (b"host", b"provider.test"),
        (b"content-type", b"application/json"),
        (b"user-agent", b"sdk"),
        (b"accept", b"*/*"),
        (b"authorization", b"Bearer theirs"),
        (b"x-request-id", b"id-1"),
        (b"via", b"1.1 relay"),
        (b"content-length", b"0"),
    ]


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP - {b"transfer-encoding", b"connection"}))
def test_what_speaks_of_one_connection_stays_on_it(name: bytes) -> None:
    assert not values(upstream(asked(name + b": x")), name)
    assert not values(client(answered(name + b": x")), name)


def test_what_connection_names_stays_too() -> None:
    fields = upstream(
        asked(b"Connection: close, X-Hop", b"Connection: X-Other", b"X-Hop: 1", b"X-Other: 2", b"X-Kept: 3")
    )
    assert not [field for field in fields if field[0] in (b"connection", b"x-hop", b"x-other")]
    assert values(fields, b"x-kept") == [b"3"]
    fields = client(answered(b"Connection: x-hop", b"X-Hop: 1", b"X-Kept: 3"))
    assert not [field for field in fields if field[0] in (b"connection", b"x-hop")]
    assert values(fields, b"x-kept") == [b"3"]


@pytest.mark.parametrize("name", sorted(headers.CREDENTIALS))
def test_a_callers_credential_never_meets_a_key_of_ours(name: bytes) -> None:
    request = asked(name + b": theirs")
    assert values(upstream(request), name) == [b"theirs"]
    fields = upstream(request, credential=KEY)
    assert b"theirs" not in [value for _, value in fields]
    assert values(fields, b"authorization") == [b"Bearer sk-ours"]


def test_a_credential_cannot_be_shown() -> None:
    assert "ours" not in repr(KEY)
    assert "ours" not in str([KEY])


def test_identity_is_asked_for_where_events_are_looked_at() -> None:
    request = asked(b"Accept-Encoding: gzip, br")
    assert values(upstream(request), b"accept-encoding") == [b"gzip, br"]
    assert values(upstream(request, identity=True), b"accept-encoding") == [b"identity"]
    assert values(upstream(asked(), identity=True), b"accept-encoding") == [b"identity"]


def test_who_the_caller_is_comes_from_the_relay_or_trusted_networks_alone() -> None:
    request = asked(
        b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https", b"Forwarded: for=2.2.2.2", b"X-Real-IP: 3.3.3.3"
    )
    told = (b"x-forwarded-for", b"x-forwarded-proto", b"forwarded", b"x-real-ip", b"x-forwarded-host")
    assert not [field for field in upstream(request) if field[0] in told]
    assert [field for field in upstream(request, client=b"9.9.9.9") if field[0] in told] == [(told[0], b"9.9.9.9")]
    assert [field for field in upstream(request, client=b"9.9.9.9", trusted=True) if field[0] in told] == [
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-for", b"1.1.1.1, 9.9.9.9"),
    ]


def test_the_relays_own_fields_do_not_reach_the_provider() -> None:
    fields = upstream(
        asked(b"Relay-Resumable: 1", b"relay-flush: 20ms", b"Expect: 100-continue", b"X-Request-Id: theirs")
    )
    assert [name for name, _ in fields] == [b"host", b"x-request-id", b"via", b"content-length"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Content-Length: 7", (b"content-length", b"7")),
        (b"Content-Length: 0", (b"content-length", b"0")),
        # How a body of unknown length is framed, the connection says that it goes to.
        (b"Transfer-Encoding: chunked", None),
    ],
)
def test_a_request_has_one_framing_at_most(field: bytes, expected: tuple[bytes, bytes] | None) -> None:
    fields = upstream(asked(field))
    framing = [pair for pair in fields if pair[0] in (b"content-length", b"transfer-encoding")]
    assert framing == ([] if expected is None else [expected])


def test_no_framing_is_invented_where_no_body_is_meant() -> None:
    request = asked(line=b"GET / HTTP/1.0")
    assert request.framing == EMPTY
    fields = upstream(request)
    assert not values(fields, b"content-length")
    assert values(fields, b"via") == [b"1.0 relay"]


def test_via_is_appended_not_replaced() -> None:
    assert values(upstream(asked(b"Via: 1.1 before")), b"via") == [b"1.1 before", b"1.1 relay"]


def test_an_event_stream_gets_the_fields_that_keep_buffers_away() -> None:
    response = answered(
        b"Content-Type: text/event-stream", b"Cache-Control: public", b"X-Accel-Buffering: yes", b"ETag: a",
        b"Content-Encoding: gzip", b"Transfer-Encoding: chunked", b"X-RateLimit-Remaining: 5",
    )  # fmt: skip
    assert client(response, event_stream=True) == [
        (b"x-ratelimit-remaining", b"5"),
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"vary", b"Accept-Encoding"),
        (b"x-request-id", b"id-1"),
        (b"relay-stream-id", b"stream-1"),
        (b"access-control-expose-headers", b"relay-stream-id, relay-last-disconnect, x-request-id"),
    ]


def test_a_plain_answer_keeps_its_own_fields() -> None:
    response = answered(
        b"Content-Type: application/json", b"Content-Encoding: gzip", b"Cache-Control: private", b"ETag: a",
        b"Content-Length: 3", b"Alt-Svc: h3", b"X-Accel-Buffering: yes",
    )  # fmt: skip
    assert client(response) == [
        (b"content-type", b"application/json"),
        (b"content-encoding", b"gzip"),
        (b"cache-control", b"private"),
        (b"etag", b"a"),
        (b"x-request-id", b"id-1"),
        (b"relay-stream-id", b"stream-1"),
    ]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Vary: Origin", [b"Origin", b"Accept-Encoding"]),
        (b"Vary: origin, accept-ENCODING", [b"origin, accept-ENCODING"]),
        (b"A: b", [b"Accept-Encoding"]),
    ],
)
def test_vary_names_the_coding_once(field: bytes, expected: list[bytes]) -> None:
    assert values(client(answered(field), event_stream=True), b"vary") == expected


def test_cookies_of_a_shared_account_stay_with_the_relay() -> None:
    response = answered(b"Set-Cookie: a=1", b"Set-Cookie: b=2")
    assert values(client(response), b"set-cookie") == [b"a=1", b"b=2"]
    assert not values(client(response, cookies=False), b"set-cookie")


def test_ids_of_an_answer() -> None:
    fields = client(answered(b"X-Request-Id: theirs", b"Relay-Stream-Id: of-a-relay-behind"))
    assert values(fields, b"x-request-id") == [b"theirs"]
    assert values(fields, b"relay-stream-id") == [b"stream-1"]


def test_fields_are_kept_whole_in_little_room() -> None:
    theirs = [b"X-Empty:", b"X-Time: 12:30: 1", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Latin: \xe9\x85"]
    fields = client(answered(b"Content-Type: text/event-stream", *theirs), event_stream=True)
    kept = headers.packed(fields)
    assert sorted(headers.unpacked(kept)) == sorted(fields)
    assert values(headers.unpacked(kept), b"set-cookie") == [b"a=1", b"b=2"]
    assert values(fields, b"x-latin") == [b"\xe9\x85"]
    # Neither what all streams have, nor an object for each field.
    assert len(kept) < 200
    assert b"event-stream" not in kept


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (b"200 OK", b"Text/Event-Stream ; charset=x", True),
        (b"200 OK", b"text/event-streams", False),
        (b"200 OK", b"application/json", False),
        (b"500 X", b"text/event-stream", False),
        (b"302 X", b"text/event-stream", False),
    ],
)
def test_only_a_successful_event_stream_is_framed(status: bytes, kind: bytes, expected: bool) -> None:
    assert headers.is_event_stream(answered(b"Content-Type: " + kind, status=status)) is expected
