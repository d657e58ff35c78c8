"""Running ahead: the code sees the outcome of a lone step, or the signal it came back for, while that is committed.

What it asks for then is carried out after the commit, as ever (DESIGN.md section 4, rule 5). Only its end, if it has
come to that, is written right behind the event, mostly in the same batch: a run of one step takes two commits instead
of three. An event that is refused ends the actor's life, and with that what its code has seen too early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd.authoring.commands import Sleep
from jivsd.engine import closing
from jivsd.records import Kind, Status

if TYPE_CHECKING:
    from jivsd.engine.actor import Actor

PATIENCE: Final = 1.0
"""Seconds that a question to the live code waits for a commit, before it is answered from the journal."""
_STEP_DONE: Final = Kind.STEP_DONE
_COMPLETED: Final = Status.COMPLETED


def run(actor: Actor) -> bool:
    """Deliver what has just been appended, if that is a step's result and nothing else is under way.

    True if the code cannot go on: then it has to be taken down before anything else is awaited.
    """
    return actor.live and _may(actor, _STEP_DONE) and _deliver(actor)


def come_back(actor: Actor) -> bool:
    """The same for a run that was parked and has just read its messages: if all that was said to it is one signal."""
    return actor.filed and _may(actor, Kind.SIGNAL) and _deliver(actor)


def _may(actor: Actor, kind: Kind) -> bool:
    event = actor.appended
    return (
        actor.ahead is None  # what the code has seen last may be committed and not told yet
        and actor.pending == 1
        and event is not None
        and event.kind == kind
        and event.seq == actor.seq == actor.machine.seq + 1
        and actor.startable
    )


def _deliver(actor: Actor) -> bool:
    machine, event = actor.machine, actor.appended
    assert event is not None
    actor.ahead = event
    machine.deliver(event)
    if machine.blocked is not None:
        return True
    if (
        machine.outcome is not None
        and machine.outcome.status is _COMPLETED
        and not machine.fresh
        and all(isinstance(entry.command, Sleep) for entry in machine.dropped)
        and (actor.live or not machine.open)
    ):
        actor.final = closing.final(machine.outcome)
        actor.try_end()
    return False


async def settled(actor: Actor) -> bool:
    """Wait until the code has seen nothing but what is committed. False if that takes too long, or it has gone."""
    with trio.move_on_after(PATIENCE):
        while actor.live and actor.ahead is not None:
            await actor.changed()
    return actor.live and actor.ahead is None
