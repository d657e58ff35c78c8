"""Between rows and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd.records import (
    Event,
    Incident,
    IncidentState,
    Message,
    Progress,
    Publication,
    Run,
    Status,
)
from jivsd.store.api import DamagedRow, Plugin, StoreError
from jivsd.store.payloads import INLINE_BYTES as INLINE_BYTES
from jivsd.store.payloads import payload_hash as payload_hash
from jivsd.store.rows import error_of, history_of, options_of
from jivsd.store.rows import group_of as group_of
from jivsd.store.rows import incident_row as row_of_incident
from jivsd.store.rows import message_of as message_of
from jivsd.store.tickets import Holder

if TYPE_CHECKING:
    from jivsd.store.api import RunChange

Row = tuple[Any, ...]


def text(raw: msgspec.Raw | bytes | None) -> str | None:
    """JSON bytes as the text that people can read in a table."""
    return None if raw is None else bytes(raw).decode()


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _attributes(attributes: dict[str, Any]) -> str:
    return _json(attributes) if attributes else "{}"


def event_of(row: Row, run_id: str, seq: int) -> Event:
    """The event of a row, which should be event `seq` of run `run_id`.

    Raises:
        DamagedRow: it is not, or its checksum does not match.
    """
    *fields, checksum = row
    event = Event(*fields)
    if (event.run_id, event.seq) != (run_id, seq):
        raise DamagedRow(run_id, seq, "it is missing")
    try:
        intact = event.checksum() == checksum
    except (TypeError, AttributeError):
        intact = False  # not even the types are those of an event
    if not intact:
        raise DamagedRow(run_id, seq)
    return event


def run_row(run: Run) -> Row:
    """The row of a run."""
    return (
        run.run_id,
        run.workflow,
        run.workflow_id,
        run.code_hash,
        run.shard,
        run.status,
        run.paused,
        run.parked,
        run.created_at,
        run.started_at,
        run.ended_at,
        run.wake_at,
        _json(run.options),
        _attributes(run.attributes),
        text(run.input),
        text(run.output),
        None if run.error is None else _json(run.error),
    )


def run_of(row: Row) -> Run:
    """The run of a row.

    Raises:
        StoreError: the row is damaged.
    """
    try:
        return _run_of(row)
    except (ValueError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise StoreError(f"the row of run {row[0]} is damaged: {error}") from None


def _run_of(row: Row) -> Run:
    return Run(
        run_id=row[0],
        workflow=row[1],
        workflow_id=row[2],
        code_hash=row[3],
        shard=row[4],
        status=Status(row[5]),
        paused=bool(row[6]),
        parked=bool(row[7]),
        created_at=row[8],
        started_at=row[9],
        ended_at=row[10],
        wake_at=row[11],
        options=options_of(row[12]),
        attributes=msgspec.json.decode(row[13]) if row[13] != "{}" else {},
        input=msgspec.Raw(row[14].encode()),
        output=None if row[15] is None else msgspec.Raw(row[15].encode()),
        error=None if row[16] is None else error_of(row[16]),
    )


def change_row(run_id: str, change: RunChange) -> Row:
    """The parameters of `change_run`."""
    return (
        run_id,
        change.status,
        change.paused,
        text(change.output),
        text(change.error),
        change.code_hash,
        change.started_at,
        change.ended_at,
        change.wake_at,
        None if change.attributes is None else _attributes(change.attributes),
        change.parked,
    )


def message_row(message: Message, run_id: str) -> Row:
    """The row of a message for a run."""
    return (
        message.workflow,
        message.workflow_id,
        message.message_id,
        run_id,
        message.kind,
        message.path,
        message.payload,
        message.at,
        message.by,
    )


def incident_row(incident: Incident) -> Row:
    """The row of an incident."""
    return row_of_incident(incident, _json)


def incident_of(row: Row) -> Incident:
    """The incident of a row."""
    return Incident(
        incident_id=row[0],
        kind=row[1],
        message=row[2],
        at=row[3],
        run_id=row[4],
        workflow=row[5],
        path=row[6],
        details=msgspec.json.decode(row[7]),
        state=IncidentState(row[8]),
        resolution=row[9],
        resolved_by=row[10],
        resolved_why=row[11],
        resolved_at=row[12],
        history=history_of(row[13]),
        fingerprint=row[14],
    )


def publication_row(one: Publication) -> Row:
    """The row of an event for the outside."""
    return (one.run_id, one.path, one.workflow, one.workflow_id, one.topic, text(one.payload), one.at)


def publication_of(row: Row) -> Publication:
    """The event for the outside of a row."""
    number, run_id, path, workflow, workflow_id, topic, payload, at = row
    return Publication(
        number=number,
        run_id=run_id,
        path=path,
        workflow=workflow,
        workflow_id=workflow_id,
        topic=topic,
        payload=msgspec.Raw(payload.encode()),
        at=at,
    )


def progress_row(run_id: str, progress: Progress) -> dict[str, Any]:
    """The row of what a step has said of how far it is."""
    return {**msgspec.structs.asdict(progress), "run_id": run_id, "details": text(progress.details)}


def progress_of(row: Row) -> Progress:
    """What a step has said of how far it is."""
    path, attempt, at, details, done, total = row
    return Progress(path, attempt, at, msgspec.Raw(details.encode()), done, total)


def holder_of(row: Row) -> Holder:
    """The line of a lock queue."""
    *fields, granted = row
    return Holder(*fields, granted=bool(granted))


def plugin_row(plugin: Plugin) -> Row:
    """The row of a plugin's source."""
    return (plugin.code_hash, plugin.name, _json(plugin.files), plugin.at)


def plugin_of(row: Row) -> Plugin:
    """The plugin of a row."""
    return Plugin(row[0], row[1], msgspec.json.decode(row[2], type=dict[str, str]), row[3])
