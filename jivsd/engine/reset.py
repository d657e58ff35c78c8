"""Retry of a failed run: a new run with the same workflow id that begins where the old one was last well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd import attributes
from jivsd.authoring import commands
from jivsd.authoring.errors import record_error
from jivsd.engine.looking import replayed
from jivsd.engine.replay import UNDO
from jivsd.engine.replay.delivery import child_error
from jivsd.records import ErrorRecord, Event, Kind, Recovered, Reset, Run, Status, encode, hash_of, payload_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.replay import Machine

_OUTCOMES = frozenset({Kind.STEP_DONE, Kind.TIMER_FIRED, Kind.CHILD_ENDED, Kind.MARKER})
"""Later outcomes of paths that were open at the cut: they have happened, and hold in the new run too."""


async def reset(
    workflow: Workflow[..., Any], run: Run, events: list[Event], *, run_id: str, now: int, by: str
) -> tuple[Run, list[Event]]:
    """The row and the journal of the run `run_id` that follows a failed one.

    Cut before the first failure that ended it, the seed stays; once a compensation has begun, or if it ended otherwise
    than by failing, it begins at Started with a new seed (DESIGN.md section 4).
    """
    if run.status is not Status.FAILED or any(event.path.endswith(UNDO) for event in events):
        seed = hash_of(run_id.encode())
        started = payload_of(events[0])
        options = msgspec.structs.replace(started.options, start_at=None)  # it is due
        started = msgspec.structs.replace(started, seed=seed, options=options)
        kept = [msgspec.structs.replace(events[0], at=now, payload=encode(started))]
        doubtful: list[str] = []
    else:
        seed = _seed(events)
        kept, doubtful = await _well(workflow, run, events)
    journal = [msgspec.structs.replace(event, run_id=run_id, seq=seq) for seq, event in enumerate(kept, 1)]
    at = max(now, journal[-1].at)
    for kind, payload in _turning_point(run, seed, doubtful):
        journal.append(Event(run_id, len(journal) + 1, kind, "", encode(payload), at, 0, by))
    return _row(workflow, run, run_id, now, _attributes(journal)), journal


def held(run: Run, journal: list[Event]) -> tuple[Run, list[Event]]:
    """The row and the journal of a reset run that has to wait for room before it goes on."""
    turn = max(index for index, event in enumerate(journal) if event.kind == Kind.RESET)
    payload = msgspec.structs.replace(payload_of(journal[turn]), start_at=run.created_at)
    journal[turn] = msgspec.structs.replace(journal[turn], payload=encode(payload))
    return msgspec.structs.replace(run, status=Status.PENDING, started_at=None, wake_at=run.created_at), journal


def _turning_point(run: Run, seed: str, doubtful: list[str]) -> Iterable[tuple[Kind, msgspec.Struct]]:
    yield Kind.RESET, Reset(source=run.run_id, seed=seed)
    if doubtful:
        yield Kind.RECOVERED, Recovered(doubtful)


def _row(workflow: Workflow[..., Any], run: Run, run_id: str, now: int, present: dict[str, Any]) -> Run:
    """The new run has no parent that waits for it: a child's parent has had its end."""
    locked = run.options.lock_key is not None
    return msgspec.structs.replace(
        run,
        run_id=run_id,
        code_hash=workflow.code_hash,
        status=Status.PENDING if locked else Status.RUNNING,
        created_at=now,
        started_at=None if locked else now,
        ended_at=None,
        wake_at=None,
        output=None,
        error=None,
        paused=False,
        options=msgspec.structs.replace(run.options, parent_path=None, start_at=None),
        attributes=present,
    )


def _attributes(journal: list[Event]) -> dict[str, Any]:
    """The attributes at the end of a journal: what was changed behind the cut has not happened."""
    present: dict[str, Any] = payload_of(journal[0]).options.attributes
    for event in journal:
        if event.kind == Kind.MARKER and event.path.rpartition("/")[2].startswith(commands.ATTRIBUTES):
            present = attributes.merged(present, msgspec.json.decode(payload_of(event).value))
    return present


def _seed(events: list[Event]) -> str:
    seed: str = payload_of(events[0]).seed
    for event in events:
        if event.kind == Kind.RESET:
            seed = payload_of(event).seed
    return seed


async def _well(workflow: Workflow[..., Any], run: Run, events: list[Event]) -> tuple[list[Event], list[str]]:
    """The events that hold in the new run, and the open steps that may have happened nevertheless."""
    cut = _cut(events, run.error)
    failed = events[cut].path
    kept = [event for event in events[:cut] if event.kind != Kind.ATTEMPT_FAILED or event.path != failed]
    async with replayed(workflow, run, kept) as machine:
        open_paths = set(machine.open)
        steps = _open_steps(machine)
    refused = {event.path for event in events if event.kind == Kind.UPDATE_DONE and payload_of(event).error is not None}
    for event in events[cut:]:
        if event.kind == Kind.CODE_CHANGED:  # which code the new run goes by, and since when, decides its versions
            kept.append(event)
        elif event.kind == Kind.SIGNAL or (event.kind == Kind.UPDATE and event.path not in refused):
            kept.append(event)  # it was acknowledged
        elif event.kind in _OUTCOMES and event.path in open_paths and not _is_failure(event):
            open_paths.discard(event.path)
            kept.append(event)
    doubts = {path for event in events for path in _doubts(event)}
    return kept, [path for path in steps if path in doubts and path in open_paths]


def _open_steps(machine: Machine) -> list[str]:
    return [path for path, entry in machine.open.items() if isinstance(entry.command, commands.StepCall)]


def _doubts(event: Event) -> Iterable[str]:
    """The paths of which an event says that an attempt may have happened."""
    match event.kind:
        case Kind.ATTEMPT_FAILED | Kind.STEP_FAILED if payload_of(event).unknown:
            yield event.path
        case Kind.STEP_CANCELLED if payload_of(event).started != "no":
            yield event.path
        case Kind.RECOVERED:
            yield from payload_of(event).paths
        case _:
            pass


def _cut(events: list[Event], error: ErrorRecord | None) -> int:
    """The index of the first failure that ended the run; without one, of its end.

    What ended it is known by its error, looked for from the end: an equal one before it had been dealt with. An error
    of the code's own is blamed on the failure just before it, if nothing was done since.
    """
    blamed = [(leaf.type, leaf.message) for leaf in _leaves(error)] if error is not None else []
    cut = len(events) - 1
    for index in range(len(events) - 2, 0, -1):
        failure = _failure(events[index])
        if failure in blamed:
            blamed.remove(failure)
            cut = index
    if cut == len(events) - 1:
        done = [index for index, event in enumerate(events) if event.kind in _OUTCOMES or _is_failure(event)]
        if done and _is_failure(events[done[-1]]):
            return done[-1]
    return cut


def _is_failure(event: Event) -> bool:
    return _failure(event) is not None


def _failure(event: Event) -> tuple[str, str] | None:
    """Type and message of the error that an event hands to the code."""
    match event.kind:
        case Kind.STEP_FAILED:
            error: ErrorRecord = payload_of(event).error
            return error.type, error.message
        case Kind.CHILD_ENDED if (child := payload_of(event)).status is not Status.COMPLETED:
            record = record_error(child_error(child))
            return record.type, record.message
        case Kind.MARKER if (error := payload_of(event).error) is not None:
            return error.type, error.message
        case _:
            return None


def _leaves(error: ErrorRecord) -> list[ErrorRecord]:
    return [leaf for cause in error.causes for leaf in _leaves(cause)] if error.causes else [error]
