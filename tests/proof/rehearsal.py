"""The torturer's programs in one process, on time that jumps: a daemon's death takes microseconds, so there are many.

The engine dies at random appends and at random moments, its actors crash, its store loses answers and goes away, its
clock is set back and forth. The driver, the model and the checks are the torturer's own.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from pathlib import Path
from random import Random
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from store.faulty import FaultyStore

from jivsd.admin.problems import problem_of
from jivsd.client import ClientError, ConnectionLost, DaemonNotRunning
from jivsd.clock import SECOND, TrioClock, microseconds
from jivsd.engine.engine import Engine
from jivsd.engine.limits import Limits
from jivsd.proof.torture import workflows
from jivsd.proof.torture.account import Account
from jivsd.proof.torture.driver import Driver
from jivsd.proof.torture.evidence import looking
from jivsd.proof.torture.verdict import check_all
from jivsd.proof.torture.workflows import steps, world
from jivsd.records import encode
from jivsd.store.plugin_tables import Migration
from jivsd.store.sqlite.store import SqliteStore
from jivsd.supervision import Intensity
from jivsd.testing.env import EPOCH, Env

if TYPE_CHECKING:
    from typing import Self

    from jivsd.proof.torture.found import Violation

BY = "rehearsal"
ANSWERS = ("lost", "never", "later", "away", "busy")
PATIENCE = 3000.0
"""Seconds of the jumping clock in which the last runs must end, once nothing is done to the engine any more."""


class Crash(BaseException):
    """The process is dead."""


class Fates(msgspec.Struct, frozen=True):
    """How hard life is. `appends`: after how many at most the next death comes; `moments`: seconds, likewise."""

    appends: int = 60
    moments: float = 3.0
    answers: float = 0.1
    """Which part of the commits goes wrong."""
    actors: float = 0.3
    """How often per second an actor crashes."""
    passivate: float = inf
    """Seconds after which a run that waits leaves memory; 0: as soon as it can."""
    resident: int = 20_000
    """How many runs may wait in memory."""
    room: int = 1000
    """How many runs may be active, and how many steps run at once."""
    clock: int = 0
    """Seconds by which the clock is set back and forth at most."""


class MortalStore(SqliteStore):
    """In memory. When `left` appends have been made, who uses it dies: before the last is written, or behind."""

    def __init__(self) -> None:
        super().__init__(":memory:", threaded=False)
        self.left: int | None = None
        self.behind = False

    async def commit(self, batch: Any, more: Any = None) -> Any:
        if self.left is None or len(batch) < self.left:
            if self.left is not None:
                self.left -= len(batch)
            return await super().commit(batch)
        kept, self.left = self.left if self.behind else self.left - 1, None
        if kept:
            await super().commit(batch[:kept])
        raise Crash

    async def claim(self) -> int:
        """Claim all shards, as a daemon does that starts."""
        return await self._write(lambda db: db.execute(self._sql["claim_shards"], ("test",)).fetchall()[0][0])


class Wandering:
    """A clock that people set."""

    def __init__(self) -> None:
        self.offset = 0
        self._clock = TrioClock(EPOCH)

    def now(self) -> int:
        return self._clock.now() + self.offset


class Rehearsal(Env):
    """One seed's worth of deaths."""

    def __init__(self, seed: int, fates: Fates) -> None:
        self.random = Random(f"{seed}/rehearsal")
        self.fates = fates
        self.mortal = MortalStore()
        self.clock = Wandering()
        self.up = False
        self.deaths = 0
        self.asking: set[trio.CancelScope] = set()
        faulty: Any = FaultyStore(self.mortal, self.random, rate=fates.answers, faults=ANSWERS)
        self.faulty = faulty
        super().__init__(workflows, store=faulty)

    async def __aenter__(self) -> Self:
        folder = Path(workflows.__file__).parent / "migrations" / "sqlite"
        (ledger,) = folder.iterdir()  # a plugin that is given as a module brings none
        await super().__aenter__()
        await self.store.migrate_plugin(workflows.NAME, {"sqlite": [Migration(1, "ledger", ledger.read_text())]})
        return self

    def make_engine(self, epoch: int) -> Engine:
        fates = self.fates
        return Engine(
            self.store,
            self.registry,
            node="test",
            epoch=epoch,
            clock=self.clock,
            threads=0,
            look_again=1.0,
            limits=Limits(active_runs=fates.room, running_steps=fates.room),
            passivate_after=fates.passivate,
            resident=fates.resident,
            intensity=Intensity(restarts=1_000_000),  # what is planted is nobody's fault
        )

    async def _serve(self, epoch: int, task_status: trio.TaskStatus[None]) -> None:
        status: Any = task_status
        while True:
            self.engine = self.make_engine(epoch)
            self._next_death()
            self.up = True
            try:
                await self.engine.run(task_status=status)
            except BaseException as error:
                if not _is_crash(error):
                    raise
            else:
                return
            self.up = False
            self.deaths += 1
            status = trio.TASK_STATUS_IGNORED
            for scope in self.asking:
                scope.cancel()
            await trio.sleep(self.random.choice((0, 0.1, 1)))
            epoch = await self.mortal.claim()

    def _next_death(self) -> None:
        self.mortal.left = self.random.randint(1, self.fates.appends) if self.fates.appends else None
        self.mortal.behind = self.random.random() < 0.5

    async def trouble(self) -> None:
        """Kill, crash and set the clock at random moments."""
        while True:
            await trio.sleep(self.random.uniform(0, self.fates.moments))
            if not self.up:
                continue
            if self.random.random() < self.fates.actors * self.fates.moments / 2:
                if actors := sorted(self.engine.actors):
                    self.engine.actors[self.random.choice(actors)].fail(RuntimeError("planted"))
            else:
                with suppress(RuntimeError):  # it is dying already
                    self.engine.nursery.start_soon(_die)
            if self.fates.clock:
                self.clock.offset = self.random.randint(-self.fates.clock, self.fates.clock) * SECOND

    def calm(self) -> None:
        """Nothing more happens."""
        self.mortal.left = None
        self.faulty.rate = 0
        self.fates = msgspec.structs.replace(self.fates, appends=0)


