"""The tables of plugins: which of one database belongs to which of another, and whether their rows fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jivsd.store.api import StoreError
from jivsd.store.copying.tables import Column, Kind, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS: Final = 100
"""How many rows of a plugin are under way together: nobody knows how large they are."""

_KINDS: Final = {
    **dict.fromkeys(("int2", "int4", "int8"), Kind.INTEGER),
    **dict.fromkeys(("text", "varchar"), Kind.TEXT),
    "float8": Kind.REAL,
    "bool": Kind.TRUTH,
    "bytea": Kind.BYTES,
}
"""Types of PostgreSQL whose values SQLite keeps unchanged."""

_TYPES: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.INTEGER: (int,),
    Kind.TEXT: (str,),
    Kind.REAL: (float, int),
    Kind.BYTES: (bytes,),
    Kind.OTHER: (str, int, float),
}


class Foreign(NamedTuple):
    """A plugin's table. `place` is its name in SQL. `columns`: their types in PostgreSQL; "" in SQLite."""

    name: str
    place: str
    columns: Mapping[str, str]
    rows: int


def matched(source: Foreign, target: Foreign | None) -> Table:
    """How the rows of a plugin's table are copied into the one of the same name.

    Raises:
        StoreError: there is none, or it has other columns.
    """
    if target is None:
        raise StoreError(
            f"the rows of the plugin table {source.name} have no place in the target: give its plugin migrations for "
            "that kind of database, let the daemon load it once where it is now, and copy again; or leave them behind: "
            f"--leave-out {source.name}"
        )
    if target.rows:
        raise StoreError(f"the target's table {source.name} is not empty: it has {target.rows:,} rows")
    if missing := source.columns.keys() ^ target.columns.keys():
        side = "target" if min(missing) in source.columns else "source"
        raise StoreError(
            f"the plugin table {source.name} has other columns in the target: {min(missing)} is not in the {side}"
        )
    columns = [Column(name, _kind(source, target, name)) for name in source.columns]
    return Table(source.name, tuple(columns), (), ROWS, own=False)


def _kind(source: Foreign, target: Foreign, name: str) -> Kind:
    types = {source.columns[name], target.columns[name]} - {""}
    if not types:
        return Kind.ANY
    if len(types) == 2:
        was, now = source.columns[name], target.columns[name]
        raise StoreError(
            f"the column {name} of the plugin table {source.name} is {was} in the source and {now} in the target"
        )
    same_kind = source.columns[name] == target.columns[name]
    return _KINDS.get(types.pop(), Kind.TEXT if same_kind else Kind.OTHER)


def fitting(table: Table, column: Column, value: Any) -> Any:
    """A value of a plugin in SQLite, which is not None, as a column in PostgreSQL takes it.

    Raises:
        StoreError: it is of another type.
    """
    if column.kind is Kind.TRUTH and value in (0, 1):
        return bool(value)
    if isinstance(value, _TYPES.get(column.kind, ())):
        return float(value) if column.kind is Kind.REAL else str(value) if column.kind is Kind.OTHER else value
    raise StoreError(
        f"the plugin table {table.name} has a row whose {column.name} is {value!r:.40}, which does not fit that column "
        "in PostgreSQL"
    )
