"""Passivation: a run that waits leaves memory after a while, and at once when too many wait there.

Which run has waited longest is known without looking at any: each that comes to rest goes to the end of the line.
(DESIGN.md section 5.)
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from jivsd.clock import SECOND
from jivsd.engine import parking

if TYPE_CHECKING:
    from collections.abc import Generator

    from jivsd.clock import Clock
    from jivsd.engine.actor import Actor
    from jivsd.store.api import Verdict

AT_ONCE: Final = 250
"""How many runs leave together; the next ones when that has been written, so that nobody else has to wait long."""
GLANCE: Final = 0.01
"""Seconds between two looks at the least, while somebody is about to be woken by a timer."""
LOOKS: Final = 20
"""How often in the time that a run may wait in memory it is looked who has waited that long, at most."""


class Passivation:
    """The actors of the runs that wait, the one that has done so longest first."""

    def __init__(self, clock: Clock, *, after: float, resident: int) -> None:
        """Prepare; `run` does the work.

        Args:
            clock: journal time.
            after: how many seconds a run waits in memory; 0: it leaves as soon as it can; inf: it stays.
            resident: how many runs may wait in memory.
        """
        self._clock = clock
        self._after = after
        self._resident = resident
        self._resting: dict[Actor, float] = {}
        self._kept: Counter[str] = Counter()
        self._look = trio.Event()

    def __len__(self) -> int:
        """How many runs in memory wait."""
        return len(self._resting)

    @property
    def excess(self) -> int:
        """How many runs wait in memory beyond those that may; negative while there is room."""
        return len(self._resting) - len(self._kept) - self._resident

    def rests(self, actor: Actor) -> None:
        """A run has come to rest: it waits, until more is said of it."""
        resting = self._resting
        if not resting or not self._after or len(resting) >= self._resident:
            self._look.set()
        resting.pop(actor, None)
        resting[actor] = trio.current_time()

    def forget(self, actor: Actor) -> None:
        """A run has left memory."""
        self._resting.pop(actor, None)

    @contextmanager
    def keeping(self, run_id: str) -> Generator[None]:
        """Let a run stay in memory meanwhile, because somebody is about to tell it something."""
        self._kept[run_id] += 1
        try:
            yield
        finally:
            self._kept[run_id] -= 1
            if not self._kept[run_id]:
                del self._kept[run_id]
            self._look.set()

    async def run(self) -> None:
        """Let runs go until cancelled."""
        while True:
            self._look = trio.Event()
            while leaving := self._next():
                await self._part(leaving)
            with trio.move_on_after(self._pause()):
                await self._look.wait()

    def _next(self) -> list[Actor]:
        """Take those out of the line who are to leave next."""
        now = trio.current_time()
        soon = self._clock.now() + self._after * SECOND
        leaving: list[Actor] = []
        for actor, since in list(islice(self._resting.items(), 2 * AT_ONCE)):
            too_many = len(self._resting) > self._resident
            if len(leaving) == AT_ONCE or not (too_many or since + self._after <= now):
                break
            if actor.run.run_id in self._kept:
                continue
            del self._resting[actor]
            if not actor.idle:  # it will say so when it rests again
                continue
            wake_at = parking.wake_at(actor)
            if wake_at is not None and wake_at < (self._clock.now() if too_many else soon):
                self._resting[actor] = now  # it would be back in a moment
            else:
                leaving.append(actor)
        return leaving

    async def _part(self, leaving: list[Actor]) -> None:
        """Have runs leave; return when all that has to be written for it has been."""
        owed = 0
        written = trio.Event()

        def told(_: Verdict) -> None:
            nonlocal owed
            owed -= 1
            if not owed:
                written.set()

        for actor in leaving:
            owed += parking.park(actor, told)
        if owed:
            await written.wait()

    def _pause(self) -> float:
        """Seconds until somebody has waited long enough."""
        first = next((since for actor, since in self._resting.items() if actor.run.run_id not in self._kept), None)
        if first is None:
            return inf
        return max(first + self._after - trio.current_time(), self._after / LOOKS, GLANCE)
