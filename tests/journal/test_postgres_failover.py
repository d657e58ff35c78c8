"""A primary and its replica: when the one is lost and the other promoted, the journal goes on there by itself."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest
import trio
from store.lives import Life
from store.test_postgres import somebody

from jivsd.journal import Committer
from jivsd.proof.pgserver import Server
from jivsd.store.api import StoreError
from jivsd.store.postgres import PostgresStore

HEALED = 10.0
"""Seconds after the promotion within which there is progress."""


@pytest.fixture
def pair():
    """A primary, and a replica without which it acknowledges nothing."""
    with Server(durable=False) as primary, Server(durable=False) as replica:
        replica.stop()
        replica.follow(primary)
        replica.start()
        trio.run(confirm, primary)
        yield primary, replica


async def confirm(primary):
    async with somebody(primary.url()) as ask:
        await ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await ask("SELECT pg_reload_conf()")


def both(primary, replica):
    return f"postgresql://jivsd@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres?connect_timeout=1"


def stand_still(server):
    for process in server.processes():
        os.kill(process, signal.SIGSTOP)


@pytest.mark.slow
@pytest.mark.parametrize("lose", [partial(Server.stop, immediate=True), stand_still], ids=["killed", "standing still"])
async def test_the_journal_goes_on_at_the_new_primary(pair, lose, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.store.COMMIT_TIMEOUT", 1.0)
    primary, replica = pair
    async with PostgresStore(both(primary, replica)) as store:
        committer = Committer(store, node="node-a", epoch=await store.open("node-a"))
        life, over = Life(committer), trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(committer.run)
            nursery.start_soon(life.live, over.is_set)
            await life.progress()
            before = len(life.acknowledged)
            await trio.to_thread.run_sync(lose, primary)
            await trio.to_thread.run_sync(replica.promote)
            with trio.fail_after(HEALED):
                await life.progress()
                assert len(life.acknowledged) > before
            over.set()
            await life.progress()
            await committer.drain()
            nursery.cancel_scope.cancel()
        assert (await store.events(life.run.run_id))[1:] == life.acknowledged
        assert await store.check() == []
        where = await store._pools.journal.use(lambda db: db.fetchval("SELECT inet_server_port()"), timeout=10)
        assert where == replica.port


@pytest.mark.slow
async def test_which_of_several_hosts(pair):
    """The primary, wherever it is named; and when none will do, why each will not."""
    primary, replica = pair
    async with PostgresStore(both(replica, primary)) as store:
        assert await store.open("node-a") == 1
    with pytest.raises(StoreError, match="it is a replica; name the primary, or all hosts"):
        await PostgresStore(replica.url()).open("node-a")
    await trio.to_thread.run_sync(primary.stop)
    with pytest.raises(StoreError, match="none of its hosts will do") as refused:
        await PostgresStore(both(primary, replica)).open("node-a")
    said = str(refused.value)
    assert "127.0.0.1: it is not the primary" in said
    assert "refused" in said or "Connect call failed" in said
