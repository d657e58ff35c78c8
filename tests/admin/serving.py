"""The HTTP API for a test: the real engine in memory behind the real server."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import trio

from admin import shop
from jivsd.admin.app import create_app
from jivsd.admin.feedwire import encoded
from jivsd.admin.server import Server
from jivsd.engine.engine import Engine
from jivsd.listening import address_of, listen_tcp, listen_unix
from jivsd.services.feed import FeedService

if TYPE_CHECKING:
    from pathlib import Path

    from quart_trio import QuartTrio


class Refusing:
    """An engine that refuses everything with one error."""

    neighbours = None

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def refuse(*args: Any, **kwargs: Any) -> Any:
            raise self._error

        return refuse


@dataclass
class Served:
    engine: Engine
    app: QuartTrio
    server: Server
    folder: Path
    url: str
    unix: httpx.AsyncClient
    tcp: httpx.AsyncClient


@asynccontextmanager
async def serving(
    folder: Path, engine: Any = None, *, token: str | None = None, grace: float = 5.0, siblings=None, tokens=()
):
    """Serve an engine (by default a real one with the workflows of `shop`) on `jivsd.sock` in a folder and on TCP."""
    if engine is None:
        import jivsd.testing

        options = {"token": token, "grace": grace, "siblings": siblings, "tokens": tokens}
        async with jivsd.testing.Env(shop) as env, serving(folder, env.engine, **options) as served:
            yield served
        return
    listeners = [listen_unix(folder / "jivsd.sock"), *listen_tcp("127.0.0.1", 0)]
    feed = FeedService(engine.store.feed, encoded, engine.clock.now) if isinstance(engine, Engine) else None
    app = create_app(engine, feed=feed, token=token, tokens=tokens, siblings=siblings or {})
    server = Server(app, listeners, grace=grace)
    url = address_of(listeners[1])
    pipe = httpx.AsyncHTTPTransport(uds=str(folder / "jivsd.sock"), verify=False)
    try:
        async with (
            trio.open_nursery() as nursery,
            httpx.AsyncClient(transport=pipe, base_url="http://jivsd") as unix,
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=False), base_url=url) as tcp,
        ):
            if feed is not None:
                await nursery.start(feed.run)
            await nursery.start(server.run)
            yield Served(engine, app, server, folder, url, unix, tcp)
            nursery.cancel_scope.cancel()
    finally:
        server.close()


class Wire:
    """A bare connection, for what no HTTP library would send."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._heard = b""

    async def send(self, data: bytes) -> None:
        """Send, or as much as the other side takes: it may have answered and closed before the end."""
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body."""
        while b"\r\n\r\n" not in self._heard:
            await self._hear()
        head, _, rest = self._heard.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers["content-length"])
        self._heard = rest
        while len(self._heard) < length:
            await self._hear()
        body, self._heard = self._heard[:length], self._heard[length:]
        return int(lines[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        """Wait for the other side to close."""
        try:
            while await self._stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True

    async def _hear(self) -> None:
        if not (data := await self._stream.receive_some()):
            raise EOFError(f"closed after {self._heard!r}")
        self._heard += data


@asynccontextmanager
async def connected(served: Served, door: str = "tcp"):
    """A bare connection through one of the doors."""
    if door == "unix":
        stream = await trio.open_unix_socket(served.folder / "jivsd.sock")
    else:
        host, _, port = served.url.removeprefix("http://").rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        yield Wire(stream)
