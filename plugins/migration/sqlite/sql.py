"""The SQL that moves rows, as pure functions of a table's description."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from ..keys import RawText, decode_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..model import Key, Table
    from ..rows import Row

_variables = 1000
"""How many values one INSERT carries: a statement for many rows spares the GIL a hand-over for each."""

Statement = tuple[str, list[Any]]


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def mark(value: Any) -> str:
    """The placeholder for a value to store."""
    return "CAST(? AS TEXT)" if isinstance(value, RawText) else "?"


def bound(value: Any) -> Any:
    """The value as sqlite3 takes it."""
    return value.data if isinstance(value, RawText) else value


def reads(table: Table, after: Key | None, until: int | None, limit: int) -> list[Statement]:
    """The queries whose rows, one query after the other, are those behind the key `after`, in the key's order.

    Rows are the table's columns, then its hidden ones. There is one query for each leading part of the key,
    (a = x and b > y), then (a > x): SQLite uses the key's index for each of these, but not for one condition that
    says the same, once it has to name collations.
    """
    selected = ", ".join(f"t.{quoted(name)}" for name in [*table.columns, *table.hidden])
    terms = [f"t.{quoted(it.name)}" + (f" COLLATE {quoted(it.collation)}" if it.collation else "") for it in table.key]
    order = ", ".join(f"{term} {'DESC' if it.descending else 'ASC'}" for it, term in zip(table.key, terms, strict=True))
    head = f"SELECT {selected} FROM {quoted(table.name)} AS t"
    tail = f"ORDER BY {order} LIMIT ?"
    last = [] if until is None else [until]
    ends = [f"{terms[0]} <= ?"] * len(last)
    if after is None:
        return [(f"{head} {_where(ends)} {tail}", [*last, limit])]
    values = decode_key(after)
    # the unary plus: a CAST has an affinity, which would convert the column's values
    marks = [f"+{mark(value)}" for value in values]
    found: list[Statement] = []
    for depth in reversed(range(len(values))):
        equal = [f"{terms[place]} = {marks[place]}" for place in range(depth)]
        behind = f"{terms[depth]} {'<' if table.key[depth].descending else '>'} {marks[depth]}"
        parameters = [*(bound(value) for value in values[: depth + 1]), *last, limit]
        found.append((f"{head} {_where([*equal, behind, *ends])} {tail}", parameters))
    return found


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def inserts(
    table: str, columns: Sequence[str], conflict: Sequence[str], rows: list[Row], raw: bool
) -> Iterator[Statement]:
    """Multi-row INSERTs of `rows`; with `conflict` (a primary key) rows that are there are updated.

    `raw`: some values are RawText.
    """
    width = len(columns)
    head = f"INSERT INTO {quoted(table)} ({', '.join(map(quoted, columns))}) VALUES "
    tail = _on_conflict(columns, conflict)
    one = f"({', '.join('?' * width)})"
    step = max(1, _variables // width)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        values = list(chain.from_iterable(some))
        if raw:
            marks = ", ".join(f"({', '.join(map(mark, row))})" for row in some)
            yield f"{head}{marks}{tail}", [bound(value) for value in values]
        else:
            yield f"{head}{', '.join([one] * len(some))}{tail}", values


def _on_conflict(columns: Sequence[str], conflict: Sequence[str]) -> str:
    if not conflict:
        return ""
    key = {name.casefold() for name in conflict}
    changes = ", ".join(f"{quoted(it)} = excluded.{quoted(it)}" for it in columns if it.casefold() not in key)
    return f" ON CONFLICT ({', '.join(map(quoted, conflict))}) DO {f'UPDATE SET {changes}' if changes else 'NOTHING'}"


def by_key(table: Table, row: Row) -> Statement:
    """The query for the row of `table` with the primary key of `row`, both in the order of the table's columns."""
    values = [row[table.columns.index(name)] for name in table.primary]
    conditions = [f"t.{quoted(name)} = +{mark(value)}" for name, value in zip(table.primary, values, strict=True)]
    selected = ", ".join(f"t.{quoted(name)}" for name in table.columns)
    return f"SELECT {selected} FROM {quoted(table.name)} AS t {_where(conditions)}", [bound(value) for value in values]
