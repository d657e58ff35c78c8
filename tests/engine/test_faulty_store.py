"""The whole engine on a store that loses replies, lands commits late, goes away and holds rows."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import trio
from store.faulty import FaultyStore

from engine import commands
from jivsd.engine.api import Unavailable
from jivsd.records import Kind, Status
from jivsd.store.api import RunFilter
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env

pytestmark = [pytest.mark.jump, pytest.mark.slow]

OUTCOMES = {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED, Kind.TIMER_FIRED, Kind.MARKER}


async def insist(ask):
    """What a client does when it is told to come again."""
    while True:
        try:
            return await ask()
        except Unavailable as error:
            await trio.sleep(error.retry_after)


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_lost_and_nothing_is_done_twice(seed):
    world = commands.fresh_world()
    random = Random(seed)
    store = FaultyStore(
        SqliteStore(":memory:", threaded=False), random, rate=0.3, faults=("lost", "never", "later", "away", "busy")
    )
    async with Env(commands, store=store) as env:
        plain = [await insist(lambda n=n: env.start("trip", "good" if n % 2 else "bad", id=f"t{n}")) for n in range(4)]
        everything = await insist(lambda: env.start("everything", "Ann", id="e"))
        talk = await insist(lambda: env.start("talk", 3, id="t"))
        locked = [await insist(lambda n=n: env.start("patient", 5, id=f"p{n}")) for n in range(3)]
        for number in range(6):
            for _ in range(2):  # each twice: the second is recognised
                await insist(lambda n=number: env.signal("talk:t", "vote", f"v{n}", message_id=f"v{n}"))
        for text in ("a", "b"):
            await insist(lambda text=text: env.signal(talk, "word", {"text": text}, message_id=text))
        assert await env.result(talk) == ["a", "b"]
        assert sorted(await env.query(talk, "tally")) == [f"v{number}" for number in range(6)]
        statuses = [(await env.ended(run)).status for run in plain]
        assert statuses == [Status.COMPENSATED, Status.COMPLETED] * 2
        assert (await env.result(everything))["entered"] == 7
        for run in locked:
            assert await env.result(run) == "booked bench"
        store.rate = 0
        await store.settle()
        assert len((await env.engine.runs(RunFilter(), 100)).items) == 11  # with two children
        for run in (await env.engine.runs(RunFilter(), 100)).items:
            paths = Counter(event.path for event in await env.store.events(run.run_id) if event.kind in OUTCOMES)
            assert set(paths.values()) <= {1}, (run.workflow, paths)
        assert all(count == 1 for path, count in world.executed.items() if "flaky" not in path)
        assert sum(store.counts[fault] for fault in ("lost", "never", "later")) > 3
        assert not await env.store.check()
