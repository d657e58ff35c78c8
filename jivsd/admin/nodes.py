"""The routes of nodes: who has which shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.admin.http import Route, answer, operation
from jivsd.admin.nodewire import NodePage, NodeView

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class NodeRoutes:
    """Answers /nodes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [("GET", "/nodes", self.page)]

    @operation(answers={200: NodePage})
    async def page(self) -> Response:
        """List the nodes that have the database, and the shards of each."""
        return answer(NodePage([NodeView.of(one) for one in await self._engine.nodes()]))
