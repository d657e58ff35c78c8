"""A copy of a journal from PostgreSQL as a SQLite database: for the checks, and for anyone who counts again.

The tables have the same names and columns as in PostgreSQL; JSON that is kept as bytes there is text here.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jivsd.store.postgres.connections import Connection

AT_ONCE: Final = 2_000
"""Rows that are read at once."""

_TABLES: Final = """
SELECT nspname, relname, array_agg(attname::text ORDER BY attnum) AS columns
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = ANY ($1::text[]) AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
GROUP BY nspname, relname ORDER BY nspname, relname
"""
_INDEXES: Final = (
    "CREATE INDEX run_id ON run (run_id)",
    "CREATE INDEX run_parent ON run (parent)",
    "CREATE INDEX event_run ON event (run_id, seq)",
    "CREATE INDEX payload_hash ON payload (hash)",
    "CREATE INDEX inbox_run ON inbox (run_id)",
    'CREATE INDEX inbox_by ON inbox ("by")',
    "CREATE INDEX outbox_run ON outbox (run_id)",
    "CREATE INDEX attribute_run ON attribute (run_number)",
    "CREATE INDEX ledger_run ON torture_ledger (run_id)",
)


async def copy(connection: Connection, schemas: Sequence[str], target: Path) -> None:
    """Write all tables of schemas, as they are at one moment, into a new file, in place of one that is there.

    Raises:
        Exception: whatever the driver says.
    """
    made = target.with_suffix(".new")
    made.unlink(missing_ok=True)
    with closing(sqlite3.connect(made, check_same_thread=False)) as db:
        db.execute("PRAGMA synchronous = OFF")
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for schema, table, columns in await connection.fetch(_TABLES, schemas):
                await _copy_table(connection, schema, table, columns, db)
        for index in _INDEXES:
            db.execute(index)
        db.commit()
    made.replace(target)


async def _copy_table(connection: Any, schema: str, table: str, columns: list[str], db: sqlite3.Connection) -> None:
    names = ", ".join(f'"{column}"' for column in columns)
    db.execute(f'CREATE TABLE "{table}" ({names})')
    insert = f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(columns))})'
    cursor = await connection.cursor(f'SELECT {names} FROM {schema}."{table}"')
    while rows := await cursor.fetch(AT_ONCE):
        db.executemany(insert, [[_plain(value) for value in row] for row in rows])


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode()
        case list():
            return json.dumps(value, default=str)
        case UUID():
            return str(value)
        case _:
            return value
