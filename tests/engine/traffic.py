"""Several engines in one process that share a PostgreSQL database, as several nodes would; and workflows for them."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio

from jivsd import NO_RETRY, Context, StepContext, query, signal, step, update, workflow
from jivsd.engine.engine import Engine
from jivsd.records import SHARDS, shard_of
from jivsd.store.postgres import PostgresStore
from jivsd.testing.env import registry_of

here = sys.modules[__name__]


class World:
    """What steps have done, and what they wait for."""

    def __init__(self):
        self.attempts = []
        self.fences = []
        self.may_end = trio.Event()


world = World()


@step(retry=NO_RETRY)
async def work(ctx: StepContext, what: str) -> str:
    world.attempts.append(what)
    world.fences.append(ctx.fence)
    if "beats" in what:
        ctx.heartbeat(1)
    if what.startswith("long"):
        await world.may_end.wait()
    return what.upper()


@step(retry=NO_RETRY, on_exhausted="incident")
async def doubtful(ctx: StepContext) -> str:
    raise ValueError("no")


@workflow("plain")
async def plain(ctx: Context, what: str) -> str:
    return await ctx.step(work, what)


@workflow("listener")
class Listener:
    said: tuple[str, ...] = ()

    @signal
    def say(self, word: str) -> None:
        self.said = (*self.said, word)

    @query
    def heard(self) -> int:
        return len(self.said)

    @update
    def swap(self, word: str) -> str:
        before, self.said = self.said[-1], (*self.said[:-1], word)
        return before

    async def run(self, ctx: Context, words: int) -> list[str]:
        await ctx.wait_until(lambda: len(self.said) >= words)
        return list(self.said)


@workflow("family")
async def family(ctx: Context, names: list[str]) -> list[str]:
    async with ctx.nursery("children") as nursery:
        jobs = [nursery[name].start_soon(plain.options(id=f"child-{name}"), name) for name in names]
    return [job.result for job in jobs]


@workflow("holds")
async def holds(ctx: Context) -> str:
    return await ctx.step(doubtful)


@workflow("locked", lock_key="the key")
async def locked(ctx: Context, what: str) -> str:
    return await ctx.step(work, what)


class Nodes:
    """The engines by name. `calls`: whether they tell one another what there is to do."""

    def __init__(self, url, calls):
        self.url = url
        self.calls = calls
        self.engines = {}
        self.stack = AsyncExitStack()

    def __getitem__(self, name):
        return self.engines[name]

    async def join(self, name, **options):
        store = await self.stack.enter_async_context(PostgresStore(self.url))
        await store.open(name, share=True)
        await store.sharing.beat(60, by="postgresql", leaving=False, full=False)
        registry = registry_of([here])
        for plugin in registry.plugins:
            await store.put_plugin(plugin.stored)
        engine = self.engines[name] = Engine(store, registry, node=name, epoch=None, threads=2, **options)
        engine.calling.tell = partial(self._tell, name)
        await self.nursery.start(engine.run)
        return engine

    def _tell(self, teller, shard, body):
        for name, engine in self.engines.items():
            if self.calls and name != teller and (shard is None or shard in engine.holding.shards):
                engine.calling.heard(body)

    async def give(self, name, shards):
        """Let a node have some shards that nobody has."""
        sharing = self[name].store.sharing
        owners = {owner.shard: owner.epoch for owner in (await sharing.view()).owners}
        self[name].holding.take(await sharing.claim({shard: owners[shard] for shard in shards}))

    async def move(self, shards, source, target, grace=1.0):
        """Let shards be handed over."""
        epochs = {shard: self[source].committer.epochs[shard] for shard in shards}
        gone = await self[source].holding.hand_over(shards, grace)
        await self[source].store.sharing.release({shard: epochs[shard] for shard in gone})
        await self.give(target, gone)
        return gone

    async def seize(self, shards, name):
        """Let a node take shards from another one that does not know of it."""
        await self.give(name, shards)


@asynccontextmanager
async def nodes(url, *, calls=True):
    """Two nodes, a and b: a has the even shards, b the odd ones."""
    global world
    world = World()
    several = Nodes(url, calls)
    async with several.stack, trio.open_nursery() as several.nursery:
        await several.join("a")
        await several.join("b")
        await several.give("a", range(0, SHARDS, 2))
        await several.give("b", range(1, SHARDS, 2))
        yield several
        world.may_end.set()
        for engine in several.engines.values():
            await engine.stop(1)


def name_in(shards, start=0):
    """A workflow id of one of some shards."""
    number = start
    while shard_of(f"w{number}") not in shards:
        number += 1
    return f"w{number}"


EVEN, ODD = range(0, SHARDS, 2), range(1, SHARDS, 2)
