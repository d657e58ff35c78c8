"""The driver's seat of a run: which task delivers its events.

It is the run's own task. As long as a lone step runs, that task is lent to it (DESIGN.md section 4, rule 1): a task
for every step would cost more than everything else that is done for it. An event that arrives meanwhile is delivered
by a relief, until the run's own task is back.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

cancel_status: Final = attrgetter("task._cancel_status")
"""Of a seat: trio's own note of the scopes that its task stands in; another one when it stands in others."""


class Seat:
    """Made by the run's own task. `task` is the one that drives now.

    `work` delivers what has arrived and says whether a relief should go on. It must not raise.
    """

    __slots__ = ("_away", "_nursery", "_parked", "_relief", "_work", "task")

    def __init__(self, nursery: trio.Nursery, work: Callable[[], Awaitable[bool]]) -> None:
        self.task: Any = trio.lowlevel.current_task()
        self._nursery = nursery
        self._work = work
        self._parked = False
        self._away = False
        self._relief: trio.Event | None = None
        """Set when the relief has left."""

    @property
    def away(self) -> bool:
        """Whether the run's own task is lent to a step."""
        return self._away

    async def park(self) -> None:
        """Wait for `wake`."""
        self._parked = True
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._parked = False
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Something has arrived: have whoever drives look at it."""
        if self._parked:
            self._parked = False
            trio.lowlevel.reschedule(self.task)
        elif self._away and self._relief is None:
            self._relief = trio.Event()
            self._nursery.start_soon(self._relieve, self._relief)

    async def lend(self, step: Awaitable[None]) -> None:
        """Await a step in the run's own task."""
        own = self.task
        self._away = True
        try:
            await step
        finally:
            self._away = False
            if self._relief is not None:
                self.wake()
                with trio.CancelScope(shield=True):
                    await self._relief.wait()
                self._relief = None
            self.task = own

    async def _relieve(self, left: trio.Event) -> None:
        try:
            self.task = trio.lowlevel.current_task()
            while self._away and await self._work():
                await self.park()
        finally:
            left.set()
