"""Callers who leave a PostgreSQL store at any moment: nothing is leaked, no session, no task, no lock, no answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from random import Random

import pytest
import trio
from databases import NEWEST

from jivsd.records import Incident, new_id
from jivsd.store.api import RunFilter, Written
from store.builders import append, end, new_run, post, start
from store.test_postgres import opened, somebody

CALLERS = 20
LONGEST = 0.2
"""Seconds after which those who leave have left; most do so at once, and one in twenty never."""
BACKLOG = 20
"""Questions that may go on without their callers: the store is to be confused, not swamped."""
PATIENCE = 60.0
"""Seconds that a commit may take here, however busy the machine is: one that is cut short costs its connection."""
MOST = {"journal": 1, "lease": 1, "reader": 4, "writer": 2}
ALLOWED = {f"jivsd {kind} of node-a": most for kind, most in MOST.items()}


async def leave_at_random(url, times):
    random, left = Random(3), iter(range(times))
    stayed = Counter()
    async with opened(url) as j, somebody(url) as ask:
        run, tasks_before = await j.start(), trio.lowlevel.current_statistics().tasks_living

        async def live():
            fresh = new_run(lock_key=random.choice([None, "k"]))
            await j.write(start(fresh), append(fresh, 2), end(fresh, 3))

        bridge = j.store._bridge
        questions = [
            lambda: j.store.run(run.run_id),
            lambda: j.store.recorded([run.run_id]),
            lambda: j.store.runs(RunFilter(), 5),
            j.store.counts,
            j.store.probe,
            j.store.outsiders,
            lambda: j.store.put_incident(Incident(new_id(), "step", "no", 1)),
            lambda: j.write(post(run, new_id())),
            lambda: j.store.remove([run.run_id]),
            lambda: j.store.raise_epoch("node-a", {63: 0}),
            live,
        ]

        async def leave():
            for number in left:
                while bridge.under_way > BACKLOG:  # noqa: ASYNC110 -- what goes on without its callers tells nobody
                    await trio.sleep(0.001)
                patience = inf if number % 20 == 0 else random.random() ** 5 * LONGEST
                with trio.move_on_after(patience):
                    question = random.randrange(len(questions))
                    await questions[question]()
                    stayed[question] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(leave)
        with trio.fail_after(30):
            while bridge.under_way:  # noqa: ASYNC110 -- what goes on without its callers tells nobody
                await trio.sleep(0.001)
        assert len(stayed) == len(questions), "of every kind somebody stayed"
        assert sum(stayed.values()) < times, "and somebody left"
        assert trio.lowlevel.current_statistics().tasks_living == tasks_before
        assert await bridge.call(tasks_there, timeout=5) == 2, "itself and the server"
        for usage in j.store.connections().values():
            assert (usage.used, usage.waiting, usage.failures) == (0, 0, 0)
            assert usage.made == usage.open, "none was lost, so none was replaced"
        sessions = await ask(
            "SELECT application_name, count(*) FROM pg_stat_activity WHERE application_name LIKE 'jivsd %'"
            " AND datname = current_database() GROUP BY 1"
        )
        assert all(count <= ALLOWED[name] for name, count in sessions)
        assert await ask("SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == []
        locks = "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'jivsd %'"
        held = await ask(f"{locks} AND locktype <> 'advisory' AND datname = current_database()")
        assert held == []
        assert await j.write(end(run, 2)) == [Written()]
        assert await j.store.check() == []


async def tasks_there():
    return len(asyncio.all_tasks())


@pytest.fixture
def url(postgres):
    return postgres(NEWEST).clean()


@pytest.mark.slow
async def test_callers_who_leave_leak_nothing(url, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.store.COMMIT_TIMEOUT", PATIENCE)
    await leave_at_random(url, 2_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_callers_who_leave_leak_nothing_for_long(url, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.store.COMMIT_TIMEOUT", PATIENCE)
    await leave_at_random(url, 100_000)
