"""Who stops reading a producer: a pause that several may hold at once.

A slow reader, a full body and a drain may each want a provider to wait; it is read again when the last of them lets
go. Envoy counts its read-disables for the same reason: the first one to resume must not undo the others' pause.
"""

from __future__ import annotations

from collections.abc import Callable


class Gate:
    """`pause` is called as the first holder comes, `resume` as the last one goes."""

    __slots__ = ("_holders", "_pause", "_resume")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._holders = 0
        self._pause = pause
        self._resume = resume

    @property
    def closed(self) -> bool:
        return self._holders > 0

    def hold(self) -> None:
        self._holders += 1
        if self._holders == 1:
            self._pause()

    def release(self) -> None:
        if not self._holders:
            raise AssertionError("a gate was released by somebody who did not hold it")
        self._holders -= 1
        if not self._holders:
            self._resume()

    def retire(self) -> None:
        """The producer is through: it is let go if it was held, and later holders concern it no more."""
        if self._holders:
            self._resume()
        self._pause = self._resume = _nothing


def _nothing() -> None:
    """What is left to do for a producer that is through."""
