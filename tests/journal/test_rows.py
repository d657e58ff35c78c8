"""Batches in a row: the store helps itself to the next one, as long as all goes well."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from store.builders import append, new_run, start

from jivsd.journal import Committer, committer
from jivsd.store.api import Busy, Entry, OutcomeUnknown, Refused, StoreAway, TxStep, Written
from jivsd.store.sqlite import SqliteStore

pytestmark = pytest.mark.jump


class Row:
    """A store that asks for more; `answers` are raised, or take the place of the verdicts, batch by batch."""

    def __init__(self, inner):
        self.inner = inner
        self.rows = []
        """For each call, the batches that it wrote."""
        self.answers = {}
        self.raised = []
        self.number = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def commit(self, batch, more=None):
        row = []
        self.rows.append(row)
        while batch:
            row.append(list(batch))
            verdicts = await self._write(batch)
            batch = more(verdicts)
        return verdicts

    async def _write(self, batch):
        self.number += 1
        answer = self.answers.pop(self.number, None)
        if isinstance(answer, Exception):
            raise answer
        verdicts = await self.inner.commit(batch)
        return verdicts if answer is None else answer(batch, verdicts)

    async def raise_epoch(self, node, shards):
        self.raised.append(set(shards))
        return await self.inner.raise_epoch(node, shards)


class Bench:
    def __init__(self, store, epoch):
        self.store = store
        self.told = []
        self.sizes = []
        self.committer = Committer(
            store,
            node="node-a",
            epoch=epoch,
            cap=lambda: 2,
            on_batch=lambda entries, seconds: self.sizes.append(entries),
        )

    def submit(self, name, entry):
        self.committer.submit(entry, lambda verdict: self.told.append((name, verdict)))


@asynccontextmanager
async def bench(monkeypatch, *, enough=2, running=True):
    monkeypatch.setattr(committer, "ENOUGH", enough)
    async with SqliteStore(":memory:", threaded=False) as inner:
        b = Bench(Row(inner), await inner.open("node-a"))
        async with trio.open_nursery() as nursery:
            if running:
                await nursery.start(b.committer.run)
            b.nursery = nursery
            yield b
            nursery.cancel_scope.cancel()


async def started(b, number):
    runs = [new_run() for _ in range(number)]
    for run in runs:
        assert await b.committer.submit_and_wait(start(run)) == Written()
    b.store.rows.clear()
    b.store.number = 0
    b.sizes.clear()
    return runs


async def test_batches_follow_one_another_as_long_as_enough_waits(monkeypatch):
    async with bench(monkeypatch) as b:
        runs = await started(b, 7)
        for number, run in enumerate(runs):
            b.submit(number, append(run, 2))
        assert b.committer.pending == 7
        await b.committer.drain()
        assert [[len(batch) for batch in row] for row in b.store.rows] == [[2, 2, 2], [1]]
        assert b.told == [(number, Written()) for number in range(7)]
        assert b.sizes == [2, 2, 2, 1]
        assert b.committer.pending == 0


async def test_a_batch_that_is_less_than_half_full_is_left_to_the_next_turn(monkeypatch):
    async with bench(monkeypatch) as b:
        runs = await started(b, 9)
        b.committer._cap = lambda: 6
        for number, run in enumerate(runs[:8]):
            b.submit(number, append(run, 2))
        b.submit("other", append(runs[8], 2))
        await b.committer.drain()
        assert [[len(batch) for batch in row] for row in b.store.rows] == [[6, 3]]
        b.store.rows.clear()
        for number, run in enumerate(runs[:8]):
            b.submit(number, append(run, 3))
        await b.committer.drain()
        assert [[len(batch) for batch in row] for row in b.store.rows] == [[6], [2]]


async def test_those_of_the_first_batches_are_told_while_others_are_written(monkeypatch):
    async with bench(monkeypatch) as b:
        heard = []
        b.store.answers[2] = lambda batch, verdicts: heard.append(b.committer.starting()) or verdicts
        news = [new_run() for _ in range(4)]
        for number, run in enumerate(news):
            b.submit(number, start(run))
        await b.committer.drain()
        (known,) = heard
        assert {run.run_id for run in news[2:]} <= known, "those of the second batch have no verdict yet"
        assert [number for number, _ in b.told] == [0, 1, 2, 3]


@pytest.mark.parametrize("why", ["fenced", "busy"])
async def test_a_verdict_that_decides_over_what_waits_ends_the_row(why, monkeypatch):
    verdict = Busy() if why == "busy" else Refused("fenced")
    async with bench(monkeypatch) as b:
        runs = await started(b, 3)
        b.store.answers[1] = lambda batch, verdicts: [verdict, *verdicts[1:]]
        for run in runs[:2]:
            b.submit("first", append(run, 2))
        for run in (runs[0], runs[2], runs[0]):
            b.submit("second", append(run, 3 if run is runs[0] else 2))
        await b.committer.drain()
        assert len(b.store.rows[0]) == 1, "somebody looked before the next batch was written"
        later = [entry for row in b.store.rows[1:] for batch in row for entry in batch]
        if why == "fenced":
            assert runs[0].run_id not in {entry.run_id for entry in later}
            assert [one for one in b.told if isinstance(one[1], Refused)] == [
                ("first", verdict),
                ("second", verdict),
                ("second", verdict),
            ]
        else:
            seqs = [entry.events[0].seq for entry in later if entry.run_id == runs[0].run_id]
            assert seqs[:2] == [2, 3], "in order"


@pytest.mark.parametrize("error", [StoreAway("full"), OutcomeUnknown("cut")], ids=["away", "unknown"])
async def test_what_goes_wrong_in_a_row_concerns_its_last_batch_alone(error, monkeypatch):
    async with bench(monkeypatch) as b:
        runs = await started(b, 6)
        b.store.answers[2] = error
        for number, run in enumerate(runs):
            b.submit(number, append(run, 2))
        await b.committer.drain()
        assert [len(batch) for batch in b.store.rows[0]] == [2, 2]
        repeated = {entry.run_id for row in b.store.rows[1:] for batch in row for entry in batch}
        assert repeated == {run.run_id for run in runs[2:]}, "what was written is not written again"
        assert sorted(b.told) == [(number, Written()) for number in range(6)]
        unsure = {runs[2].shard, runs[3].shard} if isinstance(error, OutcomeUnknown) else set()
        assert set().union(*b.store.raised) == unsure
        for run in runs:
            assert [event.seq for event in await b.store.events(run.run_id)] == [1, 2]


async def test_someone_told_who_fails_keeps_nobody_of_a_row_from_hearing(monkeypatch):
    def fail(verdict):
        raise RuntimeError("planted")

    async with bench(monkeypatch, running=False) as b:
        runs = [new_run() for _ in range(6)]
        b.committer.submit(start(runs[0]), fail)
        for number, run in enumerate(runs[1:]):
            b.submit(number, start(run))
        with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="planted"))):
            await b.committer.run()
        b.nursery.start_soon(b.committer.run)
        await b.committer.drain()
        assert b.told == [(number, Written()) for number in range(5)]
        assert b.committer.pending == 0


async def test_a_transaction_step_is_begun_on_trios_thread(monkeypatch):
    async with bench(monkeypatch) as b:
        runs = await started(b, 4)
        record = append(runs[2], 2).events[0]
        step = TxStep(2, lambda tx: record, lambda error: record)
        for number, run in enumerate(runs):
            entry = Entry(run.run_id, run.shard, tx=step) if number == 2 else append(run, 2)
            b.submit(number, entry)
        await b.committer.drain()
        assert [[len(batch) for batch in row] for row in b.store.rows] == [[2], [2]]
        assert [number for number, _ in b.told] == [0, 1, 2, 3]


async def test_a_row_ends_after_a_while(monkeypatch):
    monkeypatch.setattr(committer, "ROW", 0)
    async with bench(monkeypatch) as b:
        runs = await started(b, 4)
        for number, run in enumerate(runs):
            b.submit(number, append(run, 2))
        await b.committer.drain()
        assert [[len(batch) for batch in row] for row in b.store.rows] == [[2], [2]]


class Changing(deque):
    """Another thread adds something as soon as somebody begins to go through it."""

    def __iter__(self):
        beginning = super().__iter__()
        self.append(self.pop())
        return beginning


async def test_entries_come_while_the_thread_of_the_store_takes_the_next_batch(monkeypatch):
    async with bench(monkeypatch, running=False) as b:
        b.committer._waiting = Changing()
        run = new_run()
        for seq in range(2, 7):
            b.submit(seq, append(run, seq) if seq > 2 else start(run))
        await b.nursery.start(b.committer.run)
        await b.committer.drain()
        assert [[len(batch) for batch in row] for row in b.store.rows] == [[2, 2], [1]]
