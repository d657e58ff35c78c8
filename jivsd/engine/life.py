"""Lives: each open run has a task that keeps an actor alive, from the journal, until the run ends.

A crash of an actor is not a failure of its run: it is started again. What cannot go on without a person (its code is
gone, its journal is damaged, its actor crashes again and again) is suspended with an incident until somebody decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine import incidents, troubles
from jivsd.engine.actor import Actor
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
AWAY_PAUSE: Final = 1.0
"""Seconds before a journal that cannot be read is tried again."""


class NoCode(Exception):
    """The code that a run began with cannot be loaded."""


class Suspension:
    """A run that waits for a person without an actor."""

    def __init__(self, incident: Incident) -> None:
        self.incident = incident
        self.over = trio.Event()


class Life:
    """One run, through all the lives of its actor on this host."""

    __slots__ = ("_crashes", "_host", "_run", "admitted", "run_id", "workflow")

    def __init__(self, host: Host, run: Run) -> None:
        self.run_id = run.run_id
        self.workflow = run.workflow
        self.admitted = False
        """Whether it has a token of `host.loading` already."""
        self._host = host
        self._run = run
        self._crashes = 0

    async def begin(self, actor: Actor, started: list[Event]) -> None:
        """Live a run on whose start was committed just now; `started` is its journal."""
        await self._live(actor, started)

    async def recover(self) -> None:
        """Live a run on from the journal."""
        await self._live(None, [])

    async def _live(self, actor: Actor | None, started: list[Event]) -> None:
        host = self._host
        while not host.stopping:
            try:
                if actor is None:
                    way_out = await self._again()
                else:
                    way_out = await self._watch(actor, started, first=True)
            except DamagedRow as error:
                await self._suspend(incidents.damaged(self._run, str(error), host.clock.now()))
            except NoCode:
                await self._suspend(incidents.no_code(self._run, host.clock.now()))
            except StoreAway:
                await host.rest(AWAY_PAUSE)
            except Exception as error:
                await self._crashed(error)
            else:
                if way_out is not Exit.RESTART:
                    return
            actor = None

    async def _again(self) -> Exit:
        """One more life, from the journal."""
        host = self._host
        if not self.admitted:
            await host.loading.acquire_on_behalf_of(self)
        self.admitted = False
        try:
            loaded = await self._load()
        finally:
            host.loading.release_on_behalf_of(self)
        if isinstance(loaded, Exit):
            return loaded
        host.metrics.recoveries.inc()
        return await self._watch(*loaded, first=False)

    async def _load(self) -> Exit | tuple[Actor, list[Event]]:
        """Read what is recorded of the run, for an actor that from now on gets its messages."""
        host, run_id = self._host, self.run_id
        run = await host.store.run(run_id)
        if run is None or host.stopping:
            return Exit.STOPPED
        self._run = run
        if run.status in ENDED:
            host.ended(run)
            return Exit.ENDED
        workflow = await host.code_of(run)
        if workflow is None:
            raise NoCode
        actor = host.actors[run_id] = Actor(host, workflow, run)
        try:
            events = await host.store.events(run_id)
            messages = await host.store.messages(run_id)
            if run_id in host.troubled:
                troubles.remember(actor, await self._open_incidents())
        except BaseException:
            del host.actors[run_id]
            raise
        actor.early(messages)
        return actor, events

    async def _watch(self, actor: Actor, events: list[Event], *, first: bool) -> Exit:
        """Let an actor live, and see how it leaves."""
        host, run_id = self._host, self._run.run_id
        try:
            way_out = await actor.live_on(events, first=first)
        finally:
            del host.actors[run_id]
            if actor.moved:
                self._crashes = 0
        if way_out is Exit.ENDED:
            host.ended(actor.run)
        return way_out

    async def _open_incidents(self) -> list[Incident]:
        found, _ = await self._host.store.incidents(IncidentState.OPEN, self._run.run_id, 1000)
        return [incident for incident in found if incident.kind != "message"]

    async def _crashed(self, error: Exception) -> None:
        """Wait before the actor is started again; or, when the run gets nowhere, for a person."""
        self._crashes += 1
        run, times = self._run, self._crashes
        log.error("actor crashed", run_id=run.run_id, workflow=run.workflow, times=times, exc_info=error)
        if times < MAX_CRASHES:
            await self._host.rest(min(FIRST_PAUSE * 2**times, LAST_PAUSE))
            return
        await self._suspend(incidents.crashed(run, error, times, self._host.clock.now()))
        self._crashes = 0

    async def _suspend(self, incident: Incident) -> None:
        """Hold the run without an actor until a person decides, or the host stops."""
        host, run_id = self._host, self._run.run_id
        suspension = host.suspended[run_id] = Suspension(incident)
        try:
            if run_id in host.troubled:
                same = [known for known in await self._open_incidents() if incidents.same(known, incident)]
                suspension.incident = same[0] if same else incident
            log.error("run suspended", run_id=run_id, workflow=self._run.workflow, why=suspension.incident.message)
            compensating = self._run.status in (Status.COMPENSATING, Status.COMPENSATION_BLOCKED)
            status = Status.COMPENSATION_BLOCKED if compensating else Status.BLOCKED
            await record(host, self._run, suspension.incident, status)
            await suspension.over.wait()
        except StoreAway:
            await host.rest(AWAY_PAUSE)
        finally:
            del host.suspended[run_id]


async def record(host: Host, run: Run, incident: Incident, status: Status | None = None) -> None:
    """Write an incident of a run that has no actor."""
    host.troubled.add(run.run_id)
    change = RunChange(status=status) if status is not None else None
    entry = Entry(run_id=run.run_id, shard=run.shard, change=change, incidents=(incident,))
    await host.committer.submit_and_wait(entry)
