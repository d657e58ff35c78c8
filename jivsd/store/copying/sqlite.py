"""A SQLite file that is copied from or to. What is copied to it is written into a new file that then gets its name."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import apsw
import trio

from jivsd.store.api import StoreError
from jivsd.store.copying.foreign import Foreign, fitting
from jivsd.store.copying.tables import TABLES, Kind, quoted, refuse_content, refuse_other_version
from jivsd.store.sqlite import plugin_tables
from jivsd.store.sqlite.database import (
    FileLock,
    check_version,
    connect_reader,
    connect_writer,
    first,
    migrate,
    own_names,
    query,
    translated,
)
from jivsd.store.sqlite.transaction import Guard
from jivsd.store.sqlite.upkeep import sync_folder
from jivsd.store.sqlite.worker import ThreadWorker
from jivsd.store.statements import migrations, statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jivsd.store.copying.tables import Column, Row, Table
    from jivsd.store.plugin_tables import Migration

T = TypeVar("T")

BULK: Final = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA foreign_keys = OFF")
"""For a file that nobody has until it is whole and synced."""
LOGS: Final = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a file; it would take them for those of any other file of that name."""
CACHE: Final = "PRAGMA cache_size = -65536"

_sql: Final = statements("sqlite")


class SqliteEnd:
    """A file, opened as the source or as the target of a copy. Its `Rows` belong to it."""

    dialect: Final = "sqlite"

    def __init__(self, path: Path) -> None:
        self.shown = str(path)
        self.path = str(path)
        self._partial = f"{path}.copying"
        self._lock: FileLock | None = None
        self._worker: ThreadWorker | None = None
        self._writes = False
        self._epoch = 0
        self._guard: Guard

    async def open_source(self) -> None:
        """Keep daemons out.

        Raises:
            StoreError: there is no such file, a daemon has it, or its schema is another one.
        """
        if not await trio.Path(self.path).is_file():  # or the lock would make a file beside nothing
            raise StoreError(f"there is no database {self.path}")
        self._lock = FileLock(self.path)
        self._connect(connect_reader(self.path))
        await self.call(self._check_schema)

    async def begin(self) -> None:
        """What is read from now on is of one snapshot."""
        await self.call(lambda db: query(db, "BEGIN"))

    async def open_target(self) -> None:
        """Keep daemons out, and begin a new file.

        Raises:
            StoreError: there is something in the file, a daemon has it, or it cannot be written.
        """
        self._lock = FileLock(self.path)
        try:
            if await trio.Path(self.path).exists():
                await self._check_empty()
            for left in (f"{self.path}{end}" for end in LOGS):
                if await trio.Path(left).exists():
                    raise StoreError(f"there is a file {left} of a database that is gone: remove it first")
            self._remove_partial()
        except OSError as error:
            raise StoreError(f"cannot write the database {self.path}: {error.strerror}") from None
        connection = connect_writer(self._partial)
        self._writes = True
        self._guard = Guard(connection)
        self._connect(connection)
        await self.call(self._prepare)

    async def close(self) -> None:
        """Close it; what was not committed is gone."""
        await self._disconnect()
        if self._writes:
            self._remove_partial()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # ---- reading

    async def count(self, table: Table) -> int:
        """How many rows a table has."""
        return await self.call(lambda db: _count(db, table.name))

    async def read(self, table: Table) -> Rows:
        """Begin to read a table."""
        return Rows(self, table, await self.call(lambda db: query(db, _select(table))))

    async def epoch(self) -> int:
        """The highest epoch."""
        return max(self._epoch, await self.call(_highest_epoch))

    async def numbers(self) -> dict[str, int]:
        """The highest number that was ever given to a row of some tables."""
        return await self.call(_numbers)

    async def foreign(self) -> dict[str, Foreign]:
        """All tables that are not ours: those of plugins."""
        return await self.call(_foreign)

    async def applied(self) -> dict[str, dict[int, str]]:
        """Of each plugin the migrations that were applied here: number and hash."""
        found: dict[str, dict[int, str]] = {}
        for plugin, number, digest in await self.call(
            lambda db: query(db, "SELECT plugin, number, hash FROM plugin_migration").fetchall()
        ):
            found.setdefault(plugin, {})[number] = digest
        return found

    # ---- writing

    async def migrate(self, plugin: str, wanted: Sequence[Migration]) -> None:
        """Make a plugin's tables.

        Raises:
            StoreError: a migration fails.
        """
        await self.call(lambda db: plugin_tables.migrate(db, self._guard, plugin, wanted))

    async def free(self, made: Sequence[Foreign], taken: Sequence[Table]) -> None:
        """Let rows of plugins in as they are: empty the tables that were `made`; no triggers from now on."""

        def work(db: apsw.Connection) -> None:
            db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            for table in made:
                query(db, f"DELETE FROM {table.place}")

        await self.call(work)

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows."""
        kept = [column for column in table.columns if column.sqlite is None]  # they come first
        names = ", ".join(quoted(column.name) for column in kept)
        sql = f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({', '.join('?' * len(kept))})"
        as_text = {place: bytes.decode for place, column in enumerate(kept) if column.kind is Kind.JSON}
        try:
            values = _changed([row[: len(kept)] for row in rows], as_text)
        except UnicodeDecodeError as error:
            raise StoreError(f"SQLite cannot take a row of the table {table.name}: {error}") from None

        def work(db: apsw.Connection) -> None:
            query(db, "BEGIN")
            try:
                cast("Any", db).executemany(sql, values)
            except (apsw.ConstraintError, apsw.MismatchError) as error:
                raise StoreError(f"SQLite cannot take a row of the table {table.name}: {error}") from None
            finally:
                query(db, "COMMIT")

        await self.call(work)

    async def settle(self, epoch: int, numbers: Mapping[str, int]) -> None:
        """Shut former owners out, and go on counting where the source has stopped."""

        def work(db: apsw.Connection) -> None:
            query(db, "UPDATE shard SET epoch = ?", (epoch,))
            query(db, "DELETE FROM sqlite_sequence WHERE name = 'outbox'")
            query(db, "INSERT INTO sqlite_sequence (name, seq) SELECT 'outbox', ?1 WHERE ?1 > 0", (numbers["outbox"],))

        await self.call(work)

    async def problems(self) -> list[str]:
        """What does not belong together."""

        return await self.call(_problems)

    async def commit(self) -> None:
        """Give the new file its name, durably."""
        await self.call(lambda db: query(db, "PRAGMA journal_mode = DELETE").fetchall())
        await self._disconnect()
        try:
            file = os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(self._partial, self.path)
            sync_folder(os.path.dirname(self.path))
        except OSError as error:
            raise StoreError(f"cannot write the database {self.path}: {error.strerror}") from None
        self._writes = False

    # ----

    def _connect(self, connection: apsw.Connection) -> None:
        self._worker = ThreadWorker("jivsd-copy", [connection])

    async def call(self, work: Callable[[apsw.Connection], T]) -> T:
        """Work with the connection, in its thread."""
        assert self._worker is not None
        try:
            return await self._worker.call(work)
        except apsw.Error as error:
            raise translated(error, self.path) from error

    def _check_schema(self, db: apsw.Connection) -> None:
        version = check_version(db, self.path)
        if not version:
            raise StoreError(f"{self.path} is not a database of jivsd")
        refuse_other_version(version, len(migrations("sqlite")), self.path)

    async def _check_empty(self) -> None:
        """Look whether the file that is there may go; it has no log beside it then."""
        self._connect(connect_writer(self.path))
        try:
            await self.call(self._look)
        finally:
            await self._disconnect()

    def _look(self, db: apsw.Connection) -> None:
        version = check_version(db, self.path)
        if version:
            refuse_other_version(version, len(migrations("sqlite")), self.path)
            found = {table.name: _count(db, table.name) for table in TABLES}
            found |= {table.name: table.rows for table in _foreign(db).values()}
            refuse_content(found, self.path)
            self._epoch = _highest_epoch(db)
        query(db, "PRAGMA journal_mode = DELETE").fetchall()

    def _prepare(self, db: apsw.Connection) -> None:
        for pragma in (*BULK, CACHE):
            query(db, pragma).fetchall()
        migrate(db, self._partial)

    async def _disconnect(self) -> None:
        if self._worker is not None:
            worker, self._worker = self._worker, None
            with trio.CancelScope(shield=True):
                await worker.close()

    def _remove_partial(self) -> None:
        for end in ("", *LOGS):
            with suppress(FileNotFoundError):
                os.remove(self._partial + end)


class Rows:
    """The rows of a table, some at a time."""

    def __init__(self, end: SqliteEnd, table: Table, found: Iterator[Row]) -> None:
        self._end = end
        self._rows = table.rows
        self._changes = {
            place: change for place, column in enumerate(table.columns) if (change := _change(table, column))
        }
        self._found = found

    async def fetch(self) -> list[Row]:
        """The next rows; none: there are no more."""
        return await self._end.call(lambda _: _changed(list(islice(self._found, self._rows)), self._changes))


def _change(table: Table, column: Column) -> Callable[[Any], Any] | None:
    """What has to be done to the values of a column that are read."""
    match column.kind:
        case Kind.ANY:
            return None
        case _ if not table.own:
            return partial(fitting, table, column)
        case Kind.JSON:
            return str.encode
        case Kind.TRUTH:
            return bool
        case _:
            return None


def _changed(rows: list[Row], changes: Mapping[int, Callable[[Any], Any]]) -> list[Row]:
    """Rows with what was done to some values, by their places; those that are None stay so."""
    if not changes:
        return rows
    done: list[Row] = []
    for row in rows:
        values = list(row)
        for place, change in changes.items():
            if values[place] is not None:
                values[place] = change(values[place])
        done.append(tuple(values))
    return done


def _select(table: Table) -> str:
    name = quoted(table.name)
    columns = ", ".join(column.sqlite or f"{name}.{quoted(column.name)}" for column in table.columns)
    order = f" ORDER BY {', '.join(f'{name}.{quoted(column)}' for column in table.key)}" if table.key else ""
    return f"SELECT {columns} FROM {table.source or name}{order}"


def _count(db: apsw.Connection, name: str) -> int:
    return (first(db, f"SELECT count(*) FROM {quoted(name)}") or (0,))[0]


def _highest_epoch(db: apsw.Connection) -> int:
    return (first(db, "SELECT max(epoch) FROM shard") or (0,))[0]


def _numbers(db: apsw.Connection) -> dict[str, int]:
    """An outbox never uses a number again; the others' highest one is that of a row."""
    found = {
        table.name: (first(db, f"SELECT max(number) FROM {quoted(table.name)}") or (0,))[0] or 0
        for table in TABLES
        if table.counted
    }
    drawn = first(db, "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
    return found | ({"outbox": drawn[0]} if drawn is not None else {})


def _foreign(db: apsw.Connection) -> dict[str, Foreign]:
    names = query(
        db,
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
        " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name",
    ).fetchall()
    return {
        name: Foreign(name, quoted(name), _columns(db, name), _count(db, name))
        for (name,) in names
        if name.lower() not in own_names()
    }


def _columns(db: apsw.Connection, table: str) -> dict[str, str]:
    """The columns that are not derived from others."""
    found = query(db, "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", (table,))
    return {name: "" for (name,) in found}


def _problems(db: apsw.Connection) -> list[str]:
    broken = query(db, 'SELECT "table", parent FROM pragma_foreign_key_check').fetchall()
    found = [f"a row of the table {table} refers to one of {parent} that is not there" for table, parent in broken[:1]]
    found += [f"the runs of {workflow} are miscounted" for workflow, _ in query(db, _sql["check_counts"])]
    return found
