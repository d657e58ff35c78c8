"""What each kind of event does to a machine. One function a kind, gathered in `HANDLERS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd import attributes
from jivsd.authoring import commands
from jivsd.authoring.errors import Cancelled, ChildFailed, InvalidValue, TimedOut, rebuild_error, record_error
from jivsd.clock import SECOND
from jivsd.engine.replay.locks import Held
from jivsd.engine.replay.parts import LOCK, LOCK_WAIT, START, TIMEOUT, Open, Outcome, Phase, Scope
from jivsd.engine.replay.saga import UNDO
from jivsd.engine.replay.updates import Updates
from jivsd.records import (
    AttemptFailed,
    ChildEnded,
    Event,
    Kind,
    LockGranted,
    Marker,
    Recovered,
    Reset,
    Signal,
    Started,
    Status,
    StepCancelled,
    StepDone,
    StepFailed,
    hash_of,
    payload_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.replay.machine import Machine


_MARKED: Final = frozenset({"publish", "start", "send", "lock"})
"""Kinds of commands, besides side effects, that a Marker answers."""
AT_ONCE: Final = SECOND
"""How long a run that begins later than it was accepted waits for its lock if it is not to wait at all."""


def _take(machine: Machine, event: Event, kind: str, args_hash: str = "") -> Open | None:
    """The open command that an event is for; None if it is to be ignored. Blocks the run on a mismatch (rule 10)."""
    entry = machine.open.get(event.path)
    if entry is None:
        if event.path not in machine.closed:
            machine.block(
                "replay",
                f"the journal has {event.kind} for {event.path}, which the code has not reached",
                event.path,
                f"{kind} {event.path}",
                "nothing",
            )
        return None
    command = entry.command
    if command.kind != kind or command.args_hash != args_hash:
        same = command.kind == kind
        machine.block(
            "replay",
            f"the journal has {event.kind} for {event.path}, but the code does something else there",
            event.path,
            f"{kind} with arguments {args_hash}" if same else kind,
            f"{command.kind} with arguments {command.args_hash}" if same else command.kind,
        )
        return None
    return entry


def _started(machine: Machine, event: Event) -> None:
    payload: Started = payload_of(event)
    machine.seed = payload.seed
    machine.options = payload.options
    machine.attributes = payload.options.attributes
    try:
        arguments = machine.workflow.signature.decode_input(bytes(payload.input))
    except InvalidValue as error:
        machine.block("replay", f"the run's input does not fit the code's type: {error}")
        return
    machine.arguments = arguments
    machine.make()
    if payload.options.start_at is not None:
        machine.open_timer(START, payload.options.start_at, START)
    else:
        _due(machine, event)


def _due(machine: Machine, event: Event) -> None:
    """The run's time has come: its deadline counts from now on, and its code begins when it has its lock."""
    options = machine.options
    if options.timeout is not None:
        machine.main_timer = machine.open_timer(TIMEOUT, event.at + options.timeout, machine.root)
    if options.lock_key is None:
        machine.begin()
        return
    machine.open_lock(options.lock_key)
    wait = options.lock_wait
    if wait == 0:  # it was accepted because the lock was free; unless it was to begin later
        wait = None if options.start_at is None else AT_ONCE
    if wait is not None:
        machine.open_timer(LOCK_WAIT, event.at + wait, LOCK)


def _lock_granted(machine: Machine, event: Event) -> None:
    payload: LockGranted = payload_of(event)
    entry = _take(machine, event, "lock", payload.args_hash)
    if entry is None:
        return
    assert isinstance(entry.command, commands.Lock)
    if event.path != LOCK:
        if isinstance(entry.target, Held):
            machine.relocked(entry.target, payload.fence)
        else:
            _hand_over(machine, entry, machine.take_lock(entry, entry.command.key, payload.fence))
        return
    machine.own_lock = Held(entry, entry.command.key, payload.fence)
    again = LOCK in machine.closed  # a reset run waits for its own turn, its code has begun before
    machine.settle(entry)
    if (wait := machine.open.get(LOCK_WAIT)) is not None:
        machine.drop_deadline(wait)
    if not again:
        machine.begin()


def _step_done(machine: Machine, event: Event) -> None:
    payload: StepDone = payload_of(event)
    entry = _take(machine, event, "step", payload.args_hash)
    if entry is None:
        return
    if entry.entry is not None:
        entry.entry.done(event.seq, payload.result)
    if entry.branch is None:
        machine.settle(entry)
        return
    command: commands.StepCall = entry.command
    try:
        value = command.step.signature.result.decode(payload.result)
    except msgspec.DecodeError as error:
        machine.block(
            "result", f"the recorded result of {event.path} does not fit the code's type: {error}", event.path
        )
        return
    machine.settle(entry)
    machine.ready(entry.branch, value)


def _hand_over(machine: Machine, entry: Open, value: Any = None, error: BaseException | None = None) -> None:
    machine.settle(entry)
    if entry.branch is not None:
        machine.ready(entry.branch, value, error=error)


