"""What a daemon is among the nodes of its database: alone, or one that shares, with Redis or without."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import trio

from jivsd import logs
from jivsd.cluster.keeping import Keeper, Times
from jivsd.cluster.leases import LeasesAway, LeasesError
from jivsd.cluster.node import NUDGE, Node
from jivsd.cluster.trust import boottime
from jivsd.records import SHARDS
from jivsd.store.api import StoreError
from jivsd.store.sharing import ALONE, NOTHING, REDIS, NodeState, Standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from jivsd.cluster.keeping import Shardholder
    from jivsd.cluster.leases import Bus, Leases
    from jivsd.cluster.redis import RedisLink
    from jivsd.metrics import Metrics
    from jivsd.store.sharing import Sharing, View

log = logs.get(__name__)

ALONE_FOR = Times(postgresql_lease=6.0)
"""A daemon alone that was killed keeps the next one waiting for so long, and only behind a pooler."""


class Lone:
    """A daemon that has a PostgreSQL database for itself: its row says so."""

    def __init__(self, name: str, sharing: Sharing, holder: Shardholder, metrics: Metrics) -> None:
        self._sharing = sharing
        self._keeper = Keeper(name, sharing, holder, None, ALONE_FOR, metrics=metrics)
        self._keeper.by = ALONE

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Renew the row until `end` is called."""
        await self._keeper.run(task_status=task_status)

    def end(self) -> None:
        """Have `keep` end."""
        self._keeper.end()

    async def nodes(self) -> list[NodeState]:
        """Who has which shards."""
        return node_states(await self._sharing.view())

    def standing(self) -> Standing:
        """It has all, whatever becomes of its row."""
        return Standing(SHARDS, ALONE, good=True, redis_away=None)


class Membership:
    """A node that shares. An `async with` begins and ends its ways to others."""

    keeper: Keeper
    node: Node

    def __init__(
        self,
        name: str,
        sharing: Sharing,
        holder: Shardholder,
        times: Times,
        *,
        metrics: Metrics,
        redis: str | None,
        full: Callable[[], bool],
        heard: Callable[[bytes], None],
    ) -> None:
        """Prepare.

        Args:
            name: of the node.
            sharing: what the database knows.
            holder: where shards live.
            times: how long what is good.
            metrics: to count in.
            redis: where Redis is; None: there is none.
            full: whether this node takes no starts just now.
            heard: is called with what other nodes tell this one.
        """
        self._name = name
        self._sharing = sharing
        self._holder = holder
        self._times = times
        self._metrics = metrics
        self._redis = redis
        self._full = full
        self._heard = heard
        self._nudged: Callable[[], object] = lambda: None  # the bus may hear before there is a node that looks
        self._bus: Bus | None = None
        self._link: RedisLink | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin. Redis need not be there.

        Raises:
            StoreError: Redis will never do, as it is configured; or the database is away.
        """
        try:
            leases = await self._connect()
        except BaseException:
            await self._stack.aclose()
            raise
        sharing, holder, times = self._sharing, self._holder, self._times
        self.keeper = Keeper(
            self._name, sharing, holder, leases, times, metrics=self._metrics, full=self._full, now=boottime
        )
        self.node = Node(self.keeper, sharing, holder, times, nudge=partial(self._tell, None, NUDGE), now=boottime)
        self._nudged = self.node.wake
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what the node has until `end` is called; then give it up. See `Keeper.run`."""
        await self.keeper.run(task_status=task_status)

    def end(self) -> None:
        """Have `keep` end."""
        self.keeper.end()

    async def take_part(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take shards, and hand them over, until `drain` is called. See `Node.run`."""
        await self.node.run(task_status=task_status)

    def drain(self) -> None:
        """Have `take_part` end: all shards go to others, if there are any."""
        self.node.drain()

    def tell(self, shard: int | None, body: bytes) -> None:
        """Have a message go to the node that owns a shard, or to all, at best effort."""
        if shard is None:
            self._tell(None, body)
        elif (owner := self.node.owner(shard)) not in (None, self._name):
            self._tell(owner, body)

    def owner_is_full(self, shard: int) -> bool:
        """Whether the node that owns a shard has said that it takes no starts just now."""
        owner = self.node.owner(shard)
        return owner is not None and self.node.is_full(owner)

    async def nodes(self) -> list[NodeState]:
        """Who has which shards."""
        return node_states(await self._sharing.view())

    def standing(self) -> Standing:
        """How this node stands."""
        good = self.keeper.by != NOTHING and self.keeper.is_good
        away = None if self._redis is None else self.keeper.by != REDIS
        return Standing(len(self.keeper.held), self.keeper.by, good=good, redis_away=away)

    def _count(self) -> None:
        """Bring the metrics up to date that are not kept so all the time."""
        if self._link is not None:
            for status, commands in self._link.commands.items():
                self._metrics.redis_commands.labels(status).value = commands

    async def _connect(self) -> Leases | None:
        if self._redis is None:
            return None
        database = await self._sharing.database()
        token = f"{self._name}:{uuid4()}"
        lease = self._times.lease
        try:
            from jivsd.cluster.redis import RedisLink  # which takes a while, and most daemons have none

            link = RedisLink(
                self._redis, database=database, node=self._name, token=token, heard=self._hear, lease=lease
            )
            await self._stack.enter_async_context(link)
            try:
                await link.check()
            except LeasesAway as error:
                log.warning("Redis is away; shards are held by PostgreSQL until it is back", why=str(error))
        except LeasesError as error:
            raise StoreError(str(error)) from None
        self._link, self._bus = link, link.bus
        self._metrics.sources.append(self._count)
        return link.leases

    def _tell(self, node: str | None, body: bytes) -> None:
        if self._bus is not None:
            self._bus.tell(node, body)

    def _hear(self, body: bytes) -> None:
        if body == NUDGE:
            self._nudged()
        else:
            self._heard(body)


def node_states(view: View) -> list[NodeState]:
    """Nodes and what they have, by name; those included that are gone, as long as nobody has taken their shards."""
    owned: dict[str, list[tuple[int, int, int]]] = {}
    for shard, epoch, node, since in view.owners:
        owned.setdefault(node, []).append((shard, epoch, since))
    members = {member.node: member for member in view.members}
    return [
        NodeState(node=node, member=members.get(node), owned=owned.get(node, []))
        for node in sorted(members.keys() | owned.keys())
        if node
    ]
