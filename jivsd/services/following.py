"""Those who follow the feed: what is kept for all of them, and how each takes it at its own pace."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from jivsd.store.feed import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.store.feed import Cursor, FeedEvent, Piece

KEPT: Final = 16 << 20
"""Bytes of encoded events that are kept."""
AT_ONCE: Final = 64 << 10
"""Bytes that a follower gets at once, about."""


class TooSlow(Exception):
    """What a follower would get next is no longer kept: it has to come back with its cursor."""


class Interrupted(Exception):
    """The feed's service was started again: a follower has to come back with its cursor."""


class Wanted(msgspec.Struct, frozen=True):
    """Which events somebody wants: those that fit all that is named."""

    workflows: Collection[str] = ()
    ids: Collection[str] = ()
    runs: Collection[str] = ()
    kinds: Collection[str] = ()

    @property
    def all(self) -> bool:
        """Whether every event is wanted."""
        return not (self.workflows or self.ids or self.runs or self.kinds)

    def fits(self, event: FeedEvent) -> bool:
        """Whether an event is wanted."""
        return (
            (not self.workflows or event.workflow in self.workflows)
            and (not self.ids or event.workflow_id in self.ids)
            and (not self.runs or event.run_id in self.runs)
            and (not self.kinds or event.kind in self.kinds)
        )


ALL: Final = Wanted()


class News(NamedTuple):
    """What somebody gets: events, as JSON objects, each with its cursor; and the cursor of the place after them."""

    events: list[bytes]
    cursor: str


class Kept(NamedTuple):
    """A batch for followers. Of its events those that have been pruned, or that nobody wants, are left out."""

    stream: int
    number: int
    before: Cursor
    length: int
    place: str
    events: list[tuple[FeedEvent, bytes]]


class Ring:
    """The batches that came last, each at a position of its own."""

    def __init__(self, size: int = KEPT) -> None:
        self.begin = 0
        """The position of the first one that is kept."""
        self._limit = size
        self._size = 0
        self._kept: deque[Kept] = deque()

    @property
    def end(self) -> int:
        """The position of the next one to come."""
        return self.begin + len(self._kept)

    def add(self, kept: Kept) -> None:
        """Keep one more, and give up the oldest ones if there is no room."""
        self._kept.append(kept)
        self._size += _size(kept)
        while self._size > self._limit and len(self._kept) > 1:
            self._size -= _size(self._kept.popleft())
            self.begin += 1

    def at(self, position: int) -> Kept:
        """The one at a position. Raises TooSlow."""
        if position < self.begin:
            raise TooSlow
        return self._kept[position - self.begin]

    def meeting(self, after: Cursor) -> int | None:
        """The last position before which nothing is that does not come before a place; None: that is not kept."""
        covered = bisect_right(self._kept, False, key=lambda kept: not after.covers(kept.before))
        return self.begin + covered - 1 if covered else None

    def clear(self) -> None:
        """Give up all."""
        self.begin = self.end
        self._kept.clear()
        self._size = 0


class Source(Protocol):
    """Where a follower gets events from."""

    ring: Ring

    async def begun(self) -> None:
        """Return when news is being kept."""
        ...

    async def news(self, position: int) -> None:
        """Return when something is kept at a position, or was. Raises Interrupted."""
        ...

    async def page(self, after: Cursor | None) -> tuple[list[Piece], Cursor, bool]:
        """What comes after a place, from the journal; the place after that, and whether there is more."""
        ...

    def kept(self, piece: Piece, wanted: Wanted) -> Kept:
        """A batch with those of its events encoded that are wanted."""
        ...


