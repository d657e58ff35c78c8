"""The driver's seat of a run: which task delivers its events.

It is the run's own task. As long as a lone step runs, that task is lent to it (DESIGN.md section 4, rule 1): a task
for every step would cost more than everything else that is done for it. An event that arrives meanwhile is delivered
by a relief, until the run's own task is back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from jivsd.trap import Trap, park, wake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Seat:
    """Made by the run's own task. `task` is the one that drives now.

    `work` delivers what has arrived and says whether a relief should go on. It must not raise.
    """

    __slots__ = ("_nursery", "_parked", "_trap", "_work", "away", "relief", "task")

    def __init__(self, nursery: trio.Nursery, work: Callable[[], Awaitable[bool]]) -> None:
        self.task: Any = trio.lowlevel.current_task()
        self._nursery = nursery
        self._work = work
        self._parked = False
        self._trap = Trap(self._abort)
        self.away = False
        """Whether the run's own task is lent to a step: it says so itself."""
        self.relief: trio.Event | None = None
        """Set when the relief has left; None if there is none."""

    def cancel_status(self) -> object:
        """Trio's own note of the scopes that the task stands in; another one when it stands in others."""
        return self.task._cancel_status

    def park(self) -> Awaitable[None]:
        """Wait for `wake`: to be awaited at once."""
        self._parked = True
        return park(self._trap)

    def leave(self) -> None:
        """Nobody parks here any more: what is left makes no circle for the collector."""
        self._trap = None

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._parked = False
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Something has arrived: have whoever drives look at it."""
        if self._parked:
            self._parked = False
            wake(self.task)
        elif self.away and self.relief is None:
            self.relief = trio.Event()
            self._nursery.start_soon(self._relieve, self.relief)

    async def take_over(self) -> None:
        """The run's own task, which calls this, is no longer `away`: the relief leaves."""
        assert self.relief is not None
        self.wake()
        with trio.CancelScope(shield=True):
            await self.relief.wait()
        self.relief = None
        self.task = trio.lowlevel.current_task()

    async def _relieve(self, left: trio.Event) -> None:
        try:
            self.task = trio.lowlevel.current_task()
            while self.away and await self._work():
                await self.park()
        finally:
            left.set()
