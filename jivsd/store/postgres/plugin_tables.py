"""A plugin's own tables in jivsd's database, by the plugin's numbered migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from jivsd.store.api import StoreError
from jivsd.store.plugin_tables import pending
from jivsd.store.postgres.connections import WRITER_WAITS
from jivsd.store.postgres.exclusion import LOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.plugin_tables import Migration, Pending
    from jivsd.store.postgres.connections import Connection, Sql


_PATIENTLY: Final = "SET LOCAL lock_timeout = '30s'"
_BRIEFLY: Final = f"SET LOCAL lock_timeout = '{WRITER_WAITS}'"


async def their_schemas(connection: Connection, sql: Sql) -> str:
    """What makes names without a schema mean plugins' tables, to the end of a transaction.

    They are looked for, and made, where the user's search_path says: in the schema public, mostly. Our own is left out:
    it has the user's name, often, and would come first.
    """
    found = await connection.fetch(sql["search_path"], sql.schema)
    names = ", ".join(row[0] for row in found) or "''"
    return f"SET LOCAL search_path = {names}"


async def migrate(connection: Connection, sql: Sql, plugin: str, migrations: Sequence[Migration]) -> None:
    """See `Store.migrate_plugin`. For where the tables go, see `their_schemas`."""
    path = await their_schemas(connection, sql)
    applied = {row["number"]: row["hash"] for row in await connection.fetch(sql["plugin_migrations"], plugin)}
    for one in pending(plugin, migrations, applied):
        try:
            async with connection.transaction():
                await _apply(connection, sql, path, one)
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            raise StoreError(f"{one.where} failed: {error}") from None


async def _apply(connection: Connection, sql: Sql, path: str, one: Pending) -> None:
    """Apply a migration, unless another node has; nodes that start together take turns."""
    plugin, number, _, digest = one.row
    await connection.execute(_PATIENTLY)
    await connection.fetch("SELECT pg_advisory_xact_lock($1, hashtext($2))", LOCK, sql.schema)
    applied = await connection.fetchval(sql["applied_migration"], plugin, number)
    if applied is not None and applied != digest:
        raise StoreError(f"{one.where} was just applied with another text, by another node")
    if applied is None:
        await connection.execute(_BRIEFLY)
        before = await _tables(connection, sql)
        await connection.execute(path)
        await connection.execute(one.sql)
        made = sorted(await _tables(connection, sql) - before)
        await connection.execute(sql["put_plugin_migration"], *one.row, made)


async def _tables(connection: Connection, sql: Sql) -> set[str]:
    return {name for (name,) in await connection.fetch(sql["all_tables"])}
