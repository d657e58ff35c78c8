"""Preparing a run: its row and its Started event, with every option resolved and the input checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd import attributes, sizes
from jivsd.authoring.errors import InvalidValue
from jivsd.clock import LONGEST, from_datetime, microseconds
from jivsd.engine.api import Invalid, StartOptions
from jivsd.records import Event, Kind, Options, Run, Started, Status, encode, hash_of, shard_of
from jivsd.store.api import NewRun

if TYPE_CHECKING:
    from jivsd.authoring.workflows import Workflow

MAX_KEY = 512
"""Characters that a workflow id, a key or a correlation id may have."""
PRIORITIES = range(-100, 101)
"""From the last to the first."""


def prepare(
    workflow: Workflow[..., Any],
    input: bytes,
    options: StartOptions,
    *,
    run_id: str,
    now: int,
    by: str = "",
    timeout: int | None = None,
    start_at: int | None = None,
    parent: Run | None = None,
    parent_path: str | None = None,
) -> tuple[NewRun, Event]:
    """Return the row to insert and the run's first event.

    `timeout` in microseconds is used when the options name none; then the workflow's own. `start_at`: the run is not to
    begin before, instead of what the options say.

    Raises:
        Invalid: the input does not fit the workflow's type, or is too large; or an option is not what it should be.
    """
    if len(input) > sizes.LARGEST:
        raise Invalid(sizes.too_large("the input", len(input)), workflow=workflow.name)
    try:
        arguments = workflow.signature.decode_input(input, strict=True)
    except InvalidValue as error:
        raise Invalid(str(error), workflow=workflow.name) from None
    workflow_id = _text("id", options.id) or run_id
    lock_key = _text("lock_key", options.lock_key) or _lock_key(workflow, arguments)
    start_at = _start_at(options, now) if start_at is None else start_at
    resolved = Options(
        timeout=_duration("timeout", options.timeout) or timeout or workflow.timeout,
        lock_key=lock_key,
        lock_wait=_duration("lock_wait", options.lock_wait),
        priority=_priority(options.priority) or (parent.options.priority if parent else 0),
        start_at=start_at,
        parent=parent.run_id if parent else None,
        parent_path=parent_path,
        parent_args=hash_of(input) if parent else None,
        parent_workflow=parent.workflow if parent else None,
        parent_workflow_id=parent.workflow_id if parent else None,
        correlation_id=_text("correlation_id", options.correlation_id)
        or (parent.options.correlation_id if parent else None),
        attributes=_attributes(options.attributes),
    )
    raw = msgspec.Raw(input)
    started = Started(raw, workflow.code_hash, hash_of(run_id.encode()), resolved)
    event = Event(run_id, 1, Kind.STARTED, "", encode(started), now, 0, by)
    pending = lock_key is not None or start_at is not None
    run = Run(
        run_id=run_id,
        workflow=workflow.name,
        workflow_id=workflow_id,
        code_hash=workflow.code_hash,
        shard=shard_of(workflow_id),
        status=Status.PENDING if pending else Status.RUNNING,
        input=raw,
        created_at=now,
        started_at=None if pending else now,
        wake_at=start_at,
        options=msgspec.structs.replace(resolved, attributes={}) if resolved.attributes else resolved,
        attributes=resolved.attributes,
    )
    key = _text("idempotency_key", options.idempotency_key)
    if key is None:
        return NewRun(run), event
    canonical = msgspec.json.encode(msgspec.json.decode(input), order="deterministic")
    return NewRun(run, key, hash_of(canonical)), event


def for_another_node(new: NewRun) -> NewRun:
    """The start of a run that lives on another node: its row says that it is due there."""
    run = new.run
    due = run.created_at if run.wake_at is None else run.wake_at
    row = msgspec.structs.replace(run, status=Status.PENDING, started_at=None, parked=True, wake_at=due)
    return msgspec.structs.replace(new, run=row)


def _lock_key(workflow: Workflow[..., Any], arguments: tuple[Any, ...]) -> str | None:
    key = workflow.lock_key_of(arguments)
    return None if key is None else _text("lock_key", key)


def _start_at(options: StartOptions, now: int) -> int | None:
    """When the run is to begin at the earliest; None: at once, or not at all."""
    if options.delay is not None and options.start_at is not None:
        raise Invalid("options delay and start_at: give one of them", field="start_at")
    if options.start_at is None:
        delay = _duration("delay", options.delay)
        return None if delay is None else now + delay
    if options.start_at.tzinfo is None:
        raise Invalid("option start_at: it needs a time zone, as in 2026-11-30T12:00:00Z", field="start_at")
    at = from_datetime(options.start_at)
    if at > now + LONGEST:
        raise Invalid("option start_at: it is more than a hundred years away", field="start_at")
    return max(at, now)


def _priority(number: int) -> int:
    if number not in PRIORITIES:
        low, high = PRIORITIES[0], PRIORITIES[-1]
        raise Invalid(f"option priority: a whole number from {low} to {high}, not {number}", field="priority")
    return number


def _duration(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        value = microseconds(text)
    except ValueError as error:
        raise Invalid(f"option {option}: {error}", field=option) from None
    if value < 0:
        raise Invalid(f"option {option}: {text!r} is negative", field=option)
    return value


def _attributes(given: dict[str, Any]) -> dict[str, Any]:
    try:
        return attributes.checked(given)
    except ValueError as error:
        raise Invalid(str(error), field="attributes") from None


def _text(option: str, text: str | None) -> str | None:
    if text is None:
        return None
    if not text or len(text) > MAX_KEY or "\0" in text:
        raise Invalid(f"option {option}: 1 to {MAX_KEY} characters without NUL, not {text[:40]!r}", field=option)
    return text
