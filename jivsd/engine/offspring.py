"""Runs that are started by runs: children, and those that are let go."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jivsd.engine import parking, starts
from jivsd.engine.api import StartOptions
from jivsd.records import derived_id
from jivsd.store.api import Entry, Refused, Written

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.authoring import commands
    from jivsd.engine.actor import Actor
    from jivsd.engine.host import Host
    from jivsd.records import Event
    from jivsd.store.api import NewRun, Verdict


def start(actor: Actor, new: NewRun, event: Event, told: Callable[[Verdict], None]) -> None:
    """Have a run that another one starts written, which that one vouches for, and bring it to life, wherever that is.

    `told` gets the verdict, never that the store is away.
    """
    services, run = actor.services, new.run
    placed = services.holding.placed(new)
    entered = run.options.start_at is None and run.shard in services.holding.shards
    entry = Entry(run_id=run.run_id, shard=actor.run.shard, events=(event,), new=placed)

    def started(verdict: Verdict) -> None:
        if entered:
            services.gate.arrive(run.workflow)
        if isinstance(verdict, Written):
            services.adopt(placed.run, [event] if actor.first else None)
        told(verdict)

    _submit(actor, entry, started)


def _submit(actor: Actor, entry: Entry, told: Callable[[Verdict], None]) -> None:
    """Have an entry written; again, as long as the store is away."""

    def answered(verdict: Verdict) -> None:
        if isinstance(verdict, Refused) and verdict.why == "away":
            _submit(actor, entry, told)
        else:
            told(verdict)

    actor.services.committer.submit(entry, parking.errand(actor, answered))


def prepare(host: Host, actor: Actor, path: str, call: commands.ChildCall, *, attached: bool) -> tuple[NewRun, Event]:
    """See `Services.prepare_child`."""
    run, now = actor.run, host.clock.now()
    found = host.code.resolve(call.workflow, run.code_hash) or host.workflow(call.workflow)
    prepared = partial(
        starts.prepare,
        found,
        call.input,
        StartOptions(id=call.workflow_id, correlation_id=run.options.correlation_id),
        now=now,
        by=f"parent {run.run_id}" if attached else f"run {run.run_id}",
        run_id=derived_id(run.run_id, path),
        timeout=call.timeout,
        parent=run if attached else None,
        parent_path=path if attached else None,
    )
    at_once = prepared()
    if at_once[0].run.shard not in host.holding.shards:
        return at_once
    return at_once if host.gate.enter(found) else prepared(start_at=now)
