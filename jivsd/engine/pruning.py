"""Removing runs that have ended, beside the work: in small pieces, between which the journal has its turn."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from jivsd.clock import SECOND
from jivsd.engine.api import Invalid, Pruned, Shrunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from jivsd.engine.host import Host
    from jivsd.store.api import RunFilter
    from jivsd.store.removal import Journals, PruneCount

SHARE: Final = 0.1
"""The part of the time that removing may take while there is other work, unless it is said."""
RUNS: Final = 200
"""How many runs are removed in one transaction at most."""
KEYS_KEPT: Final = 24 * 3600 * SECOND
"""How long idempotency keys are kept at least, in microseconds (DESIGN.md section 5)."""


class Pruning:
    """Removes runs of a host's store. Where nothing else is written meanwhile, it takes all the time that it needs."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def prune(self, where: RunFilter, cursor: str | None, seconds: float | None, share: float) -> Pruned:
        """See `Engine.prune`."""
        until = None if seconds is None else time.perf_counter() + seconds
        total = 0
        while True:
            async with self._turn(share):
                page = await self._host.store.prunable(where, RUNS, cursor)
                total += await self._host.store.remove(page.run_ids) if page.run_ids else 0
            cursor = page.next
            if cursor is None or (until is not None and time.perf_counter() >= until):
                return Pruned(total, cursor)

    async def count(self, where: RunFilter) -> list[PruneCount]:
        """See `Engine.count_prunable`."""
        return await self._host.store.count_prunable(where)

    async def journals(self, where: RunFilter, limit: int, cursor: str | None, share: float) -> Journals:
        """See `Engine.prunable_journals`."""
        async with self._turn(share):
            return await self._host.store.journals(where, limit, cursor)

    async def remove(self, run_ids: Sequence[str], share: float) -> Pruned:
        """See `Engine.remove`."""
        total = 0
        for begin in range(0, len(run_ids), RUNS):
            async with self._turn(share):
                total += await self._host.store.remove(run_ids[begin : begin + RUNS])
        return Pruned(total, None)

    async def forget_keys(self, before: int, share: float) -> int:
        """See `Engine.forget_keys`."""
        if before > self._host.clock.now() - KEYS_KEPT:
            raise Invalid("idempotency keys are kept for at least 24 hours: name an earlier time", field="before")
        total, after = 0, ("", "")
        while after is not None:
            async with self._turn(share):
                forgotten, after = await self._host.store.forget_keys(before, after)
            total += forgotten
        return total

    async def shrink(self, seconds: float, share: float) -> Shrunk:
        """See `Engine.shrink`."""
        until = time.perf_counter() + seconds
        total = 0
        while True:
            async with self._turn(share):
                freed, left = await self._host.store.shrink()
            total += freed
            if not left or time.perf_counter() >= until:
                return Shrunk(total, left)

    @asynccontextmanager
    async def _turn(self, share: float) -> AsyncGenerator[None]:
        """Do a piece of work; then let the others have theirs, if they have any."""
        before, began = self._commits(), time.perf_counter()
        yield
        if self._commits() != before or self._host.committer.pending:
            await trio.sleep((time.perf_counter() - began) * (1 / share - 1))

    def _commits(self) -> int:
        return sum(self._host.metrics.journal_batch_size.counts)
