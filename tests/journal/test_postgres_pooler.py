"""A journal behind pgbouncer in transaction mode, where every transaction may have another session."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from databases import NEWEST
from pooler import Pooler
from store.builders import append
from store.lives import Life
from store.test_postgres import opened, somebody

from jivsd.journal import Committer
from jivsd.store.api import StoreError, Written
from jivsd.store.postgres import PostgresStore
from jivsd.testing import Env

RUNS = 20
HEALED = 10.0


@pytest.fixture
def databases(postgres):
    return postgres(NEWEST)


@pytest.fixture
def pooler(databases):
    with Pooler(databases.server) as started:
        yield started


@pytest.mark.slow
async def test_the_journal_behind_a_pooler(databases, pooler):
    """Many at once share few sessions; the pooler is restarted, and the sessions behind it are ended."""
    direct = databases.clean()
    async with PostgresStore(f"{pooler.url(databases.common)}?pgbouncer=true") as store:
        committer = Committer(store, node="node-a", epoch=await store.open("node-a"))
        lives, over = [Life(committer) for _ in range(RUNS)], trio.Event()

        async def look(life):
            while not over.is_set():
                found = await store.recorded([life.run.run_id])
                assert found[0] is None or len(found[0].events) <= len(life.acknowledged) + 2
                await store.counts()

        async with trio.open_nursery() as nursery:
            await nursery.start(committer.run)
            async with trio.open_nursery() as living:
                for life in lives:
                    living.start_soon(life.live, over.is_set)
                async with trio.open_nursery() as looking:
                    for life in lives[:5]:
                        looking.start_soon(look, life)
                    for _ in range(30):
                        await lives[0].progress()
                    over.set()
                over = trio.Event()
                living.cancel_scope.cancel()
            await committer.drain()
            lives = [Life(committer) for _ in range(RUNS)]
            async with trio.open_nursery() as living:
                for life in lives:
                    living.start_soon(life.live, over.is_set)
                for disturb in (partial(restart, pooler), partial(end_sessions, direct)):
                    await disturb()
                    with trio.fail_after(HEALED):
                        for life in lives:
                            await life.progress()
                over.set()
            nursery.cancel_scope.cancel()
        for life in lives:
            assert (await store.events(life.run.run_id))[1:] == life.acknowledged
        assert await store.check() == []
    async with somebody(direct) as ask:
        assert await ask("SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == []


async def restart(pooler):
    await trio.to_thread.run_sync(pooler.stop)
    await trio.to_thread.run_sync(pooler.start)


async def end_sessions(url):
    async with somebody(url) as ask:
        await ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database()"
        )


PAY = """
from jivsd import Context, Transaction, step, workflow

@step
async def pay(tx: Transaction, name: str) -> int:
    await tx.execute("INSERT INTO public.paid (name) VALUES ($1)", (name,))
    return await tx.fetchval("SELECT count(*) FROM public.paid")

@workflow("pay")
async def paying(ctx: Context, name: str) -> int:
    return await ctx.step(pay, name)
"""


@pytest.mark.slow
async def test_transaction_steps_behind_a_pooler(databases, pooler, tmp_path):
    (tmp_path / "paying.py").write_text(PAY)
    async with somebody(databases.clean()) as ask:
        await ask("DROP TABLE IF EXISTS public.paid")
        await ask("CREATE TABLE public.paid (name text)")
        store = PostgresStore(f"{pooler.url(databases.common)}?pgbouncer=true")
        async with Env(tmp_path / "paying.py", store=store) as env:
            runs = [await env.start("pay", f"n{number}") for number in range(30)]
            for run in runs:
                assert await env.result(run) >= 1
        assert len(await ask("SELECT DISTINCT name FROM public.paid")) == 30
        assert len(await ask("SELECT name FROM public.paid")) == 30
        await ask("DROP TABLE public.paid")


async def test_our_settings_last_for_each_transaction_and_no_longer(databases, pooler):
    databases.clean()
    ask = "SELECT current_setting($1)"
    url = f"{pooler.url(databases.common)}?pgbouncer=true"
    async with opened(f"{url}&work_mem=7MB&options=-c%20statement_timeout%3D31s") as j:

        async def setting(name):
            return await j.store._pools.journal.use(lambda db: db.fetchval(ask, name), timeout=10)

        assert [await setting(name) for name in ("work_mem", "statement_timeout")] == ["7MB", "31s"]
        assert [await setting(name) for name in ("enable_seqscan", "lock_timeout")] == ["off", "250ms"]
        assert await j.one(append(await j.start(), 2)) == Written()
    async with somebody(pooler.url(databases.common)) as other:
        for _ in range(5):
            ((found,),) = await other("SELECT current_setting('work_mem') || ' ' || current_setting('enable_seqscan')")
            assert found == "4MB on"


async def test_a_pooler_that_nobody_told_us_of(databases, pooler):
    databases.clean()
    with pytest.raises(StoreError, match=r"that is a pooler: say \?pgbouncer=true in the URL"):
        await PostgresStore(pooler.url(databases.common)).open("node-a")
    ignored = "idle_in_transaction_session_timeout,tcp_user_timeout,tcp_keepalives_idle,tcp_keepalives_interval,"
    ignored += (
        "tcp_keepalives_count,jit,extra_float_digits,enable_seqscan,enable_bitmapscan,plan_cache_mode,lock_timeout"
    )
    with (
        Pooler(databases.server, ignore_startup_parameters=ignored) as lax,
        pytest.raises(StoreError, match=r"a pooler in between passes over what we set for our sessions: say \?pgb"),
    ):
        await PostgresStore(lax.url(databases.common)).open("node-a")
