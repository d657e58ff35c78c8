"""Locks of a run: drawing a ticket, waiting for one's turn, giving back.

The run's own lock has its ticket from the start, and gives it back with the run's end. One that the code asks for is
drawn before it is waited for; that it was given back is not recorded but derived: a life that begins keeps the tickets
of the locks that its code holds or waits for, and no others.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jivsd.authoring import commands
from jivsd.authoring.errors import TimedOut, record_error
from jivsd.engine.replay import LOCK, START
from jivsd.records import Kind, LockGranted, Marker
from jivsd.store.api import Entry, Verdict, Written
from jivsd.store.tickets import Ticket, Tickets

if TYPE_CHECKING:
    from jivsd.engine.actor import Actor
    from jivsd.engine.replay import Open


def own_ticket(actor: Actor) -> Tickets | None:
    """The ticket for its own lock that a run draws when its code is to begin, if it has a lock key."""
    key = actor.run.options.lock_key
    if key is None or actor.machine.begun:
        return None
    return Tickets(draws=Ticket(key, "", actor.services.clock.now()))


def wait(actor: Actor, entry: Open, command: commands.Lock) -> None:
    """Wait for a lock; draw a ticket first, if it is not the run's own.

    A reset run that has to wait for room is in no queue yet: it would hold up others.
    """
    path = entry.path
    if path == LOCK:
        actor.active.add(path)
        _queue(actor, path, command)
        return
    if START in actor.machine.open:
        return

    def drawn(verdict: Verdict) -> None:
        match verdict:
            case Written(held_by=None) if _waits(actor, path):
                _queue(actor, path, command)
            case Written(held_by=str(holder)) if _waits(actor, path):
                _refuse(actor, path, command, holder)
            case _:
                pass

    actor.active.add(path)
    ticket = Ticket(command.key, path, actor.services.clock.now(), command.at_once)
    actor.submit(Entry(**actor.address(), tickets=Tickets(draws=ticket)), None, partial(actor.guard, drawn))


def _queue(actor: Actor, path: str, command: commands.Lock) -> None:
    granted = partial(actor.guard, _granted, actor, path, command)
    actor.services.locks.wait(command.key, owner(actor, path), granted)


def ticket_path(path: str) -> str:
    """What the ticket for the lock at a path is drawn for."""
    return "" if path == LOCK else path


def owner(actor: Actor, path: str) -> tuple[str, str]:
    """As whom the lock at a path has its ticket."""
    return actor.run.run_id, ticket_path(path)


def _waits(actor: Actor, path: str) -> bool:
    return path in actor.machine.open and actor.live and actor.machine.blocked is None and actor.final is None


def _granted(actor: Actor, path: str, command: commands.Lock, fence: int) -> None:
    if _waits(actor, path):
        granted = LockGranted(fence, command.args_hash)
        actor.append(Kind.LOCK_GRANTED, path, granted, tickets=Tickets(granted=ticket_path(path)))


def _refuse(actor: Actor, path: str, command: commands.Lock, holder: str) -> None:
    """Record that a lock that was not to be waited for is held."""
    error = TimedOut(f"lock {command.key!r} is held by run {holder}", run_id=holder)
    actor.append(Kind.MARKER, path, Marker(error=record_error(error), args_hash=command.args_hash))


def give_back(actor: Actor, entry: Open, command: commands.Lock) -> None:
    """The lock is not waited for any more, or is not held any more: leave its queue, unless it is the run's own."""
    actor.active.discard(entry.path)
    actor.services.locks.forget(command.key, owner(actor, entry.path))
    if entry.path != LOCK:
        _change(actor, Tickets(gives=entry.path), command.key)


def settle(actor: Actor) -> None:
    """A life begins: give back what the one before had no more time for."""
    if actor.machine.locks is not None and not (actor.first or actor.filed):
        _change(actor, Tickets(keeps=actor.machine.lock_paths()), None)


def _change(actor: Actor, tickets: Tickets, key: str | None) -> None:
    """Give tickets back, and see whose turn it is then: for a key, or for any."""
    actor.submit(Entry(**actor.address(), tickets=tickets), None, lambda _: actor.services.locks.look(key))


def ended(actor: Actor) -> None:
    """The run's end is recorded: others may have the locks of its code now."""
    machine, locks = actor.machine, actor.services.locks
    if machine.blocked is not None:
        locks.look(None)  # its code may not have come as far as the journal
        return
    for held in (machine.locks or {}).values():
        locks.look(held.key)
    for entry in machine.open.values():
        if isinstance(entry.command, commands.Lock):
            locks.look(entry.command.key)


def leave(actor: Actor) -> None:
    """The run leaves memory: it is told nothing more."""
    for path, entry in actor.machine.open.items():
        if isinstance(entry.command, commands.Lock):
            actor.services.locks.forget(entry.command.key, owner(actor, path))
