"""Who stops reading a producer: a pause that several may hold at once.

A slow reader, a full body and a drain may each want a provider to wait; it is read again when the last of them lets
go. Envoy counts its read-disables for the same reason: the first one to resume must not undo the others' pause.
"""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """What can be held: a connection, or what stands between it and a stream."""

    def pause_reading(self) -> None:
        """Give nothing more until `resume_reading`."""

    def resume_reading(self) -> None:
        """Go on."""


class Gate:
    """The source is paused as the first holder comes and resumed as the last one goes. Without a source, who holds is
    counted and nothing else happens."""

    __slots__ = ("_holders", "source")

    def __init__(self, source: Source | None) -> None:
        self._holders = 0
        self.source = source

    @property
    def closed(self) -> bool:
        return self._holders > 0

    def hold(self) -> None:
        self._holders += 1
        if self._holders == 1 and self.source is not None:
            self.source.pause_reading()

    def release(self) -> None:
        if not self._holders:
            raise AssertionError("a gate was released by somebody who did not hold it")
        self._holders -= 1
        if not self._holders and self.source is not None:
            self.source.resume_reading()

    # A gate may stand behind another, and is then its source.

    def pause_reading(self) -> None:
        self.hold()

    def resume_reading(self) -> None:
        self.release()

    def retire(self) -> None:
        """The source is through: it is let go if it was held, and later holders concern it no more."""
        source, self.source = self.source, None
        if self._holders and source is not None:
            source.resume_reading()
