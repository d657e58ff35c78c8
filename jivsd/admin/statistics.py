"""The routes of statistics: what has become of each workflow's runs since a time."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jivsd.admin.http import Route, answer, duration, moment_of, operation, query_of
from jivsd.admin.statwire import StatisticsPage
from jivsd.clock import SystemClock

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class StatisticsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    since: str = "1h"
    """A time, or how long ago: `2026-11-21T12:00:00Z`, `90m`, `7d`."""


class StatisticsRoutes:
    """Answers /statistics and /workflows/NAME/statistics."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [("GET", "/statistics", self.all), ("GET", "/workflows/<name>/statistics", self.one)]

    @operation(query=StatisticsQuery, answers={200: StatisticsPage})
    async def all(self) -> Response:
        """What has become of the runs of each workflow since a time (or for so long: `?since=1h`)."""
        since = _since(query_of(StatisticsQuery).since)
        return answer(StatisticsPage.of(await self._engine.statistics(since)))

    @operation(query=StatisticsQuery, answers={200: StatisticsPage})
    async def one(self, name: str) -> Response:
        """The same of one workflow."""
        since = _since(query_of(StatisticsQuery).since)
        return answer(StatisticsPage.of(await self._engine.statistics(since, name)))


def _since(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return max(SystemClock().now() - max(duration(text, "since"), 0), 0)
    return moment_of(time, "since") or 0
