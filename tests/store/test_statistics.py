"""What is said of what was counted."""

from __future__ import annotations

import re
from statistics import mean

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd.records import ENDED, Status
from jivsd.store.statements import migrations, statements
from jivsd.store.statistics import Count, Ending, durations, last, newest, percentile, share, statistics

WAYS = (Status.COMPLETED, Status.FAILED)
endings = st.lists(
    st.builds(
        lambda status, at, length: Ending("w", status, at, length, f"r{at}"),
        st.sampled_from(WAYS),
        st.integers(0, 50),
        st.integers(0, 1000),
    )
)


@given(st.lists(st.integers(0, 100), min_size=1).map(sorted), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_the_least_value_that_reaches_its_part(times, part):
    found = percentile(times, part)
    assert sum(time <= found for time in times) >= part * len(times)
    assert sum(time < found for time in times) < part * len(times)


@given(endings, st.integers(1, 10))
def test_a_sample_has_all_that_ended_since_it_begins(everything, limit):
    """Though of each status only those are known that ended last."""
    known = []
    for status in WAYS:
        of_it = sorted((one for one in everything if one.status is status), key=lambda one: -one.ended_at)
        known += of_it[:limit]
    since, found = last(known, limit)
    if since is None:
        assert sorted(found) == sorted(everything)
    else:
        assert {one for one in everything if one.ended_at > since} <= set(found)
        assert all(one.ended_at >= since for one in found)
        assert found


@given(endings)
def test_durations_are_of_all_if_all_are_known(everything):
    found = durations(3, len(everything) + 1, everything)
    if not everything:
        assert found is None
        return
    times = [one.duration for one in everything]
    assert (found.runs, found.since) == (len(times), 3)
    assert min(times) <= found.p50 <= found.p95 <= found.p99 <= max(times)
    assert abs(found.average - mean(times)) <= 0.5


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(Status), *[st.integers(0, 9)] * 3),
        unique_by=lambda one: one[:2],
    )
)
def test_nothing_that_was_counted_gets_lost(given):
    counts = [Count(*one) for one in given]
    found = statistics(0, 60_000_000, counts, [], [])
    assert [one.workflow for one in found.items] == sorted({one.workflow for one in counts})
    assert sum(one.started for one in found.items) == sum(one.started for one in counts)
    assert sum(sum(one.ended.values()) for one in found.items) == sum(one.ended for one in counts)
    assert sum(sum(one.open.values()) for one in found.items) == sum(
        one.runs for one in counts if one.status not in ENDED
    )
    for one in found.items:
        assert one.ended_per_minute == sum(one.ended.values())
        assert one.failure_rate is None or 0 <= one.failure_rate <= 1
    assert share(counts) >= 100


def test_those_that_ended_last_are_looked_through():
    found = newest([Ending("w", Status.FAILED, at, 1, f"r{at}") for at in range(150)])
    assert found == {"w": [f"r{at}" for at in range(149, 99, -1)]}


@pytest.mark.parametrize("name", ["statistics_counts", "statistics_endings", "statistics_incidents"])
def test_whatever_is_counted_is_read_off_an_index_alone(name):
    database = apsw.Connection(":memory:")
    for migration in migrations("sqlite"):
        database.execute(migration.sql)
    given = {"since": 1, "whole": 2, "workflow": "w", "status": "FAILED", "limit": 5}
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statements('sqlite')[name]}", given)]
    hours = [step for step in plan if " run_hour " in step]  # a row an hour is few
    assert hours == ["SEARCH run_hour USING PRIMARY KEY (hour>?)"] * (name == "statistics_counts")
    runs = [step for step in plan if re.match("(SCAN|SEARCH) (run|incident) ", step)]
    assert runs
    assert all("COVERING INDEX" in step for step in runs), plan
    grouped = name != "statistics_endings"  # by workflow, what was found
    assert len([step for step in plan if "TEMP B-TREE" in step]) == grouped, plan
