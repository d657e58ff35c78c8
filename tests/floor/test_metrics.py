from __future__ import annotations

import timeit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jivsd.metrics import MAX_SERIES, Metrics

NAMES = {
    *(
        f"jivsd_runs_{how}"
        for how in ("started", "completed", "failed", "cancelled", "timed_out", "compensated", "paused", "resumed")
    ),
    "jivsd_runs_active",
    "jivsd_run_duration_seconds",
    "jivsd_step_duration_seconds",
    "jivsd_step_retries",
    "jivsd_recoveries",
    "jivsd_journal_batch_size",
    "jivsd_journal_commit_seconds",
    "jivsd_journal_pending",
    "jivsd_fenced_appends",
    "jivsd_starts_rejected",
    "jivsd_incidents_open",
    "jivsd_supervisor_restarts",
    "jivsd_actors",
    "jivsd_mailbox_depth",
    "jivsd_inbox_consumed",
    "jivsd_inbox_duplicates",
    "jivsd_inbox_dead_lettered",
    "jivsd_leases_held",
    "jivsd_lease_lost",
    "jivsd_redis_commands",
    "jivsd_db_connections",
}


def test_every_metric_of_the_spec_is_there_before_anything_happened():
    families = {family.name for family in text_string_to_metric_families(Metrics().render().decode())}
    assert families >= NAMES


def test_a_scrape_shows_what_was_counted():
    metrics = Metrics()
    metrics.runs_started.labels("nap").inc()
    metrics.runs_started.labels("nap").inc()
    metrics.runs_active.labels("nap").inc()
    metrics.runs_active.labels("nap").dec()
    metrics.journal_pending.set(7)
    metrics.step_retries.inc(3)
    metrics.step_duration.labels("nap", "copy").observe(0.001)
    metrics.step_duration.labels("nap", "copy").observe(0.003)
    metrics.step_duration.labels("nap", "copy").observe(1e9)
    seen = metrics.registry.get_sample_value
    nap = {"workflow": "nap"}
    assert seen("jivsd_runs_started_total", nap) == 2
    assert seen("jivsd_runs_active", nap) == 0
    assert seen("jivsd_journal_pending") == 7
    assert seen("jivsd_step_retries_total") == 3
    copy = nap | {"step": "copy"}
    cumulative = {"0.001": 1, "0.0025": 1, "0.005": 2, "3600.0": 2, "+Inf": 3}
    for bound, count in cumulative.items():
        assert seen("jivsd_step_duration_seconds_bucket", copy | {"le": bound}) == count
    assert seen("jivsd_step_duration_seconds_sum", copy) == pytest.approx(1e9)


def test_labels_are_bounded():
    metrics = Metrics()
    for number in range(MAX_SERIES + 50):
        metrics.runs_started.labels(f"w{number}").inc()
    assert len(metrics.runs_started.series) == MAX_SERIES + 1
    assert metrics.runs_started.labels("other").value == 50


def test_a_wrong_number_of_labels_is_refused():
    with pytest.raises(ValueError, match=r"has the labels \('workflow', 'step'\), not 1"):
        Metrics().step_duration.labels("nap")


def test_the_hot_path_costs_less_than_a_microsecond():
    metrics = Metrics()
    count, observe = metrics.runs_started.labels("nap").inc, metrics.step_duration.labels("nap", "copy").observe
    for act in (count, lambda: observe(0.3), lambda: metrics.step_duration.labels("nap", "copy")):
        assert min(timeit.repeat(act, number=1000, repeat=20)) / 1000 < 1e-6
