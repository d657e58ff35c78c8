"""Several nodes in one process, on a clock that jumps: real controllers on a database and a Redis without servers."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import trio

from cluster.sharings import Database
from jivsd.cluster.keeping import Keeper, Times
from jivsd.cluster.leases import InProcess, LeasesAway
from jivsd.cluster.node import NUDGE, Node
from jivsd.metrics import Metrics


class Shards:
    """Where shards live, instead of an engine: none has anything to bring back."""

    def __init__(self):
        self.on_fenced = lambda shard: None
        self.living = {}
        """Shards to epochs."""
        self.steps = {}
        """Shards to seconds that the step under way in each needs to end; inf: it ignores that."""
        self.lost = set()
        self.order = []
        """Shards in the order in which they were let go."""
        self.tried = []
        """Shards in the order in which they were to be let go."""

    def take(self, epochs):
        assert not epochs.keys() & self.living.keys()
        self.living |= epochs

    async def hand_over(self, shards, grace):
        going = {shard: self.living.pop(shard) for shard in shards}
        self.tried += going
        gone = set()
        try:
            await trio.sleep(max([min(self.steps.get(shard, 0), grace) for shard in going], default=0))
            gone = {shard for shard in going if self.steps.get(shard, 0) < 1000}
            self.order += sorted(gone)
        finally:
            self.living |= {shard: epoch for shard, epoch in going.items() if shard not in gone}
        return gone

    def lose(self, shards):
        self.lost |= set(shards)
        for shard in shards:
            self.living.pop(shard, None)

    def busy(self):
        return Counter(dict.fromkeys(self.steps, 1))


class Line:
    """One node's way to Redis: cut, or slow."""

    def __init__(self, inner):
        self.inner = inner
        self.away = False
        self.delay = 0.0

    @property
    def lease(self):
        return self.inner.lease

    def __getattr__(self, name):
        async def ask(shards):
            await trio.sleep(self.delay / 2)
            if self.away:
                raise LeasesAway("Redis does not answer")
            answer = await getattr(self.inner, name)(shards)
            await trio.sleep(self.delay / 2)
            return answer

        return ask


class Daemon:
    """One node."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.shards = Shards()
        self.metrics = Metrics()
        self.line = Line(world.redis.holder(f"{name}-{world.count()}")) if world.with_redis else None
        sharing = world.database.sharing(name)
        now = trio.current_time
        bus = world.redis.bus(name, lambda body: self.node.wake())
        self.keeper = Keeper(name, sharing, self.shards, self.line, world.times, metrics=self.metrics, now=now)
        nudge = partial(bus.tell, None, NUDGE)
        self.node = Node(self.keeper, sharing, self.shards, world.times, nudge=nudge, now=now)
        self.scope = trio.CancelScope()
        self.gone = trio.Event()

    async def run(self):
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.keeper.run)
                    await nursery.start(self.node.run)
        finally:
            self.gone.set()

    async def stop(self):
        """SIGTERM."""
        self.node.drain()
        await trio.sleep(self.world.times.handover + 1)
        self.shards.living.clear()  # the engine has ended, too
        self.keeper.end()
        await self.gone.wait()
        del self.world.daemons[self.name]

    def kill(self):
        """kill -9."""
        self.world.redis.heard.pop(self.name, None)
        self.scope.cancel()
        del self.world.daemons[self.name]

    @property
    def by(self):
        return self.world.database.rows[self.name][3]


class World:
    """A database, perhaps a Redis, and nodes."""

    def __init__(self, nursery, *, with_redis, times, shards):
        self.nursery = nursery
        self.with_redis = with_redis
        self.times = times
        self.database = Database(trio.current_time, shards)
        self.redis = InProcess(times.lease)
        self.daemons = {}
        self._number = 0

    def count(self):
        self._number += 1
        return self._number

    async def start(self, name):
        daemon = self.daemons[name] = Daemon(self, name)
        self.nursery.start_soon(daemon.run)
        return daemon

    def flush(self):
        """FLUSHALL."""
        self.redis._held.clear()

    def shares(self):
        """How many shards live on each node. Each lives on one at most, and nothing lives where it is not owned."""
        found = {name: set(daemon.shards.living) for name, daemon in self.daemons.items()}
        assert sum(map(len, found.values())) == len(set().union(*found.values())), "a shard lives twice"
        for shard, owner in self.database.owners.items():
            for name, living in found.items():
                assert shard not in living or owner.node == name
        return {name: len(living) for name, living in found.items()}

    def even(self):
        shares = self.shares().values()
        return sum(shares) == len(self.database.owners) and max(shares) - min(shares) <= 1

    async def within(self, seconds, check):
        """Return how long it took until `check()` was true."""
        started = trio.current_time()
        while not check():
            assert trio.current_time() - started <= seconds, f"not within {seconds} s"
            await trio.sleep(0.05)
        return trio.current_time() - started


@asynccontextmanager
async def world(*names, with_redis=True, times=None, shards=12):
    """Nodes that share evenly and are at rest."""
    async with trio.open_nursery() as nursery:
        w = World(nursery, with_redis=with_redis, times=times or Times(), shards=shards)
        for name in names:
            await w.start(name)
        if names:
            await w.within(3, w.even)
            w.database.moves.clear()
        yield w
        nursery.cancel_scope.cancel()
