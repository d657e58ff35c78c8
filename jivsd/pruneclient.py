"""The client's calls for pruning: those of long work that goes on request by request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd.admin import wire
from jivsd.asking import Calls
from jivsd.clock import as_datetime
from jivsd.engine.api import Pruned, Shrunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jivsd.store.api import RunFilter
    from jivsd.store.removal import Journals, PruneCount

PATIENCE: Final = 600.0
"""Seconds to wait for an answer: a piece of work takes about one, and its pauses up to so many more."""
SHARE: Final = 0.1
"""The part of the time that pruning takes while the daemon has other work, unless it is said."""


class PruneCalls(Calls):
    """What a client can ask about removing. `share` is the part of the time that it may take beside other work."""

    async def prune(
        self, where: RunFilter, *, share: float = SHARE, on_progress: Callable[[int], None] = lambda _: None
    ) -> int:
        """Remove ended runs, those that ended before `where.ended_before`; returns how many there were.

        `on_progress` is told every second or so how many are removed. What is removed stays so if the call is ended.
        """
        total, cursor = 0, None
        while True:
            body = _prune_body(where, cursor, share)
            page = await self._post("/prune", Pruned, body, patience=PATIENCE)
            total, cursor = total + page.pruned, page.next
            on_progress(total)
            if cursor is None:
                return total

    async def count_prunable(self, where: RunFilter) -> list[PruneCount]:
        """How many runs `prune` would remove, by workflow and status."""
        body = _prune_body(where, None, SHARE)
        return (await self._post("/prune/count", wire.PruneCounts, body, patience=PATIENCE)).items

    async def prunable_journals(self, where: RunFilter, cursor: str | None = None, *, share: float = SHARE) -> Journals:
        """A page of the runs that `prune` would remove, oldest first, with their journals."""
        body = _prune_body(where, cursor, share)
        return (await self._post("/prune/journals", wire.JournalPage, body, patience=PATIENCE)).record()

    async def remove(self, run_ids: Sequence[str], *, share: float = SHARE) -> int:
        """Remove those of these runs, 500 at most, that `prune` could remove; returns how many there were."""
        body = wire.RemoveBody(list(run_ids), share)
        return (await self._post("/prune/runs", Pruned, body, patience=PATIENCE)).pruned

    async def forget_keys(self, before: int, *, share: float = SHARE) -> int:
        """Forget the idempotency keys from before a time, 24 hours ago at least, whose runs have been removed."""
        body = wire.KeysBody(as_datetime(before), share)
        return (await self._post("/prune/keys", wire.Forgotten, body, patience=PATIENCE)).forgotten

    async def shrink(self, *, share: float = SHARE, on_progress: Callable[[int], None] = lambda _: None) -> int:
        """Give room in the database that nothing lies in back to the disk; returns how many bytes."""
        total = 0
        while True:
            step = await self._post("/prune/shrink", Shrunk, wire.ShrinkBody(share), patience=PATIENCE)
            total += step.freed
            on_progress(total)
            if not step.left:
                return total


def _prune_body(where: RunFilter, cursor: str | None, share: float) -> wire.PruneBody:
    return wire.PruneBody(
        workflow=where.workflow,
        id=where.workflow_id,
        status=list(where.statuses),
        parent=where.parent,
        correlation_id=where.correlation_id,
        ended_before=wire.moment(where.ended_before),
        attributes=where.attributes,
        cursor=cursor,
        share=share,
    )
