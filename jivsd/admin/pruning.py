"""The routes of pruning: count, take along, remove, and give the room back.

Each works for about a second and says where to go on: so a caller sees the progress, and can stop it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd.admin.access import admin_only
from jivsd.admin.http import Route, answer, body_of, duration, moment_of, operation
from jivsd.admin.problems import Problem
from jivsd.admin.wire import (
    MAX_PAGE,
    Forgotten,
    JournalPage,
    KeysBody,
    PruneBody,
    PruneCounts,
    RemoveBody,
    ShrinkBody,
)
from jivsd.clock import SystemClock
from jivsd.engine.api import Pruned, Shrunk
from jivsd.records import ENDED
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine

SECONDS: Final = 1.0
"""How long one request works, apart from its last piece."""


class PruneRoutes:
    """Answers everything under /prune."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            ("POST", "/prune", self.prune),
            ("POST", "/prune/count", self.count),
            ("POST", "/prune/journals", self.journals),
            ("POST", "/prune/runs", self.remove),
            ("POST", "/prune/keys", self.keys),
            ("POST", "/prune/shrink", self.shrink),
        ]

    @admin_only
    @operation(body=PruneBody, required=True, answers={200: Pruned})
    async def prune(self) -> Response:
        """Remove ended runs."""
        body = await body_of(PruneBody)
        where = _filter(body)
        return answer(await self._engine.prune(where, body.cursor, seconds=SECONDS, share=body.share))

    @admin_only
    @operation(body=PruneBody, required=True, answers={200: PruneCounts})
    async def count(self) -> Response:
        """How many runs would be removed."""
        return answer(PruneCounts(await self._engine.count_prunable(_filter(await body_of(PruneBody))), None))

    @admin_only
    @operation(body=PruneBody, required=True, answers={200: JournalPage})
    async def journals(self) -> Response:
        """A page of runs that would be removed, with their journals."""
        body = await body_of(PruneBody)
        page = await self._engine.prunable_journals(_filter(body), MAX_PAGE, body.cursor, share=body.share)
        return answer(JournalPage.of(page))

    @admin_only
    @operation(body=RemoveBody, required=True, answers={200: Pruned})
    async def remove(self) -> Response:
        """Remove the ended runs that are named; the others stay."""
        body = await body_of(RemoveBody)
        return answer(await self._engine.remove(body.run_ids, share=body.share))

    @admin_only
    @operation(body=KeysBody, required=True, answers={200: Forgotten})
    async def keys(self) -> Response:
        """Forget the idempotency keys of runs that have been removed."""
        body = await body_of(KeysBody)
        before = moment_of(body.before, "before") or 0
        return answer(Forgotten(await self._engine.forget_keys(before, share=body.share)))

    @admin_only
    @operation(body=ShrinkBody, answers={200: Shrunk})
    async def shrink(self) -> Response:
        """Give free room back to the disk."""
        body = await body_of(ShrinkBody, required=False)
        return answer(await self._engine.shrink(seconds=SECONDS, share=body.share))


def _filter(body: PruneBody) -> RunFilter:
    """Which runs are meant. A limit in time has to be given: nobody should remove them all by leaving it out."""
    if (body.ended_before is None) == (body.older_than is None):
        raise Problem(422, "invalid", "give one of `older_than` and `ended_before`", {"field": "older_than"})
    if open_ones := [status for status in body.status if status not in ENDED]:
        detail = f"the field `status` does not fit: runs that are {open_ones[0]} have not ended"
        raise Problem(422, "invalid", detail, {"field": "status"})
    if body.older_than is not None:
        before = SystemClock().now() - duration(body.older_than, "older_than")
    else:
        before = moment_of(body.ended_before, "ended_before")
    return RunFilter(
        workflow=body.workflow,
        workflow_id=body.id,
        statuses=body.status,
        parent=body.parent,
        correlation_id=body.correlation_id,
        ended_before=before,
        attributes=body.attributes,
    )
