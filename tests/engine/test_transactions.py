"""Transaction steps of runs whose journal is in PostgreSQL: a transaction each, recorded by its commit."""

from __future__ import annotations

import sys

import asyncpg
import pytest
import trio
from databases import NEWEST

from engine import test_attempts
from engine.test_attempts import foreign_await
from jivsd import NO_RETRY, Context, Retry, Transaction, step, workflow
from jivsd.records import Kind, Status
from jivsd.store.postgres import PostgresStore, transactions
from jivsd.testing import Env

here = sys.modules[__name__]


napping: list[float] = []


@step(timeout="0.3s", retry=NO_RETRY)
async def nap(tx: Transaction, seconds: float) -> None:
    await tx.execute("INSERT INTO purse VALUES ('nap', 1)")
    napping.append(seconds)
    await tx.execute(f"SELECT pg_sleep({seconds})")


@nap.compensate
async def wake(tx: Transaction, slept: None, seconds: float) -> None:
    await tx.execute("INSERT INTO purse VALUES ('woken', 1)")


@step(retry=Retry(attempts=2, first="1ms"))
async def twice(tx: Transaction) -> int:
    await tx.execute("CREATE SEQUENCE IF NOT EXISTS attempts")
    attempt = await tx.fetchval("SELECT nextval('attempts')")
    await tx.execute("INSERT INTO purse VALUES ('twice', ?)", (attempt,))
    if attempt == 1:
        raise asyncpg.SerializationError("planted")
    return attempt


@step
async def entries(tx: Transaction) -> list[str]:
    return [row["item"] for row in await tx.fetch("SELECT item FROM purse ORDER BY item")]


@step
async def make(tx: Transaction) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS purse (item text, amount bigint)")
    await tx.execute("CREATE SEQUENCE IF NOT EXISTS attempts")


@workflow("naps")
async def naps(ctx: Context, seconds: float) -> list[str]:
    await ctx.step(make)
    found: list[str] = []
    for call in (ctx.step(nap, seconds), ctx.step(foreign_await), ctx.step(twice)):
        try:
            found.append(str(await call))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return [*found, *await ctx.step(entries)]


@workflow("long-nap")
async def long_nap(ctx: Context) -> None:
    await ctx.step(make)
    await ctx.step(nap.options(timeout="60s"), 60)


@pytest.fixture
def store(postgres):
    return PostgresStore(postgres(NEWEST).clean())


async def kinds(env, run):
    return [event.kind for event in await env.events(run)]


async def test_a_transaction_step_commits_with_its_record_or_not_at_all(store):
    async with Env(test_attempts, store=store) as env:
        run = await env.start("purse", [5, -1, 7])
        assert await env.result(run) == [1005, "nothing below zero", 2012]
        assert (await kinds(env, run))[1:-1] == [Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_DONE]


async def test_what_fails_is_rolled_back_and_tried_again_by_its_policy(store):
    async with Env(here, store=store) as env:
        run = await env.start("naps", 60)
        assert await env.result(run) == [
            "TimedOut: step 'nap' took longer than 0.3 s: all is rolled back",
            "NotDurable: a transaction step may await only its transaction",
            "2",
            "twice",
        ]
        (failed,) = [event for event in await env.events(run) if event.kind == Kind.ATTEMPT_FAILED]
        assert b"SerializationError" in failed.payload


async def test_a_step_that_was_called_off_has_not_happened(store):
    napping.clear()
    async with Env(here, store=store) as env:
        run = await env.start("long-nap")
        while not napping:  # noqa: ASYNC110 -- it naps in another thread
            await trio.sleep(0.01)
        await env.cancel(run)
        assert (await env.ended(run)).status is Status.CANCELLED
        events = await env.events(run)
        (cancelled,) = [event.payload for event in events if event.kind == Kind.STEP_CANCELLED]
        assert cancelled.endswith(b'"started":"no"}')
        assert not [event for event in events if event.path.endswith("!undo")]


async def test_a_step_whose_transaction_is_lost_before_its_commit_runs_again_and_no_attempt_counts(store, monkeypatch):
    original, lost = transactions._Life.commit, []

    async def lose(life, message):
        if not lost:
            lost.append(life)
            life.cut()
        await original(life, message)

    monkeypatch.setattr(transactions._Life, "commit", lose)
    async with Env(here, store=store) as env:
        run = await env.start("naps", 0)
        found = await env.result(run)
        assert found[-2:] == ["nap", "twice"]
        assert (await kinds(env, run))[1:3] == [Kind.RECOVERED, Kind.STEP_DONE]
        assert lost
