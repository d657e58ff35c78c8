"""Slots: so many steps run at once. The others wait for their turn; none is ever refused."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from jivsd.engine.line import Line, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.authoring.workflows import Workflow
    from jivsd.clock import Clock
    from jivsd.engine.limits import Limits
    from jivsd.metrics import Metrics


class Turn(NamedTuple):
    """A step that waits, and what to call when its turn has come."""

    workflow: Workflow[..., Any]
    go: Callable[[], None]


class Slots:
    """The slots of a node. As long as there is one, `take` costs next to nothing: every step passes here."""

    def __init__(self, limits: Limits, clock: Clock, metrics: Metrics, on_room: Callable[[], None]) -> None:
        """Prepare. `on_room` is called when there is a slot again after there was none."""
        self.used = 0
        """How many steps run."""
        self._limits = limits
        self._limit = limits.running_steps
        self._own = bool(limits.workflows)
        """Whether workflows were given limits of their own, besides those whose code says so."""
        self._clock = clock
        self._metrics = metrics
        self._on_room = on_room
        self._used_by: Counter[str] = Counter()
        """Steps that run of the workflows that have a limit of their own."""
        self._line: Line[Turn] = Line()
        self._calling = False

    @property
    def waiting(self) -> int:
        """How many steps wait for their turn."""
        return len(self._line)

    def use_of(self, name: str, own: int) -> tuple[int, int]:
        """How many steps of a workflow with a limit of its own run, and how many wait."""
        return self._used_by[name], self._line.count((name, own))

    def free(self, name: str, own: int | None) -> bool:
        """Whether a step of a workflow that may run `own` at once (None: has no limit of its own) could begin now."""
        return self.used < self._limit and (own is None or self._used_by[name] < own)

    def take(self, workflow: Workflow[..., Any]) -> bool:
        """Take a slot for a step, if there is one. Nobody is overtaken: who waits would have it otherwise."""
        if self.used >= self._limit:
            return False
        if self._own or workflow.running_steps is not None:
            own = self._limits.steps_of(workflow)
            if own is not None:
                if self._used_by[workflow.name] >= own:
                    return False
                self._used_by[workflow.name] += 1
        self.used += 1
        return True

    def wait(self, workflow: Workflow[..., Any], priority: int, go: Callable[[], None]) -> Place[Turn]:
        """Call `go` once a slot has been taken for the step; it must not raise."""
        own = self._limits.steps_of(workflow)
        group = None if own is None else (workflow.name, own)
        place = self._line.join(Turn(workflow, go), since=self._clock.now(), priority=priority, group=group)
        self._metrics.steps_waiting.set(len(self._line))
        return place

    def leave(self, place: Place[Turn]) -> None:
        """The step no longer waits."""
        self._line.leave(place)
        self._metrics.steps_waiting.set(len(self._line))

    def release(self, workflow: Workflow[..., Any]) -> None:
        """Give a slot back; the next ones go."""
        full = self.used >= self._limit
        self.used -= 1
        if (self._own or workflow.running_steps is not None) and self._limits.steps_of(workflow) is not None:
            full = True
            self._used_by[workflow.name] -= 1
        if self._line.waiting:
            self._call()
        if full:
            self._on_room()

    def rebook(self, before: Workflow[..., Any], after: Workflow[..., Any], steps: int) -> None:
        """Steps that run go on under other code of their workflow, which may have another limit of its own, or none."""
        for workflow, change in ((before, -steps), (after, steps)):
            if self._limits.steps_of(workflow) is not None:
                self._used_by[workflow.name] += change

    def _call(self) -> None:
        """Let those go for whom there are slots. Who goes may give its slot back at once."""
        if self._calling:
            return
        self._calling = True
        try:
            while self.used < self._limit and (turn := self._line.next(self._has_room)) is not None:
                self.take(turn.workflow)
                turn.go()
        finally:
            self._calling = False
            self._metrics.steps_waiting.set(len(self._line))

    def _has_room(self, group: tuple[str, int] | None) -> bool:
        return group is None or self._used_by[group[0]] < group[1]
