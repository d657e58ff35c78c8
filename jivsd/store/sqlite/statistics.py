"""Statistics per workflow: see `jivsd.store.statistics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd.store import statistics
from jivsd.store.sqlite.database import query, together
from jivsd.store.statements import statements
from jivsd.store.statistics import Attempts, Ending, Incidents, Statistics

if TYPE_CHECKING:
    import apsw

_sql: Final = statements("sqlite")


def collect(connection: apsw.Connection, since: int, until: int, workflow: str | None) -> Statistics:
    """See `Store.statistics`."""
    given = {"since": since, "workflow": workflow}
    with together(connection):
        counted = query(connection, _sql["statistics_counts"], {**given, "whole": statistics.whole_hour(since)})
        counts = statistics.counted(counted)
        limit = statistics.share(counts)
        endings: list[Ending] = []
        for count in counts:
            if count.status is not None and count.ended:
                of_it = {"since": since, "workflow": count.workflow, "status": count.status, "limit": limit}
                rows = query(connection, _sql["statistics_endings"], of_it)
                endings += (Ending(count.workflow, count.status, *row) for row in rows)
        incidents = [Incidents(*row) for row in query(connection, _sql["statistics_incidents"], given)]
        newest = statistics.newest(endings).items()
        failed = {name: _attempts(connection, runs) for name, runs in newest}
    return statistics.with_attempts(statistics.statistics(since, until, counts, endings, incidents), failed)


def _attempts(connection: apsw.Connection, runs: list[int | str]) -> Attempts:
    failed = 0
    for run in runs:
        ((count,),) = query(connection, _sql["failed_attempts"], (run, statistics.EVENTS)).fetchall()
        failed += count
    return Attempts(len(runs), failed)
