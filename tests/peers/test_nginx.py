"""nginx as a provider: it says GOAWAY after so many requests, and at each reload, with streams open. None is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.peers.conftest import SecuredMaker
from tests.peers.nginx import Nginx
from tests.peers.secured import Pair, SecuredRelay
from tests.programs import Answer, Client, Provider, chat
from tests.robustness.peers import until

_CHAT = "/v1/chat/completions"
_DONE = b"data: [DONE]\n\n"

NginxMaker = Callable[..., Nginx]


@pytest.fixture
def make_nginx(tmp_path: Path, provider: Provider, pair: Pair) -> Iterator[NginxMaker]:
    made: list[Nginx] = []

    def make(requests: int = 1000) -> Nginx:
        made.append(Nginx(tmp_path / f"nginx{len(made)}", provider, pair, requests=requests))
        return made[-1]

    yield make
    for program in made:
        program.stop()


def _ask(relay: SecuredRelay, simulate: str, *, stream: bool = True) -> Answer:
    with Client(relay.address) as client:
        client.post(_CHAT, chat(stream=stream), simulate)
        return client.answer()


def _whole(answer: Answer) -> bool:
    return (answer.status, answer.clean) == (200, True) and answer.body.endswith(_DONE)


def test_stream_and_json(make_nginx: NginxMaker, make_secured: SecuredMaker, provider: Provider) -> None:
    nginx = make_nginx()
    relay = make_secured(nginx.url, http="auto")
    assert _whole(_ask(relay, "events=20; interval=2ms"))
    answer = _ask(relay, "", stream=False)
    assert json.loads(answer.body)["object"] == "chat.completion"
    until(lambda: len(nginx.served()) == 2, "two lines in nginx's log")
    assert {version for version, _ in nginx.served()} == {"HTTP/2.0"}


@pytest.mark.parametrize("at_once", [1, 30])
def test_no_request_fails_where_connections_end_every_twenty(
    make_nginx: NginxMaker, make_secured: SecuredMaker, counted: Provider, at_once: int
) -> None:
    nginx = make_nginx(requests=20)
    relay = make_secured(nginx.url, http="auto")
    simulate = f"events=5; interval={0 if at_once == 1 else 5}ms"
    with ThreadPoolExecutor(at_once) as threads:
        answers = list(threads.map(lambda _: _ask(relay, simulate), range(300)))
    assert [answer for answer in answers if not _whole(answer)] == []
    until(lambda: len(nginx.served()) >= 300, "300 lines in nginx's log")
    on_each = Counter(connection for _, connection in nginx.served())
    assert len(on_each) >= 15, on_each
    # Nothing was generated twice: what nginx had not taken is all that was sent again.
    assert counted.stats()["requests"] == 300


def test_requests_with_bodies_fail_neither(make_nginx: NginxMaker, make_secured: SecuredMaker) -> None:
    relay = make_secured(make_nginx(requests=20).url, http="auto")
    body = b"x" * 300_000

    def upload(_: int) -> int:
        with Client(relay.address) as client:
            client.request("POST", "/echo", body)
            answer = client.answer()
            assert answer.status == 200, answer
            length: int = json.loads(answer.body)["body_length"]
            return length

    with ThreadPoolExecutor(20) as threads:
        assert set(threads.map(upload, range(100))) == {len(body)}


def test_reload_with_streams_open(make_nginx: NginxMaker, make_secured: SecuredMaker, counted: Provider) -> None:
    """None is cut, none is lost, and those that are asked meanwhile find the new workers."""
    nginx = make_nginx()
    relay = make_secured(nginx.url, http="auto")
    with ThreadPoolExecutor(90) as threads:
        open_ones = [threads.submit(_ask, relay, "events=40; interval=25ms") for _ in range(40)]
        counted.wait(requests=40)
        nginx.reload()
        meanwhile = [threads.submit(_ask, relay, "events=3; interval=5ms; delay=50ms") for _ in range(40)]
        until(lambda: nginx.generations() == 2, "new workers")
        behind = [threads.submit(_ask, relay, "events=3; interval=5ms") for _ in range(40)]
        answers = [future.result() for future in (*open_ones, *meanwhile, *behind)]
    assert [answer for answer in answers if not _whole(answer)] == []
    assert counted.stats()["requests"] == 120

    def moved() -> bool:
        assert _whole(_ask(relay, "events=1; interval=0"))
        return len({connection for _, connection in nginx.served()}) >= 2

    until(moved, "a request that the new workers have served")


def test_reload_after_reload(make_nginx: NginxMaker, make_secured: SecuredMaker, counted: Provider) -> None:
    """Five of them under load: 200 requests, of which none fails."""
    nginx = make_nginx()
    relay = make_secured(nginx.url, http="auto")
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(_ask, relay, "events=10; interval=10ms") for _ in range(200)]
        for number in range(2, 7):
            counted.wait(requests=30 * (number - 1))
            nginx.reload()
            until(lambda number=number: nginx.generations() == number, "new workers")  # type: ignore[misc]
        answers = [future.result() for future in asked]
    assert [answer for answer in answers if not _whole(answer)] == []
    assert counted.stats()["requests"] == 200
