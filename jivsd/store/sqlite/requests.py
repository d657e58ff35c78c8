"""The requests in an embedded journal: those that were copied from one in PostgreSQL."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jivsd.store.requests import Asked, Request
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import first, query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import apsw

    from jivsd.records import Incident
    from jivsd.store.sqlite.database import Ask

_sql = statements("sqlite")


class SqliteSqlRequests:
    """See `jivsd.store.requests.SqlRequests`."""

    def __init__(self, read: Ask, write: Ask) -> None:
        self._read = read
        self._write = write

    async def waiting(self, shards: Collection[int] | None, after: int, limit: int) -> list[Request]:
        """See `SqlRequests.waiting`."""
        wanted = None if shards is None else json.dumps(sorted(shards))
        found = await self._read(lambda db: query(db, _sql["new_requests"], (wanted, after, limit)).fetchall())
        return [Request(*[*row[:-2], *(text.encode() for text in row[-2:])]) for row in found]

    async def settle(self, done: Sequence[str], existing: Mapping[str, str]) -> None:
        """See `SqlRequests.settle`."""

        def work(db: apsw.Connection) -> None:
            with together(db):
                query(db, _sql["delete_requests"], (json.dumps(list(done)),))
                for id, run_id in existing.items():
                    query(db, _sql["request_exists"], (id, run_id))

        await self._write(work)

    async def refuse(self, refused: Sequence[tuple[Request, Incident]]) -> list[Incident]:
        """See `SqlRequests.refuse`."""

        def work(db: apsw.Connection) -> list[Incident]:
            put: list[Incident] = []
            with together(db):
                for request, incident in refused:
                    why = str(incident.details["error"])
                    if first(db, _sql["refuse_request"], request.id, request.tries, why):
                        query(db, _sql["put_incident"], rows.incident_row(incident))
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
        row = await self._read(lambda db: first(db, _sql["request"], id))
        return None if row is None else Asked(*row)

    async def forget(self, before: int) -> None:
        """See `SqlRequests.forget`."""
        await self._say("forget_requests", before)

    async def _say(self, statement: str, *values: Any) -> None:
        await self._write(lambda db: query(db, _sql[statement], values))
