"""What is done to nodes that share a database, and to the Redis between them, while they work."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from jivsd.proof.torture.faults import NOT_FOR_EVER, STORE_EVERY, Pace, is_free
from jivsd.proof.torture.fleet import let_go_on

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence
    from pathlib import Path
    from random import Random

    from jivsd.proof.redisserver import Server
    from jivsd.proof.torture.account import Account
    from jivsd.proof.torture.fleet import Fleet, Node
    from jivsd.proof.torture.grounds import Ground
    from jivsd.proof.torture.ownership import Ownership
    from jivsd.proof.torture.recovery import Recovery

ON_NODES: Final = ("kill", "stop", "leave", "node-cut")
"""kill -9; SIGSTOP for twice the lease; SIGTERM; the way to PostgreSQL is held up in one direction, or in both."""
ON_REDIS: Final = ("flush", "redis-kill", "redis-stop")
EVERY: Final = (2.0, 6.0)
"""Seconds between two faults of nodes, and between two of Redis: from, to."""
DOWN_FOR: Final = (0.0, 0.0, 1.0)
"""Seconds before a node is started again that was killed, or that has left; or until its shards have other owners."""
HELD_FOR: Final = (1.0, 5.0, 25.0)
REDIS_AWAY: Final = (0.1, 1.0, 8.0)
TAKEN_WITHIN: Final = 10.0
TAKEN_WITHOUT_REDIS: Final = 30.0
"""Seconds within which others have all shards of a node that is gone: with Redis, and when that was away lately."""
GIVEN_UP: Final = 90.0
SETTLED: Final = 5.0
"""Seconds after the last fault after which a fault of Redis alone must move no shard; and seconds of rest after which
the nodes share evenly.
"""
RESTS: Final = 0.15
"""How often the nodes are left alone for so long, before the next one is done something to."""
LOOK_AGAIN: Final = 0.1


class Redis(NamedTuple):
    """What nodes have between them. `servers`: those of the torture's own, which can be killed and stopped."""

    url: str
    servers: Sequence[Server] = ()


class Leases(NamedTuple):
    """How long the nodes' leases are, in seconds: in Redis, and in PostgreSQL."""

    redis: float
    postgresql: float


