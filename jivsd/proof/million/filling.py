"""A PostgreSQL database full of runs that have ended: by COPY, into the tables and indexes as they are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg

from jivsd.proof.past import chunks, past
from jivsd.store.postgres import PostgresStore, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jivsd.proof.past import Past
    from jivsd.records import Event

CHUNK: Final = 10_000
"""Runs in one transaction."""

_RUN: Final = (
    *("run_id", "parent", "chain", "created_at", "started_at", "ended_at", "wake_at", "shard", "paused", "parked"),
    *("status", "workflow", "workflow_id", "code_hash", "lock_key", "correlation_id", "options", "attributes", "input"),
    *("output", "error", "number"),
)
_ATTRIBUTE: Final = ("run_id", "name", "value", "run_created_at", "run_number", "run_workflow")
_EVENT: Final = ("run_id", "at", "checksum", "seq", "attempt", "kind", "path", "by", "payload")
_INCIDENT: Final = (
    *("incident_id", "kind", "message", "at", "run_id", "workflow", "path", "details", "state", "resolution"),
    *("resolved_by", "resolved_why", "resolved_at", "history", "acknowledged", "fingerprint"),
)
_OUTBOX: Final = ("run_id", "at", "path", "workflow", "workflow_id", "topic", "payload")


async def make(url: str) -> None:
    """Make the schema, in trio."""
    async with PostgresStore(url) as store:
        await store.open("million")


async def fill(
    url: str, runs: int, *, steps: int, span: int, code: str, tell: Callable[[int], None] = lambda _: None
) -> int:
    """Fill an empty database that has the schema; return how many events there are. In asyncio.

    Nothing is analysed: what the planner knows of the tables is what it knew when they were empty.
    """
    events = written = 0
    connection = await cast("Any", asyncpg).connect(url)  # typed only in part
    try:
        await connection.execute("SET synchronous_commit = off")
        for chunk in chunks(past(runs, steps, span=span, code=code), CHUNK):
            await _write(connection, chunk, written + 1)
            events += sum(len(one.events) for one in chunk)
            written += len(chunk)
            tell(written)
        await connection.execute("SELECT setval(pg_get_serial_sequence('jivsd.run', 'number'), $1)", written)
    finally:
        await connection.close()
    return events


async def _write(connection: Any, chunk: Sequence[Past], number: int) -> None:
    numbered = list(enumerate(chunk, number))
    copy = partial(connection.copy_records_to_table, schema_name="jivsd")
    async with connection.transaction():
        await copy("run", columns=_RUN, records=[(*rows.run_row(one.run), place) for place, one in numbered])
        attributes = [
            (*row, one.run.created_at, place, one.run.workflow) for place, one in numbered for row in one.attributes()
        ]
        await copy("attribute", columns=_ATTRIBUTE, records=attributes)
        await copy("event", columns=_EVENT, records=[_row(event) for one in chunk for event in one.events])
        incidents = [rows.incident_row(one.incident) for one in chunk if one.incident]
        await copy("incident", columns=_INCIDENT, records=incidents)
        published = [rows.publication_row(one.publication) for one in chunk if one.publication]
        await copy("outbox", columns=_OUTBOX, records=published)


def _row(event: Event) -> tuple[Any, ...]:
    return (
        event.run_id, event.at, event.checksum(), event.seq, event.attempt, event.kind, event.path, event.by,
        event.payload,
    )  # fmt: skip
