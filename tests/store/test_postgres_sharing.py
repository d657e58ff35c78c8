"""Nodes on one PostgreSQL database: who is let in, and how a shard is taken from somebody who holds on to it."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from databases import NEWEST
from pooler import Pooler

from jivsd.records import Kind, Status
from jivsd.store import clocks
from jivsd.store.api import Busy, Delivered, Refused, StoreError, Successor, Written
from jivsd.store.postgres import PostgresStore, exclusion
from jivsd.store.postgres.claiming import Claim
from jivsd.store.sharing import ALONE, NOTHING, POSTGRESQL, NameTaken
from store.builders import AT, Journal, append, end, message, new_run, post, started
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


@asynccontextmanager
async def while_messages_are_handed_on(ask):
    """A transaction that hands on messages stands still, once it has done that, until this is left."""
    await ask("CREATE TABLE public.still ()")
    await ask("INSERT INTO public.still DEFAULT VALUES")
    await ask(
        "CREATE FUNCTION public.stand_still() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " WHILE EXISTS (SELECT FROM public.still) LOOP PERFORM pg_sleep(0.005); END LOOP; RETURN NULL; END $$"
    )
    await ask(
        "CREATE TRIGGER still AFTER UPDATE OF run_id ON jivsd.inbox"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.stand_still()"
    )

    async def reached():
        while not await ask("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):  # noqa: ASYNC110 -- in SQL
            await trio.sleep(0.005)

    try:
        yield reached
    finally:
        await ask("DELETE FROM public.still")


async def _continued(j, run, verdicts):
    following = new_run(workflow_id=run.workflow_id, chain=run.run_id)
    successor = Successor(following, [started(following)])
    verdicts.append(following)
    verdicts.append(await j.one(end(run, 2, Status.CONTINUED, successor=successor)))


@pytest.mark.parametrize("kind", [Kind.SIGNAL, Kind.CANCEL_REQUESTED])
async def test_what_another_node_is_told_for_a_run_that_is_continued_as_new_is_not_lost(direct, kind):
    async with node(direct, "a") as a, node(direct, "b") as b, somebody(direct) as ask:
        a.epoch = (await a.store.sharing.claim(dict.fromkeys(range(64), 0)))[0]
        run, said = await a.start(), []
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery, while_messages_are_handed_on(ask) as reached:
                nursery.start_soon(_continued, a, run, said)
                await reached()
                assert await b.one(post(run, "m1", to_run=True, kind=kind)) == Busy()
            following, verdict = said
        assert verdict == Written()
        assert await b.one(post(run, "m1", to_run=True, kind=kind)) == Delivered(following.run_id)
        assert [one.message_id for one in await a.store.messages(following.run_id)] == ["m1"]


async def test_a_child_of_another_node_that_is_continued_as_new_is_terminated_all_the_same(direct):
    async with node(direct, "a") as a, node(direct, "b") as b, somebody(direct) as ask:
        a.epoch = (await a.store.sharing.claim(dict.fromkeys(range(64), 0)))[0]
        parent, child = await a.start(workflow_id="a"), await a.start(workflow_id="b")
        assert await b.store.sharing.claim({parent.shard: 1}) == {parent.shard: 2}
        b.epoch, said = 2, []
        ends = end(parent, 2, Status.TERMINATED, inbox=[message(child, "end", to_run=True, kind=Kind.ENDED)])
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery, while_messages_are_handed_on(ask) as reached:
                nursery.start_soon(_continued, a, child, said)
                await reached()
                assert await b.one(ends) == Busy()
            following, verdict = said
        assert verdict == Written()
        assert await b.one(ends) == Written()
        assert [one.message_id for one in await a.store.messages(following.run_id)] == ["end"]


async def test_a_run_that_has_ended_is_called_by_no_message(direct):
    async with node(direct, "a") as a:
        a.epoch = (await a.store.sharing.claim(dict.fromkeys(range(64), 0)))[0]
        parent, child = await a.start(), await a.start()
        await a.one(end(parent, 2))
        ended = message(parent, "end", to_run=True, kind=Kind.CHILD_ENDED)
        assert await a.one(end(child, 2, inbox=[ended])) == Written()
        assert await a.store.called_runs(None, AT + 1) == []


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
        # the last: what the driver says if the server's farewell comes in the middle of a question
        with pytest.raises(Exception, match=r"terminat|closed|another operation"):
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
