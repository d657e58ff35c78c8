"""The feed of a daemon: all events, for those who follow them as they come; old ones are removed.

The journal is read once for all followers, and only while there are any: what came last is kept in memory, encoded, and
each follower takes it from there at its own pace. Nobody is waited for: who is so slow that what comes next for it is
no longer kept is told so.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import trio

from jivsd import logs
from jivsd.clock import SECOND
from jivsd.services.following import ALL, Follower, Interrupted, Kept, News, Ring, Wanted, cursor_of, kept_of, those
from jivsd.store.api import StoreError
from jivsd.store.feed import Cursor, FeedGone, read

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from jivsd.store.feed import Feed, FeedEvent, Piece

log = logs.get(__name__)


class Config(msgspec.Struct, frozen=True):
    """How the feed is kept and read. Times in seconds."""

    keep: float = 3600.0
    """For how long who comes back with a cursor can go on."""
    page: int = 2_000
    """How many events are read at once."""
    look: float = 0.05
    """The pause between two looks for news, while there are followers."""
    again: float = 1.0
    """The pause after the store was away."""
    trim: float = 30.0
    """The pause between two times when old batches are removed."""
    trimmed: int = 2_000
    """How many of them are removed at once."""


class FeedService:
    """Serves followers. A supervised child of the daemon."""

    def __init__(
        self,
        feed: Feed,
        encode: Callable[[FeedEvent], bytes],
        now: Callable[[], int],
        config: Config | None = None,
    ) -> None:
        """Prepare.

        Args:
            feed: what is followed.
            encode: gives an event as a JSON object.
            now: says journal time, in microseconds.
            config: see there.
        """
        self.ring = Ring()
        self.followers = 0
        self._feed = feed
        self._encode = encode
        self._now = now
        self._config = config or Config()
        self._begun = trio.Event()
        self._wanted = trio.Event()
        self._news = trio.Event()
        self._lives = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._trim)
                nursery.start_soon(self._read)
        finally:
            self._lives += 1
            self._rest()
            self._tell()

    @contextmanager
    def follower(self, after: Cursor | None, wanted: Wanted) -> Generator[Follower]:
        """Follow from a place on; None: from the oldest event that there is."""
        with self._followed():
            yield Follower(self, after, wanted)

    async def look_again(self, after: Cursor | None, wanted: Wanted, limit: int) -> News:
        """As `look`, but wait for the first event.

        Raises:
            FeedGone, BadCursor, StoreError: see `jivsd.store.feed.read`.
        """
        with self._followed():
            while True:
                await self._begun.wait()
                more = self._news
                news = await self.look(after, wanted, limit)
                if news.events:
                    return news
                after = Cursor.of(news.cursor)
                await more.wait()

    async def end(self) -> Cursor:
        """The place after all that there is now. Raises StoreError."""
        return await self._feed.end()

    async def check(self, after: Cursor | None) -> None:
        """See whether one can go on from a place.

        Raises:
            FeedGone, BadCursor, StoreError: see `jivsd.store.feed.read`.
        """
        read(after, await self._feed.page(after, 1))

    async def look(self, after: Cursor | None, wanted: Wanted, limit: int) -> News:
        """Up to `limit` of the next events, or none if there are none now, for somebody who does not stay.

        Raises:
            FeedGone, BadCursor, StoreError: see `jivsd.store.feed.read`.
        """
        while True:
            pieces, after, more = await self.page(after)
            found = [one for piece in pieces for one in those(self.kept(piece, wanted), piece.skip, wanted)]
            if len(found) > limit:
                return News(found[:limit], cursor_of(found[limit - 1]))
            if found or not more:
                return News(found, str(after))

    # ---- what followers ask

    async def begun(self) -> None:
        """See `Source.begun`."""
        await self._begun.wait()

    async def news(self, position: int) -> None:
        """See `Source.news`."""
        lives = self._lives
        while self.ring.end <= position:
            await self._news.wait()
            if self._lives != lives:
                raise Interrupted

    async def page(self, after: Cursor | None) -> tuple[list[Piece], Cursor, bool]:
        """See `Source.page`."""
        page = await self._feed.page(after, self._config.page)
        return *read(after, page), page.more

    def kept(self, piece: Piece, wanted: Wanted = ALL) -> Kept:
        """See `Source.kept`."""
        events = (event if event is not None and wanted.fits(event) else None for event in piece.batch.events)
        return kept_of(piece, [None if event is None else self._encode(event) for event in events])

    # ---- the tasks

    @contextmanager
    def _followed(self) -> Generator[None]:
        self.followers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.followers -= 1

    async def _read(self) -> None:
        """Read the journal for all followers, while there are any."""
        place: Cursor | None = None
        away = False
        while True:
            await self._wanted.wait()
            try:
                place = place or await self._feed.end()
                self._begun.set()
                pieces, place, more = await self.page(place)
                away = False
            except FeedGone:
                raise  # the store was away for too long: whoever follows comes back, and is told
            except StoreError as error:
                if not away:
                    log.warning("the feed cannot be read now; trying again", why=str(error))
                away = True
                await trio.sleep(self._config.again)
                continue
            for piece in pieces:
                self.ring.add(self.kept(piece))
            if pieces:
                self._tell()
            if not more:
                await trio.sleep(self._config.look)
            if not self.followers:
                self._wanted = trio.Event()
                self._rest()
                place = None

    def _rest(self) -> None:
        """Nobody follows."""
        self.ring.clear()
        self._begun = trio.Event()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _trim(self) -> None:
        config = self._config
        while True:
            try:
                before = self._now() - int(config.keep * SECOND)
                while await self._feed.trim(before, config.trimmed) == config.trimmed:
                    await trio.lowlevel.checkpoint()
            except StoreError as error:
                log.debug("the feed was not trimmed", why=str(error))
            await trio.sleep(config.trim)
