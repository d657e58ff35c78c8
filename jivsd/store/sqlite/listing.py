"""Lists of runs: which index leads to a page, and how a page is merged from several stretches of it.

Every statement names its index (`INDEXED BY`): SQLite's planner knows nothing of how many runs a filter leaves, and a
plan that sorts, or looks at every row, is not noticed before there are a million.
"""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from jivsd.store import listing
from jivsd.store.api import Runs
from jivsd.store.listing import Path, Place, index_of
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import apsw

    from jivsd.store.api import RunFilter

_sql: Final = statements("sqlite")


def runs(connection: apsw.Connection, where: RunFilter, limit: int, cursor: str | None) -> Runs:
    """See `Store.runs`."""
    with together(connection):
        asked = selects("list_runs", where, path_of(connection, where), Place.of(cursor))
        with streams(connection, asked, limit + 1) as found:
            page = list(islice(heapq.merge(*found, key=place_of, reverse=True), limit + 1))
    more = len(page) > limit > 0
    return Runs([rows.run_of(row) for row in page[:limit]], str(place_of(page[limit - 1])) if more else None)


def count(connection: apsw.Connection, where: RunFilter, limit: int, cursor: str | None) -> int:
    """See `Store.count`."""
    with together(connection):
        asked = selects("list_runs", where, path_of(connection, where), Place.of(cursor))
        return _counted(connection, asked, limit)


def place_of(row: rows.Row) -> Place:
    """The place of a row of a list."""
    return Place(row[-2], row[-1])


def path_of(connection: apsw.Connection, where: RunFilter, *, ended: bool = False) -> Path:
    """What leads to the runs of a filter; `ended`: to those that have an end.

    The rarest attribute, unless the rest of the filter leaves hardly any: whatever leads, its runs are looked at
    in their order until the page is full, and many do no harm unless the rest of the filter leaves few of them.
    """
    if not where.attributes:
        return index_of(where, ended=ended)
    counts: dict[str, int] = {}
    after, before = listing.bounds(where)
    for name, value in where.attributes.items():
        few = {"name": name, "value": value, "after": after, "before": before, "limit": listing.FEW}
        ((counts[name],),) = query(connection, _sql["count_attribute"], few).fetchall()
    rarest = min(counts, key=lambda name: counts[name])
    if counts[rarest] == listing.FEW and _leaves_few(connection, replace(where, attributes={}), ended=ended):
        return index_of(where, ended=ended)
    return Path("attribute", "run_created_at", by_status=False, attribute=rarest)


def _leaves_few(connection: apsw.Connection, where: RunFilter, *, ended: bool) -> bool:
    asked = selects("list_runs", where, index_of(where, ended=ended), None, ended=ended)
    return _counted(connection, asked, listing.FEW) < listing.FEW


def _counted(connection: apsw.Connection, asked: Iterable[tuple[str, dict[str, Any]]], limit: int) -> int:
    """How many rows several stretches have, counted up to a limit."""
    total = 0
    for sql, parameters in asked:
        counting = f"SELECT count(*) FROM ({sql})"
        ((found,),) = query(connection, counting, {**parameters, "limit": limit - total}).fetchall()
        total += found
        if total >= limit:
            break
    return total


def selects(
    statement: str, where: RunFilter, path: Path, after: Place | None, *, ended: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """What has to be asked to list the runs of a filter; see `jivsd.store.listing.selects`."""
    return listing.selects(_lead(path, _sql[statement]), where, path, after, ended=ended)


def _lead(path: Path, sql: str) -> str:
    """A statement that is led by the index `run_status` as one that is led by another way."""
    source = f"run INDEXED BY {path.name}"
    if path.attribute is not None:  # CROSS JOIN: the attribute leads, whatever the planner thinks
        source = "attribute CROSS JOIN run ON number = run_number"
    sql = sql.replace("run INDEXED BY run_status", source).replace("created_at AS time", f"{path.time} AS time")
    return sql.replace("number AS place", f"{path.number} AS place")


@contextmanager
def streams(
    connection: apsw.Connection, asked: Sequence[tuple[str, dict[str, Any]]], limit: int
) -> Generator[list[Iterable[rows.Row]]]:
    """Read several stretches side by side, each row only when the merge comes to it."""
    cursors = [query(connection, sql, {**parameters, "limit": limit}) for sql, parameters in asked]
    try:
        yield cursors
    finally:
        for stream in cursors:
            stream.close(True)
