"""Supervising actors: each open run has a task that keeps an actor alive, from the journal, until the run ends.

A crash of an actor is not a failure of its run. What cannot go on without a person (its code is gone, its journal is
damaged, it crashes again and again) is suspended with an incident until somebody decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine import incidents
from jivsd.engine.actor import Actor
from jivsd.engine.api import Wait
from jivsd.engine.attempts import Exit
from jivsd.records import ENDED, Event, Incident, IncidentState, Run, Status
from jivsd.store.api import DamagedRow, Entry, RunChange, StoreAway

if TYPE_CHECKING:
    from jivsd.engine.host import Host

log = logs.get(__name__)

MAX_CRASHES: Final = 5
"""Crashes of an actor without any progress of its run, before it is suspended."""
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 30.0
"""Seconds before an actor that has crashed is started again: doubled from the first to the last."""


class Suspension:
    """A run that waits for a person without an actor."""

    def __init__(self, incident: Incident) -> None:
        self.incident = incident
        self.over = trio.Event()


async def live(host: Host, run: Run, started: list[Event] | None) -> None:
    """Keep a run alive until it ends or the engine stops. `started`: the journal, if it was written just now."""
    crashes = 0
    progress = 0
    while not host.stopping:
        try:
            exit, seq = await _once(host, run, started)
        except DamagedRow as error:
            await suspend(host, run, incidents.damaged(run, str(error), host.clock.now()))
        except LookupError:
            await suspend(host, run, incidents.no_code(run, host.clock.now()))
        except StoreAway:
            await trio.sleep(1)
        except Exception as error:
            actor = host.actors.pop(run.run_id, None)
            seq = actor.seq if actor is not None else 0
            crashes = 1 if seq > progress else crashes + 1
            progress = max(progress, seq)
            log.error("actor crashed", run_id=run.run_id, workflow=run.workflow, times=crashes, exc_info=error)
            if crashes >= MAX_CRASHES:
                await suspend(host, run, incidents.crashed(run, error, crashes, host.clock.now()))
                crashes = 0
            else:
                await trio.sleep(min(FIRST_PAUSE * 2**crashes, LAST_PAUSE))
        else:
            if exit is not Exit.RESTART:
                return
            progress = max(progress, seq)
        started = None
        fresh = await host.store.run(run.run_id)
        if fresh is None or fresh.status in ENDED:
            return
        run = fresh


async def _once(host: Host, run: Run, started: list[Event] | None) -> tuple[Exit, int]:
    workflow = await host.code_of(run)
    if workflow is None:
        raise LookupError(run.workflow)
    actor = host.actors[run.run_id] = Actor(host, workflow, run)
    if started is not None:
        exit = await actor.live_on(started, first_life=len(started) == 1)
    else:
        async with host.loading:
            events = await host.store.events(run.run_id)
            messages = await host.store.messages(run.run_id)
            if run.status in (Status.BLOCKED, Status.COMPENSATION_BLOCKED):
                await _load_incidents(host, actor)
        if host.stopping:
            return Exit.STOPPED, 0
        host.metrics.recoveries.inc()
        exit = await actor.live_on(events, messages, first_life=False)
    host.actors.pop(run.run_id, None)
    if exit is Exit.ENDED:
        host.ended(actor.run)
    return exit, actor.seq


async def _load_incidents(host: Host, actor: Actor) -> None:
    found, _ = await host.store.incidents(IncidentState.OPEN, actor.run.run_id, 1000)
    for incident in found:
        if incident.kind != "message":
            actor.incidents[incident.path] = incident


async def suspend(host: Host, run: Run, incident: Incident) -> None:
    """Hold a run without an actor until a person decides, or the engine stops."""
    host.actors.pop(run.run_id, None)
    log.error("run suspended", run_id=run.run_id, workflow=run.workflow, why=incident.message)
    suspension = host.suspended[run.run_id] = Suspension(incident)
    await record(host, run, incident, Status.BLOCKED)
    try:
        await suspension.over.wait()
    finally:
        host.suspended.pop(run.run_id, None)


async def record(host: Host, run: Run, incident: Incident, status: Status | None = None) -> None:
    """Write an incident of a run that has no actor."""
    change = RunChange(status=status) if status is not None else None
    entry = Entry(run_id=run.run_id, shard=run.shard, change=change, incidents=(incident,))
    await host.committer.submit_and_wait(entry)


def waiting(suspension: Suspension) -> Wait:
    """What a suspended run waits for."""
    return Wait("", "incident", suspension.incident.message)
