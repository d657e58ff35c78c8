"""Those who follow the feed: each gets what it wants once and in order, and nobody is waited for."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from store.overlapping import Database
from trio.testing import MockClock

from jivsd.services.feed import Config, FeedService
from jivsd.services.following import Interrupted, Ring, TooSlow, Wanted
from jivsd.store.errors import StoreAway
from jivsd.store.feed import Cursor, old_batches


class SimulatedFeed:
    """A feed on transactions that overlap."""

    def __init__(self, database):
        self.database = database
        self.away = False
        self.trimmed = []

    async def page(self, after, limit):
        await self._reach()
        return self.database.page(after, limit)

    async def end(self):
        await self._reach()
        return self.database.end_place()

    async def trim(self, before, limit):
        await self._reach()
        self.trimmed.append((before, limit))
        return old_batches([], before)[0]

    async def _reach(self):
        await trio.sleep(0.01)
        if self.away:
            raise StoreAway("it is away")


@asynccontextmanager
async def serving(feed, **config):
    """A service that runs."""
    service = FeedService(feed, encode, lambda: 10**15, Config(page=5, **config))
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield service
        nursery.cancel_scope.cancel()


def encode(event):
    return msgspec.json.encode(event._asdict())


def decoded(news):
    return [msgspec.json.decode(one) for one in news.events]


def commit(database, times=1, writer=0):
    for _ in range(3 * times):
        database.writers[writer].step(commits=True)


class Visitor:
    """Follows, goes away after so many events, and comes back with the last cursor."""

    def __init__(self, stay, wanted):
        self.stay = stay
        self.wanted = wanted
        self.seen = []
        self.cursor = None
        self.asked = 0

    async def visit(self, service):
        while True:
            after = None if self.cursor is None else Cursor.of(self.cursor)
            with service.follower(after, self.wanted) as follower:
                events = decoded(await follower.next())
                many = min(self.stay, len(events))
                self.seen += [(event["run_id"], event["seq"]) for event in events[:many]]
                if many < len(events):
                    self.cursor = events[many - 1]["cursor"]
                    continue
                while len(events) < self.stay:
                    self.cursor = follower.cursor
                    events = decoded(await follower.next())
                    self.seen += [(event["run_id"], event["seq"]) for event in events]
                self.cursor = follower.cursor

    def expected(self, database):
        return {
            (one.run_id, one.seq)
            for batch in database.batches.values()
            for one in batch.events
            if self.wanted.fits(one)
        }


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=80),
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([(), ("run3", "run7", "run8")])), min_size=1, max_size=4),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_every_follower_gets_all_that_it_wants_once(steps, visitors, streams):
    async def main():
        database = Database(streams)
        found = [Visitor(stay, Wanted(runs=runs)) for stay, runs in visitors]
        async with serving(SimulatedFeed(database)) as service, trio.open_nursery() as nursery:
            for visitor in found:
                nursery.start_soon(visitor.visit, service)
            for who, commits in steps:
                if who < streams:
                    database.writers[who].step(commits=commits)
                else:
                    await trio.sleep(0.03)
            for writer in database.writers:
                while writer.open is not None:
                    writer.step(commits=True)
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
        for visitor in found:
            assert sorted(visitor.seen) == sorted(visitor.expected(database))
            for run_id in {run_id for run_id, _ in visitor.seen}:
                seqs = [seq for run, seq in visitor.seen if run == run_id]
                assert seqs == sorted(seqs)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.jump
async def test_a_follower_that_is_too_slow_is_told():
    database = Database(1)
    async with serving(SimulatedFeed(database)) as service:
        service.ring = Ring(500)
        with service.follower(await service.end(), Wanted()) as slow:
            commit(database)
            assert len((await slow.next()).events) == 2
            commit(database, 20)
            await trio.sleep(5)
            with pytest.raises(TooSlow):
                await slow.next()
            # what it missed is in the journal
            news = await service.look(Cursor.of(slow.cursor), Wanted(runs=["run21"]), 1000)
            assert [event["run_id"] for event in decoded(news)] == ["run21"]


@pytest.mark.jump
async def test_when_the_service_ends_its_followers_are_told():
    feed = SimulatedFeed(Database(1))
    told = []

    async def follow(service):
        with service.follower(await service.end(), Wanted()) as follower:
            try:
                await follower.next()
            except Interrupted:
                told.append(True)

    async with trio.open_nursery() as nursery, serving(feed) as service:
        nursery.start_soon(follow, service)
        await trio.sleep(1)
    assert told


@pytest.mark.jump
async def test_while_the_store_is_away_followers_wait():
    database = Database(1)
    feed = SimulatedFeed(database)
    async with serving(feed) as service:
        with service.follower(await service.end(), Wanted()) as follower:
            commit(database)
            await follower.next()
            feed.away = True
            commit(database)
            with trio.move_on_after(30) as patience:
                await follower.next()
            assert patience.cancelled_caught
            feed.away = False
            assert [event["run_id"] for event in decoded(await follower.next())] == ["run2"] * 3


@pytest.mark.jump
async def test_who_does_not_stay_gets_pages():
    database = Database(1)
    commit(database, 10)
    async with serving(SimulatedFeed(database)) as service:
        seen, cursor = [], None
        while (news := await service.look(cursor, Wanted(runs=["run2", "run9"]), 2)).events:
            seen += [(event["run_id"], event["seq"]) for event in decoded(news)]
            assert len(news.events) <= 2
            cursor = Cursor.of(news.cursor)
        assert seen == [("run2", 1), ("run2", 2), ("run2", 3), ("run9", 1)]
        assert cursor.floor == 10 or Cursor.of(news.cursor).floor == 10


@pytest.mark.jump
async def test_nothing_is_read_while_nobody_follows():
    database = Database(1)
    feed = SimulatedFeed(database)
    async with serving(feed, trim=1000.0) as service:
        pages = []
        feed.page = partial(_counted, pages, feed.page)
        await trio.sleep(100)
        assert pages == []
        with service.follower(await service.end(), Wanted()) as follower, trio.move_on_after(1):
            await follower.next()
        assert pages
        pages.clear()
        await trio.sleep(100)
        assert len(pages) <= 1
        with service.follower(await service.end(), Wanted()) as follower:
            commit(database)
            assert len((await follower.next()).events) == 2


@pytest.mark.jump
async def test_who_comes_back_soon_gets_what_is_kept():
    database = Database(2)
    feed = SimulatedFeed(database)
    async with serving(feed, trim=1000.0) as service:
        with service.follower(await service.end(), Wanted()) as stays:
            commit(database)
            await stays.next()
            commit(database, 5)
            commit(database, 5, writer=1)
            first = await stays.next()
            cursor = decoded(first)[1]["cursor"]
            await trio.sleep(1)
            asked = []
            feed.page = partial(_counted, asked, feed.page)
            with service.follower(Cursor.of(cursor), Wanted()) as back:
                again = (await back.next()).events
            assert Cursor.of(cursor) not in [after for after, _ in asked]
    assert decoded(first)[2:4] == [msgspec.json.decode(one) for one in again[:2]]


async def _counted(pages, page, *arguments):
    pages.append(arguments)
    return await page(*arguments)


@pytest.mark.jump
async def test_old_batches_are_removed():
    feed = SimulatedFeed(Database(1))
    async with serving(feed, keep=60.0):
        await trio.sleep(100)
    assert feed.trimmed == [(10**15 - 60_000_000, 2000)] * 4
