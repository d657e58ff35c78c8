"""Housekeeping: memory that a wave of runs has needed goes back to the system, once the wave has passed.

What a run leaves behind is free, but Python gives memory back only in pieces of a megabyte, and a single forgotten
timer keeps each of them. So what is dead and still held is let go of first. Measured after 7,000 runs in memory at
once: 80 MB more than before without this, 26 MB with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs, memory
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from jivsd.engine.timers import Timers
    from jivsd.journal.committer import Committer
    from jivsd.store.api import Store

log = logs.get(__name__)

WAVE: Final = 1000
"""How many runs have left memory since the last time, when it is worth looking."""
QUIET: Final = 1.0
"""Seconds in which no run has left memory and nothing is to be written: then nobody is kept waiting."""


class Housekeeping:
    """One task of a host."""

    def __init__(self, store: Store, committer: Committer, timers: Timers) -> None:
        self._store = store
        self._committer = committer
        self._timers = timers
        self._left = 0
        self._wave = trio.Event()

    def left(self) -> None:
        """A run has left memory."""
        self._left += 1
        if self._left == WAVE:
            self._wave.set()

    async def run(self) -> None:
        """Tidy up after every wave, until cancelled."""
        while True:
            await self._wave.wait()
            before = -1
            while before != self._left or self._committer.pending:
                before = self._left
                await trio.sleep(QUIET)
            self._left = 0
            self._wave = trio.Event()
            await self.tidy()

    async def tidy(self) -> None:
        """Give back what nobody needs."""
        self._timers.tidy()
        try:
            await self._store.trim()
        except StoreError as error:
            log.warning("the store kept its memory", why=str(error))
        memory.trim()
