"""A campaign: three daemons migrate database after database; again and again one that owns a run stands still."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.bridge import Bridge
from jivsd.proof import pgserver, redisserver
from jivsd.proof.daemons import Daemon, insist
from jivsd.proof.torture.fleet import Fleet, Node, let_go_on
from jivsd.proof.torture.ownership import Ownership
from jivsd.proof.woken import planted, targets
from jivsd.proof.woken.belief import Belief
from jivsd.proof.woken.checks import stale
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import connect, drop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from jivsd.client import Client
    from jivsd.proof.woken.targets import Target

JOURNAL: Final = "journal"
ASKING: Final = 30.0
"""Seconds that a question to the database may take."""
PATIENCE: Final = 90.0
"""Seconds within which a migration does something, and others have the shards of a node that stands still."""
LOST_WITHIN: Final = 5.0
"""Seconds after it was woken within which a node says that it has let go of its shards."""
BACK_WITHIN: Final = 30.0
"""Seconds within which a node that was woken has a part again."""
LOOK_AGAIN: Final = 0.05
IN_FILES: Final = 4
"""One migration in so many goes into an SQLite file."""

_HISTORY: Final = (
    "CREATE TABLE public.history (shard integer, epoch bigint, node text, PRIMARY KEY (shard, epoch))",
    """CREATE FUNCTION public.remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.history VALUES (new.id, new.epoch, new.node);
    RETURN NULL;
END $$""",
    "CREATE TRIGGER remembered AFTER UPDATE ON jivsd.shard FOR EACH ROW WHEN (new.epoch <> old.epoch)"
    " EXECUTE FUNCTION public.remember()",
    "INSERT INTO public.history SELECT id, epoch, node FROM jivsd.shard ON CONFLICT DO NOTHING",
)
"""Which node got a shard under which epoch."""
_END: Final = """
SELECT NOT open, status, convert_from(error, 'UTF8'), (SELECT count(*) FROM jivsd.event WHERE event.run_id = run.run_id)
FROM jivsd.run WHERE run_id = $1::text::uuid
"""
_LOADING: Final = """
SELECT shard.node FROM jivsd.run JOIN jivsd.shard ON shard.id = run.shard
WHERE run.open AND run.workflow = 'migration'
    AND (SELECT path FROM jivsd.event WHERE event.run_id = run.run_id ORDER BY seq DESC LIMIT 1) LIKE 'load%'
"""
"""The owner of each run that has just loaded something."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. Times in seconds."""

    rounds: int = 200
    nodes: int = 3
    lease: float = 1.0
    redis: bool = True
    """Whether there is Redis; or else the nodes have leases in PostgreSQL alone, as long as `lease`."""
    width: int = 4
    """How many migrations are in flight."""
    rows: int = 200
    """Of each table."""
    seed: int = 0
    stale_writer: bool = False
    """Whether the target's fence is left out: then something must be wrong in the end."""


class Outcome(msgspec.Struct):
    """What came of it; good if there is nothing in `wrong`. Times in seconds, the longest."""

    rounds: int = 0
    in_flight: int = 0
    """How many migrations the stopped nodes were loading, all together."""
    migrations: int = 0
    in_files: int = 0
    """How many of them were into SQLite files."""
    written: int = 0
    """How many transactions have written into targets in PostgreSQL."""
    taken_over: float = 0.0
    """Until others had all shards of a node that stands still."""
    noticed: float = 0.0
    """Until a woken node had let go of all shards that it had."""
    by_itself: int = 0
    """How often all of them because its lease was over, and not because somebody had told it."""
    seconds: float = 0.0
    wrong: list[str] = []


async def campaign(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run one. `say` is told how far it is."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jivsd-woken-")))
        server = stack.enter_context(pgserver.Server())
        redis = stack.enter_context(redisserver.Server()).url if plan.redis else None
        bridge = await stack.enter_async_context(Bridge("jivsd-woken"))
        ground = Ground(server, bridge)
        await targets.prepare(ground.ask, folder, plan.rows)
        fleet = await stack.enter_async_context(_nodes(plan, folder, ground, redis))
        client = await stack.enter_async_context(fleet.client())
        work = Campaign(plan, fleet, ground, client, folder, say)
        await work.run()
    work.outcome.seconds = time.monotonic() - began
    return work.outcome


