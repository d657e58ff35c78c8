"""The routes of incidents: what waits for a person, and the ways out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from jivsd.admin.http import Route, answer, body_of, caller, operation, query_of
from jivsd.admin.incidentwire import GroupPage, IncidentPage, IncidentView, ResolveBody
from jivsd.admin.masks import Masks
from jivsd.admin.problems import Problem
from jivsd.admin.runs import Limit
from jivsd.admin.wire import ReasonBody
from jivsd.engine.api import GroupDecision, Incidents

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.api import GroupAction
    from jivsd.engine.engine import Engine
    from jivsd.records import Incident


class IncidentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["OPEN", "RESOLVED", "ALL"] = "OPEN"
    run: str | None = None
    fingerprint: str | None = None
    limit: Limit = 50
    cursor: str | None = None


class GroupQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["OPEN", "RESOLVED", "ALL"] = "OPEN"
    limit: Limit = 100


class IncidentRoutes:
    """Answers everything under /incidents."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._masks = Masks(engine)

    def routes(self) -> list[Route]:
        return [
            ("GET", "/incidents", self.page),
            ("GET", "/incidents/<incident_id>", self.show),
            ("POST", "/incidents/<incident_id>/acknowledge", self.acknowledge),
            ("POST", "/incidents/<incident_id>/retry", self.retry),
            ("POST", "/incidents/<incident_id>/resolve", self.resolve),
            ("POST", "/incidents/<incident_id>/skip", self.skip),
            ("GET", "/incidents/groups", self.groups),
            ("POST", "/incidents/groups/<fingerprint>/<action>", self.decide_group),
        ]

    @operation(query=IncidentQuery, answers={200: IncidentPage})
    async def page(self) -> Response:
        """List incidents, newest first."""
        query = query_of(IncidentQuery)
        found = await self._engine.incidents(
            _state(query.state), query.run, query.limit, query.cursor, query.fingerprint
        )
        items = [await self._masks.incident(one) for one in found.items]
        return answer(IncidentPage.of(Incidents(items, found.next)))

    @operation(answers={200: IncidentView})
    async def show(self, incident_id: str) -> Response:
        """Show an incident."""
        return await self._one(await self._engine.incident(incident_id))

    @operation(body=ReasonBody, answers={200: IncidentView})
    async def acknowledge(self, incident_id: str) -> Response:
        """Say that somebody looks after it."""
        body = await body_of(ReasonBody, required=False)
        return await self._one(await self._engine.acknowledge_incident(incident_id, by=caller(), why=body.reason))

    @operation(body=ReasonBody, answers={200: IncidentView})
    async def retry(self, incident_id: str) -> Response:
        """Try again what it holds."""
        body = await body_of(ReasonBody, required=False)
        return await self._one(await self._engine.retry_incident(incident_id, by=caller(), why=body.reason))

    @operation(body=ResolveBody, answers={200: IncidentView})
    async def resolve(self, incident_id: str) -> Response:
        """Decide it: the value becomes the result of the step that it holds."""
        body = await body_of(ResolveBody, required=False)
        return await self._one(
            await self._engine.resolve_incident(incident_id, body.given(), by=caller(), why=body.reason)
        )

    @operation(body=ReasonBody, answers={200: IncidentView})
    async def skip(self, incident_id: str) -> Response:
        """Let the run go on without the result of the step that it holds."""
        body = await body_of(ReasonBody, required=False)
        return await self._one(await self._engine.skip_incident(incident_id, by=caller(), why=body.reason))

    @operation(query=GroupQuery, answers={200: GroupPage})
    async def groups(self) -> Response:
        """List incidents by what they have in common."""
        query = query_of(GroupQuery)
        found = await self._engine.incident_groups(_state(query.state), query.limit)
        return answer(GroupPage.of([await self._masks.group(one) for one in found]))

    async def _one(self, incident: Incident) -> Response:
        return answer(IncidentView.of(await self._masks.incident(incident)))

    @operation(body=ResolveBody, answers={200: GroupDecision})
    async def decide_group(self, fingerprint: str, action: str) -> Response:
        """Do the same about all open incidents of a group; the answer has a result for each."""
        if action not in ACTIONS:
            detail = f"there is no action {action!r} on a group; there are: {', '.join(ACTIONS)}"
            raise Problem(404, "not_found", detail, {"action": action})
        body = await body_of(ResolveBody, required=False)
        chosen: GroupAction = ACTIONS[action]
        return answer(await self._engine.decide_group(fingerprint, chosen, body.given(), by=caller(), why=body.reason))


ACTIONS: Final[dict[str, GroupAction]] = {
    "acknowledge": "acknowledge",
    "retry": "retry",
    "resolve": "resolve",
    "skip": "skip",
}


def _state(state: str) -> str | None:
    return None if state == "ALL" else state
