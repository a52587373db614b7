"""How far a generation is, and what callers are told of it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.control.generation import Generation


class State(enum.StrEnum):
    WAITING = "waiting"  # for a connection, or for the provider's answer
    STREAMING = "streaming"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


def describe(generation: Generation) -> dict[str, object]:
    """The state of a stream, as callers get it."""
    log = generation.log
    error = generation.error
    return {
        "id": generation.stream_id,
        "object": "relay.stream",
        "state": generation.state.value,
        "dialect": generation.dialect.name,
        "resumable": generation.resumable,
        "status": generation.status or None,
        "events": generation.events,
        "oldest": log.oldest if log is not None and log.kept else None,
        "tail": generation.events,
        "bytes": generation.fed,
        "readers": generation.readers,
        "last_disconnect": generation.last_disconnect,
        "error": {"code": error.code, "message": error.message} if error is not None else None,
    }
