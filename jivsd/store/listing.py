"""Lists of runs: which index leads to a page, and what has to be asked of it. For every store.

A page of a list is read off one stretch of an index, or merged from a few of them, so that it costs no more when there
are a million runs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jivsd.records import ENDED, Status
from jivsd.store.api import BadCursor

if TYPE_CHECKING:
    from jivsd.store.api import RunFilter

FEW: Final = 2000
"""Rows that may be looked at one by one: about a millisecond."""

_HAS: Final = (
    "(SELECT 1 FROM {table} AS a{place} WHERE a{place}.name = :name{place} AND a{place}.value = :value{place}"
    " AND a{place}.run_created_at = run.created_at AND a{place}.run_number = run.number) = 1"
)
"""No EXISTS: of that a planner may make a join, and read all runs that have the attribute."""
_CURSOR: Final = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)


class Place(NamedTuple):
    """Where a row stands in a list: its time, and its number among rows of the same time."""

    time: int
    number: int

    @classmethod
    def of(cls, cursor: str | None) -> Place | None:
        """The place that a cursor names.

        Raises:
            BadCursor: it names none.
        """
        if cursor is None:
            return None
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise BadCursor(f"{cursor!r} is not a cursor: pass on the one that came with the page before")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.time}-{self.number}"


class Path(NamedTuple):
    """What leads to runs: an index of the run table, or the runs of an attribute; by which time it is ordered; and
    whether it has a stretch for each status."""

    name: str
    time: str
    by_status: bool
    attribute: str | None = None

    @property
    def number(self) -> str:
        """The column with the number of the run."""
        return "number" if self.attribute is None else "run_number"

    @property
    def by_end(self) -> bool:
        """Whether the index has runs that have ended, by when they did; the list may be in another order."""
        return self.name in ("run_ended", "run_workflow_ended")


def index_of(where: RunFilter, *, ended: bool = False) -> Path:
    """The index that leads to the runs of a filter, by what leaves the fewest."""
    if where.workflow_id is not None:
        return Path("run_workflow_id", "created_at", by_status=False)
    if where.parent is not None:
        return Path("run_parent", "created_at", by_status=True)
    if where.correlation_id is not None:
        return Path("run_correlation", "created_at", by_status=True)
    if where.paused and not ended:
        return Path("run_paused", "created_at", by_status=False)
    if ended or where.ended_before is not None or where.ended_after is not None:
        # with attributes, either of two may lead, and they have one order: this one if few runs are to be sorted
        time = "created_at" if where.attributes else "ended_at"
        return Path("run_ended" if where.workflow is None else "run_workflow_ended", time, by_status=True)
    return Path("run_status" if where.workflow is None else "run_workflow_status", "created_at", by_status=True)


def bounds(where: RunFilter) -> tuple[int, int]:
    """When the runs of a filter were created: from a time on, and before another one."""
    before = _lowest(where.created_before, where.ended_before)  # no run ends before it is created
    return where.created_after or 0, 1 << 62 if before is None else before


def selects(
    sql: str, where: RunFilter, path: Path, after: Place | None, *, ended: bool = False, attributes: str = "attribute"
) -> list[tuple[str, dict[str, Any]]]:
    """What has to be asked to list the runs of a filter: SQL and its parameters, for each stretch of the index.

    Newest first, beginning behind `after`; with `ended` only runs that have ended, oldest first. In `sql` the
    conditions take the place of the word "true"; `attributes` is the name of the table of attributes.
    """
    conditions, parameters = _conditions(where, path, after, attributes, oldest_first=ended)
    wanted = statuses_of(where, ended=ended)
    stretches: list[tuple[list[str], dict[str, Any]]]
    if wanted == []:
        stretches = []
    elif path.by_status:
        stretches = [(["status = :status"], {"status": status}) for status in (Status if wanted is None else wanted)]
    elif wanted is None:
        stretches = [([], {})]
    else:
        marks = {f"status{place}": status for place, status in enumerate(wanted)}
        stretches = [([f"status IN ({', '.join(f':{mark}' for mark in marks)})"], marks)]
    return [
        (sql.replace("true", " AND ".join([*own, *conditions]) or "true"), {**values, **parameters})
        for own, values in stretches
    ]


def statuses_of(where: RunFilter, *, ended: bool) -> list[Status] | None:
    """The statuses that a filter allows, each once; None: any."""
    allowed = list(dict.fromkeys(where.statuses)) or list(Status)
    if where.open_only:
        allowed = [status for status in allowed if status not in ENDED]
    if ended or where.ended_before is not None or where.ended_after is not None:
        allowed = [status for status in allowed if status in ENDED]
    return None if len(allowed) == len(Status) else allowed


def _conditions(
    where: RunFilter, path: Path, after: Place | None, table: str, *, oldest_first: bool
) -> tuple[list[str], dict[str, Any]]:
    """What a row has to meet, apart from its status.

    Of a row's time in the index there is at most one lower and one upper bound: SQLite would use either one of two.
    """
    given = {"workflow": where.workflow, "workflow_id": where.workflow_id, "parent": where.parent}
    given["correlation_id"] = where.correlation_id
    parameters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    conditions = [f"{name} = :{name}" for name in parameters]
    if where.paused is not None:  # written so that it fits the condition of the index run_paused
        conditions.append("paused" if where.paused else "NOT paused")
    created = "created_at" if path.attribute is None else path.time
    lower = {created: where.created_after, "ended_at": where.ended_after}
    upper = {created: _before(where.created_before), "ended_at": _before(where.ended_before)}
    if path.time == "ended_at":  # no run ends before it is created
        lower["ended_at"] = _highest(lower["ended_at"], where.created_after)
    else:
        upper[created] = _lowest(upper[created], upper["ended_at"])
    for place, (name, value) in enumerate(where.attributes.items()):
        if name == path.attribute:
            conditions.append("name = :name AND value = :value")
            parameters |= {"name": name, "value": value}
        else:
            conditions.append(_HAS.format(place=place, table=table))
            parameters |= {f"name{place}": name, f"value{place}": value}
    if path.attribute is not None and where.workflow is not None:
        conditions.append("run_workflow IN ('', :workflow)")  # empty in rows from before it was there
    if after is not None:
        parameters |= {"at": after.time, "number": after.number}
        beyond = ">" if oldest_first else "<"
        conditions.append(f"({path.time} {beyond} :at OR {path.number} {beyond} :number)")
        if oldest_first:
            lower[path.time] = _highest(lower[path.time], after.time)
        else:
            upper[path.time] = _lowest(upper[path.time], after.time)
    for operator, bounds, side in ((">=", lower, "from"), ("<=", upper, "to")):
        for time, bound in bounds.items():
            if bound is not None:
                # the sum keeps a planner from being led by a time that does not lead; by an upper bound it never is,
                # and that can be seen in the index
                leads = path.by_end if time == "ended_at" else path.time != "ended_at" or side == "to"
                column = time if leads else f"{time} + 0"
                conditions.append(f"{column} {operator} :{time}_{side}")
                parameters[f"{time}_{side}"] = bound
    if path.by_end:
        conditions.append("ended_at IS NOT NULL")
    return conditions, parameters


def _before(time: int | None) -> int | None:
    return None if time is None else time - 1


def _highest(*bounds: int | None) -> int | None:
    return max((bound for bound in bounds if bound is not None), default=None)


def _lowest(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)
