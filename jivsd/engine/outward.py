"""What a run says to the outside: events that it publishes, runs that it lets go, signals to other runs.

Each is done first, and in a way that does nothing when it is done again; then a Marker records it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.engine import offspring
from jivsd.engine.api import EngineError, Unavailable
from jivsd.records import ErrorRecord, Kind, Marker, Publication, derived_id, encode
from jivsd.store.api import Refused, StoreAway, Verdict, Written

if TYPE_CHECKING:
    from jivsd.authoring import commands
    from jivsd.engine.actor import Actor
    from jivsd.engine.replay import Open

AWAY_PAUSE: Final = 1.0
"""Seconds before a signal is sent again that the store could not take."""


def publish(actor: Actor, entry: Open, command: commands.Publish) -> None:
    """Record an event together with its place in the outbox; not while the run is paused."""
    if actor.held_back:
        return
    actor.active.add(entry.path)
    run = actor.run
    publication = Publication(
        run_id=run.run_id,
        path=entry.path,
        workflow=run.workflow,
        workflow_id=run.workflow_id,
        topic=command.topic,
        payload=msgspec.Raw(command.payload),
        at=actor.services.clock.now(),
    )
    marker = Marker(msgspec.Raw(encode(command.topic)), args_hash=command.args_hash)
    actor.append(Kind.MARKER, entry.path, marker, publishes=(publication,))


def start(actor: Actor, entry: Open, command: commands.StartChild) -> None:
    """Start a run that lives on by itself; not while this one is paused."""
    if actor.held_back:
        return
    actor.active.add(entry.path)
    try:
        new, event = actor.services.prepare_child(actor, entry.path, command.call, attached=False)
    except EngineError as error:
        _record(actor, entry, error=ErrorRecord("ChildFailed", str(error)))
        return
    run = new.run

    def told(verdict: Verdict) -> None:
        match verdict:
            case Written() | Refused("exists"):
                _record(actor, entry, run.run_id)
            case Refused(why, other) if why != "fenced":
                message = f"run of {run.workflow!r} was refused: {why}" + (f" (run {other})" if other else "")
                _record(actor, entry, error=ErrorRecord("ChildFailed", message, {"run_id": other} if other else {}))
            case _:
                pass

    offspring.start(actor, new, event, told)


def send(actor: Actor, entry: Open, command: commands.SendSignal) -> None:
    """Send a signal to another run; not while this one is paused."""
    if not actor.held_back:
        actor.active.add(entry.path)
        actor.errands += 1
        actor.services.nursery.start_soon(_errand, actor, entry, command)


async def _errand(actor: Actor, entry: Open, command: commands.SendSignal) -> None:
    try:
        await _send(actor, entry, command)
    finally:
        actor.errands -= 1
        actor.wake()


async def _send(actor: Actor, entry: Open, command: commands.SendSignal) -> None:
    run_id = actor.run.run_id
    message_id = derived_id(run_id, entry.path)  # the same in every life, so that it is taken once
    error: ErrorRecord | None = None
    while _waits(actor, entry):
        try:
            await actor.services.signal(
                command.run, command.signal, command.payload, message_id=message_id, by=f"run {run_id}"
            )
        except (Unavailable, StoreAway):
            await trio.sleep(AWAY_PAUSE)
            continue
        except EngineError as refused:
            error = ErrorRecord("NotDelivered", str(refused), {"code": refused.code})
        except Exception as failed:
            actor.fail(failed)
            return
        actor.guard(partial(_record, actor, entry, error=error))
        return


def _waits(actor: Actor, entry: Open) -> bool:
    return actor.machine.open.get(entry.path) is entry and actor.live and not actor.leaving and actor.final is None


def _record(actor: Actor, entry: Open, value: str | None = None, *, error: ErrorRecord | None = None) -> None:
    """Record what has become of it, if it is still waited for."""
    if _waits(actor, entry):
        marker = Marker(msgspec.Raw(encode(value)), error, entry.command.args_hash)
        actor.append(Kind.MARKER, entry.path, marker)
