"""Continuing a run as new: its end and the start of the run that goes on for it are one transaction.

The new run begins with the signals that this one has not read. It has this one's options; a time limit or a lock key
that was the workflow's own is what the newest code makes of the new input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jivsd import logs
from jivsd.authoring import commands
from jivsd.authoring.errors import InvalidValue
from jivsd.engine.ends import end_entry
from jivsd.records import ContinuedAsNew, Ended, Event, Kind, Run, Signal, Started, Status, derived_id, encode, hash_of
from jivsd.store.api import Successor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.actor import Actor
    from jivsd.engine.replay import Open
    from jivsd.records import Incident
    from jivsd.store.api import Entry

log = logs.get(__name__)


def begin(actor: Actor, entry: Open) -> None:
    """The run is to end as soon as nothing is under way, unless it is paused."""
    if not actor.held_back:
        actor.active.add(entry.path)
        actor.end_as(Ended(Status.CONTINUED))


def call_off(actor: Actor, entry: Open) -> None:
    """The run was cancelled, or its time was up, before it was continued."""
    if entry.path in actor.active:
        actor.active.discard(entry.path)
        actor.end_as(None)


def end(actor: Actor, incidents: Sequence[Incident]) -> tuple[Entry, Event]:
    """What ends the run, and its last event. `incidents`: those that end with it."""
    machine = actor.machine
    assert machine.continuing is not None
    command = machine.continuing.command
    assert isinstance(command, commands.ContinueAsNew)
    unread = {
        seq: Signal(name, message_id, payload)
        for name, queue in machine.unread.items()
        for message_id, payload, seq in queue
    }
    signals = [unread[seq] for seq in sorted(unread)]
    run_id = derived_id(actor.run.run_id, "!continued")
    payload = ContinuedAsNew(run_id, msgspec.Raw(command.input), [signal.message_id for signal in signals])
    for timer in actor.timers.values():
        timer.cancel()
    event = actor.new_event(Kind.CONTINUED_AS_NEW, "", payload)
    run = _run(actor, command.input, run_id, event.at)
    successor = Successor(run, _journal(run, signals, by=f"run {actor.run.run_id}"))
    entry = end_entry(actor.run, event, Ended(Status.CONTINUED), incidents=incidents)
    entry.successor = successor
    return entry, event


def _journal(run: Run, signals: list[Signal], by: str) -> list[Event]:
    options = msgspec.structs.replace(run.options, attributes=run.attributes)
    started = Started(run.input, run.code_hash, hash_of(run.run_id.encode()), options)
    at = run.created_at
    events = [Event(run.run_id, 1, Kind.STARTED, "", encode(started), at, 0, by)]
    for seq, signal in enumerate(signals, 2):
        events.append(Event(run.run_id, seq, Kind.SIGNAL, "", encode(signal), at, 0, by))
    return events


def _run(actor: Actor, input: bytes, run_id: str, at: int) -> Run:
    """The row of the new run."""
    run, own = actor.run, actor.workflow
    workflow, arguments = _code(actor, input)
    options = run.options
    timeout, lock_key = options.timeout, options.lock_key
    if timeout == own.timeout:
        timeout = workflow.timeout
    if lock_key == own.lock_key_of(own.signature.decode_input(bytes(run.input))):
        lock_key = workflow.lock_key_of(arguments)
    return Run(
        run_id=run_id,
        workflow=run.workflow,
        workflow_id=run.workflow_id,
        code_hash=workflow.code_hash,
        shard=run.shard,
        status=Status.PENDING if lock_key else Status.RUNNING,
        input=msgspec.Raw(input),
        created_at=at,
        started_at=None if lock_key else at,
        options=msgspec.structs.replace(
            options, timeout=timeout, lock_key=lock_key, start_at=None, chain=options.chain or run.run_id
        ),
        attributes=run.attributes,
    )


def _code(actor: Actor, input: bytes) -> tuple[Workflow[..., Any], tuple[Any, ...]]:
    """The newest code of the workflow, or the run's own where that does not take the input; and the arguments."""
    newest = actor.services.newest(actor.run.workflow)
    if newest is not None:
        try:
            return newest, newest.signature.decode_input(input, strict=True)
        except InvalidValue as error:
            log.warning("the newest code does not take the input; its own goes on", why=str(error), **actor.words())
    return actor.workflow, actor.workflow.signature.decode_input(input)
