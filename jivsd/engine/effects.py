"""Carrying out what the code has asked for: starting steps, timers, children; and calling them off again."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd import attributes, logs
from jivsd.authoring import commands
from jivsd.authoring.errors import record_error
from jivsd.clock import SECOND
from jivsd.engine import (
    beginnings,
    continuing,
    heartbeats,
    incidents,
    locking,
    offspring,
    outward,
    parking,
    transacting,
    troubles,
)
from jivsd.engine.api import EngineError, Invalid
from jivsd.engine.attempts import Attempt, Done, Raised, Stopped, Taken
from jivsd.engine.ends import to_child
from jivsd.engine.heartbeats import LiveContext
from jivsd.engine.replay import START
from jivsd.engine.replay.interrupts import from_terminal
from jivsd.records import (
    ChildEnded,
    Ended,
    ErrorRecord,
    Kind,
    Marker,
    Message,
    Status,
    StepCancelled,
    StepDone,
    TimerFired,
    derived_id,
    encode,
)
from jivsd.store.api import Refused, RunChange, Verdict

if TYPE_CHECKING:
    from typing import Any

    from jivsd.engine.actor import Actor
    from jivsd.engine.replay import Open

log = logs.get(__name__)

_STEP_DONE: Final = Kind.STEP_DONE
THREAD_GRACE = 30 * SECOND
"""Microseconds that a thread may go on after its time is up or it was cancelled, before that is an incident."""


def carry_out(actor: Actor, entry: Open) -> None:
    """Begin what an open command asks for, unless that is under way, or the run is paused."""
    if entry.path in actor.active:
        return
    match entry.command:
        case commands.StepCall() as command:
            if (entry.branch is not None and not entry.cancelling) or not settle_cancelled(actor, entry):
                _start_step(actor, entry, command)
        case commands.Sleep() as command:
            if not actor.run.paused:
                _set_timer(actor, entry, command.deadline, partial(_fire, actor, entry.path))
        case commands.ChildCall() as command if entry.cancelling:
            _cancel_child(actor, entry, command)
        case commands.ChildCall() as command:
            _start_child(actor, entry, command)
        case commands.SideEffect() as command:
            actor.active.add(entry.path)
            actor.append(Kind.MARKER, entry.path, _call(command))
        case commands.SetAttributes() as command:
            actor.active.add(entry.path)
            _set_attributes(actor, entry.path, command.changes)
        case commands.ContinueAsNew():
            continuing.begin(actor, entry)
        case commands.StartChild() as command:
            outward.start(actor, entry, command)
        case commands.SendSignal() as command:
            outward.send(actor, entry, command)
        case commands.Publish() as command:
            outward.publish(actor, entry, command)
        case commands.VersionCall() as command:
            actor.active.add(entry.path)
            actor.append(Kind.MARKER, entry.path, Marker(msgspec.Raw(encode(command.maximum))))
        case commands.Answer() as command:
            if command.outcome is not None:
                actor.active.add(entry.path)
                actor.append(Kind.UPDATE_DONE, entry.path, command.outcome, then=partial(_answered, actor, command))
        case commands.Lock() as command:
            locking.wait(actor, entry, command)
        case _:
            pass


def drop(actor: Actor, entry: Open) -> None:
    """Call off what a cancelled command has begun. A step appends how it settled; its branch may wait for that."""
    timer = actor.timers.pop(entry.path, None)
    if timer is not None:
        timer.cancel()
        actor.active.discard(entry.path)
    match entry.command:
        case commands.StepCall():
            attempt = actor.attempts.get(entry.path)
            if attempt is None:
                settle_cancelled(actor, entry)
            else:
                stop(actor, attempt)
        case commands.ChildCall() as command:
            _cancel_child(actor, entry, command)
        case commands.ContinueAsNew():
            continuing.call_off(actor, entry)
        case commands.Lock() as command:
            locking.give_back(actor, entry, command)
        case _:
            pass


def idle(actor: Actor, entry: Open) -> bool:
    """Whether certainly no attempt of this step was under way when the last life ended.

    An incident holds it, or its next try is not due, or it would have been recorded together with what it did. By a
    clock that has been set back behind what is recorded nothing is certain about what was due.
    """
    transaction = isinstance(entry.command, commands.StepCall) and entry.command.step.mode == "transaction"
    now = actor.services.clock.now()
    return transaction or entry.held or (entry.retry_at is not None and entry.retry_at > now >= actor.machine.at)


def settle_cancelled(actor: Actor, entry: Open) -> bool:
    """Record that a step whose scope was cancelled will not run (again). False if it was not cancelled."""
    if not (entry.abandoned or entry.cancelling):
        return False
    if entry.path not in actor.active:
        actor.active.add(entry.path)
        unknown = entry.tainted or (not actor.live and not idle(actor, entry))
        started = "unknown" if unknown else "no"
        actor.append(Kind.STEP_CANCELLED, entry.path, StepCancelled(entry.command.args_hash, started))
        if (incident := actor.incidents.get(entry.path)) is not None:
            troubles.close(actor, incident, "cancelled")
    return True


# ---- steps


def _start_step(actor: Actor, entry: Open, call: commands.StepCall) -> None:
    if actor.held_back or entry.held:
        return
    if entry.retry_at is not None and entry.retry_at > actor.services.clock.now():
        _set_timer(actor, entry, entry.retry_at, partial(_try_again, actor, entry))
        return
    if actor.filed:
        parking.unpark(actor)
        return
    attempt = Attempt(entry, entry.failures + 1)
    actor.active.add(entry.path)
    actor.attempts[entry.path] = attempt
    if call.step.mode == "transaction" and actor.services.transactions is None:
        transacting.submit(actor, attempt)
        return
    slots = actor.services.slots
    if slots.take(actor.workflow):
        _begin(actor, attempt)
    else:
        go = partial(actor.guard, _its_turn, actor, attempt)
        attempt.turn = slots.wait(actor.workflow, actor.run.options.priority, go)


def _begin(actor: Actor, attempt: Attempt) -> None:
    step = attempt.entry.command.step
    if step.mode == "plain" and step.timeout is not None:
        _watch_thread(actor, attempt, actor.services.clock.now() + step.timeout + THREAD_GRACE)
    actor.begin(attempt)


def _its_turn(actor: Actor, attempt: Attempt) -> None:
    """An attempt that has waited for a slot has one."""
    attempt.turn = None
    if actor.startable and not actor.held_back:
        _begin(actor, attempt)
    else:
        actor.services.slots.release(actor.workflow)
        call_off(actor, attempt)


def call_off(actor: Actor, attempt: Attempt) -> None:
    """An attempt will not begin, at least not now."""
    path = attempt.entry.path
    actor.attempts.pop(path, None)
    actor.active.discard(path)
    settle_cancelled(actor, attempt.entry)
    actor.wake()


def _silent(actor: Actor, attempt: Attempt, why: str) -> None:
    """An attempt has not beaten for as long as it should."""
    _watch_thread(actor, attempt, actor.services.clock.now() + THREAD_GRACE)
    attempt.interrupt(why)


def _try_again(actor: Actor, entry: Open) -> None:
    _timer_gone(actor, entry.path)
    if actor.machine.open.get(entry.path) is entry and actor.live:
        actor.carry_out(entry)


async def run_attempt(actor: Actor, attempt: Attempt, scope: trio.CancelScope) -> None:
    """Run one try of a step in a scope, and append what has become of it."""
    entry, services = attempt.entry, actor.services
    path, step = entry.path, entry.command.step
    context = LiveContext.of(actor, attempt, _silent) if step.wants_context else None
    began = time.perf_counter()
    try:
        if step.mode != "transaction":
            how = await attempt.run(services.threads, scope, context)
        else:
            assert services.transactions is not None
            how = await attempt.transact(services.transactions, scope)
    except BaseException as error:
        actor.active.discard(path)
        if isinstance(error, trio.Cancelled):
            heartbeats.keep(actor, attempt)
        raise
    finally:
        services.slots.release(actor.workflow)
        actor.attempts.pop(path, None)
        if attempt.watch is not None:
            attempt.watch.cancel()
        if attempt.heart is not None:
            attempt.heart.close()
    services.metrics.step_duration.labels(actor.run.workflow, step.name).observe(time.perf_counter() - began)
    try:
        _record(actor, attempt, how)
    except Exception as error:
        actor.fail(error)


def _record(actor: Actor, attempt: Attempt, how: Done | Taken | Raised | Stopped) -> None:
    """Append what has become of an attempt, whose path stays among the active ones until that is delivered."""
    entry = attempt.entry
    if actor.incidents:
        troubles.attempt_ended(actor, entry.path)
    if isinstance(how, Done):
        event = _STEP_DONE, entry.path, StepDone(entry.command.args_hash, how.result)
    elif isinstance(how, Raised):
        event = transacting.failure(actor, attempt, how.error, unknown=how.unknown)
    elif isinstance(how, Taken):
        transacting.record(actor, attempt, how)
        return
    elif entry.abandoned or entry.cancelling:
        started = "no" if entry.command.step.mode == "transaction" else "unknown"
        event = Kind.STEP_CANCELLED, entry.path, StepCancelled(entry.command.args_hash, started)
    else:
        actor.active.discard(entry.path)
        heartbeats.keep(actor, attempt)
        return  # the run leaves memory: the next life finds the step in flight
    if attempt.heart is None:
        actor.append(*event, attempt=attempt.number)
    else:
        heartbeats.append(actor, attempt, *event)


def stop(actor: Actor, attempt: Attempt) -> None:
    """Stop an attempt as soon as it can be; if it is a thread that goes on and on, say so."""
    if attempt.turn is not None:
        actor.services.slots.leave(attempt.turn)
        attempt.turn = None
        call_off(actor, attempt)
        return
    _watch_thread(actor, attempt, actor.services.clock.now() + THREAD_GRACE)
    attempt.cancel()


def _watch_thread(actor: Actor, attempt: Attempt, deadline: int) -> None:
    path = attempt.entry.path
    if attempt.entry.command.step.mode != "plain":
        return

    def look() -> None:
        if actor.attempts.get(path) is attempt and f"thread {path}" not in actor.incidents:
            troubles.open_(actor, incidents.stuck_thread(actor.run, path, actor.services.clock.now()))

    if attempt.watch is not None:
        attempt.watch.cancel()
    attempt.watch = actor.services.timers.add(deadline, partial(actor.guard, look))


def check_result(call: commands.StepCall, value: bytes, *, skipped: bool = False) -> None:
    """Raises Invalid when a value given by a person does not fit the step's result type."""
    try:
        call.step.signature.result.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if skipped:
            message = f"{call.path} cannot be skipped, since the workflow needs its result ({error}): give a value"
            raise Invalid(message, path=call.path) from None
        raise Invalid(f"the value does not fit the result of {call.path}: {error}", path=call.path) from None


