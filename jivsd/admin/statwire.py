"""Statistics as JSON."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from jivsd.admin.wire import duration_text, fields
from jivsd.clock import as_datetime, from_datetime, microseconds
from jivsd.store.statistics import Attempts, Durations, Statistics, WorkflowStatistics


class DurationsView(Struct, frozen=True, kw_only=True):
    """How long the runs took that ended `since` then."""

    runs: int
    since: datetime
    average: str
    p50: str
    p95: str
    p99: str

    @classmethod
    def of(cls, found: Durations) -> DurationsView:
        texts = {name: duration_text(getattr(found, name)) for name in ("average", "p50", "p95", "p99")}
        return cls(runs=found.runs, since=as_datetime(found.since), **texts)

    def record(self) -> Durations:
        lengths = {name: microseconds(getattr(self, name)) for name in ("average", "p50", "p95", "p99")}
        return Durations(runs=self.runs, since=from_datetime(self.since), **lengths)


class WorkflowStatisticsView(Struct, frozen=True, kw_only=True):
    """What has become of a workflow's runs, and how many are open now; `ended` and `open` are by status.

    `failure_rate`: the part of them that ended FAILED, COMPENSATED or TIMED_OUT. `attempts`: how many attempts of steps
    failed in the journals of the `runs` that ended last.
    """

    workflow: str
    started: int
    ended: dict[str, int]
    open: dict[str, int]
    ended_per_minute: float
    failure_rate: float | None
    incidents: int
    open_incidents: int
    durations: DurationsView | None
    attempts: Attempts | None

    @classmethod
    def of(cls, found: WorkflowStatistics) -> WorkflowStatisticsView:
        durations = None if found.durations is None else DurationsView.of(found.durations)
        return cls(**fields(found, durations=durations))

    def record(self) -> WorkflowStatistics:
        durations = None if self.durations is None else self.durations.record()
        return WorkflowStatistics(**fields(self, durations=durations))


class StatisticsPage(Struct, frozen=True, kw_only=True):
    """From `since` to `until`; workflows by name."""

    since: datetime
    until: datetime
    items: list[WorkflowStatisticsView]
    next: None = None

    @classmethod
    def of(cls, found: Statistics) -> StatisticsPage:
        items = [WorkflowStatisticsView.of(one) for one in found.items]
        return cls(since=as_datetime(found.since), until=as_datetime(found.until), items=items)

    def record(self) -> Statistics:
        items = [view.record() for view in self.items]
        return Statistics(from_datetime(self.since), from_datetime(self.until), items)
