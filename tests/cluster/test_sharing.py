"""What nodes say of themselves and how shards pass on: every kind of database has to do it in the same way."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
from databases import NEWEST

from cluster.sharings import Database
from jivsd.records import SHARDS
from jivsd.store.postgres import PostgresStore
from jivsd.store.sharing import NOTHING, POSTGRESQL, REDIS, Member, NameTaken, Owner


class InMemory:
    def __init__(self, request):
        self._database = Database(time.monotonic)

    async def node(self, name):
        return self._database.sharing(name)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


class InPostgres:
    def __init__(self, request):
        self._url = request.getfixturevalue("postgres")(NEWEST).clean()
        self._stores = AsyncExitStack()

    async def node(self, name):
        store = await self._stores.enter_async_context(PostgresStore(self._url))
        assert await store.open(name, share=True) == 0
        await store.sharing.leave()  # what opening it said is not what this is about
        return store.sharing

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._stores.aclose()


@pytest.fixture(params=[InMemory, InPostgres], ids=lambda kind: kind.__name__)
def world(request):
    """`async with world as w:` then `await w.node("a")` is how node a shares a new database."""
    return request.param(request)


async def owners(sharing):
    return {owner.shard: (owner.node, owner.epoch) for owner in (await sharing.view()).owners}


async def test_a_row_says_who_is_there_for_how_long(world):
    async with world as w:
        a, b = await w.node("a"), await w.node("b")
        assert (await a.view()).members == []
        await b.beat(20.0, by=POSTGRESQL, leaving=False, full=True)
        await a.beat(4.0, by=REDIS, leaving=False, full=False)
        first, second = (await a.view()).members
        assert isinstance(first, Member)
        assert (first.node, first.by, first.leaving, first.full) == ("a", REDIS, False, False)
        assert (second.node, second.by, second.leaving, second.full) == ("b", POSTGRESQL, False, True)
        assert 2 < first.left <= 4 < 15 < second.left <= 20
        assert first.instance != second.instance
        await a.beat(20.0, by=NOTHING, leaving=True, full=False)
        renewed = (await b.view()).members[0]
        assert (renewed.by, renewed.leaving, renewed.left > 15) == (NOTHING, True, True)
        assert (renewed.joined_at, renewed.instance) == (first.joined_at, first.instance)
        await b.leave()
        assert [member.node for member in (await a.view()).members] == ["a"]


async def test_a_row_that_is_over_is_still_shown(world):
    async with world as w:
        a = await w.node("a")
        await a.beat(-1.0, by=REDIS, leaving=False, full=False)
        assert -2 < (await a.view()).members[0].left <= -1
        await a.beat(9.0, by=REDIS, leaving=False, full=False)
        assert (await a.view()).members[0].left > 0


async def test_shards_belong_to_nobody_until_they_are_claimed(world):
    async with world as w:
        a, b = await w.node("a"), await w.node("b")
        before = (await a.view()).owners
        assert [owner[:3] for owner in before] == [(shard, 0, "") for shard in range(SHARDS)]
        assert isinstance(before[0], Owner)
        assert await a.claim({1: 0, 2: 0}) == {1: 1, 2: 1}
        assert await b.claim({2: 0, 3: 0}) == {3: 1}, "2 is no longer at the epoch at which it was seen"
        assert {shard: owner for shard, owner in (await owners(b)).items() if shard < 5} == {
            0: ("", 0),
            4: ("", 0),
            1: ("a", 1),
            2: ("a", 1),
            3: ("b", 1),
        }
        since = {owner.shard: owner.since for owner in (await b.view()).owners}
        assert since[1] <= since[3] > since[4] == 0
        assert await b.claim({2: 1}) == {2: 2}
        assert (await owners(a))[2] == ("b", 2)
        assert await b.claim({2: 2}) == {2: 3}, "one's own, too"


async def test_only_what_is_mine_is_released(world):
    async with world as w:
        a, b = await w.node("a"), await w.node("b")
        await a.claim({1: 0, 2: 0, 3: 0})
        await b.claim({2: 1})
        await a.release({1: 1, 2: 1})
        await b.release({3: 1})
        assert [(await owners(a))[shard] for shard in (1, 2, 3)] == [("", 1), ("b", 2), ("a", 1)]
        assert await b.claim({1: 1}) == {1: 2}
        await a.release({1: 1})
        assert (await owners(a))[1] == ("b", 2)


async def test_two_nodes_of_one_name(world, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.exclusion.PATIENCE", 0.1)
    async with world as w:
        a = await w.node("a")
        await a.beat(9.0, by=REDIS, leaving=False, full=False)
        if isinstance(w, InPostgres):
            with pytest.raises(NameTaken, match="under the name a"):
                await w.node("a")
            return
        other = await w.node("a")
        with pytest.raises(NameTaken, match="of the name a"):
            await other.beat(9.0, by=REDIS, leaving=False, full=False)
