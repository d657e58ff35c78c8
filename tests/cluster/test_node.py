"""Nodes among others: joining, leaving, dying, cut off from Redis or from the database. The clock jumps."""

from __future__ import annotations

from collections import Counter
from math import inf
from random import Random

import pytest
import trio

from cluster.worlds import world
from jivsd.cluster.keeping import Times
from jivsd.store.api import StoreError
from jivsd.store.sharing import POSTGRESQL, REDIS, NameTaken

pytestmark = pytest.mark.jump


@pytest.fixture(params=[True, False], ids=["with Redis", "by PostgreSQL alone"])
def with_redis(request):
    return request.param


async def test_those_who_join_get_a_part_and_no_shard_moves_that_need_not(with_redis):
    async with world("a", with_redis=with_redis) as w:
        assert w.shares() == {"a": 12}
        await w.start("b")
        took = await w.within(3, w.even)
        assert w.shares() == {"a": 6, "b": 6}
        await w.start("c")
        await w.within(3, w.even)
        assert took < 1
        assert sum(w.database.moves.values()) == 6 + 4
        await trio.sleep(60)
        assert sum(w.database.moves.values()) == 6 + 4
        assert w.daemons["a"].by == (REDIS if with_redis else POSTGRESQL)
        assert w.daemons["b"].metrics.leases_held.value == 4


async def test_who_leaves_hands_over_everything_and_is_gone(with_redis):
    async with world("a", "b", "c", with_redis=with_redis) as w:
        b = w.daemons["b"]
        w.nursery.start_soon(b.stop)
        await trio.sleep(1)
        assert w.shares() == {"a": 6, "b": 0, "c": 6}
        await b.gone.wait()
        assert set(w.database.rows) == {"a", "c"}
        assert (b.metrics.lease_lost.value, b.shards.lost) == (0, set())
        await w.daemons["a"].stop()
        assert w.shares() == {"c": 12}
        c = w.daemons["c"]
        c.shards.order.clear()
        await c.stop()
        assert w.database.rows == {}
        assert c.shards.order == [], "nobody is there who takes it: it is not handed over, but given up"
        assert {owner.node for owner in w.database.owners.values()} == {""}
        assert w.redis._held == {}


@pytest.mark.parametrize("times", [Times(), Times(1.0, 4.0, 1.0)], ids=["default", "short"])
async def test_a_dead_node_is_taken_over(with_redis, times):
    async with world("a", "b", "c", with_redis=with_redis, times=times) as w:
        await trio.sleep(1.7)
        w.daemons["b"].kill()
        took = await w.within(30, w.even)
        assert took < (2 * times.lease if with_redis else times.postgresql_lease + 1)
        assert set(w.database.moves.values()) == {1}
        w.daemons["a"].kill()
        await w.within(30, w.even)
        assert w.shares() == {"c": 12}


async def test_a_node_that_is_started_again_under_its_name_takes_its_shards_back():
    async with world("a", "b") as w:
        w.daemons["b"].kill()
        del w.database.rows["b"]  # a new opening of the database sees that it is dead
        before = dict(w.database.owners)
        await w.start("b")
        assert await w.within(30, w.even) < 10
        assert sum(w.database.moves.values()) <= 12
        assert {owner.node for owner in before.values()} == {"a", "b"}


async def test_flushall_moves_no_shard():
    async with world("a", "b", "c", times=Times(1.0, 4.0, 1.0)) as w:
        for _ in range(50):
            w.flush()
            await trio.sleep(0.73)
        assert w.even()
        assert not w.database.moves


async def test_nothing_moves_when_redis_goes_for_good_and_when_it_comes_back():
    async with world("a", "b", "c") as w:
        lines = [daemon.line for daemon in w.daemons.values()]
        for line in lines:
            line.away = True
        await trio.sleep(4)
        assert [daemon.by for daemon in w.daemons.values()] == [POSTGRESQL] * 3
        await trio.sleep(100)
        w.flush()
        assert w.even()
        assert not w.database.moves
        d = await w.start("d")
        d.line.away = True
        await w.within(3, w.even)
        assert d.by == POSTGRESQL
        w.daemons["a"].kill()
        assert await w.within(30, w.even) > 15
        w.database.moves.clear()
        for line in [*lines, d.line]:
            line.away = False
        await trio.sleep(4)
        assert [daemon.by for daemon in w.daemons.values()] == [REDIS] * 3
        await trio.sleep(60)
        assert not w.database.moves


