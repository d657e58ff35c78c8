"""Lives that are about to begin: only so many do in one turn of the loop, however many runs were started at once.

What a run does first takes a while, and all that is ready in a turn runs before anybody else: a thousand runs that
begin together keep requests, starts among them, timers and heartbeats waiting.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

AT_ONCE: Final = 64
"""How many lives begin in one turn of the loop: some milliseconds."""
MANY: Final = 64
MEANWHILE: Final = 4
"""How many do while more than MANY starts are being written: somebody waits for those, and nobody yet for what the runs
do. (With fewer, one by one that is, batches would get small, and each run dearer.)
"""
LATER: Final = 5_000
"""But no longer than so many wait to begin, which takes them a second or so."""


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
        self.starts = 0
        """How many starts are being written."""
        self._later: deque[tuple[Any, ...]] = deque()

    def __len__(self) -> int:
        """How many wait to begin."""
        return len(self._later)

    def add(self, *life: Any) -> None:
        """Let a life begin: in the next turn, or when others have.

        Raises:
            RuntimeError: the nursery is closed.
        """
        if self._later or self._due >= self._most():
            self._later.append(life)
        else:
            self._spawn(life)

    def begun(self) -> None:
        """A life has begun: others may, in the next turn."""
        self._due -= 1
        while self._later and self._due < self._most():
            self._spawn(self._later.popleft())

    def _spawn(self, life: tuple[Any, ...]) -> None:
        self._nursery.start_soon(self._live, *life)
        self._due += 1

    def _most(self) -> int:
        return MEANWHILE if self.starts > MANY and len(self._later) < LATER else AT_ONCE
