"""The feed: all events of all runs, in an order in which they can be followed, left and taken up again.

A store writes a row for each transaction that appends events (a batch). In PostgreSQL several connections do so at
once, and a number that was drawn earlier may be committed later; whoever only remembered the last number would miss it.
So a place in the feed is a number for each of the connections (streams), each of which commits in order, and a number
up to which everything is known (the floor). The floor rises to a number when all transactions have ended that were
under way when that one was read: the idea is that of `pg_snapshot` and its xmin. All here is pure.

Of one run the events come in order: the later one's number is drawn after the earlier one was committed.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from jivsd.clock import SECOND
from jivsd.store.errors import BadCursor, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


LONGEST: Final = 600 * SECOND
"""Microseconds that a transaction which appends events may last."""


class FeedGone(StoreError):
    """What comes next after a cursor has been removed."""


class FeedEvent(NamedTuple):
    """An event as those see it who follow all. `status`: of its run, when it was read."""

    run_id: str
    seq: int
    at: int
    kind: str
    path: str
    attempt: int
    by: str
    workflow: str
    workflow_id: str
    status: str


class Batch(NamedTuple):
    """What one transaction has appended. An event that has been pruned since is None."""

    stream: int
    number: int
    events: Sequence[FeedEvent | None]


class Snapshot(NamedTuple):
    """How the feed stood at a moment `at` (microseconds; see `Cursor`).

    `oldest`, `following`: the oldest transaction that was under way, and the one that would have been begun next; equal
    if none was. `newest`: the last number. `removed`: up to which number batches have been removed, and `removed_at`
    when the last of them was written; 0 if none has been.
    """

    at: int
    newest: int
    removed: int = 0
    removed_at: int = 0
    oldest: int = 0
    following: int = 0

    @property
    def all_known(self) -> bool:
        """Whether nothing was under way: no batch can appear before another any more."""
        return self.oldest == self.following


class Page(NamedTuple):
    """Batches after a place, by number, as they were in one snapshot. `more`: the page was full."""

    batches: Sequence[Batch]
    snapshot: Snapshot
    more: bool


class Horizon(NamedTuple):
    """When no transaction before `transaction` is under way any more, everything up to `number` has been seen."""

    number: int
    transaction: int


class Part(NamedTuple):
    """Of the batch `number` only the first events have been seen."""

    number: int
    events: int


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A place in the feed.

    `at`: when it was read (microseconds); 0 where the floor is never behind. `seen`: of streams
    that went beyond the floor, the last number; `horizon`: how the floor will rise.
    """

    at: int = 0
    floor: int = 0
    seen: dict[int, int] = {}
    horizon: Horizon | None = None
    part: Part | None = None

    def has(self, stream: int, number: int) -> bool:
        """Whether a batch comes before this place."""
        return number <= self.floor or number <= self.seen.get(stream, 0)

    def covers(self, other: Cursor) -> bool:
        """Whether all that comes before another place comes before this one, as far as that can be told."""
        return self.floor >= other.floor and all(self.has(*last) for last in other.seen.items())

    def after(self, stream: int, number: int) -> Cursor:
        """The place after one more batch."""
        return msgspec.structs.replace(self, seen={**self.seen, stream: number})

    def in_batch(self, number: int) -> Cursor:
        """This place, at the beginning of the batch that comes next."""
        return msgspec.structs.replace(self, part=Part(number, 0))

    def __str__(self) -> str:
        """As clients get it."""
        place = msgspec.structs.replace(self, part=None if self.part is None else Part(self.part.number, 0))
        return f"{place_of(place)}.{0 if self.part is None else self.part.events}"

    @staticmethod
    def of(text: str) -> Cursor:
        """The place that a text means. Raises BadCursor."""
        place, _, events = text.rpartition(".")
        try:
            found = msgspec.json.decode(urlsafe_b64decode(place + "=" * (-len(place) % 4)), type=Cursor)
            count = int(events)
        except (ValueError, msgspec.DecodeError):
            raise BadCursor(f"{text[:100]!r} is no cursor of this feed") from None
        if found.part is None:
            return found
        return msgspec.structs.replace(found, part=Part(found.part.number, count))


