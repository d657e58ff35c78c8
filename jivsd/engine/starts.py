"""Preparing a run: its row and its Started event, with every option resolved and the input checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd import attributes
from jivsd.authoring.errors import InvalidValue
from jivsd.clock import microseconds
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
    parent: Run | None = None,
    parent_path: str | None = None,
) -> tuple[NewRun, Event]:
    """Return the row to insert and the run's first event.

    `timeout` in microseconds is used when the options name none; then the workflow's own.

    Raises:
        Invalid: the input does not fit the workflow's type, or an option is not what it should be.
    """
    try:
        arguments = workflow.signature.decode_input(input, strict=True)
    except InvalidValue as error:
        raise Invalid(str(error), workflow=workflow.name) from None
    workflow_id = _text("id", options.id) or run_id
    lock_key = _text("lock_key", options.lock_key) or _lock_key(workflow, arguments)
    resolved = Options(
        timeout=_duration("timeout", options.timeout) or timeout or workflow.timeout,
        lock_key=lock_key,
        lock_wait=_duration("lock_wait", options.lock_wait),
        priority=_priority(options.priority) or (parent.options.priority if parent else 0),
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
    run = Run(
        run_id=run_id,
        workflow=workflow.name,
        workflow_id=workflow_id,
        code_hash=workflow.code_hash,
        shard=shard_of(workflow_id),
        status=Status.PENDING if lock_key else Status.RUNNING,
        input=raw,
        created_at=now,
        started_at=None if lock_key else now,
        options=msgspec.structs.replace(resolved, attributes={}) if resolved.attributes else resolved,
        attributes=resolved.attributes,
    )
    key = _text("idempotency_key", options.idempotency_key)
    canonical = msgspec.json.encode(msgspec.json.decode(input), order="deterministic")
    return NewRun(run, key, hash_of(canonical)), event


def _lock_key(workflow: Workflow[..., Any], arguments: tuple[Any, ...]) -> str | None:
    key = workflow.lock_key_of(arguments)
    return None if key is None else _text("lock_key", key)


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
