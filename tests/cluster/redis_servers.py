"""Links to real Redis servers, and what stands in between them in tests."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from uuid import uuid4

import trio

from jivsd.cluster.redis import RedisLink
from jivsd.proof.proxy import Proxy

PATIENCE = 20.0


def link(url, *, database=None, node="a", token=None, lease=1.0, heard=None):
    """A link of a node to Redis; in a database of its own, unless one is named."""
    database = uuid4().hex if database is None else database
    token = f"{node}/{uuid4().hex}" if token is None else token
    return RedisLink(url, database=database, node=node, token=token, heard=heard or (lambda _: None), lease=lease)


async def until(condition):
    """Wait for a condition, a function or an async one."""
    with trio.fail_after(PATIENCE):
        while True:
            holds = condition()
            if (await holds) if hasattr(holds, "__await__") else holds:
                return
            await trio.sleep(0.01)


@asynccontextmanager
async def proxied(server):
    """A proxy in front of a server."""
    proxy = Proxy(("127.0.0.1", server.port))
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def encrypted(server, authority, *, clients=None, name="localhost"):
    """A port on which a server without TLS is to be had by TLS; clients must have a certificate of an authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)

    async def serve(client):
        stream = trio.SSLStream(client, context, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as behind, trio.open_nursery() as nursery:

            async def carry(source, sink):
                try:
                    async for data in source:
                        await sink.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(carry, stream, behind)
            nursery.start_soon(carry, behind, stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
