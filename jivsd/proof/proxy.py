"""A proxy between a client and a server, that does what networks do: it cuts, holds back, delays, and loses answers.

It knows nothing of what it carries. Who does is a tap: it sees the bytes of one connection before they are handed on,
and may keep some back, or end the connection there.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, Never

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Where = tuple[str, int] | str
"""A host and a port, or the path of a Unix socket."""
Way = Literal["asked", "answered"]

ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed is reset, and what was not sent yet is thrown away."""


class Cut(Exception):
    """A tap raises it: the connection ends here, and what it was just shown is not handed on."""


class Tap:
    """Sees the bytes of one connection, and hands them on. This one hands on everything."""

    def asked(self, data: bytes) -> bytes:
        """What the server gets of what the client has sent."""
        return data

    def answered(self, data: bytes) -> bytes:
        """What the client gets of what the server has sent."""
        return data


class Link:
    """A connection through the proxy."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self.asked = 0
        """How many bytes of the client's were handed on."""
        self.answered = 0
        """How many bytes of the server's were handed on."""
        self._left: int | None = None
        self._carrying = trio.CancelScope()
        self._flowing = trio.Event()
        self._flowing.set()

    def hold(self) -> None:
        """Hand nothing on from now on; see `Proxy.hold`."""
        if self._flowing.is_set():
            self._flowing = trio.Event()

    def release(self) -> None:
        """Hand on what was held back, and what comes."""
        self._flowing.set()

    def cut(self) -> None:
        """End it now, on both sides."""
        self._carrying.cancel()

    def cut_after(self, count: int) -> None:
        """End it after so many more bytes of either side: in the middle of a message, as the number will have it."""
        self._left = count

    async def carry(
        self, client: trio.SocketStream, server: trio.SocketStream, gate: Callable[[Way], Awaitable[None]]
    ) -> None:
        """Hand on what either side sends, each piece when the gate lets it, until one of them ends, or it is cut."""

        async def ask() -> None:
            async for data in client:
                await gate("asked")
                await self._flowing.wait()
                self.asked += await self._hand_on(self._tap.asked(bytes(data)), server)

        async def answer() -> None:
            async for data in server:
                await gate("answered")
                await self._flowing.wait()
                self.answered += await self._hand_on(self._tap.answered(bytes(data)), client)

        async def until_it_ends(flow: Callable[[], Awaitable[None]]) -> None:
            with suppress(Cut, trio.BrokenResourceError):
                await flow()
            self.cut()

        with self._carrying:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_it_ends, ask)
                nursery.start_soon(until_it_ends, answer)

    async def _hand_on(self, data: bytes, to: trio.SocketStream) -> int:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        await to.send_all(data)
        if self._left == 0:
            raise Cut
        return len(data)


class Proxy:
    """Listens on a port of the loopback address, and carries each connection to the server.

    `serve` does the work. All methods belong to the trio run in which that is.
    """

    def __init__(self, server: Where, tap: Callable[[], Tap] = Tap) -> None:
        """Prepare.

        Args:
            server: where the server is. It need not be there: then a client is cut off at once.
            tap: makes the tap of a new connection.
        """
        self.port = 0
        """Where it listens, once it serves."""
        self.delay = 0.0
        """Seconds by which everything comes later."""
        self.refusing = False
        """Whether new connections are cut off at once."""
        self._server = server
        self._tap = tap
        self._links: set[Link] = set()
        self._held: dict[Way, trio.Event] = {}

    @property
    def links(self) -> list[Link]:
        """The connections there are."""
        return list(self._links)

    def cut(self) -> None:
        """End all connections."""
        for link in self._links:
            link.cut()

    def hold(self, *, asked: bool = True, answered: bool = True) -> None:
        """Hand nothing on from now on, as if a cable had been pulled: what clients ask, what they are answered, or
        neither; `release` ends that.
        """
        if asked:
            self._held.setdefault("asked", trio.Event())
        if answered:
            self._held.setdefault("answered", trio.Event())

    def release(self) -> None:
        """Hand on what was held back, and what comes."""
        for held in self._held.values():
            held.set()
        self._held.clear()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Carry connections until cancelled.

        Raises:
            OSError: there is no port to listen on.
        """
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    async def _carry(self, client: trio.SocketStream) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        if self.refusing:
            return
        try:
            server = await self._connect()
        except OSError:
            return
        link = Link(self._tap())
        self._links.add(link)
        try:
            async with server:
                await link.carry(client, server, self._pass)
        finally:
            self._links.discard(link)

    async def _connect(self) -> trio.SocketStream:
        if isinstance(self._server, str):
            return await trio.open_unix_socket(self._server)
        return await trio.open_tcp_stream(*self._server)

    async def _pass(self, way: Way) -> None:
        """Return when something may be handed on."""
        if self.delay:
            await trio.sleep(self.delay)
        while way in self._held:
            await self._held[way].wait()
