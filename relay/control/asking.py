"""One question to a provider: connect -> ask, and once more where it may be.

        start ----> acquire ----> ask ----> the asker is told: answered
                      |            |
                   429..504    unanswered: repeat, or 502, 504

Only `acquire` waits, in a task that ends with it; everything else happens in the call that caused it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from relay.control import caller, retry
from relay.control.access import Record
from relay.control.office import Office
from relay.control.router import Route
from relay.core.request import RequestBody
from relay.core.transfer import Receiver
from relay.errors import RelayError, UpstreamError
from relay.flow.gate import Gate
from relay.net.service import Call
from relay.wire import headers
from relay.wire.head import RequestHead, ResponseHead


class Answered(Protocol):
    """Who wants the answer."""

    def asked(self) -> None:
        """The request is on its way."""

    def answered(self, head: ResponseHead) -> Receiver:
        """The final head is here. Returns where the body goes."""

    def give_up(self, error: RelayError) -> None:
        """There will be no answer."""


class Asking:
    """`peer`: the address of whoever asked. `identity`: the answer's events may have to be read, so that the provider
    should not compress them. `gate` stops reading the answer, while there is one to be read."""

    __slots__ = (
        "_asked_at",
        "_body",
        "_call",
        "_identity",
        "_office",
        "_owner",
        "_peer",
        "_record",
        "_route",
        "_task",
        "request",
    )

    def __init__(
        self,
        office: Office,
        request: RequestHead,
        record: Record,
        route: Route,
        body: RequestBody,
        owner: Answered,
        *,
        peer: str,
        identity: bool,
    ) -> None:
        self._office = office
        self.request = request
        self._record = record
        self._route = route
        self._body = body
        self._owner = owner
        self._peer = peer
        self._identity = identity
        self._task: asyncio.Task[None] | None = None
        self._call: Call | None = None
        self._asked_at = 0.0

    def start(self) -> None:
        """Ask on an idle connection at once; else wait for one in a task."""
        fresh = self._record.attempts > 0
        pool = self._route.upstream.pool
        call = None if fresh else pool.take()
        if call is not None:
            self._ask(call)
        else:
            self._task = asyncio.get_running_loop().create_task(self._acquire(fresh))

    @property
    def gate(self) -> Gate | None:
        return self._call.gate if self._call is not None else None

    def since(self, now: float) -> float | None:
        """Since when the provider might have begun its answer; None while it has not been asked."""
        if self._call is None:
            return None
        if self.request.framing.empty:
            return self._asked_at
        # The client may take its time with the body; it has a limit of its own.
        return max(self._asked_at, self._body.active) if self._body.ended else now

    def settle(self) -> None:
        """The answer has begun: most of what was asked need not be kept."""
        self.request = self.request.bare()

    def parted(self) -> None:
        """The provider has sent all; its connection may already serve another request."""
        self._call = None
        self.settle()

    def cancel(self) -> None:
        """Nobody wants the answer any more: the provider is told at once."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self.settle()

    async def _acquire(self, fresh: bool) -> None:
        task = self._task
        try:
            call = await self._route.upstream.pool.acquire(fresh=fresh)
        except RelayError as error:
            self._task = None
            self._owner.give_up(error)
            return
        except Exception as error:
            # A defect, or something of the system's: the client must not wait for ever because of it.
            self._task = None
            self._owner.give_up(UpstreamError("no connection to the provider could be had", repr(error)))
            return
        if self._task is task:
            self._task = None
            self._ask(call)
        else:
            call.cancel()

    def _ask(self, call: Call) -> None:
        request, upstream = self.request, self._route.upstream
        self._call = call
        self._record.attempts += 1
        self._record.upstream_http = call.http
        self._asked_at = self._office.wheel.now
        accept = request.get(b"accept") or b""
        fields = headers.to_upstream(
            request,
            authority=upstream.authority,
            request_id=self._record.request_id.encode(),
            credential=upstream.credential,
            identity=self._identity or headers.EVENT_STREAM in accept.lower(),
            client=self._peer.encode() if upstream.forwarded else None,
            forwarded=caller.forwarded(self._peer, request, self._office.trusted),
        )
        if request.framing.empty and not self._body.ended:
            self._body.end()
        self._owner.asked()
        call.ask(request.method, self._route.target(request.target), fields, request.framing, self, self._body.reader)

    # What the call tells (relay.net.service.Asker)

    def answered(self, head: ResponseHead) -> Receiver:
        return self._owner.answered(head)

    def unanswered(self, error: UpstreamError) -> None:
        self._call = None
        if retry.may_repeat(error, self._body, self._record.attempts):
            self._body.rewind()
            self.start()
        else:
            self._owner.give_up(error)