async def _die() -> None:
    raise Crash


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_crash, error.exceptions))
    return isinstance(error, Crash)


class Door:
    """In place of `jivsd.client.Client`: the same methods and errors."""

    def __init__(self, env: Rehearsal) -> None:
        self._env = env

    async def _ask(self, question: Any) -> Any:
        env = self._env
        if not env.up:
            raise DaemonNotRunning("it is dead")
        with trio.CancelScope() as scope:
            env.asking.add(scope)
            try:
                return await question(env.engine)
            except ClientError:
                raise
            except Exception as error:
                problem = problem_of(error)
                if problem.status == 500:
                    raise
                facts = msgspec.to_builtins(problem.data)
                raise ClientError(problem.status, problem.code, problem.detail, facts) from None
            finally:
                env.asking.discard(scope)
        raise ConnectionLost("it died")

    async def start(self, workflow: str, input: Any, options: Any) -> Any:
        return await self._ask(lambda engine: engine.start(workflow, encode(input), options, by=BY))

    async def signal(self, ref: str, name: str, payload: Any, *, message_id: str) -> Any:
        body = encode(payload)
        return await self._ask(lambda engine: engine.signal(ref, name, body, message_id=message_id, by=BY))

    async def update(self, ref: str, name: str, payload: Any, *, message_id: str, wait: str) -> Any:
        body, seconds = encode(payload), microseconds(wait) / SECOND
        return await self._ask(
            lambda engine: engine.update(ref, name, body, message_id=message_id, wait=seconds, by=BY)
        )

    async def query(self, ref: str, name: str) -> Any:
        return await self._ask(lambda engine: engine.query(ref, name))

    async def show(self, ref: str) -> Any:
        return await self._ask(lambda engine: engine.show(ref))

    async def why(self, ref: str) -> Any:
        return await self._ask(lambda engine: engine.why(ref))

    async def runs(self, where: Any, limit: int) -> Any:
        return await self._ask(lambda engine: engine.runs(where, limit))

    async def result(self, ref: str, timeout: float) -> Any:
        return await self._ask(lambda engine: engine.result(ref, timeout))

    async def incidents(self, state: str, *, limit: int) -> Any:
        return await self._ask(lambda engine: engine.incidents(state, None, limit))

    async def retry_incident(self, incident_id: str, *, reason: str) -> Any:
        return await self._ask(lambda engine: engine.retry_incident(incident_id, by=BY, why=reason))

    async def resolve_incident(self, incident_id: str, value: Any, *, reason: str) -> Any:
        body = encode(value)
        return await self._ask(lambda engine: engine.resolve_incident(incident_id, body, by=BY, why=reason))

    def __getattr__(self, name: str) -> Any:
        """Pause, resume, cancel, terminate."""

        async def act(ref: str, *, reason: str = "") -> Any:
            return await self._ask(lambda engine: getattr(engine, name)(ref, by=BY, reason=reason))

        return act


class Inline(Driver):
    """Time that jumps does not wait for threads."""

    async def _mended(self, run_id: str, name: str) -> None:
        world.mend(self._world, run_id, name)


def without_threads() -> None:
    """Time that jumps does not wait for threads: steps that would run in one are tasks that cannot be cut short."""
    for step in (steps.plain, steps.plain_undoable, steps.plain_undoable.compensation):
        if step is not None and step.mode == "plain":
            step.mode, step.function = "async", _Unstoppable(step.function)


class _Unstoppable:
    def __init__(self, function: Any) -> None:
        self.__globals__ = {**function.__globals__, "time": self}
        self._function = FunctionType(function.__code__, self.__globals__, function.__name__, closure=None)
        self._seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, *arguments: Any) -> Any:
        self._seconds = 0.0
        try:
            return self._function(*arguments)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._seconds)


async def rehearse(folder: Path, seed: int, fates: Fates, *, seconds: float = 20, workers: int = 8) -> list[str]:
    """Live through a seed; what must not be."""
    world.make(str(folder / "world.sqlite"))
    account = Account(folder / "account.sqlite")
    without_threads()
    async with Rehearsal(seed, fates) as env:
        world.now = env.clock.now
        client: Any = Door(env)
        driver = Inline(client, account, seed=seed, world=str(folder / "world.sqlite"))
        until = trio.current_time() + seconds
        with trio.move_on_at(until + PATIENCE):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as trouble:
                    nursery.start_soon(_until, env, trouble, until)
                    await driver.work(workers, until)
                nursery.cancel_scope.cancel()
        await env.faulty.settle()
        await env.store.backup(str(folder / "jivsd.db"))
        found = [str(line) for line in await env.store.check()]
    account.close()
    with looking(folder / "jivsd.db", folder / "world.sqlite") as evidence:
        violations = [*account.complaints, *check_all(evidence, account)]
    return found + [str(one) for one in violations if not (fates.clock and _by_the_clock(one))]


def _by_the_clock(one: Violation) -> bool:
    """Whether it was concluded from times, which mean nothing when the clock is set."""
    return one.kind in ("after record", "lock") or one.message == "undoing it began before it had settled"


async def _until(env: Rehearsal, scope: trio.CancelScope, until: float) -> None:
    with trio.move_on_at(until):
        await env.trouble()
    env.calm()
