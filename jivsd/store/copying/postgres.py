"""A PostgreSQL database that is copied from or to. What is copied to it is one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import trio

from jivsd.bridge import Bridge
from jivsd.masking import masked
from jivsd.store.api import OutcomeUnknown, StoreError
from jivsd.store.copying.foreign import Foreign
from jivsd.store.copying.tables import KEPT_ANYWAY, TABLES, Kind, quoted, refuse_content, refuse_other_version
from jivsd.store.postgres import plugin_tables
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import connect, drop, sql_of, translated, translated_commit
from jivsd.store.postgres.exclusion import Opening, keep_others_out
from jivsd.store.postgres.schema import check_version, migrate
from jivsd.store.postgres.server import check, check_rights
from jivsd.store.statements import migrations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from jivsd.store.copying.tables import Column, Row, Table
    from jivsd.store.plugin_tables import Migration

T = TypeVar("T")

NODE: Final = "jivsd db copy"
PATIENCE: Final = 3_600.0
"""Seconds that the database may take for one thing, and that it lets us do nothing."""

_SETTINGS: Final = (
    f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE:g}s'",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL lock_timeout = '10s'",
)

_FOREIGN_KEYS: Final = """
SELECT conrelid::regclass::text AS place, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY ($1::text[]::regclass[]) ORDER BY conname
"""
_SEQUENCES: Final = """
SELECT quote_ident(attname) AS column, pg_get_serial_sequence($1, attname) AS sequence FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND pg_get_serial_sequence($1, attname) IS NOT NULL
"""
_COLUMNS: Final = """
SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""


