"""The gate: new runs come in while there is room for them; over the limits they wait (DESIGN.md section 5, Limits).

A run is active when it is in memory and does not wait. That is not counted all the time, which every step would pay
for: as long as fewer runs are in memory than may be active there is room anyway, and beyond that they are looked
through, now and then.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from jivsd.clock import SECOND
from jivsd.engine.api import LimitState, Unavailable
from jivsd.engine.line import Line, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.host import Host
    from jivsd.engine.limits import Limits
    from jivsd.engine.timers import Timer

START_WAIT: Final = 5.0
"""Seconds that a start waits for room before it is refused."""
LOOK_EVERY: Final = 0.05
"""Seconds between two counts of the active runs, at least: a start that waits may be let in so late."""
EXCESS: Final = 500
"""How many more runs than may wait in memory come to do so before new ones are let in more slowly."""
COUNT_SHARE: Final = 50
"""Counting takes one part in so many of the time, at most."""


class Kind(NamedTuple):
    """Runs of one workflow, and the limits of their own that they have."""

    workflow: str
    runs: int | None
    steps: int | None


class Guest(NamedTuple):
    """A run that waits to be let in. `told` gets True when it is, False when the host is stopping."""

    kind: Kind
    told: Callable[[bool], None]


class Gate:
    """The gate of a host."""

    def __init__(self, host: Host, limits: Limits) -> None:
        self.limits = limits
        self.starts = 0
        """How many starts wait to be accepted."""
        self._host = host
        self._line: Line[Guest] = Line()
        self._coming: Counter[str] = Counter()
        """By workflow, the runs that were let in and are not in memory yet."""
        self._active: Counter[str] = Counter()
        """By workflow, how many runs were active when they were counted, and those let in since."""
        self._idle: set[str] = set()
        """The runs in memory that were not active when they were counted."""
        self._next_count = 0.0
        self._timer: Timer | None = None

    # ---- coming in

    def enter(self, workflow: Workflow[..., Any]) -> bool:
        """Let a run in at once, if there is room: who waits comes first. It has to `arrive` in the end."""
        if self._line:
            self.look()
        kind = self._kind(workflow)
        if not self._room(kind):
            return False
        self._let_in(kind)
        return True

    async def wait(self, workflow: Workflow[..., Any], priority: int) -> None:
        """Wait until a start is let in, which has to `arrive` in the end.

        Raises:
            Unavailable: there was no room in time, or the host is stopping.
        """
        told: list[bool] = []
        answered = trio.Event()

        def tell(let_in: bool) -> None:
            told.append(let_in)
            answered.set()

        place = self.queue(workflow, priority, self._host.clock.now(), tell)
        self.count_starts(+1)
        try:
            with trio.move_on_after(START_WAIT):
                await answered.wait()
        except BaseException:
            if told == [True]:
                self.arrive(workflow.name)
            raise
        finally:
            self.leave(place)
            self.count_starts(-1)
        if told != [True]:
            raise self.refusal(workflow)

    def queue(
        self, workflow: Workflow[..., Any], priority: int, since: int, told: Callable[[bool], None]
    ) -> Place[Guest]:
        """Wait for room, from `since` on. `told` gets True when the run is let in, which has to `arrive` in the end."""
        kind = self._kind(workflow)
        group = None if kind.runs is None and kind.steps is None else kind
        place = self._line.join(Guest(kind, told), since=since, priority=priority, group=group)
        self._look_later()
        return place

    def leave(self, place: Place[Guest]) -> None:
        """It no longer waits."""
        self._line.leave(place)

    @property
    def full(self) -> bool:
        """Whether somebody waits to come in."""
        return bool(self._line)

    def arrive(self, workflow: str) -> None:
        """A run that was let in is in memory now, or will never be."""
        self._coming[workflow] -= 1

    def go_on(self, workflow: str) -> None:
        """A run takes the place of one that is about to leave memory: it need not wait."""
        self._active[workflow] += 1

    def gone(self, run_id: str, workflow: str) -> None:
        """A run has left memory."""
        if run_id not in self._idle and self._active[workflow] > 0:
            self._active[workflow] -= 1
        if self._line:
            self.look()

    def close(self) -> None:
        """Let in nobody any more: the host is stopping."""
        while (guest := self._line.next(lambda _: True)) is not None:
            guest.told(False)

    def refusal(self, workflow: Workflow[..., Any]) -> Unavailable:
        """What is said to a start for which there was no room in time."""
        self._host.metrics.starts_rejected.inc()
        if self._host.stopping:
            return Unavailable("the daemon is shutting down")
        return Unavailable(
            f"no room for a new run of {workflow.name!r} within {START_WAIT:g} s: {self.obstacle(workflow)}; "
            "come again later, or start it with a delay of 0s: then it is accepted, and begins when there is room",
            workflow=workflow.name,
        )

    def count_starts(self, change: int) -> None:
        """So many starts more, or fewer, wait."""
        self.starts += change
        self._host.metrics.starts_waiting.set(self.starts)

    def obstacle(self, workflow: Workflow[..., Any]) -> str:
        """Why there is no room now for a run of a workflow: which limit has been reached."""
        kind, most, limits = self._kind(workflow), self.census(), self.limits
        if not self._host.slots.free("", None):
            return f"as many steps run as may (limits.running_steps = {limits.running_steps:,})"
        if most.total() >= limits.active_runs:
            return f"as many runs are active as may be (limits.active_runs = {limits.active_runs:,})"
        if kind.runs is not None and most[kind.workflow] >= kind.runs:
            return f"as many of its runs are active as may be (its active_runs = {kind.runs:,})"
        if kind.steps is not None and not self._host.slots.free(kind.workflow, kind.steps):
            return f"as many of its steps run as may (its running_steps = {kind.steps:,})"
        if self._crowded():
            return "too many waiting runs are in memory, and leave it more slowly than others come"
        return "others came first"

    # ---- room

    def look(self) -> None:
        """Let in those who wait and for whom there is room."""
        while not self._host.stopping and (guest := self._line.next(self._has_room)) is not None:
            self._let_in(guest.kind)
            guest.told(True)
        if self._line:
            self._look_later()

    def census(self) -> Counter[str]:
        """By workflow, how many runs are active: counted now, or not long ago."""
        if trio.current_time() >= self._next_count:
            self._count()
        return self._active

    def states(self) -> list[LimitState]:
        """The limits and their use: the daemon's, and those of the workflows that have their own."""
        slots, limits, active = self._host.slots, self.limits, self.census()
        found = [
            LimitState("active_runs", None, active.total(), limits.active_runs, len(self._line)),
            LimitState("running_steps", None, slots.used, limits.running_steps, slots.waiting),
        ]
        for workflow in (one for plugin in self._host.code.plugins for one in plugin.workflows.values()):
            kind = self._kind(workflow)
            if kind.runs is not None:
                waiting = self._line.count(kind)
                found.append(LimitState("active_runs", kind.workflow, active[kind.workflow], kind.runs, waiting))
            if kind.steps is not None:
                used, waiting = slots.use_of(kind.workflow, kind.steps)
                found.append(LimitState("running_steps", kind.workflow, used, kind.steps, waiting))
        return found

    def _look_later(self) -> None:
        if self._timer is None and not self._host.stopping:
            pause = max(LOOK_EVERY, self._next_count - trio.current_time())
            self._timer = self._host.timers.add(self._host.clock.now() + round(pause * SECOND), self._timed)

    def _timed(self) -> None:
        self._timer = None
        self.look()

    def _kind(self, workflow: Workflow[..., Any]) -> Kind:
        return Kind(workflow.name, self.limits.runs_of(workflow), self.limits.steps_of(workflow))

    def _let_in(self, kind: Kind) -> None:
        self._coming[kind.workflow] += 1
        self._active[kind.workflow] += 1

    def _has_room(self, kind: Kind | None) -> bool:
        return self._room(kind or Kind("", None, None))

    def _room(self, kind: Kind) -> bool:
        host, most = self._host, self.limits.active_runs
        if not host.slots.free(kind.workflow, kind.steps) or self._crowded():
            return False
        if len(host.living) + self._coming.total() >= most and self.census().total() >= most:
            return False
        if kind.runs is None:
            return True
        inside = host.resident[kind.workflow] + self._coming[kind.workflow]
        return inside < kind.runs or self.census()[kind.workflow] < kind.runs

    def _crowded(self) -> bool:
        """Whether runs that wait leave memory more slowly than others come."""
        excess = self._host.passivation.excess
        return excess > 0 and excess + self._coming.total() + len(self._host.births) > EXCESS

    def _count(self) -> None:
        host, began = self._host, time.perf_counter()
        active = self._active = Counter(self._coming)
        idle = self._idle = set()
        for run_id, life in host.living.items():
            actor = host.actors.get(run_id)
            if actor.busy if actor is not None else run_id not in host.suspended:
                active[life.workflow] += 1
            else:
                idle.add(run_id)
        took = time.perf_counter() - began
        self._next_count = trio.current_time() + max(LOOK_EVERY, took * COUNT_SHARE)
