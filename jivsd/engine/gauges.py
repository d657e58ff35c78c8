"""What is counted of a host's work, for whoever scrapes it; and what it says when the store goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd import logs
from jivsd.clock import SECOND
from jivsd.records import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jivsd.engine.host import Host

log = logs.get(__name__)

ALL: Final = "all"
"""The pool of the slots that the steps of all workflows share."""


class Gauges:
    """Keeps the metrics of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def batch_done(self, entries: int, seconds: float) -> None:
        """A batch of so many entries was committed."""
        metrics = self._host.metrics
        metrics.journal_batch_size.observe(entries)
        metrics.journal_commit_seconds.observe(seconds)
        metrics.journal_pending.set(self._host.committer.pending)

    def measure(self) -> None:
        """Bring the gauges up to date that are not kept so all the time."""
        host = self._host
        active = host.gate.census()
        for workflow in (*host.metrics.runs_active.series, *((name,) for name in active)):
            host.metrics.runs_active.labels(*workflow).set(active[workflow[0]])
        host.metrics.steps_running.set(host.slots.used)
        states = {"active": active.total(), "waiting": len(host.passivation), "suspended": len(host.suspended)}
        for state, count in states.items():
            host.metrics.actors.labels(state).set(count)
        self._measure_limits()
        host.metrics.mailbox_depth.set(sum(actor.pending for actor in host.actors.values()))
        self._measure_store()

    def counted(self, counts: Mapping[str, int]) -> None:
        """What `Store.counts` has found."""
        metrics = self._host.metrics
        metrics.inbox_backlog.set(counts["unread"])
        for status in Status:
            metrics.runs.labels(status.lower()).set(counts.get(status, 0))

    def _measure_limits(self) -> None:
        metrics = self._host.metrics
        for limit in self._host.gate.states():
            if limit.what == "running_steps":
                pool = ALL if limit.workflow is None else limit.workflow
                metrics.step_slots.labels(pool).set(limit.limit)
                metrics.step_slots_used.labels(pool).set(limit.used)
        for plugin in self._host.code.plugins:
            for workflow in plugin.workflows.values():
                if workflow.timeout is not None:
                    metrics.duration_limit.labels(workflow.name).set(workflow.timeout / SECOND)

    def _measure_store(self) -> None:
        host, metrics = self._host, self._host.metrics
        metrics.store_up.set(host.committer.away is None)
        for kind, found in host.store.connections().items():
            metrics.connections.labels(kind).set(found.open)
            metrics.connections_used.labels(kind).set(found.used)
            metrics.connections_waiting.labels(kind).set(found.waiting)
            metrics.connects.labels(kind).value = found.made
            metrics.connect_failures.labels(kind).value = found.failures
        pools = host.store.connections().values()
        for state in ("open", "used", "waiting"):
            metrics.db_connections.labels(state).set(sum(getattr(pool, state) for pool in pools))
        metrics.db_connections_max.set(sum(pool.most for pool in pools))

    def away(self, reason: str | None) -> None:
        """The store cannot be written to, or is back."""
        if reason is None:
            log.warning("the store is back", node=self._host.node)
        else:
            log.error("the store cannot be written to; work waits", why=reason, node=self._host.node)
