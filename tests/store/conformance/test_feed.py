"""The feed of every store: each event once, as it was appended, also by several connections at once."""

from __future__ import annotations

import pytest

from jivsd.records import Status
from jivsd.store.api import Entry, Refused, Written
from jivsd.store.feed import Cursor, FeedGone, read
from store.builders import AT, append, end, event, new_run, start

one_version = pytest.mark.parametrize("journal", ["sqlite_file", "sqlite_memory", "postgres_18"], indirect=True)


async def follow(store, place=None, limit=1000):
    """All events after a place, and the place after them."""
    found = []
    while True:
        page = await store.feed.page(place, limit)
        pieces, place = read(place, page)
        found += [one for piece in pieces for one in piece.batch.events[piece.skip :]]
        if not page.more:
            return found, place


def keys(events):
    return [(one.run_id, one.seq) for one in events]


async def test_what_was_appended(journal):
    async with journal() as j:
        first, second = new_run(workflow_id="a"), new_run(workflow="order", workflow_id="b")
        await j.write(start(first), start(second))
        await j.write(append(first, 2, 3), append(second, 2))
        await j.one(end(first, 4, Status.COMPLETED))
        found, place = await follow(j.store)
        assert keys(found) == [
            (first.run_id, 1),
            (second.run_id, 1),
            (first.run_id, 2),
            (first.run_id, 3),
            (second.run_id, 2),
            (first.run_id, 4),
        ]
        step = found[2]
        assert (step.kind, step.path, step.workflow, step.workflow_id) == ("StepDone", "nap#2", "nap", "a")
        assert (step.at, step.attempt, step.status) == (AT, 0, Status.COMPLETED)
        assert (await follow(j.store, place))[0] == []
        end_place = await j.store.feed.end()
        await j.one(append(second, 3))
        assert keys((await follow(j.store, end_place))[0]) == keys((await follow(j.store, place))[0])


async def test_pages_that_end_anywhere(journal):
    async with journal() as j:
        runs = [new_run() for _ in range(20)]
        for run in runs:
            await j.write(start(run), append(run, 2, 3))
        found, _ = await follow(j.store, limit=7)
        assert keys(found) == [(run.run_id, seq) for run in runs for seq in (1, 2, 3)]


async def test_what_was_refused_is_not_in_it(journal):
    async with journal() as j:
        run, other = new_run(), new_run()
        await j.write(start(run), start(other))
        await j.one(append(run, 2))
        clash = event(run, 2, b'{"args_hash":"other"}')
        refused = Entry(run.run_id, run.shard, events=[clash, event(run, 3)])
        written, no, later = await j.write(append(other, 2), refused, append(run, 3))
        assert (written, type(no), type(later)) == (Written(), Refused, Refused)
        found, _ = await follow(j.store)
        assert sorted(keys(found)) == sorted([(run.run_id, 1), (run.run_id, 2), (other.run_id, 1), (other.run_id, 2)])


@one_version
async def test_old_batches_are_removed_and_whoever_needs_them_is_told(journal):
    async with journal() as j:
        runs = [new_run(at=AT + number) for number in range(10)]
        places = []
        for run in runs:
            await j.one(start(run))
            places.append((await follow(j.store))[1])
        assert await j.store.feed.trim(AT, 100) == 0
        assert await j.store.feed.trim(AT + 5, 3) == 3
        assert await j.store.feed.trim(AT + 5, 100) == 2
        assert await j.store.feed.trim(AT + 5, 100) == 0
        assert keys((await follow(j.store))[0]) == [(run.run_id, 1) for run in runs[5:]]
        with pytest.raises(FeedGone):
            await follow(j.store, Cursor())
        with pytest.raises(FeedGone):
            await follow(j.store, places[3])
        assert keys((await follow(j.store, places[4]))[0]) == [(run.run_id, 1) for run in runs[5:]]
        assert await j.store.feed.trim(AT + 50, 100) == 5
        assert (await follow(j.store, places[9]))[0] == []
        await j.one(append(runs[0], 2))
        assert keys((await follow(j.store, places[9]))[0]) == [(runs[0].run_id, 2)]


@one_version
async def test_what_was_pruned_is_left_out(journal):
    async with journal() as j:
        gone, kept = new_run(), new_run()
        await j.write(start(gone), start(kept), end(gone, 2))
        assert await j.store.remove([gone.run_id]) == 1
        found, _ = await follow(j.store)
        assert [None if one is None else one.run_id for one in found] == [None, kept.run_id, None]
