"""Deciding: what people do about incidents, one by one or a whole group at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from jivsd.engine import life, troubles
from jivsd.engine.api import Conflict, Decided, EngineError, GroupDecision, Incidents, Invalid, NotFound, Unavailable
from jivsd.engine.incidents import acknowledged, resolved
from jivsd.records import Incident, IncidentGroup, IncidentState
from jivsd.store.api import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.actor import Actor
    from jivsd.engine.api import GroupAction
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking
    from jivsd.store.api import Verdict

HOLDS_STEP: Final = frozenset({"step", "compensation"})
"""Kinds of incidents that hold a step: a person can stand in for its result."""
PATIENCE: Final = 5.0
"""Seconds in which a run should be back in memory, to be told what a person has decided."""
AT_ONCE: Final = 64
"""Incidents of a group that are decided at once: they share batches of the journal."""


class Deciding:
    """The incidents of a host's runs."""

    def __init__(self, host: Host, looking: Looking) -> None:
        self._host = host
        self._looking = looking

    async def incidents(
        self, state: str | None, ref: str | None, limit: int, cursor: str | None, fingerprint: str | None
    ) -> Incidents:
        """See `Engine.incidents`."""
        run_id = (await self._looking.show(ref)).run_id if ref is not None else None
        return Incidents(*await self._host.store.incidents(state, run_id, limit, cursor, fingerprint))

    async def groups(self, state: str | None, limit: int) -> list[IncidentGroup]:
        """See `Engine.incident_groups`."""
        return await self._host.store.incident_groups(state, limit)

    async def incident(self, incident_id: str) -> Incident:
        """See `Engine.incident`."""
        found = await self._host.store.incident(incident_id)
        if found is None:
            raise NotFound(f"there is no incident {incident_id!r}", incident=incident_id)
        return found

    async def decide(self, action: GroupAction, incident_id: str, value: bytes | None, by: str, why: str) -> Incident:
        """Do one of the following about an incident, where its run lives."""
        if not self._host.holding.shared:
            return await self.decide_here(action, incident_id, value, by, why)
        incident = await self._open(incident_id)
        run = None if incident.run_id is None else await self._host.store.run(incident.run_id)
        if run is None or not self._host.forwarding.is_elsewhere(run):
            return await self.decide_here(action, incident_id, value, by, why)
        given = None if value is None else value.decode()
        asked = {"action": action, "incident_id": incident_id, "value": given, "by": by, "why": why}
        await self._host.forwarding.ask(run, "decide", **asked)
        return await self.incident(incident_id)

    async def decide_for(self, action: GroupAction, incident_id: str, value: str | None, by: str, why: str) -> None:
        """The same for another node, which has sent the value's JSON as text."""
        await self.decide_here(action, incident_id, None if value is None else value.encode(), by, why)

    async def decide_here(
        self, action: GroupAction, incident_id: str, value: bytes | None, by: str, why: str
    ) -> Incident:
        """The same for an incident of a run that lives on this node, or of none."""
        match action:
            case "acknowledge":
                return await self.acknowledge(incident_id, by, why)
            case "retry":
                return await self.retry(incident_id, by, why)
            case "skip":
                return await self.skip(incident_id, by, why)
            case "resolve":
                return await self.resolve(incident_id, value, by, why)

    async def acknowledge(self, incident_id: str, by: str, why: str) -> Incident:
        """See `Engine.acknowledge_incident`."""
        host = self._host
        seen = acknowledged(await self._open(incident_id), by=by, why=why, at=host.clock.now())
        if seen.run_id is None:
            await host.store.put_incident(seen)
            host.quarantine.note(seen)
        elif (suspension := host.suspended.get(seen.run_id)) is not None and suspension.by(seen):
            suspension.incident = seen
            await self._record(seen.run_id, seen)
        else:
            actor = await self._actor(seen)
            if actor is None or not await self._told(seen, partial(troubles.note, actor, seen)):
                await self._record(seen.run_id, seen)
        return seen

    async def retry(self, incident_id: str, by: str, why: str) -> Incident:
        """See `Engine.retry_incident`."""
        host = self._host
        incident = await self._open(incident_id)
        if incident.kind == "request":
            await host.store.sql_requests.again(incident.details["request"])
            return await self._dismiss(resolved(incident, "retry", by=by, why=why, at=host.clock.now()))
        if incident.kind == "quarantine":
            return await host.quarantine.lift(incident.workflow or "", by=by, why=why)
        run_id = incident.run_id or ""
        closed = resolved(incident, "retry", by=by, why=why, at=host.clock.now())
        if (suspension := host.suspended.get(run_id)) is not None and suspension.by(incident):
            await self._record(run_id, closed)
            suspension.over.set()
            return closed
        actor = await self._actor(incident)
        if actor is None or not await self._told(incident, partial(troubles.retry, actor, closed)):
            raise Conflict(f"incident {incident_id} holds nothing that could be tried again", incident=incident_id)
        return closed

    async def resolve(self, incident_id: str, value: bytes | None, by: str, why: str) -> Incident:
        """See `Engine.resolve_incident`."""
        incident = await self._open(incident_id)
        if incident.kind in HOLDS_STEP:
            if value is None:
                message = f"incident {incident_id} holds step {incident.path}: give a value for its result, or skip it"
                raise Invalid(message, field="value", incident=incident_id)
            return await self._stand_in(incident, value, "value", by, why)
        if incident.kind in ("quarantine", "still") or (incident.path == "" and incident.run_id is not None):
            held = "the whole workflow; lift it" if incident.kind == "quarantine" else "the whole run; mend its cause"
            raise Conflict(f"incident {incident_id} ({incident.kind}) holds {held} and retry it", incident=incident_id)
        return await self._dismiss(resolved(incident, "value", by=by, why=why, at=self._host.clock.now()))

    async def skip(self, incident_id: str, by: str, why: str) -> Incident:
        """See `Engine.skip_incident`."""
        incident = await self._open(incident_id)
        if incident.kind == "request":
            return await self._dismiss(resolved(incident, "skip", by=by, why=why, at=self._host.clock.now()))
        if incident.kind not in HOLDS_STEP:
            message = f"incident {incident_id} ({incident.kind}) holds no step that could be skipped"
            raise Conflict(message, incident=incident_id)
        return await self._stand_in(incident, b"null", "skip", by, why)

    async def decide_group(
        self, fingerprint: str, action: GroupAction, value: bytes | None, by: str, why: str, limit: int
    ) -> GroupDecision:
        """See `Engine.decide_group`."""
        found, following = await self._host.store.incidents(IncidentState.OPEN, None, limit, None, fingerprint)
        if not found:
            raise NotFound(f"there is no open incident with the fingerprint {fingerprint!r}", fingerprint=fingerprint)
        results = [Decided(one.incident_id, one.run_id) for one in found]
        slots = trio.CapacityLimiter(AT_ONCE)

        async def decide(place: int) -> None:
            decided = results[place]
            async with slots:
                try:
                    await self.decide(action, decided.incident_id, value, by, why)
                except EngineError as error:
                    results[place] = Decided(decided.incident_id, decided.run_id, str(error), error.code)

        async with trio.open_nursery() as nursery:
            for place in range(len(results)):
                nursery.start_soon(decide, place)
        return GroupDecision(results, more=following is not None)

    async def _stand_in(self, incident: Incident, value: bytes, how: str, by: str, why: str) -> Incident:
        """Let a person's value be the result of the step that an incident holds."""
        closed = resolved(incident, how, by=by, why=why, at=self._host.clock.now())
        actor = await self._actor(incident)
        if actor is None or not await self._told(incident, partial(troubles.resolve, actor, closed, value)):
            raise Conflict(f"incident {incident.incident_id} no longer holds a step", incident=incident.incident_id)
        return closed

    async def _dismiss(self, closed: Incident) -> Incident:
        """Close an incident that holds nothing."""
        if closed.kind == "request" and closed.resolution != "retry":
            await self._host.store.sql_requests.close(closed.details["request"])
        actor = await self._actor(closed)
        if closed.run_id is None:
            await self._host.store.put_incident(closed)
        elif actor is not None:
            await self._told(closed, partial(troubles.dismiss, actor, closed))
        else:
            await self._record(closed.run_id, closed)
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

    async def _record(self, run_id: str, incident: Incident) -> None:
        """Record what a person has decided about a run that has no actor."""
        verdict = await life.record(self._host, await self._looking.show(run_id), incident)
        if isinstance(verdict, Refused) and verdict.why == "fenced":
            raise Unavailable(f"run {run_id} moves to another node just now", retry_after=1, run_id=run_id)

    async def _open(self, incident_id: str) -> Incident:
        incident = await self.incident(incident_id)
        if incident.state is not IncidentState.OPEN:
            raise Conflict(f"incident {incident_id} is resolved already", incident=incident_id)
        return incident
