"""A plugin's own tables in jivsd's database, by the plugin's numbered migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from jivsd.store.api import StoreError
from jivsd.store.plugin_tables import pending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.api import Migration
    from jivsd.store.postgres.connections import Connection, Sql


async def migrate(connection: Connection, sql: Sql, plugin: str, migrations: Sequence[Migration]) -> None:
    """See `Store.migrate_plugin`. The tables go where the user's search_path says: into the schema public, mostly."""
    applied = {row["number"]: row["hash"] for row in await connection.fetch(sql["plugin_migrations"], plugin)}
    for where, migration, row in pending(plugin, migrations, applied):
        try:
            async with connection.transaction():
                before = await _tables(connection, sql)
                await connection.execute(migration)
                made = sorted(await _tables(connection, sql) - before)
                await connection.execute(sql["put_plugin_migration"], *row, made)
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            raise StoreError(f"{where} failed: {error}") from None


async def _tables(connection: Connection, sql: Sql) -> set[str]:
    return {name for (name,) in await connection.fetch(sql["all_tables"])}