class Ground:
    """The private server, and how its databases are asked."""

    def __init__(self, server: pgserver.Server, bridge: Bridge) -> None:
        self.url = server.url(JOURNAL)
        self._server = server
        self._bridge = bridge

    async def ask(self, database: str, sql: str, *arguments: Any) -> list[Any]:
        """See `targets.Ask`."""

        async def once() -> list[Any]:
            connection = await connect(address_of(self._server.url(database)), "proof")
            try:
                return await connection.fetch(sql, *arguments)
            finally:
                drop(connection)

        return await self._bridge.call(once, timeout=ASKING)

    async def journal(self, sql: str, *arguments: Any) -> list[Any]:
        """Ask the journal."""
        return await self.ask(JOURNAL, sql, *arguments)


@asynccontextmanager
async def _nodes(plan: Plan, folder: Path, ground: Ground, redis: str | None) -> AsyncGenerator[Fleet]:
    """The daemons, up, with the watches in the journal."""
    if plan.stale_writer:
        planted.plant(folder / "plugins")
    lease = {"JIVSD_REDIS": redis, "JIVSD_CLUSTER__LEASE": f"{plan.lease:g}s"} if redis else {}
    lease = lease or {"JIVSD_CLUSTER__SHARE": "true", "JIVSD_CLUSTER__POSTGRESQL_LEASE": f"{plan.lease:g}s"}
    nodes: list[Node] = []
    for name in [f"node-{number}" for number in range(plan.nodes)]:
        await ground.ask("postgres", f'CREATE ROLE "{name}" SUPERUSER LOGIN')
        settings = {
            "JIVSD_STORE": ground.url, "JIVSD_NODE": name, "PGUSER": name,
            "JIVSD_LOG__LEVEL": "info", "JIVSD_LOG__FORMAT": "json", **lease,
        }  # fmt: skip
        place, log = folder / name, folder / f"{name}.log"
        if plan.stale_writer:
            daemon: Daemon = planted.PlantedDaemon(place, log, folder / "plugins", settings)
        else:
            daemon = Daemon(place, log, environment=settings)
        nodes.append(Node(name, daemon, may_end=False))
    await ground.ask("postgres", f"CREATE DATABASE {JOURNAL}")
    fleet = Fleet(nodes, plan.seed)
    try:
        await nodes[0].daemon.start()
        for statement in _HISTORY:
            await ground.journal(statement)
        await Ownership(ground.journal, "jivsd", "public").watch()
        async with trio.open_nursery() as nursery:
            for node in nodes[1:]:
                nursery.start_soon(node.daemon.start)
        yield fleet
    finally:
        await fleet.aclose()


