"""A run that waits, as its actor sees it: whether nothing is under way, until when, and how it leaves memory.

The row says that the run is parked before the actor goes, and that it is not any more with the first thing that is
written for it afterwards. So nothing is under way for a run whose row says that it is parked, whatever has crashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.records import Status
from jivsd.store.api import Entry, RunChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.actor import Actor
    from jivsd.store.api import Verdict


def wake_at(actor: Actor) -> int | None:
    """When something is to be done for a run that is idle, if nobody says anything before."""
    if actor.run.paused:
        return None
    return min((timer.deadline for timer in actor.timers.values()), default=None)


def park(actor: Actor, told: Callable[[Verdict], None]) -> bool:
    """Have a run leave memory, unless something is under way by the time that the journal has it that it waits.

    Returns:
        Whether that has to be written; `told` gets the verdict then.
    """
    if not actor.idle:
        return False
    run = actor.run
    actor.parting = True
    if run.parked:
        actor.wake()
        return False
    status = Status.WAITING if run.status is Status.RUNNING else run.status
    change = RunChange(status=status, wake_at=wake_at(actor), parked=True)
    actor.submit(Entry(run.run_id, run.shard, change=change), None, told)
    run.status, run.wake_at, run.parked = status, change.wake_at, True
    actor.filed = True
    return True


def parts(actor: Actor) -> bool:
    """Whether a run that is to leave memory may do so now."""
    if not (actor.run.parked and actor.idle):
        return False
    until = wake_at(actor)
    return until is None or until > actor.services.clock.now()


def unpark(actor: Actor) -> None:
    """Have it written that a run is not parked any more; then all that is open is carried out."""
    if actor.run.parked:
        actor.submit(Entry(actor.run.run_id, actor.run.shard))


def errand(actor: Actor, then: Callable[[Verdict], None]) -> Callable[[Verdict], None]:
    """What to call with the verdict on something that is not the run's own; until then it stays in memory."""
    actor.errands += 1

    def told(verdict: Verdict) -> None:
        actor.errands -= 1
        actor.guard(then, verdict)
        if not actor.errands:
            actor.wake()

    return told
