"""Leases in Redis when it, or the way to it, does what such things do: two never hold one lease, and none is left."""

from __future__ import annotations

from time import monotonic
from uuid import uuid4

import pytest
import trio

from cluster.redis_servers import link, proxied, until
from jivsd.cluster.leases import LeasesAway
from jivsd.proof.proxy import Cut, Proxy, Tap
from jivsd.proof.redisserver import Cluster, Watched

LEASE = 1.0
LONG = 10.0


def there(server, database):
    """The shards whose keys a server has."""
    found = server.ask("KEYS", f"jivsd:{{{database}:*")
    return {int(key.rpartition(":")[2].rstrip("}")) for key in found}


@pytest.fixture
def database():
    return uuid4().hex


async def until_held(leases, shards):
    """Ask until all are held; how often nothing was known meanwhile."""
    away = 0
    with trio.fail_after(20):
        while True:
            try:
                if await leases.hold(shards) == {*shards}:
                    return away
            except LeasesAway:
                away += 1
            await trio.sleep(0.02)


# ---- one server


async def test_redis_forgets_everything(redis, database):
    async with link(redis.url, database=database, lease=LONG) as one, link(redis.url, database=database) as two:
        await one.leases.hold([1, 2])
        redis.ask("FLUSHALL")
        redis.ask("SCRIPT", "FLUSH")
        assert await one.leases.hold([1]) == {1}
        assert await two.leases.hold([1, 2]) == {2}


@pytest.mark.slow
async def test_redis_is_killed_and_comes_back_empty(redis, database):
    async with link(redis.url, database=database) as one:
        await one.leases.hold([1, 2])
        redis.kill()
        try:
            with pytest.raises(LeasesAway, match=r"Redis at redis://127.0.0.1:\d+/0: .*onnect"):
                await one.leases.hold([1, 2, 3])
            assert one.leases.away.startswith("Redis at redis://")
            assert one.commands["failed"] > 0
            with pytest.raises(LeasesAway):
                await one.leases.holders([1])
            with pytest.raises(LeasesAway):
                await one.leases.release([2])
        finally:
            redis.start()
        began = monotonic()
        await until_held(one.leases, [1])
        assert one.leases.away is None
        assert monotonic() - began < 2 * LEASE, "progress within two leases"
        await trio.sleep(0.2)
        assert there(redis, database) == {1}


@pytest.mark.slow
async def test_redis_stands_still_and_does_later_what_it_was_asked(redis, database):
    async with link(redis.url, database=database) as one:
        await one.leases.hold([1])
        redis.pause()
        began = monotonic()
        try:
            with pytest.raises(LeasesAway, match="does not answer in time"):
                await one.leases.hold([1, 2])
            assert monotonic() - began < LEASE
        finally:
            redis.resume()
        await until(lambda: there(redis, database) == {1} or monotonic() - began > LEASE)
        assert await one.leases.hold([1]) == {1}
        assert there(redis, database) == {1}, "2 was given up, 1 was not"


async def test_a_connection_that_was_idle_was_closed(redis, database):
    async with link(redis.url, database=database) as one:
        await one.leases.hold([1])
        redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await one.leases.hold([1]) == {1}


# ---- the way to it


class LosesAnswers(Tap):
    """Lets questions through, and ends the connection instead of handing on an answer, once it is told to."""

    losing = False

    def answered(self, data):
        if LosesAnswers.losing:
            LosesAnswers.losing = False
            raise Cut
        return data


async def test_an_answer_is_lost(redis, database):
    proxy = Proxy(("127.0.0.1", redis.port), LosesAnswers)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        async with link(f"redis://127.0.0.1:{proxy.port}", database=database, lease=LONG) as one:
            await one.leases.hold([0])
            LosesAnswers.losing = True
            assert await one.leases.hold([1, 2]) == {1, 2}, "it was asked twice, and holds it"
            assert not LosesAnswers.losing
            LosesAnswers.losing = True
            await one.leases.release([1])
            assert there(redis, database) == {0, 2}
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_question_that_arrives_late_takes_nothing(redis, database):
    async with proxied(redis) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with link(url, database=database, lease=2) as one:
            assert await one.leases.hold([1]) == {1}
            early = proxy.links
            for carried in early:
                carried.hold()
            with pytest.raises(LeasesAway):
                await one.leases.hold([1, 2, 3])
            await one.leases.release([3])  # over the next connection
            for carried in early:
                carried.release()
            await until(lambda: len({*early} & {*proxy.links}) == 1)  # where messages come in
            assert there(redis, database) == {1}


