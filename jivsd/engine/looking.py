"""Looking at runs without waking them: throwaway replays, and why a run waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from jivsd.authoring import commands
from jivsd.engine import unwind
from jivsd.engine.api import Wait
from jivsd.engine.replay import Machine, Open

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.replay.parts import Branch
    from jivsd.records import Event, Run


def replayed(workflow: Workflow[..., Any], run: Run, events: list[Event]) -> AbstractAsyncContextManager[Machine]:
    """A machine that has been through a run's journal, for as long as the block lasts. Nothing comes of it."""
    return _Throwaway(workflow, run, events)


class _Throwaway:
    def __init__(self, workflow: Workflow[..., Any], run: Run, events: list[Event]) -> None:
        task: Any = trio.lowlevel.current_task()
        self._events = events
        self._machine = Machine(
            workflow,
            run.run_id,
            run.workflow_id,
            journal=events,
            probe=lambda: task._cancel_status,
        )

    async def __aenter__(self) -> Machine:
        for event in self._events:
            self._machine.deliver(event)
        return self._machine

    async def __aexit__(self, *_: object) -> None:
        for foreign in self._machine.freeze():
            await unwind.undo(foreign)


def waits(machine: Machine, ahead: list[str]) -> list[Wait]:
    """What a run waits for. `ahead`: the runs before it in the queue for its lock."""
    found = [_wait(entry, ahead) for entry in machine.open.values() if not entry.abandoned]
    for listeners in machine.listeners.values():
        found.extend(_wait(entry, ahead) for entry in listeners)
    found.extend(_until(branch, command) for branch, command in machine.predicates.items())
    if machine.blocked is not None:
        found.insert(0, Wait("", "incident", machine.blocked.message))
    return found


def _until(branch: Branch, command: commands.WaitUntil) -> Wait:
    return Wait(command.path, "until", "a condition on the run's own state")


def _wait(entry: Open, ahead: list[str]) -> Wait:
    match entry.command:
        case commands.StepCall() if entry.held:
            return Wait(entry.path, "incident", f"a person's decision on {entry.path}", error=entry.last_error)
        case commands.StepCall() if entry.retry_at is not None:
            what = f"attempt {entry.failures + 1} of step {entry.command.step.name}"
            return Wait(entry.path, "retry", what, until=entry.retry_at, error=entry.last_error)
        case commands.StepCall() as call:
            return Wait(entry.path, "step", f"step {call.step.name}")
        case commands.Sleep() as sleep:
            return Wait(entry.path, "timer", "a deadline" if entry.target else "time", until=sleep.deadline)
        case commands.WaitSignal() as wait:
            return Wait(entry.path, "signal", f"signal {wait.signal!r}")
        case commands.ChildCall() as child:
            return Wait(entry.path, "child", f"child run of workflow {child.workflow!r}")
        case commands.Lock() as lock:
            return Wait(entry.path, "lock", f"lock {lock.key!r}", behind=ahead)
        case _:
            return Wait(entry.path, "marker", "a record of its own")
