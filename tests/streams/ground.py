"""One pair of versions with its relays, and what nearly every test of streams does with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pairs.agent2 import Client2
from tests.pairs.calls import Agent, Call, Outcome
from tests.pairs.pair import Pair
from tests.programs import Relay
from tests.robustness.peers import CHAT, Dialect, until
from tests.streams.heard import Heard, hear, plain

# A reader that lags for a moment gets merged events, whose ids have holes: not what these tests are about.
_UNMERGED = {"Relay-Overflow": "disconnect"}
RESUMABLE = {"Relay-Resumable": "1", **_UNMERGED}
DEFERRED = {"Prefer": "respond-async"}
AS_JSON = {"Accept": "application/json"}
AS_EVENTS = {"Accept": "text/event-stream", **_UNMERGED}
# More than any test waits for.
ENDLESS = "events=100000; interval=20ms"
# Some events, then silence with the connection open.
STALLS = "lie=mid-stall; at=3; events=8; interval=0"
WHOLE = "events=12; interval=0"


def over(*versions: str) -> pytest.MarkDecorator:
    """Run a test for these versions of client and provider alone."""
    return pytest.mark.parametrize("_ground", versions, indirect=True, scope="session")


# Where the provider's connection, or its end, is what a test is about.
FOUR = over("1-1", "1-2", "2-1", "2-2")
# Where the provider is one of a test's own, of HTTP/1.1.
SCRIPTED = over("1-1", "2-1")


class Ground(Pair):
    """A Pair in the clear, whose relays may have lines for their route and a table for their retention as well."""

    def make_relay(
        self,
        *,
        url: str | None = None,
        env: dict[str, str] | None = None,
        server: str = "",
        upstream_extra: str = "",
        route: str = "",
        retention: str = "",
        limits: str = "",
        path: str = "/*",
        **tables: str,
    ) -> Relay:
        return super().make_relay(
            url=url,
            env=env,
            server=server,
            upstream_extra=upstream_extra,
            limits=f"{limits}\n[retention]\n{retention}",
            # The template's own quote ends up in a comment.
            path=f'{path}"\n{route}\n#' if route else path,
            **tables,
        )

    def told(self, simulate: str, dialect: Dialect = CHAT) -> list[tuple[str, str]]:
        """What the provider says to that, by itself. Its counters are at zero then."""
        with self.source() as agent:
            answer = agent.post(dialect.path, dialect.asked(stream=True), simulate).answer()
        self.counts.reset()
        return plain(answer.body)

    def source(self) -> Client2:
        """To the provider itself, without the relay."""
        return Client2(self.provider.address)


def begin(agent: Agent, simulate: str = WHOLE, dialect: Dialect = CHAT, /, **headers: str) -> Call:
    """Ask for a stream that can be resumed. Fields are written with underscores."""
    return agent.post(dialect.path, dialect.asked(stream=True), simulate, {**RESUMABLE, **_fields(headers)})


def defer(agent: Agent, simulate: str = WHOLE, dialect: Dialect = CHAT, /, **headers: str) -> str:
    """Ask for a stream that somebody will read elsewhere; its id."""
    fields = {**DEFERRED, **_fields(headers)}
    answer = agent.post(dialect.path, dialect.asked(stream=True), simulate, fields).answer()
    assert answer.status == 202, answer.body
    return answer.headers["relay-stream-id"]


def read(agent: Agent, stream_id: str, after: str | int | None = None, /, **headers: str) -> Call:
    """Read a stream by its id, from behind an event on."""
    fields = {**AS_EVENTS, **_fields(headers)}
    if after is not None:
        fields["Last-Event-ID"] = str(after)
    return agent.ask("GET", f"/v1/streams/{stream_id}", headers=fields)


def poll(agent: Agent, stream_id: str, after: str | int = 0, wait: str = "") -> Call:
    target = f"/v1/streams/{stream_id}?after={after}" + (f"&wait={wait}" if wait else "")
    return agent.ask("GET", target, headers=AS_JSON)


def cancel(agent: Agent, stream_id: str, /, **headers: str) -> Outcome:
    return agent.ask("DELETE", f"/v1/streams/{stream_id}", headers=_fields(headers)).answer()


def state(agent: Agent, stream_id: str, /, **headers: str) -> dict[str, Any]:
    """The stream's state by its own document."""
    answer = agent.ask("GET", f"/v1/streams/{stream_id}", headers={**AS_JSON, **_fields(headers)}).answer()
    assert answer.status == 200, answer.body
    document: dict[str, Any] = json.loads(answer.body)
    return document


def becomes(agent: Agent, stream_id: str, wanted: str) -> dict[str, Any]:
    """Its document, when its state is this."""
    seen = until(lambda: found if (found := state(agent, stream_id))["state"] == wanted else None, f"state {wanted}")
    assert seen is not None
    return seen


def gone(agent: Agent, stream_id: str) -> None:
    """Wait until it can no longer be read."""
    until(lambda: read(agent, stream_id, "latest").answer().status == 404, f"the end of {stream_id}")


def read_by(agent: Agent, stream_id: str, number: int) -> None:
    """Wait until so many read it."""
    until(lambda: state(agent, stream_id)["readers"] == number, f"{number} readers")


def stream_id_of(call: Call) -> str:
    call.head()
    return dict(call.fields)["relay-stream-id"]


def whole(answer: Outcome, *, first: int = 1, last: int | None = None) -> Heard:
    """A body of events that ends cleanly; its events are all from the first to the last."""
    assert (answer.status, answer.clean) == (200, True), answer.body[-300:]
    heard = hear(answer.body)
    heard.tiles(first, last)
    assert not heard.own
    return heard


def refusal(answer: Outcome, status: int, code: str) -> dict[str, Any]:
    """An error of the relay's own, whole; its `error`."""
    assert (answer.status, answer.clean) == (status, True), answer.body[:300]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert error["message"]
    assert error["code"] == code, error
    return error


def broken(ground: Ground, answer: Outcome, code: str) -> Heard:
    """A body of events that breaks off, with one event that says why."""
    assert answer.status == 200
    ground.broken_off(answer)
    heard = hear(answer.body)
    assert heard.error()["code"] == code
    return heard


def _fields(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