class NodeFaults:
    """Chooses faults and their moments from a seed, and carries them out.

    Of the faults of nodes there is one at a time, and of those of Redis and of PostgreSQL likewise.
    """

    def __init__(
        self,
        fleet: Fleet,
        ground: Ground,
        ownership: Ownership,
        account: Account,
        recovery: Recovery,
        seed: int,
        *,
        leases: Leases,
        redis: Redis | None,
        world: Path,
    ) -> None:
        """Prepare.

        Args:
            fleet: the nodes, which run.
            ground: what they keep their journal in.
            ownership: who has which shards there.
            account: where it is noted what was done, and what was wrong with what came of it.
            recovery: told what is broken.
            seed: decides what is done and when.
            leases: of the nodes.
            redis: what they have between them, if anything; its own servers can be killed and stopped.
            world: the database into which steps write.
        """
        self.taken_over: dict[str, float] = {}
        """The longest time until others had all shards of a node, in seconds, by what was done to it."""
        self._fleet = fleet
        self._ground = ground
        self._ownership = ownership
        self._account = account
        self._recovery = recovery
        self._seed = seed
        self._leases = leases
        self._redis = redis
        self._world = world
        self._began = trio.current_time()
        self._last = self._began
        """When the last fault was over that may move shards."""
        self._under_way = 0
        self._troubles = 0
        """How often something was done to PostgreSQL."""
        self._redis_away = float("-inf")
        """When Redis was away last."""
        for node in fleet.nodes:
            node.on_up = lambda: recovery.mended("kill")
            node.on_launch = lambda: recovery.broke("kill")
            node.on_died = lambda why, node=node: account.complain("died", "", f"{node.name}: {why}")

    async def run(self, kinds: Sequence[str], until: float) -> None:
        """Commit faults of these kinds until a moment of trio's clock; keep the nodes running until cancelled."""
        pace = Pace(self._recovery, self._seed, until)
        async with trio.open_nursery() as nursery:
            for node in self._fleet.nodes:
                nursery.start_soon(node.keep_running)
            nursery.start_soon(pace.go_on, _among(kinds, ON_NODES), EVERY, self._on_a_node)
            nursery.start_soon(pace.go_on, _among(kinds, ON_REDIS), EVERY, self._on_redis)
            nursery.start_soon(pace.go_on, _among(kinds, self._ground.faults), STORE_EVERY, self._in_store)

    def _note(self, kind: str) -> None:
        self._account.fault(kind, trio.current_time() - self._began)

    @contextmanager
    def _moving(self) -> Generator[None]:
        """Shards may move inside, and for a while afterwards."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._last = trio.current_time()

    # ---- nodes

    async def _on_a_node(self, kind: str, rng: Random) -> None:
        if rng.random() < RESTS:
            await self._rest()
        node = rng.choice(self._fleet.nodes)
        if not node.daemon.running or not node.up:
            return  # it is being started
        self._note(kind)
        with self._moving():
            match kind:
                case "kill" | "leave":
                    await self._end(kind, node, rng)
                case "stop":
                    await self._stop(node)
                case _:
                    await self._cut_off(node, rng)

    async def _rest(self) -> None:
        """Leave the nodes alone once each has shards again that is up: soon they share evenly."""
        names = [node.name for node in self._fleet.nodes]
        with trio.move_on_after(NOT_FOR_EVER) as patience:
            while self._under_way or not await self._all_have_shards():  # noqa: ASYNC110 -- in SQL, and processes
                await trio.sleep(LOOK_AGAIN)
        last = self._last
        await trio.sleep(SETTLED)
        owners = await self._ownership.owners()
        if patience.cancelled_caught or owners is None or self._under_way or self._last != last:
            return  # something else has happened
        for line in self._ownership.unevenness(owners, names):
            self._account.complain("uneven", "", f"after {SETTLED:g} s of rest: {line}")

    async def _all_have_shards(self) -> bool:
        owners = await self._ownership.owners() or {}
        nodes = self._fleet.nodes
        return all(node.up for node in nodes) and {owner for owner, _ in owners.values()} == {one.name for one in nodes}

    async def _end(self, kind: str, node: Node, rng: Random) -> None:
        """End a node, let others have its shards now and then before it is started again."""
        node.hands_off = True
        waits = rng.random() < 0.5
        if kind == "kill":
            await node.daemon.kill()
        elif (code := await node.daemon.stop()) != 0:
            self._account.complain("died", "", f"{node.name} was asked to end, and has ended with exit code {code}")
        if waits:
            await self._until_taken_over(kind, node)
        else:
            await trio.sleep(rng.choice(DOWN_FOR))
        await node.launch()
        node.hands_off = False
        with trio.move_on_after(NOT_FOR_EVER):
            while not node.up:  # noqa: ASYNC110 -- another process
                await trio.sleep(LOOK_AGAIN)

    async def _stop(self, node: Node) -> None:
        """Let a node stand still for twice its lease, with work in flight; others have its shards by then."""
        await self._stop_between_notes(node)
        began = _now()
        try:
            await self._until_taken_over("stop", node)
            lease = self._leases.redis if self._redis_is_there() else self._leases.postgresql
            await trio.sleep(max(2 * lease - (_now() - began) / 1e6, 0.0))
        finally:
            let_go_on(node)
            self._account.away(node.name, began, _now())

    async def _stop_between_notes(self, node: Node) -> None:
        """Stop a node while it does not just write into the world's database, for which all others would wait."""
        node.stopped = True
        while True:
            node.daemon.send(signal.SIGSTOP)
            await trio.sleep(0.01)
            if is_free(self._world):
                return
            node.daemon.send(signal.SIGCONT)
            await trio.sleep(0.01)

    async def _until_taken_over(self, kind: str, node: Node) -> None:
        """Wait until the shards of a node that is gone have other owners, and measure it."""
        since, troubles = trio.current_time(), self._troubles
        while await self._ownership.owns(node.name) and trio.current_time() < since + GIVEN_UP:  # noqa: ASYNC110 -- in SQL
            await trio.sleep(LOOK_AGAIN)
        took = round(trio.current_time() - since, 2)
        self.taken_over[kind] = max(took, self.taken_over.get(kind, 0.0))
        limit = TAKEN_WITHIN if self._redis_is_there() else TAKEN_WITHOUT_REDIS
        if took > limit and troubles == self._troubles:
            self._account.complain("take-over", "", f"{node.name}: after {kind} others had its shards in {took:.1f} s")

    async def _cut_off(self, node: Node, rng: Random) -> None:
        """Hold up what goes between a node and PostgreSQL: what it asks, what it is answered, or both."""
        proxy = self._ground.proxies.get(node.name)
        if proxy is None:
            return
        asked, answered = rng.choice(((True, True), (True, False), (False, True)))
        proxy.hold(asked=asked, answered=answered)
        try:
            await trio.sleep(rng.choice(HELD_FOR))
            if rng.random() < 0.5:
                proxy.cut()
        finally:
            proxy.release()

    # ---- Redis, PostgreSQL

    def _redis_is_there(self) -> bool:
        """Whether it has been for as long as a node takes to trust it again."""
        return self._redis is not None and trio.current_time() > self._redis_away + TAKEN_WITHOUT_REDIS

    async def _on_redis(self, kind: str, rng: Random) -> None:
        redis = self._redis
        assert redis is not None
        server = rng.choice(redis.servers)
        self._note(kind)
        began = trio.current_time()
        calm = self._under_way == 0 and began > self._last + SETTLED + self._leases.redis
        before = await self._ownership.owners() if calm else None
        match kind:
            case "flush":
                for one in redis.servers:
                    await trio.to_thread.run_sync(one.ask, "FLUSHALL")
            case "redis-kill":
                self._redis_away = trio.current_time()
                await trio.to_thread.run_sync(server.kill)
                await trio.sleep(rng.choice(REDIS_AWAY))
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(server.start)
            case _:
                server.pause()
                try:
                    await trio.sleep(rng.choice(REDIS_AWAY))
                finally:
                    server.resume()
        if kind != "flush":
            self._redis_away = trio.current_time()
        if before is not None:
            await self._check_nothing_moved(kind, before, began)

    async def _check_nothing_moved(self, kind: str, before: dict[int, tuple[str, int]], since: float) -> None:
        """The owners live: nothing that happens to Redis takes a shard from them. `since`: when they were asked for."""
        await trio.sleep(1.5 * self._leases.redis)
        after = await self._ownership.owners()
        if after is None or self._under_way or self._last > since:
            return  # something else has happened
        if moved := [shard for shard, owner in before.items() if after.get(shard) != owner]:
            self._account.complain("churn", "", f"{kind}: shards {moved} have other owners, or were taken again")

    async def _in_store(self, kind: str, rng: Random) -> None:
        self._troubles += 1
        with self._moving():
            if await self._ground.commit(kind, rng, self._recovery):
                self._note(kind)


def _among(kinds: Sequence[str], known: Collection[str]) -> list[str]:
    return [kind for kind in kinds if kind in known]


def _now() -> int:
    """Microseconds, on the clock by which steps note when they were carried out."""
    from jivsd.proof.torture.workflows import world

    return world.now()
