"""Who waits for the answers of updates. They are read from the journal; here is only told that it is worth a look."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from jivsd.bell import Bell
from jivsd.engine.ends import ONCE, Glances

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Answers:
    """Wakes who waits, by run and message."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, list[Bell]]] = {}

    def tell(self, run_id: str, message_id: str) -> None:
        """An answer has been recorded."""
        for bell in self._waiting.get(run_id, {}).get(message_id, ()):
            bell.set()

    def ended(self, run_id: str) -> None:
        """A run has ended: there will be no more answers."""
        for bells in self._waiting.get(run_id, {}).values():
            for bell in bells:
                bell.set()

    async def until(
        self,
        run_id: str,
        message_id: str,
        seconds: float,
        look: Callable[[], Awaitable[T | None]],
        again: Glances = ONCE,
    ) -> T | None:
        """What `look` finds: at once, or as soon as there is something, within some seconds; else None.

        `again`: look so often, because the answer may come where nobody tells of it.
        """
        by_message = self._waiting.setdefault(run_id, {})
        bells = by_message.setdefault(message_id, [])
        told = Bell()
        bells.append(told)
        try:
            found = await look()
            if found is None:
                with trio.move_on_after(seconds):
                    found = await again.until(told, look)
                    if found is None:
                        found = await look()
            return found
        finally:
            bells.remove(told)
            if not bells:
                by_message.pop(message_id, None)
            if not by_message:
                self._waiting.pop(run_id, None)
