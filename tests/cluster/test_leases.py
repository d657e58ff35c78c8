"""What every way to keep leases does: one suite for all.

A backend is a class with `holder(token, lease)`, an async context manager of somebody's leases, all of one database;
`pass_lease()`, which returns when what was held before the call for `LEASE` and not renewed has ended; and `at_rest()`,
which returns when nothing is done in the background.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from random import Random
from uuid import uuid4

import pytest
import trio

from cluster.redis_servers import link, until
from jivsd.cluster.leases import InProcess
from jivsd.proof.redisserver import Watched

LEASE = 0.5
LONG = 10.0
"""A lease for tests in which none ends, so that a slow machine does not end one, nor time hide what was left behind."""


class OneProcess:
    """In this process, on a clock that the tests move."""

    def __init__(self, _):
        self.now = 0.0
        self.common = InProcess(LEASE, now=lambda: self.now)

    @asynccontextmanager
    async def holder(self, token, lease):
        assert lease in (LEASE, LONG)
        yield self.common.holder(token)

    async def pass_lease(self):
        self.now += LEASE

    async def at_rest(self):
        pass


class InRedis:
    """In one Redis server."""

    def __init__(self, request):
        self.database = uuid4().hex
        self.server = request.getfixturevalue("redis")
        self.url = self.server.url
        self.links = []

    @asynccontextmanager
    async def holder(self, token, lease):
        async with link(self.url, database=self.database, token=token, lease=lease) as made:
            self.links.append(made)
            yield made.leases

    async def pass_lease(self):
        await trio.sleep(LEASE + 0.01)

    async def at_rest(self):
        """Return when nothing is done in the background but to listen."""
        for one in self.links:
            await one.leases.settle()  # comes after all that was asked for before
        await until(lambda: all(one._bridge.under_way == 0 and len(one._bridge._tasks) == 1 for one in self.links))


class BehindSentinel(InRedis):
    """In a primary that a Sentinel knows."""

    def __init__(self, request):
        self.database = uuid4().hex
        self.url = request.getfixturevalue("watched").url
        self.links = []


class InCluster(InRedis):
    """In a Redis Cluster."""

    def __init__(self, request):
        self.database = uuid4().hex
        self.url = request.getfixturevalue("redis_cluster").url
        self.links = []


BACKENDS = [OneProcess, InRedis, BehindSentinel, InCluster]


@pytest.fixture(scope="module")
def watched():
    with Watched(password="secret", down_after=30) as servers:
        yield servers


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def backend(request):
    return request.param(request)


@asynccontextmanager
async def holders(backend, *tokens, lease=LEASE):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(backend.holder(token, lease)) for token in tokens]


async def test_a_shard_has_one_holder(backend):
    async with holders(backend, "one", "two", lease=LONG) as (one, two):
        assert one.lease in (LEASE, LONG)
        assert await one.hold([1, 2, 3]) == {1, 2, 3}
        assert await two.hold([3, 4]) == {4}
        assert await one.hold([4]) == set()
        assert await two.holders(range(6)) == {1: "one", 2: "one", 3: "one", 4: "two"}


async def test_to_hold_again_is_to_renew(backend):
    async with holders(backend, "one", "two") as (one, two):
        for _ in range(3):
            assert await one.hold([7]) == {7}
        await backend.pass_lease()
        assert await one.hold([7]) == {7}
        assert await two.hold([7]) == set()


@pytest.mark.slow
async def test_a_lease_that_is_not_renewed_ends(backend):
    async with holders(backend, "one", "two") as (one, two):
        await one.hold([7, 8])
        await backend.pass_lease()
        assert await two.holders([7, 8]) == {}
        assert await two.hold([7]) == {7}
        assert await one.hold([7, 8]) == {8}


async def test_what_is_released_is_free_at_once(backend):
    async with holders(backend, "one", "two", lease=LONG) as (one, two):
        await one.hold([1, 2])
        await one.release([1, 5])
        assert await two.hold([1, 2]) == {1}


async def test_only_who_holds_it_can_release_it(backend):
    async with holders(backend, "one", "two") as (one, two):
        await one.hold([1])
        await two.release([1])
        await backend.pass_lease()
        await two.hold([1])
        await one.release([1])
        assert await one.holders([1]) == {1: "two"}


async def test_none_at_all(backend):
    async with holders(backend, "one", lease=LONG) as (one,):
        assert await one.hold([]) == set()
        assert await one.holders([]) == {}
        await one.release([])


async def test_very_many_in_one_call(backend):
    async with holders(backend, "one", lease=LONG) as (one,):
        every = range(500)
        assert await one.hold(every) == {*every}
        assert await one.holders(every) == dict.fromkeys(every, "one")
        await one.release(every)
        assert await one.holders(every) == {}


async def test_databases_do_not_meet(request, backend):
    other = type(backend)(request)
    async with holders(backend, "one") as (one,), holders(other, "two") as (two,):
        assert await one.hold([1]) == {1}
        assert await two.hold([1]) == {1}


@pytest.mark.slow
async def test_who_is_cancelled_holds_nothing_afterwards(backend):
    random = Random(5)
    async with holders(backend, "kept", "one", "two", lease=LONG) as (kept, *others):
        await kept.hold([0])
        shards = count(1)

        async def be_cancelled(leases):
            for _ in range(500):
                mine = [0, *(next(shards) for _ in range(3))]
                with trio.CancelScope() as scope:
                    if random.random() < 0.7:
                        scope.deadline = trio.current_time() + random.random() * 0.002
                    else:
                        scope.cancel()
                    await leases.hold(mine)
                if not scope.cancelled_caught:
                    await leases.release(mine)
                if random.random() < 0.02:
                    assert await kept.hold([0]) == {0}

        async with trio.open_nursery() as nursery:
            for leases in others:
                nursery.start_soon(be_cancelled, leases)
        await backend.at_rest()
        before = await kept.hold([0])
        assert before == {0}
        assert await kept.holders(range(next(shards))) == {0: "kept"}
        for leases in others:
            with trio.CancelScope() as scope:
                scope.cancel()
                await leases.hold([0])
        assert await kept.hold([0]) == {0}


async def test_who_is_cancelled_keeps_what_was_held(backend):
    async with holders(backend, "one", lease=LONG) as (one,):
        await one.hold([1])
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.hold([1, 2])
        await backend.at_rest()
        assert await one.holders([1, 2]) == {1: "one"}
