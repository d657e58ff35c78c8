"""Between rows and records. Run ids are uuid in the database and text here; JSON is bytes on both sides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

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
from jivsd.store.rows import error_of, history_of, options_of
from jivsd.store.rows import group_of as group_of
from jivsd.store.rows import incident_row as row_of_incident
from jivsd.store.rows import merged as merged
from jivsd.store.rows import message_of as message_of
from jivsd.store.tickets import Holder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jivsd.store.api import RunChange

Row = Any
"""An asyncpg.Record: values by place and by name. asyncpg types them as Any."""

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_encode: Final = msgspec.json.encode

NO_JSON: Final = b"{}"


def is_id(text: str) -> bool:
    """Whether it can be the id of a run: nothing else is in the database, and PostgreSQL refuses to look for it."""
    return _ID.fullmatch(text) is not None


def ids(texts: Sequence[str]) -> list[str]:
    """Those that can be ids of runs."""
    return [text for text in texts if is_id(text)]


def event_of(row: Row, run_id: str, seq: int) -> Event:
    """The event of a row (seq, kind, path, payload, at, attempt, by, checksum), which should be that one.

    Raises:
        DamagedRow: it is not, or its checksum does not match.
    """
    stored, kind, path, payload, at, attempt, by, checksum = row
    if stored != seq:
        raise DamagedRow(run_id, seq, "it is missing")
    if payload is None:
        raise DamagedRow(run_id, seq, "its payload is missing")
    event = Event(run_id, seq, kind, path, payload, at, attempt, by)
    if event.checksum() != checksum:
        raise DamagedRow(run_id, seq)
    return event


RUN_COLUMNS: Final = 21
RUN_BYTES: Final = range(16, 21)
"""Which of them are bytes."""


def run_row(run: Run) -> list[Any]:
    """The row of a new run, in the order of `write_batch`."""
    options = run.options
    return [
        run.run_id,
        options.parent,
        options.chain,
        run.created_at,
        run.started_at,
        run.ended_at,
        run.wake_at,
        run.shard,
        run.paused,
        run.parked,
        run.status,
        run.workflow,
        run.workflow_id,
        run.code_hash,
        options.lock_key,
        options.correlation_id,
        _encode(options),
        _encode(run.attributes) if run.attributes else NO_JSON,
        bytes(run.input),
        None if run.output is None else bytes(run.output),
        None if run.error is None else _encode(run.error),
    ]


def run_of(row: Row) -> Run:
    """The run of a row.

    Raises:
        StoreError: the row is damaged.
    """
    try:
        return Run(
            run_id=row["run_id"],
            workflow=row["workflow"],
            workflow_id=row["workflow_id"],
            code_hash=row["code_hash"],
            shard=row["shard"],
            status=Status(row["status"]),
            paused=row["paused"],
            parked=row["parked"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            wake_at=row["wake_at"],
            options=options_of(row["options"]),
            attributes=msgspec.json.decode(row["attributes"]) if row["attributes"] != NO_JSON else {},
            input=msgspec.Raw(row["input"]),
            output=None if row["output"] is None else msgspec.Raw(row["output"]),
            error=None if row["error"] is None else error_of(row["error"]),
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise StoreError(f"the row of run {row['run_id']} is damaged: {error}") from None


CHANGE_COLUMNS: Final = 11
CHANGE_BYTES: Final = (3, 4, 9)
"""Which of them are bytes."""


def change_row(run_id: str, change: RunChange) -> list[Any]:
    """The values of a change, in the order of `write_batch`."""
    return [
        run_id,
        change.status,
        change.paused,
        None if change.output is None else bytes(change.output),
        change.error,
        change.code_hash,
        change.started_at,
        change.ended_at,
        change.wake_at,
        None if change.attributes is None else _encode(change.attributes),
        change.parked,
    ]


def changed(run: Run, change: RunChange) -> Run:
    """A run with the new values of a change."""
    values: dict[str, Any] = {
        name: value
        for name in ("status", "paused", "output", "code_hash", "started_at", "ended_at", "wake_at", "attributes")
        if (value := getattr(change, name)) is not None
    }
    if change.error is not None:
        values["error"] = error_of(change.error)
    if change.status is not None:
        values |= {"wake_at": change.wake_at, "parked": change.parked}
    return msgspec.structs.replace(run, **values)


MESSAGE_COLUMNS: Final = 9
MESSAGE_BYTES: Final = (8,)
"""Which of them are bytes."""


def message_row(message: Message, run_id: str) -> tuple[Any, ...]:
    """The row of a message for a run, in the order of `insert_messages`."""
    return (
        run_id,
        message.at,
        message.workflow,
        message.workflow_id,
        message.message_id,
        message.kind,
        message.path,
        message.by,
        message.payload,
    )


def incident_row(incident: Incident) -> tuple[Any, ...]:
    """The row of an incident."""
    return row_of_incident(incident, _encode)


def incident_of(row: Row) -> Incident:
    """The incident of a row."""
    fields: Mapping[str, Any] = dict(row)
    del fields["number"]
    fields["details"] = msgspec.json.decode(fields["details"])
    fields["history"] = history_of(fields["history"])
    fields["state"] = IncidentState(fields["state"])
    return Incident(**fields)


def publication_row(one: Publication) -> tuple[Any, ...]:
    """The row of an event for the outside, in the order of `publish`."""
    return (one.run_id, one.at, one.path, one.workflow, one.workflow_id, one.topic, bytes(one.payload))


def publication_of(row: Row) -> Publication:
    """The event for the outside of a row."""
    fields: dict[str, Any] = dict(row)
    fields["payload"] = msgspec.Raw(fields["payload"])
    return Publication(**fields)


def progress_row(run_id: str, progress: Progress) -> tuple[Any, ...]:
    """The row of what a step has said of how far it is, in the order of `put_progress`."""
    details = bytes(progress.details)
    return (run_id, progress.path, progress.attempt, progress.at, details, progress.done, progress.total)


def progress_of(row: Row) -> Progress:
    """What a step has said of how far it is."""
    path, attempt, at, details, done, total = row
    return Progress(path, attempt, at, msgspec.Raw(details), done, total)


def holder_of(row: Row) -> Holder:
    """The line of a lock queue."""
    return Holder(*row)


def plugin_row(plugin: Plugin) -> tuple[Any, ...]:
    """The row of a plugin's source."""
    return (plugin.code_hash, plugin.name, _encode(plugin.files), plugin.at)


def plugin_of(row: Row) -> Plugin:
    """The plugin of a row."""
    return Plugin(row["code_hash"], row["name"], msgspec.json.decode(row["files"], type=dict[str, str]), row["at"])
