"""Questions to the database. Each takes a connection, so that it runs wherever that lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd import logs
from jivsd.records import Kind
from jivsd.store.api import DamagedRow, StoreError, Wake
from jivsd.store.incidents import those_of
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import first, query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    import apsw

    from jivsd.records import Event, Incident, IncidentGroup, Message, Progress, Publication, Run
    from jivsd.store.api import Plugin

log = logs.get(__name__)

_sql: Final = statements("sqlite")


def events(connection: apsw.Connection, run_id: str, after: int, limit: int | None) -> list[Event]:
    """See `Store.events`."""
    found = query(connection, _sql["events"], (run_id, after, -1 if limit is None else limit))
    result: list[Event] = []
    try:
        for seq, row in enumerate(found, after + 1):
            result.append(rows.event_of(row, run_id, seq))
    except UnicodeDecodeError:
        raise DamagedRow(run_id, after + len(result) + 1) from None
    return result


def find_event(connection: apsw.Connection, run_id: str, kind: str, path: str) -> Event | None:
    """See `Store.find_event`."""
    row = first(connection, _sql["find_event"], run_id, kind, path)
    return None if row is None else rows.event_of(row, run_id, row[1])


def run(connection: apsw.Connection, run_id: str) -> Run | None:
    """See `Store.run`."""
    row = first(connection, _sql["run"], run_id)
    return None if row is None else rows.run_of(row)


def current_run(connection: apsw.Connection, workflow: str, workflow_id: str) -> Run | None:
    """See `Store.current_run`."""
    with together(connection):  # one snapshot for both questions
        row = first(connection, _sql["open_run"], workflow, workflow_id)
        row = row or first(connection, _sql["newest_run"], workflow, workflow_id)
        return None if row is None else run(connection, row[0])


def continued(connection: apsw.Connection, run_id: str) -> Run | None:
    """See `Store.continued`."""
    with together(connection):  # one snapshot for both questions
        row = first(connection, _sql["newest_in_chain"], run_id)
        return None if row is None else run(connection, row[0])


def open_runs(connection: apsw.Connection, after: str | None, limit: int) -> list[Run]:
    """See `Store.open_runs`."""
    found: list[Run] = []
    for row in query(connection, _sql["open_runs"], (after or "", limit)):
        try:
            found.append(rows.run_of(row))
        except StoreError as error:  # the others go on without it
            log.error("a run cannot be brought back", run_id=row[0], why=str(error))
    return found


def wakes(connection: apsw.Connection, after: Wake, limit: int) -> list[Wake]:
    """See `Store.wakes`."""
    return [Wake(*row) for row in query(connection, _sql["wakes"], (*after, limit))]


def called_runs(connection: apsw.Connection) -> list[str]:
    """See `Store.called_runs`."""
    return [run_id for (run_id,) in query(connection, _sql["called_runs"])]


def messages(connection: apsw.Connection, run_id: str) -> list[Message]:
    """See `Store.messages`."""
    return [rows.message_of(row) for row in query(connection, _sql["messages"], (run_id,))]


def progress(connection: apsw.Connection, run_id: str) -> list[Progress]:
    """See `Store.progress`."""
    return [rows.progress_of(row) for row in query(connection, _sql["progress"], (run_id,))]


def outbox(connection: apsw.Connection, after: int, limit: int, topic: str | None) -> list[Publication]:
    """See `Store.outbox`."""
    return [rows.publication_of(row) for row in query(connection, _sql["outbox"], (after, topic, limit))]


def seen_message(
    connection: apsw.Connection, workflow: str, workflow_id: str, message_id: str
) -> tuple[str, Kind] | None:
    """See `Store.seen_message`."""
    row = first(connection, _sql["seen_message"], workflow, workflow_id, message_id)
    return None if row is None else (row[0], Kind(row[1]))


def incidents(
    connection: apsw.Connection,
    state: str | None,
    run_id: str | None,
    limit: int,
    cursor: str | None,
    fingerprint: str | None,
    kind: str | None = None,
) -> tuple[list[Incident], str | None]:
    """See `Store.incidents`."""
    asked = those_of(
        _sql["list_incidents"], limit + 1, cursor=cursor, state=state, run_id=run_id, fingerprint=fingerprint, kind=kind
    )
    found = query(connection, *asked).fetchall()
    more = len(found) > limit > 0
    return [rows.incident_of(row) for row in found[:limit]], str(_number(found[limit - 1])) if more else None


def incident(connection: apsw.Connection, incident_id: str) -> Incident | None:
    """See `Store.incident`."""
    found = query(connection, *those_of(_sql["list_incidents"], 1, incident_id=incident_id)).fetchall()
    return rows.incident_of(found[0]) if found else None


def incident_groups(connection: apsw.Connection, state: str | None, limit: int) -> list[IncidentGroup]:
    """See `Store.incident_groups`."""
    asked = those_of(_sql["group_incidents"], limit, state=state)
    return [rows.group_of(row) for row in query(connection, *asked)]


def plugin(connection: apsw.Connection, code_hash: str) -> Plugin | None:
    """See `Store.plugin`."""
    row = first(connection, _sql["plugin"], code_hash)
    return None if row is None else rows.plugin_of(row)


def counts(connection: apsw.Connection) -> dict[str, int]:
    """See `Store.counts`."""
    with together(connection):
        result: dict[str, int] = dict(query(connection, _sql["count_runs"]).fetchall())
        (result["paused"],) = query(connection, _sql["count_paused"]).fetchall()[0]
        (result["incidents"],) = query(connection, _sql["count_incidents"]).fetchall()[0]
        (result["unread"],) = query(connection, _sql["count_unread"]).fetchall()[0]
        return result


def _number(row: rows.Row) -> int:
    return row[-1]