async def test_the_way_is_cut_and_comes_back(redis, database):
    async with proxied(redis) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with link(url, database=database, lease=LONG) as one:
            await one.leases.hold([1])
            proxy.refusing = True
            proxy.cut()
            with pytest.raises(LeasesAway):
                await one.leases.hold([1, 2])
            proxy.refusing = False
            await until_held(one.leases, [1])
            await until(lambda: there(redis, database) == {1})


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.025, 0.3, 1.0])
async def test_answers_come_late(redis, database, delay):
    async with proxied(redis) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with link(url, database=database) as one, link(redis.url, database=database) as two:
            await one.leases.hold([1])
            proxy.delay = delay
            asked = monotonic()
            try:
                held = await one.leases.hold([1, 2])
            except LeasesAway:
                held = set()
            assert held == ({1, 2} if delay < LEASE / 4 else set())
            answered = monotonic()
            assert answered - asked < LEASE
            while monotonic() < asked + LEASE - 0.1:
                assert not held & await two.leases.hold([1, 2]), "what is trusted is held by nobody else"
                await trio.sleep(0.01)
            proxy.delay = 0.0
            await two.leases.release([1, 2])
            await until_held(one.leases, [1, 2])


# ---- Sentinel and Cluster


@pytest.mark.slow
async def test_sentinel_promotes_the_replica_of_a_primary_that_was_killed(database):
    with Watched() as watched:
        async with link(watched.url, database=database) as one, link(watched.url, database=database) as two:
            assert await one.leases.hold([1]) == {1}
            before = watched.primary()
            before.kill()
            assert await until_held(one.leases, [1, 2]) > 0
            assert watched.primary() is not before
            assert await two.leases.hold([1, 2, 3]) == {3}


@pytest.mark.slow
async def test_sentinel_changes_the_primary_while_we_are_connected(database):
    with Watched(password="secret", down_after=30) as watched:  # or else a busy machine promotes the replica before
        async with link(watched.url, database=database, lease=LONG) as one:
            await one.leases.hold([1])
            before = watched.primary()
            await trio.to_thread.run_sync(watched.fail_over)

            async def moved():
                await one.leases.hold([2])
                return there(watched.primary(), database) == {1, 2}

            await until(moved)
            assert before.ask("ROLE")[0] == "master", "it does not know yet that it is none: Sentinel does"


@pytest.mark.slow
async def test_a_cluster_promotes_the_replica_of_a_node_that_was_killed(database):
    with Cluster(replicas=1) as cluster:
        async with link(cluster.url, database=database) as one:
            shards = range(30)
            assert await one.leases.hold(shards) == {*shards}
            cluster.nodes[0].kill()
            assert await until_held(one.leases, shards) > 0
            assert cluster.replicas[0].ask("ROLE")[0] == "master"
            await one.leases.release(shards)
            assert await one.leases.holders(shards) == {}


@pytest.mark.slow
async def test_slots_go_to_another_node(redis_cluster, database):
    async with link(redis_cluster.url, database=database, lease=LONG) as one:
        shards = range(30)
        await one.leases.hold(shards)
        redis_cluster.fail_over()
        await until_held(one.leases, shards)
        assert {*await one.leases.holders(shards)} == {*shards}


async def test_a_slot_is_on_its_way(redis_cluster, database):
    cluster = redis_cluster
    slots = {shard: cluster.nodes[1].ask("CLUSTER", "KEYSLOT", f"{{{database}:{shard}}}") for shard in range(30)}
    source, target = cluster.nodes[1:]
    shard, slot = next((shard, slot) for shard, slot in slots.items() if cluster.owner_of(slot) is source)
    async with link(cluster.url, database=database, lease=LONG) as one:
        await one.leases.hold([])
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
        try:
            assert await one.leases.hold(range(30)) == {*range(30)}
            assert shard in await one.leases.holders([shard])
            await one.leases.release(range(30))
            assert await one.leases.holders(range(30)) == {}
        finally:
            for node in (source, target):
                node.ask("CLUSTER", "SETSLOT", slot, "STABLE")


@pytest.mark.slow
async def test_a_node_of_a_cluster_stands_still(redis_cluster, database):
    async with link(redis_cluster.url, database=database, lease=LEASE) as one:
        await one.leases.hold(range(30))
        redis_cluster.nodes[1].pause()
        try:
            began = monotonic()
            with pytest.raises(LeasesAway):
                await one.leases.hold(range(30))
            assert monotonic() - began < LEASE
        finally:
            redis_cluster.nodes[1].resume()
        await until_held(one.leases, range(30))
