"""Mending: a failed run is tried again, and a person decides what an incident waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.engine import life, troubles
from jivsd.engine.api import Conflict, Incidents, NotFound
from jivsd.engine.incidents import resolved
from jivsd.engine.reset import reset
from jivsd.records import ENDED, Incident, IncidentState, Run, Status
from jivsd.store.api import NewRun

if TYPE_CHECKING:
    from jivsd.engine.admission import Admission
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking


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
        new, journal = await reset(workflow, run, events, run_id=self._host.ids(), now=self._host.clock.now(), by=by)
        await self._admission.commit(NewRun(new), journal)
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
        elif (actor := host.actors.get(run_id)) is not None and troubles.retry(actor, closed):
            pass
        else:
            raise Conflict(f"incident {incident_id} holds nothing that could be tried again", incident=incident_id)
        return closed

    async def resolve_incident(self, incident_id: str, value: bytes, by: str, why: str) -> Incident:
        """See `Engine.resolve_incident`."""
        host = self._host
        incident = await self._open(incident_id)
        closed = resolved(incident, "value", by=by, why=why, at=host.clock.now())
        actor = host.actors.get(incident.run_id or "")
        if incident.kind in ("step", "compensation"):
            if actor is None or not troubles.resolve(actor, closed, value):
                raise Conflict(f"incident {incident_id} no longer holds a step", incident=incident_id)
        elif incident.path == "" and incident.run_id is not None:
            raise Conflict(
                f"incident {incident_id} ({incident.kind}) holds the whole run; mend its cause and retry it",
                incident=incident_id,
            )
        elif incident.run_id is None:
            await host.store.put_incident(closed)
        elif actor is not None:
            troubles.dismiss(actor, closed)
        else:
            await life.record(host, await self._looking.show(incident.run_id), closed)
        return closed

    async def _open(self, incident_id: str) -> Incident:
        incident = await self.incident(incident_id)
        if incident.state is not IncidentState.OPEN:
            raise Conflict(f"incident {incident_id} is resolved already", incident=incident_id)
        return incident
