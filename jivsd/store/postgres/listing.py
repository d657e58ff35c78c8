"""Lists of runs: one statement, that merges the stretches which a page is read off.

Each stretch has a limit of its own, so that no plan can read more of it than the page needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd.store import listing
from jivsd.store.api import Runs
from jivsd.store.listing import Path, Place, index_of
from jivsd.store.postgres import rows
from jivsd.store.postgres.reading import numbered

if TYPE_CHECKING:
    from jivsd.store.api import RunFilter
    from jivsd.store.postgres.connections import Connection, Sql


async def runs(connection: Connection, sql: Sql, where: RunFilter, limit: int, cursor: str | None) -> Runs:
    """See `Store.runs`."""
    after = Place.of(cursor)
    path = await path_of(connection, sql, where)
    asked, arguments = merged(sql, "list_runs", where, path, after, limit + 1)
    found = await connection.fetch(asked, *arguments) if asked else []
    more = len(found) > limit > 0
    return Runs([rows.run_of(row) for row in found[:limit]], str(place_of(found[limit - 1])) if more else None)


async def count(connection: Connection, sql: Sql, where: RunFilter, limit: int, cursor: str | None) -> int:
    """See `Store.count`."""
    after = Place.of(cursor)
    asked, arguments = merged(sql, "list_runs", where, await path_of(connection, sql, where), after, limit)
    return await connection.fetchval(f"SELECT count(*) FROM ({asked}) AS found", *arguments) if asked else 0


def place_of(row: rows.Row) -> Place:
    """The place of a row of a list."""
    return Place(row["time"], row["place"])


async def path_of(connection: Connection, sql: Sql, where: RunFilter, *, ended: bool = False) -> Path:
    """What leads to the runs of a filter: the rarest attribute, unless the rest of it leaves hardly any.

    For the reasons see `jivsd.store.sqlite.listing.path_of`.
    """
    if not where.attributes:
        return index_of(where, ended=ended)
    counts: dict[str, int] = {}
    for name, value in where.attributes.items():
        few = (name, value, *listing.bounds(where), listing.FEW)
        counts[name] = await connection.fetchval(sql["count_attribute"], *few)
    rarest = min(counts, key=lambda name: counts[name])
    narrow = msgspec.structs.replace(where, attributes={})
    if counts[rarest] == listing.FEW and await _leaves_few(connection, sql, narrow, ended=ended):
        return index_of(where, ended=ended)
    return Path("attribute", "run_created_at", by_status=False, attribute=rarest)


async def _leaves_few(connection: Connection, sql: Sql, where: RunFilter, *, ended: bool) -> bool:
    asked, arguments = merged(sql, "list_runs", where, index_of(where, ended=ended), None, listing.FEW, ended=ended)
    if not asked:
        return True
    return await connection.fetchval(f"SELECT count(*) FROM ({asked}) AS found", *arguments) < listing.FEW


def merged(
    sql: Sql,
    statement: str,
    where: RunFilter,
    path: Path,
    after: Place | None,
    limit: int | None,
    *,
    ended: bool = False,
) -> tuple[str, list[Any]]:
    """One statement for a page of a list, and its arguments; an empty one if nothing can be in it."""
    if where.parent is not None and not rows.is_id(where.parent):
        return "", []
    arguments: list[Any] = []
    led = _lead(path, sql[statement], sql.schema)
    asked = listing.selects(led, where, path, after, ended=ended, attributes=f"{sql.schema}.attribute")
    stretches = [numbered(one, {**values, "limit": limit}, arguments) for one, values in asked]
    if len(stretches) < 2:
        return "".join(stretches), arguments
    arguments.append(limit)
    direction = "" if ended else " DESC"
    every = " UNION ALL ".join(f"({one})" for one in stretches)
    order = f"time{direction}, place{direction}"
    return f"SELECT * FROM ({every}) AS pages ORDER BY {order} LIMIT ${len(arguments)}", arguments


def _lead(path: Path, sql: str, schema: str) -> str:
    """A statement that is led by the table of runs as one that is led by something else, whatever the planner thinks.

    What has an OFFSET is planned by itself.
    """
    if path.attribute is not None:
        its_run = f"SELECT * FROM {schema}.run WHERE run.run_id = attribute.run_id OFFSET 0"
        lead = f"{schema}.attribute CROSS JOIN LATERAL ({its_run}) AS run"
    elif path.name == "run_paused":
        lead = f"(SELECT * FROM {schema}.run WHERE paused ORDER BY created_at DESC, number DESC OFFSET 0) AS run"
    else:
        lead = f"{schema}.run"
    sql = sql.replace(f"FROM {schema}.run WHERE", f"FROM {lead} WHERE", 1)
    sums = path.by_end and path.time == "created_at"  # of few runs: the sum keeps the planner from reading all in order
    sql = sql.replace("created_at AS time", f"{path.time}{' + 0' if sums else ''} AS time")
    return sql.replace("number AS place", f"{path.number} AS place")
