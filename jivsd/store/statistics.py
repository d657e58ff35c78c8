"""Statistics per workflow since a time: what a store counts, and what is said of it. The latter is pure.

Counts are exact: whole hours were added up as runs began and ended, the part of an hour that comes before them is read
off indexes. Durations and failed attempts are those of the runs that ended last, as many as can be looked at in some
milliseconds: with more, `Durations.since` says from when on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jivsd.records import ENDED, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SAMPLE: Final = 10_000
"""So many ended runs are looked at for durations, of all workflows together."""
LEAST: Final = 100
"""So many at the least of each status of a workflow."""
JOURNALS: Final = 50
"""So many journals of a workflow are looked through for failed attempts."""
EVENTS: Final = 1_000
"""So many events of each."""

UNSUCCESSFUL: Final = frozenset({Status.FAILED, Status.COMPENSATED, Status.TIMED_OUT})
"""How runs end that should have ended otherwise. Those that somebody cancelled or terminated are none."""

MINUTE: Final = 60_000_000
HOUR: Final = 60 * MINUTE
"""Of so long a time it is kept how many runs were started and have ended."""
STARTED: Final = "STARTED"


class Count(NamedTuple):
    """How many runs of a workflow are in a status, and how many of those were started and have ended since a time.

    Those that were counted when they were started have no status here: what has become of them was not kept.
    """

    workflow: str
    status: Status | None
    runs: int
    started: int
    ended: int


class Ending(NamedTuple):
    """A run that has ended, and how long it had been there, in microseconds."""

    workflow: str
    status: Status
    ended_at: int
    duration: int
    run: int | str
    """Its number or its id: what leads the store to its journal."""


class Incidents(NamedTuple):
    """How many incidents of a workflow were opened since a time, and how many are open now."""

    workflow: str
    opened: int
    open: int


class Durations(msgspec.Struct, frozen=True):
    """How long the runs took that ended `since` then, from their start's acceptance to their end, in microseconds."""

    runs: int
    since: int
    average: int
    p50: int
    p95: int
    p99: int


class Attempts(msgspec.Struct, frozen=True):
    """How many attempts of steps failed in the journals of the `runs` runs that ended last."""

    runs: int
    failed: int


class WorkflowStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a workflow's runs since a time, and how many are open now."""

    workflow: str
    started: int
    ended: dict[str, int]
    """By status."""
    open: dict[str, int]
    """By status, those that were started before too."""
    ended_per_minute: float
    failure_rate: float | None
    """The part of the runs that ended FAILED, COMPENSATED or TIMED_OUT; None: none has ended. Those that went on as new
    (CONTINUED) count for neither."""
    incidents: int
    """Opened since."""
    open_incidents: int
    durations: Durations | None
    attempts: Attempts | None


class Statistics(msgspec.Struct, frozen=True):
    """From `since` to `until`, in microseconds since the epoch; workflows by name."""

    since: int
    until: int
    items: list[WorkflowStatistics]


def counted(rows: Iterable[Sequence[Any]]) -> list[Count]:
    """The counts of rows, of which some have STARTED in the place of a status."""
    return [Count(name, None if word == STARTED else Status(word), *numbers) for name, word, *numbers in rows]


def whole_hour(since: int) -> int:
    """The begin of the first whole hour since a time."""
    return -(-since // HOUR) * HOUR


def share(counts: Sequence[Count]) -> int:
    """How many ended runs of each status of a workflow are looked at."""
    return max(SAMPLE // max(sum(count.ended > 0 for count in counts), 1), LEAST)


def statistics(
    since: int, until: int, counts: Sequence[Count], endings: Iterable[Ending], incidents: Iterable[Incidents]
) -> Statistics:
    """What is said of what was counted; without the attempts.

    `endings` are, of each status of a workflow, those that ended last: all, or as many as `share` says.
    """
    minutes = max(until - since, 1) / MINUTE
    by_workflow: dict[str, list[Count]] = {}
    for count in counts:
        by_workflow.setdefault(count.workflow, []).append(count)
    sampled: dict[str, list[Ending]] = {}
    for ending in endings:
        sampled.setdefault(ending.workflow, []).append(ending)
    troubles = {one.workflow: one for one in incidents}
    items: list[WorkflowStatistics] = []
    for workflow in sorted({*by_workflow, *troubles}):
        of_it = by_workflow.get(workflow, [])
        ended = {count.status.value: count.ended for count in of_it if count.status and count.ended}
        decided = sum(number for status, number in ended.items() if status != Status.CONTINUED)
        bad = sum(number for status, number in ended.items() if status in UNSUCCESSFUL)
        trouble = troubles.get(workflow, Incidents(workflow, 0, 0))
        items.append(
            WorkflowStatistics(
                workflow=workflow,
                started=sum(count.started for count in of_it),
                ended=ended,
                open={it.status.value: it.runs for it in of_it if it.runs and it.status and it.status not in ENDED},
                ended_per_minute=round(sum(ended.values()) / minutes, 3),
                failure_rate=bad / decided if decided else None,
                incidents=trouble.opened,
                open_incidents=trouble.open,
                durations=durations(since, share(counts), sampled.get(workflow, [])),
                attempts=None,
            )
        )
    return Statistics(since, until, items)


def last(endings: Iterable[Ending], limit: int) -> tuple[int | None, list[Ending]]:
    """Those of a workflow that ended last, with none in between missing, and since when; None: since ever.

    Of a status with `limit` of them there may be older ones that are not here: what ended before the oldest of these
    is left out, whatever its status.
    """
    found = list(endings)
    oldest: dict[Status, list[int]] = {}
    for ending in found:
        oldest.setdefault(ending.status, []).append(ending.ended_at)
    since = max((min(times) for times in oldest.values() if len(times) >= limit), default=None)
    return since, [ending for ending in found if since is None or ending.ended_at >= since]


def durations(since: int, limit: int, endings: Iterable[Ending]) -> Durations | None:
    """How long runs took."""
    begin, found = last(endings, limit)
    if not found:
        return None
    times = sorted(ending.duration for ending in found)
    return Durations(
        runs=len(times),
        since=since if begin is None else begin,
        average=round(sum(times) / len(times)),
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        p99=percentile(times, 0.99),
    )


def percentile(times: Sequence[int], part: float) -> int:
    """The smallest of some sorted values that is not less than so great a part of them (nearest rank)."""
    return times[max(math.ceil(part * len(times)) - 1, 0)]


def newest(endings: Iterable[Ending]) -> dict[str, list[int | str]]:
    """The runs of each workflow whose journals are looked through."""
    found: dict[str, list[int | str]] = {}
    for ending in sorted(endings, key=lambda ending: ending.ended_at, reverse=True):
        runs = found.setdefault(ending.workflow, [])
        if len(runs) < JOURNALS:
            runs.append(ending.run)
    return found


def with_attempts(found: Statistics, failed: dict[str, Attempts]) -> Statistics:
    """The same with the failed attempts, by workflow."""
    items = [msgspec.structs.replace(one, attempts=failed.get(one.workflow)) for one in found.items]
    return msgspec.structs.replace(found, items=items)
