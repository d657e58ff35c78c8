"""A store that does to its callers what networks, disks and other nodes do, as a seed decides."""

from __future__ import annotations

import copy
from collections import Counter

import trio

from jivsd.store.api import Busy, Entry, OutcomeUnknown, StoreAway
from jivsd.store.postgres import PostgresStore


async def ask(store, sql):
    """The rows of a query, from the database behind a store of either kind. Tables are named without a schema."""
    if isinstance(store, PostgresStore):
        found = await store._read(lambda db: db.fetch(sql.replace("FROM ", f"FROM {store.address.schema}.")))
        return [tuple(row) for row in found]
    return await store._read(lambda db: db.execute(sql).fetchall())


class FaultyStore:
    """Wraps a store. `plan` says what happens to each commit; what it does not know goes through unharmed.

    Faults: "fence" (another node takes a shard of the batch first), "lost" (committed, the reply is lost), "never" (not
    committed, the reply is lost), "later" (the reply is lost, and it lands after the caller has looked again), "away",
    "busy" (somebody holds the row of one run of the batch).
    It watches what its caller does, too: after an unknown outcome a shard is written to only under a raised epoch.
    """

    def __init__(self, inner, random, *, rate=0.5, faults=("fence", "lost", "never", "later", "away", "busy")):
        self.inner = inner
        self.rate = rate
        self.counts = Counter()
        self._random = random
        self._faults = faults
        self._late = []
        self._unknown = {}
        """Shard to the epoch under which a commit's outcome is unknown."""

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def commit(self, batch, more=None):
        while True:
            verdicts = await self._write(batch)
            batch = more(verdicts) if more is not None else []
            if not batch:
                return verdicts
            self.counts["in a row"] += 1

    async def _write(self, batch):
        await trio.sleep(self._random.random() * 0.01)
        entries = [entry for entry in batch if isinstance(entry, Entry)]
        for entry in entries:
            if entry.shard in self._unknown:
                epoch = await self.epoch_of(entry.shard)
                assert epoch > self._unknown[entry.shard], "written again before the first attempt was shut out"
        fault = self._random.choice(self._faults) if self._random.random() < self.rate else "none"
        if fault in ("fence", "busy") and not entries:
            fault = "none"
        self.counts[fault] += 1
        verdicts = await getattr(self, f"_{fault}")(batch, entries)
        for entry in entries:
            self._unknown.pop(entry.shard, None)
        if self._late and self._random.random() < 0.5:
            await self._land()
        return verdicts

    async def raise_epoch(self, node, shards):
        await trio.sleep(self._random.random() * 0.02)
        if self._late and self._random.random() < 0.3:
            await self._land()  # raising an epoch waits for a commit that is under way
        if self._faults and self._random.random() < self.rate / 3:
            raise StoreAway("away while raising an epoch")
        return await self.inner.raise_epoch(node, shards)

    async def settle(self):
        """Land what is still under way."""
        while self._late:
            await self._land()

    async def take_over(self, shard):
        """Another node claims a shard, and gives it back: return the epoch that it has then."""
        raised = await self.inner.raise_epoch("node-a", {shard: await self.epoch_of(shard)})
        return raised[shard]

    async def epoch_of(self, shard):
        """The epoch that a shard really has."""
        return dict(await ask(self.inner, "SELECT id, epoch FROM shard"))[shard]

    async def _land(self):
        batch = self._late.pop(self._random.randrange(len(self._late)))
        await self.inner.commit(batch)
        self.counts["landed late"] += 1

    async def _none(self, batch, entries):
        return await self.inner.commit(batch)

    async def _fence(self, batch, entries):
        await self.take_over(self._random.choice(entries).shard)
        return await self.inner.commit(batch)

    async def _lost(self, batch, entries):
        await self.inner.commit(batch)
        raise self._unknown_outcome(entries)

    async def _never(self, batch, entries):
        raise self._unknown_outcome(entries)

    async def _later(self, batch, entries):
        self._late.append([copy.copy(entry) for entry in batch])  # the caller changes epochs in its own
        raise self._unknown_outcome(entries)

    async def _away(self, batch, entries):
        raise StoreAway("no space left on device")

    async def _busy(self, batch, entries):
        held = self._random.choice(entries).run_id
        blocked = {place for place, entry in enumerate(batch) if isinstance(entry, Entry) and entry.run_id == held}
        passed = [entry for place, entry in enumerate(batch) if place not in blocked]
        verdicts = iter(await self.inner.commit(passed))
        return [Busy() if place in blocked else next(verdicts) for place in range(len(batch))]

    def _unknown_outcome(self, entries):
        for entry in entries:
            self._unknown[entry.shard] = max(entry.epoch, self._unknown.get(entry.shard, 0))
        return OutcomeUnknown("connection reset")
