"""Between rows and records, where the stores have the same columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.records import Decision, ErrorRecord, IncidentGroup, Kind, Message, Options, Status
from jivsd.store.lockbook import Kin, LockQueue, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jivsd.records import Incident
    from jivsd.store.api import RunChange

options_of: Final = msgspec.json.Decoder(Options).decode
error_of: Final = msgspec.json.Decoder(ErrorRecord).decode
history_of: Final = msgspec.json.Decoder(list[Decision]).decode


def message_of(row: Any) -> Message:
    """The message of a row."""
    workflow, workflow_id, message_id, kind, path, payload, at, by, run_id = row
    return Message(workflow, workflow_id, message_id, Kind(kind), path, payload, at, by, run_id)


def merged(first: RunChange, second: RunChange) -> RunChange:
    """One change that does what two do, one after the other."""
    values: dict[str, Any] = {
        name: value for name in first.__struct_fields__ if (value := getattr(second, name)) is not None
    }
    if second.status is not None:
        values["wake_at"] = second.wake_at
    else:
        values["parked"] = first.parked
    return msgspec.structs.replace(first, **values)


def incident_row(incident: Incident, json: Callable[[Any], str | bytes]) -> tuple[Any, ...]:
    """The row of an incident; `json` makes of a value what the store keeps."""
    return (
        incident.incident_id,
        incident.kind,
        incident.message,
        incident.at,
        incident.run_id,
        incident.workflow,
        incident.path,
        json(incident.details),
        incident.state,
        incident.resolution,
        incident.resolved_by,
        incident.resolved_why,
        incident.resolved_at,
        json(incident.history),
        incident.acknowledged is not None,
        incident.fingerprint,
    )


def group_of(row: Any) -> IncidentGroup:
    """The group of a row."""
    return IncidentGroup(*row)


def queues_of(rows: Iterable[Any]) -> list[LockQueue]:
    """The lock keys of rows, which have a place each and are in the order of keys and tickets."""
    found: dict[str, LockQueue] = {}
    for key, fence, places, ticket, run_id, workflow, workflow_id, status, node, path, since, held_since in rows:
        queue = found.setdefault(key, LockQueue(key, fence, places - 1, []))
        place = Place(ticket, run_id, workflow, workflow_id, Status(status), node, path, since, held_since)
        queue.places.append(place)
    return list(found.values())


def kin_of(row: Any) -> Kin:
    """Who waits for a run."""
    run_id, parent, options = row
    return Kin(run_id, parent, options_of(options).parent_path or "")
