"""The servers behind a URL: which of them has a key, and what to do when that changes."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, RedisError, TryAgainError

from jivsd.cluster.redis.wire import Line, dial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.bridge import Bridge
    from jivsd.cluster.redis.address import Host
    from jivsd.cluster.redis.wire import Manner, Wire, Words

ROUNDS: Final = 4
"""How often a command is sent in a cluster whose slots move, before that is left to the next call."""
PAUSE: Final = 0.05
"""Seconds before a cluster is asked again that is changing."""
LOOK: Final = 1.0
"""Seconds after which Sentinels are asked again who the primary is, when that is wanted."""


class Command(NamedTuple):
    """A command, and the key that it is about."""

    key: str
    words: Words


class NoService(RedisError):
    """No Sentinel knows the service."""


class NoCluster(RedisError):
    """The server is no node of a cluster."""


class Servers(Protocol):
    """What can be asked, in the bridge's loop. All raise RedisError when no answer is to be had."""

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Have commands done where their keys are; they may be done twice. What is refused, or could not be asked, is
        an exception among the answers."""
        ...

    async def ask_any(self, commands: Sequence[Words]) -> list[Any]:
        """Have commands done at any server."""
        ...

    async def connect(self) -> Wire:
        """A connection of one's own to any server."""
        ...


def servers_of(bridge: Bridge, manner: Manner) -> Servers:
    """Prepare to ask what a URL names; from the bridge's loop, or before it."""
    match manner.address.kind:
        case "one":
            return One(bridge, manner)
        case "sentinel":
            return Watched(bridge, manner)
        case "cluster":
            return Cluster(bridge, manner)


class One:
    """One server."""

    def __init__(self, bridge: Bridge, manner: Manner) -> None:
        self._manner = manner
        self._line = Line(bridge, manner.name, self.connect)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        return await self._line.ask([command.words for command in commands])

    async def ask_any(self, commands: Sequence[Words]) -> list[Any]:
        return await self._line.ask(commands)

    async def connect(self) -> Wire:
        hosts = self._manner.address.hosts
        return await dial(self._manner, hosts[0] if hosts else None)


class Watched:
    """The primary of a service that Sentinels know. A former primary may not know for long that it is none any more:
    so they are asked again all the time."""

    def __init__(self, bridge: Bridge, manner: Manner) -> None:
        self._bridge = bridge
        self._manner = manner
        self._sentinels = list(manner.address.hosts)
        self._primary: Host | None = None
        self._line = Line(bridge, manner.name, self.connect, lambda wire: wire.host == self._primary)
        self._next_look = 0.0

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        return await self.ask_any([command.words for command in commands])

    async def ask_any(self, commands: Sequence[Words]) -> list[Any]:
        if self._next_look <= (now := monotonic()):
            self._next_look = now + LOOK
            self._bridge.look_after(self._look())
        return await self._line.ask(commands)

    async def _look(self) -> None:
        """See whether the primary is still the same; the next question goes to the right one."""
        for sentinel in tuple(self._sentinels):
            with suppress(RedisError, TimeoutError):
                async with asyncio.timeout(LOOK):
                    self._primary = await self._named_by(sentinel)
                return

    async def connect(self) -> Wire:
        """Ask the Sentinels one after the other, first the one that knew it last, until one names a real primary."""
        problem: RedisError | None = None
        for sentinel in tuple(self._sentinels):
            try:
                wire = await self._connect_as(sentinel)
            except RedisError as error:
                problem = problem or error
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            self._primary = wire.host
            return wire
        assert problem is not None
        raise problem

    async def _connect_as(self, sentinel: Host) -> Wire:
        """Connect to the primary as one Sentinel knows it."""
        wire = await dial(self._manner, await self._named_by(sentinel))
        try:
            (role,) = await wire.ask([("ROLE",)])
        except BaseException:
            wire.close()
            raise
        if isinstance(role, list) and role[0] == b"master":
            return wire
        wire.close()
        if isinstance(role, RedisError):
            raise role
        raise ConnectionError("Sentinel names a primary that is none (yet)")

    async def _named_by(self, sentinel: Host) -> Host:
        service = self._manner.address.service
        wire = await dial(self._manner, sentinel, sentinel=True)
        try:
            (place,) = await wire.ask([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)])
        finally:
            wire.close()
        if isinstance(place, RedisError):
            raise place
        if place is None:
            raise NoService(f"the Sentinel at {sentinel[0]}:{sentinel[1]} knows no service {service}")
        return place[0].decode(), int(place[1])