def in_flight(actor: Actor) -> list[str]:
    """The paths of steps that may have been under way when the last life ended; settles those that were cancelled."""
    steps = [entry for entry in actor.machine.open.values() if isinstance(entry.command, commands.StepCall)]
    return [entry.path for entry in steps if not settle_cancelled(actor, entry) and not idle(actor, entry)]


# ---- timers, markers


def overdue(actor: Actor) -> list[str]:
    """The paths of the timers that nobody has set and whose time has come, by deadline."""
    now = actor.services.clock.now()
    due = [
        (entry.command.deadline, entry.path)
        for entry in actor.machine.open.values()
        if isinstance(entry.command, commands.Sleep)
        and entry.command.deadline <= now
        and entry.path not in actor.active
    ]
    return [path for _, path in sorted(due)]


def fire(actor: Actor, overdue: list[str]) -> None:
    """Record that these timers have fired."""
    for path in overdue:
        if path == START:
            beginnings.due(actor)
            continue
        actor.active.add(path)
        actor.append(Kind.TIMER_FIRED, path, TimerFired())


def catch_up(actor: Actor) -> bool:
    """Record that those timers have fired that are overdue, behind what was cancelled before. False if none are."""
    due = overdue(actor)
    for entry in list(actor.machine.open.values()) if due else ():
        if isinstance(entry.command, commands.StepCall):
            settle_cancelled(actor, entry)  # the code may come to its end with these timers
    fire(actor, due)
    return bool(due)


