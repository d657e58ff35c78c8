"""The routes of workflows and of the plugins that bring them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.admin.access import admin_only
from jivsd.admin.code import AdoptBody
from jivsd.admin.http import Route, answer, body_of, caller, operation
from jivsd.admin.incidentwire import IncidentView
from jivsd.admin.wire import NoBody, PluginPage, ReasonBody, WorkflowPage, WorkflowView
from jivsd.engine.api import Moves, Reloaded

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class WorkflowRoutes:
    """Answers /workflows and /plugins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            ("GET", "/workflows", self.workflows),
            ("POST", "/workflows/<name>/quarantine", self.quarantine),
            ("POST", "/workflows/<name>/lift", self.lift),
            ("GET", "/plugins", self.plugins),
            ("POST", "/plugins/reload", self.reload),
            ("POST", "/plugins/<name>/adopt", self.adopt),
        ]

    @operation(answers={200: WorkflowPage})
    async def workflows(self) -> Response:
        """List the workflow types, with the schemas of their inputs."""
        return answer(WorkflowPage([WorkflowView.of(info) for info in self._engine.workflows()]))

    @admin_only
    @operation(body=ReasonBody, answers={200: IncidentView})
    async def quarantine(self, name: str) -> Response:
        """Refuse new starts of a workflow, and let its open runs rest."""
        body = await body_of(ReasonBody, required=False)
        incident = await self._engine.quarantine_workflow(name, by=caller(), why=body.reason)
        return answer(IncidentView.of(incident))

    @admin_only
    @operation(body=ReasonBody, answers={200: IncidentView})
    async def lift(self, name: str) -> Response:
        """Let a quarantined workflow run again."""
        body = await body_of(ReasonBody, required=False)
        return answer(IncidentView.of(await self._engine.lift_quarantine(name, by=caller(), why=body.reason)))

    @operation(answers={200: PluginPage})
    async def plugins(self) -> Response:
        """List the plugins."""
        return answer(PluginPage((await self._engine.status()).plugins))

    @admin_only
    @operation(body=NoBody, answers={200: Reloaded})
    async def reload(self) -> Response:
        """Load the plugins again, for new runs."""
        await body_of(NoBody, required=False)
        return answer(await self._engine.reload_plugins(by=caller()))

    @admin_only
    @operation(body=AdoptBody, answers={200: Moves})
    async def adopt(self, name: str) -> Response:
        """Move open runs to the newest code of their plugin; a page of them."""
        body = await body_of(AdoptBody, required=False)
        moves = await self._engine.adopt_code(
            name,
            body.which(),
            by=caller(),
            dry_run=body.dry_run,
            additions=body.additions,
            limit=body.limit,
            cursor=body.cursor,
        )
        return answer(moves)
