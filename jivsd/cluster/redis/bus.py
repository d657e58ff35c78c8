"""How nodes call each other over Redis: a channel for each node, and one for all."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio
from redis.exceptions import RedisError

from jivsd import logs
from jivsd.bridge import FIRST_PAUSE, LAST_PAUSE
from jivsd.cluster.redis.trouble import sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.bridge import Bridge
    from jivsd.cluster.leases import Heard
    from jivsd.cluster.redis.address import Address
    from jivsd.cluster.redis.servers import Servers
    from jivsd.cluster.redis.wire import Wire

T = TypeVar("T")
log = logs.get(__name__)

ROOM: Final = 1_000
"""How many messages may wait to be sent, and to be heard; of more the oldest are lost."""
BEAT: Final = 2.0
"""Seconds between signs of life that are asked for where we listen; after two without any we listen anew."""


class RedisBus:
    """One node's bus; see `Bus`. It listens and sends in the bridge's loop."""

    def __init__(
        self, bridge: Bridge, servers: Servers, address: Address, *, database: str, node: str, heard: Heard
    ) -> None:
        """Prepare.

        Args:
            bridge: where the servers are asked.
            servers: where messages go.
            address: what the URL says, for sentences.
            database: whose nodes are meant: the own id of a database.
            node: who we are.
            heard: is called with each message, on the trio thread.
        """
        self.listening = False
        """Whether messages come through, as far as we know. It is set in the loop."""
        self._bridge = bridge
        self._servers = servers
        self._address = address
        self._database = database
        self._channels = [self._channel(None), self._channel(node)]
        self._outgoing = _Queue[tuple[str, bytes]](self._call_loop)
        self._sending = False
        self._trio = trio.lowlevel.current_trio_token()
        self._incoming = _Queue[bytes](self._call_trio)
        self._heard = heard
        self._ended = False
        self._listener: asyncio.Task[None] | None = None

    def tell(self, node: str | None, body: bytes) -> None:
        """Send; see `Bus.tell`."""
        self._outgoing.put((self._channel(node), body))

    def start(self) -> None:
        """Begin to listen."""
        self._bridge.at_close(self._end)
        self._bridge.soon(self._begin_to_listen)

    def _channel(self, node: str | None) -> str:
        return f"jivsd:{self._database}:{'all' if node is None else f'node:{node}'}"

    # ---- on the trio thread

    def _call_loop(self) -> None:
        """Have it send, but not before the end of this turn: what is told again in it goes once."""
        self._trio.run_sync_soon(self._bridge.soon, self._begin_to_send)

    def _take_in(self) -> None:
        for body in self._incoming.drain():
            self._heard(body)

    # ---- in the loop

    def _call_trio(self) -> None:
        try:
            self._trio.run_sync_soon(self._take_in)
        except trio.RunFinishedError:
            self._ended = True

    def _begin_to_send(self) -> None:
        if not self._sending:
            self._sending = True
            self._bridge.look_after(self._send())

    async def _send(self) -> None:
        """Send what there is, the same only once. What cannot be sent is lost: who is called looks by itself, too."""
        try:
            while messages := dict.fromkeys(self._outgoing.drain()):
                try:
                    async with asyncio.timeout(BEAT):
                        await self._servers.ask_any([("PUBLISH", *message) for message in messages])
                except (RedisError, TimeoutError) as error:
                    log.debug("messages to other nodes are lost", count=len(messages), why=str(error))
        finally:
            self._sending = False

    def _begin_to_listen(self) -> None:
        self._listener = self._bridge.look_after(self._listen())

    def _end(self) -> None:
        self._ended = True
        if self._listener is not None:
            self._listener.cancel()

    async def _listen(self) -> None:
        """Listen, and again, after a pause, when that ends."""
        pause = FIRST_PAUSE
        while not self._ended:
            try:
                async with asyncio.timeout(2 * BEAT):
                    wire = await self._servers.connect()
                await self._hear(wire)
            except* (RedisError, TimeoutError) as errors:
                pause = self._lost(errors.exceptions[0], pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1))

    def _lost(self, error: BaseException, pause: float) -> float:
        """Messages do not come through, or no longer. Returns seconds until the next attempt."""
        why = sentence(error, self._address)
        if self.listening:
            log.warning("other nodes are not heard for now; what they say is found by looking", why=why)
            self.listening = False
            return FIRST_PAUSE
        log.debug("other nodes are not heard", why=why)
        return min(2 * pause, LAST_PAUSE)

    async def _hear(self, wire: Wire) -> None:
        """Take messages as they come, until the connection is no more, or gives no sign of life."""
        beats = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(wire, beats))
                tasks.create_task(self._beat(wire, beats))
        finally:
            wire.close()

    async def _read(self, wire: Wire, beats: asyncio.Event) -> None:
        while True:
            match await wire.hear():
                case [b"message", _, bytes() as body]:
                    self._incoming.put(body)
                case [b"subscribe", _, int() as count]:
                    self.listening = count == len(self._channels)
                case _:
                    pass
            beats.set()

    async def _beat(self, wire: Wire, beats: asyncio.Event) -> None:
        ask: tuple[str, ...] = ("SUBSCRIBE", *self._channels)
        while True:
            beats.clear()
            async with asyncio.timeout(BEAT):
                await wire.send(ask)
                await beats.wait()
            await asyncio.sleep(BEAT)
            ask = ("PING",)


class _Queue(Generic[T]):
    """What one thread hands to another: at most `ROOM` pieces, of more the oldest are lost."""

    def __init__(self, wake: Callable[[], object]) -> None:
        """Prepare; `wake` has the other thread `drain` soon. It is called once before each of these calls."""
        self._wake = wake
        self._pieces = deque[T](maxlen=ROOM)
        self._woken = False

    def put(self, piece: T) -> None:
        """Hand over."""
        self._pieces.append(piece)
        if not self._woken:
            self._woken = True
            self._wake()

    def drain(self) -> list[T]:
        """Take all there is."""
        self._woken = False  # first: whoever puts something in from now on calls again
        found: list[T] = []
        with suppress(IndexError):
            for _ in range(ROOM):
                found += [self._pieces.popleft()]
        return found
