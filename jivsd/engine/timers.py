"""All timers of a node: one heap, one task that sleeps until the earliest."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from jivsd.clock import SECOND, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio import TaskStatus


FEW: Final = 1000
"""Forgotten timers that may stay in the heap; beyond that, as many as there are others."""


class Timer:
    """A deadline in microseconds since the epoch and what to call then; `cancel` forgets it."""

    __slots__ = ("_timers", "callback", "deadline")

    def __init__(self, timers: Timers, deadline: int, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._timers.forgot_one()


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
        self._forgotten = 0

    def __len__(self) -> int:
        """How many there are, the forgotten ones included that still take room."""
        return len(self._heap)

    def after(self, seconds: float) -> int:
        """The deadline that is so many seconds from now."""
        return self._clock.now() + round(seconds * SECOND)

    def add(self, deadline: int, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, deadline, callback)
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
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._forgotten -= 1
            else:
                callback()

    def forgot_one(self) -> None:
        """Most deadlines are far away and never come: let go of the forgotten ones before they are the most."""
        self._forgotten += 1
        if self._forgotten > FEW and self._forgotten > len(self._heap) // 2:
            self.tidy()

    def tidy(self) -> None:
        """Let go of the forgotten ones."""
        self._heap = [entry for entry in self._heap if entry[2].callback is not None]
        heapq.heapify(self._heap)
        self._forgotten = 0
