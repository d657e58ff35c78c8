"""Runs that change nodes: what finds one that nobody lives, although its row is there; what a step knows of it."""

from __future__ import annotations

import trio
from databases import NEWEST

from engine import traffic
from engine.traffic import EVEN, ODD, name_in, nodes
from jivsd.engine.api import StartOptions
from jivsd.engine.holding import Holding
from jivsd.records import Status


async def test_a_run_that_was_written_for_this_node_and_not_called_is_found(postgres, monkeypatch):
    monkeypatch.setattr("jivsd.engine.calling.POLL", 0.1)
    monkeypatch.setattr("jivsd.engine.calling.SWEEP", 0.5)
    monkeypatch.setattr(Holding, "placed", lambda self, new: new)  # as if its shard had moved while it was written
    async with nodes(postgres(NEWEST).clean(), calls=False) as n:
        for shards in (ODD, EVEN):
            run = (await n["a"].start("plain", b'"x"', StartOptions(id=name_in(shards)))).run
            assert (run.status, run.parked) == (Status.RUNNING, False)
            assert (await n["a"].result(run.run_id, 10)).status is Status.COMPLETED


async def test_all_who_wait_for_this_node_to_have_a_shard_go_on_when_it_has(postgres):
    async with nodes(postgres(NEWEST).clean()) as n:
        c = await n.join("c")
        ended = []

        async def start():
            run = (await c.start("plain", b'"x"')).run
            ended.append((await c.result(run.run_id, 10)).status)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(start)
            await trio.sleep(0.1)
            await n.move([0, 2], "a", "c")
        assert ended == [Status.COMPLETED] * 2
        assert trio.current_time() - began < 4, "neither waited until its patience was over"


async def test_a_step_has_a_higher_fence_at_every_later_owner_of_its_run(postgres):
    async with nodes(postgres(NEWEST).clean()) as n:
        run = (await n["a"].start("plain", b'"long"', StartOptions(id=name_in(EVEN)))).run
        with trio.fail_after(10):
            for count, (owner, other) in enumerate(("ab", "ba", "ab"), 1):
                while len(traffic.world.fences) < count:  # noqa: ASYNC110 -- a step at any node
                    await trio.sleep(0.01)
                await n.move([run.shard], owner, other, 0.1)
            while len(traffic.world.fences) < 4:  # noqa: ASYNC110 -- a step at any node
                await trio.sleep(0.01)
        traffic.world.may_end.set()
        assert (await n["b"].result(run.run_id, 10)).status is Status.COMPLETED
    fences = traffic.world.fences
    assert fences == sorted(set(fences)), "each one higher than the one before"