async def test_one_node_that_cannot_reach_redis_keeps_its_shards():
    async with world("a", "b") as w:
        w.daemons["b"].line.away = True
        for _ in range(20):
            await trio.sleep(3)
            w.flush()
        assert (w.daemons["a"].by, w.daemons["b"].by) == (REDIS, POSTGRESQL)
        assert w.even()
        assert not w.database.moves
        await w.start("c")
        await w.within(3, w.even)


@pytest.mark.parametrize("delay", [0.05, 0.5, 1.0, 1.3, 2.0])
async def test_late_answers_of_redis_move_nothing(delay):
    async with world("a", "b") as w:
        for daemon in w.daemons.values():
            daemon.line.delay = delay
        await trio.sleep(60)
        assert w.even()
        assert not w.database.moves
        await w.start("c")
        await w.within(10, w.even)


@pytest.mark.parametrize("way", ["cut", "deaf", "mute"])
async def test_a_node_that_cannot_reach_the_database_stops_by_itself_before_others_take_over(with_redis, way):
    async with world("a", "b", with_redis=with_redis) as w:
        a, b = w.daemons.values()
        await trio.sleep(2.5)  # between two renewals
        getattr(w.database, way).add("b")
        await w.within(18.5, lambda: not b.shards.living)
        assert len(b.shards.lost) == b.metrics.lease_lost.value == 6
        assert w.shares()["a"] == 6
        await w.within(10 if way == "mute" else 5, lambda: len(a.shards.living) == 12)
        for nodes in (w.database.cut, w.database.deaf, w.database.mute):
            nodes.clear()
        await w.within(15, w.even)
        assert {"a", "b"} == {owner.node for owner in w.database.owners.values()}


async def test_idle_shards_go_first_and_steps_get_their_time():
    async with world("a") as w:
        a = w.daemons["a"]
        a.shards.steps = dict.fromkeys(range(9), 2.0)
        await w.start("b")
        await trio.sleep(1)
        assert w.shares() == {"a": 6, "b": 3}
        await w.within(3, w.even)
        assert a.shards.order[:3] == [9, 10, 11]
        a.shards.steps = {0: inf, **dict.fromkeys(a.shards.living, 9.0)}
        a.shards.steps[next(iter(a.shards.living))] = inf
        w.nursery.start_soon(a.stop)
        await trio.sleep(3.8)
        assert w.shares() == {"a": 1, "b": 11}, "a step that does not end keeps its shard"
        await a.gone.wait()
        await w.within(3, w.even)
        assert w.shares() == {"b": 12}


async def test_a_shard_with_a_step_that_does_not_end_rests_seldom_and_others_go_instead():
    async with world("a") as w:
        a = w.daemons["a"]
        a.shards.steps = dict.fromkeys(range(8), inf)
        await w.start("b")
        await trio.sleep(40)
        assert w.shares()["b"] == 4
        assert max(Counter(a.shards.tried).values()) <= 2, "whatever else lives there could not get on"
        a.shards.steps = dict.fromkeys(range(6), inf)
        await w.within(40, w.even)


async def test_a_hand_over_ends_when_the_shards_are_lost_meanwhile():
    async with world("a") as w:
        a = w.daemons["a"]
        a.shards.steps = dict.fromkeys(range(12), 3.0)
        await w.start("b")
        await trio.sleep(1)
        assert len(a.keeper.moving) == 6
        w.database.owners |= {
            shard: owner._replace(node="x", epoch=9)
            for shard, owner in w.database.owners.items()
            if shard in a.keeper.moving
        }
        await trio.sleep(0.6)
        assert len(a.shards.living) == 6
        assert len(a.shards.lost) == 6
        await w.within(5, lambda: len(w.daemons["b"].shards.living) == 6)


