"""Removing what is old: which runs may go, their journals for an archive, and taking them away in small pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.records import Status
from jivsd.store.api import StoreError
from jivsd.store.listing import Place, statuses_of
from jivsd.store.postgres import reading, rows
from jivsd.store.postgres.listing import merged, path_of, place_of
from jivsd.store.removal import KEYS, PAGE_BYTES, Journal, Journals, PruneCount, RunIds, bytes_of, fitting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.api import RunFilter
    from jivsd.store.postgres.connections import Connection, Sql


async def prunable(connection: Connection, sql: Sql, where: RunFilter, limit: int, cursor: str | None) -> RunIds:
    """See `Store.prunable`."""
    page, more = await _page(connection, sql, where, limit, cursor)
    run_ids = [row["run_id"] for row in page]
    sizes: dict[str, int] = {run_id: count for run_id, count in await connection.fetch(sql["event_counts"], run_ids)}  # noqa: C416 -- of records
    taken = fitting([sizes.get(run_id, 0) for run_id in run_ids])
    return RunIds(run_ids[:taken], _next(page, taken, more=more))


async def journals(connection: Connection, sql: Sql, where: RunFilter, limit: int, cursor: str | None) -> Journals:
    """See `Store.journals`."""
    found: list[Journal] = []
    damaged: list[str] = []
    looked = size = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        page, more = await _page(connection, sql, where, limit, cursor)
        for row in page:
            try:
                run = await reading.run(connection, sql, row["run_id"])
                assert run is not None
                found.append(Journal(run, await reading.events(connection, sql, run.run_id, 0, None)))
            except StoreError as error:
                damaged.append(str(error))
            else:
                size += bytes_of(found[-1])
            looked += 1
            if size >= PAGE_BYTES:
                break
    return Journals(found, damaged, _next(page, looked, more=more))


async def _page(
    connection: Connection, sql: Sql, where: RunFilter, limit: int, cursor: str | None
) -> tuple[list[rows.Row], bool]:
    """Up to `limit` rows of runs that may go, and whether there are more."""
    after = Place.of(cursor)
    path = await path_of(connection, sql, where, ended=True)
    asked, arguments = merged(sql, "list_prunable", where, path, after, limit + 1, ended=True)
    page: list[rows.Row] = await connection.fetch(asked, *arguments) if asked else []
    return page[:limit], len(page) > limit


def _next(page: list[rows.Row], taken: int, *, more: bool) -> str | None:
    return str(place_of(page[taken - 1])) if taken and page and (more or taken < len(page)) else None


async def count_prunable(connection: Connection, sql: Sql, where: RunFilter) -> list[PruneCount]:
    """See `Store.count_prunable`."""
    found: list[PruneCount] = []
    statuses = statuses_of(where, ended=True) or []
    for workflow, status in await connection.fetch(sql["count_pairs"]):
        if where.workflow not in (None, workflow) or status not in statuses:
            continue
        narrow = msgspec.structs.replace(where, workflow=workflow, statuses=[Status(status)])
        path = await path_of(connection, sql, narrow, ended=True)
        asked, arguments = merged(sql, "list_prunable", narrow, path, None, None, ended=True)
        if asked and (count := await connection.fetchval(f"SELECT count(*) FROM ({asked}) AS found", *arguments)):
            found.append(PruneCount(workflow, Status(status), count))
    return found


async def remove(connection: Connection, sql: Sql, run_ids: Sequence[str]) -> int:
    """See `Store.remove`."""
    async with connection.transaction():
        found: list[Any] = await connection.fetch(sql["removable"], rows.ids(run_ids))
        ids = [row["run_id"] for row in found]
        if not ids:
            return 0
        for statement in _REMOVE:
            await connection.execute(sql[statement], ids)
        names = {(row["workflow"], row["workflow_id"]) for row in found}
        await connection.execute(sql["delete_messages"], [name[0] for name in names], [name[1] for name in names])
    return len(ids)


_REMOVE: Final = (
    "release_payloads",
    "delete_events",
    "delete_incidents",
    "empty_messages",
    "delete_published",
    "delete_progress",
    "delete_attributes",
    "delete_runs",
)


async def forget_keys(
    connection: Connection, sql: Sql, before: int, after: tuple[str, str]
) -> tuple[int, tuple[str, str] | None]:
    """See `Store.forget_keys`."""
    row = await connection.fetchrow(sql["forget_keys"], before, *after, KEYS)
    if row is None:
        return 0, None
    looked, gone, workflow, key = row
    return gone, (workflow, key) if looked == KEYS else None
