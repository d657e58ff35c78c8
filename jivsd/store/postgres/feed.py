"""The feed of a journal in PostgreSQL. Each server process that writes batches is a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.store.feed import Batch, Cursor, FeedEvent, Page, Snapshot, end_of, old_batches
from jivsd.store.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.postgres.connections import Ask, Connection, Sql

SNAPSHOT = len(Snapshot._fields)


class PostgresFeed:
    """See `jivsd.store.feed.Feed`."""

    def __init__(self, sql: Sql, read: Ask, write: Ask) -> None:
        self._sql = sql
        self._read = read
        self._write = write

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """See `Feed.page`. Events are read in a later snapshot than the batches that name them: they stay."""

        async def work(db: Connection) -> Page:
            place = after or Cursor()
            seen = list(place.seen), list(place.seen.values())
            found = [tuple(row) for row in await db.fetch(self._sql["feed"], place.floor, *seen, limit)]
            named = [row[SNAPSHOT:] for row in found if row[SNAPSHOT] is not None]
            events = await self._events(db, named)
            return Page(_batches(named, events), Snapshot(*found[0][:SNAPSHOT]), len(events) >= limit)

        return await self._read(work)

    async def end(self) -> Cursor:
        """See `Feed.end`."""
        found = [tuple(row) for row in await self._read(lambda db: db.fetch(self._sql["feed_end"]))]
        seen = dict(row[SNAPSHOT:] for row in found if row[SNAPSHOT] is not None)
        return end_of(Snapshot(*found[0][:SNAPSHOT]), seen)

    async def trim(self, before: int, limit: int) -> int:
        """See `Feed.trim`."""

        async def work(db: Connection) -> int:
            old = await db.fetch(self._sql["oldest_feed"], limit)
            count, last = old_batches([(row["number"], row["at"], row["events"]) for row in old], before)
            if count:
                await db.execute(self._sql["trim_feed"], last)
            return count

        return await self._write(work)

    async def _events(self, db: Connection, named: Sequence[tuple[Any, ...]]) -> list[FeedEvent | None]:
        """The events of batches, one after the other."""
        runs = [run for row in named for run in row[2]]
        seqs = [seq for row in named for seq in row[3]]
        events: list[FeedEvent | None] = [None] * len(runs)
        if runs:
            for place, *rest in await db.fetch(self._sql["feed_events"], rows.ids(runs), seqs):
                events[place - 1] = FeedEvent(runs[place - 1], seqs[place - 1], *rest)
        return events


def _batches(named: Sequence[tuple[Any, ...]], events: Sequence[FeedEvent | None]) -> list[Batch]:
    batches: list[Batch] = []
    at = 0
    for number, stream, runs, _ in named:
        batches.append(Batch(stream, number, events[at : at + len(runs)]))
        at += len(runs)
    return batches
