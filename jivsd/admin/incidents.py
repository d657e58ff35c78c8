"""The routes of incidents: what waits for a person, and the ways out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from jivsd.admin.http import Route, answer, body_of, caller, query_of
from jivsd.admin.runs import Limit
from jivsd.admin.wire import IncidentPage, IncidentView, ResolveBody, WhyBody

if TYPE_CHECKING:
    from quart_trio.wrappers import TrioResponse as Response

    from jivsd.engine.engine import Engine


class IncidentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["OPEN", "RESOLVED", "ALL"] = "OPEN"
    run: str | None = None
    limit: Limit = 50
    cursor: str | None = None


class IncidentRoutes:
    """Answers everything under /incidents."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            ("GET", "/incidents", self.page),
            ("GET", "/incidents/<incident_id>", self.show),
            ("POST", "/incidents/<incident_id>/retry", self.retry),
            ("POST", "/incidents/<incident_id>/resolve", self.resolve),
        ]

    async def page(self) -> Response:
        query = query_of(IncidentQuery)
        state = None if query.state == "ALL" else query.state
        return answer(IncidentPage.of(await self._engine.incidents(state, query.run, query.limit, query.cursor)))

    async def show(self, incident_id: str) -> Response:
        return answer(IncidentView.of(await self._engine.incident(incident_id)))

    async def retry(self, incident_id: str) -> Response:
        body = await body_of(WhyBody, required=False)
        return answer(IncidentView.of(await self._engine.retry_incident(incident_id, by=caller(), why=body.why)))

    async def resolve(self, incident_id: str) -> Response:
        body = await body_of(ResolveBody)
        value = bytes(body.value)
        incident = await self._engine.resolve_incident(incident_id, value, by=caller(), why=body.why)
        return answer(IncidentView.of(incident))
