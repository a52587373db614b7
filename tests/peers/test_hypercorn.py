"""hypercorn as a provider of HTTP/2 (origin.py): over TLS, and in cleartext with prior knowledge."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.peers.conftest import SecuredMaker
from tests.peers.secured import Pair, SecuredRelay
from tests.programs import Answer, Client, Program, running
from tests.robustness.peers import until

_LARGE = b"large " * 1_000_000


class Hypercorn(Program):
    """At `origin`, an url."""

    def __init__(self, pair: Pair | None) -> None:
        command = [sys.executable, "-m", "hypercorn", "tests.peers.origin:app", "--bind", "127.0.0.1:0"]
        if pair is not None:
            command += ["--certfile", str(pair.certificate), "--keyfile", str(pair.key)]
        super().__init__(command, r"Running on https?://127\.0\.0\.1:(\d+)")
        self.origin = f"http{'s' if pair else ''}://127.0.0.1:{self.port}"


@pytest.fixture
def relayed(how: str, pair: Pair, make_secured: SecuredMaker) -> Iterator[SecuredRelay]:
    with running(Hypercorn(pair if how == "tls" else None)) as program:
        # Over TLS it is the handshake that chooses.
        yield make_secured(program.origin, http="auto" if how == "tls" else "2")


def _get(relay: SecuredRelay, target: str, method: str = "GET", body: bytes | None = None) -> Answer:
    with Client(relay.address) as client:
        client.request(method, target, body)
        return client.answer(method=method)


def _told(relay: SecuredRelay, target: str, method: str = "GET", body: bytes | None = None) -> dict[str, Any]:
    answer = _get(relay, target, method, body)
    assert answer.status == 200, answer
    assert answer.clean
    told: dict[str, Any] = json.loads(answer.body)
    return told


def test_request_arrives_over_http2(relayed: SecuredRelay, how: str) -> None:
    told = _told(relayed, "/json?x=1")
    assert (told["version"], told["scheme"]) == ("2", "https" if how == "tls" else "http")
    names = [name for name, _ in told["headers"]]
    assert "transfer-encoding" not in names
    assert "connection" not in names


def test_stream(relayed: SecuredRelay) -> None:
    answer = _get(relayed, "/events/50?gap=0.002")
    assert (answer.status, answer.clean) == (200, True)
    assert answer.body == b"".join(b"data: %d\n\n" % number for number in range(50)) + b"data: [DONE]\n\n"


def test_head(relayed: SecuredRelay) -> None:
    assert _get(relayed, "/json", "HEAD").status == 200


def test_upload(relayed: SecuredRelay) -> None:
    told = _told(relayed, "/echo", "POST", _LARGE)
    assert (told["length"], told["sha256"]) == (len(_LARGE), hashlib.sha256(_LARGE).hexdigest())


def test_fifty_at_once(relayed: SecuredRelay) -> None:
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: _get(relayed, "/events/20?gap=0.02"), range(50)))
    assert all(answer.clean and answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert _told(relayed, "/counts") == {"began": 50, "ended": 50}


def test_cancel_reaches_the_application(relayed: SecuredRelay) -> None:
    with Client(relayed.address) as client:
        client.request("GET", "/events/1000000?gap=0.01")
        client.read_until(b"data: 3\n\n")
    until(lambda: _told(relayed, "/counts").get("given up") == 1, "the application's disconnect")
