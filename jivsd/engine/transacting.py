"""Transaction steps: run by the journal's writer inside a batch, or in a transaction of their own that it commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from jivsd.authoring.errors import record_error
from jivsd.engine.attempts import drive, to_json
from jivsd.records import AttemptFailed, Event, Kind, Recovered, StepDone, StepFailed, encode
from jivsd.store.txstep import TxDone, TxStep

if TYPE_CHECKING:
    from jivsd.authoring.commands import StepCall
    from jivsd.engine.actor import Actor
    from jivsd.engine.attempts import Attempt, Taken
    from jivsd.store.api import Entry


def failure(actor: Actor, attempt: Attempt, error: BaseException, *, unknown: bool = False) -> tuple[Kind, str, Any]:
    """The event that a failed attempt becomes: another try is due, or it has failed for good, or a person decides."""
    entry = attempt.entry
    step = cast("StepCall", entry.command).step
    record = record_error(error)
    args_hash = entry.command.args_hash
    delay = step.retry.delay(attempt.number, error, actor.machine.idempotency_key(entry.path))
    if delay is not None:
        actor.services.metrics.step_retries.inc()
        due = actor.services.clock.now() + delay
        return Kind.ATTEMPT_FAILED, entry.path, AttemptFailed(args_hash, record, due, unknown)
    if step.on_exhausted == "incident" and not (entry.abandoned or entry.cancelling):
        return Kind.ATTEMPT_FAILED, entry.path, AttemptFailed(args_hash, record, None, unknown)
    return Kind.STEP_FAILED, entry.path, StepFailed(args_hash, record, unknown)


def submit(actor: Actor, attempt: Attempt) -> None:
    """Hand a transaction step to the writer, which drives it inside the batch that records it."""
    entry = attempt.entry
    call = cast("StepCall", entry.command)
    step = call.step
    place = actor.new_event(Kind.STEP_DONE, entry.path, b"", attempt.number)

    def body(tx: Any) -> Event:
        value = drive(step.function(tx, *step.signature.decode(call.args)))
        return msgspec.structs.replace(place, payload=encode(StepDone(call.args_hash, to_json(step, value))))

    def failed(error: BaseException) -> Event:
        kind, _, payload = failure(actor, attempt, error)
        return msgspec.structs.replace(place, kind=kind, payload=encode(payload))

    actor.append_transaction(place, TxStep(place.seq, body, failed))


def record(actor: Actor, attempt: Attempt, taken: Taken) -> None:
    """Commit what a transaction step has written, together with its record.

    If its transaction was lost meanwhile, through no fault of its own, that takes the record's place, and it begins
    again.
    """
    path = attempt.entry.path
    result = StepDone(attempt.entry.command.args_hash, taken.result)
    event = actor.new_event(Kind.STEP_DONE, path, result, attempt.number)

    def failed(error: BaseException) -> Event:
        kind, _, payload = failure(actor, attempt, error)
        return msgspec.structs.replace(event, kind=kind, payload=encode(payload))

    again = Event(event.run_id, event.seq, Kind.RECOVERED, "", encode(Recovered([])), event.at, by="recovery")
    actor.append_transaction(event, TxDone(taken.open, event, failed, again))


def recorded(actor: Actor, meant: Event, written: Event) -> None:
    """A transaction step is recorded, perhaps as something else than was meant."""
    actor.attempts.pop(meant.path, None)
    if written.kind == Kind.RECOVERED:
        actor.active.discard(meant.path)  # to be begun again when that is delivered


def refused(actor: Actor, entry: Entry, meant: Event) -> None:
    """A transaction step is not recorded: nothing of it may stay open."""
    actor.attempts.pop(meant.path, None)
    if isinstance(entry.tx, TxDone):
        entry.tx.open.drop()