async def test_what_the_journal_says_counts_at_once():
    async with world("a", "b") as w:
        a = w.daemons["a"]
        shard = next(iter(a.shards.living))
        epoch = w.database.owners[shard].epoch
        w.database.owners[shard] = w.database.owners[shard]._replace(node="x", epoch=epoch + 1)
        a.shards.on_fenced(shard)
        assert shard not in a.keeper.held
        assert a.shards.lost == {shard}
        await w.within(1, w.even)


async def test_who_owns_a_shard_and_who_is_full_is_known():
    async with world("a", "b") as w:
        a, b = w.daemons.values()
        b.keeper._full = lambda: True
        await trio.sleep(1.1)
        assert {a.node.owner(shard) for shard in b.shards.living} == {"b"}
        assert {a.node.owner(shard) for shard in a.shards.living} == {"a"}
        assert (a.node.is_full("b"), a.node.is_full("a")) == (True, False)


async def test_a_node_that_may_claim_nothing_is_not_counted_on():
    async with world("a", "b") as w:
        b = w.daemons["b"]
        original = b.keeper._sharing.claim

        async def refuse(shards):
            raise StoreError("the clock of node b is 3.0 s behind the database's")

        b.keeper._sharing.claim = refuse
        await trio.sleep(60)
        assert w.even(), "what it has it keeps, until it finds out"
        await w.start("c")
        await w.within(3, w.even)
        w.daemons["c"].kill()
        await w.within(12, lambda: w.shares() == {"a": 12, "b": 0})
        w.database.moves.clear()
        await trio.sleep(60)
        assert not w.database.moves
        b.keeper._sharing.claim = original
        await w.within(10, w.even)


async def test_a_second_node_of_one_name_ends_and_the_first_one_stays():
    with pytest.raises(ExceptionGroup) as caught:
        async with world("a") as w:
            second = await w.start("a")
            await second.gone.wait()
    assert caught.group_contains(NameTaken)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_in_the_end_all_shards_live_somewhere_and_evenly(seed):
    random = Random(seed)
    times = Times(1.0, 4.0, 1.0)
    async with world("a", "b", with_redis=seed % 3 > 0, times=times) as w:
        stopping = set()
        for _ in range(40):
            name = random.choice("abcdef")
            daemon = w.daemons.get(name)
            match random.choice(["start", "start", "stop", "kill", "cut", "heal", "redis", "slow", "flush", "busy"]):
                case "start" if daemon is None:
                    w.database.rows.pop(name, None)
                    await w.start(name)
                case "stop" if daemon is not None and name not in stopping:
                    stopping.add(name)
                    w.nursery.start_soon(_stop, daemon, stopping)
                case "kill" if daemon is not None and name not in stopping and len(w.daemons) > 1:
                    daemon.kill()
                case "cut":
                    w.database.cut.add(name)
                case "heal":
                    w.database.cut.clear()
                case "redis" if daemon is not None and daemon.line:
                    daemon.line.away = not daemon.line.away
                case "slow" if daemon is not None and daemon.line:
                    daemon.line.delay = random.choice([0, 0.1, 0.4, 1])
                case "flush":
                    w.flush()
                case "busy" if daemon is not None:
                    daemon.shards.steps = {random.randrange(12): random.random() * 2 for _ in range(4)}
            await trio.sleep(random.random() * random.choice([0.1, 1, 3]))
        await w.within(30, lambda: not stopping)
        w.database.cut.clear()
        for daemon in w.daemons.values():
            daemon.shards.steps = {}
            if daemon.line:
                daemon.line.away, daemon.line.delay = False, 0
        if not w.daemons:
            await w.start("a")
        await w.within(3 * times.postgresql_lease, w.even)
        w.database.moves.clear()
        await trio.sleep(20)
        assert w.even()
        assert not w.database.moves


async def _stop(daemon, stopping):
    await daemon.stop()
    stopping.discard(daemon.name)
