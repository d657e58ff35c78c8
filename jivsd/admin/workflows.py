"""The routes of workflows and of the plugins that bring them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.admin.http import Route, answer, body_of, caller
from jivsd.admin.wire import NoBody, PluginPage, WorkflowPage, WorkflowView

if TYPE_CHECKING:
    from quart_trio.wrappers import TrioResponse as Response

    from jivsd.engine.engine import Engine


class WorkflowRoutes:
    """Answers /workflows and /plugins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            ("GET", "/workflows", self.workflows),
            ("GET", "/plugins", self.plugins),
            ("POST", "/plugins/reload", self.reload),
        ]

    async def workflows(self) -> Response:
        return answer(WorkflowPage([WorkflowView.of(info) for info in self._engine.workflows()]))

    async def plugins(self) -> Response:
        return answer(PluginPage((await self._engine.status()).plugins))

    async def reload(self) -> Response:
        await body_of(NoBody, required=False)
        return answer(await self._engine.reload_plugins(by=caller()))