def _step_failed(machine: Machine, event: Event) -> None:
    payload: StepFailed = payload_of(event)
    entry = _take(machine, event, "step", payload.args_hash)
    if entry is None:
        return
    if event.path.endswith(UNDO):
        machine.block("compensation", f"{event.path} has failed for good: {payload.error.message}", event.path)
        return
    if entry.entry is not None:
        entry.entry.failed(event.seq, unknown=payload.unknown or entry.tainted)
    command = entry.command
    assert isinstance(command, commands.StepCall)
    namespaces = [machine.workflow.namespace, command.step.function.__globals__]
    _hand_over(machine, entry, error=rebuild_error(payload.error, namespaces))


def _step_cancelled(machine: Machine, event: Event) -> None:
    payload: StepCancelled = payload_of(event)
    entry = _take(machine, event, "step", payload.args_hash)
    if entry is None:
        return
    if not (entry.abandoned or entry.cancelling):
        machine.block(
            "replay",
            f"the journal has StepCancelled for {event.path}, but the code has not cancelled it",
            event.path,
            "cancelled",
            "waited for",
        )
        return
    if entry.entry is not None:
        entry.entry.failed(event.seq, unknown=entry.tainted or payload.started != "no")
    _hand_over(machine, entry, error=Cancelled())


def _attempt_failed(machine: Machine, event: Event) -> None:
    payload: AttemptFailed = payload_of(event)
    entry = _take(machine, event, "step", payload.args_hash)
    if entry is None:
        return
    entry.failures = event.attempt
    entry.retry_at = payload.next_at
    entry.held = payload.next_at is None
    entry.last_error = f"{payload.error.type}: {payload.error.message}"
    entry.tainted = entry.tainted or payload.unknown


def _timer_fired(machine: Machine, event: Event) -> None:
    entry = _take(machine, event, "timer")
    if entry is None:
        return
    target, entry.target = entry.target, None
    _hand_over(machine, entry)
    if target is machine.root:
        machine.stop(Status.TIMED_OUT)
    elif isinstance(target, Scope):
        machine.cancel(target)
    elif target is START and not machine.begun:
        _due(machine, event)
    elif target is LOCK and LOCK in machine.open:
        error = TimedOut(f"waited for lock {machine.options.lock_key!r} in vain")
        machine.end(Outcome(Status.FAILED, error=record_error(error)))


def _marker(machine: Machine, event: Event) -> None:
    payload: Marker = payload_of(event)
    if event.path.startswith("version:"):
        _version_marker(machine, event, payload)
        return
    if event.path.rpartition("/")[2].startswith(commands.ATTRIBUTES):
        _attributes_marker(machine, event, payload)
        return
    waiting = machine.open.get(event.path)
    kind = "marker" if waiting is None or waiting.command.kind not in _MARKED else waiting.command.kind
    entry = _take(machine, event, kind, payload.args_hash)
    if entry is None:
        return
    if payload.error is not None:
        _hand_over(machine, entry, error=rebuild_error(payload.error, [machine.workflow.namespace]))
        return
    command = entry.command
    if not isinstance(command, commands.SideEffect):
        started = isinstance(command, commands.StartChild)
        _hand_over(machine, entry, msgspec.json.decode(payload.value, type=str) if started else None)
        return
    try:
        value = command.codec.decode(payload.value)
    except msgspec.DecodeError as error:
        machine.block("result", f"the recorded value of {event.path} does not fit the code's type: {error}", event.path)
        return
    _hand_over(machine, entry, value)


def _attributes_marker(machine: Machine, event: Event, payload: Marker) -> None:
    """It counts also when nobody waits for it any more: the run's row was changed with it."""
    changes: dict[str, Any] = msgspec.json.decode(payload.value)
    hashed = hash_of(msgspec.json.encode(changes))  # as the command's: a file may have other blanks between its values
    entry = _take(machine, event, "attributes", hashed)
    if machine.blocked is None:
        machine.attributes = attributes.merged(machine.attributes, changes)
    if entry is not None:
        _hand_over(machine, entry)


def _version_marker(machine: Machine, event: Event, payload: Marker) -> None:
    entry = _take(machine, event, "version")
    if entry is None:
        return
    value: int = msgspec.json.decode(payload.value, type=int)
    machine.versions[event.path.removeprefix("version:")] = value
    machine.settle(entry)
    for branch, command in entry.target:
        machine.ready(branch, machine.in_range(command, value))


