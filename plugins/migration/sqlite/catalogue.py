"""The catalogue of an SQLite database: its tables, the SQL of its schema, its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..catalogue import Catalogue
from ..model import Definition, KeyColumn, Table
from .connect import require_version

if TYPE_CHECKING:
    import sqlite3

FENCE = "_jivsd_fence"
"""The table in a migration's target that says who may write and how far each table is; see `fence`."""

_rowid_names = ("rowid", "_rowid_", "oid")
_settings = ("encoding", "page_size", "auto_vacuum", "user_version", "application_id")
_generated = (2, 3)
"""What table_xinfo calls hidden: virtual and stored generated columns."""
_plain = ("table", False)
_list_tables = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'"
_list_definitions = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
_list_columns = 'SELECT name, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)'
_list_key = 'SELECT name, coll, "desc" FROM pragma_index_xinfo(?) WHERE "key" ORDER BY seqno'
_list_references = 'SELECT DISTINCT "table" FROM pragma_foreign_key_list(?) ORDER BY id'


def read_catalogue(db: sqlite3.Connection) -> Catalogue:
    """Read everything but the rows; it takes time with the number of tables only."""
    require_version()
    kinds: dict[str, tuple[str, bool]] = {
        name: (kind, bool(without)) for name, kind, without in db.execute(_list_tables)
    }
    definitions = [
        Definition(*row)
        for row in db.execute(_list_definitions)
        if not row[2].startswith("sqlite_") and row[2] != FENCE and kinds.get(row[2], _plain)[0] != "shadow"
    ]
    tables: dict[str, Table] = {}
    unsupported: dict[str, str] = {}
    required: dict[str, list[str]] = {}
    for name in [it.name for it in definitions if it.kind == "table"]:
        kind, without_rowid = kinds[name]
        if kind == "virtual":
            unsupported[name] = f"table {name!r} is a virtual table; these are not supported"
            continue
        columns = _columns(db, name)
        key = _key(db, name, columns, without_rowid)
        if key is None:
            unsupported[name] = (
                f"table {name!r} has columns named {', '.join(_rowid_names)}, which hide the key to its rows"
            )
        elif not any(it.stored for it in columns):
            unsupported[name] = f"table {name!r} has only generated columns"
        else:
            tables[name] = _table(db, name, columns, key)
            required[name] = [it.name for it in columns if it.required and it.name != key[0].name]
    present = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return Catalogue(
        tables=tables,
        unsupported=unsupported,
        required=required,
        definitions=definitions,
        settings={name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in _settings},
        sequences=dict(db.execute("SELECT name, seq FROM sqlite_sequence")) if "sqlite_sequence" in present else {},
        analysed="sqlite_stat1" in present,
        fenced=FENCE in present,
    )


class _Column(NamedTuple):
    name: str
    required: bool
    """It must have a value and has no default."""
    primary: int
    """Its place in the primary key, from 1; 0: it is not in it."""
    stored: bool
    """It is not generated."""


def _columns(db: sqlite3.Connection, table: str) -> list[_Column]:
    return [
        _Column(name, bool(not_null) and default is None, primary, hidden not in _generated)
        for name, not_null, default, primary, hidden in db.execute(_list_columns, (table,))
    ]


def _key(db: sqlite3.Connection, table: str, columns: list[_Column], without_rowid: bool) -> list[KeyColumn] | None:
    """The key by which the table is read; None: its rowid cannot be named."""
    index = db.execute("SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'", (table,)).fetchone()
    if without_rowid:
        return [
            KeyColumn(name, collation.upper(), bool(down)) for name, collation, down in db.execute(_list_key, index)
        ]
    primary = [column.name for column in columns if column.primary]
    if primary and index is None:
        return [KeyColumn(primary[0])]
    taken = {column.name.lower() for column in columns}
    free = next((name for name in _rowid_names if name not in taken), None)
    return None if free is None else [KeyColumn(free)]


def _table(db: sqlite3.Connection, name: str, columns: list[_Column], key: list[KeyColumn]) -> Table:
    return Table(
        name=name,
        columns=[it.name for it in columns if it.stored],
        key=key,
        primary=[it.name for it in sorted(columns, key=lambda it: it.primary) if it.primary],
        refers_to=[target for (target,) in db.execute(_list_references, (name,))],
    )
