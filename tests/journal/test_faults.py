"""Runs that live through a store's faults: nothing acknowledged is lost, nothing doubled, each run's order kept."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random

import msgspec
import pytest
import trio
from databases import NEWEST
from store.builders import end, event, new_run, post, start
from store.faulty import FaultyStore

from jivsd.journal import Committer, committer
from jivsd.records import encode
from jivsd.store.api import Delivered, Duplicate, Entry, Refused, Written
from jivsd.store.postgres import PostgresStore
from jivsd.store.sqlite import SqliteStore
from jivsd.store.txstep import TxStep

pytestmark = pytest.mark.jump

RUNS = 8
TOKENS = 12
MESSAGES = 3


class Life:
    """A run that appends tokens in order, some of them by transaction steps, and reads its messages."""

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.run = new_run(workflow_id=f"id{number}")
        self.acknowledged = []
        self.stamp = itertools.count()

    async def live(self):
        await self.insist(lambda: start(self.run))
        while True:
            journal = await self.world.inner.events(self.run.run_id)
            done = [self.token(event) for event in journal[1:]]
            todo = [token for token in range(TOKENS) if token not in done]
            unread = await self.world.inner.messages(self.run.run_id)
            if len(done) == TOKENS + MESSAGES:
                break
            if todo or unread:
                await self.burst(len(journal) + 1, todo, unread)
            else:
                await trio.sleep(0.1)
        await self.insist(lambda: end(self.run, len(journal) + 1))

    async def insist(self, make):
        """Submit an entry until it is written."""
        while True:
            verdict = await self.world.committer.submit_and_wait(make())
            if isinstance(verdict, Written):
                return
            await self.recover(verdict)

    async def burst(self, seq, todo, unread):
        """Submit some entries without waiting for one to be written before the next."""
        random = self.world.random
        submitted = []
        for message in unread[:1]:
            read = self.event(seq, message.message_id)
            submitted.append(Entry(self.run.run_id, self.run.shard, events=[read], consumed=[message.message_id]))
            seq += 1
        for token in todo[: random.randint(1, 3)]:
            make = self.transaction if self.world.transactions and token % 4 == 3 else self.plain
            submitted.append(make(seq, token))
            seq += 1
        verdicts = []
        told = trio.Event()

        def done(verdict):
            verdicts.append(verdict)
            if len(verdicts) == len(submitted):
                told.set()

        for entry in submitted:
            self.world.committer.submit(entry, done)
            if random.random() < 0.3:
                await trio.sleep(random.random() * 0.02)
        await told.wait()
        for entry, verdict in zip(submitted, verdicts, strict=True):
            if isinstance(verdict, Written):
                self.acknowledged += [verdict.tx_event] if entry.tx else entry.events
        refused = [verdict for verdict in verdicts if not isinstance(verdict, Written)]
        assert verdicts[len(verdicts) - len(refused) :] == refused, "after one that was refused all are"
        if refused:
            await self.recover(refused[0])

    async def recover(self, verdict):
        assert isinstance(verdict, Refused)
        assert verdict.why in ("fenced", "away"), verdict
        if verdict.why == "fenced":
            self.world.committer.epochs[self.run.shard] = await self.world.store.epoch_of(self.run.shard)
        await trio.sleep(0.05)

    def event(self, seq, token):
        # Each attempt differs in content: only a repetition by the committer itself is equal byte for byte.
        return event(self.run, seq, encode([token, next(self.stamp)]))

    def plain(self, seq, token):
        return Entry(self.run.run_id, self.run.shard, events=[self.event(seq, token)])

    def transaction(self, seq, token):
        record = self.event(seq, token)

        def body(tx):
            with pytest.raises(StopIteration):
                tx.execute("INSERT INTO effect VALUES (?, ?)", (self.run.run_id, token)).send(None)
            return record

        def failed(error):
            raise AssertionError(f"no step may fail here: {error!r}")

        return Entry(self.run.run_id, self.run.shard, tx=TxStep(seq, body, failed))

    @staticmethod
    def token(event):
        return msgspec.json.decode(event.payload)[0]

    async def verify(self):
        journal = await self.world.inner.events(self.run.run_id)
        tokens = [self.token(event) for event in journal[1:-1]]
        assert [token for token in tokens if isinstance(token, int)] == list(range(TOKENS))
        assert sorted(token for token in tokens if isinstance(token, str)) == [f"m{n}" for n in range(MESSAGES)]
        assert set(self.acknowledged) <= set(journal)
        assert len(self.acknowledged) == len(set(self.acknowledged))


class World:
    """Runs and people who send them messages, over one committer and a store with faults."""

    def __init__(self, seed, inner, epoch, faults):
        self.transactions = isinstance(inner, SqliteStore)
        self.random = Random(seed)
        self.inner = inner
        self.store = FaultyStore(inner, self.random, rate=0.6, faults=faults)
        self.committer = Committer(self.store, node="node-a", epoch=epoch, cap=lambda: self.random.randint(1, 12))
        self.lives = [Life(self, number) for number in range(RUNS)]

    async def send(self, life):
        for number in range(MESSAGES):
            while True:
                await trio.sleep(self.random.random())
                verdict = await self.committer.submit_and_wait(post(life.run, f"m{number}"))
                if isinstance(verdict, Delivered | Duplicate):
                    break
                assert verdict.why in ("away", "not_found")

    async def unfold(self):
        if self.transactions:
            await self.inner._write(lambda db: db.execute("CREATE TABLE effect (run_id TEXT, token INTEGER)"))
        async with trio.open_nursery() as nursery:
            await nursery.start(self.committer.run)
            async with trio.open_nursery() as living:
                for life in self.lives:
                    living.start_soon(life.live)
                    living.start_soon(self.send, life)
            await self.committer.drain()
            nursery.cancel_scope.cancel()
        await self.store.settle()

    async def verify(self):
        for life in self.lives:
            await life.verify()
            assert await self.inner.messages(life.run.run_id) == []
        if self.transactions:
            effects = await self.inner._read(lambda db: db.execute("SELECT run_id, token FROM effect").fetchall())
            steps = {(life.run.run_id, token) for life in self.lives for token in range(TOKENS) if token % 4 == 3}
            assert Counter(effects) == Counter(steps), "each transaction step's writes count once"
        assert (await self.inner.counts()) == {"COMPLETED": RUNS, "paused": 0, "incidents": 0, "unread": 0}
        assert await self.inner.check() == []


async def unfold(seed, faults, inner=None):
    async with inner or SqliteStore(":memory:", threaded=False) as inner:
        world = World(seed, inner, await inner.open("node-a"), faults)
        with trio.fail_after(3600):
            await world.unfold()
        await world.verify()
        return world.store.counts


FAULTS = ("fence", "lost", "never", "later", "away", "busy")


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """Batches are written in a row already when two entries wait."""
    monkeypatch.setattr(committer, "ENOUGH", 2)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_by_itself(fault):
    counts = await unfold(1, (fault,))
    assert counts[fault] > 5
    assert counts["in a row"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_all_faults_together(seed):
    counts = await unfold(seed, FAULTS)
    assert set(counts) >= {*FAULTS, "none"}


@pytest.fixture
def on_postgres(postgres):
    return PostgresStore(postgres(NEWEST).clean(), threaded=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_all_faults_together_on_postgresql(on_postgres, seed):
    counts = await unfold(seed, FAULTS, on_postgres)
    assert set(counts) >= {*FAULTS, "none"}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, 1000, 50))
async def test_all_faults_together_for_long(first):
    for seed in range(first, first + 50):
        await unfold(seed, FAULTS)
