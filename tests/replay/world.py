"""What is around a life: the outside world that steps change, and what was seen of each of its machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.authoring import commands
from jivsd.engine.replay import Machine
from jivsd.records import encode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from jivsd.authoring.workflows import Workflow
    from jivsd.records import Event

RUN_ID = "0192f0c1-2345-7000-8000-000000000001"


class World:
    """What is outside: what attempts have done to it, and the promises that hold there."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.attempts: dict[str, int] = {}
        self.applied: dict[str, commands.StepCall] = {}
        """Steps (by path) whose effect is there, or has been."""
        self.lost: set[str] = set()
        """Steps an attempt of which was lost from sight; a later one is likely to fail: there it gets interesting."""
        self.undone: dict[str, commands.StepCall] = {}
        """The compensations that were executed, by the path of what they undo."""

    def begin(self, path: str, call: commands.StepCall) -> None:
        self.attempts[path] = self.attempts.get(path, 0) + 1

    def apply(self, path: str, call: commands.StepCall) -> Any:
        """The attempt does its work; returns what its function returns."""
        arguments = call.step.signature.decode(call.args)
        running = call.step.function(*arguments)
        try:
            running.send(None)
        except StopIteration as stop:
            result = stop.value
        if path.endswith("!undo"):
            self.undone[path.removesuffix("!undo")] = call
        else:
            self.applied[path] = call
        return result

    def maybe_apply(self, path: str, call: commands.StepCall) -> None:
        """The attempt is lost from sight: it may have done its work."""
        self.lost.add(path)
        if self.rng.random() < 0.5:
            self.apply(path, call)


class Incarnation:
    """One machine of a run and what was seen of it."""

    def __init__(self, workflow: Workflow[..., Any], journal: Iterable[Event]) -> None:
        self.trace: list[tuple[Any, ...]] = []
        self.turns: list[tuple[Any, ...]] = []
        self.machine = Machine(workflow, RUN_ID, "id", journal=journal, on_issue=self._issued)

    def _issued(self, command: commands.Command) -> None:
        said: Any = getattr(command, "args", None) or getattr(command, "input", None) or command.args_hash
        if isinstance(command, commands.Sleep):
            said = command.deadline
        elif isinstance(command, commands.Answer):
            said = encode(command.outcome)
        self.trace.append((self.machine.seq, command.path, command.kind, said))

    def deliver(self, event: Event) -> None:
        machine = self.machine
        machine.deliver(event)
        fresh = [entry.path for entry in machine.fresh if entry.command.kind != "version"]
        dropped = [entry.path for entry in machine.dropped]
        seen = getattr(machine.instance, "print", None)
        outcome = encode(machine.outcome)
        self.turns.append((event.seq, str(event.kind), event.path, seen, fresh, dropped, machine.phase.value, outcome))
