"""The HTTP API for a test: the real engine in memory behind the real server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import trio

import jivsd.testing
from admin import shop
from jivsd.admin.app import create_app
from jivsd.admin.server import Server, address_of, close, listen_tcp, listen_unix

if TYPE_CHECKING:
    from pathlib import Path

    from jivsd.engine.engine import Engine


class Refusing:
    """An engine that refuses everything with one error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def refuse(*args: Any, **kwargs: Any) -> Any:
            raise self._error

        return refuse


@dataclass
class Served:
    engine: Engine
    server: Server
    folder: Path
    url: str
    unix: httpx.AsyncClient
    tcp: httpx.AsyncClient


@asynccontextmanager
async def serving(folder: Path, engine: Any = None, *, token: str | None = None, grace: float = 5.0):
    """Serve an engine (by default a real one with the workflows of `shop`) on `jivsd.sock` in a folder and on TCP."""
    if engine is None:
        async with jivsd.testing.Env(shop) as env, serving(folder, env.engine, token=token, grace=grace) as served:
            yield served
        return
    listeners = [listen_unix(folder / "jivsd.sock"), *listen_tcp("127.0.0.1", 0)]
    server = Server(create_app(engine, token=token), listeners, grace=grace)
    url = address_of(listeners[1])
    pipe = httpx.AsyncHTTPTransport(uds=str(folder / "jivsd.sock"))
    try:
        async with (
            trio.open_nursery() as nursery,
            httpx.AsyncClient(transport=pipe, base_url="http://jivsd") as unix,
            httpx.AsyncClient(base_url=url) as tcp,
        ):
            await nursery.start(server.run)
            yield Served(engine, server, folder, url, unix, tcp)
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            close(listener)
