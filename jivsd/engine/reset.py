"""Retry of a failed run: a new run with the same workflow id that begins where the old one was last well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd.engine.looking import replayed
from jivsd.records import (
    ErrorRecord,
    Event,
    Kind,
    Reset,
    Run,
    Status,
    StepFailed,
    encode,
    hash_of,
    new_id,
    payload_of,
)

if TYPE_CHECKING:
    from jivsd.authoring.workflows import Workflow

_CARRIED = frozenset({Kind.STEP_DONE, Kind.TIMER_FIRED, Kind.CHILD_ENDED, Kind.MARKER})
"""Later outcomes of paths that were open at the cut: they have happened and hold in the new run too."""


async def reset(
    workflow: Workflow[..., Any], run: Run, events: list[Event], *, now: int, by: str
) -> tuple[Run, list[Event]]:
    """The row and the journal of the run that follows a failed one.

    Cut before the first StepFailed that ended it, the seed stays; once a compensation has begun, or if it ended
    otherwise than by failing, it begins at Started with a new seed (DESIGN.md section 4).
    """
    run_id = new_id()
    afresh = run.status is not Status.FAILED or any(event.path.endswith("!undo") for event in events)
    seed = hash_of(run_id.encode())
    kept = events[:1]
    if not afresh:
        seed = payload_of(events[0]).seed
        for event in events:
            if event.kind == Kind.RESET:
                seed = payload_of(event).seed
        cut = _cut(events, run.error)
        failed = events[cut].path if cut < len(events) else ""
        kept = [event for event in events[:cut] if event.kind != Kind.ATTEMPT_FAILED or event.path != failed]
        async with replayed(workflow, run, kept) as machine:
            open_paths = set(machine.open)
        for event in events[cut:]:
            if event.kind in _CARRIED and event.path in open_paths:
                open_paths.discard(event.path)
                kept.append(event)
    else:
        started = payload_of(events[0])
        kept = [msgspec.structs.replace(events[0], at=now, payload=encode(msgspec.structs.replace(started, seed=seed)))]
    journal = [msgspec.structs.replace(event, run_id=run_id, seq=seq) for seq, event in enumerate(kept, 1)]
    last = max(now, journal[-1].at)
    journal.append(
        Event(run_id, len(journal) + 1, Kind.RESET, "", encode(Reset(source=run.run_id, seed=seed)), last, 0, by)
    )
    lock = run.options.lock_key is not None
    new = msgspec.structs.replace(
        run,
        run_id=run_id,
        code_hash=workflow.code_hash,
        status=Status.PENDING if lock else Status.RUNNING,
        created_at=now,
        started_at=None if lock else now,
        ended_at=None,
        output=None,
        error=None,
        paused=False,
    )
    return new, journal


def _cut(events: list[Event], error: ErrorRecord | None) -> int:
    """The index of the first StepFailed that ended the run; without one, of its end."""
    blamed = _flat(error) if error is not None else []
    for index, event in enumerate(events):
        if event.kind == Kind.STEP_FAILED:
            failed: StepFailed = payload_of(event)
            if any(failed.error.type == cause.type and failed.error.message == cause.message for cause in blamed):
                return index
    return len(events) - 1 if events[-1].kind == Kind.ENDED else len(events)


def _flat(error: ErrorRecord) -> list[ErrorRecord]:
    return [error, *(inner for cause in error.causes for inner in _flat(cause))]
