"""Quarantine: a workflow whose code crashes too often rests until an operator lifts it; the daemon lives on.

A run is counted only for crashes that it caused, and only if it got nowhere before (DESIGN.md, Crash loops).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine import incidents
from jivsd.engine.api import Conflict, NotFound
from jivsd.engine.attempts import Exit
from jivsd.records import IncidentState
from jivsd.store.api import StoreError
from jivsd.supervision import Restarts

if TYPE_CHECKING:
    from jivsd.engine.host import Host
    from jivsd.records import Incident
    from jivsd.supervision import Intensity

log = logs.get(__name__)

LOOK_EVERY: Final = 5.0
"""Seconds between two looks whether another node has quarantined a workflow, or lifted that."""


class Quarantine:
    """The workflows of a host that may not run."""

    def __init__(self, host: Host, intensity: Intensity) -> None:
        self._host = host
        self._intensity = intensity
        self._crashes: dict[str, Restarts] = {}
        self._held: dict[str, Incident] = {}
        self._next_look = 0.0
        self._unrecorded: set[str] = set()
        """Incidents that are being written for the first time."""

    def note(self, incident: Incident) -> None:
        """Take over an open incident as it is recorded."""
        if incident.kind == "quarantine" and incident.workflow is not None:
            self._held[incident.workflow] = incident

    async def heard(self, incident_id: str) -> None:
        """Another node says that a quarantine has begun, or is over."""
        with suppress(StoreError):  # it is looked for again
            incident = await self._host.store.incident(incident_id)
            if incident is not None:
                self._learn(incident)

    async def look(self) -> None:
        """See which workflows are quarantined, now and then: another node may have said so. Raises StoreError."""
        now = trio.current_time()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        known = [held for held in self._held.values() if held.incident_id not in self._unrecorded]
        found, _ = await self._host.store.incidents(IncidentState.OPEN, limit=1000, kind="quarantine")
        for incident in found:
            self._learn(incident)
        for held in known:
            if all(held.incident_id != incident.incident_id for incident in found):
                self._over(held)

    def _learn(self, incident: Incident) -> None:
        known = self._held.get(incident.workflow or "")
        if incident.state is not IncidentState.OPEN:
            if known is not None and known.incident_id == incident.incident_id:
                self._over(known)
        elif known is None:
            self.note(incident)
            self._stop(incident.workflow or "")

    def of(self, workflow: str) -> Incident | None:
        """The incident that keeps a workflow from running."""
        return self._held.get(workflow) if self._held else None

    def check(self, workflow: str) -> None:
        """Raises Conflict when the workflow may not be started."""
        incident = self.of(workflow)
        if incident is not None:
            self._host.metrics.starts_rejected.inc()
            raise Conflict(
                f"{incident.message}; an operator lifts that with: jivsd quarantine lift {workflow}",
                code="quarantined",
                workflow=workflow,
                incident=incident.incident_id,
            )

    async def crashed(self, workflow: str, why: str) -> None:
        """An actor of the workflow has crashed before its run got anywhere: once too often, and the workflow rests."""
        restarts = self._crashes.setdefault(workflow, Restarts(self._intensity))
        if restarts.delay(trio.current_time()) is None and self.of(workflow) is None:
            often, period = self._intensity.restarts, self._intensity.period
            await self._begin(workflow, f"it crashed more than {often} times in {period:g} s; last: {why}")

    async def begin(self, workflow: str, *, by: str, why: str) -> Incident:
        """See `Engine.quarantine`."""
        self._host.workflow(workflow)
        if (held := self.of(workflow)) is not None:
            raise Conflict(
                f"workflow {workflow!r} is quarantined already", workflow=workflow, incident=held.incident_id
            )
        return await self._begin(workflow, why or "somebody wants that", by=by)

    async def _begin(self, workflow: str, why: str, *, by: str = "") -> Incident:
        host = self._host
        said = f"{why} (by {by})" if by else why
        incident = self._held[workflow] = incidents.quarantine(workflow, said, host.clock.now())
        log.critical("workflow quarantined", workflow=workflow, why=said, incident=incident.incident_id)
        self._stop(workflow)
        self._unrecorded.add(incident.incident_id)
        try:
            await host.recovery.patiently(partial(host.store.put_incident, incident))
        finally:
            self._unrecorded.discard(incident.incident_id)
        host.calling.quarantine(incident.incident_id)
        return incident

    def _stop(self, workflow: str) -> None:
        for actor in list(self._host.actors.values()):
            if actor.run.workflow == workflow:
                actor.ask(Exit.RESTART)

    async def lift(self, workflow: str, *, by: str, why: str) -> Incident:
        """See `Engine.lift`."""
        host = self._host
        held = self.of(workflow)
        if held is None:
            raise NotFound(f"workflow {workflow!r} is not quarantined", workflow=workflow)
        closed = incidents.resolved(held, "lift", by=by, why=why, at=host.clock.now())
        await host.store.put_incident(closed)
        self._over(held)
        log.warning("quarantine lifted", workflow=workflow, by=by, why=why)
        host.calling.quarantine(held.incident_id)
        return closed

    def _over(self, held: Incident) -> None:
        workflow = held.workflow or ""
        self._held.pop(workflow, None)
        self._crashes.pop(workflow, None)
        for suspension in list(self._host.suspended.values()):
            if suspension.by(held):
                suspension.over.set()
