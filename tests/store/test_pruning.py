"""Removing runs: what may go, what goes with it, what stays."""

from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import pytest

from jivsd.records import Incident, Status
from jivsd.store.api import Delivered, Refused, RunFilter
from jivsd.store.removal import EVENT_BYTES, PruneCount
from jivsd.store.sqlite import SqliteStore, pruning
from jivsd.store.sqlite.database import MEMORY, query
from store.builders import Journal, append, end, new_run, post, start

LARGE = b'"' + b"x" * 70_000 + b'"'
EVERYTHING = ("run", "event", "payload", "inbox", "incident", "attribute", "lock_ticket")


@asynccontextmanager
async def opened():
    async with SqliteStore(MEMORY, threaded=False) as store:
        yield Journal(store, await store.open("node"))


async def left(j):
    """How many rows each table has."""
    return {
        table: await j.store._read(lambda db, table=table: query(db, f"SELECT count(*) FROM {table}").fetchall()[0][0])
        for table in EVERYTHING
    }


async def test_nothing_is_left_of_a_run_that_had_everything():
    async with opened() as j:
        run = new_run(workflow_id="a", lock_key="k")
        run.attributes = {"region": "eu"}
        entry = start(run, "key")
        entry.events = [msgspec.structs.replace(entry.events[0], payload=LARGE)]
        entry.incidents = [Incident("i1", "step", "x", 1, run.run_id)]
        await j.one(entry)
        await j.write(post(run, "read"), post(run, "unread"))
        await j.one(append(run, 2, consumed=["read"]))
        await j.one(end(run, 3))
        assert await j.prune(RunFilter()) == 1
        assert await left(j) == dict.fromkeys(EVERYTHING, 0)
        assert await j.store.check() == []
        assert await j.one(start(new_run(workflow_id="a"), "key")) == Refused("gone", run.run_id)


async def test_a_large_payload_goes_with_its_last_use():
    async with opened() as j:
        for name in ("a", "b"):
            run = new_run(workflow_id=name)
            entry = start(run)
            entry.events = [msgspec.structs.replace(entry.events[0], payload=LARGE)]
            await j.one(entry)
            await j.one(end(run, 2, at=1000))
        assert await j.prune(RunFilter(workflow_id="a")) == 1
        assert (await left(j))["payload"] == 1
        assert await j.store.check() == []
        assert await j.prune(RunFilter(workflow_id="b")) == 1
        assert (await left(j))["payload"] == 0


async def test_message_ids_stay_while_their_workflow_id_has_a_run():
    async with opened() as j:
        first = await j.start(workflow_id="a")
        await j.one(post(first, "m1"))
        await j.one(end(first, 2))
        later = await j.start(workflow_id="a")
        assert await j.prune(RunFilter()) == 1
        assert (await j.one(post(later, "m1"))).run_id == first.run_id
        await j.one(end(later, 2))
        assert await j.prune(RunFilter()) == 1
        assert (await left(j))["inbox"] == 0
        fresh = await j.start(workflow_id="a")
        assert await j.one(post(fresh, "m1")) == Delivered(fresh.run_id)


@pytest.mark.parametrize("open_one", ["parent", "child"])
async def test_a_family_with_an_open_member_stays_together(open_one):
    """A parent that comes back starts its child again if it is not there; a child's end goes to its parent."""
    async with opened() as j:
        parent = await j.start(workflow_id="parent")
        child = await j.start(workflow_id="child", parent=parent.run_id)
        other = await j.start(workflow_id="other")
        ended, still_open = (child, parent) if open_one == "parent" else (parent, child)
        await j.write(end(ended, 2, at=5), end(other, 2, at=6))
        assert (await j.store.prunable(RunFilter(), 10)).run_ids == [other.run_id]
        assert await j.store.count_prunable(RunFilter()) == [PruneCount("nap", Status.COMPLETED, 1)]
        assert await j.store.remove([ended.run_id, still_open.run_id, "no run"]) == 0
        await j.one(end(still_open, 2, at=7))
        assert await j.prune(RunFilter()) == 3
        assert await j.store.check() == []


