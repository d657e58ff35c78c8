"""Servers that will not do: each is refused with a sentence that says what would be right."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from databases import NEWEST

from jivsd.engine.clockwatch import ClockWatch
from jivsd.engine.engine import Engine
from jivsd.registry.registry import Registry
from jivsd.store import clocks
from jivsd.store.api import StoreError, Written
from jivsd.store.postgres import PostgresStore
from store.builders import append
from store.test_postgres import opened, somebody

PATIENCE = 30.0
PASSWORD = "hunter2"


@pytest.fixture
def databases(postgres):
    return postgres(NEWEST)


@pytest.fixture
def url(databases):
    return databases.clean()


@contextmanager
def role(databases, name, *options):
    """Somebody with a password and limits."""
    databases.sql(f"CREATE ROLE {name} LOGIN {' '.join(options)}")
    databases.sql(f"GRANT ALL ON DATABASE {databases.common} TO {name}")
    try:
        yield databases.server.url(databases.common).replace("//jivsd@", f"//{name}:{PASSWORD}@")
    finally:
        databases.sql(f"DROP OWNED BY {name}", "SELECT 1", database=databases.common)
        databases.sql(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def refusal(url, **options):
    """What is said to who wants to have a journal there: one sentence, without a password."""
    with pytest.raises(StoreError) as refused:
        await PostgresStore(url, **options).open("node-a")
    said = str(refused.value)
    assert PASSWORD not in said
    assert "\n" not in said
    return said


# ---- at the start


async def test_another_encoding(databases):
    databases.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    said = await refusal(databases.server.url("latin"))
    assert "its encoding is LATIN1; make one with: createdb --encoding=UTF8" in said


async def test_commits_that_are_not_durable(databases, url):
    databases.sql(f"ALTER DATABASE {databases.common} SET synchronous_commit = off")
    try:
        assert "say ?synchronous_commit=on in the URL" in await refusal(url)
        async with opened(f"{url}?synchronous_commit=on") as j:
            assert await j.one(append(await j.start(), 2)) == Written()
    finally:
        databases.sql(f"ALTER DATABASE {databases.common} RESET ALL")


async def test_durable_stays_durable_when_the_server_is_reconfigured(databases, url):
    async with opened(url) as j, somebody(url) as ask:
        await ask("ALTER SYSTEM SET synchronous_commit = off")
        await ask("SELECT pg_reload_conf()")
        try:
            run = await j.start()
            assert await j.one(append(run, 2)) == Written()
            show = "SHOW synchronous_commit"
            shown = await j.store._pools.journal.use(lambda db: db.fetchval(show), timeout=PATIENCE)
            assert shown == "on"
        finally:
            await ask("ALTER SYSTEM RESET synchronous_commit")
            await ask("SELECT pg_reload_conf()")


async def test_a_role_with_too_few_connections(databases, url):
    with role(databases, "narrow", "CONNECTION LIMIT 3") as narrow:
        said = await refusal(f"{narrow}?schema=narrow")
    assert "its role may have (ALTER ROLE … CONNECTION LIMIT) 3 connections; jivsd needs 16" in said


async def test_a_role_without_rights_on_one_table(databases, url):
    with role(databases, "half") as half:
        for grant in (
            "GRANT ALL ON SCHEMA jivsd TO half",
            "GRANT ALL ON ALL TABLES IN SCHEMA jivsd TO half",
            "REVOKE DELETE ON jivsd.event, jivsd.inbox FROM half",
        ):
            databases.sql(grant, "SELECT 1", database=databases.common)
        said = await refusal(half)
        assert "its user may not read and write event, inbox; an administrator can say: GRANT ALL ON ALL TABLES" in said
        databases.sql("GRANT DELETE ON jivsd.event, jivsd.inbox TO half", "SELECT 1", database=databases.common)
        async with opened(half) as j:
            assert await j.one(append(await j.start(), 2)) == Written()


async def test_a_clock_that_is_off_claims_nothing_and_opens_an_incident(url):
    async with opened(url) as j:
        before = j.epoch
    for _ in range(2):
        said = await refusal(url, now=lambda: time.time() + 3)
        assert "the clock of node node-a is 3.0 s ahead of the database's: set both by NTP" in said
    async with opened(url) as j:
        assert j.epoch == before + 1, "nothing was claimed"
        (found,), _ = await j.store.incidents()
        assert (found.kind, found.path, found.message) == ("clock", "node-a", clocks.sentence("node-a", -3.0))
        await watch_once(j)
        (found,), _ = await j.store.incidents()
        assert (found.state, found.resolution) == ("RESOLVED", "gone")


async def test_a_clock_that_drifts_opens_one_incident(url):
    drift = [0]
    async with opened(url, now=lambda: time.time() + drift[0]) as j:
        await watch_once(j)
        drift[0] = -2
        for _ in range(2):
            await watch_once(j)
        (found,), _ = await j.store.incidents()
        assert found.message == "the clock of node node-a is 2.0 s behind the database's: set both by NTP"
        assert await j.one(append(await j.start(), 2)) == Written(), "what it has it keeps"
        drift[0] = 0
        await watch_once(j)
        (found,), _ = await j.store.incidents()
        assert found.state == "RESOLVED"


async def watch_once(j):
    await ClockWatch(Engine(j.store, Registry(), node="node-a", epoch=j.epoch)).run_once()
