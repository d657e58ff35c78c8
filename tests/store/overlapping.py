"""Transactions that overlap, and numbers that they draw, as in PostgreSQL; without PostgreSQL."""

from __future__ import annotations

from jivsd.store.feed import Batch, FeedEvent, Page, Snapshot, end_of


class Writer:
    """A connection: one transaction at a time."""

    def __init__(self, database, stream):
        self.database = database
        self.stream = stream
        self.open = None

    def step(self, *, commits):
        """Begin a transaction, draw its number, or end it."""
        if self.open is None:
            self.open = self.database.begin()
        elif self.open[1] is None:
            self.open = self.open[0], self.database.draw()
        else:
            self.database.end(*self.open, self.stream if commits else None)
            self.open = None


class Database:
    """Transactions and numbers as PostgreSQL gives them out."""

    def __init__(self, streams):
        self.following = 1
        self.drawn = 0
        self.running = set()
        self.batches = {}
        self.removed = self.removed_at = 0
        self.at = 1
        self.writers = [Writer(self, stream) for stream in range(1, streams + 1)]

    def begin(self):
        self.following += 1
        self.running.add(self.following - 1)
        return self.following - 1, None

    def draw(self):
        self.drawn += 1
        return self.drawn

    def end(self, transaction, number, stream):
        self.running.remove(transaction)
        if stream is not None:
            events = [event(number, seq) for seq in range(1, number % 3 + 2)]
            self.batches[number] = Batch(stream, number, events)

    @property
    def snapshot(self):
        oldest = min(self.running, default=self.following)
        newest = max(self.batches, default=0)
        return Snapshot(self.at, newest, self.removed, self.removed_at, oldest, self.following)

    def page(self, after, limit):
        found, events = [], 0
        for number in sorted(self.batches):
            batch = self.batches[number]
            if not (after is not None and after.has(batch.stream, number)) and events < limit:
                found.append(batch)
                events += len(batch.events)
        return Page(found, self.snapshot, events >= limit)

    def end_place(self):
        seen = {}
        for number, batch in self.batches.items():
            seen[batch.stream] = max(number, seen.get(batch.stream, 0))
        return end_of(self.snapshot, seen)

    @property
    def events(self):
        return {(one.run_id, one.seq) for batch in self.batches.values() for one in batch.events}


def event(number, seq):
    return FeedEvent(f"run{number}", seq, 0, "StepDone", "a", 1, "", "nap", "id", "RUNNING")