class Cluster:
    """The nodes of a Redis Cluster. Which has a slot is learned from any of them, and again when one says otherwise."""

    def __init__(self, bridge: Bridge, manner: Manner) -> None:
        self._bridge = bridge
        self._manner = manner
        self._known: list[Host] = list(manner.address.hosts)
        """Nodes to learn from, the most promising first."""
        self._begins: list[int] = []
        """The first slots of ranges, ascending, and who has them."""
        self._owners: list[Host] = []
        self._stale = True
        self._lines: dict[Host, Line] = {}
        self._learning = asyncio.Lock()

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = [None] * len(commands)
        sent_to: dict[int, AskError] = {}
        left = list(range(len(commands)))
        for last in range(ROUNDS - 1, -1, -1):
            await self._learn()
            groups: dict[tuple[Host, bool], list[int]] = {}
            for number in left:
                where = self._place(commands[number].key, sent_to.get(number))
                groups.setdefault(where, []).append(number)
            await asyncio.gather(
                *(self._ask_node(*where, commands, numbers, answers) for where, numbers in groups.items())
            )
            sent_to = {number: answers[number] for number in left if isinstance(answers[number], AskError)}
            left = [number for number in left if self._may_change(answers[number])]
            if not left or not last:
                break
            if len(sent_to) < len(left):
                await asyncio.sleep(PAUSE)
        return answers

    async def ask_any(self, commands: Sequence[Words]) -> list[Any]:
        await self._try_to_learn()
        return (await self._from_any(commands))[1]

    async def connect(self) -> Wire:
        await self._try_to_learn()
        problem: RedisError | None = None
        for host in tuple(self._known):
            try:
                return await dial(self._manner, host)
            except RedisError as error:
                problem = problem or error
                self._doubt(host)
        assert problem is not None
        raise problem

    def _place(self, key: str, redirect: AskError | None) -> tuple[Host, bool]:
        """Which node to ask about a key, and whether it has to be told that it was asked for on purpose."""
        if redirect is not None:
            return cast("Host", redirect.node_addr), not isinstance(redirect, MovedError)
        return self._owners[bisect_right(self._begins, key_slot(key.encode())) - 1], False

    async def _ask_node(
        self, host: Host, asking: bool, commands: Sequence[Command], numbers: list[int], answers: list[Any]
    ) -> None:
        """Ask a node, and put its answers, or why there are none, where they belong."""
        words = [command for number in numbers for command in (*[("ASKING",)] * asking, commands[number].words)]
        try:
            found = (await self._line(host).ask(words))[asking :: 1 + asking]
        except RedisError as error:
            self._doubt(host)
            found = [error] * len(numbers)
        except BaseException:
            self._doubt(host)
            raise
        for number, answer in zip(numbers, found, strict=True):
            self._stale |= isinstance(answer, MovedError)
            answers[number] = answer

    @staticmethod
    def _may_change(answer: Any) -> bool:
        """Whether the answer may be another one in a moment."""
        return isinstance(answer, AskError | TryAgainError | ClusterDownError | ConnectionError)

    def _doubt(self, host: Host) -> None:
        """A node did not answer: others may have its slots now."""
        self._stale = True
        if host in self._known:
            self._known.remove(host)
            self._known.append(host)

    async def _try_to_learn(self) -> None:
        """Know more nodes than the URL names, if that can be had: it may name those that are gone."""
        with suppress(RedisError):
            await self._learn()

    async def _learn(self) -> None:
        async with self._learning:
            if not self._stale:
                return
            host, (ranges,) = await self._from_any([("CLUSTER", "SLOTS")])
            if isinstance(ranges, RedisError):
                if "cluster support disabled" in str(ranges):
                    raise NoCluster(f"the server at {host[0]}:{host[1]} is no node of a cluster")
                raise ranges
            self._stale = False
            found = sorted((int(first), _host(owner, host)) for first, _, owner, *_ in ranges)
            if not found:
                raise ClusterDownError("no node has any slots")
            self._begins, self._owners = [first for first, _ in found], [owner for _, owner in found]
            alive = {*self._owners, *self._manner.address.hosts}
            self._known = [one for one in self._known if one in alive] + sorted(alive.difference(self._known))

    async def _from_any(self, commands: Sequence[Words]) -> tuple[Host, list[Any]]:
        problem: RedisError | None = None
        for host in tuple(self._known):
            try:
                return host, await self._line(host).ask(commands)
            except RedisError as error:
                problem = problem or error
                self._doubt(host)
            except BaseException:
                self._doubt(host)
                raise
        assert problem is not None
        raise problem

    def _line(self, host: Host) -> Line:
        if host not in self._lines:
            self._lines[host] = Line(self._bridge, self._manner.name, lambda: dial(self._manner, host))
        return self._lines[host]


def _host(owner: list[Any], asked: Host) -> Host:
    """A node's place: one that does not know its own name has the one by which it was asked."""
    name: bytes | None = owner[0]
    return (name.decode() if name else asked[0]), int(owner[1])
