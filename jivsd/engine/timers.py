"""All timers of a node: one heap, one task that sleeps until the earliest."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import trio

from jivsd.clock import SECOND, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio import TaskStatus


class Timer:
    """A deadline in microseconds since the epoch and what to call then; `cancel` forgets it."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: int, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Timers:
    """Calls back when time has come: never early, in order of the deadlines.

    `look_again`: seconds after which the clock is read again while sleeping, since a host's clock can be set.
    """

    def __init__(self, clock: Clock, *, look_again: float = 30.0) -> None:
        self._clock = clock
        self._look_again = look_again
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = count()
        self._earlier = trio.Event()

    def add(self, deadline: int, callback: Callable[[], None]) -> Timer:
        timer = Timer(deadline, callback)
        if not self._heap or deadline < self._heap[0][0]:
            self._earlier.set()
        heapq.heappush(self._heap, (deadline, next(self._order), timer))
        return timer

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            self._fire()
            self._earlier = trio.Event()
            pause = self._look_again
            if self._heap:
                pause = min(pause, (self._heap[0][0] - self._clock.now()) / SECOND)
            with trio.move_on_after(max(pause, 0)):
                await self._earlier.wait()

    def _fire(self) -> None:
        while self._heap and self._heap[0][0] <= self._clock.now():
            timer = heapq.heappop(self._heap)[2]
            if timer.callback is not None:
                timer.callback()
        self._sweep()

    def _sweep(self) -> None:
        """Let go of forgotten timers at the front; those further back go when they get there."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
