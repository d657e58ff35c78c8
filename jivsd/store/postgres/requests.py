"""The requests in a PostgreSQL journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.store.postgres import rows
from jivsd.store.requests import Asked, Request

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jivsd.records import Incident
    from jivsd.store.postgres.connections import Ask, Connection, Sql


class PostgresSqlRequests:
    """See `jivsd.store.requests.SqlRequests`."""

    def __init__(self, sql: Sql, read: Ask, write: Ask) -> None:
        self._sql = sql
        self._read = read
        self._write = write

    async def waiting(self, shards: Collection[int] | None, after: int, limit: int) -> list[Request]:
        """See `SqlRequests.waiting`."""
        wanted = None if shards is None else sorted(shards)
        found = await self._read(lambda db: db.fetch(self._sql["new_requests"], wanted, after, limit))
        return [Request(*row) for row in found]

    async def settle(self, done: Sequence[str], existing: Mapping[str, str]) -> None:
        """See `SqlRequests.settle`."""

        async def work(db: Connection) -> None:
            async with db.transaction():
                if done:
                    await db.execute(self._sql["delete_requests"], rows.ids(done))
                for id, run_id in existing.items():
                    await db.execute(self._sql["request_exists"], id, run_id)

        await self._write(work)

    async def refuse(self, refused: Sequence[tuple[Request, Incident]]) -> list[Incident]:
        """See `SqlRequests.refuse`."""

        async def work(db: Connection) -> list[Incident]:
            put: list[Incident] = []
            async with db.transaction():
                for request, incident in refused:
                    why = str(incident.details["error"])
                    if await db.fetchval(self._sql["refuse_request"], request.id, request.tries, why):
                        await db.execute(self._sql["put_incident"], *rows.incident_row(incident))
                        put.append(incident)
            return put

        return await self._write(work)

    async def again(self, id: str) -> None:
        """See `SqlRequests.again`."""
        await self._say("renew_request", id)

    async def close(self, id: str) -> None:
        """See `SqlRequests.close`."""
        await self._say("close_request", id)

    async def find(self, id: str) -> Asked | None:
        """See `SqlRequests.find`."""
        if not rows.is_id(id):
            return None
        row = await self._read(lambda db: db.fetchrow(self._sql["request"], id))
        return None if row is None else Asked(*row)

    async def forget(self, before: int) -> None:
        """See `SqlRequests.forget`."""
        await self._say("forget_requests", before)

    async def _say(self, statement: str, *values: Any) -> None:
        await self._write(lambda db: db.execute(self._sql[statement], *values))
