"""From SQLite to PostgreSQL: what becomes of tables, types and values.

SQLite keeps whatever value it is given, whatever the column says; PostgreSQL does not. So a column gets the type that
its declaration asks for only if all its values fit that, or else text. Values cross as PostgreSQL's texts.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from .catalogue import Catalogue
from .content import content_of, shown, size_of
from .errors import MigrationError
from .keys import RawText
from .model import Definition, Hashed
from .postgresql.connect import quoted
from .postgresql.source import canonical
from .sqlite.connect import reading
from .sqlite.source import SqliteDatabase

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from .model import Key, Table
    from .rows import Row, Rows

_hashed_rows = 5_000
_number = re.compile(r"[+-]?\d+(\.\d+)?")
_text = re.compile(r"'(?:[^']|'')*'")
_now = {"CURRENT_TIMESTAMP": "timestamp", "CURRENT_DATE": "date", "CURRENT_TIME": "time"}
_fits = {
    "bigint": "typeof({0}) = 'integer'",
    "double precision": "typeof({0}) IN ('real', 'integer')",
    "numeric": "typeof({0}) IN ('real', 'integer') AND abs({0}) < 9e307",
    "boolean": "typeof({0}) = 'integer' AND {0} IN (0, 1)",
    "date": "typeof({0}) = 'text' AND {0} = strftime('%Y-%m-%d', {0})",
    "timestamp": "typeof({0}) = 'text' AND {0} = strftime('%Y-%m-%d %H:%M:%S', {0})",
    "bytea": "typeof({0}) = 'blob'",
    "text": "typeof({0}) <> 'blob'",
}
"""By type, what is true of the values that it takes."""


def wanted(declared: str) -> str:
    """The type that a declaration asks for, by SQLite's rules (https://sqlite.org/datatype3.html, 3.1) and habit."""
    name = declared.upper()
    for part, kind in (
        ("BOOL", "boolean"),
        ("INT", "bigint"),
        ("DATETIME", "timestamp"),
        ("TIMESTAMP", "timestamp"),
        ("DATE", "date"),
        ("CHAR", "text"),
        ("CLOB", "text"),
        ("TEXT", "text"),
        ("BLOB", "bytea"),
        ("REAL", "double precision"),
        ("FLOA", "double precision"),
        ("DOUB", "double precision"),
        ("NUM", "numeric"),
        ("DEC", "numeric"),
    ):
        if part in name:
            return kind
    return "text"


def as_text(kind: str, value: Any) -> str | None:
    """A value that fits a type, as PostgreSQL writes it.

    Raises:
        ValueError: PostgreSQL has no such value; the message says why.
    """
    match value:
        case None:
            return None
        case RawText():
            raise ValueError("a text that is not valid UTF-8")
        case bytes():
            return f"\\x{value.hex()}"
        case str():
            if "\0" in value:
                raise ValueError("a text with a NUL character")
            return value
        case float() if kind == "double precision":
            return canonical(repr(value))
        case float() if kind == "numeric":
            return format(Decimal(repr(value or 0.0)), "f")  # there is no negative zero
        case int() if kind == "boolean":
            return "true" if value else "false"
        case int() if kind == "double precision":
            return repr(float(value))
        case _:
            return str(value)


class SqliteForPostgres(SqliteDatabase):
    """An SQLite file, read as if it were in PostgreSQL."""

    def catalogue(self) -> Catalogue:
        """All but the rows; looks at all values, for the types."""
        held = super().catalogue()
        with reading(self.path, self.role) as db:
            return _Translator(db, held).catalogue()

    def read(self, table: Table, after: Key | None, until: int | None, limit: int) -> Rows:
        rows = super().read(table, after, until, limit)
        values = self._converted(table, rows.values)
        return type(rows)(values, size_of(values) if values else 0, rows.after, rows.done)

    def content(self, table: Table, after: Key | None) -> Hashed:
        rows = self.read(table, after, None, _hashed_rows)
        return Hashed(len(rows.values), rows.bytes, shown(content_of(rows.values)), rows.after, rows.done)

    def broken_references(self, table: str) -> dict[str, int] | None:
        return {}

    def _converted(self, table: Table, rows: list[Row]) -> list[Row]:
        kinds = table.kinds
        converters: list[Callable[[Any], str | None]] = [partial(as_text, kind) for kind in kinds]
        try:
            return [tuple(convert(it) for convert, it in zip(converters, row, strict=False)) for row in rows]
        except ValueError as error:
            raise MigrationError(f"table {table.name!r} has {error}, which PostgreSQL cannot hold") from None


