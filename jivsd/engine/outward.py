"""What a run says to the outside: events that it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jivsd.records import Kind, Marker, Publication, encode

if TYPE_CHECKING:
    from jivsd.authoring import commands
    from jivsd.engine.actor import Actor
    from jivsd.engine.replay import Open


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