def _set_timer(actor: Actor, entry: Open, deadline: int, callback: Any) -> None:
    actor.active.add(entry.path)
    actor.timers[entry.path] = actor.services.timers.add(deadline, partial(actor.guard, callback))


def _timer_gone(actor: Actor, path: str) -> None:
    actor.timers.pop(path, None)
    actor.active.discard(path)


def _fire(actor: Actor, path: str) -> None:
    _timer_gone(actor, path)
    if actor.live and not actor.run.paused and actor.machine.blocked is None and actor.final is None:
        fire(actor, [path])


def _call(command: commands.SideEffect) -> Marker:
    try:
        value = encode(command.function())
        command.codec.decode(value)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the author's own; recorded like a value
        if from_terminal(error):
            raise
        return Marker(error=record_error(error))
    return Marker(msgspec.Raw(value))


def _set_attributes(actor: Actor, path: str, changes: bytes) -> None:
    """Record a change of attributes, and write it into the run's row in the same transaction."""
    present = attributes.merged(actor.run.attributes, msgspec.json.decode(changes))
    actor.run.attributes = present
    actor.append(Kind.MARKER, path, Marker(msgspec.Raw(changes)), change=RunChange(attributes=present))


def _answered(actor: Actor, command: commands.Answer, _: Verdict) -> None:
    actor.services.answers.tell(actor.run.run_id, command.message_id)


