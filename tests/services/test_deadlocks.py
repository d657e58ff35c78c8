"""Runs that wait for one another in a circle: seen, said once, and closed when it is gone."""

from __future__ import annotations

import json

import pytest
import trio
from services import keys

from jivsd.records import IncidentState, Status
from jivsd.services.deadlocks import Config, DeadlockService
from jivsd.testing import Env

pytestmark = pytest.mark.jump


class Looker:
    """An engine, and who looks for circles in its locks."""

    def __init__(self, env):
        self.env = env
        self.service = DeadlockService(env.engine, Config(after=5))

    async def look(self, seconds=6.0):
        """Wait and look; return the open incidents."""
        await trio.sleep(seconds)
        await self.service.run_once()
        return await self.incidents()

    async def incidents(self, state=IncidentState.OPEN):
        return (await self.env.engine.incidents(state)).items

    async def crossed(self):
        """Two runs, each of which waits for what the other one has."""
        a = await self.env.start("take", {"keys": ["k1", "k2"]}, id="a")
        b = await self.env.start("take", {"keys": ["k2", "k1"]}, id="b")
        await trio.sleep(1)
        for run in (a, b):
            await self.env.signal(run, "go", None)
        await trio.sleep(1)
        return a, b


async def test_two_runs_that_cross_are_reported_once_and_closed_when_one_gives_way():
    async with Env(keys) as env:
        looker = Looker(env)
        a, b = await looker.crossed()
        assert await looker.look(0) == []  # nobody has waited for long
        (incident,) = await looker.look()
        assert incident.kind == "deadlock"
        assert incident.message == (
            "runs wait for one another: take:a waits for lock 'k2' behind take:b, which waits for lock 'k1' behind "
            "take:a; none of them goes on before you cancel or terminate one of them"
        )
        assert [one["run_id"] for one in incident.details["circle"]] == [a, b]
        assert await looker.look() == [incident]
        again = Looker(env)  # after a restart
        assert await again.look() == [incident]
        await env.engine.cancel(a, by="ann")
        await env.ended(b)
        assert await again.look() == []
        (closed,) = await looker.incidents(IncidentState.RESOLVED)
        assert closed.resolution == "gone"


async def test_a_circle_that_somebody_has_seen_is_not_reported_again():
    async with Env(keys) as env:
        looker = Looker(env)
        await looker.crossed()
        (incident,) = await looker.look()
        await env.engine.resolve_incident(incident.incident_id, None, by="ann", why="I know")
        assert await looker.look() == []
        assert await Looker(env).look() == []


@pytest.mark.parametrize("passivate_after", [None, 0])
async def test_a_run_that_waits_for_its_child_and_the_child_for_its_lock(passivate_after):
    async with Env(keys, passivate_after=passivate_after) as env:
        looker = Looker(env)
        parent = await env.start("nested", "k", id="p")
        (incident,) = await looker.look()
        assert "waits for its child own:" in incident.message
        assert "waits for lock 'k' behind nested:p" in incident.message
        await env.engine.cancel(parent, by="ann")
        assert (await env.ended(parent)).status is Status.CANCELLED
        assert await looker.look() == []


async def test_a_runs_own_lock_and_one_in_code():
    async with Env(keys) as env:
        looker = Looker(env)
        a = await env.start("own", {"key": "k1", "inner": "k2"}, id="a")
        b = await env.start("take", {"keys": ["k2", "k1"]}, id="b")
        await trio.sleep(1)
        for run in (a, b):
            await env.signal(run, "go", None)
        (incident,) = await looker.look(8)
        assert "own:a waits for lock 'k2' behind take:b" in incident.message
        await env.engine.terminate(b, by="ann")
        await env.ended(a)
        assert await looker.look() == []


async def test_a_wait_with_a_limit_ends_the_circle_by_itself():
    async with Env(keys) as env:
        looker = Looker(env)
        runs = [
            await env.start("take", {"keys": list(order), "wait": "20s"}, id=order[0])
            for order in (("k1", "k2"), ("k2", "k1"))
        ]
        await trio.sleep(1)
        for run in runs:
            await env.signal(run, "go", None)
        assert len(await looker.look(8)) == 1
        said = {json.loads(bytes((await env.ended(run)).output)) for run in runs}
        assert any("in vain" in one for one in said)
        assert await looker.look() == []


async def test_who_has_not_the_shard_does_not_look():
    async with Env(keys) as env:
        looker = Looker(env)
        await looker.crossed()
        env.engine.holding.shards = frozenset(range(1, 64))
        assert await looker.look() == []


async def test_the_queues_can_be_looked_at():
    async with Env(keys) as env:
        a, b = await Looker(env).crossed()
        c = await env.start("own", {"key": "k1"}, id="c")
        await env.start("own", {"key": "k3"}, id="d")
        await trio.sleep(3)
        first = await env.engine.lock_queues(limit=2)
        assert [queue.key for queue in first.items] == ["k1", "k2"]
        rest = await env.engine.lock_queues(limit=2, cursor=first.next)
        assert ([queue.key for queue in rest.items], rest.next) == (["k3"], None)
        k1 = first.items[0]
        assert [place.run_id for place in k1.places] == [a, b, c]
        assert (k1.fence, k1.waiting, k1.places[0].node, k1.places[2].status) == (1, 2, "test", Status.PENDING)
        assert k1.places[0].held_since is not None
        assert k1.places[1].held_since is None
        assert k1.places[1].since > k1.places[0].since
        (circle,) = first.circles
        assert [link.run_id for link in circle.links] == [a, b]
        (only,) = (await env.engine.lock_queues("k1", waiters=1)).items
        assert ([place.run_id for place in only.places], only.waiting) == ([a, b], 2)
        assert (await env.engine.lock_queues("nothing")).items == []