def _signal(machine: Machine, event: Event) -> None:
    payload: Signal = payload_of(event)
    over = machine.phase is not Phase.RUNNING or machine.continuing is not None
    if over:  # no handler may stand in the way of compensations
        machine.keep_unread(payload.name, payload.message_id, payload.payload)
        return
    handler = machine.workflow.signals.get(payload.name)
    if handler is not None:
        try:
            arguments = handler.signature.decode_input(bytes(payload.payload))
        except InvalidValue as error:
            machine.misfits += ((payload.message_id, str(error)),)
            return
        machine.handle(handler.function, arguments)
        return
    listeners = machine.listeners.get(payload.name)
    if listeners:
        entry = listeners[0]
        command = entry.command
        assert isinstance(command, commands.WaitSignal)
        fits, value = machine.read_signal(command, payload.message_id, payload.payload)
        if fits:
            listeners.pop(0)
            if not listeners:
                del machine.listeners[payload.name]
            _hand_over(machine, entry, value)
        return
    machine.keep_unread(payload.name, payload.message_id, payload.payload)


def _update(machine: Machine, event: Event) -> None:
    if machine.updates is None:
        machine.updates = Updates(machine)
    machine.updates.take(event.path, payload_of(event))


def _update_done(machine: Machine, event: Event) -> None:
    entry = _take(machine, event, "update")
    if entry is None:
        return
    command = entry.command
    assert isinstance(command, commands.Answer)
    if command.outcome is None:
        machine.block(
            "replay",
            f"the journal has the answer of update {command.update!r}, whose handler has not ended in the code",
            event.path,
            "answered",
            "at work",
        )
        return
    machine.settle(entry)


def _child_ended(machine: Machine, event: Event) -> None:
    payload: ChildEnded = payload_of(event)
    args_hash = payload.args_hash
    if args_hash is None:  # an older version's: whatever the code's call is
        args_hash = machine.open[event.path].command.args_hash if event.path in machine.open else ""
    entry = _take(machine, event, "child", args_hash)
    if entry is None:
        return
    command = entry.command
    assert isinstance(command, commands.ChildCall)
    completed = payload.status is Status.COMPLETED
    if entry.entry is not None:
        if completed:
            entry.entry.done(event.seq, payload.output)
        else:
            entry.entry.failed(event.seq, unknown=False)
    if completed:
        try:
            value = (
                msgspec.json.decode(payload.output) if command.result is None else command.result.decode(payload.output)
            )
        except msgspec.DecodeError as error:
            machine.block("result", f"the output of child {event.path} does not fit: {error}", event.path)
            return
        _hand_over(machine, entry, value)
    elif entry.cancelling:
        _hand_over(machine, entry, error=Cancelled())
    else:
        _hand_over(machine, entry, error=child_error(payload))


def child_error(payload: ChildEnded) -> ChildFailed:
    """What a child that did not complete raises in its parent."""
    data: dict[str, Any] = {"run_id": payload.run_id, "status": payload.status.value}
    if payload.error is None:
        return ChildFailed(f"child run {payload.run_id} ended {payload.status}", **data)
    data["type"] = payload.error.type
    return ChildFailed(f"child run {payload.run_id} ended {payload.status}: {payload.error.message}", **data)


def _cancel_requested(machine: Machine, event: Event) -> None:
    machine.stop(Status.CANCELLED)


def _recovered(machine: Machine, event: Event) -> None:
    payload: Recovered = payload_of(event)
    for path in payload.paths:
        if (entry := machine.open.get(path)) is not None:
            entry.tainted = True
        elif path not in machine.closed:
            machine.block("replay", f"{path} was in flight, but the code has not reached it", path, path, "nothing")


def _reset(machine: Machine, event: Event) -> None:
    """What was before is another run's: this one has its own time, and its own place in the queue for the lock."""
    payload: Reset = payload_of(event)
    machine.reseed(payload.seed)
    options = machine.options
    if options.timeout is not None and (timer := machine.open.get(TIMEOUT)) is not None:
        assert isinstance(timer.command, commands.Sleep)
        timer.command.deadline = event.at + options.timeout
    if payload.start_at is not None and machine.outcome is None:
        machine.open_timer(START, payload.start_at, START)
    if options.lock_key is not None and LOCK not in machine.open and machine.outcome is None:
        machine.open_lock(options.lock_key)
    if machine.outcome is None:
        machine.relock()


def _nothing(machine: Machine, event: Event) -> None:
    """For the timeline only."""


HANDLERS: Final[dict[str, Callable[[Machine, Event], None]]] = {
    Kind.STARTED: _started,
    Kind.STEP_DONE: _step_done,
    Kind.STEP_FAILED: _step_failed,
    Kind.STEP_CANCELLED: _step_cancelled,
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.TIMER_FIRED: _timer_fired,
    Kind.MARKER: _marker,
    Kind.SIGNAL: _signal,
    Kind.UPDATE: _update,
    Kind.UPDATE_DONE: _update_done,
    Kind.LOCK_GRANTED: _lock_granted,
    Kind.RESET: _reset,
    Kind.CHILD_ENDED: _child_ended,
    Kind.CANCEL_REQUESTED: _cancel_requested,
    Kind.RECOVERED: _recovered,
    Kind.CODE_CHANGED: _nothing,
    Kind.PAUSED: _nothing,
    Kind.RESUMED: _nothing,
    Kind.ENDED: _nothing,
    Kind.CONTINUED_AS_NEW: _nothing,
}