# ---- children


def _start_child(actor: Actor, entry: Open, command: commands.ChildCall) -> None:
    if actor.held_back or entry.path in actor.refused:
        return
    actor.active.add(entry.path)
    if entry.issued_at <= actor.started_until:
        return
    try:
        new, event = actor.services.prepare_child(actor, entry.path, command, attached=True)
    except EngineError as error:
        _not_started(actor, entry, Status.FAILED, record_error(error))
        return

    def told(verdict: Verdict) -> None:
        match verdict:
            case Refused(why, other) if why not in ("exists", "fenced"):
                message = f"child run of {command.workflow!r} was refused: {why}" + (f" (run {other})" if other else "")
                _not_started(actor, entry, Status.FAILED, ErrorRecord("Conflict", message))
            case _:
                pass

    offspring.start(actor, new, event, told)


def _not_started(actor: Actor, entry: Open, status: Status, error: ErrorRecord | None) -> None:
    """Record that there is no child run, and why."""
    path = entry.path
    if (
        actor.machine.open.get(path) is entry
        and path not in actor.refused
        and actor.final is None
        and not actor.leaving
    ):
        actor.refused += (path,)
        run_id = derived_id(actor.run.run_id, path)
        actor.append(Kind.CHILD_ENDED, path, ChildEnded(run_id, status, error=error, args_hash=entry.command.args_hash))


def _cancel_child(actor: Actor, entry: Open, command: commands.ChildCall) -> None:
    """Ask a child to cancel; its end comes as a message, unless it never began."""
    actor.active.add(entry.path)

    def posted(verdict: Verdict) -> None:
        if isinstance(verdict, Refused) and verdict.why == "not_found":
            _not_started(actor, entry, Status.CANCELLED, None)

    message = _message_to_child(actor, command, Kind.CANCEL_REQUESTED, b"{}")
    actor.services.post(message, parking.errand(actor, posted))


def terminations(actor: Actor) -> list[Message]:
    """The messages that terminate the children of a run that is terminated."""
    payload = encode(Ended(Status.TERMINATED))
    return [
        _message_to_child(actor, entry.command, Kind.ENDED, payload)
        for entry in actor.machine.open.values()
        if isinstance(entry.command, commands.ChildCall)
    ]


def _message_to_child(actor: Actor, call: commands.ChildCall, kind: Kind, payload: bytes) -> Message:
    run_id = derived_id(actor.run.run_id, call.path)
    now = actor.services.clock.now()
    return to_child(actor.run, call.workflow, call.workflow_id, run_id, kind, payload, now)
