"""Answers that are no event streams: of all statuses, sizes and framings; those without a body."""

from __future__ import annotations

import hashlib
import json
import zlib

import pytest

from tests.pairs.calls import Agent
from tests.pairs.origin import Reply
from tests.pairs.pair import MOST, Pair
from tests.robustness.peers import CHAT, DIALECTS, Dialect

_KIB = 1024
_MIB = 1024 * _KIB


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@MOST
def test_pair_speaks_what_it_says(pair: Pair, agent: Agent) -> None:
    """What all other tests here rest on."""
    document = json.loads(agent.ask(target="/echo").answer().body)
    fields = {name.lower(): value for name, value in document["headers"]}
    assert fields["via"] == ("1.1 relay" if pair.client == "1" else "2 relay")
    assert (":scheme" in fields) == (pair.upstream == "2")
    if pair.upstream == "2":
        assert fields[":scheme"] == ("https" if pair.secure else "http")
        assert pair.stats()["http2_connections"]["open"] > 0


@MOST
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 429, 500, 503, 529])
def test_status_and_body_are_the_providers(pair: Pair, agent: Agent, status: int) -> None:
    for dialect in DIALECTS:
        simulate = f"seed=3; status={status}; retry_after=7s"
        with pair.direct() as direct:
            own = direct.post(dialect.path, dialect.asked(stream=False), simulate).answer()
        answer = agent.post(dialect.path, dialect.asked(stream=False), simulate).answer()
        assert (answer.status, answer.clean, answer.body) == (status, True, own.body)
        assert answer.headers["content-type"] == own.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(own.body))
        assert answer.headers.get("retry-after") == own.headers.get("retry-after") == "7"
        assert answer.headers["relay-stream-id"]


@MOST
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_error_in_place_of_a_stream_passes_as_it_is(agent: Agent, dialect: Dialect) -> None:
    answer = agent.post(dialect.path, dialect.asked(stream=True), "status=429; retry_after=1s").answer()
    assert (answer.status, answer.clean) == (429, True)
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["error"]


