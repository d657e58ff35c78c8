"""The engine: a front of few lines over its parts. Doors call its methods; actors use it as their `Services`."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from jivsd import logs
from jivsd.clock import SystemClock
from jivsd.cluster.locks import Locks
from jivsd.engine import life, starts
from jivsd.engine.api import (
    Answer,
    ChildState,
    Conflict,
    EngineStatus,
    Gone,
    Incidents,
    Invalid,
    NotFound,
    PluginState,
    Receipt,
    Start,
    StartOptions,
    Timeline,
    Unavailable,
    Why,
    WorkflowInfo,
)
from jivsd.engine.attempts import Exit
from jivsd.engine.incidents import resolved
from jivsd.engine.looking import replayed, waits
from jivsd.engine.reset import reset
from jivsd.engine.timers import Timers
from jivsd.journal.committer import Committer
from jivsd.metrics import Metrics
from jivsd.records import (
    ENDED,
    CancelRequested,
    Ended,
    Event,
    Incident,
    IncidentState,
    Kind,
    Message,
    PauseChanged,
    Run,
    Signal,
    Status,
    derived_id,
    encode,
    new_id,
)
from jivsd.registry.source import PluginProblem
from jivsd.store.api import (
    Delivered,
    Duplicate,
    Entry,
    Existing,
    NewRun,
    Post,
    Refused,
    RunChange,
    RunFilter,
    Runs,
    Written,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio import TaskStatus

    from jivsd.authoring.workflows import Workflow
    from jivsd.clock import Clock
    from jivsd.engine.actor import Actor
    from jivsd.registry.registry import Registry
    from jivsd.store.api import Store, Verdict

log = logs.get(__name__)

NO_OPTIONS = StartOptions()
CHANGE_WAIT = 5.0
"""Seconds that pause and resume wait to see their effect before they answer."""


class Engine:
    """All open runs of this node. `run` serves until `stop`; the other methods may be called meanwhile."""

    def __init__(
        self,
        store: Store,
        code: Registry,
        *,
        node: str,
        epoch: int,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        threads: int = 40,
        recovery: int = 200,
        look_again: float = 30.0,
        store_url: str = "",
    ) -> None:
        """Prepare.

        Args:
            store: an open store, and `epoch` as its `open` returned it.
            code: where workflows are found; what it has loaded must be in the store already.
            node: this node's name.
            clock: the time; the host's by default.
            threads: how many plain steps run at once; 0: none in threads, they are called on the loop (for tests in
                which time jumps).
            recovery: how many runs are read from the store at once.
            look_again: seconds after which sleeping timers read the clock again.
            store_url: for `status`, without a password.
        """
        self.store = store
        self.code = code
        self.node = node
        self.clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self.timers = Timers(self.clock, look_again=look_again)
        self.threads = trio.CapacityLimiter(threads) if threads else None
        self.loading = trio.CapacityLimiter(recovery)
        self.actors: dict[str, Actor] = {}
        self.suspended: dict[str, life.Suspension] = {}
        self.stopping = False
        self._started_at = self.clock.now()
        self._store_url = store_url
        self.children: Callable[[], list[ChildState]] = list
        """The supervisor's children, for `status`; the composition root sets it."""
        self.committer = Committer(
            store,
            node=node,
            epoch=epoch,
            cap=lambda: max(64, min(512, len(self.actors) // 4)),
            on_batch=self._batch_done,
            on_fenced=self.metrics.fenced_appends.inc,
            on_away=self._away,
        )
        self.nursery: trio.Nursery
        self.locks: Locks
        self._lives: trio.Nursery
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self._ends: dict[str, list[trio.Event]] = {}
        self._switching: set[str] = set()

    # ---- serving

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve: recover every open run, then live on until `stop`.

        Raises:
            StoreError: the store says something unexpected.
        """
        self.stopping = False
        self._stop, self._stopped = trio.Event(), trio.Event()
        self.actors.clear()
        async with trio.open_nursery() as base:
            await base.start(self._commit)
            await base.start(self._run_timers)
            async with trio.open_nursery() as self.nursery:
                self.locks = Locks(self.store, self.nursery)
                async with trio.open_nursery() as self._lives:
                    task_status.started()
                    await self._recover()
                    await self._stop.wait()
                self.nursery.cancel_scope.cancel()
            base.cancel_scope.cancel()
        self._stopped.set()

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

    async def _recover(self) -> None:
        """Bring every open run back, oldest first. They enter by the ordinary door."""
        after: str | None = None
        found = 0
        while page := await self.store.open_runs(after, 1000):
            for run in page:
                if run.run_id not in self.actors:
                    self._lives.start_soon(life.live, self, run, None)
            found += len(page)
            after = page[-1].run_id
            log.info("recovering", runs=found, node=self.node)
        if found:
            log.info("recovered", runs=found, node=self.node)

    def drain(self, grace: float) -> None:
        """Ask `run` to return: accept nothing new, let steps end within `grace` seconds and record what they did."""
        self.stopping = True
        for suspension in list(self.suspended.values()):
            suspension.over.set()
        for actor in list(self.actors.values()):
            actor.ask(Exit.STOPPED)
        self.nursery.start_soon(self._hurry, grace)
        self._stop.set()

    async def stop(self, grace: float) -> None:
        """Drain, and return when `run` has."""
        self.drain(grace)
        await self._stopped.wait()

    async def _hurry(self, grace: float) -> None:
        await trio.sleep(grace)
        log.warning("steps are cut short; they will run again", node=self.node)
        self._lives.cancel_scope.cancel()

    def _batch_done(self, entries: int, seconds: float) -> None:
        self.metrics.journal_batch_size.observe(entries)
        self.metrics.journal_commit_seconds.observe(seconds)
        self.metrics.journal_pending.set(self.committer.pending)

    def _away(self, reason: str | None) -> None:
        if reason is None:
            log.warning("the store is back", node=self.node)
        else:
            log.error("the store cannot be written to; work waits", why=reason, node=self.node)

    # ---- services for actors

    def prepare_child(
        self, actor: Actor, path: str, workflow: str, input: bytes, *, workflow_id: str | None, timeout: int | None
    ) -> tuple[NewRun, Event]:
        """See `Services`."""
        return starts.prepare(
            self._workflow(workflow),
            input,
            StartOptions(id=workflow_id),
            now=self.clock.now(),
            by=f"parent {actor.run.run_id}",
            run_id=derived_id(actor.run.run_id, path),
            timeout=timeout,
            parent=actor.run,
            parent_path=path,
        )

    def adopt_started(self, run: Run, event: Event) -> None:
        """See `Services`."""
        self._began(run, [event])

    def _began(self, run: Run, journal: list[Event]) -> None:
        self.metrics.runs_started.labels(run.workflow).inc()
        if not self.stopping and run.run_id not in self.actors:
            self._lives.start_soon(life.live, self, run, journal)

    def deliver(self, message: Message) -> None:
        """See `Services`."""
        actor = self.actors.get(message.run_id or "")
        if actor is not None:
            actor.receive(message)

    def post(self, message: Message) -> None:
        """See `Services`."""

        def done(verdict: Verdict) -> None:
            if isinstance(verdict, Delivered):
                self.deliver(message)

        self.committer.submit(Post(message), done)

    def ended(self, run: Run) -> None:
        """See `Services`."""
        if run.options.lock_key is not None:
            self.locks.look(run.options.lock_key)
        for waiter in self._ends.pop(run.run_id, ()):
            waiter.set()
        name = run.status.value.lower()
        counter = getattr(self.metrics, f"runs_{name}", None)
        if counter is not None:
            counter.labels(run.workflow).inc()
        seconds = ((run.ended_at or run.created_at) - run.created_at) / 1_000_000
        self.metrics.run_duration.labels(run.workflow, name).observe(seconds)

    # ---- starting

    async def start(self, workflow: str, input: bytes, options: StartOptions = NO_OPTIONS, *, by: str = "") -> Start:
        """Start a run; when this returns, it is durable.

        Raises:
            NotFound: no such workflow. Invalid: the input or an option does not fit. Conflict: the workflow id is
            open, the key belongs to another input, the lock is held. Gone. Unavailable.
        """
        self._accepting()
        new, event = starts.prepare(self._workflow(workflow), input, options, now=self.clock.now(), by=by)
        entry = Entry(run_id=new.run.run_id, shard=new.run.shard, events=(event,), new=new)
        verdict = await self._commit_start(entry, new.run, [event])
        return Start(verdict.run, existing=True) if isinstance(verdict, Existing) else Start(new.run, existing=False)

    async def _commit_start(self, entry: Entry, run: Run, journal: list[Event]) -> Verdict:
        verdict = trio.Event()
        answers: list[Verdict] = []

        def done(answer: Verdict) -> None:
            answers.append(answer)
            if isinstance(answer, Written):
                self._began(run, journal)
            verdict.set()

        self.committer.submit(entry, done)
        await verdict.wait()
        if isinstance(answers[0], Refused):
            raise refusal(answers[0], run)
        return answers[0]

    def _accepting(self) -> None:
        if self.stopping:
            self.metrics.starts_rejected.inc()
            raise Unavailable("the daemon is shutting down")

    def _workflow(self, name: str) -> Workflow[..., Any]:
        workflow = self.code.workflow(name)
        if workflow is None:
            raise NotFound(f"there is no workflow {name!r}", workflow=name)
        return workflow

    # ---- messages

    async def signal(
        self, ref: str, name: str, payload: bytes, *, message_id: str | None = None, by: str = ""
    ) -> Receipt:
        """Send a signal; when this returns, it is durable and will be applied once.

        Raises:
            NotFound, Conflict (ended), Invalid (the payload does not fit), Unavailable.
        """
        run = await self.show(ref)
        self._check_signal(run, name, payload)
        message_id = message_id or new_id()
        body = encode(Signal(name, message_id, msgspec.Raw(payload)))
        return await self._send(run, Kind.SIGNAL, body, by, message_id, by_run=":" not in ref)

    def _check_signal(self, run: Run, name: str, payload: bytes) -> None:
        workflow = self.code.resolve(run.workflow, run.code_hash)
        if workflow is None:
            return
        try:
            if (handler := workflow.signals.get(name)) is not None:
                handler.signature.decode_input(payload, strict=True)
            elif (codec := workflow.messages.get(name)) is not None:
                codec.decode(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise Invalid(f"signal {name!r}: {error}", signal=name) from None

    async def _send(
        self, run: Run, kind: Kind, payload: bytes, by: str, message_id: str, *, by_run: bool = True
    ) -> Receipt:
        message = Message(
            workflow=run.workflow,
            workflow_id=run.workflow_id,
            message_id=message_id,
            kind=kind,
            path="",
            payload=payload,
            at=self.clock.now(),
            by=by,
            run_id=run.run_id if by_run else None,
        )
        answers: list[Verdict] = []
        arrived = trio.Event()

        def done(verdict: Verdict) -> None:
            answers.append(verdict)
            if isinstance(verdict, Delivered):
                self.deliver(msgspec.structs.replace(message, run_id=verdict.run_id))
            arrived.set()

        self.committer.submit(Post(message), done)
        await arrived.wait()
        match answers[0]:
            case Delivered(run_id):
                return Receipt(run_id, message_id, duplicate=False)
            case Duplicate(run_id):
                return Receipt(run_id, message_id, duplicate=True)
            case Refused() as refused:
                raise refusal(refused, run)
            case other:
                raise AssertionError(f"a message cannot be answered with {other!r}")

    async def cancel(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Ask a run to cancel: it compensates and ends CANCELLED."""
        return await self._control(ref, Kind.CANCEL_REQUESTED, encode(CancelRequested(reason)), by)

    async def terminate(self, ref: str, *, by: str, reason: str = "") -> Run:
        """End a run without compensating."""
        run = await self._control(ref, Kind.ENDED, encode(Ended(Status.TERMINATED)), by)
        if (suspension := self.suspended.get(run.run_id)) is not None:
            await self._end_suspended(run, suspension.incident, by, reason)
        return run

    async def _control(self, ref: str, kind: Kind, payload: bytes, by: str) -> Run:
        run = await self._open(ref)
        await self._send(run, kind, payload, by, new_id())
        return run

    async def _end_suspended(self, run: Run, incident: Incident, by: str, reason: str) -> None:
        events = await self.store.events(run.run_id)
        now = max(self.clock.now(), events[-1].at)
        ended = Ended(Status.TERMINATED)
        event = Event(run.run_id, events[-1].seq + 1, Kind.ENDED, "", encode(ended), now, 0, by)
        closed = resolved(incident, "terminated", by=by, why=reason, at=now)
        change = RunChange(status=Status.TERMINATED, ended_at=now)
        entry = Entry(run.run_id, run.shard, events=(event,), change=change, incidents=(closed,), ends=True)
        await self.committer.submit_and_wait(entry)
        self.ended(msgspec.structs.replace(run, status=Status.TERMINATED, ended_at=now))
        self.suspended[run.run_id].over.set()

    async def pause(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Let running steps end and start nothing more. Raises Conflict when the run is paused already."""
        return await self._switch(ref, by, reason, paused=True)

    async def resume(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Go on. Raises Conflict when the run is not paused; of two at once, one succeeds."""
        return await self._switch(ref, by, reason, paused=False)

    async def _switch(self, ref: str, by: str, reason: str, *, paused: bool) -> Run:
        run = await self._open(ref)
        if run.paused is paused or run.run_id in self._switching:
            state = "being paused or resumed" if run.run_id in self._switching else "paused" if paused else "not paused"
            raise Conflict(f"run {run.run_id} is {state}", run_id=run.run_id, status=run.status)
        self._switching.add(run.run_id)
        try:
            kind = Kind.PAUSED if paused else Kind.RESUMED
            await self._send(run, kind, encode(PauseChanged(reason)), by, new_id())
            actor = self.actors.get(run.run_id)
            with trio.move_on_after(CHANGE_WAIT):
                while actor is not None and actor.run.paused is not paused and actor.run.status not in ENDED:
                    await actor.changed()
        finally:
            self._switching.discard(run.run_id)
        (self.metrics.runs_paused if paused else self.metrics.runs_resumed).labels(run.workflow).inc()
        return await self.show(run.run_id)

    # ---- looking

    async def show(self, ref: str) -> Run:
        """The row of a run: by run id, or "workflow:workflow_id" for its open run or else its newest.

        Raises:
            NotFound.
        """
        workflow, colon, workflow_id = ref.partition(":")
        run = await (self.store.current_run(workflow, workflow_id) if colon else self.store.run(ref))
        if run is None:
            raise NotFound(f"there is no run {ref!r}", run=ref)
        return run

    async def _open(self, ref: str) -> Run:
        run = await self.show(ref)
        if run.status in ENDED:
            raise Conflict(
                f"run {run.run_id} has ended: {run.status}", code="ended", run_id=run.run_id, status=run.status
            )
        return run

    async def runs(self, where: RunFilter, limit: int = 50, cursor: str | None = None) -> Runs:
        """A page of runs, newest first."""
        return await self.store.runs(where, limit, cursor)

    def workflows(self) -> list[WorkflowInfo]:
        """The workflow types that new runs can have."""
        return [
            WorkflowInfo(
                name=workflow.name,
                plugin=plugin.name,
                code_hash=workflow.code_hash,
                description=workflow.description,
                input_schema=workflow.signature.schema(),
                signals=sorted({*workflow.signals, *workflow.messages}),
                queries=sorted(workflow.queries),
                lock_key=workflow.lock_key,
                timeout=workflow.timeout,
            )
            for plugin in self.code.plugins
            for workflow in plugin.workflows.values()
        ]

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

    async def status(self) -> EngineStatus:
        """The daemon in one record."""
        counts = dict(await self.store.counts())
        return EngineStatus(
            node=self.node,
            version=version("jivsd"),
            started_at=self._started_at,
            store=self._store_url,
            incidents=counts.pop("incidents", 0),
            runs=counts,
            actors=len(self.actors),
            steps_running=sum(len(actor.attempts) for actor in self.actors.values()),
            journal_pending=self.committer.pending,
            store_away=self.committer.away,
            plugins=self._plugins(),
            children=self.children(),
        )

    def _plugins(self) -> list[PluginState]:
        loaded = [PluginState(one.name, one.code_hash, sorted(one.workflows)) for one in self.code.plugins]
        return [*loaded, *(PluginState(one.plugin, "", [], str(one)) for one in self.code.problems)]

    async def timeline(self, ref: str, after: int = 0, limit: int = 100) -> Timeline:
        """A page of a run's events."""
        run = await self.show(ref)
        events = await self.store.events(run.run_id, after, limit + 1)
        return Timeline(events[:limit], events[limit - 1].seq if len(events) > limit else None)

    async def result(self, ref: str, timeout: float) -> Run:
        """The run once it has ended, or as it stands after `timeout` seconds."""
        run = await self.show(ref)
        ended = trio.Event()
        waiters = self._ends.setdefault(run.run_id, [])
        waiters.append(ended)
        try:
            run = await self.show(run.run_id)
            if run.status not in ENDED:
                with trio.move_on_after(timeout):
                    await ended.wait()
                run = await self.show(run.run_id)
        finally:
            if ended in waiters:
                waiters.remove(ended)
            if not waiters:
                self._ends.pop(run.run_id, None)
        return run

    async def query(self, ref: str, name: str, payload: bytes = b"null") -> Answer:
        """Ask a run: the live one, or a throwaway replay of its journal. Activates nothing.

        Raises:
            NotFound: no such run or query. Invalid: the payload does not fit, or the query's code raised.
        """
        run = await self.show(ref)
        workflow = await self._code_of(run)
        handler = workflow.queries.get(name)
        if handler is None:
            known = ", ".join(sorted(workflow.queries)) or "none"
            raise NotFound(f"workflow {run.workflow!r} has no query {name!r}; it has: {known}", query=name)
        try:
            arguments = handler.signature.decode_input(payload, strict=True)
        except ValueError as error:
            raise Invalid(str(error), query=name) from None
        actor = self.actors.get(run.run_id)
        if actor is not None and actor.live and actor.machine.instance is not None:
            return _answer(partial(actor.machine.query, name, arguments), handler, actor.machine.seq)
        async with replayed(workflow, run, await self.store.events(run.run_id)) as machine:
            return _answer(partial(machine.query, name, arguments), handler, machine.seq)

    async def why(self, ref: str) -> Why:
        """What a run waits for."""
        run = await self.show(ref)
        if run.status in ENDED:
            return Why(run, [])
        ahead = await self._ahead(run)
        actor = self.actors.get(run.run_id)
        if actor is not None and actor.live:
            return Why(run, waits(actor.machine, ahead))
        if (suspension := self.suspended.get(run.run_id)) is not None:
            return Why(run, [life.waiting(suspension)])
        async with replayed(await self._code_of(run), run, await self.store.events(run.run_id)) as machine:
            return Why(run, waits(machine, ahead))

    async def _ahead(self, run: Run) -> list[str]:
        ahead: list[str] = []
        if run.options.lock_key is not None:
            for holder in await self.store.lock_queue(run.options.lock_key):
                if holder.run_id == run.run_id:
                    break
                ahead.append(holder.run_id)
        return ahead

    async def _code_of(self, run: Run) -> Workflow[..., Any]:
        workflow = await self.code_of(run)
        if workflow is None:
            raise Conflict(f"the code of run {run.run_id} cannot be loaded", run_id=run.run_id)
        return workflow

    # ---- mending

    async def retry(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Reset a failed run to its last good event: a new run with the same workflow id.

        Raises:
            Conflict: it has not ended, or has completed, or its workflow id is open again.
        """
        self._accepting()
        run = await self.show(ref)
        if run.status not in ENDED or run.status in (Status.COMPLETED, Status.CONTINUED):
            raise Conflict(f"run {run.run_id} is {run.status}; only a failed one is retried", run_id=run.run_id)
        workflow = await self._code_of(run)
        events = await self.store.events(run.run_id)
        new, journal = await reset(workflow, run, events, now=self.clock.now(), by=by)
        entry = Entry(run_id=new.run_id, shard=new.shard, events=tuple(journal), new=NewRun(new))
        await self._commit_start(entry, new, journal)
        return new

    async def incidents(
        self, state: str | None = IncidentState.OPEN, ref: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Incidents:
        """A page of incidents."""
        run_id = (await self.show(ref)).run_id if ref is not None else None
        return Incidents(*await self.store.incidents(state, run_id, limit, cursor))

    async def incident(self, incident_id: str) -> Incident:
        """One incident. Raises NotFound."""
        found = await self.store.incident(incident_id)
        if found is None:
            raise NotFound(f"there is no incident {incident_id!r}", incident=incident_id)
        return found

    async def retry_incident(self, incident_id: str, *, by: str, why: str) -> Incident:
        """Try again what an incident holds: the step afresh, or the run from its journal.

        Raises:
            Conflict: it is resolved, or holds nothing that could be tried.
        """
        incident = await self._open_incident(incident_id)
        run_id = incident.run_id or ""
        closed = resolved(incident, "retry", by=by, why=why, at=self.clock.now())
        if (suspension := self.suspended.get(run_id)) is not None:
            await life.record(self, await self.show(run_id), closed)
            suspension.over.set()
        elif (actor := self.actors.get(run_id)) is not None and actor.retry_incident(closed):
            pass
        else:
            raise Conflict(f"incident {incident_id} holds nothing that could be tried again", incident=incident_id)
        return closed

    async def resolve_incident(self, incident_id: str, value: bytes, *, by: str, why: str) -> Incident:
        """Decide an incident: `value` becomes the result of the step that it holds; others are closed as seen.

        Raises:
            Conflict: it is resolved, or the run cannot go on by a value. Invalid: the value does not fit the step.
        """
        incident = await self._open_incident(incident_id)
        closed = resolved(incident, "value", by=by, why=why, at=self.clock.now())
        actor = self.actors.get(incident.run_id or "")
        if incident.kind in ("step", "compensation"):
            if actor is None or not actor.resolve_step(closed, value):
                raise Conflict(f"incident {incident_id} no longer holds a step", incident=incident_id)
        elif incident.path == "" and incident.run_id is not None:
            raise Conflict(
                f"incident {incident_id} ({incident.kind}) holds the whole run; mend its cause and retry it",
                incident=incident_id,
            )
        elif incident.run_id is None:
            await self.store.put_incident(closed)
        else:
            await life.record(self, await self.show(incident.run_id), closed)
        return closed

    async def _open_incident(self, incident_id: str) -> Incident:
        incident = await self.incident(incident_id)
        if incident.state is not IncidentState.OPEN:
            raise Conflict(f"incident {incident_id} is resolved already", incident=incident_id)
        return incident

    async def prune(self, where: RunFilter) -> int:
        """Remove ended runs and their journals, in small batches. Returns how many."""
        total = 0
        while removed := await self.store.prune(where, 500):
            total += removed
        return total


def refusal(refused: Refused, run: Run) -> Exception:
    """What a door is told when the store refuses a start or a message."""
    facts = {"run_id": refused.run_id} if refused.run_id else {}
    other = f" (run {refused.run_id})" if refused.run_id else ""
    match refused.why:
        case "open" | "exists":
            return Conflict(f"workflow id {run.workflow_id!r} has an open run{other}", code="open", **facts)
        case "key_reused":
            return Conflict(f"the idempotency key was used with another input{other}", code="key_reused", **facts)
        case "locked":
            return Conflict(f"lock {run.options.lock_key!r} is held{other}", code="locked", **facts)
        case "ended" | "not_found":
            return Conflict(f"run {run.run_id} has ended", code="ended", run_id=run.run_id)
        case "gone":
            return Gone(f"the run of this idempotency key was pruned{other}", **facts)
        case "invalid":
            return Invalid(f"it cannot be stored: {refused.detail}")
        case _:
            return Unavailable(f"the journal cannot take it now: {refused.detail or refused.why}")


def _answer(ask: Any, handler: Any, seq: int) -> Answer:
    try:
        value = encode(ask())
    except Exception as error:  # the author's own
        raise Invalid(f"query {handler.name!r} failed: {type(error).__name__}: {error}", query=handler.name) from None
    return Answer(msgspec.Raw(value), seq)
