"""httpx, which the official SDKs for Python stand on: with HTTP/2, blocking and async.

Many at once are tested with the async client alone: httpcore 1.0 lets threads share one h2 object without a lock.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import httpx
import pytest

from tests.peers.conftest import SecuredMaker
from tests.peers.secured import SecuredRelay
from tests.programs import PATIENCE, Provider, chat

_CHAT = "/v1/chat/completions"
_EVENTS = 20
_SIMULATE = {"Simulate": f"events={_EVENTS}; interval=20ms"}
_ENDLESS = {"Simulate": "events=1000000; interval=10ms"}
_LARGE = b"large " * 1_000_000


@pytest.fixture
def client(secured: SecuredRelay, how: str) -> Iterator[httpx.Client]:
    """In cleartext httpx speaks HTTP/2 when HTTP/1.1 is switched off: with prior knowledge."""
    with httpx.Client(
        http2=True, http1=how == "tls", verify=secured.pair.trust, base_url=secured.base(how), timeout=PATIENCE
    ) as made:
        yield made


def _async_client(secured: SecuredRelay, how: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        http2=True, http1=how == "tls", verify=secured.pair.trust, base_url=secured.base(how), timeout=PATIENCE
    )


def _stream(client: httpx.Client, path: str) -> tuple[str, int]:
    with client.stream("POST", path, json=chat(), headers=_SIMULATE) as response:
        return response.http_version, sum(line.startswith("data: {") for line in response.iter_lines())


async def _astream(client: httpx.AsyncClient, path: str) -> int:
    async with client.stream("POST", path, json=chat(), headers=_SIMULATE) as response:
        assert response.http_version == "HTTP/2"
        return len([line async for line in response.aiter_lines() if line.startswith("data: {")])


def test_stream(client: httpx.Client, route: str) -> None:
    version, events = _stream(client, route + _CHAT)
    assert version == "HTTP/2"
    assert events >= _EVENTS


def test_json(client: httpx.Client, route: str) -> None:
    response = client.get(f"{route}/v1/models")
    assert (response.http_version, response.status_code) == ("HTTP/2", 200)
    assert response.json()["object"] == "list"


def test_upload(client: httpx.Client, route: str) -> None:
    pieces = (_LARGE[at : at + 100_000] for at in range(0, len(_LARGE), 100_000))
    for body in (_LARGE, pieces):
        echoed = client.post(f"{route}/echo", content=body).json()
        assert echoed["body_sha256"] == hashlib.sha256(_LARGE).hexdigest()


def test_fifty_at_once(secured: SecuredRelay, how: str, route: str, counted: Provider) -> None:
    async def run() -> list[int]:
        async with _async_client(secured, how) as client:
            return await asyncio.gather(*(_astream(client, route + _CHAT) for _ in range(50)))

    found = asyncio.run(run())
    assert len(set(found)) == 1
    assert found[0] >= _EVENTS
    assert counted.stats()["finished"] == 50


def test_leaving_in_the_middle_is_seen_by_the_provider(
    secured: SecuredRelay, how: str, route: str, counted: Provider
) -> None:
    """httpcore 1.0 resets no stream that its caller leaves: only the end of the connection says so."""
    with httpx.Client(http2=True, http1=how == "tls", verify=secured.pair.trust, base_url=secured.base(how)) as client:
        with client.stream("POST", route + _CHAT, json=chat(), headers=_ENDLESS) as response:
            next(response.iter_lines())
        # The connection lives, for the next.
        assert client.get("/healthz").http_version == "HTTP/2"
    assert counted.wait(aborted=1)["finished"] == 0


def test_stream_that_was_left_ends_when_nobody_reads(make_secured: SecuredMaker, counted: Provider) -> None:
    """What httpx forgets to reset, the limit on stalls ends, and with it the connection: httpx reads none of it."""
    relay = make_secured(more='[timeouts]\nwrite = "1s"')
    fast = {"Simulate": "events=1000000; interval=0; size=10000"}
    with httpx.Client(http2=True, verify=relay.pair.trust, base_url=relay.secure_url) as client:
        with client.stream("POST", _CHAT, json=chat(), headers=fast) as response:
            next(response.iter_lines())
        assert counted.wait(aborted=1)["finished"] == 0
    assert relay.access_line(reason="client_stalled")


def test_cut_stream_is_an_error_after_its_events(client: httpx.Client, route: str) -> None:
    lines: list[str] = []
    told = {"Simulate": "interval=0; lie=cut; at=3"}
    with (
        client.stream("POST", route + _CHAT, json=chat(), headers=told) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        lines.extend(response.iter_lines())
    assert response.status_code == 200