class Campaign:
    """What goes on at once: migrations one after the other, and rounds."""

    def __init__(
        self, plan: Plan, fleet: Fleet, ground: Ground, client: Client, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._fleet = fleet
        self._ground = ground
        self._client = client
        self._folder = folder
        self._say = say
        self._ownership = Ownership(ground.journal, "jivsd", "public")
        self._chance = random.Random(plan.seed)
        self._in_flight: list[tuple[Target, str]] = []
        self._beliefs = {node.name: Belief(node.daemon.log) for node in fleet.nodes}
        self._looking = trio.Lock()
        """Held while targets are looked at that may be removed."""
        self._number = 0
        self._over = trio.Event()

    async def run(self) -> None:
        """Stop and wake nodes while they work; then wait for what is in flight, and look at the whole."""
        names = [node.name for node in self._fleet.nodes]
        wrong = self.outcome.wrong
        wrong += await self._ownership.uneven(names)
        async with trio.open_nursery() as nursery:
            for _ in range(self._plan.width):
                nursery.start_soon(self._migrate_on)
            while self.outcome.rounds < self._plan.rounds and not wrong:
                await self._round()
                async with self._looking:
                    for target, run in tuple(self._in_flight):
                        wrong += await self._stale(target, run)
                if self.outcome.rounds % 10 == 0:
                    self._say(f"{self.outcome.rounds} rounds, {self.outcome.migrations} migrations have ended")
            self._over.set()
            if wrong:
                nursery.cancel_scope.cancel()
        wrong += [f"run {run}, {path}: {what}" for run, path, what in await self._ownership.stale()]
        incidents = await self._ground.journal("SELECT message FROM jivsd.incident WHERE state = 'OPEN' LIMIT 3")
        wrong += [f"incident: {message}" for (message,) in incidents]
        wrong += await self._ownership.uneven(names)
        for name, code in (await self._fleet.stop()).items():
            if code != 0:
                wrong.append(f"{name} ended with exit code {code}")

    # ---- migrations

    async def _migrate_on(self) -> None:
        while not self._over.is_set():
            self._number += 1
            if self._number % IN_FILES or self._plan.stale_writer:  # in a file nobody sees who has written
                await self._migrate(targets.InPostgres(self._ground.ask, self._ground.url, self._number))
            else:
                await self._migrate(targets.InFile(self._folder, self._number))
                self.outcome.in_files += 1

    async def _migrate(self, target: Target) -> None:
        """Carry out one migration, and look at what it has left."""
        name = f"m{self._number}"
        request = {
            "source": target.source,
            "target": target.endpoint,
            "load": {"strategy": "PARALLEL", "parallelism": 3, "chunk_rows": targets.CHUNK},
        }
        await target.make()
        try:
            started = await insist(lambda: self._client.start("migration", request, id=name, idempotency_key=name))
            run = started.run.run_id
            self._in_flight.append((target, run))
            status, error = await self._end_of(run)
            self.outcome.written += len(await target.written())
            wrong = [f"{name}: {why}" for why in await self._stale(target, run) + await target.differences()]
            if status != "COMPLETED":
                wrong.append(f"{name} is {status or 'not at its end'}: {error}")
            self.outcome.wrong += wrong
            self.outcome.migrations += 1
        finally:
            with trio.CancelScope(shield=True):
                async with self._looking:
                    self._in_flight[:] = [one for one in self._in_flight if one[0] is not target]
                    await target.remove()

    async def _end_of(self, run: str) -> tuple[str | None, str]:
        """The status of a run when it has ended (None: it does not), and its error."""
        events, moved = 0, trio.current_time()
        while trio.current_time() < moved + PATIENCE:
            ((over, status, error, count),) = await self._ground.journal(_END, run)
            if over:
                return status, error or ""
            if count > events:
                events, moved = count, trio.current_time()
            await trio.sleep(LOOK_AGAIN)
        return None, f"it stands after {events} events"

    async def _stale(self, target: Target, run: str) -> list[str]:
        """What has been written by whom it was not to be written by."""
        lines = await target.written()
        ((shard,),) = await self._ground.journal("SELECT shard FROM jivsd.run WHERE run_id = $1::text::uuid", run)
        history = await self._ground.journal("SELECT epoch, node FROM public.history WHERE shard = $1", shard)
        owners = {(shard, epoch): node for epoch, node in history}
        return stale(lines, {run: shard}, owners)

    # ---- rounds

    async def _round(self) -> None:
        """Let a node that is loading stand still for twice its lease, wake it, and see that it has noticed."""
        loading: list[str] = []
        with trio.move_on_after(PATIENCE):
            while not (loading := await self._loading()):  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
        if not loading:
            self.outcome.wrong.append(f"no migration has loaded anything for {PATIENCE:g} s")
            return
        await trio.sleep(self._chance.uniform(0, 0.2))
        name = self._chance.choice(loading)
        node = next(one for one in self._fleet.nodes if one.name == name)
        node.stopped = True
        node.daemon.send(signal.SIGSTOP)
        began = trio.current_time()
        try:
            had = self._beliefs[name].mark()
            in_flight = (await self._loading()).count(name)
            await self._until_taken_over(name, began)
            await trio.sleep_until(began + 2 * self._plan.lease)
        finally:
            let_go_on(node)
        self.outcome.rounds += 1
        self.outcome.in_flight += in_flight
        await self._until_noticed(name, had)

    async def _loading(self) -> list[str]:
        """The owner of each run that is loading."""
        return [node for (node,) in await self._ground.journal(_LOADING) if node]

    async def _until_taken_over(self, name: str, began: float) -> None:
        with trio.move_on_after(PATIENCE):
            while await self._ownership.owns(name):  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
            self.outcome.taken_over = max(self.outcome.taken_over, trio.current_time() - began)
            return
        self.outcome.wrong.append(f"{name} has stood still for {PATIENCE:g} s, and nobody has taken all its shards")

    async def _until_noticed(self, name: str, had: set[int]) -> None:
        """A woken node stops what it has no right to any more, says so, and takes part again."""
        began, belief = trio.current_time(), self._beliefs[name]
        with trio.move_on_after(LOST_WITHIN):
            while not had <= belief.let_go:
                await trio.sleep(LOOK_AGAIN)
                belief.read()
        if left := had - belief.let_go:
            self.outcome.wrong.append(f"{name} was woken, and still believes that it has the shards {sorted(left)}")
        self.outcome.noticed = max(self.outcome.noticed, trio.current_time() - began)
        self.outcome.by_itself += had <= belief.lost_by_itself
        with trio.move_on_after(BACK_WITHIN):
            while not await self._ownership.owns(name):  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
            return
        self.outcome.wrong.append(f"{name} was woken, and had no shard again within {BACK_WITHIN:g} s")
