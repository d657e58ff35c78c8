"""While Redis keeps what it was told, no two nodes ever trust the lease of one shard, whatever happens on the way."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from time import monotonic
from uuid import uuid4

import pytest
import trio

from cluster.redis_servers import link, proxied, until
from jivsd.cluster.leases import LeasesAway

LEASE = 0.6
SHARDS = range(6)


class Trust:
    """Who trusts the lease of which shard until when."""

    def __init__(self):
        self.held = {}
        self.last = {}
        self.changes = 0

    def now(self, node, shards, until):
        for shard in shards:
            other, end = self.held.get(shard, (node, 0.0))
            assert other == node or end <= monotonic(), f"{node} and {other} both trust {shard}"
            self.changes += self.last.get(shard) != node
            self.last[shard] = node
            self.held[shard] = (node, until)

    def ends(self, node, shards):
        for shard in shards:
            if self.held.get(shard, ("", 0.0))[0] == node:
                del self.held[shard]


async def live(node, leases, trust, random, proxy):
    """Take, renew and release at random, be cancelled, and have one's way to Redis broken."""
    while True:
        some = random.sample(SHARDS, random.randint(1, 4))
        if random.random() < 0.4:
            trust.ends(node, some)  # before it is given up
            with trio.move_on_after(random.random() * 0.1):
                with suppress(LeasesAway):
                    await leases.release(some)
        asked = monotonic()
        with trio.move_on_after(random.choice((0.002, 0.02, 5))):
            try:
                held = await leases.hold(some)
            except LeasesAway:
                pass
            else:
                trust.now(node, held, asked + LEASE)
                trust.ends(node, {*some} - held)
        proxy.delay = random.choice((0, 0, 0, 0, 0, 0, 0.01, 0.05, 0.3))
        match random.randint(0, 40):
            case 0:
                proxy.cut()
            case 1:
                for carried in proxy.links:
                    carried.cut_after(random.randint(0, 300))
            case 2:
                proxy.hold()
                await trio.sleep(random.random() * LEASE)
                proxy.release()
            case 3:
                for carried in proxy.links:
                    carried.hold()
        await trio.sleep(random.random() * 0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "seed"), [(3, 1), pytest.param(60, None, marks=[pytest.mark.soak, pytest.mark.timeout(120)])]
)
async def test_a_lease_is_trusted_by_one(redis, seconds, seed):
    seed = Random().randrange(1 << 30) if seed is None else seed
    database, trust = uuid4().hex, Trust()

    async def node(name):
        async with proxied(redis) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with link(url, database=database, node=name, lease=LEASE) as one:
                await live(name, one.leases, trust, Random(f"{seed} {name}"), proxy)

    async def pause():
        random = Random(seed)
        while True:
            await trio.sleep(random.random() * 2)
            redis.pause()
            try:
                await trio.sleep(random.random() * LEASE)
            finally:
                redis.resume()

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(node, name)
            nursery.start_soon(pause)
    assert trust.changes > seconds, seed
    async with link(redis.url, database=database, node="d", lease=LEASE) as late:

        async def all_are_free():
            return await late.leases.hold(SHARDS) == {*SHARDS}

        began = monotonic()
        await until(all_are_free)
        assert monotonic() - began < 2 * LEASE
