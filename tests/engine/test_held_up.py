"""A run whose row in PostgreSQL somebody holds: it waits, the others go on, and it is said who holds it."""

from __future__ import annotations

import pytest
import trio
from databases import NEWEST
from store.test_postgres import somebody

from jivsd.store.postgres import PostgresStore
from jivsd.testing import Env

NAP = """
from jivsd import Context, workflow

@workflow("nap")
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"
"""
PATIENCE = 30.0


@pytest.mark.slow
async def test_why_says_who_holds_the_row_of_a_run(postgres, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("jivsd.engine.heldup.PATIENCE", 0.3)
    url = postgres(NEWEST).clean()
    (tmp_path / "nap.py").write_text(NAP)
    async with somebody(url) as other, Env(tmp_path / "nap.py", store=PostgresStore(url)) as env:
        held, free = await env.start("nap", 1), await env.start("nap", 1)
        await other("SET application_name = 'careless'")
        await other("BEGIN")
        await other("SELECT FROM jivsd.run WHERE run_id = $1 FOR UPDATE", held)
        assert await env.result(free) == "slept"
        with trio.fail_after(PATIENCE):
            while "runs wait for rows that others hold" not in capfd.readouterr().err:  # noqa: ASYNC110 -- a log
                await trio.sleep(0.05)
        (waits,) = [wait for wait in await env.waits(held) if wait.kind == "row"]
        assert "they are held by careless (process " in waits.what
        assert "FOR UPDATE" in waits.what
        assert not any(wait.kind == "row" for wait in await env.waits(free))
        await other("COMMIT")
        assert await env.result(held) == "slept"
        assert not any(wait.kind == "row" for wait in await env.waits(held))


@pytest.mark.slow
async def test_what_the_connections_do_is_scraped(postgres, tmp_path):
    (tmp_path / "nap.py").write_text(NAP)
    async with Env(tmp_path / "nap.py", store=PostgresStore(postgres(NEWEST).clean())) as env:
        assert await env.result(await env.start("nap", 0)) == "slept"
        shown = env.engine.metrics.render().decode()
    for line in (
        "jivsd_store_up 1.0",
        'jivsd_store_connections{kind="journal"} ',
        'jivsd_store_connections_used{kind="reader"} ',
        'jivsd_store_connections_waiting{kind="reader"} ',
        'jivsd_store_connects_total{kind="journal"} ',
        'jivsd_store_connect_failures_total{kind="writer"} ',
    ):
        assert line in shown