class Piece(NamedTuple):
    """A batch to be handed on from its event `skip` on. `before`: the place before it, in the batch."""

    batch: Batch
    before: Cursor
    skip: int

    @property
    def place(self) -> str:
        """The cursor of an event is `{place}.{how many events of the batch come up to it}`."""
        return place_of(self.before)


class Feed(Protocol):
    """The feed of a store. Every method may raise `StoreError`."""

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """What comes after a place, or is the oldest there is: about `limit` events, or all there are."""
        ...

    async def end(self) -> Cursor:
        """The place after all that there is."""
        ...

    async def trim(self, before: int, limit: int) -> int:
        """Remove up to `limit` of the oldest batches from before a time (microseconds); return how many."""
        ...


def read(after: Cursor | None, page: Page) -> tuple[list[Piece], Cursor]:
    """What a page brings to someone who stands at a place (None: before the oldest event), and the place after it.

    Raises:
        FeedGone: something in between may have been removed.
        BadCursor: the place is not in this feed.
    """
    snapshot = page.snapshot
    after = after or Cursor(snapshot.at, snapshot.removed)
    _check(after, snapshot)
    floor, seen, horizon, part = after.floor, dict(after.seen), after.horizon, after.part
    read_to = page.batches[-1].number if page.more else snapshot.newest
    pieces: list[Piece] = []
    for batch in page.batches:
        if snapshot.all_known:
            floor, seen, horizon = batch.number - 1, _above(batch.number - 1, seen), None
        elif horizon is not None and snapshot.oldest >= horizon.transaction and batch.number > horizon.number:
            floor, seen, horizon = horizon.number, _above(horizon.number, seen), None
        before = Cursor(snapshot.at, floor, seen, horizon, Part(batch.number, 0))
        skip = 0
        if part is not None and part.number == batch.number:
            skip, part = part.events, None
        pieces.append(Piece(batch, before, skip))
        seen = {**seen, batch.stream: batch.number}
    if horizon is not None and snapshot.oldest >= horizon.transaction and read_to >= horizon.number:
        floor, seen, horizon = horizon.number, _above(horizon.number, seen), None
    return pieces, _settled(Cursor(snapshot.at, floor, seen, horizon, part), snapshot, read_to)


def end_of(snapshot: Snapshot, seen: dict[int, int]) -> Cursor:
    """The place after all that a snapshot has; `seen`: each stream's last number."""
    return _settled(Cursor(snapshot.at, snapshot.removed, seen), snapshot, snapshot.newest)


def old_batches(rows: Iterable[tuple[int, int, int]], before: int) -> tuple[int, int]:
    """How many of the oldest batches are from before a time, and the number of the last of them.

    `rows`: their number, time and count of events, in order; one without events marks what was removed earlier.
    """
    old = list(takewhile(lambda row: row[1] < before, rows))
    return sum(events > 0 for _, _, events in old), old[-1][0] if old else 0


def _settled(place: Cursor, snapshot: Snapshot, read_to: int) -> Cursor:
    """A place, where everything that a snapshot has up to a number is known: its floor as high as it can be."""
    if read_to <= place.floor:
        return place
    if snapshot.oldest == snapshot.following:
        seen = _above(read_to, place.seen)
        return msgspec.structs.replace(place, floor=read_to, seen=seen, horizon=None)
    if place.horizon is None:
        return msgspec.structs.replace(place, horizon=Horizon(read_to, snapshot.following))
    return place


def _check(after: Cursor, snapshot: Snapshot) -> None:
    if after.floor > snapshot.newest:
        raise BadCursor("the cursor is of another feed: of another database, or of an older copy of it")
    if after.floor < snapshot.removed and after.at < snapshot.removed_at + LONGEST:
        raise FeedGone("what came next has been removed: begin again with the oldest event, or with the next one")


def _above(floor: int, seen: dict[int, int]) -> dict[int, int]:
    return {stream: number for stream, number in seen.items() if number > floor}


def place_of(place: Cursor) -> str:
    """A place as clients get it, apart from how many events of its batch come before it."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")
