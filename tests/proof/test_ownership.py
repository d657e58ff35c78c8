"""The torture's watch over who writes what: it notes what the fence should have kept out, and nothing else."""

from __future__ import annotations

import asyncpg
import pytest
from databases import NEWEST
from store.builders import Journal, append, new_run, start

from jivsd.bridge import Bridge
from jivsd.proof.torture.ownership import Ownership
from jivsd.store.postgres import PostgresStore

STALE = "UPDATE jivsd.shard SET epoch = epoch + 1, node = 'node-b'"
BY_HAND = (
    'INSERT INTO jivsd.event (run_id, at, checksum, seq, attempt, kind, path, "by")'
    " VALUES ($1::text::uuid, 0, 0, $2, 1, $3, 'p', '')"
)


@pytest.fixture
def url(postgres):
    return postgres(NEWEST).clean()


async def test_what_a_former_owner_writes_is_noted(url):
    async with PostgresStore(url) as store, Bridge("test") as bridge:

        async def asked(sql, arguments):
            connection = await asyncpg.connect(url, server_settings={"application_name": "jivsd writer of node-a"})
            try:
                return await connection.fetch(sql, *arguments)
            finally:
                await connection.close()

        async def ask(sql, *arguments):
            return await bridge.call(lambda: asked(sql, arguments), timeout=10)

        j = Journal(store, await store.open("node-a"))
        await ask("CREATE SCHEMA torture_test")
        try:
            ownership = Ownership(ask, "jivsd", "torture_test")
            await ownership.watch()
            run = new_run()
            await j.write(start(run))
            await j.write(append(run, 2))
            assert await ownership.stale() == []
            assert await ownership.owns("node-a")
            await ask(STALE)
            assert not await ownership.owns("node-a")
            fenced = await j.write(append(run, 3))
            assert await ownership.stale() == [], fenced  # the fence has kept it out, and the note with it
            await ask(BY_HAND, run.run_id, 6, "Started")
            await ask(BY_HAND, run.run_id, 7, "StepDone")
            ((found, path, what),) = await ownership.stale()
            assert (found, path) == (run.run_id, "p")
            assert what == "event 7 (StepDone) was written by node-a while its shard was node-b's"
        finally:
            await ask("DROP SCHEMA torture_test CASCADE")
