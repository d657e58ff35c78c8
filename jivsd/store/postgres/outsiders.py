"""Sessions of others that hold what the journal needs: who they are, and what of it is free.

A batch never waits long for them (DESIGN.md section 3). What is held by them is left for later, and said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from jivsd import logs
from jivsd.store.api import StoreAway
from jivsd.store.postgres.connections import translated

if TYPE_CHECKING:
    from collections.abc import Collection

    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection, Sql

log = logs.get(__name__)

MOST: Final = 5
"""How many sessions are named."""
_SHOWN: Final = 100
"""Characters of a statement that are shown."""


async def held_shards(connection: Connection, sql: Sql, address: Address, shards: Collection[int]) -> set[int]:
    """The shards among these whose rows somebody holds, after something was waited for in vain.

    Raises:
        StoreAway: somebody locks a whole table against writing, or waits to; nothing can be written until that is over.
    """
    try:
        locks = await connection.fetch(sql["table_locks"], sql.schema)
        if locks:
            what = f"the table {locks[0]['relation']} is locked by {_session(locks[0])}"
            raise StoreAway(f"cannot write to the database {address.shown}: {what}")
        held = set(shards) - {shard for (shard,) in await connection.fetch(sql["free_shards"], sorted(shards))}
        if held:
            who = await sessions(connection, sql)
            log.error("shards are locked; their runs wait", shards=sorted(held), by=who)
    except asyncpg.PostgresError as error:
        raise translated(error, address) from error
    return held


async def sessions(connection: Connection, sql: Sql) -> list[str]:
    """Who has a transaction open in which something of the journal was locked or written, the oldest first."""
    return [_session(row) for row in await connection.fetch(sql["outsiders"], sql.schema, MOST)]


def _session(row: Any) -> str:
    said = f"{row['application'] or 'a session'} (process {row['pid']}, user {row['user']}"
    if row["seconds"] is not None:
        said += f", transaction open for {row['seconds']:.0f} s"
    query = " ".join((row["query"] or "").split())[:_SHOWN]
    return f"{said}, last: {query})" if query else f"{said})"