@MOST
@pytest.mark.parametrize("framed", [True, False], ids=["length", "unknown"])
def test_body_of_any_size_arrives_whole(pair: Pair, framed: bool) -> None:
    """Sizes around the frames, the windows and the marks of the ring, in one read or many."""
    sizes = [0, 1, 2, 16 * _KIB - 1, 16 * _KIB, 16 * _KIB + 1, 65_535, 65_536, 256 * _KIB + 1, _MIB, 5 * _MIB]
    bodies = {size: bytes(range(256)) * (size // 256) + bytes(size % 256) for size in sizes}
    with pair.origin(lambda request: Reply(body=bodies[int(request.target[1:])], framed=framed)) as origin:
        relay = pair.relay_with(url=origin.url)
        with pair.agent(relay) as agent:
            for size in sizes:
                answer = agent.ask(target=f"/{size}").answer()
                assert (answer.status, answer.clean, len(answer.body)) == (200, True, size)
                assert _digest(answer.body) == _digest(bodies[size])
                # HTTP/2 may say the length of what ends with its head.
                if framed or size:
                    assert answer.headers.get("content-length") == (str(size) if framed else None)


@MOST
@pytest.mark.parametrize("framing", ["auto", "chunked", "close", "length"])
def test_framing_of_the_provider_is_its_own_business(pair: Pair, agent: Agent, framing: str) -> None:
    simulate = f"seed=5; events=400; split=5; framing={framing}"
    with pair.direct() as direct:
        own = direct.post(CHAT.path, CHAT.asked(stream=False), "seed=5; events=400").answer()
    answer = agent.post(CHAT.path, CHAT.asked(stream=False), simulate).answer()
    assert answer.clean
    assert answer.body == own.body


@MOST
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_compressed_answer_passes_unopened(pair: Pair, agent: Agent, encoding: str) -> None:
    simulate = f"seed=6; events=300; encoding={encoding}"
    with pair.direct() as direct:
        own = direct.post(CHAT.path, CHAT.asked(stream=False), simulate).answer()
    answer = agent.post(CHAT.path, CHAT.asked(stream=False), simulate).answer()
    assert answer.headers["content-encoding"] == encoding
    assert answer.body == own.body
    if encoding == "gzip":
        assert json.loads(zlib.decompress(answer.body, wbits=31))["object"] == "chat.completion"


@MOST
def test_many_answers_at_once_are_not_mixed_up(agent: Agent) -> None:
    calls = [
        agent.ask("POST", "/echo", json.dumps({"number": number}).encode(), {"Simulate": f"delay={number % 4 * 20}ms"})
        for number in range(40)
    ]
    for number, call in enumerate(calls):
        assert json.loads(json.loads(call.answer().body)["body"]) == {"number": number}


# Without a body


@MOST
def test_head_has_the_length_and_no_body(pair: Pair, agent: Agent) -> None:
    with pair.direct() as direct:
        own = direct.ask(target="/v1/models").answer()
    for _ in range(2):
        answer = agent.ask("HEAD", "/v1/models").answer()
        assert (answer.status, answer.clean, answer.body) == (200, True, b"")
        assert answer.headers["content-length"] == str(len(own.body))
    # Nobody takes what follows for its body.
    assert agent.ask(target="/v1/models").answer().body == own.body


@MOST
def test_head_of_what_cannot_be_reached_has_no_body(agent: Agent) -> None:
    answer = agent.ask("HEAD", "/v1/models", headers={"Simulate": "lie=garbage"}).answer()
    assert (answer.status, answer.clean, answer.body) == (502, True, b"")
    assert int(answer.headers["content-length"]) > 0
    assert agent.ask(target="/v1/models").answer().status == 200


@MOST
@pytest.mark.parametrize(
    ("reply", "length"),
    [
        (Reply(204, framed=False), None),
        (Reply(204, (("Content-Type", "text/event-stream"),), framed=False), None),
        (Reply(304, (("ETag", '"x"'),), framed=False), None),
        (Reply(304, (("ETag", '"x"'), ("Content-Length", "1000")), framed=False), "1000"),
        (Reply(200, (("Content-Type", "application/json"),)), "0"),
        (Reply(205), "0"),
    ],
    ids=["204", "204-events", "304", "304-length", "200-empty", "205"],
)
def test_answer_without_a_body_ends_with_its_head(pair: Pair, reply: Reply, length: str | None) -> None:
    with pair.origin(reply) as origin:
        relay = pair.relay_with(url=origin.url)
        with pair.agent(relay) as agent:
            for _ in range(3):
                answer = agent.ask(target="/x").answer()
                assert (answer.status, answer.clean, answer.body) == (reply.status, True, b"")
                assert answer.headers.get("content-length") == length
                assert "transfer-encoding" not in answer.headers


@MOST
def test_informational_heads_stay_on_their_connection(agent: Agent) -> None:
    """103 is a hint for a browser by its own provider; the relay is none."""
    answer = agent.post(CHAT.path, CHAT.asked(stream=False), "informational=3").answer()
    assert (answer.status, answer.clean, answer.informational) == (200, True, [])


@MOST
def test_trailers_of_an_answer_are_dropped(agent: Agent) -> None:
    answer = agent.post(CHAT.path, CHAT.asked(stream=True), "lie=trailers; events=3; interval=0").answer()
    assert answer.clean
    assert answer.body.endswith(CHAT.terminal)
    assert "x-checksum" not in answer.headers
    assert agent.ask(target="/v1/models").answer().status == 200


@MOST
def test_redirect_is_passed_on_and_not_followed(pair: Pair, agent: Agent) -> None:
    answer = agent.ask(target="/redirect").answer()
    assert (answer.status, answer.headers["location"]) == (302, "/redirected")
    assert pair.stats()["requests"] == 1


@MOST
def test_health_is_the_relays_own(pair: Pair, agent: Agent) -> None:
    for path, body in (("/healthz", b"ok\n"), ("/readyz", b"ok\n")):
        answer = agent.ask(target=path).answer()
        assert (answer.status, answer.body) == (200, body)
        answer = agent.ask("HEAD", path).answer()
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(body)))
    assert pair.stats()["requests"] == 0
