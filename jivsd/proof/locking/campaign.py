"""A campaign: daemons on one database, runs on few keys, kills, and in the end the ledger is read."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.bridge import Bridge, Pool
from jivsd.client import Client, ClientError, DaemonNotRunning
from jivsd.engine.api import NewStart, StartOptions, Unavailable
from jivsd.proof.daemons import Daemon, DaemonFailed
from jivsd.proof.locking.checks import Line, Ran, violations
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import connect, drop, usable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from jivsd.store.postgres.connections import Connection

CHUNK: Final = 200
"""How many runs are started with one call."""
PATIENCE: Final = 60.0
"""Seconds without any run that ends, after which the campaign has failed."""
ASKING: Final = 30.0
"""Seconds that a question to the database may take."""
LOOK_AGAIN: Final = 0.2
BLOCKS: Final = 3
"""One run in so many asks for its lock in its code."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. Times in seconds."""

    store: str
    runs: int = 10_000
    keys: int = 10
    ahead: int = 1_000
    """How many runs may be started and not have ended."""
    nodes: int = 1
    redis: str | None = None
    every: tuple[float, float] = (2.0, 10.0)
    """Between two kills, at least and at most; 0: nobody is killed."""
    away: tuple[float, float] = (0.0, 0.0)
    """How long a killed daemon is not started again, at least and at most."""
    lease: float = 5.0
    """How long a lock on a shard in Redis is good."""
    seed: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """What came of it; good if there is nothing in `wrong`."""

    runs: int
    kills: int
    seconds: float
    wrong: list[str]


