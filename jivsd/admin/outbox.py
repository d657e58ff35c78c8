"""The routes of the outbox: what runs have published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from jivsd.admin.access import admin_only
from jivsd.admin.http import Route, answer, body_of, duration, moment_of, operation, query_of
from jivsd.admin.problems import Problem
from jivsd.admin.publications import ClearBody, Cleared, OutboxPage
from jivsd.admin.runs import Limit
from jivsd.clock import SystemClock

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class OutboxQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    topic: str | None = None
    limit: Limit = 100


class OutboxRoutes:
    """Answers everything under /outbox."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [("GET", "/outbox", self.page), ("POST", "/outbox/prune", self.prune)]

    @operation(query=OutboxQuery, answers={200: OutboxPage})
    async def page(self) -> Response:
        """List what runs have published, in order."""
        query = query_of(OutboxQuery)
        return answer(OutboxPage.of(await self._engine.outbox(query.after, query.limit, query.topic)))

    @admin_only
    @operation(body=ClearBody, required=True, answers={200: Cleared})
    async def prune(self) -> Response:
        """Remove what is old. A limit in time has to be given."""
        body = await body_of(ClearBody)
        if (body.before is None) == (body.older_than is None):
            raise Problem(422, "invalid", "give one of `older_than` and `before`", {"field": "older_than"})
        if body.older_than is not None:
            before = SystemClock().now() - duration(body.older_than, "older_than")
        else:
            before = moment_of(body.before, "before") or 0
        return answer(Cleared(await self._engine.clear_outbox(before)))
