"""How nodes call each other: to whom a message goes, what happens when the bus is away, and that nothing piles up."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic, sleep
from uuid import uuid4

import pytest
import trio
import trio.lowlevel

from cluster.redis_servers import PATIENCE, link, proxied, until
from cluster.sharings import Database, MemorySharing
from cluster.worlds import Shards
from jivsd.cluster.keeping import Times
from jivsd.cluster.leases import InProcess
from jivsd.cluster.membership import Membership
from jivsd.cluster.node import NUDGE
from jivsd.cluster.redis import bus as redis_bus
from jivsd.cluster.redis.bus import ROOM
from jivsd.metrics import Metrics
from jivsd.proof.redisserver import Watched


class OneProcess:
    """In this process."""

    def __init__(self, _):
        self.common = InProcess(1.0)

    @asynccontextmanager
    async def joined(self, node, heard):
        yield self.common.bus(node, heard)


class InRedis:
    """In one Redis server."""

    servers = "redis"

    def __init__(self, request):
        self.database = uuid4().hex
        self.url = request.getfixturevalue(self.servers).url

    @asynccontextmanager
    async def joined(self, node, heard):
        async with link(self.url, database=self.database, node=node, heard=heard) as made:
            await until(lambda: made.bus.listening)
            yield made.bus


class BehindSentinel(InRedis):
    """In a primary that a Sentinel knows."""

    servers = "watched"


class InCluster(InRedis):
    """In a Redis Cluster."""

    servers = "redis_cluster"


@pytest.fixture(scope="module")
def watched():
    with Watched(password="secret", down_after=30) as servers:
        yield servers


@pytest.fixture(params=[OneProcess, InRedis, BehindSentinel, InCluster], ids=lambda backend: backend.__name__)
def backend(request):
    return request.param(request)


class Ear:
    """What a node has heard."""

    def __init__(self):
        self.heard = []

    def __call__(self, body):
        self.heard.append(body)


@asynccontextmanager
async def nodes(backend, *names):
    """For each name a bus, and what is heard there."""
    async with AsyncExitStack() as stack:
        ears = [Ear() for _ in names]
        buses = [await stack.enter_async_context(backend.joined(*pair)) for pair in zip(names, ears, strict=True)]
        yield (*buses, *(ear.heard for ear in ears))


async def test_a_message_goes_to_the_node_that_is_meant(backend):
    async with nodes(backend, "a", "b") as (a, b, heard_a, heard_b):
        a.tell("b", b"one")
        await until(lambda: heard_b == [b"one"])
        b.tell("a", b"\x00two\r\n")
        await until(lambda: heard_a == [b"\x00two\r\n"])
        a.tell("nobody", b"three")
        a.tell("a", b"four")
        await until(lambda: heard_a[1:] == [b"four"])
        assert heard_b == [b"one"]


async def test_a_message_for_everybody(backend):
    async with nodes(backend, "a", "b", "c") as (a, _b, _c, *heard):
        a.tell(None, b"all")
        await until(lambda: heard == [[b"all"]] * 3)


async def test_the_same_message_goes_once_when_it_is_told_in_one_turn(backend):
    async with nodes(backend, "a", "b") as (a, _b, _, heard):
        for _ in range(5):
            a.tell("b", b"look")
        a.tell("b", b"end")
        await until(lambda: b"end" in heard)
        await until(lambda: sorted(heard) == [b"end", b"look"])


async def test_databases_do_not_meet(request, backend):
    async with nodes(backend, "a") as (a, heard), nodes(type(backend)(request), "a") as (_, elsewhere):
        a.tell("a", b"one")
        a.tell(None, b"two")
        await until(lambda: sorted(heard) == [b"one", b"two"])
        assert elsewhere == []


class TellingSharing(MemorySharing):
    """The sharing of a database that has an id."""

    async def database(self):
        return "d"


async def test_a_node_that_is_called_before_it_has_begun_is_not_disturbed(redis):
    async def call(bus):
        while True:
            bus.tell("a", NUDGE)
            await trio.lowlevel.checkpoint()

    sharing = TellingSharing(Database(trio.current_time), "a")
    async with link(redis.url, database="d", node="b") as other, trio.open_nursery() as nursery:
        nursery.start_soon(call, other.bus)
        for _ in range(10):
            member = Membership(
                "a", sharing, Shards(), Times(), metrics=Metrics(), redis=redis.url, full=bool, heard=Ear()
            )
            async with member:
                pass
        nursery.cancel_scope.cancel()


# ---- when Redis is away


@pytest.fixture
def quick(monkeypatch):
    """Who gives no sign of life is found out soon."""
    monkeypatch.setattr(redis_bus, "BEAT", 0.1)


async def heard_again(buses, heard):
    """Wait until messages come through."""

    async def comes_through():
        buses[0].tell("b", b"ping")
        await trio.sleep(0.01)
        return b"ping" in heard

    heard.clear()
    await until(comes_through)


@pytest.mark.slow
async def test_redis_is_killed_and_comes_back(request, redis):
    async with nodes(InRedis(request), "a", "b") as (a, b, _, heard):
        redis.kill()
        await until(lambda: not a.listening and not b.listening)
        began = monotonic()
        for number in range(20 * ROOM):
            a.tell("b", b"%d" % number)
            b.tell(None, b"%d" % number)
        assert monotonic() - began < 2, "nobody waits"
        assert len(a._outgoing._pieces) <= ROOM
        redis.start()
        await until(lambda: a.listening and b.listening)
        await heard_again([a, b], heard)
        assert sum(piece != b"ping" for piece in heard) <= 2 * ROOM, "what was told long ago is forgotten"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
async def test_redis_stands_still(request, redis):
    async with nodes(InRedis(request), "a", "b") as (a, b, _, heard):
        redis.pause()
        try:
            for number in range(2 * ROOM):
                a.tell("b", b"%d" % number)
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
            await until(lambda: not a.listening and not b.listening)
            assert len(a._outgoing._pieces) <= ROOM
        finally:
            redis.resume()
        await until(lambda: a.listening and b.listening)
        await heard_again([a, b], heard)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
async def test_the_way_is_interrupted(redis):
    async with proxied(redis) as proxy:
        database = uuid4().hex
        url = f"redis://127.0.0.1:{proxy.port}"
        ear = Ear()
        async with (
            link(redis.url, database=database, node="a") as a,
            link(url, database=database, node="b", heard=ear) as b,
        ):
            await until(lambda: b.bus.listening)
            for break_it, mend_it in ((proxy.hold, proxy.release), (proxy.cut, lambda: None)):
                break_it()
                await until(lambda: not b.bus.listening)
                mend_it()
                await until(lambda: b.bus.listening)
                await heard_again([a.bus], ear.heard)


@pytest.mark.slow
async def test_the_only_node_of_a_cluster_that_the_url_names_is_killed(request, redis_cluster):
    connected = redis_cluster.nodes[1]
    backend = InCluster(request)
    backend.url = f"redis+cluster://127.0.0.1:{connected.port}"
    async with nodes(backend, "a", "b") as (a, b, _, heard):
        connected.kill()
        try:
            await until(lambda: a.listening and b.listening)
            await heard_again([a, b], heard)
        finally:
            connected.start()
            redis_cluster.wait_until_whole()


async def test_more_than_can_be_heard_is_dropped_not_kept(redis):
    database, ear = uuid4().hex, Ear()
    async with link(redis.url, database=database, node="a", heard=ear) as one:
        await until(lambda: one.bus.listening)
        script = "for number = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], number) end"
        redis.ask("EVAL", script, 1, f"jivsd:{database}:all", 10 * ROOM)
        come(one.bus._incoming._pieces, b"%d" % (10 * ROOM))  # and trio has no time to hear anything
        await until(lambda: ear.heard)
        assert ear.heard == [b"%d" % number for number in range(9 * ROOM + 1, 10 * ROOM + 1)]


def come(queue, last):
    """Wait until the last of the messages is in the queue; the whole thread does."""
    deadline = monotonic() + PATIENCE
    while not queue or queue[-1] != last:
        assert monotonic() < deadline
        sleep(0.001)
