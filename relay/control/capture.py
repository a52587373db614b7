"""A provider's plain answer to a request that nobody waits for at the moment, or more than one: kept whole, bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from relay.core.transfer import Clock
from relay.errors import RelayError, UpstreamInvalid
from relay.wire.head import Headers

# Bytes of such an answer: an error, or a short answer that was no stream.
CAPTURE_LIMIT = 1024 * 1024


class Captured(NamedTuple):
    status: int
    fields: Headers
    body: bytes


class Owner(Protocol):
    """Whose answer it is."""

    def transfer_ended(self, error: RelayError | None) -> None:
        """The provider is through: cleanly, or not whole for this reason."""

    def give_up(self, error: RelayError) -> None:
        """Let the provider go; `fail` will be called."""


class Capture:
    """Takes the provider's bytes in the place of a Transfer; `whole` is given all of them, before the owner is told.
    `began` and `active` as of a Transfer."""

    __slots__ = ("_body", "_clock", "_owner", "_whole", "active", "began")

    def __init__(self, owner: Owner, whole: Callable[[bytes], None], clock: Clock) -> None:
        self._clock = clock
        self.active = clock.now
        self.began = False
        self._body = bytearray()
        self._owner = owner
        self._whole = whole

    def feed(self, payload: bytes) -> None:
        self.began = True
        self.active = self._clock.now
        self._body += payload
        if len(self._body) > CAPTURE_LIMIT:
            self._body.clear()
            self._owner.give_up(UpstreamInvalid(f"the answer is no stream, and larger than {CAPTURE_LIMIT} bytes"))

    def end(self) -> None:
        self._whole(bytes(self._body))
        self._owner.transfer_ended(None)

    def fail(self, error: RelayError) -> None:
        self._owner.transfer_ended(error)
