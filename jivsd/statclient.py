"""The client's calls for statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd.admin.statwire import StatisticsPage
from jivsd.asking import Calls
from jivsd.clock import as_datetime

if TYPE_CHECKING:
    from jivsd.store.statistics import Statistics

PATIENCE: Final = 60.0
"""Seconds to wait for an answer: a year of a million runs takes a second or two."""


class StatisticsCalls(Calls):
    """What a client can ask to be counted."""

    async def statistics(self, since: int, workflow: str | None = None) -> Statistics:
        """What has become of the runs of all workflows, or of one, since a time (microseconds since the epoch)."""
        place = "" if workflow is None else f"/workflows/{self._name(workflow, 'workflow')}"
        query = {"since": as_datetime(since).isoformat()}
        return (await self._get(f"{place}/statistics", StatisticsPage, query, patience=PATIENCE)).record()