class Follower:
    """Someone who follows, from a place on: first from the journal, then with the others.

    It meets the others at once if what it has not seen is kept for them. Else it does at the position that came next
    before it read the last page from the journal: all that came before that is in the page, or was before it. What it
    has seen and the others have not is left out later.
    """

    def __init__(self, source: Source, after: Cursor | None, wanted: Wanted) -> None:
        """Prepare. `after`: None is before the oldest event."""
        self._source = source
        self._wanted = wanted
        self._own = after
        """Its own place; meaningless once it is with the others, and has seen what they have seen."""
        self._shared = False
        self._position: int | None = None
        self._ready: deque[bytes] = deque()
        self._cursor = "" if after is None else str(after)

    @property
    def cursor(self) -> str:
        """The place after all that it was given."""
        return self._cursor

    async def next(self) -> News:
        """Wait for news. Nothing is lost when that is cancelled.

        Raises:
            TooSlow, Interrupted: it has to come back with its cursor.
            FeedGone, BadCursor, StoreError: see `jivsd.store.feed.read`.
        """
        after = self._cursor
        while not self._ready:
            self._cursor = after
            after = await self._catch_up() if self._position is None else await self._go_on(self._position)
        events: list[bytes] = []
        size = 0
        while self._ready and size < AT_ONCE:
            events.append(self._ready.popleft())
            size += len(events[-1])
        self._cursor = cursor_of(events[-1])
        return News(events, self._cursor)

    async def _catch_up(self) -> str:
        """Read from the journal; join the others when that is at its end. Returns the cursor after what was read."""
        await self._source.begun()
        if self._own is not None and (meet := self._source.ring.meeting(self._own)) is not None:
            self._position = meet
            return self._cursor
        meet = self._source.ring.end
        pieces, self._own, more = await self._source.page(self._own)
        for piece in pieces:
            self._take(self._source.kept(piece, self._wanted), piece.skip)
        if not more:
            self._position = meet
        return str(self._own)

    async def _go_on(self, position: int) -> str:
        """Take what is kept. Returns the cursor after it."""
        await self._source.news(position)
        kept = self._source.ring.at(position)
        self._position = position + 1
        if self._shared or self._own is None:
            self._take(kept)
            return f"{kept.place}.{kept.length}"
        self._shared = kept.before.covers(self._own)
        if self._own.has(kept.stream, kept.number):
            return str(self._own)
        part = self._own.part
        skip = part.events if part is not None and part.number == kept.number else 0
        if self._shared:
            self._take(kept, skip)
            return f"{kept.place}.{kept.length}"
        place = place_of(self._own.in_batch(kept.number))
        self._take(kept._replace(events=[(event, moved(one, place)) for event, one in kept.events]), skip)
        self._own = self._own.after(kept.stream, kept.number)
        return str(self._own)

    def _take(self, kept: Kept, skip: int = 0) -> None:
        self._ready += those(kept, skip, self._wanted)


def those(kept: Kept, skip: int, wanted: Wanted) -> list[bytes]:
    """The events of a batch that are wanted, without those among its first ones that have been seen."""
    events = kept.events if wanted.all else [pair for pair in kept.events if wanted.fits(pair[0])]
    return [one for _, one in events if not skip or count_of(one) > skip]


def kept_of(piece: Piece, encoded: Iterable[bytes | None]) -> Kept:
    """A batch to be kept, given its events as JSON objects."""
    batch, place = piece.batch, piece.place
    events = [
        (event, _with_cursor(one, place, count))
        for count, (event, one) in enumerate(zip(batch.events, encoded, strict=True), 1)
        if event is not None and one is not None
    ]
    return Kept(batch.stream, batch.number, piece.before, len(batch.events), place, events)


def cursor_of(encoded: bytes) -> str:
    """The cursor of an event."""
    return encoded[encoded.rindex(b'"', 0, -2) + 1 : -2].decode()


def count_of(encoded: bytes) -> int:
    """How many events of its batch come up to an event."""
    return int(encoded[encoded.rindex(b".") + 1 : -2])


def moved(encoded: bytes, place: str) -> bytes:
    """An event with a cursor at another place that means the same batch."""
    return _with_cursor(encoded[: encoded.rindex(_CURSOR)] + b"}", place, count_of(encoded))


_CURSOR: Final = b',"cursor":"'


def _with_cursor(encoded: bytes, place: str, count: int) -> bytes:
    return b'%b%b%b.%d"}' % (encoded[:-1], _CURSOR, place.encode(), count)


def _size(kept: Kept) -> int:
    return sum(len(one) for _, one in kept.events) + len(kept.place)
