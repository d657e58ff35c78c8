"""What the daemon counts, in Prometheus' words.

`prometheus_client` renders, but its own instruments cost too much for a step's path (measured: 0.4 us to count, 1.6 us
to observe, 1.3 us to look up labels, for locks and checks that one thread does not need). These are plain numbers, read
by a collector when somebody scrapes. They are fed from the trio thread only.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_SERIES = 1000
"""How many label sets one metric may have; those beyond are counted together under `other`."""

RUN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400, 604_800)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
COMMIT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_ENTRIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Add `amount`."""
        self.value += amount


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Subtract `amount`."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Set the value."""
        self.value = value


class Histogram:
    """How often values fell into each bucket; `bounds` are the inclusive upper bounds, ascending."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total: float = 0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts as Prometheus wants them."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        running = 0
        rows: list[tuple[str, float]] = []
        for name, count in zip(names, self.counts, strict=True):
            running += count
            rows.append((name, running))
        return rows


Instrument = TypeVar("Instrument", Counter, Gauge, Histogram)
Series = Mapping[tuple[str, ...], Instrument]


class Family(Generic[Instrument]):
    """One metric with labels. Keep what `labels` returns: the hot path should not even look it up."""

    def __init__(self, name: str, labels: Sequence[str], make: Callable[[], Instrument]) -> None:
        self._name = name
        self._label_names = tuple(labels)
        self._make = make
        self._series: dict[tuple[str, ...], Instrument] = {}

    @property
    def series(self) -> Series[Instrument]:
        """The instruments by their label values."""
        return self._series

    def labels(self, *values: str) -> Instrument:
        """Return the instrument for these label values, given in the order of the label names.

        Raises:
            ValueError: the number of values is not that of the metric's labels.
        """
        found = self._series.get(values)
        if found is not None:
            return found
        if len(values) != len(self._label_names):
            raise ValueError(f"{self._name} has the labels {self._label_names}, not {len(values)} values")
        if len(self._series) >= MAX_SERIES:
            values = ("other",) * len(values)
        return self._series.setdefault(values, self._make())


class _Process(ProcessCollector):
    """The process, also where nothing of /proc is to be seen but processes (systemd's ProcSubset=pid)."""

    def _boot_time(self) -> float:
        clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux has it
        return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


class Metrics(Collector):
    """All that the engine, the journal and the supervisor count."""

    def __init__(self) -> None:
        self._gather: list[Callable[[], Metric]] = []
        self._add_runs()
        self.step_duration = self._histograms(
            "jivsd_step_duration_seconds", "Time from a step's start to its outcome", STEP_SECONDS, "workflow", "step"
        )
        self.step_retries = self._counter("jivsd_step_retries_total", "Attempts of steps after the first")
        self.recoveries = self._counter(
            "jivsd_recoveries_total", "Runs brought back from the journal, not from waiting"
        )
        self.passivations = self._counter("jivsd_passivations_total", "Runs that have left memory to wait")
        self.activations = self._counter("jivsd_activations_total", "Runs that came back to memory from waiting")
        self.actors = self._gauges(
            "jivsd_actors", "Runs in memory: active, waiting, or suspended for a person", "state"
        )
        self.mailbox_depth = self._gauge("jivsd_mailbox_depth", "Events that runs in memory are still to be handed")
        self.inbox_consumed = self._counter("jivsd_inbox_consumed_total", "Messages that runs have read")
        self.inbox_duplicates = self._counter("jivsd_inbox_duplicates_total", "Messages that had come before")
        self.inbox_dead_lettered = self._counter(
            "jivsd_inbox_dead_lettered_total", "Messages that their run could not take"
        )
        self.journal_batch_size = self._histogram(
            "jivsd_journal_batch_size", "Entries in one group commit", BATCH_ENTRIES
        )
        self.journal_commit_seconds = self._histogram(
            "jivsd_journal_commit_seconds", "Time of one group commit", COMMIT_SECONDS
        )
        self.journal_pending = self._gauge("jivsd_journal_pending", "Entries that wait for the next group commit")
        self.fenced_appends = self._counter(
            "jivsd_fenced_appends_total", "Entries refused because their shard was taken over"
        )
        self.leases_held = self._gauge("jivsd_leases_held", "Shards that this node has")
        self.lease_lost = self._counter(
            "jivsd_lease_lost_total", "Shards lost because they could not be kept, or somebody else took them"
        )
        self.starts_rejected = self._counter("jivsd_starts_rejected_total", "Starts refused for want of room")
        self.starts_waiting = self._gauge("jivsd_starts_waiting", "Starts that wait for room to be accepted")
        self.requests = self._counters("jivsd_requests_total", "What was asked for in SQL", "kind", "result")
        self.runs_pending = self._gauge("jivsd_runs_pending", "Accepted runs that wait for room to begin")
        self.steps_running = self._gauge("jivsd_steps_running", "Steps that run")
        self.steps_waiting = self._gauge("jivsd_steps_waiting", "Steps that wait for their turn to run")
        self.step_slots = self._gauges(
            "jivsd_step_slots", "Steps that may run at once: of all workflows, or of one that has a limit", "pool"
        )
        self.step_slots_used = self._gauges("jivsd_step_slots_used", "Steps that run, by pool", "pool")
        self.inbox_backlog = self._gauge(
            "jivsd_inbox_backlog", "Messages that no run has read, in the whole database: each node says the same"
        )
        self.incidents_open = self._gauges("jivsd_incidents_open", "Incidents that nobody has resolved", "workflow")
        self.supervisor_restarts = self._counters(
            "jivsd_supervisor_restarts_total", "Restarts of a supervised child", "child"
        )
        self._add_store()
        self.redis_commands = self._counters(
            "jivsd_redis_commands_total", "Commands to Redis, by whether they were done: ok or failed", "status"
        )
        self.feed_followers = self._gauge("jivsd_feed_followers", "WebSockets that follow the feed")
        self.feed_events = self._counter("jivsd_feed_events_total", "Events sent to those who follow the feed")
        self.feed_cut = self._counter("jivsd_feed_cut_total", "Followers of the feed that were cut for being too slow")
        self.workers_missed = self._counters(
            "jivsd_worker_scrapes_missed_total",
            "Scrapes that a worker of this host did not answer in time",
            "worker",
        )
        self.before_scrape: Callable[[], None] | None = None
        """Called on each scrape, to bring up to date what is too dear to be counted all the time."""
        self.sources: list[Callable[[], None]] = []
        """Called on each scrape, too."""
        self.registry = CollectorRegistry()
        """Where a plugin registers metrics of its own."""
        self.registry.register(self)
        _Process(registry=self.registry)

    def _add_runs(self) -> None:
        def runs(how: str) -> Family[Counter]:
            return self._counters(f"jivsd_runs_{how}_total", f"Runs that were {how}", "workflow")

        self.runs_started = runs("started")
        self.runs_completed = runs("completed")
        self.runs_failed = runs("failed")
        self.runs_cancelled = runs("cancelled")
        self.runs_timed_out = runs("timed_out")
        self.runs_compensated = runs("compensated")
        self.runs_paused = runs("paused")
        self.runs_resumed = runs("resumed")
        self.runs_active = self._gauges("jivsd_runs_active", "Runs in memory that do not wait", "workflow")
        self.runs = self._gauges("jivsd_runs", "Runs in the whole database: each node says the same", "status")
        self.duration_limit = self._gauges(
            "jivsd_workflow_duration_limit_seconds", "Time that a run may take, if there is a limit", "workflow"
        )
        self.run_duration = self._histograms(
            "jivsd_run_duration_seconds", "Time from a run's start to its end", RUN_SECONDS, "workflow", "status"
        )

    def _add_store(self) -> None:
        self.store_up = self._gauge("jivsd_store_up", "1 while the store can be written to, else 0")
        self.db_connections = self._gauges(
            "jivsd_db_connections", "Connections to the database: open, at work, wanted", "state"
        )
        self.db_connections_max = self._gauge(
            "jivsd_db_connections_max", "Connections to the database that there may be; 0: it is embedded"
        )
        self.connections = self._gauges("jivsd_store_connections", "Connections to the database", "kind")
        self.connections_used = self._gauges(
            "jivsd_store_connections_used", "Connections to the database that are at work", "kind"
        )
        self.connections_waiting = self._gauges(
            "jivsd_store_connections_waiting", "Questions to the database that wait for a connection", "kind"
        )
        self.connects = self._counters("jivsd_store_connects_total", "Connections to the database ever made", "kind")
        self.connect_failures = self._counters(
            "jivsd_store_connect_failures_total", "Attempts to connect to the database that failed", "kind"
        )

    def collect(self) -> Iterable[Metric]:
        """Return the present values; `prometheus_client` calls this on each scrape."""
        if self.before_scrape is not None:
            self.before_scrape()
        for source in self.sources:
            source()
        return [gather() for gather in self._gather]

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _counters(self, name: str, help: str, *labels: str) -> Family[Counter]:
        family = Family(name, labels, Counter)

        def gather() -> Metric:
            metric = CounterMetricFamily(name, help, labels=labels)
            for values, counter in family.series.items():
                metric.add_metric(values, counter.value)
            return metric

        self._gather.append(gather)
        return family

    def _gauges(self, name: str, help: str, *labels: str) -> Family[Gauge]:
        family = Family(name, labels, Gauge)

        def gather() -> Metric:
            metric = GaugeMetricFamily(name, help, labels=labels)
            for values, gauge in family.series.items():
                metric.add_metric(values, gauge.value)
            return metric

        self._gather.append(gather)
        return family

    def _histograms(self, name: str, help: str, bounds: Sequence[float], *labels: str) -> Family[Histogram]:
        family = Family(name, labels, lambda: Histogram(bounds))

        def gather() -> Metric:
            metric = HistogramMetricFamily(name, help, labels=labels)
            for values, histogram in family.series.items():
                metric.add_metric(values, histogram.buckets(), histogram.total)
            return metric

        self._gather.append(gather)
        return family

    def _counter(self, name: str, help: str) -> Counter:
        return self._counters(name, help).labels()

    def _gauge(self, name: str, help: str) -> Gauge:
        return self._gauges(name, help).labels()

    def _histogram(self, name: str, help: str, bounds: Sequence[float]) -> Histogram:
        return self._histograms(name, help, bounds).labels()
