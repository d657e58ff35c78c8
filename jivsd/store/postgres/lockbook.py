"""The queues for locks in a PostgreSQL journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.store.lockbook import Claim, Tangle
from jivsd.store.postgres import rows
from jivsd.store.rows import kin_of, queues_of

if TYPE_CHECKING:
    from jivsd.store.lockbook import LockQueue
    from jivsd.store.postgres.connections import Connection, Sql
    from jivsd.store.tickets import Holder


async def lock_queue(connection: Connection, sql: Sql, key: str | None, limit: int | None) -> list[Holder]:
    """See `LockBook.lock_queue`."""
    if key is None and limit == 1:
        found = await connection.fetch(sql["lock_heads"])
    elif key is None:
        found = await connection.fetch(sql["lock_queues"], limit)
    else:
        found = await connection.fetch(sql["lock_queue"], key, limit)
    return [rows.holder_of(row) for row in found]


async def lock_queues(
    connection: Connection, sql: Sql, key: str | None, limit: int, after: str, places: int
) -> list[LockQueue]:
    """See `LockBook.lock_queues`."""
    return queues_of(await connection.fetch(sql["lock_page"], after, key, limit, places))


async def tangle(connection: Connection, sql: Sql, since: int) -> Tangle:
    """See `LockBook.tangle`."""
    claims = [Claim(*row) for row in await connection.fetch(sql["claims"], since)]
    ids = sorted({claim.run_id for claim in claims if not claim.holds})
    return Tangle(claims, [kin_of(row) for row in await connection.fetch(sql["kin"], ids)] if ids else [])
