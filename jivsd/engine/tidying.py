"""Tidying: the part of the engine's front that removes what is old."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from jivsd.engine.host import Host
from jivsd.engine.pruning import SHARE, Pruning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.engine.api import Pruned, Shrunk
    from jivsd.store.api import RunFilter
    from jivsd.store.removal import Journals, PruneCount


class Tidying(Host):
    """What can be removed. `share` is the part of the time that it may take while there is other work."""

    @cached_property
    def _pruning(self) -> Pruning:
        return Pruning(self)

    async def clear_outbox(self, before: int) -> int:
        """Remove what was published before a time (microseconds), in small batches. Returns how many there were."""
        total = 0
        while removed := await self.store.clear_outbox(before, 500):
            total += removed
        return total

    async def prune(
        self, where: RunFilter, cursor: str | None = None, *, seconds: float | None = None, share: float = SHARE
    ) -> Pruned:
        """Remove ended runs and their journals, oldest first, for about so many seconds; all of them by default.

        Runs whose parent or whose child is open stay.
        """
        return await self._pruning.prune(where, cursor, seconds, share)

    async def count_prunable(self, where: RunFilter) -> list[PruneCount]:
        """How many runs `prune` would remove, by workflow and status."""
        return await self._pruning.count(where)

    async def prunable_journals(
        self, where: RunFilter, limit: int = 200, cursor: str | None = None, *, share: float = SHARE
    ) -> Journals:
        """A page of the runs that `prune` would remove, with their journals: for an archive."""
        return await self._pruning.journals(where, limit, cursor, share)

    async def remove(self, run_ids: Sequence[str], *, share: float = SHARE) -> Pruned:
        """Remove those of these runs that `prune` could remove."""
        return await self._pruning.remove(run_ids, share)

    async def forget_keys(self, before: int, *, share: float = SHARE) -> int:
        """Forget the idempotency keys from before a time whose runs have been removed. Returns how many.

        Raises:
            Invalid: the time is less than 24 hours ago.
        """
        return await self._pruning.forget_keys(before, share)

    async def shrink(self, *, seconds: float = 1.0, share: float = SHARE) -> Shrunk:
        """Give room in the database that nothing lies in back to the disk, for about so many seconds."""
        return await self._pruning.shrink(seconds, share)
