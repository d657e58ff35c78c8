"""The committer: groups, order, and what it does when the store does not answer as it should."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import msgspec
import pytest
import trio
import trio.testing
from store.builders import AT, append, end, new_run, post, start

from jivsd.journal import Committer
from jivsd.store.api import (
    Busy,
    Delivered,
    Duplicate,
    Entry,
    Existing,
    OutcomeUnknown,
    Post,
    Refused,
    StoreAway,
    StoreError,
    Written,
)
from jivsd.store.sqlite import SqliteStore

pytestmark = pytest.mark.jump


class Gate:
    """A store whose commits wait at a gate, and may be told to fail: `answers` are raised or replace the verdicts."""

    def __init__(self, inner):
        self.inner = inner
        self.batches = []
        self.answers = []
        self.raises = []
        self.raised = []
        self.open = trio.Event()
        self.open.set()

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def shut(self):
        self.open = trio.Event()

    async def let_go_when_all_wait(self):
        await trio.testing.wait_all_tasks_blocked()
        self.open.set()

    async def commit(self, batch, more=None):
        self.batches.append(list(batch))
        await self.open.wait()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer(batch)
        return await self.inner.commit(batch)

    async def raise_epoch(self, node, shards):
        self.raised.append(dict(shards))
        if self.raises:
            raise self.raises.pop(0)
        return await self.inner.raise_epoch(node, shards)


class Bench:
    """A committer over a store in memory, and what it said."""

    def __init__(self, store, epoch, **options):
        self.store = store
        self.told = []
        self.away = []
        self.fenced = []
        self.sizes = []
        self.committer = Committer(
            store,
            node="node-a",
            epoch=epoch,
            on_batch=lambda entries, seconds: self.sizes.append(entries),
            on_fenced=lambda fenced: self.fenced.append(len(fenced)),
            on_away=self.away.append,
            **options,
        )

    def submit(self, name, entry):
        self.committer.submit(entry, lambda verdict: self.told.append((name, verdict)))

    async def started(self, **options):
        run = new_run(**options)
        assert await self.committer.submit_and_wait(start(run)) == Written()
        self.store.batches.clear()
        self.sizes.clear()
        return run

    async def seqs(self, run):
        return [event.seq for event in await self.store.events(run.run_id)]


@asynccontextmanager
async def bench(*, running=True, **options):
    async with SqliteStore(":memory:", threaded=False) as inner:
        b = Bench(Gate(inner), await inner.open("node-a"), **options)
        async with trio.open_nursery() as nursery:
            if running:
                await nursery.start(b.committer.run)
            b.nursery = nursery
            yield b
            nursery.cancel_scope.cancel()


async def test_what_comes_while_a_batch_is_written_is_the_next_batch():
    async with bench() as b:
        runs = [await b.started() for _ in range(3)]
        b.store.shut()
        b.submit("a2", append(runs[0], 2))
        await trio.testing.wait_all_tasks_blocked()
        for name, run in zip("abc", runs, strict=True):
            for seq in (3, 4) if name == "a" else (2, 3):
                b.submit(f"{name}{seq}", append(run, seq))
        assert b.committer.pending == 7
        b.store.open.set()
        await b.committer.drain()
        assert [len(batch) for batch in b.store.batches] == b.sizes == [1, 6]
        assert b.told == [(name, Written()) for name in ("a2", "a3", "a4", "b2", "b3", "c2", "c3")]
        assert b.committer.pending == 0


async def test_a_batch_is_capped_as_the_engine_says():
    sizes = iter([3, 0, 5])
    async with bench(cap=lambda: next(sizes), running=False) as b:
        runs = [new_run() for _ in range(9)]
        for number, run in enumerate(runs):
            b.submit(number, start(run))
        await b.nursery.start(b.committer.run)
        await b.committer.drain()
        assert b.sizes == [3, 1, 5], "one at least"
        assert [name for name, _ in b.told] == list(range(9))


async def test_one_refused_the_later_ones_too():
    async with bench() as b:
        run, other = await b.started(), await b.started()
        b.store.shut()
        b.submit("stale", append(run, 1))
        await trio.testing.wait_all_tasks_blocked()
        b.submit("later", append(run, 2))
        b.submit("other", append(other, 2))
        b.submit("post", post(run, "m1"))
        b.submit("last", append(run, 3))
        b.store.open.set()
        await b.committer.drain()
        refused = Refused("exists", run.run_id)
        assert b.told == [
            ("stale", refused),
            ("later", refused),
            ("last", refused),
            ("other", Written()),
            ("post", Delivered(run.run_id)),
        ]
        assert await b.seqs(run) == [1]


async def test_a_refused_start_takes_nothing_with_it():
    """A parent that comes back starts its child again, while the child lives and writes."""
    async with bench() as b:
        run = await b.started()
        b.store.shut()
        b.submit("again", start(new_run(run_id=run.run_id, workflow_id=run.workflow_id, at=5)))
        await trio.testing.wait_all_tasks_blocked()
        b.submit("append", append(run, 2))
        b.store.open.set()
        await b.committer.drain()
        assert b.told == [("again", Refused("exists", run.run_id)), ("append", Written())]


async def test_who_is_told_may_submit_at_once():
    async with bench() as b:
        run = await b.started()

        def go_on(seq, verdict):
            b.told.append((seq, verdict))
            if seq < 5:
                b.committer.submit(append(run, seq + 1), partial(go_on, seq + 1))

        b.committer.submit(append(run, 2), partial(go_on, 2))
        await b.committer.drain()
        assert b.told == [(seq, Written()) for seq in (2, 3, 4, 5)]


async def test_an_entry_refused_and_written_anew_by_who_was_told():
    async with bench() as b:
        run = await b.started()
        b.store.answers = [lambda batch: [Refused("fenced")]]

        def again(verdict):
            b.told.append(("first", verdict))
            b.submit("second", append(run, 2))

        b.committer.submit(append(run, 2), again)
        await b.committer.drain()
        assert b.told == [("first", Refused("fenced")), ("second", Written())]
        assert b.fenced == [1]


async def test_a_held_row_keeps_only_its_run_waiting():
    async with bench() as b:
        held, other = await b.started(), await b.started()

        def hold(batch):
            return [Busy() if entry.run_id == held.run_id else Written() for entry in batch]

        b.store.answers = [hold, hold, hold]
        b.submit("h2", append(held, 2))
        b.submit("o2", append(other, 2))
        b.submit("h3", append(held, 3))
        await b.committer.drain()
        assert b.told == [("o2", Written()), ("h2", Written()), ("h3", Written())]
        assert await b.seqs(held) == [1, 2, 3]
        assert b.sizes == [3, 2, 2, 2]


async def test_a_row_held_for_long_is_not_asked_for_without_pause():
    async with bench() as b:
        run = await b.started()
        asked = []

        def hold(batch):
            asked.append(trio.current_time())
            return [Busy()]

        b.store.answers = [hold] * 10
        b.submit("end", end(run, 2))
        await b.committer.drain()
        assert min(later - earlier for earlier, later in pairwise(asked)) == pytest.approx(0.01)


async def test_while_the_store_is_away_entries_are_kept_and_outsiders_are_told():
    async with bench() as b:
        run = await b.started()
        full = StoreAway("no space left on device")
        b.store.answers = [full] * 4
        b.submit("append", append(run, 2))
        b.submit("start", start(new_run(workflow_id="x"), "key"))
        b.submit("post", post(run, "m1"))
        b.submit("child", start(child := new_run(parent=run.run_id)))
        await trio.testing.wait_all_tasks_blocked(0.001)
        away = Refused("away", detail=str(full))
        assert b.told == [("start", away), ("post", away)]
        assert b.committer.away == "no space left on device"
        b.submit("append 3", append(run, 3))
        b.submit("post again", post(run, "m1"))
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert b.told[2:] == [("post again", away)], "at once, not after the next attempt"
        await b.committer.drain()
        assert b.told[3:] == [("append", Written()), ("child", Written()), ("append 3", Written())]
        assert b.away == ["no space left on device", None]
        assert b.committer.away is None
        assert await b.seqs(run) == [1, 2, 3]
        assert await b.seqs(child) == [1]


async def test_attempts_come_less_and_less_often():
    async with bench() as b:
        run = await b.started()
        times = []

        async def commit(batch, more=None):
            times.append(trio.current_time())
            if len(times) < 12:
                raise StoreAway("read-only")
            return await b.store.inner.commit(batch)

        b.store.commit = commit
        assert await b.committer.submit_and_wait(append(run, 2)) == Written()
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2, 2])


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_reply_is_found_out_after_the_epoch_was_raised(committed):
    async with bench() as b:
        run, other = await b.started(workflow_id="a"), await b.started(workflow_id="b")
        assert run.shard != other.shard
        epoch = b.committer.epochs[run.shard]
        if committed:
            early = append(run, 2)
            early.epoch = epoch
            await b.store.inner.commit([early, post(run, "m1")])
        b.store.answers = [OutcomeUnknown("connection reset")]
        b.submit("append", append(run, 2))
        b.submit("post", post(run, "m1"))
        await b.committer.drain()
        assert b.told == [("append", Written()), ("post", Delivered(run.run_id))]
        assert b.store.raised == [{run.shard: epoch}]
        assert b.committer.epochs[run.shard] == epoch + 1
        assert b.committer.epochs[other.shard] == epoch
        b.submit("next", append(run, 3))
        b.submit("other", append(other, 2))
        b.submit("again", post(run, "m1"))
        await b.committer.drain()
        assert b.told[2:] == [("next", Written()), ("other", Written()), ("again", Duplicate(run.run_id, unread=AT))]


@pytest.mark.parametrize("read", [True, False])
async def test_a_message_that_was_there_before_a_lost_reply_is_not_handed_over_again(read):
    """It would be, to a run that has read it since, or for a sender who repeats what was acknowledged."""
    async with bench() as b:
        run = await b.started(workflow_id="a")
        await b.store.inner.commit([post(run, "m1")])
        if read:
            early = append(run, 2, consumed=["m1"])
            early.epoch = b.committer.epochs[run.shard]
            await b.store.inner.commit([early])
        b.store.answers = [OutcomeUnknown("connection reset")]
        again = post(run, "m1")
        if not read:
            again.message = msgspec.structs.replace(again.message, at=AT + 1)
        b.submit("again", again)
        await b.committer.drain()
        assert b.told == [("again", Duplicate(run.run_id, unread=None if read else AT))]


async def test_other_shards_go_on_while_an_outcome_is_found_out():
    async with bench() as b:
        run, other = await b.started(workflow_id="a"), await b.started(workflow_id="b")
        b.store.answers = [OutcomeUnknown("connection reset")]
        b.store.raises = [StoreAway("no answer"), OutcomeUnknown("no answer"), StoreAway("no answer")]
        b.submit("a2", append(run, 2))
        await trio.testing.wait_all_tasks_blocked(0.001)
        b.submit("a3", append(run, 3))
        b.submit("b2", append(other, 2))
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert b.told == [("b2", Written())]
        await b.committer.drain()
        assert b.told[1:] == [("a2", Written()), ("a3", Written())]
        assert len(b.store.raised) == 4
        assert await b.seqs(run) == [1, 2, 3]


async def test_a_shard_lost_meanwhile_is_fenced():
    async with bench() as b:
        run = await b.started()
        b.store.answers = [OutcomeUnknown("connection reset")]
        await b.store.inner.raise_epoch("node-a", {run.shard: b.committer.epochs[run.shard]})  # by another node
        b.submit("append", append(run, 2))
        b.submit("next", append(run, 3))
        await b.committer.drain()
        assert b.told == [("append", Refused("fenced")), ("next", Refused("fenced"))]
        assert b.fenced == [2]


async def test_a_later_life_of_a_run_is_not_refused_with_an_earlier_one():
    async with bench() as b:
        run = await b.started()
        b.submit("earlier", append(run, 2))
        (epoch,) = (await b.store.inner.raise_epoch("node-a", {run.shard: b.committer.epochs[run.shard]})).values()
        b.submit("earlier", append(run, 3))
        b.committer.hold({run.shard: epoch})
        b.submit("later", append(run, 2))
        await b.committer.drain()
        fenced = Refused("fenced")
        assert b.told == [("earlier", fenced), ("earlier", fenced), ("later", Written())]


async def test_an_outsider_whose_start_may_be_there_is_not_told_to_come_again():
    async with bench() as b:
        run = new_run()
        b.store.answers = [OutcomeUnknown("connection reset"), StoreAway("full"), StoreAway("full")]
        b.submit("start", start(run, "key"))
        await b.committer.drain()
        assert b.told == [("start", Written())]
        assert isinstance(await b.committer.submit_and_wait(start(new_run(), "key")), Existing)


async def test_cancelled_in_the_middle_of_a_commit_everyone_is_told_all_the_same():
    async with bench(running=False) as b:
        async with trio.open_nursery() as nursery:
            await nursery.start(b.committer.run)
            run = await b.started()
            b.store.shut()
            b.submit("a2", append(run, 2))
            await trio.testing.wait_all_tasks_blocked()
            b.submit("a3", append(run, 3))
            nursery.cancel_scope.cancel()
            b.nursery.start_soon(b.store.let_go_when_all_wait)
        assert b.told == [("a2", Written())]
        assert b.committer.pending == 1
        await b.nursery.start(b.committer.run)
        await b.committer.drain()
        assert b.told == [("a2", Written()), ("a3", Written())]


async def test_a_crash_of_the_committer_loses_nothing():
    async with bench(running=False) as b:
        run = new_run()
        b.store.answers = [StoreError("the database is damaged")]
        b.submit("start", start(run))
        b.submit("append", append(run, 2))
        with pytest.raises(ExceptionGroup) as crash:
            await b.committer.run()
        assert crash.group_contains(StoreError, match="damaged")
        assert b.committer.pending == 2
        await b.nursery.start(b.committer.run)
        await b.committer.drain()
        assert b.told == [("start", Written()), ("append", Written())]


async def test_a_crash_while_an_outcome_is_unknown_is_found_out_by_the_next_life():
    async with bench(running=False) as b:
        run, other = new_run(workflow_id="a"), new_run(workflow_id="b")
        b.store.answers = [OutcomeUnknown("connection reset"), StoreError("damaged")]
        b.store.raises = [StoreAway("no answer")] * 3
        b.submit("start", start(run))

        async def disturb():
            await trio.sleep(0.01)
            b.submit("other", append(other, 2))
            b.submit("post", post(run, "m1"))

        with pytest.raises(ExceptionGroup):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(disturb)
                await b.committer.run()
        await b.nursery.start(b.committer.run)
        await b.committer.drain()
        assert sorted(name for name, _ in b.told) == ["other", "post", "start"]
        assert b.told.index(("start", Written())) < b.told.index(("post", Delivered(run.run_id)))


async def test_someone_told_who_fails_keeps_nobody_else_from_hearing():
    async with bench(running=False) as b:
        runs = [new_run() for _ in range(3)]

        def fail(verdict):
            raise ValueError("deaf")

        b.submit("a", start(runs[0]))
        b.committer.submit(start(runs[1]), fail)
        b.submit("c", start(runs[2]))
        with pytest.raises(ExceptionGroup) as crash:
            await b.committer.run()
        assert crash.group_contains(ValueError, match="deaf")
        assert b.told == [("a", Written()), ("c", Written())]
        assert b.committer.pending == 0


async def test_draining_an_idle_committer_returns_at_once():
    async with bench() as b:
        with trio.fail_after(1):
            await b.committer.drain()


async def test_a_caller_who_leaves_does_not_take_the_entry_back():
    async with bench() as b:
        run = new_run()
        b.store.shut()
        with trio.move_on_after(1):
            await b.committer.submit_and_wait(start(run))
        b.store.open.set()
        await b.committer.drain()
        assert await b.seqs(run) == [1]


async def test_the_epoch_at_submission_counts():
    async with bench() as b:
        run = await b.started()
        b.store.shut()
        entry = append(run, 2)
        b.submit("before", entry)
        await trio.testing.wait_all_tasks_blocked()
        late = append(run, 3)
        b.submit("after", late)
        b.committer.epochs[run.shard] += 5
        assert max(b.committer.epochs) == b.committer.epochs[run.shard]
        b.store.open.set()
        await b.committer.drain()
        assert isinstance(late, Entry)
        assert late.epoch == entry.epoch
        assert not math.isnan(max(b.committer.epochs))


def heavy(run, seq, size):
    payload = b'"' + b"x" * size + b'"'
    (event,) = append(run, seq).events
    return Entry(run.run_id, run.shard, events=[msgspec.structs.replace(event, payload=payload)])


async def test_what_is_large_goes_in_batches_that_a_store_takes_in_time():
    async with bench() as b:
        runs = [await b.started() for _ in range(7)]
        b.store.batches.clear()
        for number, run in enumerate(runs[:5]):
            b.submit(number, heavy(run, 2, 3 << 20))
        b.submit(5, append(runs[5], 2))
        b.submit(6, heavy(runs[6], 2, 20 << 20))
        await b.committer.drain()
        assert [len(batch) for batch in b.store.batches] == [2, 2, 2, 1]
        assert b.told == [(number, Written()) for number in range(7)]
        b.store.batches.clear()
        for number, run in enumerate(runs):
            b.submit(number, append(run, 3))
        await b.committer.drain()
        assert [len(batch) for batch in b.store.batches] == [7]


async def test_a_large_message_is_written_alone_when_another_one_waits():
    async with bench() as b:
        runs = [await b.started() for _ in range(2)]
        b.store.batches.clear()
        for number, run in enumerate(runs):
            message = msgspec.structs.replace(post(run, f"m{number}").message, payload=b'"' + b"x" * (5 << 20) + b'"')
            b.submit(number, Post(message))
        await b.committer.drain()
        assert [len(batch) for batch in b.store.batches] == [1, 1]
