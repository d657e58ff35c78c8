"""A plugin's own tables in jivsd's database, by the plugin's numbered migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from jivsd.records import hash_of
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.api import Migration
    from jivsd.store.postgres.connections import Connection, Sql


async def migrate(connection: Connection, sql: Sql, plugin: str, migrations: Sequence[Migration]) -> None:
    """See `Store.migrate_plugin`. The tables go where the user's search_path says: into the schema public, mostly."""
    applied = {row["number"]: row["hash"] for row in await connection.fetch(sql["plugin_migrations"], plugin)}
    for migration in migrations:
        where = f"migration {migration.number:04}_{migration.name} of plugin {plugin!r}"
        digest = hash_of(migration.sql.encode())
        if migration.number in applied:
            if applied[migration.number] != digest:
                raise StoreError(f"{where} was applied with another text; leave it as it was and add another one")
            continue
        try:
            async with connection.transaction():
                await connection.execute(sql["put_plugin_migration"], plugin, migration.number, migration.name, digest)
                await connection.execute(migration.sql)
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            raise StoreError(f"{where} failed: {error}") from None
