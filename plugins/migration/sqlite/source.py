"""An SQLite database that is read: rows in the order of a key, chunk by chunk."""

from __future__ import annotations

import sqlite3
from itertools import chain
from typing import TYPE_CHECKING

from ..content import add, content_of, shown, size_of
from ..keys import encode_key
from ..model import Hashed, Measured, Part
from ..planning import cut
from ..rows import CHUNK_BYTES, Rows, slices
from .catalogue import read_catalogue
from .connect import reading, tolerant
from .sql import quoted, reads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..catalogue import Catalogue
    from ..model import Key, Table
    from ..rows import Row

_sampled_rows = 200
_hashed_rows = 20_000
_hashed_bytes = 32 << 20
"""What one step hashes at most: well under a second's work."""


class SqliteDatabase:
    """An SQLite file. Every method opens it, reads and closes it."""

    def __init__(self, path: str, role: str) -> None:
        self.path = path
        self.role = role

    def catalogue(self) -> Catalogue:
        with reading(self.path, self.role) as db:
            return read_catalogue(db)

    def measure(self, table: Table, ranges: int, chunk_rows: int) -> Measured:
        """Count a table's rows, estimate their bytes, and cut it into at most `ranges` parts."""
        with reading(self.path, self.role) as db:
            (rows,) = db.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()
            sample = tolerant(db, lambda: list(_read(db, table, None, None, _sampled_rows)))
            size = size_of(sample) * rows // len(sample) if sample else 0
            parts = [Part(table.name, 0)]
            if ranges > 1 and rows and len(table.key) == 1 and table.key[0].collation is None:
                key = quoted(table.key[0].name)
                first, last = db.execute(f"SELECT min(t.{key}), max(t.{key}) FROM {quoted(table.name)} AS t").fetchone()
                parts = cut(table.name, first, last, rows, ranges, chunk_rows)
            return Measured(rows, size, parts)

    def read(self, table: Table, after: Key | None, until: int | None, limit: int) -> Rows:
        """The next rows behind the key `after`: at most `limit`, fewer when they are large."""
        with reading(self.path, self.role) as db:
            values, size = tolerant(db, lambda: _gather(_read(db, table, after, until, limit), limit))
            return Rows(
                values,
                size,
                after=_key_of(table, values[-1]) if values else after,
                done=len(values) < limit and size < CHUNK_BYTES,
                raw=db.text_factory is not str,
            )

    def content(self, table: Table, after: Key | None) -> Hashed:
        """The content of the next rows behind the key `after`: of as many as a step may hash."""
        with reading(self.path, self.role) as db:
            return tolerant(db, lambda: _content(_read(db, table, after, None, _hashed_rows), table, after))

    def broken_references(self, table: str) -> dict[str, int] | None:
        """By referenced table, how many rows of `table` refer to rows that are not there.

        A referenced table that is not there at all is left out. None: SQLite cannot tell, because the referenced
        columns are not unique.
        """
        sql = "SELECT parent, count(*) FROM pragma_foreign_key_check(?) GROUP BY parent"
        with reading(self.path, self.role) as db:
            present = {it.casefold() for (it,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            try:
                broken = db.execute(sql, (table,)).fetchall()
            except sqlite3.OperationalError as error:
                if not str(error).startswith("foreign key mismatch"):
                    raise
                return None
            return {parent: count for parent, count in broken if parent.casefold() in present}


def _read(db: sqlite3.Connection, table: Table, after: Key | None, until: int | None, limit: int) -> Iterator[Row]:
    return chain.from_iterable(db.execute(*statement) for statement in reads(table, after, until, limit))


def _gather(rows: Iterator[Row], limit: int) -> tuple[list[Row], int]:
    values: list[Row] = []
    size = 0
    for taken, weight in slices(rows, limit, CHUNK_BYTES):
        values += taken
        size += weight
    return values, size


def _content(rows: Iterator[Row], table: Table, after: Key | None) -> Hashed:
    total = count = size = 0
    last: Row | None = None
    width = len(table.columns)
    for taken, weight in slices(rows, _hashed_rows, _hashed_bytes):
        total = add(total, content_of([row[:width] for row in taken] if table.hidden else taken))
        count += len(taken)
        size += weight
        last = taken[-1]
    return Hashed(
        rows=count,
        bytes=size,
        sum=shown(total),
        after=_key_of(table, last) if last is not None else after,
        done=count < _hashed_rows and size < _hashed_bytes,
    )


def _key_of(table: Table, row: Row) -> Key:
    places = {name: place for place, name in enumerate([*table.columns, *table.hidden])}
    return encode_key([row[places[part.name]] for part in table.key])
