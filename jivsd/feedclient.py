"""The client's calls for the feed: events as they come, also over restarts of the daemon."""

from __future__ import annotations

import math
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias
from urllib.parse import urlencode

import httpx
import msgspec
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError
from wsproto.utilities import ProtocolError

from jivsd.admin.feedwire import FeedEventView, FeedPage
from jivsd.admin.wire import API
from jivsd.asking import ClientError, DaemonNotRunning, understood
from jivsd.groups import leaves

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from trio_websocket import WebSocketConnection

    from jivsd.door import Door

FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 5.0
"""Seconds before it is tried again to reach a daemon that has gone: doubled each time."""
CONNECT: Final = 5.0
SILENT: Final = 60.0
"""Seconds without a word, after which a connection is given up: the daemon sends something every ten."""

_ENDS: Final = (
    *(OSError, HandshakeError, ConnectionClosed, trio.TooSlowError, trio.BrokenResourceError),
    ProtocolError,  # of trio-websocket, when a ping comes while it closes
)
"""How a connection ends that is tried again."""

_decode = msgspec.json.Decoder(FeedPage).decode


Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


class Wanted(NamedTuple):
    """Which events are wanted: those that fit all that is named."""

    workflows: Iterable[str] = ()
    ids: Iterable[str] = ()
    runs: Iterable[str] = ()
    kinds: Iterable[str] = ()


class FeedCalls:
    """What a client can follow."""

    _door: Door | None

    @asynccontextmanager
    async def follow(
        self,
        after: str | None = None,
        wanted: Wanted | None = None,
        *,
        patience: float = math.inf,
        away: Callable[[str | None], None] = lambda why: None,
    ) -> AsyncGenerator[AsyncIterator[FeedEventView]]:
        """Follow what happens in all runs, from now on or after the event with a cursor.

        When the daemon goes away, or finds that this program is too slow, it is asked again, for what comes after the
        last event that was handed on: none is missed, and none comes twice.

            async with client.follow(wanted=Wanted(workflows=["order"])) as events:
                async for event in events:
                    print(event.id, event.kind, event.path)

        Args:
            after: a cursor; "oldest": all events that are kept; None: from now on.
            wanted: which events; all by default.
            patience: seconds that the daemon may be away, at first and later.
            away: told why it is away, and None when it is back.

        Raises:
            ClientError: the daemon refuses, because of the cursor for example.
            DaemonNotRunning: it cannot be reached, for longer than `patience`.
        """
        async with self.follow_pages(after, wanted, patience=patience, away=away) as pages:
            yield _Events(pages)

    @asynccontextmanager
    async def follow_pages(
        self,
        after: str | None = None,
        wanted: Wanted | None = None,
        *,
        patience: float = math.inf,
        away: Callable[[str | None], None] = lambda why: None,
    ) -> AsyncGenerator[trio.MemoryReceiveChannel[FeedPage]]:
        """As `follow`, with several events at a time: for those who have many to take."""
        door = self._door
        if door is None:
            raise TypeError("this client has no one place where events could be followed")
        sender, receiver = trio.open_memory_channel[FeedPage](0)
        follower = _Follower(door, sender, after, wanted or Wanted(), away)
        failures: list[Exception] = []

        async def feed() -> None:
            try:
                with sender:
                    why = await follower.run(patience)
                failures.append(DaemonNotRunning(f"nobody answers at the {door.place}: {why}; {door.remedy}"))
            except ClientError as error:  # for whoever follows, as it is, not in a group
                failures.append(error)

        async with trio.open_nursery() as nursery, receiver:
            nursery.start_soon(feed)
            try:
                yield receiver
            except Exception as error:
                failures.append(error)
            nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]


class _Events:
    """The events of pages, one by one."""

    def __init__(self, pages: trio.MemoryReceiveChannel[FeedPage]) -> None:
        self._pages = pages
        self._ready: deque[FeedEventView] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedEventView:
        while not self._ready:
            try:
                self._ready += (await self._pages.receive()).events
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return self._ready.popleft()


class _Follower:
    """Follows for one client, over many connections."""

    def __init__(
        self,
        door: Door,
        sender: trio.MemorySendChannel[FeedPage],
        after: str | None,
        wanted: Wanted,
        away: Callable[[str | None], None],
    ) -> None:
        self._door = door
        self._sender = sender
        self._after = after
        self._wanted = wanted
        self._away = away
        self._back = False
        """Whether the present connection has brought anything."""

    async def run(self, patience: float) -> str:
        """Follow until the daemon has been away for so many seconds; why it is.

        Raises:
            ClientError: it refuses.
        """
        pause, gone = FIRST_PAUSE, None
        while True:
            why = await self._converse(told=gone is not None)
            now = trio.current_time()
            if self._back or gone is None:
                pause, gone = FIRST_PAUSE, now
            if now - gone >= patience:
                return why
            self._away(why)
            await trio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def _converse(self, *, told: bool) -> str:
        """Follow over one connection until it ends; why it has."""
        self._back = False
        refused: list[ConnectionRejected] = []
        why = ""
        try:
            with trio.fail_after(CONNECT):
                stream = await self._open()
            async with stream, trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT):
                    socket = await self._upgrade(nursery, stream)
                while True:  # until the other side closes; to leave, one goes: the handshake's reader has gone by then
                    with trio.fail_after(SILENT):
                        page = _decode(await socket.get_message())
                    if told and not self._back:
                        self._away(None)
                    self._back = True
                    await self._take(page)
        except* ConnectionRejected as group:
            refused += [error for error in leaves(group) if isinstance(error, ConnectionRejected)]
        except* _ENDS as group:
            why = _why(leaves(group)[0])
        for refusal in refused:
            if refusal.status_code < 500:
                understood(httpx.Response(refusal.status_code, content=refusal.body or b""), FeedPage)
            why = f"it answers {refusal.status_code}"
        return why

    async def _take(self, page: FeedPage) -> None:
        if page.events:
            await self._sender.send(page)
        self._after = page.cursor

    async def _open(self) -> Stream:
        if self._door.path is not None:
            return await trio.open_unix_socket(self._door.path)
        url = httpx.URL(self._door.url)
        if url.scheme == "https":
            return await trio.open_ssl_over_tcp_stream(url.host, url.port or 443, https_compatible=True)
        return await trio.open_tcp_stream(url.host, url.port or 80)

    async def _upgrade(self, nursery: trio.Nursery, stream: Stream) -> WebSocketConnection:
        host = "jivsd" if self._door.path is not None else httpx.URL(self._door.url).netloc.decode()
        headers = [(name.encode(), value.encode()) for name, value in self._door.headers.items()]
        resource = f"{API}/events?{self._query()}"
        return await trio_websocket.wrap_client_stream(nursery, stream, host, resource, extra_headers=headers)

    def _query(self) -> str:
        workflows, ids, runs, kinds = self._wanted
        named = {"workflow": workflows, "id": ids, "run": runs, "kind": kinds}
        after = {} if self._after is None else {"after": self._after}
        return urlencode({**after, **{name: list(values) for name, values in named.items()}}, doseq=True)


def _why(error: BaseException) -> str:
    match error:
        case ConnectionClosed(reason=reason) if reason is not None:
            return reason.reason or f"the connection was closed ({reason.code})"
        case trio.TooSlowError():
            return "it does not answer in time"
        case _:
            return str(error) or type(error).__name__
