"""The feed of an embedded journal. There is one writer: numbers are committed in their order."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any, Final

from jivsd.store.feed import Batch, Cursor, FeedEvent, Page, Snapshot, end_of, old_batches
from jivsd.store.sqlite.bulk import EVENT_COLUMNS, as_json
from jivsd.store.sqlite.database import first, query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from jivsd.store.sqlite.database import Ask

STREAM: Final = 0
"""The only one."""
ID: Final = 16
KEY: Final = ID + 4
"""Bytes that name an event: the run's id, and the seq."""

_sql = statements("sqlite")


def feed_row(events: Sequence[Any]) -> tuple[int, int, bytes]:
    """The row that says what was appended together, given the values of the rows of events."""
    runs, seqs = events[::EVENT_COLUMNS], events[1::EVENT_COLUMNS]
    ids, numbers = bytes.fromhex("".join(runs).replace("-", "")), pack(f">{len(seqs)}I", *seqs)
    keys = bytearray(KEY * len(seqs))
    for place in range(KEY):  # a slice for each byte of a key is a tenth of the price of a string for each key
        keys[place::KEY] = ids[place::ID] if place < ID else numbers[place - ID :: KEY - ID]
    return events[6], len(seqs), bytes(keys)


class SqliteFeed:
    """See `jivsd.store.feed.Feed`."""

    def __init__(self, read: Ask, write: Ask) -> None:
        self._read = read
        self._write = write

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """See `Feed.page`."""

        def work(db: apsw.Connection) -> Page:
            with together(db):
                # a place in the middle of a batch comes before it
                floor = 0 if after is None else max(after.floor, after.seen.get(STREAM, 0))
                rows = query(db, _sql["feed"], (floor, limit)).fetchall()
                keys = [key for _, named in rows for key in _keys(named)]
                events = {
                    place: FeedEvent(*keys[place - 1], *rest)
                    for place, *rest in query(db, _sql["feed_events"], (as_json(keys),))
                }
                snapshot = _snapshot(db)
            batches: list[Batch] = []
            place = 1
            for number, named in rows:
                following = place + len(named) // KEY
                batches.append(Batch(STREAM, number, [events.get(one) for one in range(place, following)]))
                place = following
            return Page(batches, snapshot, len(keys) >= limit)

        return await self._read(work)

    async def end(self) -> Cursor:
        """See `Feed.end`."""
        return end_of(await self._read(_snapshot), {})

    async def trim(self, before: int, limit: int) -> int:
        """See `Feed.trim`."""

        def work(db: apsw.Connection) -> int:
            with together(db):
                count, last = old_batches(query(db, _sql["oldest_feed"], (limit,)), before)
                if count:
                    query(db, _sql["mark_feed"], (last,))
                    query(db, _sql["trim_feed"], (last,))
            return count

        return await self._write(work)


def _keys(named: bytes) -> list[tuple[str, int]]:
    ids = [named[at : at + 16].hex() for at in range(0, len(named), KEY)]
    seqs = [int.from_bytes(named[at : at + 4]) for at in range(16, len(named), KEY)]
    return [
        (f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}", seq) for one, seq in zip(ids, seqs, strict=True)
    ]


def _snapshot(db: apsw.Connection) -> Snapshot:
    row = first(db, _sql["feed_state"])
    assert row is not None
    return Snapshot(0, *row)
