"""The route that starts many runs in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.admin.http import Route, answer, body_of, caller, operation
from jivsd.admin.wire import BulkBody, BulkView
from jivsd.engine.api import NewStart

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class BulkRoutes:
    """Answers /runs/bulk."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [("POST", "/runs/bulk", self.start)]

    @operation(body=BulkBody, required=True, answers={200: BulkView})
    async def start(self) -> Response:
        """Start runs: 200 with a result for each, in the order of the starts, whatever became of them."""
        body = await body_of(BulkBody)
        wanted = [NewStart(one.workflow, one.input, one.options()) for one in body.starts]
        return answer(BulkView(await self._engine.start_many(wanted, by=caller())))
