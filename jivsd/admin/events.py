"""The routes of the feed: all events as they come, over a WebSocket or page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import msgspec
import trio
from quart import websocket

from jivsd import logs
from jivsd.admin.exchange import JSON, Response
from jivsd.admin.feedwire import FeedPage, frame
from jivsd.admin.http import Route, operation, patience, query_of, wait_seconds
from jivsd.records import Kind
from jivsd.services.following import Interrupted, News, TooSlow, Wanted
from jivsd.store.api import StoreError
from jivsd.store.feed import Cursor, FeedGone

if TYPE_CHECKING:
    from jivsd.admin.patience import Patience
    from jivsd.engine.engine import Engine
    from jivsd.services.feed import FeedService
    from jivsd.services.following import Follower

log = logs.get(__name__)

OLDEST: Final = "oldest"
"""In place of a cursor: from the oldest event that there is."""
BEAT: Final = 10.0
"""Seconds after which a client over a WebSocket gets a cursor although there is nothing new for it."""
PROTOCOL: Final = "jivsd.v1"
"""The subprotocol of the WebSocket, for clients that name one."""

RESTARTED: Final = 1012
LATER: Final = 1013
"""Codes with which a WebSocket is closed: the daemon ends or its feed was started again; the client was too slow, or
what it wants cannot be read now. In all cases it may come back with its cursor.
"""


class FollowQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: str | None = None
    workflow: list[str] = []
    id: list[str] = []
    run: list[str] = []
    kind: list[Kind] = []

    def wanted(self) -> Wanted:
        return Wanted(frozenset(self.workflow), frozenset(self.id), frozenset(self.run), frozenset(self.kind))


class PollQuery(FollowQuery, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    wait: str | None = None


class EventRoutes:
    """Answers /events."""

    def __init__(self, engine: Engine, feed: FeedService) -> None:
        self._engine = engine
        self._feed = feed

    def routes(self) -> list[Route]:
        return [("GET", "/events", self.page)]

    @operation(query=PollQuery, answers={200: FeedPage})
    async def page(self) -> Response:
        """List what has happened in all runs, after a cursor.

        `after`: the cursor of an event or of a page; `oldest`; or nothing: from now on. A page may be empty: go on with
        its cursor. `?wait=5s` waits for the first event. As a WebSocket (the same address and parameters, without limit
        and wait) the events come by themselves, in pages of this form.
        """
        query = query_of(PollQuery)
        wanted = query.wanted()
        after = await self._place(query.after)
        seconds = wait_seconds(query.wait)
        news = await self._feed.look(after, wanted, query.limit)
        if seconds and not news.events:
            with patience().wait(), trio.move_on_after(seconds):
                news = await self._feed.look_again(Cursor.of(news.cursor), wanted, query.limit)
        return Response(frame(news), content_type=JSON)

    async def stream(self) -> None:
        """Send what happens, until the client goes away, or is told to."""
        query = query_of(FollowQuery, websocket.query_string)
        place = await self._place(query.after)
        await self._feed.check(place)  # a cursor that will not do is refused before anything begins
        waits: Patience = websocket.scope["state"]["patience"]
        offered = websocket.requested_subprotocols
        accept = cast("Any", websocket).accept  # its headers have no types
        await accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
        code, why = RESTARTED, "the daemon ends: come back with your cursor"
        self._engine.metrics.feed_followers.inc()
        try:
            with waits.wait(), self._feed.follower(place, query.wanted()) as follower:
                code, why = await self._converse(follower)
        finally:
            self._engine.metrics.feed_followers.dec()
        await websocket.close(code, why)

    async def _converse(self, follower: Follower) -> tuple[int, str]:
        """Send news; returns with what code and why that is over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen)
            try:
                await self._send(News([], follower.cursor or OLDEST))
                while True:
                    news: News | None = None
                    with trio.move_on_after(BEAT):
                        news = await follower.next()
                    await self._send(news or News([], follower.cursor or OLDEST))
            except TooSlow:
                self._engine.metrics.feed_cut.inc()
                return LATER, "too slow: come back with your cursor"
            except Interrupted:
                return RESTARTED, "the feed was started again: come back with your cursor"
            except FeedGone:
                return LATER, "what came next has been removed: begin again without a cursor"
            except StoreError:
                return LATER, "the store is away: come back with your cursor"
            finally:
                nursery.cancel_scope.cancel()

    async def _send(self, news: News) -> None:
        await websocket.send(frame(news).decode())
        self._engine.metrics.feed_events.inc(len(news.events))

    async def _place(self, after: str | None) -> Cursor | None:
        if after is None:
            return await self._feed.end()
        return None if after == OLDEST else Cursor.of(after)


async def _listen() -> None:
    """A client has nothing to say; what it says is dropped."""
    while True:
        await websocket.receive()
