"""The beginning of a run that was accepted before it may begin: when its time has come, and there is room for it.

It waits at the path `!start`, like a timer: that this fires is recorded, so that the code's time begins then, however
long it had to wait. Until then the run is PENDING, takes messages, and can be cancelled and terminated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.authoring import commands
from jivsd.engine import locking
from jivsd.engine.replay import START
from jivsd.records import Kind, TimerFired

if TYPE_CHECKING:
    from jivsd.engine.actor import Actor
    from jivsd.engine.gate import Gate, Guest
    from jivsd.engine.line import Place


class Ticket:
    """Stands among a run's timers while it waits for room."""

    __slots__ = ("_gate", "_place", "deadline")

    def __init__(self, gate: Gate, place: Place[Guest], since: int) -> None:
        self._gate = gate
        self._place = place
        self.deadline = since

    def cancel(self) -> None:
        """It no longer waits."""
        self._gate.leave(self._place)


def due(actor: Actor) -> None:
    """The run's time has come: it begins, or waits for room."""
    actor.active.add(START)
    gate = actor.services.gate
    if gate.enter(actor.workflow):
        gate.arrive(actor.workflow.name)
        _begin(actor)
        return
    starts_at = since(actor)

    def told(let_in: bool) -> None:
        if let_in:
            gate.arrive(actor.workflow.name)
            actor.guard(_let_in, actor)

    place = gate.queue(actor.workflow, actor.run.options.priority, starts_at, told)
    actor.timers[START] = Ticket(gate, place, starts_at)


def in_line(actor: Actor) -> bool:
    """Whether it waits for room."""
    return isinstance(actor.timers.get(START), Ticket)


def since(actor: Actor) -> int:
    """When it is to begin, or from when on it has waited for room."""
    timer = actor.machine.open[START].command
    assert isinstance(timer, commands.Sleep)
    return timer.deadline


def _let_in(actor: Actor) -> None:
    actor.timers.pop(START, None)
    if START in actor.machine.open and actor.startable and not actor.run.paused:
        _begin(actor)
    else:
        actor.active.discard(START)


def _begin(actor: Actor) -> None:
    """Record that the run begins. It enters the queue for its lock now: one who is not there holds up nobody."""
    actor.append(Kind.TIMER_FIRED, START, TimerFired(), tickets=locking.own_ticket(actor))
