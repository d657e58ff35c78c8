"""The schema of a PostgreSQL journal: made and brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg

from jivsd.records import SHARDS
from jivsd.store.api import StoreError
from jivsd.store.postgres.address import database_of
from jivsd.store.postgres.connections import in_schema, sql_of
from jivsd.store.postgres.exclusion import LOCK
from jivsd.store.statements import migrations

if TYPE_CHECKING:
    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection


async def migrate(connection: Connection, address: Address) -> None:
    """Bring the schema up to date, each migration in a transaction of its own; a new database gets its shards.

    Raises:
        StoreError: it is newer than this program, another program's, or we may not make it.
    """
    sql = sql_of(address.schema)
    for migration in migrations("postgres"):
        async with connection.transaction():
            # one daemon at a time, also behind a pooler
            await connection.execute("SET LOCAL lock_timeout = '30s'")
            await connection.fetch("SELECT pg_advisory_xact_lock($1, hashtext($2))", LOCK, address.schema)
            if migration.number > await check_version(connection, address):
                await connection.execute("SET LOCAL lock_timeout = '5s'")
                await _make_schema(connection, address)
                await connection.execute(in_schema(migration.sql, address.schema))
                await connection.execute(sql["put_meta"], "schema", str(migration.number))
                if migration.number == 1:
                    await connection.execute(sql["insert_shards"], SHARDS)
                    await connection.execute(sql["put_meta"], "shards", str(SHARDS))
                    await connection.execute(sql["put_meta"], "id", str(uuid4()))
    if await connection.fetchval(sql["meta"], "shards") != str(SHARDS):
        raise StoreError(f"the database {address.shown} was made with another number of shards than {SHARDS}")


async def check_version(connection: Connection, address: Address) -> int:
    """The number of the last migration of a database; 0 if it is new.

    Raises:
        StoreError: it is newer than this program, or another program's.
    """
    found = await connection.fetchrow(
        "SELECT count(*) AS relations, count(*) FILTER (WHERE relname = 'meta') AS meta FROM pg_class"
        " JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1",
        address.schema,
    )
    assert found is not None
    if not found["meta"]:
        if found["relations"]:
            raise StoreError(
                f"the schema {address.schema} of the database {address.shown} is another program's: name another one "
                "for jivsd's own, ?schema=…"
            )
        return 0
    try:
        version = int(await connection.fetchval(sql_of(address.schema)["meta"], "schema") or 0)
    except asyncpg.InsufficientPrivilegeError:
        raise StoreError(
            f"the database {address.shown} has a journal in the schema {address.schema} that belongs to another user: "
            "connect as that one, or let an administrator grant its permissions"
        ) from None
    newest = len(migrations("postgres"))
    if version > newest:
        raise StoreError(
            f"the database {address.shown} has schema version {version}, this jivsd knows up to {newest}: use the "
            "newer jivsd that made it, or restore a backup from before"
        )
    return version


async def _make_schema(connection: Connection, address: Address) -> None:
    if await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", address.schema):
        return
    user = await connection.fetchval("SELECT current_user::text")
    try:
        await connection.execute(f"CREATE SCHEMA {address.schema}")
    except asyncpg.InsufficientPrivilegeError:
        raise StoreError(
            f"the database {address.shown} lets its user make no schema; an administrator can say, in "
            f"{database_of(address)}: CREATE SCHEMA {address.schema} AUTHORIZATION {user}"
        ) from None
