"""Incidents: what they say and where they stand.

One that is open is remembered by the run's next life, so that it is not opened twice. Only a dead letter, which holds
nothing, derives its id from its message, because every replay finds it again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.engine.replay import UNDO, Phase
from jivsd.records import Decision, Incident, IncidentState, Run, derived_id, new_id

if TYPE_CHECKING:
    from jivsd.engine.replay import Block, Open
    from jivsd.store.requests import Request


SHOWN: Final = 4096
"""Bytes of what was asked for that its incident repeats."""


def _incident(
    run: Run, kind: str, path: str, message: str, at: int, *, id: str | None = None, **details: Any
) -> Incident:
    return Incident(
        incident_id=id or new_id(),
        kind=kind,
        message=message,
        at=at,
        run_id=run.run_id,
        workflow=run.workflow,
        path=path,
        details=details,
    )


WARNINGS: Final = frozenset({"thread", "stuck", "still"})
"""Kinds that hold nothing: what they warn of may end by itself."""


def place(incident: Incident) -> str:
    """Where a live run keeps an incident: the path of what it holds, "" when that is the run as a whole."""
    return f"{incident.kind} {incident.path}" if incident.kind in WARNINGS else incident.path


def same(known: Incident, found: Incident) -> bool:
    """Whether an open incident says already what was found."""
    return (known.kind, place(known)) == (found.kind, place(found))


def blocked(run: Run, block: Block, at: int) -> Incident:
    """The run cannot go on with this code. It holds the run as a whole, so its path is empty."""
    details = {"at_path": block.path, "expected": block.expected, "found": block.found}
    return _incident(run, block.kind, "", block.message, at, **{k: v for k, v in details.items() if v})


def held(run: Run, entry: Open, at: int, phase: Phase) -> Incident:
    """A step has used up its retries."""
    kind = "compensation" if phase is Phase.COMPENSATING or entry.path.endswith(UNDO) else "step"
    message = f"{entry.path} failed {entry.failures} times; last: {entry.last_error}"
    return _incident(run, kind, entry.path, message, at, attempts=entry.failures, error=entry.last_error or "")


def misfit(run: Run, message_id: str, why: str, at: int) -> Incident:
    """A message that cannot be applied: a dead letter. It holds nothing."""
    id = derived_id(run.run_id, f"message:{message_id}")
    return _incident(run, "message", f"message:{message_id}", why, at, id=id, message_id=message_id)


def stuck_thread(run: Run, path: str, at: int) -> Incident:
    """A step's thread does not return; the run stays open until it does."""
    return _incident(
        run, "thread", path, f"the thread of {path} does not return; the run cannot end before it does", at
    )


def crashed(run: Run, error: BaseException, times: int, at: int) -> Incident:
    """The run's actor raised again and again."""
    last = f"{type(error).__name__}: {error}"
    return _incident(
        run, "crash", "", f"the run's actor crashed {times} times; last: {last}", at, times=times, error=last
    )


def stuck(run: Run, path: str, why: str, at: int) -> Incident:
    """An attempt of a step runs far longer than it should."""
    return _incident(run, "stuck", path, f"{path} {why}", at, error=why)


def still(run: Run, why: str, at: int) -> Incident:
    """The run has not moved although it should."""
    return _incident(run, "still", "", f"the run has not moved: {why}", at, error=why)


def took_down(run: Run, what: str, where: str, at: int) -> Incident:
    """The run's code ended the whole process; it is not resumed into the same."""
    message = f"quarantined: it {what} at {where}" if where else f"quarantined: it {what}"
    return _incident(run, "takedown", "", message, at, where=where, error=f"{what} at {where}")


def quarantine(workflow: str, why: str, at: int) -> Incident:
    """No run of a workflow is started or lived on until somebody lifts this."""
    message = f"workflow {workflow!r} is quarantined: {why}"
    return Incident(new_id(), "quarantine", message, at, workflow=workflow, details={"error": why})


def refused_request(request: Request, why: str, code: str, at: int) -> Incident:
    """Something that was asked for in SQL cannot be done: a dead letter. Tried again, it may get another one."""
    what = f"signal {request.name!r} to" if request.kind == "signal" else f"{request.kind} of"
    details: dict[str, Any] = {
        "request": request.id,
        "asked": request.kind,
        "workflow_id": request.workflow_id,
        "signal": request.name,
        "key": request.key,
        "asked_by": request.by,
        "code": code,
        "error": why,
    }
    if len(request.payload) <= SHOWN:
        with suppress(msgspec.DecodeError, RecursionError):
            details["payload"] = msgspec.json.decode(request.payload)
    return Incident(
        incident_id=derived_id(request.id, f"request:{request.tries}"),
        kind="request",
        message=f"{what} {request.workflow}:{request.workflow_id}, asked for in SQL by {request.by}: {why}",
        at=at,
        workflow=request.workflow,
        details={name: value for name, value in details.items() if value not in (None, "")},
    )


def suspended_by(known: list[Incident]) -> Incident | None:
    """The incident that keeps a run from living at all until somebody decides, also after a restart."""
    return next((incident for incident in known if incident.kind == "takedown"), None)


def acknowledged(incident: Incident, *, by: str, why: str, at: int) -> Incident:
    """The incident, of which somebody says that he looks after it."""
    return msgspec.structs.replace(incident, history=[*incident.history, Decision("acknowledge", by, why, at)])


def no_code(run: Run, at: int) -> Incident:
    """The code that the run began with cannot be loaded."""
    message = f"the code of workflow {run.workflow!r} with hash {run.code_hash} cannot be loaded"
    return _incident(run, "plugin", "", message, at, code_hash=run.code_hash)


def damaged(run: Run, message: str, at: int) -> Incident:
    """A row of the run's journal is damaged."""
    return _incident(run, "damage", "", message, at)


def resolved(incident: Incident, how: str, *, by: str, why: str, at: int) -> Incident:
    """The incident as it stands after somebody's decision."""
    changes: dict[str, Any] = {
        "state": IncidentState.RESOLVED,
        "resolution": how,
        "resolved_by": by,
        "resolved_why": why,
        "resolved_at": at,
        "history": [*incident.history, Decision(how, by, why, at)],
    }
    return msgspec.structs.replace(incident, **changes)
