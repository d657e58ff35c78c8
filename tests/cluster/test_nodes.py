"""Real daemons on one PostgreSQL database and one Redis: they share, hand over, take over; and all runs end."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from databases import NEWEST

from jivsd.client import Client
from jivsd.engine.api import StartOptions
from jivsd.places import socket_path
from jivsd.proof.daemons import Daemon
from jivsd.proof.redisserver import Server
from jivsd.records import SHARDS

PLUGIN = """
import trio
from jivsd import Context, StepContext, step, workflow

@step()
async def beat(ctx: StepContext, number: int) -> int:
    await trio.sleep(0.05)
    return number

@workflow("beats")
async def beats(ctx: Context, many: int) -> int:
    return sum([await ctx.step(beat, number) for number in range(many)])
"""
LEASE = {"JIVSD_CLUSTER__LEASE": "1s", "JIVSD_CLUSTER__POSTGRESQL_LEASE": "4s", "JIVSD_CLUSTER__HANDOVER": "1s"}


class Nodes:
    """Daemons of one database."""

    def __init__(self, folder, environment):
        self._folder = folder
        self._environment = environment
        self.daemons = {}

    async def start(self, name):
        folder = self._folder / name
        environment = {**self._environment, **LEASE, "JIVSD_NODE": name}
        daemon = self.daemons[name] = Daemon(folder, self._folder / f"{name}.log", environment=environment)
        await daemon.start()

    @asynccontextmanager
    async def client(self, name):
        async with Client.connect(self.daemons[name].data_dir) as client:
            yield client

    async def shares(self, name):
        """How many shards each node has, as one of them says; and what they are held by."""
        async with self.client(name) as client:
            found = await client.nodes()
        assert sum(len(one.owned) for one in found) <= SHARDS
        return {one.node: len(one.owned) for one in found if one.owned}, {one.member.by for one in found if one.owned}

    async def health(self, name):
        transport = httpx.AsyncHTTPTransport(uds=str(socket_path(self.daemons[name].data_dir)))
        async with httpx.AsyncClient(transport=transport, base_url="http://jivsd") as http:
            return (await http.get("/health")).json()

    async def until(self, name, shares, within=10.0):
        def wanted(found):
            return found == shares if isinstance(shares, dict) else sorted(found.values()) == shares

        with trio.move_on_after(within):
            while not wanted(found := (await self.shares(name))[0]):  # noqa: ASYNC110 -- another process
                await trio.sleep(0.05)
            return
        raise AssertionError(f"{found} is not {shares} within {within} s")


@pytest.fixture
def environment(postgres, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "beats.py").write_text(PLUGIN)
    (tmp_path / "plugins").chmod(0o755)
    return {"JIVSD_STORE": postgres(NEWEST).clean(), "JIVSD_PLUGINS": str(tmp_path / "plugins")}


@asynccontextmanager
async def nodes(folder, environment):
    found = Nodes(folder, environment)
    try:
        yield found
    finally:
        for daemon in found.daemons.values():
            await daemon.aclose()


@pytest.mark.slow
async def test_they_join_share_hand_over_and_take_over(environment, tmp_path):
    with Server() as redis:
        async with nodes(tmp_path, environment | {"JIVSD_REDIS": redis.url}) as n:
            await n.start("a")
            await n.until("a", {"a": 64})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(n.start, "b")
                nursery.start_soon(n.start, "c")
            async with n.client("a") as client, trio.open_nursery() as nursery:
                await n.until("a", [21, 21, 22])  # who has one more: who joined first may tell
                assert (await n.shares("b"))[1] == {"redis"}
                runs = [await client.start("beats", 60, StartOptions(id=f"r{number}")) for number in range(30)]
                await n.daemons["b"].kill()
                nursery.start_soon(n.daemons["c"].stop)
                await n.until("a", {"a": 64})
                for run in runs:
                    assert (await client.result(run.run.run_id, 30)).status == "COMPLETED"
                health = await n.health("a")
            assert health["components"]["leases"] == {"status": "UP", "held": 64, "by": "redis"}
            assert health["components"]["redis"] == {"status": "UP"}
            redis.kill()
            with trio.fail_after(5):
                while (await n.shares("a"))[1] == {"redis"}:  # noqa: ASYNC110 -- another process
                    await trio.sleep(0.05)
            assert await n.shares("a") == ({"a": 64}, {"postgresql"})


@pytest.mark.slow
async def test_without_redis_they_share_by_postgresql_alone(environment, tmp_path):
    async with nodes(tmp_path, environment | {"JIVSD_CLUSTER__SHARE": "true"}) as n:
        await n.start("a")
        await n.start("b")
        await n.until("a", {"a": 32, "b": 32})
        n.daemons["b"].send(signal.SIGSTOP)
        await n.until("a", {"a": 64})
        n.daemons["b"].send(signal.SIGCONT)
        await n.until("b", {"a": 32, "b": 32})
        assert "its lease could not be renewed in time" in (tmp_path / "b.log").read_text()
