"""The meter: rates, remaining time and percent from the times of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from plugins.migration.progress import Meter, MigrationStatus, Phase

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return BEGIN + timedelta(seconds=seconds)


@pytest.fixture
def meter():
    meter = Meter()
    meter.begin(Phase.PLANNING, at(0))
    meter.expect("orders", 8000, 800_000)
    meter.expect("people", 2000, 200_000)
    meter.begin(Phase.LOADING, at(10), meter.total_rows, "rows")
    return meter


def test_before_the_start():
    progress = Meter().progress()
    assert (progress.phase, progress.status) == ("PLANNING", MigrationStatus.INITIALIZED)
    assert (progress.done, progress.total, progress.rate, progress.remaining_s) == (0, 0, 0.0, None)


def test_rates_and_remaining_time(meter):
    for second in range(1, 6):
        meter.loaded("orders", 1000, 100_000, at(10 + second))
    progress = meter.progress()
    assert (progress.done, progress.total, progress.unit, progress.detail) == (5000, 10_000, "rows", "orders")
    assert (progress.rate, progress.bytes_per_s) == (1000.0, 100_000.0)
    assert progress.remaining_s == pytest.approx(5 * 98 / 70, abs=0.1), "verification is still to come"
    assert progress.percent == 35.0
    assert [(it.table, it.rows, it.total) for it in progress.tables] == [("orders", 5000, 8000), ("people", 0, 2000)]


def test_the_rate_is_of_late_and_recovers_from_a_pause(meter):
    meter.loaded("orders", 1000, 100_000, at(3600))
    for number in range(1, 40):
        meter.loaded("orders", 100, 10_000, at(3600 + number * 0.1))
    assert meter.progress().rate == pytest.approx(1000.0, rel=0.01)


def test_an_estimate_before_the_first_chunk(meter):
    assert meter.progress().remaining_s == pytest.approx(0.2 * 1.4, abs=0.1)


def test_percent_never_falls_and_ends_at_a_hundred(meter):
    seen = [meter.progress().percent]
    for table, chunks in (("orders", 8), ("people", 3)):
        for _ in range(chunks):
            meter.loaded(table, 1000, 1, at(20))
            seen.append(meter.progress().percent)
    meter.begin(Phase.VERIFICATION, at(30), 2 * meter.rows, "rows")
    for _ in range(22):
        seen.append(meter.progress().percent)
        meter.advance(1000, "orders", at(31))
    meter.begin(Phase.CLEANUP, at(40), 1, "steps")
    seen.append(meter.progress().percent)
    meter.complete(at(41))
    seen.append(meter.progress().percent)
    assert seen == sorted(seen)
    assert seen[-1] == 100.0
    assert meter.progress().total_rows == 11_000, "more came than was counted"
    assert [it.phase for it in meter.finished] == ["PLANNING", "LOADING", "VERIFICATION", "CLEANUP"]
    assert meter.finished[1].seconds == 20.0


def test_rows_of_an_earlier_run_count_as_done(meter):
    meter.restore("orders", 4000, 400_000)
    meter.begin(Phase.LOADING, at(10), meter.total_rows, "rows", done=meter.rows)
    assert meter.progress().percent == 28.0
    meter.loaded("orders", 1000, 100_000, at(11))
    assert (meter.progress().rate, meter.progress().done) == (1000.0, 5000)


def test_failure_keeps_what_was_loaded(meter):
    meter.loaded("orders", 5000, 1, at(11))
    meter.fail(at(12))
    progress = meter.progress()
    assert (progress.phase, progress.status, progress.percent) == ("FAILED", MigrationStatus.FAILED, 35.0)


def test_the_answer_is_json_with_the_conventions_fields(meter):
    answer = msgspec.to_builtins(meter.progress())
    assert list(answer)[:7] == ["phase", "done", "total", "unit", "detail", "rate", "remaining_s"]
