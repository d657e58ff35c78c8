"""Mending: a failed run is tried again, and a person decides what an incident waits for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from jivsd.engine import life, troubles
from jivsd.engine.admission import nothing
from jivsd.engine.api import Conflict, Incidents, NotFound, Unavailable
from jivsd.engine.incidents import resolved
from jivsd.engine.reset import held, reset
from jivsd.records import ENDED, Incident, IncidentState, Run, Status
from jivsd.store.api import NewRun, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.actor import Actor
    from jivsd.engine.admission import Admission
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking
    from jivsd.store.api import Verdict


PATIENCE = 5.0
"""Seconds in which a run should be back in memory, to be told what a person has decided."""


class Mending:
    """Retries and incidents of the runs of a host."""

    def __init__(self, host: Host, looking: Looking, admission: Admission) -> None:
        self._host = host
        self._looking = looking
        self._admission = admission

    async def retry(self, ref: str, by: str) -> Run:
        """See `Engine.retry`."""
        self._admission.check()
        run = await self._looking.show(ref)
        if run.status not in ENDED or run.status in (Status.COMPLETED, Status.CONTINUED):
            raise Conflict(f"run {run.run_id} is {run.status}; only a failed one is retried", run_id=run.run_id)
        workflow = await self._looking.code_of(run)
        events = await self._host.store.events(run.run_id)
        now, gate = self._host.clock.now(), self._host.gate
        new, journal = await reset(workflow, run, events, run_id=self._host.ids(), now=now, by=by)
        arrive = partial(gate.arrive, workflow.name)
        if not gate.enter(workflow):
            arrive = nothing
            new, journal = held(new, journal)
        await self._admission.commit(NewRun(new), journal, arrive)
        return new

    async def incidents(self, state: str | None, ref: str | None, limit: int, cursor: str | None) -> Incidents:
        """See `Engine.incidents`."""
        run_id = (await self._looking.show(ref)).run_id if ref is not None else None
        return Incidents(*await self._host.store.incidents(state, run_id, limit, cursor))

    async def incident(self, incident_id: str) -> Incident:
        """See `Engine.incident`."""
        found = await self._host.store.incident(incident_id)
        if found is None:
            raise NotFound(f"there is no incident {incident_id!r}", incident=incident_id)
        return found

    async def retry_incident(self, incident_id: str, by: str, why: str) -> Incident:
        """See `Engine.retry_incident`."""
        host = self._host
        incident = await self._open(incident_id)
        run_id = incident.run_id or ""
        closed = resolved(incident, "retry", by=by, why=why, at=host.clock.now())
        if (suspension := host.suspended.get(run_id)) is not None:
            await life.record(host, await self._looking.show(run_id), closed)
            suspension.over.set()
            return closed
        actor = await self._actor(incident)
        if actor is None or not await self._told(incident, partial(troubles.retry, actor, closed)):
            raise Conflict(f"incident {incident_id} holds nothing that could be tried again", incident=incident_id)
        return closed

    async def resolve_incident(self, incident_id: str, value: bytes, by: str, why: str) -> Incident:
        """See `Engine.resolve_incident`."""
        host = self._host
        incident = await self._open(incident_id)
        closed = resolved(incident, "value", by=by, why=why, at=host.clock.now())
        actor = await self._actor(incident)
        if incident.kind in ("step", "compensation"):
            if actor is None or not await self._told(incident, partial(troubles.resolve, actor, closed, value)):
                raise Conflict(f"incident {incident_id} no longer holds a step", incident=incident_id)
        elif incident.path == "" and incident.run_id is not None:
            raise Conflict(
                f"incident {incident_id} ({incident.kind}) holds the whole run; mend its cause and retry it",
                incident=incident_id,
            )
        elif incident.run_id is None:
            await host.store.put_incident(closed)
        elif actor is not None:
            await self._told(incident, partial(troubles.dismiss, actor, closed))
        else:
            await life.record(host, await self._looking.show(incident.run_id), closed)
        return closed

    async def _actor(self, incident: Incident) -> Actor | None:
        """The actor of an incident's run; None if there is none because the run is suspended or has ended."""
        run_id = incident.run_id
        if run_id is None or run_id in self._host.suspended:
            return None
        with trio.move_on_after(PATIENCE) as patience:
            return await self._host.present(run_id)
        assert patience.cancelled_caught
        message = f"run {run_id} is on its way back from the journal; try again in a moment"
        raise Unavailable(message, retry_after=1, run_id=run_id)

    async def _told(self, incident: Incident, act: Callable[[Callable[[Verdict], None]], bool]) -> bool:
        """Tell a run's actor what a person has decided, and wait until that is recorded. False if it would not."""
        verdicts: list[Verdict] = []
        recorded = trio.Event()

        def told(verdict: Verdict) -> None:
            verdicts.append(verdict)
            recorded.set()

        if not act(told):
            return False
        await recorded.wait()
        if isinstance(verdicts[0], Refused):
            raise Conflict(
                f"run {incident.run_id} has just begun anew; look at incident {incident.incident_id} again",
                incident=incident.incident_id,
                run_id=incident.run_id,
            )
        return True

    async def _open(self, incident_id: str) -> Incident:
        incident = await self.incident(incident_id)
        if incident.state is not IncidentState.OPEN:
            raise Conflict(f"incident {incident_id} is resolved already", incident=incident_id)
        return incident
