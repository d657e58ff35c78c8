"""What ends a run, when nothing is under way for it any more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jivsd.authoring import commands
from jivsd.engine import continuing, effects, locking, troubles
from jivsd.engine.ends import end_entry
from jivsd.records import NULL, Ended, Event, Kind, Message, Status
from jivsd.store.api import Written

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.actor import Actor
    from jivsd.engine.replay import Open, Outcome
    from jivsd.store.api import Entry, Verdict


def final(outcome: Outcome) -> Ended:
    """How the journal says that the code has come to its end."""
    return Ended(outcome.status, outcome.output or NULL, outcome.error, raised_at=outcome.raised_at)


def end(actor: Actor, final: Ended, asked: Message | None) -> tuple[Entry, Event, Callable[[Verdict], None]]:
    """What is written, the run's last event, and who is told then. `asked`: the message that terminates it."""
    entry, event = _end(actor, final, asked)
    entry.progress = actor.services.pulses.over(actor)
    return entry, event, partial(_recorded, actor)


def _end(actor: Actor, final: Ended, asked: Message | None) -> tuple[Entry, Event]:
    if final.status is Status.CONTINUED:
        return continuing.end(actor, troubles.closed_by_the_end(actor))
    unread = [message_id for queue in actor.machine.unread.values() for message_id, *_ in queue]
    ended = msgspec.structs.replace(final, unread=unread)
    event = actor.new_event(Kind.ENDED, "", ended, by=asked.by if asked is not None else "")
    consumed = (asked.message_id,) if asked is not None else ()
    children = effects.terminations(actor) if asked is not None else []
    closed = troubles.closed_by_the_end(actor)
    return end_entry(actor.run, event, ended, consumed=consumed, children=children, incidents=closed), event


def _recorded(actor: Actor, verdict: Verdict) -> None:
    if isinstance(verdict, Written):
        locking.ended(actor)


def ended(actor: Actor, entry: Entry) -> None:
    """The end has been committed."""
    assert entry.change is not None
    assert entry.change.status is not None
    actor.run.status = entry.change.status
    actor.run.paused = False
    actor.run.wake_at = None
    actor.run.output = entry.change.output
    actor.run.error = actor.final.error if actor.final is not None else None
    actor.run.ended_at = entry.change.ended_at
    for message in entry.inbox:
        actor.services.deliver(message)
    if entry.successor is not None:
        actor.services.gate.go_on(actor.run.workflow)
        actor.services.adopt(entry.successor.run, None)


def owed(actor: Actor, entry: Open) -> bool:
    """Whether this is the answer to an update that was recorded just when the run came to its end."""
    machine = actor.machine
    over = machine.outcome is not None or machine.continuing is not None
    return over and isinstance(entry.command, commands.Answer) and machine.blocked is None and not actor.leaving
