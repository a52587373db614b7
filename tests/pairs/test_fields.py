"""Which header fields cross, in both directions, and what the relay adds of its own (RFC 9110, 7.6; RFC 9113, 8.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pairs.calls import Agent
from tests.pairs.origin import Arrived, Field, Origin, Reply
from tests.pairs.pair import MOST, Pair
from tests.programs import Relay
from tests.robustness.peers import CHAT

_CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie")
_OWN_KEY = {"upstream_extra": 'api_key_env = "RELAY_TEST_KEY"', "env": {"RELAY_TEST_KEY": "sk-own"}}
_EVENTS = b"data: {}\n\ndata: [DONE]\n\n"


@pytest.fixture
def origin(pair: Pair) -> Iterator[Origin]:
    """A provider that remembers the fields it got, and answers with none of its own."""
    with pair.origin() as made:
        yield made


def _arrived(pair: Pair, origin: Origin, fields: list[Field], relay: Relay | None = None) -> Arrived:
    """A request with these fields as the provider got it."""
    with pair.agent(relay or pair.relay_with(url=origin.url)) as agent:
        answer = agent.ask("POST", "/v1/x?y=%2F", b"{}", fields).answer()
        assert answer.status == 200, answer
    return origin.requests[-1]


# Requests


@MOST
def test_request_crosses_in_its_order_with_the_relays_own_fields_around_it(pair: Pair, origin: Origin) -> None:
    fields = [("Content-Type", "application/json"), ("User-Agent", "sdk"), ("Accept", "*/*"), ("X-Twice", "1")]
    fields += [("X-Twice", "2"), ("X-Empty", ""), ("X-Latin", "caf\xe9"), ("X-Request-Id", "mine-1")]
    arrived = _arrived(pair, origin, fields)
    assert (arrived.method, arrived.target, bytes(arrived.body)) == ("POST", "/v1/x?y=%2F", b"{}")
    authority = origin.url.partition("//")[2]
    if pair.upstream == "1":
        first = [("host", authority)]
    else:
        scheme = "https" if pair.secure else "http"
        first = [(":method", "POST"), (":scheme", scheme), (":authority", authority), (":path", "/v1/x?y=%2F")]
    kept = [(name.lower(), value.encode().decode("latin-1")) for name, value in fields[:-1]]
    via = "1.1 relay" if pair.client == "1" else "2 relay"
    assert arrived.fields == [*first, *kept, ("x-request-id", "mine-1"), ("via", via), ("content-length", "2")]


@MOST
def test_what_speaks_of_one_connection_stays_on_it(pair: Pair, origin: Origin) -> None:
    fields = [("TE", "trailers"), ("Proxy-Authorization", "Basic eA=="), ("Trailer", "X-Sum"), ("X-Kept", "1")]
    fields.append(("HTTP2-Settings", "AAMAAABk"))
    if pair.client == "1":
        fields += [("Connection", "keep-alive, X-Hop, HTTP2-Settings"), ("Keep-Alive", "timeout=5"), ("X-Hop", "1")]
        fields += [("Proxy-Connection", "keep-alive"), ("Upgrade", "websocket")]
    arrived = _arrived(pair, origin, fields)
    assert arrived.values("x-kept") == ["1"]
    dropped = {name.lower() for name, _ in fields} - {"x-kept"}
    assert not dropped & set(arrived.names)


@MOST
def test_no_word_about_the_client_passes_unasked(pair: Pair, origin: Origin) -> None:
    fields = [("Forwarded", "for=203.0.113.1"), ("X-Forwarded-For", "203.0.113.2"), ("X-Real-Ip", "203.0.113.3")]
    fields += [("X-Forwarded-Proto", "https"), ("X_Forwarded_For", "203.0.113.4"), ("Relay-Stream-Id", "forged")]
    arrived = _arrived(pair, origin, fields)
    assert not {name.lower() for name, _ in fields} & set(arrived.names)


@MOST
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "stranger"])
def test_client_is_told_where_that_is_configured(pair: Pair, origin: Origin, trusted: bool) -> None:
    relay = pair.relay_with(
        url=origin.url,
        server='trusted = ["127.0.0.0/8"]' if trusted else "",
        upstream_extra="forward_client = true",
    )
    arrived = _arrived(pair, origin, [("X-Forwarded-For", "203.0.113.2"), ("X-Forwarded-Proto", "https")], relay)
    assert arrived.values("x-forwarded-for") == (["203.0.113.2, 127.0.0.1"] if trusted else ["127.0.0.1"])
    assert arrived.values("x-forwarded-proto") == (["https"] if trusted else [])


@MOST
def test_credentials_of_the_client_pass_where_the_relay_has_none(pair: Pair, origin: Origin) -> None:
    arrived = _arrived(pair, origin, [(name, f"mine-{name}") for name in _CREDENTIALS])
    assert {name: arrived.values(name) for name in _CREDENTIALS} == {name: [f"mine-{name}"] for name in _CREDENTIALS}


@MOST
def test_credentials_of_the_client_stay_where_the_relay_has_its_own(pair: Pair, origin: Origin) -> None:
    relay = pair.relay_with(url=origin.url, **_OWN_KEY)  # type: ignore[arg-type]
    fields = [(name, f"mine-{name}") for name in (*_CREDENTIALS, "x_api_key")]
    arrived = _arrived(pair, origin, fields, relay)
    assert arrived.values("authorization") == ["Bearer sk-own"]
    assert "mine" not in str(arrived.fields)


@MOST
def test_crumbs_of_a_cookie_are_put_together(pair: Pair, origin: Origin) -> None:
    """RFC 9113, 8.2.3: HTTP/2 may cut it into fields, which nobody outside of HTTP/2 understands."""
    arrived = _arrived(pair, origin, [("Cookie", "a=1"), ("X-Between", "x"), ("Cookie", "b=2; c=3")])
    if pair.client == "2" and pair.upstream == "1":
        assert arrived.values("cookie") == ["a=1; b=2; c=3"]
    else:
        assert "; ".join(arrived.values("cookie")) == "a=1; b=2; c=3"


@MOST
def test_caller_without_an_id_gets_one(pair: Pair, origin: Origin) -> None:
    relay = pair.relay_with(url=origin.url)
    with pair.agent(relay) as agent:
        ids = [agent.ask(target="/v1/x").answer().headers["x-request-id"] for _ in range(2)]
    assert [request.values("x-request-id") for request in origin.requests] == [[ids[0]], [ids[1]]]
    assert ids[0] != ids[1]


@MOST
def test_events_are_asked_for_uncompressed(pair: Pair, origin: Origin) -> None:
    relay = pair.relay_with(url=origin.url)
    with pair.agent(relay) as agent:
        for path in ("/v1/chat/completions", "/files/x"):
            agent.ask("POST", path, b"{}", [("Accept-Encoding", "gzip, br")]).answer()
    assert [request.values("accept-encoding") for request in origin.requests] == [["identity"], ["gzip, br"]]


@MOST
@pytest.mark.parametrize(("method", "length"), [("POST", ["0"]), ("PUT", ["0"]), ("GET", []), ("DELETE", [])])
def test_request_without_a_body_says_so_where_one_is_expected(
    pair: Pair, origin: Origin, method: str, length: list[str]
) -> None:
    with pair.agent(pair.relay_with(url=origin.url)) as agent:
        assert agent.ask(method, "/v1/x").answer().status == 200
    assert origin.requests[-1].values("content-length") == length
    assert not origin.requests[-1].values("transfer-encoding")


# Answers


def _answer_fields(pair: Pair, reply: Reply, **extra: object) -> list[Field]:
    with pair.origin(reply) as origin:
        relay = pair.relay_with(url=origin.url, **extra)  # type: ignore[arg-type]
        with pair.agent(relay) as agent:
            answer = agent.ask("POST", CHAT.path, b"{}", [("X-Request-Id", "mine-2")]).answer()
            assert (answer.status, answer.clean) == (200, True)
            return answer.fields


@MOST
def test_answer_crosses_in_its_order_with_the_relays_own_fields_behind_it(pair: Pair) -> None:
    fields: tuple[Field, ...] = (("Server", "gpu"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
    fields += (("Content-Type", "text/plain"), ("ETag", '"x"'), ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"))
    fields += (("OpenAI-Processing-Ms", "7"),)
    seen = _answer_fields(pair, Reply(fields=fields, body=b"hello"))
    own = [name for name, _ in seen[len(fields) :]]
    assert seen[: len(fields)] == [(name.lower(), value) for name, value in fields]
    assert sorted(own) == ["content-length", "relay-stream-id", "x-request-id"]
    assert dict(seen)["x-request-id"] == "mine-2"


@MOST
def test_what_speaks_of_the_providers_connection_stays_on_it(pair: Pair) -> None:
    fields: tuple[Field, ...] = (("Alt-Svc", 'h3=":443"'), ("X-Accel-Buffering", "yes"), ("Trailer", "X-Sum"))
    fields += (("Relay-Stream-Id", "another relay's"), ("Proxy-Authenticate", "Basic"), ("X-Kept", "1"))
    if pair.upstream == "1":
        fields += (("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"))
    seen = _answer_fields(pair, Reply(fields=fields, body=b"hello"))
    names = {name for name, _ in seen}
    assert "x-kept" in names
    dropped = {name.lower() for name, _ in fields} - {"x-kept", "relay-stream-id"}
    assert not dropped & names
    assert "another relay's" not in dict(seen)["relay-stream-id"]


@MOST
def test_id_that_the_provider_gives_is_kept(pair: Pair) -> None:
    seen = _answer_fields(pair, Reply(fields=(("X-Request-Id", "theirs"),), body=b"hello"))
    assert [value for name, value in seen if name == "x-request-id"] == ["theirs"]


@MOST
def test_cookies_of_a_shared_account_concern_nobody(pair: Pair) -> None:
    fields = (("Set-Cookie", "a=1"), ("X-Kept", "1"))
    seen = _answer_fields(pair, Reply(fields=fields, body=b"hello"), **_OWN_KEY)
    assert [name for name, _ in seen if name in ("set-cookie", "x-kept")] == ["x-kept"]


@MOST
@pytest.mark.parametrize("framed", [True, False], ids=["length", "unknown"])
def test_event_stream_has_the_fields_that_keep_it_flowing(pair: Pair, framed: bool) -> None:
    fields = (("Content-Type", "Text/Event-Stream"), ("Cache-Control", "private"), ("Vary", "Origin"), ("ETag", '"x"'))
    seen = _answer_fields(pair, Reply(fields=fields, body=_EVENTS, framed=framed))
    fields_seen = dict(seen)
    assert fields_seen["content-type"] == "text/event-stream; charset=utf-8"
    assert fields_seen["cache-control"] == "no-cache, no-transform"
    assert fields_seen["x-accel-buffering"] == "no"
    assert [value for name, value in seen if name == "vary"] == ["Origin", "Accept-Encoding"]
    assert "etag" not in fields_seen
    assert "content-length" not in fields_seen
    assert fields_seen.get("transfer-encoding") == ("chunked" if pair.client == "1" else None)


@MOST
def test_field_that_no_head_may_have_spoils_the_answer(pair: Pair) -> None:
    """What is a way to speak of a connection in HTTP/1.1 is a malformed message in HTTP/2 (RFC 9113, 8.2)."""
    bad = [("X-Bad", "a\nb"), ("X-Bad", "a\x00b"), ("X Y", "1")]
    if pair.upstream == "2":
        bad += [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Keep-Alive", "timeout=5")]

    def reply(request: Arrived) -> Reply:
        return Reply(fields=(bad[int(request.target.rpartition("=")[2])],), body=b"hello")

    with pair.origin(reply) as origin, pair.agent(pair.relay_with(url=origin.url)) as agent:
        for number in range(len(bad)):
            answer = agent.ask("POST", f"{CHAT.path}?bad={number}", b"{}").answer()
            assert (answer.status, answer.clean) == (502, True), bad[number]
            assert b"hello" not in answer.body


@MOST
def test_two_requests_of_the_relays_own_kind_do_not_meet(agent: Agent) -> None:
    """Fields of one request are not another's, whatever the compression of heads remembers."""
    for number in range(20):
        name = f"x-mark-{number % 3}"
        answer = agent.ask(target="/echo", headers={name: str(number)}).answer()
        assert answer.body.lower().count(b"x-mark-") == 1
        assert f'["{name}","{number}"]'.encode() in answer.body.lower()
