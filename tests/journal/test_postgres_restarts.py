"""The committer over a PostgreSQL server that is restarted, crashes, and stands still: nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
from random import Random

import pytest
import trio
from store.lives import Life

from jivsd.journal import Committer
from jivsd.proof.pgserver import Server
from jivsd.store.api import StoreAway
from jivsd.store.postgres import PostgresStore

RUNS = 20


async def campaign(faults, seed, kinds):
    random = Random(seed)
    server = await trio.to_thread.run_sync(Server)
    with server:
        async with PostgresStore(server.url()) as store:
            committer = Committer(store, node="node-a", epoch=await store.open("node-a"))
            lives = [Life(committer) for _ in range(RUNS)]
            over = False
            async with trio.open_nursery() as nursery:
                await nursery.start(committer.run)
                async with trio.open_nursery() as living:
                    for life in lives:
                        living.start_soon(life.live, lambda: over)
                    for _ in range(faults):
                        await trio.sleep(random.random() * 0.3)
                        await random.choice(kinds)(server)
                        with trio.fail_after(10):
                            for life in lives:
                                await life.progress()
                    over = True
                nursery.cancel_scope.cancel()
            for life in lives:
                assert (await store.events(life.run.run_id))[1:] == life.acknowledged
            assert await store.check() == []


async def disturb_softly(server):
    await trio.to_thread.run_sync(server.restart)


async def disturb_hard(server):
    await trio.to_thread.run_sync(lambda: server.restart(immediate=True))


async def disturb_sessions(server):
    async with PostgresStore(server.url(), read_only=True) as other:
        try:
            await other.open("other")
            await other._read(
                lambda db: db.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'jivsd %' AND pid <> pg_backend_pid()"
                )
            )
        except StoreAway:
            pass  # the server is just coming up


async def disturb_by_standstill(server):
    """The session that writes batches stands still for longer than anybody waits for it."""
    async with PostgresStore(server.url(), read_only=True) as other:
        await other.open("other")
        found = await other._read(
            lambda db: db.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'jivsd journal %'")
        )
    for (pid,) in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        await trio.sleep(1.2)
    finally:
        for (pid,) in found:
            os.kill(pid, signal.SIGCONT)


RESTARTS = [disturb_softly, disturb_hard, disturb_sessions]


@pytest.mark.slow
async def test_a_server_that_is_restarted_and_crashes_loses_nothing():
    await campaign(6, 1, RESTARTS)


@pytest.mark.slow
async def test_a_session_that_stands_still_loses_nothing(monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.store.COMMIT_TIMEOUT", 0.5)
    await campaign(2, 2, [disturb_by_standstill])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
async def test_a_server_that_is_restarted_and_crashes_loses_nothing_for_long(seed):
    await campaign(60, seed, RESTARTS)
