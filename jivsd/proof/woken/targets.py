"""Sources and targets of migrations, and a watch in each PostgreSQL target over who writes there.

The watch is a trigger on the fence's table, that fires when a transaction commits and says as whom and by what right it
was made. Rows that none of those transactions has written were written past the fence.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

import trio

from jivsd.proof.woken.checks import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

TABLES: Final = ("ledger", "words", "pairs")
CHUNK: Final = 10
"""Rows of a chunk: there are to be many."""

_SOURCE: Final = (
    "CREATE TABLE ledger (id bigint PRIMARY KEY, account integer NOT NULL, amount numeric(12, 2), note text)",
    "CREATE INDEX by_account ON ledger (account)",
    "CREATE TABLE words (n integer, word text)",
    "CREATE TABLE pairs (a text, b integer, c text, PRIMARY KEY (a, b))",
)
_FILL: Final = (
    "INSERT INTO ledger SELECT n, n % 7, n * 1.25, repeat('x', n % 50) FROM generate_series(1, {rows}) AS n",
    "INSERT INTO words SELECT n % 11, 'word ' || n FROM generate_series(1, {rows}) AS n",
    "INSERT INTO pairs SELECT 'a' || n % 5, n, NULL FROM generate_series(1, {rows}) AS n",
)
_WATCH: Final = (
    "CREATE SCHEMA watch",
    """CREATE TABLE watch.written (
    number bigserial PRIMARY KEY, transaction xid NOT NULL,
    node text NOT NULL, said text NOT NULL, run text NOT NULL)""",
    """CREATE FUNCTION watch.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO watch.written (transaction, node, said, run)
    VALUES (pg_current_xact_id()::xid, session_user, current_setting('application_name'), new.run);
    RETURN NULL;
END $$""",
    """CREATE FUNCTION watch.begin() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
               WHERE command_tag = 'CREATE TABLE' AND object_identity = 'public._jivsd_fence') THEN
        CREATE CONSTRAINT TRIGGER noted AFTER INSERT OR UPDATE ON public._jivsd_fence
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION watch.note();
    END IF;
END $$""",
    "CREATE EVENT TRIGGER watch_begins ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION watch.begin()",
)
_WRITTEN: Final = "SELECT node, said, run FROM watch.written GROUP BY 1, 2, 3, transaction ORDER BY min(number)"
_STRANGE: Final = (
    "SELECT count(*) FROM public.{table} WHERE NOT EXISTS (SELECT FROM watch.written WHERE transaction = {table}.xmin)"
)
_CONTENT: Final = "SELECT count(*), md5(string_agg(one::text, ';' ORDER BY one::text)) FROM public.{table} AS one"


class Ask(Protocol):
    """Asks a database of the private server: its name, and SQL."""

    def __call__(self, database: str, sql: str, *arguments: Any) -> Awaitable[list[Any]]: ...


class Target(Protocol):
    """What one migration writes."""

    endpoint: dict[str, str]
    """As a request names it."""
    source: dict[str, str]

    async def make(self) -> None:
        """Have it ready, and empty."""
        ...

    async def written(self) -> list[Line]:
        """What was written, and by whom, as far as that can be known."""
        ...

    async def differences(self) -> list[str]:
        """How it differs from the source, asked in SQL of our own."""
        ...

    async def remove(self) -> None:
        """Leave nothing of it."""
        ...


async def prepare(ask: Ask, files: Path, rows: int) -> None:
    """Make the sources, and the database of which each target is a copy."""
    for database in ("source", "watched"):
        await ask("postgres", f"CREATE DATABASE {database}")
    for statement in (*_SOURCE, *(one.format(rows=rows) for one in _FILL)):
        await ask("source", statement)
    for statement in _WATCH:
        await ask("watched", statement)
    with closing(sqlite3.connect(files / "source.db")) as db, db:
        for statement in _SOURCE:
            db.execute(statement)
        for table in TABLES:
            found = [_plain(row) for row in await ask("source", f"SELECT * FROM {table}")]
            db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0]))})", found)


def _plain(row: Any) -> tuple[Any, ...]:
    return tuple(value if isinstance(value, int | str | None) else float(value) for value in row)


class InPostgres:
    """A database of the private server; each node connects to it as a user of its own."""

    def __init__(self, ask: Ask, url: str, number: int) -> None:
        """`url`: of any of the server's databases."""
        self._ask = ask
        self._name = f"target_{number}"
        port = urlsplit(url).port
        place = f"127.0.0.1:{port}"  # as whom is left to PGUSER
        self.source = _endpoint("postgresql", urlunsplit(("postgresql", place, "/source", "", "")))
        self.endpoint = _endpoint("postgresql", urlunsplit(("postgresql", place, f"/{self._name}", "", "")))

    async def make(self) -> None:
        """See `Target.make`."""
        await self._ask("postgres", f"CREATE DATABASE {self._name} TEMPLATE watched")

    async def written(self) -> list[Line]:
        """See `Target.written`."""
        return [Line(*row) for row in await self._ask(self._name, _WRITTEN)]

    async def differences(self) -> list[str]:
        """See `Target.differences`; rows that were written past the fence included."""
        found: list[str] = []
        for table in TABLES:
            mine, theirs = [await self._ask(name, _CONTENT.format(table=table)) for name in (self._name, "source")]
            if mine != theirs:
                found.append(f"{self._name}: table {table} has {mine[0][0]} rows, the source's {theirs[0][0]}")
            ((strange,),) = await self._ask(self._name, _STRANGE.format(table=table))
            if strange:
                found.append(f"{self._name}: {strange} rows of table {table} were written past the fence")
        return found

    async def remove(self) -> None:
        """See `Target.remove`."""
        await self._ask("postgres", f"DROP DATABASE {self._name} WITH (FORCE)")


class InFile:
    """An SQLite file. Who writes there cannot be known; what is written twice is seen."""

    def __init__(self, files: Path, number: int) -> None:
        self._path = files / f"target-{number}.db"
        self._source = files / "source.db"
        self.source = _endpoint("sqlite", f"sqlite:///{self._source}")
        self.endpoint = _endpoint("sqlite", f"sqlite:///{self._path}")

    async def make(self) -> None:
        """See `Target.make`: the migration does it."""

    async def written(self) -> list[Line]:
        """See `Target.written`."""
        return []

    async def differences(self) -> list[str]:
        """See `Target.differences`."""
        return await trio.to_thread.run_sync(self._compare)

    def _compare(self) -> list[str]:
        found: list[str] = []
        with closing(sqlite3.connect(self._path)) as mine, closing(sqlite3.connect(self._source)) as theirs:
            for table in TABLES:
                rows = [sorted(db.execute(f"SELECT * FROM {table}"), key=repr) for db in (mine, theirs)]
                if rows[0] != rows[1]:
                    found.append(
                        f"{self._path.name}: table {table} has {len(rows[0])} rows, the source's {len(rows[1])}"
                    )
        return found

    async def remove(self) -> None:
        """See `Target.remove`."""
        self._path.unlink(missing_ok=True)


def _endpoint(system: str, url: str) -> dict[str, str]:
    return {"system": system, "url": url}
