"""Leases on shards as keys in Redis: `jivsd:{<database>:<shard>}` is the token of whoever has the shard."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
from redis.exceptions import NoScriptError, RedisError

from jivsd.bridge import BridgeClosed
from jivsd.cluster.leases import LeasesAway
from jivsd.cluster.redis.servers import Command
from jivsd.cluster.redis.trouble import sentence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from jivsd.bridge import Bridge
    from jivsd.cluster.redis.address import Address
    from jivsd.cluster.redis.servers import Servers

T = TypeVar("T")

_SCRIPT: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""
"""If the key is mine or nobody's: it is mine for so many milliseconds, or, for none, nobody's. May be done twice."""
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
LOOK_AGAIN: Final = 0.1
"""Seconds before it is tried again to give up what may have been taken."""


class RedisLeases:
    """The leases of one node, in Redis; see `Leases`."""

    def __init__(
        self, bridge: Bridge, servers: Servers, address: Address, *, database: str, token: str, lease: float
    ) -> None:
        """Prepare.

        Args:
            bridge: where the servers are asked.
            servers: who is asked.
            address: what the URL says, for sentences.
            database: which shards are meant: the own id of a database.
            token: by which the holder is known.
            lease: seconds that a lease is good.
        """
        self.away: str | None = None
        """Why Redis did not do what it was asked last; None if it did."""
        self._bridge = bridge
        self._address = address
        self._lease = lease
        self._turn = trio.Lock()
        self._keys = Keys(servers, database, token, lease)
        self._trusted: dict[int, float] = {}
        """Until when we hold what we hold."""

    @property
    def lease(self) -> float:
        """Seconds that a lease is good."""
        return self._lease

    async def hold(self, shards: Collection[int]) -> set[int]:
        """Take or renew; see `Leases.hold`."""
        if not shards:
            return set()
        async with self._turn:
            before = monotonic()
            # what is not renewed but taken: if the answer is lost, nobody knows that it is held
            fresh = {shard for shard in shards if self._trusted.get(shard, 0.0) <= before}
            asker = Asker()
            try:
                held = await self._call(partial(self._keys.hold, shards, asker))
            except BaseException:
                asker.left = True
                self._bridge.soon(partial(self._regret, fresh))
                raise
            for shard in shards:
                self._trusted.pop(shard, None)
            self._trusted |= dict.fromkeys(held, before + self._lease)
            return held

    async def release(self, shards: Collection[int]) -> None:
        """Give up; see `Leases.release`."""
        if not shards:
            return
        async with self._turn:
            for shard in shards:
                self._trusted.pop(shard, None)
            try:
                await self._call(partial(self._keys.release, shards))
            except BaseException:
                self._bridge.soon(partial(self._regret, shards))
                raise

    async def holders(self, shards: Collection[int]) -> dict[int, str]:
        """Who has them; see `Leases.holders`."""
        return await self._call(partial(self._keys.holders, shards))

    async def settle(self) -> None:
        """Wait until nothing is held that nobody knows of; for the end, when no other call is under way."""
        await self._call(self._keys.settle)

    def _regret(self, shards: Collection[int]) -> None:
        """In the loop."""
        self._bridge.look_after(self._keys.regret(shards))

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await self._bridge.call(work, timeout=patience_of(self._lease))
        except (RedisError, BridgeClosed, TimeoutError) as error:
            self.away = sentence(error, self._address)
            raise LeasesAway(self.away) from None
        self.away = None
        return answer


def patience_of(lease: float) -> float:
    """Seconds that an answer may take, so that there is time for another attempt before a lease ends."""
    return lease / 2


class Asker:
    """Who asks for leases."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False
        """Whether nobody waits for the answer any more. Set on the trio thread."""


class Keys:
    """The keys, in the bridge's loop."""

    def __init__(self, servers: Servers, database: str, token: str, lease: float) -> None:
        """Prepare; see `RedisLeases`."""
        self._servers = servers
        self._database = database
        self._token = token.encode()
        self._lease = lease
        self._turn = asyncio.Lock()
        self._doubtful: dict[int, float] = {}
        """What may be held though nobody knows of it, and when that has ended by itself."""
        self._regrets = 0
        self._tidying = False

    async def hold(self, shards: Collection[int], asker: Asker) -> set[int]:
        """Take or renew."""
        async with self._turn:
            if asker.left:
                return set()
            for shard in shards:
                self._doubtful.pop(shard, None)
            answers = await self._run(shards, round(self._lease * 1000))
        return {shard for shard, answer in answers.items() if _good(answer) == 1}

    async def release(self, shards: Collection[int]) -> None:
        """Give up what is ours."""
        async with self._turn:
            answers = await self._run(shards, 0)
        for answer in answers.values():
            _good(answer)

    async def holders(self, shards: Collection[int]) -> dict[int, str]:
        """Who has them."""
        asked = [Command(key, ("GET", key)) for key in map(self._key, shards)]
        answers = zip(shards, await self._servers.ask(asked), strict=True)
        return {shard: token.decode() for shard, answer in answers if (token := _good(answer)) is not None}

    async def regret(self, shards: Collection[int]) -> None:
        """Give up what may be held by a call before this one that nobody knows of: as soon as that call has ended, and
        again until it is done, or has ended by itself."""
        self._regrets += 1
        async with self._turn:
            self._regrets -= 1
            self._doubtful |= dict.fromkeys(shards, monotonic() + self._lease)
            if not self._regrets:  # else the last of them does it for all
                await self._give_up()
        if self._tidying:
            return
        self._tidying = True
        try:
            while self._doubtful:
                await asyncio.sleep(LOOK_AGAIN)
                async with self._turn:
                    await self._give_up()
        finally:
            self._tidying = False

    async def settle(self) -> None:
        """Give up once more what nobody knows of."""
        async with self._turn:
            await self._give_up()

    async def _give_up(self) -> None:
        now = monotonic()
        self._doubtful = {shard: until for shard, until in self._doubtful.items() if now < until}
        if not self._doubtful:
            return
        try:
            async with asyncio.timeout(self._lease / 4):  # others wait for their turn
                answers = await self._run(tuple(self._doubtful), 0)
        except (RedisError, TimeoutError):
            return
        except BridgeClosed:
            self._doubtful.clear()  # it ends by itself
            return
        for shard, answer in answers.items():
            if not isinstance(answer, RedisError):
                self._doubtful.pop(shard, None)

    async def _run(self, shards: Collection[int], milliseconds: int) -> dict[int, Any]:
        """Run the script for each; which Redis keeps by its digest, until it forgets."""
        answers = await self._send(shards, milliseconds, "EVALSHA", _SHA)
        unknown = [shard for shard, answer in answers.items() if isinstance(answer, NoScriptError)]
        if unknown:
            answers |= await self._send(unknown, milliseconds, "EVAL", _SCRIPT)
        return answers

    async def _send(self, shards: Collection[int], milliseconds: int, *script: str) -> dict[int, Any]:
        asked = [Command(key, (*script, 1, key, self._token, milliseconds)) for key in map(self._key, shards)]
        return dict(zip(shards, await self._servers.ask(asked), strict=True))

    def _key(self, shard: int) -> str:
        return f"jivsd:{{{self._database}:{shard}}}"


def _good(answer: Any) -> Any:
    if isinstance(answer, RedisError):
        raise answer
    return answer
