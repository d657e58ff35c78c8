"""Statistics: both databases count alike, and read it off indexes."""

from __future__ import annotations

from msgspec.structs import replace

from jivsd.records import Event, Incident, IncidentState, Kind, Status
from jivsd.store import statistics
from jivsd.store.api import RunChange
from store.builders import append, end, new_run, start


async def populated(j):
    """Of workflow "order": runs 0 to 19, one every 10, each for 5 more than the one before; the last ones are open."""
    for number in range(20):
        run = new_run("order", f"o{number}", at=number * 10)
        await j.write(start(run))
        if number == 17:
            failed = Event(run.run_id, 2, Kind.ATTEMPT_FAILED, "step", b"{}", 180, 1)
            await j.one(replace(append(run, 2), events=[failed]))
            await j.one(end(run, 3, Status.FAILED, at=run.created_at + number * 5))
        elif number < 18:
            status = Status.FAILED if number % 6 == 5 else Status.COMPLETED
            await j.one(end(run, 2, status, at=run.created_at + number * 5))
        elif number == 18:
            await j.one(append(run, 2, change=RunChange(status=Status.WAITING)))
    await j.write(start(new_run("nap", at=5)))
    for number, (workflow, at) in enumerate([("order", 50), ("order", 150), ("nap", 160), (None, 170)]):
        incident = Incident(f"i{number}", "step", "x", at, workflow=workflow)
        await j.store.put_incident(incident)
    await j.store.put_incident(replace(incident, incident_id="i9", workflow="order", state=IncidentState.RESOLVED))


async def test_what_has_become_of_runs_since_a_time(journal):
    async with journal() as j:
        await populated(j)
        found = await j.store.statistics(100, 100 + 60_000_000)
        assert (found.since, [one.workflow for one in found.items]) == (100, ["nap", "order"])
        nap, order = found.items
        assert (nap.started, nap.ended, nap.open, nap.failure_rate, nap.durations) == (
            0,
            {},
            {"RUNNING": 1},
            None,
            None,
        )
        assert (nap.incidents, nap.open_incidents) == (1, 1)
        assert order.started == 10
        assert order.ended == {"COMPLETED": 9, "FAILED": 2}
        assert order.open == {"RUNNING": 1, "WAITING": 1}
        assert order.ended_per_minute == 11
        assert order.failure_rate == 2 / 11
        assert (order.incidents, order.open_incidents) == (2, 2)
        times = order.durations
        assert (times.runs, times.since, times.average) == (11, 100, 60)
        assert (times.p50, times.p95, times.p99) == (60, 85, 85)
        assert (order.attempts.runs, order.attempts.failed) == (11, 1)
        (alone,) = (await j.store.statistics(100, 200, "order")).items
        assert replace(alone, ended_per_minute=11.0) == order
        assert (await j.store.statistics(0, 200, "nobody's")).items == []


async def test_durations_are_of_those_that_ended_last(journal, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE", 6)
    monkeypatch.setattr(statistics, "LEAST", 3)
    async with journal() as j:
        await populated(j)
        (order,) = (await j.store.statistics(0, 1000, "order")).items
        assert sum(order.ended.values()) == 18
        assert order.durations.since == 14 * 15
        assert order.durations.runs == 4
        assert order.durations.p99 == 85


async def test_whole_hours_are_kept_and_stay_right(journal, monkeypatch):
    """What began and ended before and after the hour turned, what was removed since, and what is open."""
    monkeypatch.setattr("jivsd.store.postgres.store.FOLD_EVERY", 3)
    quarter = statistics.HOUR // 4
    async with journal() as j:
        runs = [new_run("order", f"o{number}", at=number * quarter) for number in range(12)]
        for number, run in enumerate(runs):
            await j.write(start(run))
            if number != 7:
                await j.one(end(run, 2, Status.FAILED if number % 2 else Status.COMPLETED, at=run.created_at + 1))
        await j.store.remove([runs[2].run_id, runs[9].run_id])
        left = [number for number in range(12) if number not in (2, 9)]
        for since in (0, 1, quarter + 1, 2 * quarter, 4 * quarter, 4 * quarter + 1, 9 * quarter, 20 * quarter):
            (order,) = (await j.store.statistics(since, since + 1)).items
            ended = [number % 2 for number in left if number != 7 and number * quarter + 1 >= since]
            assert order.started == sum(number * quarter >= since for number in left)
            expected = {"COMPLETED": ended.count(0), "FAILED": ended.count(1)}
            assert order.ended == {status: count for status, count in expected.items() if count}
            assert order.open == {"RUNNING": 1}
        assert await j.store.check() == []
        assert (await j.store.counts())["COMPLETED"] == 5
