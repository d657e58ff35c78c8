"""The host: all open runs that live on this node, and what they share.

It recovers them, brings new ones to life, carries messages to them and lets them go. Actors see it as their
`Services`; the engine puts its front before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio

from jivsd import logs
from jivsd.clock import SystemClock
from jivsd.cluster.locks import Locks
from jivsd.engine import incidents, offspring
from jivsd.engine.actor import Actor
from jivsd.engine.answers import Answers
from jivsd.engine.api import ChildState, NotFound, Unavailable
from jivsd.engine.attempts import Exit
from jivsd.engine.births import Births
from jivsd.engine.calling import Calling
from jivsd.engine.ends import Waiters
from jivsd.engine.forwarding import Forwarding
from jivsd.engine.gate import Gate
from jivsd.engine.gauges import Gauges
from jivsd.engine.heartbeats import Pulses
from jivsd.engine.heldup import HeldUp
from jivsd.engine.holding import Holding
from jivsd.engine.housekeeping import Housekeeping
from jivsd.engine.life import Life
from jivsd.engine.limits import Limits
from jivsd.engine.loading import Loader
from jivsd.engine.passivation import Passivation
from jivsd.engine.quarantine import Quarantine
from jivsd.engine.recovery import Recovery
from jivsd.engine.slots import Slots
from jivsd.engine.timers import Timers
from jivsd.engine.waker import Waker
from jivsd.journal.committer import NOT_HELD, Committer
from jivsd.metrics import Metrics
from jivsd.records import ENDED, Event, Message, Run, new_id, shard_of
from jivsd.registry.source import PluginProblem
from jivsd.store.api import Delivered, NewRun, Post, Refused
from jivsd.supervision import Intensity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio import TaskStatus

    from jivsd.authoring import commands
    from jivsd.authoring.workflows import Workflow
    from jivsd.clock import Clock
    from jivsd.engine.api import Receipt
    from jivsd.engine.life import Suspension
    from jivsd.engine.trials import Trials
    from jivsd.registry.registry import Registry
    from jivsd.store.api import Recorded, Store, Verdict
    from jivsd.store.sharing import Neighbours

log = logs.get(__name__)

T = TypeVar("T")

FLUSH: Final = 5.0
"""Seconds for what was appended last to be committed."""


class Host(ABC):
    """`run` serves until `stop`; the other methods may be called meanwhile."""

    def __init__(
        self,
        store: Store,
        code: Registry,
        *,
        node: str,
        epoch: int | None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        threads: int = 40,
        recovery: int = 200,
        look_again: float = 30.0,
        limits: Limits | None = None,
        passivate_after: float = 10.0,
        resident: int = 3_000,
        store_url: str = "",
        ids: Callable[[], str] = new_id,
        intensity: Intensity | None = None,
    ) -> None:
        """Prepare.

        Args:
            store: an open store, and `epoch` as its `open` returned it; None: it is shared with other nodes, and which
                shards live here is said to `holding`.
            code: where workflows are found; what it has loaded must be in the store already.
            node: this node's name.
            clock: the time; the host's by default.
            metrics: what is counted.
            threads: how many plain steps run at once; 0: none in threads, they are called on the loop (for tests in
                which time jumps).
            recovery: how many runs are read from the store at once.
            look_again: seconds after which sleeping timers read the clock again.
            limits: how much may go on at once.
            passivate_after: seconds for which a run waits before it leaves memory; 0: it leaves as soon as it can.
            resident: how many runs may wait in memory.
            store_url: for `status`, without a password.
            ids: draws the ids of runs and messages; a seam for tests.
            intensity: how often a workflow may crash before it is quarantined.
        """
        self.store = store
        self.transactions = store.transactions
        self.code = code
        self.node = node
        self.store_url = store_url
        self.ids = ids
        self.clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self.gauges = Gauges(self)
        self.timers: Timers
        self.pulses: Pulses
        self.locks: Locks
        self.answers = Answers()
        self.waiters = Waiters()
        """Who waits for the end of a run."""
        self.nursery: trio.Nursery
        self.threads = trio.CapacityLimiter(threads) if threads else None
        self.loader: Loader[Recorded]
        """Reads the runs that come to memory."""
        self.rows = Loader(store.rows)
        self.passivation: Passivation
        self.housekeeping: Housekeeping
        self.holding = Holding(self, shared=epoch is None)
        self.calling = Calling(self)
        self.forwarding = Forwarding(self, store.requests)
        self.arriving: dict[str, list[Message]] = {}
        """The runs that are being read from the store, and what has been said to them meanwhile."""
        self.recovery = Recovery(self)
        self._loads = recovery
        self._passivate_after = passivate_after
        self._resident = resident
        self.actors: dict[str, Actor] = {}
        """The runs that are in memory."""
        self.suspended: dict[str, Suspension] = {}
        """The runs that wait for a person without an actor."""
        self.troubled: set[str] = set()
        """Runs that may have open incidents."""
        self.quarantine = Quarantine(self, intensity or Intensity())
        self.held_up = HeldUp(self)
        self.trials: Trials | None = None
        """Brings those back one by one who may have ended the process before; the composition root sets it."""
        self.stopping = False
        self.serving = False
        """Whether runs may come to life."""
        self.started_at = self.clock.now()
        self.children: Callable[[], list[ChildState]] = list
        """The supervisor's children, for `status`; the composition root sets it."""
        self.neighbours: Neighbours | None = None
        """The nodes of its database; the composition root sets it, unless the database is embedded."""
        self.committer = Committer(
            store,
            node=node,
            epoch=NOT_HELD if epoch is None else epoch,
            cap=lambda: max(64, min(1024, len(self.actors))),
            on_batch=self.gauges.batch_done,
            on_fenced=self.holding.fenced,
            on_away=self.gauges.away,
            on_held=self.held_up.note,
        )
        self._look_again = look_again
        self._limits = limits or Limits()
        self.slots: Slots
        """Who may run a step."""
        self.gate: Gate
        """Who may come in."""
        self._lives: trio.Nursery
        self.births: Births
        self.living: dict[str, Life] = {}
        """The runs that have a task here."""
        self.resident: Counter[str] = Counter()
        """How many those are, by workflow."""
        self.waker: Waker
        self._arrivals: dict[str, trio.Event] = {}
        self._stop = trio.Event()
        self._stopped = trio.Event()

    # ---- serving

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve: recover every open run, then live on until `stop`. After a crash it can be called again.

        Raises:
            StoreError: the store says something unexpected.
        """
        self.stopping = False
        self._stop, self._stopped = trio.Event(), trio.Event()
        self.timers = Timers(self.clock, look_again=self._look_again)
        self.pulses = Pulses(self.clock, self.actors)
        self.gate = Gate(self, self._limits)
        self.slots = Slots(self._limits, self.clock, self.metrics, self.gate.look)
        self.metrics.before_scrape = self.gauges.measure
        self.loader = Loader(self.store.recorded, self._loads)
        self.passivation = Passivation(self.clock, after=self._passivate_after, resident=self._resident)
        self.housekeeping = Housekeeping(self.store, self.committer, self.timers)
        self.waker = Waker(self.clock, self.timers, read=self.recovery.wakes, bring=self.recovery.bring)
        parts: list[Callable[[], Awaitable[None]]] = [
            *(self.loader.run, self.rows.run, self.passivation.run),
            *(self.waker.run, self.pulses.run, self.housekeeping.run),
        ]
        if self.holding.shared:
            parts += self.calling.send, self.calling.listen, self.calling.poll, self.forwarding.run
        try:
            async with trio.open_nursery() as base:
                async with trio.open_nursery() as self.nursery:
                    self.locks = Locks(self.store, self.nursery, self.calling.summon)
                    async with trio.open_nursery() as self._lives:
                        self.births = Births(self._lives, self._live)
                        await base.start(self._commit)
                        await base.start(self._run_timers)
                        for part in parts:
                            base.start_soon(self._keep_going, part)
                        task_status.started()
                        await self._serve()
                    self.nursery.cancel_scope.cancel()
                with trio.move_on_after(FLUSH):
                    await self.committer.drain()
                base.cancel_scope.cancel()
        finally:
            self.metrics.before_scrape = None
            self._stopped.set()

    async def _serve(self) -> None:
        self.serving = True
        try:
            await self._recover()
            await self._stop.wait()
        finally:
            self.serving = False

    async def _commit(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the committer going: what it had when it crashed it still has when it runs again."""
        while True:
            try:
                await self.committer.run(task_status)
            except Exception as error:
                log.critical("the journal failed; trying again", node=self.node, exc_info=error)
                task_status = trio.TASK_STATUS_IGNORED
                await trio.sleep(1)

    async def _run_timers(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.timers.run(task_status=task_status)

    async def _keep_going(self, part: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await part()
            except Exception as error:
                name = getattr(part, "__qualname__", "").lower()
                log.critical("a part of the engine failed; trying again", part=name, node=self.node, exc_info=error)
                await trio.sleep(1)

    async def _recover(self) -> None:
        with trio.move_on_after(FLUSH):
            await self.committer.drain()  # what was under way when `run` crashed is in the journal before it is read
        await self.recovery.run()

    def drain(self, grace: float) -> None:
        """Ask `run` to return: accept nothing new, let steps end within `grace` seconds and record what they did."""
        if self._stopped.is_set():
            return
        self.stopping = True
        self._stop.set()
        self.gate.close()
        for suspension in list(self.suspended.values()):
            suspension.over.set()
        for actor in list(self.actors.values()):
            actor.ask(Exit.STOPPED)
        with suppress(RuntimeError):  # `run` has crashed just now: there is nobody to hurry
            self.nursery.start_soon(self._hurry, grace)

    async def stop(self, grace: float) -> None:
        """Drain, and return when `run` has."""
        self.drain(grace)
        await self._stopped.wait()

    async def _hurry(self, grace: float) -> None:
        await trio.sleep(grace)
        if steps := sum(len(actor.attempts) for actor in self.actors.values()):
            log.warning("steps are cut short; they will run again", steps=steps, node=self.node)
        self.pulses.tell_all()
        self._lives.cancel_scope.cancel()

    async def rest(self, seconds: float) -> None:
        """Wait, but not longer than the host serves."""
        with trio.move_on_after(seconds):
            await self._stop.wait()

    # ---- services for actors

    def prepare_child(
        self, actor: Actor, path: str, call: commands.ChildCall, *, attached: bool
    ) -> tuple[NewRun, Event]:
        """See `Services`."""
        return offspring.prepare(self, actor, path, call, attached=attached)

    def newest(self, name: str) -> Workflow[..., Any] | None:
        """See `Services`."""
        return self.code.workflow(name)

    def adopt(self, run: Run, journal: list[Event] | None) -> None:
        """See `Services`."""
        if run.shard not in self.holding.shards:
            self.calling.run(run.shard, run.run_id)
        elif journal is None:
            self.bring(Life(self, run.run_id, run))
        else:
            self.began(run, journal)

    def deliver(self, message: Message) -> None:
        """See `Services`."""
        run_id = message.run_id or ""
        if self.holding.shared and (shard := shard_of(message.workflow_id)) not in self.holding.shards:
            self.calling.run(shard, run_id)
            return
        actor = self.actors.get(run_id)
        if actor is not None:
            actor.receive(message)
        elif (early := self.arriving.get(run_id)) is not None:
            early.append(message)
        else:
            self.activate(run_id)

    def rests(self, actor: Actor) -> None:
        """See `Services`."""
        self.passivation.rests(actor)

    def activate(self, run_id: str) -> None:
        """Bring a run back to memory, if it has none there and is open. It finds its messages in the inbox."""
        if run_id and run_id not in self.living:
            self.bring(Life(self, run_id))

    def arrived(self, run_id: str) -> None:
        """A run has come to memory, or will not for now."""
        if (arrival := self._arrivals.pop(run_id, None)) is not None:
            arrival.set()

    def parked(self, run: Run) -> None:
        """A run has left memory to wait."""
        self.metrics.passivations.inc()
        self.waker.expect(run.wake_at)

    async def present(self, run_id: str) -> Actor | None:
        """The live actor of a run, brought back if need be; None if it has ended or waits for a person without one.

        It stays until the caller's next await, and longer only inside `passivation.keeping`.

        Raises:
            Unavailable: nothing is brought back just now.
        """
        with self.passivation.keeping(run_id):
            while run_id not in self.suspended:
                actor = self.actors.get(run_id)
                if actor is not None:
                    if actor.live and not actor.leaving:
                        return actor
                    await actor.changed()
                    continue
                if run_id not in self.living:
                    run = await self.store.run(run_id)
                    if run is None or run.status in ENDED:
                        return None
                    if not self.serving:
                        raise Unavailable("the engine starts or stops just now", retry_after=1, run_id=run_id)
                    if run.shard not in self.holding.shards:
                        raise Unavailable("the run moves to another node just now", retry_after=1, run_id=run_id)
                    self.activate(run_id)
                if run_id not in self.actors:
                    await self._arrivals.setdefault(run_id, trio.Event()).wait()
        return None

    def post(self, message: Message, done: Callable[[Verdict], None]) -> None:
        """See `Services`."""

        def tell(verdict: Verdict) -> None:
            match verdict:
                case Delivered(run_id):
                    self.deliver(msgspec.structs.replace(message, run_id=run_id))
                case Refused("away") if not self.stopping:
                    self.post(message, done)
                    return
                case _:
                    pass
            done(verdict)

        self.committer.submit(Post(message), tell)

    @abstractmethod
    async def signal(
        self, ref: str, name: str, payload: bytes, *, message_id: str | None = None, by: str = ""
    ) -> Receipt:
        """See `Engine.signal`."""

    async def knows_letter(self, run: Run, message_id: str) -> bool:
        """See `Services`."""
        letter = incidents.misfit(run, message_id, "", 0)
        return await self.store.incident(letter.incident_id) is not None

    def ended(self, run: Run) -> None:
        """A run has ended, and has left memory."""
        self.troubled.discard(run.run_id)
        self.answers.ended(run.run_id)
        if run.options.lock_key is not None:
            self.locks.look(run.options.lock_key)
        self.waiters.tell(run)
        name = run.status.value.lower()
        counter = getattr(self.metrics, f"runs_{name}", None)
        if counter is not None:
            counter.labels(run.workflow).inc()
        seconds = ((run.ended_at or run.created_at) - run.created_at) / 1_000_000
        self.metrics.run_duration.labels(run.workflow, name).observe(seconds)

    def began(self, run: Run, journal: Sequence[Event]) -> None:
        """A run's start has been committed: bring it to life. From now on it gets its messages."""
        self.metrics.runs_started.labels(run.workflow).inc()
        if run.shard not in self.holding.shards:
            self.calling.run(run.shard, run.run_id)
            return
        workflow = self.code.resolve(run.workflow, run.code_hash)
        life = Life(self, run.run_id, run)
        self.bring(life, None if workflow is None else Actor(self, workflow, run), journal)

    def identify(self, life: Life) -> None:
        """The workflow and the shard of a life have become known."""
        self.resident[""] -= 1
        self.resident[life.workflow] += 1
        self.holding.population[NOT_HELD] -= 1
        self.holding.population[life.shard] += 1

    def bring(self, life: Life, actor: Actor | None = None, journal: Sequence[Event] = ()) -> bool:
        """Let a life begin. False if the run lives already, or somewhere else, or nothing begins any more."""
        if self.stopping or not self.serving or life.run_id in self.living:
            return False
        if life.shard != NOT_HELD and life.shard not in self.holding.shards:
            return False
        try:
            self.births.add(life, actor, journal)
        except RuntimeError:  # the host has crashed: the next `run` brings the run back
            return False
        self.living[life.run_id] = life
        self.resident[life.workflow] += 1
        self.holding.population[life.shard] += 1
        if actor is not None:
            self.actors[life.run_id] = actor
        else:
            life.ask()
        return True

    async def _live(self, life: Life, actor: Actor | None, journal: Sequence[Event]) -> None:
        self.births.begun()
        try:
            await life.live(actor, journal)
        finally:
            del self.living[life.run_id]
            self.resident[life.workflow] -= 1
            self.holding.population[life.shard] -= 1
            self.actors.pop(life.run_id, None)
            self.arriving.pop(life.run_id, None)
            self.gate.gone(life.run_id, life.workflow)
            self.housekeeping.left()
            self.arrived(life.run_id)
        if life.is_ours_again:
            self.activate(life.run_id)

    # ---- code

    def workflow(self, name: str) -> Workflow[..., Any]:
        """The newest code of a workflow. Raises NotFound."""
        workflow = self.code.workflow(name)
        if workflow is None:
            why = ""
            if (plugin := self.code.gone(name)) is not None:
                why = f" any more: plugin {plugin.name!r} ({plugin.where}) no longer has it; its open runs go on"
            raise NotFound(f"there is no workflow {name!r}{why}", workflow=name)
        return workflow

    async def code_of(self, run: Run) -> Workflow[..., Any] | None:
        """The code that a run began with, from the store if need be; None if it cannot be had."""
        workflow = self.code.resolve(run.workflow, run.code_hash)
        if workflow is None and (stored := await self.store.plugin(run.code_hash)) is not None:
            try:
                self.code.load_source(stored)
            except PluginProblem as problem:
                log.error("stored code does not load", plugin=stored.name, why=str(problem))
            workflow = self.code.resolve(run.workflow, run.code_hash)
        return workflow
