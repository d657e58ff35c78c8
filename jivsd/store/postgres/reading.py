"""Questions to the database. Each takes a connection, in the bridge's loop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from jivsd import logs
from jivsd.records import Kind
from jivsd.store.api import Recorded, StoreError, Wake
from jivsd.store.incidents import those_of
from jivsd.store.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jivsd.records import Event, Incident, IncidentGroup, Message, Progress, Publication, Run
    from jivsd.store.api import Plugin, Shards
    from jivsd.store.postgres.connections import Connection, Sql

log = logs.get(__name__)

BEFORE_ALL: Final = "00000000-0000-0000-0000-000000000000"
"""Less than the id of any run."""

_NAMED: Final = re.compile(r"(?<!:):([a-z_]\w*)")


def numbered(sql: str, values: Mapping[str, Any], arguments: list[Any]) -> str:
    """SQL with named parameters (`:name`) as PostgreSQL knows them, `$1`; their values are added to `arguments`."""
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        name = found[1]
        if name not in places:
            arguments.append(values[name])
            places[name] = len(arguments)
        return f"${places[name]}"

    return _NAMED.sub(place, sql)


async def events(connection: Connection, sql: Sql, run_id: str, after: int, limit: int | None) -> list[Event]:
    """See `Store.events`."""
    if not rows.is_id(run_id):
        return []
    found = await connection.fetch(sql["events"], run_id, after, limit)
    return [rows.event_of(row, run_id, seq) for seq, row in enumerate(found, after + 1)]


async def find_event(connection: Connection, sql: Sql, run_id: str, kind: str, path: str) -> Event | None:
    """See `Store.find_event`."""
    row = await connection.fetchrow(sql["find_event"], run_id, kind, path) if rows.is_id(run_id) else None
    return None if row is None else rows.event_of(row, run_id, row["seq"])


async def run(connection: Connection, sql: Sql, run_id: str) -> Run | None:
    """See `Store.run`."""
    row = await connection.fetchrow(sql["run"], [run_id]) if rows.is_id(run_id) else None
    return None if row is None else rows.run_of(row)


async def current_run(connection: Connection, sql: Sql, workflow: str, workflow_id: str) -> Run | None:
    """See `Store.current_run`."""
    row = await connection.fetchrow(sql["current_run"], workflow, workflow_id)
    return None if row is None else rows.run_of(row)


async def continued(connection: Connection, sql: Sql, run_id: str) -> Run | None:
    """See `Store.continued`."""
    row = await connection.fetchrow(sql["continued"], run_id) if rows.is_id(run_id) else None
    return None if row is None else rows.run_of(row)


async def open_runs(
    connection: Connection, sql: Sql, after: str | None, limit: int, shards: Shards = None
) -> list[Run]:
    """See `Store.open_runs`."""
    found: list[Run] = []
    for row in await connection.fetch(sql["open_runs"], after or BEFORE_ALL, limit, _some(shards)):
        try:
            found.append(rows.run_of(row))
        except StoreError as error:  # the others go on without it
            log.error("a run cannot be brought back", run_id=row["run_id"], why=str(error))
    return found


async def wakes(connection: Connection, sql: Sql, after: Wake, limit: int, shards: Shards = None) -> list[Wake]:
    """See `Store.wakes`."""
    found = await connection.fetch(sql["wakes"], after.at, after.run_id or BEFORE_ALL, limit, _some(shards))
    return [Wake(*row) for row in found]


async def called_runs(
    connection: Connection, sql: Sql, shards: Shards = None, unread_before: int | None = None
) -> list[str]:
    """See `Store.called_runs`."""
    return [run_id for (run_id,) in await connection.fetch(sql["called_runs"], _some(shards), unread_before)]


def _some(shards: Shards) -> list[int] | None:
    return None if shards is None else list(shards)


async def runs(connection: Connection, sql: Sql, run_ids: Sequence[str]) -> list[Run | StoreError | None]:
    """See `Store.rows`."""
    found = {row["run_id"]: _run_or_damage(row) for row in await connection.fetch(sql["run"], rows.ids(run_ids))}
    return [found.get(run_id) for run_id in run_ids]


def _run_or_damage(row: rows.Row) -> Run | StoreError:
    try:
        return rows.run_of(row)
    except StoreError as error:
        return error


async def recorded(connection: Connection, sql: Sql, run_ids: Sequence[str]) -> list[Recorded | StoreError | None]:
    """See `Store.recorded`."""
    wanted = rows.ids(run_ids)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await connection.fetch(sql["run"], wanted)
        lines = await connection.fetch(sql["recorded_events"], wanted)
        unread = await connection.fetch(sql["recorded_messages"], wanted)
        said = await connection.fetch(sql["progress"], wanted)
    result: dict[str, Recorded | StoreError] = {}
    for row in found:
        one = _run_or_damage(row)
        result[row["run_id"]] = one if isinstance(one, StoreError) else Recorded(one, [], [], [])
    for run_id, *line in lines:
        of_run = result.get(run_id)
        if isinstance(of_run, Recorded):
            try:
                of_run.events.append(rows.event_of(line, run_id, len(of_run.events) + 1))
            except StoreError as error:
                result[run_id] = error
    for row in unread:
        of_run = result.get(row["run_id"])
        if isinstance(of_run, Recorded):
            of_run.messages.append(rows.message_of(row))
    for run_id, *row in said:
        of_run = result.get(run_id)
        if isinstance(of_run, Recorded):
            of_run.progress.append(rows.progress_of(row))
    return [result.get(run_id) for run_id in run_ids]


async def messages(connection: Connection, sql: Sql, run_ids: Sequence[str]) -> list[Message]:
    """See `Store.messages`."""
    found = await connection.fetch(sql["recorded_messages"], rows.ids(run_ids))
    return [rows.message_of(row) for row in found]


async def progress(connection: Connection, sql: Sql, run_id: str) -> list[Progress]:
    """See `Store.progress`."""
    found = await connection.fetch(sql["progress"], rows.ids([run_id]))
    return [rows.progress_of(row[1:]) for row in found]


async def outbox(connection: Connection, sql: Sql, after: int, limit: int, topic: str | None) -> list[Publication]:
    """See `Store.outbox`."""
    return [rows.publication_of(row) for row in await connection.fetch(sql["outbox"], after, topic, limit)]


async def seen_message(
    connection: Connection, sql: Sql, workflow: str, workflow_id: str, message_id: str
) -> tuple[str, Kind] | None:
    """See `Store.seen_message`."""
    row = await connection.fetchrow(sql["seen_messages"], [workflow], [workflow_id], [message_id])
    return None if row is None else (row["run_id"], Kind(row["kind"]))


async def incidents(
    connection: Connection,
    sql: Sql,
    state: str | None,
    run_id: str | None,
    limit: int,
    cursor: str | None,
    fingerprint: str | None,
    kind: str | None = None,
) -> tuple[list[Incident], str | None]:
    """See `Store.incidents`."""
    asked = those_of(
        sql["list_incidents"], limit + 1, cursor=cursor, state=state, run_id=run_id, fingerprint=fingerprint, kind=kind
    )
    found = await _list(connection, *asked)
    more = len(found) > limit > 0
    return [rows.incident_of(row) for row in found[:limit]], str(found[limit - 1]["number"]) if more else None


async def incident(connection: Connection, sql: Sql, incident_id: str) -> Incident | None:
    """See `Store.incident`."""
    found = await _list(connection, *those_of(sql["list_incidents"], 1, incident_id=incident_id))
    return rows.incident_of(found[0]) if found else None


async def incident_groups(connection: Connection, sql: Sql, state: str | None, limit: int) -> list[IncidentGroup]:
    """See `Store.incident_groups`."""
    found = await _list(connection, *those_of(sql["group_incidents"], limit, state=state))
    return [rows.group_of(row) for row in found]


async def plugin(connection: Connection, sql: Sql, code_hash: str) -> Plugin | None:
    """See `Store.plugin`."""
    row = await connection.fetchrow(sql["plugin"], code_hash)
    return None if row is None else rows.plugin_of(row)


async def counts(connection: Connection, sql: Sql) -> dict[str, int]:
    """See `Store.counts`."""
    result: dict[str, int] = {status: runs for status, runs in await connection.fetch(sql["count_runs"])}  # noqa: C416 -- of records
    result["paused"] = await connection.fetchval(sql["count_paused"])
    result["incidents"] = await connection.fetchval(sql["count_incidents"])
    result["unread"] = await connection.fetchval(sql["count_unread"])
    return result


async def _list(connection: Connection, sql: str, values: Mapping[str, Any]) -> list[rows.Row]:
    arguments: list[Any] = []
    return await connection.fetch(numbered(sql, values, arguments), *arguments)