class _Translator:
    def __init__(self, db: sqlite3.Connection, held: Catalogue) -> None:
        self._db = db
        self._held = held
        self._notes: list[str] = []
        self._definitions: list[Definition] = []
        self._positions: dict[str, int | str] = {}

    def catalogue(self) -> Catalogue:
        held = self._held
        tables = {name: self._table(name, table) for name, table in held.tables.items()}
        for it in held.definitions:
            if it.kind in ("view", "trigger"):
                self._notes.append(f"{it.kind} {it.name!r} is written for SQLite; make it in the target by hand")
        return Catalogue(
            tables=tables,
            unsupported=held.unsupported,
            required=held.required,
            definitions=self._definitions,
            settings=self._positions,
            sequences={},
            analysed=True,
            fenced=held.fenced,
            notes=self._notes,
        )

    def _table(self, name: str, table: Table) -> Table:
        columns = {row[1]: row for row in self._db.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))}
        kinds: list[str] = []
        lines: list[str] = []
        alone = table.primary[0] if len(table.primary) == 1 and table.key[0].collation is None else None
        for column in table.columns:
            _, _, declared, not_null, default, _, _ = columns[column]
            kind = self._kind(name, column, declared)
            kinds.append(kind)
            words = [quoted(column), kind]
            if column == alone and kind == "bigint" and table.key[0].name == column:
                words.append(f"GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME {quoted(f'{name}_{column}_seq')})")
                self._position(name, column)
            elif default is not None and (said := self._default(name, column, kind, default)) is not None:
                words.append(f"DEFAULT {said}")
            if not_null or (column in table.primary and self._is_filled(name, column)):
                words.append("NOT NULL")
            lines.append(" ".join(words))
        self._define(
            "table", name, name, f"CREATE TABLE {quoted(name)} (\n    {(',' + chr(10) + '    ').join(lines)}\n)"
        )
        self._constrain(name, table)
        if re.search(r"\bCHECK\b", next(it.sql for it in self._held.definitions if it.name == name), re.IGNORECASE):
            self._notes.append(f"the checks of table {name!r} are left out: they are written for SQLite")
        generated = [it for it, row in columns.items() if row[6] in (2, 3)]
        if generated:
            self._notes.append(f"the generated columns {generated} of table {name!r} are left out")
        return msgspec.structs.replace(table, kinds=kinds)

    def _kind(self, table: str, column: str, declared: str) -> str:
        """The type of a column: what its declaration asks for, if all its values fit."""
        one = quoted(column)
        for kind in dict.fromkeys([wanted(declared), "text", "bytea"]):
            misfits = f"SELECT 1 FROM {quoted(table)} WHERE {one} IS NOT NULL AND ({_fits[kind].format(one)}) IS NOT 1"
            if self._db.execute(f"{misfits} LIMIT 1").fetchone() is None:
                if kind != wanted(declared):
                    self._notes.append(f"column {column!r} of table {table!r} becomes {kind}: it has other values too")
                return kind
        raise MigrationError(f"column {column!r} of table {table!r} has texts and blobs; leave it out with exclude")

    def _position(self, table: str, column: str) -> None:
        last = self._held.sequences.get(table)
        if last is None:
            (last,) = self._db.execute(f"SELECT max({quoted(column)}) FROM {quoted(table)}").fetchone()
        self._positions[f"{table}_{column}_seq"] = f"{max(last or 1, 1)},{str(bool(last and last > 0)).lower()}"

    def _is_filled(self, table: str, column: str) -> bool:
        sql = f"SELECT 1 FROM {quoted(table)} WHERE {quoted(column)} IS NULL LIMIT 1"
        return self._db.execute(sql).fetchone() is None

    def _default(self, table: str, column: str, kind: str, default: str) -> str | None:
        if default.upper() == "NULL":
            return None
        if kind in ("bigint", "double precision", "numeric") and _number.fullmatch(default):
            return default
        if kind in ("text", "date", "timestamp") and _text.fullmatch(default):
            return default
        if kind == "boolean" and default in ("0", "1"):
            return "true" if default == "1" else "false"
        if _now.get(default.upper()) == kind:
            return default
        self._notes.append(f"the default {default} of column {column!r} of table {table!r} is left out")
        return None

    def _constrain(self, name: str, table: Table) -> None:
        home = quoted(name)
        if table.primary and all(self._is_filled(name, column) for column in table.primary):
            key = ", ".join(map(quoted, table.primary))
            label = f"{name}_pkey"
            self._define(
                "index",
                f"{label} of {name}",
                name,
                f"ALTER TABLE {home} ADD CONSTRAINT {quoted(label)} PRIMARY KEY ({key})",
            )
        for number, (index, unique, origin, partial_) in enumerate(
            self._db.execute('SELECT name, "unique", origin, partial FROM pragma_index_list(?) ORDER BY name', (name,))
        ):
            columns = [column for (column,) in self._db.execute("SELECT name FROM pragma_index_info(?)", (index,))]
            if origin == "pk":
                continue
            if partial_ or None in columns:
                self._notes.append(f"index {index!r} is left out: it is written for SQLite")
                continue
            label = index if origin == "c" else f"{name}_unique_{number}"
            kind = "UNIQUE INDEX" if unique else "INDEX"
            parts = ", ".join(map(quoted, columns))
            self._define("index", label, name, f"CREATE {kind} {quoted(label)} ON {home} ({parts})")
        self._refer(name)

    def _refer(self, name: str) -> None:
        found: dict[int, list[tuple[Any, ...]]] = {}
        sql = 'SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?) ORDER BY id, seq'
        for row in self._db.execute(sql, (name,)):
            found.setdefault(row[0], []).append(row)
        tables = {it.casefold(): it for it in self._held.tables}
        for number, rows in found.items():
            _, said, _, _, on_update, on_delete = rows[0]
            parent = tables.get(said.casefold())
            if parent is None:
                self._notes.append(f"a reference of table {name!r} to {said!r} is left out: there is no such table")
                continue
            own = ", ".join(quoted(row[2]) for row in rows)
            other = [row[3] for row in rows if row[3] is not None] or self._held.tables[parent].primary
            label = f"{name}_fkey_{number}"
            self._define(
                "reference",
                f"{label} of {name}",
                name,
                f"ALTER TABLE {quoted(name)} ADD CONSTRAINT {quoted(label)} FOREIGN KEY ({own}) REFERENCES "
                f"{quoted(parent)} ({', '.join(map(quoted, other))}) ON UPDATE {on_update} ON DELETE {on_delete}",
            )

    def _define(self, kind: str, name: str, table: str, sql: str) -> None:
        self._definitions.append(Definition(kind, name, table, sql))
