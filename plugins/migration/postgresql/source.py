"""A PostgreSQL database that is read: rows in the order of a key, chunk by chunk, each value as PostgreSQL's text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..content import content_of, shown, size_of
from ..model import Hashed, Measured, Part
from ..planning import cut
from ..rows import CHUNK_BYTES, Rows
from .catalogue import read_catalogue
from .connect import quoted, within

if TYPE_CHECKING:
    from ..catalogue import Catalogue
    from ..model import Key, Table
    from ..request import Endpoint
    from ..rows import Row

_sampled_rows = 200
_hashed_rows = 20_000
_hashed_bytes = 32 << 20
_fetched_rows = 500


class PostgresDatabase:
    """One schema of a PostgreSQL database. Every method has a session of its own."""

    def __init__(self, endpoint: Endpoint, role: str) -> None:
        self.endpoint = endpoint
        self.role = role

    def catalogue(self) -> Catalogue:
        return within(self.endpoint, self.role, read_catalogue)

    def measure(self, table: Table, ranges: int, chunk_rows: int) -> Measured:
        """Count a table's rows, estimate their bytes, and cut it into at most `ranges` parts."""

        async def work(session: Any) -> Measured:
            rows: int = await session.fetchval(f"SELECT count(*) FROM {quoted(table.name)}")
            sample = (await _read(session, table, None, None, _sampled_rows, CHUNK_BYTES))[0]
            size = size_of(sample) * rows // len(sample) if sample else 0
            parts = [Part(table.name, 0)]
            if ranges > 1 and rows and len(table.key) == 1 and table.key[0].collation is None:
                key = quoted(table.key[0].name)
                first, last = await session.fetchrow(f"SELECT min({key}), max({key}) FROM {quoted(table.name)}")
                parts = cut(table.name, first, last, rows, ranges, chunk_rows)
            return Measured(rows, size, parts)

        return within(self.endpoint, self.role, work)

    def read(self, table: Table, after: Key | None, until: int | None, limit: int) -> Rows:
        """The next rows behind the key `after`: at most `limit`, fewer when they are large."""

        async def work(session: Any) -> Rows:
            values, size, done = await _read(session, table, after, until, limit, CHUNK_BYTES)
            last = _key_of(table, values[-1]) if values else after
            width = len(table.columns)
            return Rows([row[:width] for row in values], size, after=last, done=done)

        return within(self.endpoint, self.role, work)

    def content(self, table: Table, after: Key | None) -> Hashed:
        """The content of the next rows behind the key `after`: of as many as a step may hash."""

        async def work(session: Any) -> Hashed:
            own = table
            if table.kinds:  # described by another system, which has other keys
                own = msgspec.structs.replace((await read_catalogue(session)).tables[table.name], columns=table.columns)
            values, size, done = await _read(session, own, after, None, _hashed_rows, _hashed_bytes)
            total = content_of(_comparable(table, values))
            last = _key_of(own, values[-1]) if values else after
            return Hashed(len(values), size, shown(total), after=last, done=done)

        return within(self.endpoint, self.role, work)

    def broken_references(self, table: str) -> dict[str, int] | None:
        """None are: PostgreSQL sees to that."""
        return {}


async def _read(
    session: Any, table: Table, after: Key | None, until: int | None, limit: int, budget: int
) -> tuple[list[Row], int, bool]:
    """Rows behind a key, their bytes, and whether there are none behind them. Key columns come after the others."""
    key = [f"t.{quoted(part.name)}" for part in table.key]
    conditions: list[str] = []
    parameters: list[Any] = []
    if after is not None:
        marks = [f"${n}::text::{part.collation or 'bigint'}" for n, part in enumerate(table.key, 1)]
        conditions.append(f"({', '.join(key)}) > ({', '.join(marks)})")
        parameters += [str(value) for value in after]
    if until is not None:
        parameters.append(until)
        conditions.append(f"{key[0]} <= ${len(parameters)}::bigint")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    selected = ", ".join(f"{name}::text" for name in [*(f"t.{quoted(name)}" for name in table.columns), *key])
    sql = f"SELECT {selected} FROM {quoted(table.name)} AS t{where} ORDER BY {', '.join(key)} LIMIT {limit}"
    values: list[Row] = []
    size = 0
    cursor = await session.cursor(sql, *parameters)
    while size < budget:
        some: list[Row] = [tuple(row) for row in await cursor.fetch(_fetched_rows)]
        if not some:
            return values, size, len(values) < limit
        values += some
        size += size_of(some)
    return values, size, False


def _comparable(table: Table, rows: list[Row]) -> list[Row]:
    """Rows without their keys, and each number as one text however PostgreSQL writes it."""
    width = len(table.columns)
    doubles = [place for place, kind in enumerate(table.kinds) if kind == "double precision"]
    if not doubles:
        return [row[:width] for row in rows]
    found: list[Row] = []
    for row in rows:
        values = list(row[:width])
        for place in doubles:
            values[place] = canonical(values[place])
        found.append(tuple(values))
    return found


def canonical(value: str | None) -> str | None:
    """The text of a double as Python writes the number."""
    if value is None:
        return None
    number = float(value)
    return {"inf": "Infinity", "-inf": "-Infinity"}.get(repr(number), repr(number))


def _key_of(table: Table, row: Row) -> Key:
    return list(row[len(table.columns) :])