class PostgresEnd:
    """A database, opened as the source or as the target of a copy. Its `Rows` belong to it."""

    dialect: Final = "postgres"

    def __init__(self, url: str) -> None:
        """Name the database.

        Raises:
            StoreError: its URL is wrong, or leads to a pooler, where a session and a transaction do not last.
        """
        self.address = address_of(url)
        if self.address.pooled:
            raise StoreError(f"{self.address.shown} leads to a pooler: to copy, name the server itself")
        self.shown = self.address.shown
        self._sql = sql_of(self.address.schema)
        self._schema = self.address.schema
        self._bridge = Bridge("jivsd-copy")
        self._connection: Any = None
        self._transaction: Any = None
        self._schemas: dict[str, str] = {}
        """Where plugins' tables are, by their names."""
        self._last: list[str] = []
        """What has to be done when all rows are there."""

    async def open_source(self) -> None:
        """Keep daemons out.

        Raises:
            StoreError: there is no journal, a daemon has it, or its schema is another one.
        """
        await self._connect()
        version = await self.call(lambda db: check_version(db, self.address))
        if not version:
            raise StoreError(f"the database {self.shown} has no journal in the schema {self._schema}")
        refuse_other_version(version, len(migrations("postgres")), self.shown)
        await self.call(lambda db: check_rights(db, self.address))

    async def begin(self) -> None:
        """Shut a daemon out that does not hold its session (behind a pooler); read one snapshot from now on."""
        await self._begin()
        await self.call(lambda db: db.fetch(self._sql["claim_shards"], NODE, None))
        await self.commit()
        await self._begin(isolation="repeatable_read", readonly=True)

    async def open_target(self) -> None:
        """Keep daemons out, and begin the transaction in which all is written.

        Raises:
            StoreError: there is something in it, a daemon has it, or it cannot be written.
        """
        await self._connect()
        await self._begin()
        version = await self.call(lambda db: check_version(db, self.address))
        if version:
            refuse_other_version(version, len(migrations("postgres")), self.shown)
            await self.call(lambda db: check_rights(db, self.address))
            refuse_content({table.name: await self.count(table) for table in TABLES}, self.shown)
        await self.call(lambda db: migrate(db, self.address))
        await self.call(lambda db: db.fetch(self._sql["claim_shards"], NODE, None))
        for name in KEPT_ANYWAY:
            await self._run(f"DELETE FROM {self._schema}.{name}")

    async def close(self) -> None:
        """Close it; what was not committed is gone."""
        with trio.CancelScope(shield=True):
            if self._connection is not None:
                await self.call(self._drop)
            await self._bridge.close()

    # ---- reading

    async def count(self, table: Table) -> int:
        """How many rows a table has."""
        return await self.call(lambda db: db.fetchval(f"SELECT count(*) FROM {self._place(table)}"))

    async def read(self, table: Table) -> Rows:
        """Begin to read a table."""
        columns = ", ".join(_expression(column, own=table.own) for column in table.columns)
        order = f" ORDER BY {', '.join(map(quoted, table.key))}" if table.key else ""
        asked = f"SELECT {columns} FROM {self._place(table)}{order}"
        return Rows(self, await self.call(lambda db: db.cursor(asked)), table.rows)

    async def epoch(self) -> int:
        """The highest epoch."""
        return await self.call(lambda db: db.fetchval(f"SELECT max(epoch) FROM {self._schema}.shard"))

    async def numbers(self) -> dict[str, int]:
        """The highest number that was ever given to a row of some tables."""
        found: dict[str, int] = {}
        for table in TABLES:
            if table.counted:
                asked = f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {await self._sequence(table)}"
                found[table.name] = await self.call(lambda db, asked=asked: db.fetchval(asked))
        return found

    async def foreign(self) -> dict[str, Foreign]:
        """The tables that plugins' migrations have made."""
        return await self.call(self._foreign)

    async def applied(self) -> dict[str, dict[int, str]]:
        """Of each plugin the migrations that were applied here: number and hash."""
        found: dict[str, dict[int, str]] = {}
        asked = f"SELECT plugin, number, hash FROM {self._schema}.plugin_migration"
        for plugin, number, digest in await self.call(lambda db: db.fetch(asked)):
            found.setdefault(plugin, {})[number] = digest
        return found

    # ---- writing

    async def migrate(self, plugin: str, wanted: Sequence[Migration]) -> None:
        """Make a plugin's tables.

        Raises:
            StoreError: a migration fails.
        """
        await self.call(lambda db: plugin_tables.migrate(db, self._sql, plugin, wanted))

    async def free(self, made: Sequence[Foreign], taken: Sequence[Table]) -> None:
        """Let rows of plugins in as they are, in any order: empty the tables that were `made`; no triggers, no foreign
        keys until the end in those that are `taken`.
        """
        await self.call(lambda db: self._free(db, made, taken))

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows."""
        try:
            await self.call(lambda db: self._write(db, table, rows))
        except StoreError as error:
            if isinstance(error.__cause__, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
                said = masked(str(error.__cause__))
                raise StoreError(f"PostgreSQL cannot take a row of the table {table.name}: {said}") from None
            raise

    async def settle(self, epoch: int, numbers: Mapping[str, int]) -> None:
        """Shut former owners out, and go on counting where the source has stopped."""
        await self._run(f"UPDATE {self._schema}.shard SET epoch = {epoch:d}, node = '', claim = NULL")
        for table in TABLES:
            if table.counted and numbers[table.name]:
                sequence = await self._sequence(table)
                await self.call(
                    lambda db, sequence=sequence, table=table: db.execute(
                        "SELECT setval($1::text::regclass, $2)", sequence, numbers[table.name]
                    )
                )
        await self._run(self._sql["fold_counts"])
        for statement in self._last:
            await self._run(statement)
        await self._run(f"ANALYZE {', '.join(f'{self._schema}.{table.name}' for table in TABLES)}")

    async def problems(self) -> list[str]:
        """What does not belong together."""
        found = await self.call(lambda db: db.fetch(self._sql["check_counts"]))
        return [f"the runs of {workflow} are miscounted" for workflow, _ in found]

    async def commit(self) -> None:
        """Make it so, durably.

        Raises:
            OutcomeUnknown: the connection was lost meanwhile.
        """
        try:
            await self._bridge.call(self._transaction.commit, timeout=PATIENCE)
        except Exception as error:
            meant = translated_commit(error, self.address)
            if isinstance(meant, OutcomeUnknown):
                raise OutcomeUnknown(f"{meant}; copy again: if all is there, that is refused") from error
            raise meant from error

    # ---- in trio

    async def call(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Work with the connection, in the bridge's loop."""
        try:
            return await self._bridge.call(lambda: work(self._connection), timeout=PATIENCE)
        except StoreError:
            raise
        except Exception as error:
            raise translated(error, self.address) from error

    async def _run(self, statement: str) -> None:
        await self.call(lambda db: db.execute(statement))

    async def _connect(self) -> None:
        self._bridge.start()
        self._connection = await self.call(lambda _: connect(self.address, "copy"))
        await self.call(lambda db: check(db, self.address))
        await self.call(lambda db: keep_others_out(db, self.address, Opening(NODE, "", share=False, version="")))

    async def _begin(self, **kind: Any) -> None:
        self._transaction = self._connection.transaction(**kind)
        await self.call(lambda _: self._transaction.start())
        for setting in _SETTINGS:
            await self._run(setting)

    async def _sequence(self, table: Table) -> str:
        place = f"{self._schema}.{table.name}"
        return await self.call(lambda db: db.fetchval("SELECT pg_get_serial_sequence($1, 'number')", place))

    def _place(self, table: Table) -> str:
        schema = self._schema if table.own else self._schemas[table.name]
        return f"{quoted(schema)}.{quoted(table.name)}"

    # ---- in the bridge's loop

    async def _drop(self, connection: Any) -> None:
        drop(connection)

    async def _write(self, connection: Any, table: Table, rows: Sequence[Row]) -> None:
        columns = [column.name for column in table.columns]
        if table.own:
            await connection.copy_records_to_table(table.name, schema_name=self._schema, columns=columns, records=rows)
            return
        text = bytearray("".join(f"{','.join(map(_field, row))}\n" for row in rows).encode())
        schema = self._schemas[table.name]
        await connection.copy_to_table(table.name, schema_name=schema, columns=columns, source=text, format="csv")

    async def _foreign(self, connection: Any) -> dict[str, Foreign]:
        found: dict[str, Foreign] = {}
        for schema, name in await connection.fetch(self._sql["plugin_tables"]):
            if name in found:
                raise StoreError(f"there are two plugin tables {name}, in {self._schemas[name]} and in {schema}")
            self._schemas[name] = schema
            place = f"{quoted(schema)}.{quoted(name)}"
            columns = dict(map(tuple, await connection.fetch(_COLUMNS, place)))
            rows = await connection.fetchval(f"SELECT count(*) FROM {place}")
            found[name] = Foreign(name, place, columns, rows)
        return found

    async def _free(self, connection: Any, made: Sequence[Foreign], taken: Sequence[Table]) -> None:
        for table in made:
            await connection.execute(f"TRUNCATE {table.place} CASCADE")
        places = [self._place(table) for table in taken]
        for place in places:
            await connection.execute(f"ALTER TABLE {place} DISABLE TRIGGER USER")
            self._last.append(f"ALTER TABLE {place} ENABLE TRIGGER USER")
            for column, sequence in await connection.fetch(_SEQUENCES, place):
                top = f"SELECT setval('{sequence}', max({column})) FROM {place}"
                self._last.append(f"{top} HAVING max({column}) > 0")
        for place, name, definition in await connection.fetch(_FOREIGN_KEYS, places):
            await connection.execute(f"ALTER TABLE {place} DROP CONSTRAINT {name}")
            self._last.append(f"ALTER TABLE {place} ADD CONSTRAINT {name} {definition}")


class Rows:
    """The rows of a table, some at a time."""

    def __init__(self, end: PostgresEnd, cursor: Any, most: int) -> None:
        self._end = end
        self._cursor = cursor
        self._most = most

    async def fetch(self) -> list[Row]:
        """The next rows; none: there are no more."""
        return [tuple(row) for row in await self._end.call(lambda _: self._cursor.fetch(self._most))]


def _expression(column: Column, *, own: bool) -> str:
    as_text = column.kind is Kind.ID or (not own and column.kind in (Kind.TEXT, Kind.OTHER))
    return f"{quoted(column.name)}::text" if as_text else quoted(column.name)


def _field(value: Any) -> str:
    """A value of a plugin, as CSV that every type of PostgreSQL can read."""
    if value is None:
        return ""
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    return quoted(text)
