"""Lives that are about to begin: only so many do in one turn of the loop, however many runs were started at once.

What a run does first takes a while, and all that is ready in a turn runs before anybody else: a thousand runs that
begin together keep requests, starts among them, timers and heartbeats waiting.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AT_ONCE: Final = 64
"""How many lives begin in one turn of the loop: some milliseconds."""
MANY: Final = 64
"""While more starts than these are being written no life begins: somebody waits for the starts, and nobody yet for what
the runs do. They cost a third of what running them does.
"""
LATER: Final = 10_000
"""But no longer than so many wait to begin: that takes a second or two."""
FEW: Final = 500
"""While more wait to begin no further ones are read."""


class Births:
    """The lives of one nursery.

    Args:
        nursery: where they live.
        live: a life; it has to say here that it has `begun`.
    """

    def __init__(self, nursery: trio.Nursery, live: Callable[..., Awaitable[None]]) -> None:
        self._nursery = nursery
        self._live = live
        self._due = 0
        """How many begin in the next turn."""
        self._starts = 0
        """How many starts are being written."""
        self._later: deque[tuple[Any, ...]] = deque()
        self._readers = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        """How many wait to begin."""
        return len(self._later)

    async def room(self) -> None:
        """Return when few wait to begin."""
        while len(self._later) > FEW:
            await self._readers.park()

    def starting(self) -> None:
        """A start is being written."""
        self._starts += 1

    def started(self) -> None:
        """A start has been written, or not."""
        self._starts -= 1
        self._go()

    def add(self, *life: Any) -> None:
        """Let a life begin: in the next turn, or when others have.

        Raises:
            RuntimeError: the nursery is closed.
        """
        self._later.append(life)
        self._go()

    def begun(self) -> None:
        """A life has begun: others may, in the next turn."""
        self._due -= 1
        self._go()

    def _go(self) -> None:
        while self._later and self._due < AT_ONCE and (self._starts <= MANY or len(self._later) > LATER):
            self._nursery.start_soon(self._live, *self._later.popleft())
            self._due += 1
        if self._readers and len(self._later) <= FEW:
            self._readers.unpark_all()
