"""Questions to the database. Each takes a connection, so that it runs wherever that lives."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from jivsd import logs
from jivsd.records import ENDED, Status
from jivsd.store.api import BadCursor, DamagedRow, Runs, StoreError
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import first, query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Mapping

    import apsw

    from jivsd.records import Event, Incident, Message, Run
    from jivsd.store.api import Holder, Plugin, RunFilter

log = logs.get(__name__)

FEW: Final = 2000
"""Rows that may be looked at one by one: about a millisecond."""

_OPEN: Final = tuple(status for status in Status if status not in ENDED)
_sql: Final = statements("sqlite")
_NONE: Final[Mapping[str, str]] = {}
_LAST: Final = 2**63 - 1
_HAS: Final = (
    "EXISTS (SELECT 1 FROM attribute AS a{place}"
    " WHERE a{place}.name = :name{place} AND a{place}.value = :value{place} AND a{place}.run_number = number)"
)


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


def runs(connection: apsw.Connection, where: RunFilter, limit: int, cursor: str | None) -> Runs:
    """See `Store.runs`.

    Every status has its own stretch of an index that is in order already; several are merged.
    """
    statuses: tuple[Status | None, ...] = tuple(where.statuses) or (None,)
    if where.open_only:
        statuses = tuple(status for status in where.statuses or _OPEN if status not in ENDED)
    with together(connection):  # one snapshot for all statuses
        pages = [_page(connection, where, status, limit + 1, cursor) for status in dict.fromkeys(statuses)]
        page = list(islice(heapq.merge(*pages, key=_number, reverse=True), limit + 1))
        more = len(page) > limit > 0
        return Runs([rows.run_of(row) for row in page[:limit]], str(_number(page[limit - 1])) if more else None)


def open_runs(connection: apsw.Connection, after: str | None, limit: int) -> list[Run]:
    """See `Store.open_runs`."""
    found: list[Run] = []
    for row in query(connection, _sql["open_runs"], (after or "", limit)):
        try:
            found.append(rows.run_of(row))
        except StoreError as error:  # the others go on without it
            log.error("a run cannot be brought back", run_id=row[0], why=str(error))
    return found


def messages(connection: apsw.Connection, run_id: str) -> list[Message]:
    """See `Store.messages`."""
    return [rows.message_of(row) for row in query(connection, _sql["messages"], (run_id,))]


def lock_queue(connection: apsw.Connection, key: str | None) -> list[Holder]:
    """See `Store.lock_queue`."""
    found = query(connection, _sql["lock_queues"]) if key is None else query(connection, _sql["lock_queue"], (key,))
    return [rows.holder_of(row) for row in found]


def incidents(
    connection: apsw.Connection, state: str | None, run_id: str | None, limit: int, cursor: str | None
) -> tuple[list[Incident], str | None]:
    """See `Store.incidents`."""
    conditions = {"state = :state": state, "run_id = :run_id": run_id, "number < :cursor": _cursor(cursor)}
    found = _list(connection, "list_incidents", conditions, limit + 1)
    more = len(found) > limit > 0
    return [rows.incident_of(row) for row in found[:limit]], str(_number(found[limit - 1])) if more else None


def incident(connection: apsw.Connection, incident_id: str) -> Incident | None:
    """See `Store.incident`."""
    found = _list(connection, "list_incidents", {"incident_id = :incident_id": incident_id}, 1)
    return rows.incident_of(found[0]) if found else None


def plugin(connection: apsw.Connection, code_hash: str) -> Plugin | None:
    """See `Store.plugin`."""
    row = first(connection, _sql["plugin"], code_hash)
    return None if row is None else rows.plugin_of(row)


def counts(connection: apsw.Connection) -> dict[str, int]:
    """See `Store.counts`."""
    with together(connection):
        result: dict[str, int] = dict(query(connection, _sql["count_runs"]).fetchall())
        (result["incidents"],) = query(connection, _sql["count_incidents"]).fetchall()[0]
        return result


def conditions_of(where: RunFilter) -> dict[str, Any]:
    """A filter's conditions, apart from statuses: SQL with a parameter each, to the value."""
    return {
        "workflow = :workflow": where.workflow,
        "workflow_id = :workflow_id": where.workflow_id,
        "parent = :parent": where.parent,
        "ended_at < :ended_before": where.ended_before,
    }


def with_conditions(
    statement: str, conditions: dict[str, Any], attributes: Mapping[str, str] = _NONE
) -> tuple[str, dict[str, Any]]:
    """A statement with those conditions that have a value in the place of its `true`, and their parameters.

    `attributes`: those that a run must have, too.
    """
    given = {condition: value for condition, value in conditions.items() if value is not None}
    parameters = {condition.rpartition(":")[2]: value for condition, value in given.items()}
    wanted = list(given)
    for place, (name, value) in enumerate(attributes.items()):
        wanted.append(_HAS.format(place=place))
        parameters |= {f"name{place}": name, f"value{place}": value}
    return _sql[statement].replace("true", " AND ".join(wanted) or "true"), parameters


def _page(
    connection: apsw.Connection, where: RunFilter, status: Status | None, limit: int, cursor: str | None
) -> list[rows.Row]:
    conditions = {**conditions_of(where), "status = :status": status}
    before = _cursor(cursor)
    if (name := _rarest(connection, where, conditions)) is None:
        sql, parameters = with_conditions("list_runs", {**conditions, "number < :cursor": before}, where.attributes)
    else:
        others = {other: value for other, value in where.attributes.items() if other != name}
        sql, parameters = with_conditions("list_attributed_runs", conditions, others)
        parameters |= {"name": name, "value": where.attributes[name], "before": _LAST if before is None else before}
    return query(connection, sql, {**parameters, "limit": limit}).fetchall()


def _rarest(connection: apsw.Connection, where: RunFilter, conditions: dict[str, Any]) -> str | None:
    """The attribute that best leads to the runs that are looked for; None if the other conditions lead there sooner.

    Whatever leads, its runs are looked at newest first until the page is full: many do no harm, unless the rest of
    the filter leaves hardly any of them. Then something else in the filter is rare, and leads.
    """
    if not where.attributes:
        return None
    counts: dict[str, int] = {}
    for name, value in where.attributes.items():
        few = {"name": name, "value": value, "limit": FEW}
        ((counts[name],),) = query(connection, _sql["count_attribute"], few).fetchall()
    rarest = min(counts, key=lambda name: counts[name])
    if counts[rarest] == FEW and any(value is not None for value in conditions.values()):
        sql, parameters = with_conditions("count_some_runs", conditions)
        ((others,),) = query(connection, sql, {**parameters, "limit": FEW}).fetchall()
        if others < FEW:
            return None
    return rarest


def _list(connection: apsw.Connection, statement: str, conditions: dict[str, Any], limit: int) -> list[rows.Row]:
    sql, parameters = with_conditions(statement, conditions)
    return query(connection, sql, {**parameters, "limit": limit}).fetchall()


def _cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise BadCursor(f"{cursor!r} is not a cursor: pass on the one that came with the page before")
    return int(cursor)


def _number(row: rows.Row) -> int:
    return row[-1]
