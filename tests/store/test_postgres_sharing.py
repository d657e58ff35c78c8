"""Nodes on one PostgreSQL database: who is let in, and how a shard is taken from somebody who holds on to it."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from databases import NEWEST
from pooler import Pooler

from jivsd.store import clocks
from jivsd.store.api import Refused, StoreError, Written
from jivsd.store.postgres import PostgresStore, exclusion
from jivsd.store.postgres.claiming import Claim
from jivsd.store.sharing import ALONE, NOTHING, POSTGRESQL, NameTaken
from store.builders import Journal, append
from store.test_postgres import somebody

LOCK = "SELECT id FROM jivsd.shard WHERE id = {} FOR SHARE"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(exclusion, "PATIENCE", 0.1)


@pytest.fixture(params=["direct", "pooled"])
def url(request, postgres):
    """An empty journal, by its server or behind a pooler."""
    databases = postgres(NEWEST)
    direct = databases.clean()
    if request.param == "direct":
        yield direct
        return
    with Pooler(databases.server, server_check_delay=0) as pooler:
        yield f"{pooler.url(databases.common)}?pgbouncer=true"


@pytest.fixture
def direct(postgres):
    """An empty journal, by its server."""
    return postgres(NEWEST).clean()


@asynccontextmanager
async def node(url, name, *, share=True, **options):
    async with PostgresStore(url, **options) as store:
        yield Journal(store, await store.open(name, share=share))


async def renew(store, by):
    """Renew a row as a living daemon does."""
    while True:
        await store.sharing.beat(0.6, by=by, leaving=False, full=False)
        await trio.sleep(0.1)


@asynccontextmanager
async def alive(url, name, *, share):
    """A daemon that renews its row."""
    async with node(url, name, share=share) as j, trio.open_nursery() as nursery:
        nursery.start_soon(renew, j.store, POSTGRESQL if share else ALONE)
        yield j
        nursery.cancel_scope.cancel()


async def refusal(url, name, *, share):
    with pytest.raises(StoreError) as caught:
        async with node(url, name, share=share):
            pass
    return caught.value


async def test_a_daemon_alone_has_it_alone_and_says_so(url):
    async with alive(url, "a", share=False) as j:
        (member,) = (await j.store.sharing.view()).members
        assert (member.node, member.by) == ("a", ALONE)
        assert {owner.node for owner in (await j.store.sharing.view()).owners} == {"a"}
        said = str(await refusal(url, "b", share=False))
        assert "is in use by another jivsd" in said
        assert "stop that one, or name another schema" in said
        said = str(await refusal(url, "b", share=True))
        assert "that does not share it: give that one a Redis URL, or cluster.share = true, too" in said
    async with node(url, "b") as j:
        assert [(member.node, member.by) for member in (await j.store.sharing.view()).members] == [("b", NOTHING)]


async def test_sharers_let_each_other_in_and_nobody_who_does_not_share(url):
    async with alive(url, "a", share=True) as a, alive(url, "b", share=True) as b:
        assert [member.node for member in (await a.store.sharing.view()).members] == ["a", "b"]
        assert await b.store.sharing.claim({1: 0}) == {1: 1}
        said = str(await refusal(url, "c", share=False))
        assert "that shares it: stop it, or give this one a Redis URL, or cluster.share = true" in said
        assert [member.node for member in (await a.store.sharing.view()).members] == ["a", "b"]


async def test_two_sharers_of_one_name(url):
    async with alive(url, "a", share=True) as j:
        said = await refusal(url, "a", share=True)
        assert isinstance(said, NameTaken)
        assert "under the name a: give each one a name of its own (node = …)" in str(said)
        assert [member.node for member in (await j.store.sharing.view()).members] == ["a"]


@pytest.mark.parametrize("share", [True, False])
async def test_the_row_of_a_daemon_that_was_killed_is_in_the_way_for_a_moment_at_most(url, share, monkeypatch):
    monkeypatch.setattr(exclusion, "FIRST_LEASE", 0.5)
    killed = PostgresStore(url)
    await killed.open("a", share=share)
    killed._pools.claimed = False  # it says no good-bye
    await killed.close()
    async with node(url, "a", share=share) as j:
        (member,) = (await j.store.sharing.view()).members
        assert (member.node, member.left > 0) == ("a", True)


async def notice(store):
    """Have the store find out that its connection is gone, if it has not been told yet."""
    with suppress(StoreError):
        await store.sharing.view()


async def test_what_is_kept_by_a_session_is_kept_again_when_the_session_was_lost(direct):
    async with node(direct, "a") as j, somebody(direct) as ask:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jivsd lease of a'"
        assert await ask(ended) == [(True,)]
        await notice(j.store)
        assert [member.node for member in (await j.store.sharing.view()).members] == ["a"]
        assert "that shares it" in str(await refusal(direct, "b", share=False))
        await ask(ended)
        async with node(direct, "b", share=False):
            await notice(j.store)
            with pytest.raises(StoreError, match="that does not share it"):
                await j.store.sharing.view()


async def test_the_embedded_store_is_not_shared(tmp_path):
    from jivsd.store.sqlite import SqliteStore

    async with SqliteStore(tmp_path / "jivsd.db") as store:
        assert store.sharing is None
        with pytest.raises(StoreError, match="nodes share a PostgreSQL database, no file"):
            await store.open("a", share=True)


async def test_a_former_owner_writes_nothing(url):
    async with node(url, "a") as a, node(url, "b") as b:
        run = None
        claimed = await a.store.sharing.claim(dict.fromkeys(range(64), 0))
        a.epoch = claimed[0]
        run = await a.start()
        assert await a.one(append(run, 2)) == Written()
        assert await b.store.sharing.claim({run.shard: 1}) == {run.shard: 2}
        assert await a.one(append(run, 3)) == Refused("fenced")


async def test_a_claim_waits_for_a_transaction_and_ends_the_session_of_one_that_takes_long(direct):
    async with node(direct, "a") as j, somebody(direct) as ask:
        started = time.monotonic()
        await ask("BEGIN")
        await ask(LOCK.format(7))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_commit_after, ask, 0.3))
            assert await j.store.sharing.claim({7: 0}) == {7: 1}
        assert time.monotonic() - started > 0.25
        assert await ask("SELECT 1") == [(1,)], "it was given the time"
        await ask("BEGIN")
        await ask(LOCK.format(7))
        assert await j.store.sharing.claim({7: 1}) == {7: 2}
        with pytest.raises(Exception, match=r"terminat|closed"):
            await ask("SELECT 1")


async def _commit_after(ask, seconds):
    await trio.sleep(seconds)
    await ask("COMMIT")


async def test_a_claim_whose_answer_was_lost_may_be_repeated(direct, monkeypatch):
    async with node(direct, "a") as a, node(direct, "b") as b:
        original = Claim.take

        async def lost(claim, *arguments):
            await original(claim, *arguments)
            raise ConnectionResetError("the answer is lost")

        monkeypatch.setattr(Claim, "take", lost)
        with pytest.raises(StoreError):
            await a.store.sharing.claim({3: 0, 4: 0})
        monkeypatch.setattr(Claim, "take", original)
        assert await b.store.sharing.claim({4: 1}) == {4: 2}
        assert await a.store.sharing.claim({3: 0, 4: 0, 5: 0}) == {3: 1, 5: 1}
        assert await a.store.sharing.claim({3: 0}) == {}, "it knows of no lost answer any more"


async def test_a_node_whose_clock_is_off_claims_nothing(direct):
    off = 0.0
    async with node(direct, "a", now=lambda: time.time() + off) as j:
        off = -3.0
        with pytest.raises(StoreError, match=r"the clock of node a is 3.0 s behind the database's"):
            await j.store.sharing.claim({1: 0})
        assert (await j.store.sharing.view()).owners[1].node == ""
        (incident,), _ = await j.store.incidents()
        assert incident.kind == clocks.KIND
        off = 0.0
        assert await j.store.sharing.claim({1: 0}) == {1: 1}


async def test_an_epoch_that_was_raised_since_is_released_all_the_same(direct):
    async with node(direct, "a") as j:
        claimed = await j.store.sharing.claim({1: 0, 2: 0})
        assert await j.store.raise_epoch("a", {1: 1}) == {1: 2}
        await j.store.sharing.release(claimed)
        assert [owner[:3] for owner in (await j.store.sharing.view()).owners[1:3]] == [(1, 2, ""), (2, 1, "")]


async def test_a_node_that_is_gone_for_long_is_forgotten_unless_it_owns_something(direct, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.sharing.FORGOTTEN", 1.0)
    async with node(direct, "a") as a, node(direct, "b") as b, node(direct, "c") as c:
        for one in (b, c):
            await one.store.sharing.beat(-2.0, by=POSTGRESQL, leaving=False, full=False)
        await b.store.sharing.claim({1: 0})
        assert len((await a.store.sharing.view()).members) == 3
        assert [member.node for member in (await a.store.sharing.view()).members] == ["a", "b"]