async def test_what_is_counted_is_what_goes():
    async with opened() as j:
        for number in range(12):
            run = await j.start(workflow=("nap", "order")[number % 2])
            if number % 3:
                await j.one(end(run, 2, (Status.FAILED, Status.COMPLETED)[number % 4 == 0], at=100 + number))
        for where in (RunFilter(), RunFilter(ended_before=106), RunFilter(workflow="nap"), RunFilter(open_only=True)):
            counted = sum(count.runs for count in await j.store.count_prunable(where))
            assert counted == len((await j.store.prunable(where, 100)).run_ids)
        assert await j.prune(RunFilter(statuses=[Status.FAILED])) > 0
        assert await j.store.check() == []


async def test_journals_come_in_pages_bounded_by_their_bytes(monkeypatch):
    async with opened() as j:
        monkeypatch.setattr(pruning, "PAGE_BYTES", 3 * 2 * EVENT_BYTES)
        runs = []
        for number in range(8):
            run = await j.start()
            await j.one(end(run, 2, at=100 - number))
            runs.insert(0, run.run_id)
        found, sizes, cursor = [], [], None
        while not sizes or cursor is not None:
            page = await j.store.journals(RunFilter(), 100, cursor)
            sizes.append(len(page.items))
            found += [journal.run.run_id for journal in page.items]
            assert all([event.seq for event in journal.events] == [1, 2] for journal in page.items)
            cursor = page.next
        assert found == runs
        assert len(sizes) > 2


async def test_a_damaged_run_is_no_obstacle_and_is_not_taken_along():
    async with opened() as j:
        good, bad = await j.start(), await j.start()
        await j.write(end(good, 2, at=2), end(bad, 2, at=1))
        await j.store._write(lambda db: query(db, "UPDATE event SET path = 'x' WHERE run_id = ?", (bad.run_id,)))
        page = await j.store.journals(RunFilter(), 10)
        assert [journal.run.run_id for journal in page.items] == [good.run_id]
        assert bad.run_id in page.damaged[0]


async def test_keys_are_forgotten_when_they_are_old_and_their_run_is_gone(monkeypatch):
    async with opened() as j:
        monkeypatch.setattr(pruning, "KEYS", 2)
        runs = [new_run(workflow_id=f"id{number}", at=1000 + number) for number in range(6)]
        for number, run in enumerate(runs):
            await j.write(start(run, f"key{number}"), end(run, 2, at=2000 + number))
        await j.prune(RunFilter(ended_before=2004))
        forgotten, after = 0, ("", "")
        while after is not None:
            count, after = await j.store.forget_keys(1003, after)
            forgotten += count
        assert forgotten == 3
        assert (await j.one(start(new_run(), "key3"))).why == "gone"
        assert (await j.one(start(new_run(), "key5"))).run.run_id == runs[5].run_id


async def test_counts_are_checked():
    async with opened() as j:
        await j.start()
        await j.store._write(lambda db: query(db, "UPDATE run_count SET runs = 7"))
        assert await j.store.check() == ["the runs of workflow 'nap' that are RUNNING are miscounted"]


async def test_free_room_is_given_back(tmp_path):
    path = tmp_path / "jivsd.db"
    async with SqliteStore(path, threaded=False) as store:
        j = Journal(store, await store.open("node"))
        for _ in range(100):
            run = await j.start()
            await j.one(append(run, 2, 3))
            await j.one(end(run, 4, at=5))
        await j.prune(RunFilter())
        total, left_over = 0, 1
        while left_over:
            freed, left_over = await store.shrink()
            total += freed
        assert total > 50_000
        assert await store.check() == []
    assert path.stat().st_size < 300_000
