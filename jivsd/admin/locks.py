"""The route of locks: who holds them, and who waits for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jivsd.admin.http import Route, answer, operation, query_of
from jivsd.admin.lockwire import LockPage
from jivsd.admin.runs import Limit

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class LockQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str | None = None
    limit: Limit = 50
    cursor: str | None = None
    waiters: Limit = 20


class LockRoutes:
    """Answers /locks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [("GET", "/locks", self.page)]

    @operation(query=LockQuery, answers={200: LockPage})
    async def page(self) -> Response:
        """List the queues of locks, and the circles of runs that wait for one another."""
        query = query_of(LockQuery)
        found = await self._engine.lock_queues(query.key, query.limit, query.cursor, waiters=query.waiters)
        return answer(LockPage.of(found))
