"""Counting by SQL, in the databases themselves, what a trial has lost or recorded twice: everything must be zero."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import apsw
import msgspec

from jivsd.store.sqlite.database import connect_reader, query
from jivsd.store.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Iterator

Means = Literal["lost", "twice", "wrong"]

_HERE: Final = Path(__file__).parent


class Count(msgspec.Struct, frozen=True):
    """One thing that was counted: `found` should be zero. `sql` counts it again."""

    means: Means
    what: str
    found: int
    sql: str


class Databases(msgspec.Struct, frozen=True):
    """Where the databases of a trial are, by the names that the SQL calls them."""

    main: Path
    """The journal."""
    notes: Path
    world: Path
    source: Path | None = None
    target: Path | None = None

    def attached(self) -> dict[str, Path]:
        """All but the journal."""
        named = {"notes": self.notes, "world": self.world, "source": self.source, "target": self.target}
        return {name: path for name, path in named.items() if path is not None}


class Recount(msgspec.Struct, frozen=True):
    """What was counted. `rows` are those of the migration's target; `again`: how many steps were done once more,
    because their process was killed before it had recorded them."""

    counts: list[Count]
    rows: int
    again: int
    runs: dict[str, int]
    """By workflow and status, such as "order COMPLETED"."""

    def total(self, means: Means) -> int:
        """The sum of what was found of one meaning."""
        return sum(count.found for count in self.counts if count.means == means)

    @property
    def holds(self) -> bool:
        """Whether everything is zero."""
        return not any(count.found for count in self.counts)


def recount(databases: Databases) -> Recount:
    """Count. The daemon must have ended."""
    with closing(connect_reader(str(databases.main))) as db:
        for name, path in databases.attached().items():
            query(db, f"ATTACH ? AS {name}", (str(path),))
        named = list(_named("recount.sql"))
        if databases.target is not None:
            named += [*_named("recount_migration.sql"), *_tables(db)]
        counts = [_count(db, *one) for one in named]
        again = _one(db, "SELECT (SELECT count(*) FROM world.call) - (SELECT count(*) FROM world.effect)")
        return Recount(counts, 0 if databases.target is None else _rows(db), again, _runs(db))


def _count(db: apsw.Connection, means: Means, what: str, sql: str) -> Count:
    try:
        return Count(means, what, _one(db, sql), sql)
    except apsw.Error as error:  # a damaged page, a table that is not there
        return Count("wrong", f"{what}: cannot be counted, {error}", 1, sql)


def _rows(db: apsw.Connection) -> int:
    try:
        return sum(_one(db, f"SELECT count(*) FROM target.{_quoted(table)}") for table in _table_names(db))
    except apsw.Error:  # which the counts have found already
        return 0


def _runs(db: apsw.Connection) -> dict[str, int]:
    try:
        return dict(query(db, "SELECT workflow || ' ' || status, count(*) FROM main.run GROUP BY 1 ORDER BY 1"))
    except apsw.Error:
        return {}


def script(databases: Databases, counts: list[Count]) -> str:
    """The same as a script for the sqlite3 shell, with which anybody can count again."""
    lines = [f"-- sqlite3 -readonly {databases.main} < this file. Each line of the answer must end with 0."]
    lines += [f"ATTACH {_literal(str(path))} AS {name};" for name, path in databases.attached().items()]
    lines += [f"SELECT {_literal(f'{count.means}: {count.what}')}, (\n{count.sql}\n);" for count in counts]
    return "\n".join(lines) + "\n"


def _named(file: str) -> Iterator[tuple[Means, str, str]]:
    path = _HERE / file
    statements = Statements(path.read_text(encoding="utf-8"), str(path))
    for name, description in statements.descriptions.items():
        yield cast("Means", name.partition("_")[0]), description, statements[name]


def _tables(db: apsw.Connection) -> Iterator[tuple[Means, str, str]]:
    """For each table of the source, how many rows the target lacks and how many it has too many, by their content."""
    for table in _table_names(db):
        columns = [name for (name,) in query(db, "SELECT name FROM pragma_table_xinfo(?, 'source')", (table,))]
        content = ", ".join(f"quote({_quoted(name)}) AS c{number}" for number, name in enumerate(columns))
        both = " UNION ALL ".join(
            f"SELECT {content}, {side} AS side FROM {schema}.{_quoted(table)}"
            for schema, side in (("source", 1), ("target", -1))
        )
        equal = ", ".join(f"c{number}" for number in range(len(columns)))
        rows = f"FROM (SELECT sum(side) AS side FROM ({both}) GROUP BY {equal})"
        yield "lost", f"rows of {table} missing in the target", f"SELECT coalesce(sum(max(side, 0)), 0) {rows}"
        yield "twice", f"rows of {table} too many in the target", f"SELECT coalesce(sum(max(-side, 0)), 0) {rows}"


def _table_names(db: apsw.Connection) -> list[str]:
    sql = (
        "SELECT name FROM source.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY 1"
    )
    return [name for (name,) in query(db, sql)]


def _one(db: apsw.Connection, sql: str) -> Any:
    return query(db, sql).fetchall()[0][0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
