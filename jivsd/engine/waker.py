"""The waker: brings parked runs back when their time comes.

However many are parked, all it knows of them is when the earliest has to be back; the rest stands in the store, in
order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd.store.api import Wake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.clock import Clock
    from jivsd.engine.timers import Timer, Timers

PAGE: Final = 500
"""How many are read from the store at once."""
FIRST: Final = Wake(-1, "")


class Waker:
    """One task for all parked runs."""

    def __init__(
        self,
        clock: Clock,
        timers: Timers,
        *,
        read: Callable[[Wake, int], Awaitable[list[Wake]]],
        bring: Callable[[str], Awaitable[None]],
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            clock: journal time.
            timers: where it has itself woken.
            read: see `Store.wakes`.
            bring: brings a run back, unless it is in memory; returns when the next may be.
        """
        self._clock = clock
        self._timers = timers
        self._read = read
        self._bring = bring
        self._timer: Timer | None = None
        self._look = trio.Event()

    def expect(self, at: int | None) -> None:
        """A run has been parked until then."""
        if at is None or (self._timer is not None and self._timer.deadline <= at):
            return
        self._set(at)

    def look(self) -> None:
        """There may be others than those that it was told of."""
        self._look.set()

    async def run(self) -> None:
        """Bring back whoever's time has come, until cancelled."""
        while True:
            self._forget()
            self._look = trio.Event()
            self.expect(await self._bring_due())
            await self._look.wait()

    async def _bring_due(self) -> int | None:
        """Bring those back whose time has come; return when the next one's will have."""
        after = FIRST
        while True:
            page = await self._read(after, PAGE)
            for wake in page:
                if wake.at > self._clock.now():
                    return wake.at
                await self._bring(wake.run_id)
            if len(page) < PAGE:
                return None
            after = page[-1]

    def _set(self, at: int) -> None:
        self._forget()
        self._timer = self._timers.add(at, lambda: self._look.set())

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