async def campaign(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run one. `say` is told how far it is."""
    began = time.monotonic()
    async with _daemons(plan) as daemons, _asking(plan.store) as ask:
        force = _Force(plan, daemons)
        async with trio.open_nursery() as nursery:
            for daemon in daemons:
                nursery.start_soon(daemon.start)
        say(f"{len(daemons)} nodes are up")
        wrong: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(force.kill)
            async with trio.open_nursery() as starting:
                starting.start_soon(_start_all, plan, daemons, ask)
                wrong += await _until_ended(plan, ask, say)
                starting.cancel_scope.cancel()
            force.over.set()
        ledger = [Line(*row) for row in await ask("SELECT entry, run_id, key, what, fence FROM public.lock_ledger")]
        found = await ask("SELECT run_id::text, number, status, lock_key IS NOT NULL FROM jivsd.run")
        runs = [Ran(*row) for row in found]
        wrong += violations(ledger, runs)
        if left := await ask("SELECT key FROM jivsd.lock_ticket"):
            wrong.append(f"{len(left)} tickets are left although all runs have ended")
        if incidents := await ask("SELECT message FROM jivsd.incident WHERE state = 'OPEN' LIMIT 3"):
            wrong += [f"incident: {message}" for (message,) in incidents]
        for daemon in daemons:
            if (code := await daemon.stop()) != 0:
                wrong.append(f"a daemon ended with exit code {code}: {daemon.last_words()}")
    return Outcome(len(runs), force.kills, time.monotonic() - began, wrong)


@asynccontextmanager
async def _daemons(plan: Plan) -> AsyncGenerator[list[Daemon]]:
    with tempfile.TemporaryDirectory(prefix="jivsd-locking-") as name:
        folder = Path(name)
        plugin = Path(__file__).parent / "guarded"
        daemons: list[Daemon] = []
        for number in range(plan.nodes):
            settings = {"JIVSD_STORE": plan.store, "JIVSD_NODE": f"node-{number}"}
            if plan.nodes > 1:
                settings |= {"JIVSD_CLUSTER__SHARE": "true", "JIVSD_CLUSTER__LEASE": f"{plan.lease:g}s"}
                if plan.redis is not None:
                    settings["JIVSD_REDIS"] = plan.redis
            arguments = ["--plugins", str(plugin), "--log-level", "warning"]
            daemons.append(Daemon(folder / f"d{number}", folder / f"d{number}.log", arguments, settings))
        try:
            yield daemons
        finally:
            for daemon in daemons:
                await daemon.aclose()


Ask = Callable[[str], Any]


@asynccontextmanager
async def _asking(url: str) -> AsyncGenerator[Ask]:
    """Asks the database, with a connection of its own."""
    address = address_of(url)
    async with Bridge("jivsd-locking") as bridge:
        pool: Pool[Connection] = Pool(bridge, lambda: connect(address, "locking proof"), size=1, good=usable, drop=drop)

        async def ask(sql: str) -> list[Any]:
            return await pool.use(lambda db: db.fetch(sql), timeout=ASKING)

        yield ask


class _Force:
    """Kills daemons at random, and starts them again."""

    def __init__(self, plan: Plan, daemons: Sequence[Daemon]) -> None:
        self.over = trio.Event()
        self.kills = 0
        self._plan = plan
        self._daemons = daemons
        self._chance = random.Random(plan.seed)

    async def kill(self) -> None:
        while self._plan.every[1] > 0:
            with trio.move_on_after(self._chance.uniform(*self._plan.every)):
                await self.over.wait()
            if self.over.is_set():
                return
            daemon = self._chance.choice(self._daemons)
            await daemon.kill()
            self.kills += 1
            await trio.sleep(self._chance.uniform(*self._plan.away))
            await daemon.start()


async def _start_all(plan: Plan, daemons: Sequence[Daemon], ask: Ask) -> None:
    """Start all runs, over any daemon that answers; each is started once, however often that is said."""
    chance = random.Random(plan.seed + 1)
    for first in range(0, plan.runs, CHUNK):
        while first + CHUNK - await _ended(ask) > max(plan.ahead, CHUNK):  # noqa: ASYNC110 -- in a database
            await trio.sleep(LOOK_AGAIN)
        wanted = [_start(number, plan, chance) for number in range(first, min(first + CHUNK, plan.runs))]
        while wanted:
            try:
                async with Client.connect(data_dir=chance.choice(daemons).data_dir) as client:
                    results = await client.start_many(wanted)
            except (ClientError, DaemonNotRunning):
                await trio.sleep(LOOK_AGAIN)
                continue
            refused = [(one, result) for one, result in zip(wanted, results, strict=True) if result.result == "refused"]
            if lasting := [result.why for _, result in refused if result.code != Unavailable.code]:
                raise DaemonFailed(f"a start was refused: {lasting[0]}")
            wanted = [one for one, _ in refused]
            if wanted:
                await trio.sleep(LOOK_AGAIN)


def _start(number: int, plan: Plan, chance: random.Random) -> NewStart:
    workflow = "guarded" if number % BLOCKS else "guarded-block"
    pause = chance.choice((0, 0, 0.02))
    input = msgspec.json.encode({"key": f"key-{number % plan.keys}", "pause": pause})
    return NewStart(workflow, msgspec.Raw(input), StartOptions(id=f"run-{number}", idempotency_key=f"run-{number}"))


async def _until_ended(plan: Plan, ask: Ask, say: Callable[[str], None]) -> list[str]:
    """Wait until all runs have ended; return what is wrong if they do not."""
    ended, moved, said = 0, time.monotonic(), time.monotonic()
    while ended < plan.runs:
        await trio.sleep(LOOK_AGAIN)
        now = await _ended(ask)
        if now > ended:
            ended, moved = now, time.monotonic()
        elif time.monotonic() - moved > PATIENCE:
            return [f"no run has ended for {PATIENCE:g} s, {plan.runs - ended} are left"]
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{ended:,} of {plan.runs:,} runs have ended")
    return []


async def _ended(ask: Ask) -> int:
    ((ended,),) = await ask("SELECT count(*) FROM jivsd.run WHERE NOT open")
    return ended
