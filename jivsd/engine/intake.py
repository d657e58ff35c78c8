"""What a message of the inbox becomes in a run's journal: message and event change places in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd.records import Kind
from jivsd.store.api import RunChange

if TYPE_CHECKING:
    from jivsd.engine.actor import Actor
    from jivsd.records import Message

SWITCHES: Final = {Kind.PAUSED: True, Kind.RESUMED: False}


def take(actor: Actor, message: Message) -> None:
    """Append the event that a message is. Who cancels a run that is paused, or about to be, resumes it with that."""
    actor.services.metrics.inbox_consumed.inc()
    kind, change = message.kind, None
    if kind is Kind.CANCEL_REQUESTED and actor.pausing:
        resumed = _switch(actor, paused=False)
        actor.append(Kind.RESUMED, "", message.payload, by=message.by, change=resumed)
    elif kind in SWITCHES:
        change = _switch(actor, paused=SWITCHES[kind])
    consumed = (message.message_id,)
    actor.append(kind, message.path, message.payload, by=message.by, change=change, consumed=consumed)


def _switch(actor: Actor, *, paused: bool) -> RunChange:
    actor.pausing = paused
    return RunChange(paused=paused)
