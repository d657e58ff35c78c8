"""Lives: each open run has a task that keeps an actor alive, from the journal, until the run ends.

A crash of an actor is not a failure of its run: it is started again. What cannot go on without a person (its code is
gone, its journal is damaged, its actor crashes again and again) is suspended with an incident until somebody decides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine import incidents, troubles
from jivsd.engine.actor import Actor
from jivsd.engine.attempts import Exit, Stale
from jivsd.journal.committer import NOT_HELD
from jivsd.records import ENDED, Event, Incident, IncidentState, Run, Status
from jivsd.store.api import DamagedRow, Entry, RunChange, StoreAway, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.engine.host import Host
    from jivsd.engine.loading import Question
    from jivsd.engine.trials import Trials
    from jivsd.store.api import Recorded, Verdict

log = logs.get(__name__)

MAX_CRASHES: Final = 5
"""Crashes of an actor without any progress of its run, before it is suspended."""
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 30.0
"""Seconds before an actor that has crashed is started again: doubled from the first to the last."""
GLANCE: Final = 0.5
"""Seconds between two looks whether the shard of a run that rests is still here."""
AWAY_PAUSE: Final = 1.0
"""Seconds before a journal that cannot be read is tried again."""


class NoCode(Exception):
    """The code that a run began with cannot be loaded."""


class Suspension:
    """A run that waits for a person without an actor."""

    def __init__(self, incident: Incident, shard: int) -> None:
        self.incident = incident
        self.shard = shard
        """Of the run."""
        self.over = trio.Event()

    def by(self, incident: Incident) -> bool:
        """Whether it is this incident that holds the run."""
        return self.incident.incident_id == incident.incident_id


class Held(Exception):
    """An incident keeps the run from living, until somebody decides."""

    def __init__(self, incident: Incident) -> None:
        super().__init__(incident.message)
        self.incident = incident


class Suspect(Exception):
    """The run may have ended the process before: it waits until it is its turn to be tried."""

    def __init__(self, trials: Trials) -> None:
        super().__init__("it may have ended the process before")
        self.trials = trials


class Life:
    """One run, through all the lives of its actor on this host."""

    __slots__ = (
        "_crashes",
        "_epochs",
        "_fresh",
        "_host",
        "_lived",
        "_moved",
        "_question",
        "_run",
        "_tried",
        "run_id",
        "shard",
        "way_out",
        "workflow",
    )

    def __init__(self, host: Host, run_id: str, run: Run | None = None) -> None:
        self.run_id = run_id
        self.workflow = run.workflow if run is not None else ""
        """The name of its workflow; empty until its row has been read."""
        self.shard = run.shard if run is not None else NOT_HELD
        """Its run's; that of none until its row has been read."""
        self.way_out: Exit | None = None
        """How it has ended."""
        self._host = host
        self._question: Question[Recorded] | None = None
        """What is being read of it; None if it has not asked for that."""
        self._epochs: tuple[int, ...] = ()
        """Those of the shards when it asked."""
        self._run = run
        """Its row when it was read last; None until then."""
        self._lived = False
        self._crashes = 0
        self._fresh = False
        """Whether nothing of the run has lived so far."""
        self._moved = False
        """Whether the last life has brought the run forward."""
        self._tried = False
        """Whether it had its turn to be tried."""

    @property
    def _is_elsewhere(self) -> bool:
        """Whether the run's shard is known, and is not here."""
        return self.shard != NOT_HELD and self.shard not in self._host.holding.shards

    @property
    def is_ours_again(self) -> bool:
        """Whether the run left because its shard did, which is back by now."""
        host = self._host
        away = self.way_out in (Exit.FENCED, Exit.STOPPED)
        return away and host.holding.shared and not host.stopping and self.shard in host.holding.shards

    async def live(self, actor: Actor | None, events: Sequence[Event]) -> None:
        """Live a run until it has ended or leaves memory: on from the journal, or with the actor of one whose start
        was committed just now; `events` is its journal then."""
        host = self._host
        self._fresh = actor is not None
        while not host.stopping:
            way_out = Exit.RESTART
            try:
                if actor is not None and (held := host.quarantine.of(self.workflow)) is not None:
                    del host.actors[self.run_id]
                    raise Held(held)
                if actor is None:
                    loaded = await self._load()
                    if isinstance(loaded, Exit):
                        way_out = loaded
                    else:
                        actor, events = loaded
                if actor is not None:
                    self._lived, first, self._fresh = True, self._fresh, False
                    try:
                        way_out = await actor.live_on(events, first=first)
                    finally:
                        self._leaves(actor)
                    way_out = self._has_left(actor, way_out)
            except DamagedRow as error:
                await self._suspend(incidents.damaged(self._row, str(error), host.clock.now()))
            except Held as error:
                await (self._rest(error.incident) if error.incident.run_id is None else self._suspend(error.incident))
            except Suspect as suspect:
                await suspect.trials.turn(self._row)
                self._tried = True
            except NoCode:
                await self._suspend(incidents.no_code(self._row, host.clock.now()))
            except StoreAway:
                await self._rest_for(AWAY_PAUSE)
            except Exception as error:
                if not await self._crashed(error):
                    return
            else:
                if way_out is not Exit.RESTART:
                    self.way_out = way_out
                    return
            actor = None

    def ask(self) -> None:
        """Have read what is recorded of the run. What is said to it from now on is kept for it."""
        host = self._host
        host.arriving[self.run_id] = []
        self._epochs = tuple(host.committer.epochs)
        self._question = host.loader.ask(self.run_id)

    async def _load(self) -> Exit | tuple[Actor, list[Event]]:
        """Read what is recorded of the run, for an actor that from now on gets its messages."""
        host, run_id = self._host, self.run_id
        if self._question is None:
            self.ask()
        early = host.arriving[run_id]
        try:
            if self._is_elsewhere:
                return Exit.STOPPED
            recorded = await self._recorded()
            if recorded is None:
                return Exit.ENDED
            run = recorded.run
            self._note(run)
            if host.stopping or self._is_elsewhere:
                return Exit.STOPPED
            if run.status in ENDED:
                if self._lived:
                    host.ended(run)
                    host.locks.look(None)
                    return Exit.ENDED
                if run.status is Status.CONTINUED:
                    await host.recovery.follow(run_id)
                host.waiters.tell(run)
                return Exit.ENDED
            if (held := host.quarantine.of(run.workflow)) is not None:
                raise Held(held)
            if not self._tried and host.trials is not None and host.trials.concern(run):
                raise Suspect(host.trials)
            workflow = await host.code_of(run)
            if workflow is None:
                raise NoCode
            actor = Actor(host, workflow, run)
            known = await self._open_incidents() if run_id in host.troubled else []
            if host.committer.epochs[self.shard] != self._epochs[self.shard] or self._is_elsewhere:
                return Exit.RESTART  # another node may have lived it since it was read
            if known:
                if (incident := incidents.suspended_by(known)) is not None:
                    raise Held(incident)
                troubles.remember(actor, known)
        finally:
            self._question = None
            del host.arriving[run_id]
        host.pulses.arrived(run_id, recorded.progress)
        actor.early = (*recorded.messages, *early)
        host.actors[run_id] = actor
        host.arrived(run_id)
        (host.metrics.activations if run.parked else host.metrics.recoveries).inc()
        return actor, recorded.events

    async def _recorded(self) -> Recorded | None:
        host, run_id = self._host, self.run_id
        assert self._question is not None
        try:
            return await self._question.answer()
        except StoreAway:
            raise
        except StoreError:
            run = await host.store.run(run_id)  # which may be what is damaged
            if run is None or run.status in ENDED:
                if run is not None:
                    host.waiters.tell(run)
                return None
            self._note(run)
            raise

    def _note(self, run: Run) -> None:
        """The run's row has been read."""
        self._run = run
        if not self.workflow:
            self.workflow, self.shard = run.workflow, run.shard
            self._host.identify(self)

    def _leaves(self, actor: Actor) -> None:
        """An actor's life is over, whatever has ended it."""
        host, run_id = self._host, self.run_id
        del host.actors[run_id]
        host.passivation.forget(actor)
        host.pulses.left(run_id)
        self._moved = actor.moved
        if actor.moved:
            self._crashes = 0

    def _has_left(self, actor: Actor, way_out: Exit) -> Exit:
        """An actor has left in order. Returns what is to be done then."""
        host = self._host
        if way_out is Exit.ENDED:
            host.ended(actor.run)
        elif way_out is Exit.PARKED:
            if not actor.run.parked:  # something was said to it in the last moment
                return Exit.RESTART
            host.parked(actor.run)
        return way_out

    async def _open_incidents(self) -> list[Incident]:
        found, _ = await self._host.store.incidents(IncidentState.OPEN, self.run_id, 1000)
        return [incident for incident in found if incident.kind != "message"]

    @property
    def _row(self) -> Run:
        assert self._run is not None
        return self._run

    async def _crashed(self, error: Exception) -> bool:
        """Wait before the actor is started again; or, when the run gets nowhere, for a person.

        Returns:
            False when not even its row can be read.
        """
        self._crashes += 1
        run, times = self._run, self._crashes
        workflow = run.workflow if run is not None else ""
        log.error("actor crashed", run_id=self.run_id, workflow=workflow, times=times, exc_info=error)
        if not self._moved and not isinstance(error, Stale | StoreError):
            await self._host.quarantine.crashed(workflow, f"{type(error).__name__}: {error}")
        if times < MAX_CRASHES:
            await self._rest_for(min(FIRST_PAUSE * 2**times, LAST_PAUSE))
            return True
        if run is None:
            log.error("a run cannot be brought back", run_id=self.run_id, why=str(error))
            return False
        await self._suspend(incidents.crashed(run, error, times, self._host.clock.now()))
        self._crashes = 0
        return True

    async def _suspend(self, incident: Incident) -> None:
        """Hold the run without an actor until a person decides, or the host stops."""
        host, run_id, run = self._host, self.run_id, self._row
        self._lived = True
        suspension = host.suspended[run_id] = Suspension(incident, run.shard)
        host.arrived(run_id)
        try:
            if run_id in host.troubled:
                same = [known for known in await self._open_incidents() if incidents.same(known, incident)]
                suspension.incident = same[0] if same else incident
            log.error("run suspended", run_id=run_id, workflow=run.workflow, why=suspension.incident.message)
            await record(host, run, suspension.incident, _blocked(run))
            await self._until(suspension)
        except StoreAway:
            await self._rest_for(AWAY_PAUSE)
        finally:
            del host.suspended[run_id]

    async def _rest_for(self, seconds: float) -> None:
        """Wait, but not longer than the host serves and has the run's shard."""
        host, until = self._host, trio.current_time() + seconds
        while not host.stopping and (left := until - trio.current_time()) > 0:
            if self._is_elsewhere:
                return
            await host.rest(min(left, GLANCE))

    async def _rest(self, held: Incident) -> None:
        """Hold the run without an actor as long as its workflow is quarantined."""
        host = self._host
        run = await host.recovery.patiently(partial(host.store.run, self.run_id))
        if run is None or run.status in ENDED:
            return
        self._run = run
        self._lived = True
        suspension = host.suspended[self.run_id] = Suspension(held, run.shard)
        host.arrived(self.run_id)
        try:
            await record(host, run, None, _blocked(run))
            await self._until(suspension)
        finally:
            del host.suspended[self.run_id]

    async def _until(self, suspension: Suspension) -> None:
        """Wait for the end of a suspension, unless the run's shard has gone before that had begun."""
        if not self._is_elsewhere:
            await suspension.over.wait()


def _blocked(run: Run) -> Status:
    compensating = run.status in (Status.COMPENSATING, Status.COMPENSATION_BLOCKED)
    return Status.COMPENSATION_BLOCKED if compensating else Status.BLOCKED


async def record(host: Host, run: Run, incident: Incident | None, status: Status | None = None) -> Verdict:
    """Write an incident, or the status, of a run that has no actor."""
    if incident is not None:
        host.troubled.add(run.run_id)
    change = RunChange(status=status) if status is not None else None
    found = () if incident is None else (incident,)
    entry = Entry(run_id=run.run_id, shard=run.shard, change=change, incidents=found)
    return await host.committer.submit_and_wait(entry)
