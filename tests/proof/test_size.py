"""What a full database costs: the program that measures it, in small."""

from __future__ import annotations

import pytest

from jivsd.proof.fill import fill
from jivsd.proof.size import size
from jivsd.records import Status
from jivsd.store.api import RunFilter
from jivsd.store.sqlite import SqliteStore


async def test_a_filled_database_is_sound_and_has_something_for_every_filter(tmp_path):
    path = tmp_path / "jivsd.db"
    assert fill(path, 300, steps=3) == 300 * 5
    async with SqliteStore(path) as store:
        await store.open("node")
        assert await store.check() == []
        counts = await store.counts()
        assert sum(counts.values()) == 300
        assert counts[Status.FAILED] > 0
        child = next(run for run in (await store.runs(RunFilter(), 50)).items if run.options.parent)
        for where in (
            RunFilter(parent=child.options.parent),
            RunFilter(correlation_id="batch-2"),
            RunFilter(attributes={"region": "eu"}),
        ):
            assert (await store.runs(where, 5)).items


@pytest.mark.slow
def test_the_program_measures_everything():
    said = []
    report = size(runs=400, steps=2, work=20, tell=said.append)
    assert len(said) == 4
    assert report.pruned > 0
    assert min(report.steps_per_s, report.steps_per_s_empty, report.steps_per_s_pruning, report.wal_bytes) > 0
    assert len({look.what for look in report.looks}) > 25
    assert report.slowest.ms < 50
