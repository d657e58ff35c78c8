"""Statistics per workflow: see `jivsd.store.statistics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.records import Status
from jivsd.store import statistics
from jivsd.store.statistics import Attempts, Ending, Incidents, Statistics

if TYPE_CHECKING:
    from jivsd.store.postgres.connections import Connection, Sql


async def collect(connection: Connection, sql: Sql, since: int, until: int, workflow: str | None) -> Statistics:
    """See `Store.statistics`."""
    whole = statistics.whole_hour(since)
    counts = statistics.counted(await connection.fetch(sql["statistics_counts"], since, workflow, whole))
    limit = statistics.share(counts)
    stretches = [count for count in counts if count.ended]
    names, words = [count.workflow for count in stretches], [count.status for count in stretches]
    rows = await connection.fetch(sql["statistics_endings"], names, words, since, limit)
    endings = [Ending(name, Status(status), *rest) for name, status, *rest in rows]
    incidents = [Incidents(*row) for row in await connection.fetch(sql["statistics_incidents"], since, workflow)]
    failed: dict[str, Attempts] = {}
    for name, runs in statistics.newest(endings).items():
        count = await connection.fetchval(sql["failed_attempts"], runs, statistics.EVENTS)
        failed[name] = Attempts(len(runs), count)
    return statistics.with_attempts(statistics.statistics(since, until, counts, endings, incidents), failed)
