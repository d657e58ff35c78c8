"""Looking at runs without waking them: their rows and events, queries, and why they wait."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.authoring import commands
from jivsd.cluster import circles
from jivsd.engine import beginnings, heartbeats, locking, unwind
from jivsd.engine.ahead import settled
from jivsd.engine.api import Answer, Conflict, Invalid, Locks, NotFound, Outbox, Timeline, Wait, Why
from jivsd.engine.replay import START, Machine, Open
from jivsd.engine.replay.interrupts import from_terminal
from jivsd.records import ENDED, Run, Status, encode
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from jivsd.authoring.workflows import Workflow
    from jivsd.cluster.circles import Circle
    from jivsd.engine.actor import Actor
    from jivsd.engine.host import Host
    from jivsd.records import Event, Progress
    from jivsd.store.requests import Asked


NEWEST: Final = "@newest"
"""In the place of a workflow id: the newest run of the workflow."""
FEW: Final = 1000
"""Tickets that are looked through for circles at once; more would hold up the loop."""
PAUSE: Final = Wait("", "pause", "somebody to resume it")


class Looking:
    """Answers questions about the runs of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def show(self, ref: str) -> Run:
        """See `Engine.show`."""
        host = self._host
        workflow, colon, workflow_id = ref.partition(":")
        run = await (host.store.current_run(workflow, workflow_id) if colon else host.rows.load(ref))
        if run is None and workflow_id == NEWEST:
            run = next(iter((await host.store.runs(RunFilter(workflow), 1)).items), None)
        if run is None and not colon and (asked := await host.store.sql_requests.find(ref)) is not None:
            if asked.run_id is not None:
                return await self.show(asked.run_id)
            raise NotFound(_not_begun(ref, asked), run=ref)
        if run is None:
            hint = "" if workflow_id else "; a run is named by its run id or as WORKFLOW:ID"
            raise NotFound(f"there is no run {ref!r}{hint}", run=ref)
        return run

    async def code_of(self, run: Run) -> Workflow[..., Any]:
        """The code that a run began with. Raises Conflict if it cannot be had."""
        workflow = await self._host.code_of(run)
        if workflow is None:
            raise Conflict(f"the code of run {run.run_id} cannot be loaded", run_id=run.run_id)
        return workflow

    async def timeline(self, ref: str, after: int, limit: int) -> Timeline:
        """See `Engine.timeline`."""
        run = await self.show(ref)
        events = await self._host.store.events(run.run_id, after, limit + 1)
        return Timeline(events[:limit], events[limit - 1].seq if len(events) > limit else None)

    async def outbox(self, after: int, limit: int, topic: str | None) -> Outbox:
        """See `Engine.outbox`."""
        items = await self._host.store.outbox(after, limit + 1, topic)
        return Outbox(items[:limit], items[limit - 1].number if len(items) > limit else None)

    async def lock_queues(self, key: str | None, limit: int, cursor: str | None, waiters: int) -> Locks:
        """See `Engine.lock_queues`."""
        store = self._host.store
        items = await store.lock_queues(key, limit + 1, cursor or "", waiters + 1)
        following = items[limit - 1].key if len(items) > limit else None
        return Locks(items[:limit], following, await self.lock_circles(self._host.clock.now()))

    async def lock_circles(self, since: int) -> list[Circle]:
        """See `Engine.lock_circles`."""
        tangle = await self._host.store.tangle(since)
        if len(tangle.claims) < FEW:
            return circles.find(tangle)
        return await trio.to_thread.run_sync(circles.find, tangle)

    async def result(self, ref: str, timeout: float) -> Run:
        """See `Engine.result`."""
        host = self._host
        run_id = ref if ref in host.living else (await self.show(ref)).run_id
        deadline = trio.current_time() + timeout
        while True:
            left = max(deadline - trio.current_time(), 0)
            again = host.holding.glances
            ended = await host.waiters.until_ended(run_id, left, partial(self._if_ended, run_id), again)
            run = ended or await self.show(run_id)
            if run.status is not Status.CONTINUED or (following := await host.store.continued(run_id)) is None:
                return run
            run_id = following.run_id

    async def _if_ended(self, run_id: str) -> Run | None:
        if run_id in self._host.living:
            return None  # who waits is told
        run = await self.show(run_id)
        return run if run.status in ENDED else None

    async def query(self, ref: str, name: str, payload: bytes) -> Answer:
        """See `Engine.query`."""
        run = await self.show(ref)
        workflow = await self.code_of(run)
        handler = workflow.queries.get(name)
        if handler is None:
            known = ", ".join(sorted(workflow.queries)) or "none"
            raise NotFound(f"workflow {run.workflow!r} has no query {name!r}; it has: {known}", query=name)
        try:
            arguments = handler.signature.decode_input(payload, strict=True)
        except ValueError as error:
            raise Invalid(str(error), query=name) from None
        actor = self._host.actors.get(run.run_id)
        if actor is not None and await settled(actor):
            return _answer(partial(actor.machine.query, name, arguments), handler, actor.machine.seq)
        async with replayed(workflow, run, await self._host.store.events(run.run_id)) as machine:
            return _answer(partial(machine.query, name, arguments), handler, machine.seq)

    async def progress(self, ref: str) -> list[Progress]:
        """See `Engine.progress`."""
        run = await self.show(ref)
        actor = self._host.actors.get(run.run_id)
        if actor is not None and actor.live:
            return heartbeats.shown(actor)
        return [] if run.status in ENDED else await self._host.store.progress(run.run_id)

    async def why(self, ref: str) -> Why:
        """See `Engine.why`."""
        run = await self.show(ref)
        if run.status in ENDED:
            return Why(run, [])
        actor = self._host.actors.get(run.run_id)
        if actor is not None and actor.live:
            ahead = await self._ahead(actor.machine)
            if actor.live:  # it has not left memory meanwhile
                obstacle = self._host.gate.obstacle(actor.workflow) if beginnings.in_line(actor) else ""
                found = list(_of_actor(actor, ahead, obstacle))
                return Why(run, [*await self._held_up(run.run_id), *found])
        if (suspension := self._host.suspended.get(run.run_id)) is not None:
            held = Wait("", "incident", suspension.incident.message)
            return Why(run, [held, PAUSE] if run.paused else [held])
        async with replayed(await self.code_of(run), run, await self._host.store.events(run.run_id)) as machine:
            return Why(run, waits(run, machine, await self._ahead(machine)))

    async def _held_up(self, run_id: str) -> list[Wait]:
        """What of the database others hold that the run waits for."""
        seconds = self._host.held_up.since(run_id)
        if seconds is None:
            return []
        who = await self._host.held_up.by_whom()
        return [Wait("", "row", f"rows in the database, for {seconds:.0f} s; they are held by {who}")]

    async def _ahead(self, machine: Machine) -> dict[str, list[str]]:
        """Who is before the run in the queues for the locks that it waits for, by the path of each."""
        ahead: dict[str, list[str]] = {}
        for path, entry in list(machine.open.items()):
            if isinstance(entry.command, commands.Lock):
                own = machine.run_id, locking.ticket_path(path)
                queue = await self._host.store.lock_queue(entry.command.key)
                others = takewhile(lambda one, own=own: (one.run_id, one.path) != own, queue)
                ahead[path] = [one.run_id for one in others]
        return ahead


def _answer(ask: Any, handler: Any, seq: int) -> Answer:
    try:
        value = encode(ask())
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the author's own
        if from_terminal(error):
            raise
        raise Invalid(f"query {handler.name!r} failed: {type(error).__name__}: {error}", query=handler.name) from None
    return Answer(msgspec.Raw(value), seq)


@asynccontextmanager
async def replayed(workflow: Workflow[..., Any], run: Run, events: list[Event]) -> AsyncGenerator[Machine]:
    """A machine that has been through a run's journal, for as long as the block lasts. Nothing comes of it."""
    task: Any = trio.lowlevel.current_task()
    machine = Machine(workflow, run.run_id, run.workflow_id, journal=events, probe=lambda: task._cancel_status)
    try:
        for event in events:
            machine.deliver(event)
        yield machine
    finally:
        for foreign in machine.freeze():
            await unwind.undo(foreign)


def waits(run: Run, machine: Machine, ahead: dict[str, list[str]]) -> list[Wait]:
    """What a run waits for. `ahead`: the runs before it in the queues for locks, by the path of each."""
    found: list[Wait] = []
    if machine.blocked is not None:
        found.append(Wait("", "incident", machine.blocked.message))
    if run.paused:
        found.append(PAUSE)
    found += (_wait(entry, ahead) for entry in machine.open.values() if not _is_over(entry))
    for listeners in machine.listeners.values():
        found += (_wait(entry, ahead) for entry in listeners)
    found += (_until(command) for command in machine.predicates.values())
    return found


def _of_actor(actor: Actor, ahead: dict[str, list[str]], obstacle: str) -> Iterator[Wait]:
    """What a run in memory waits for, and how far its steps say that they are. `obstacle`: why there is no room."""
    in_line = {path for path, attempt in actor.attempts.items() if attempt.turn is not None}
    said = {one.path: one.text for one in heartbeats.shown(actor)}
    for wait in waits(actor.run, actor.machine, ahead):
        if obstacle and wait.path == START:
            yield msgspec.structs.replace(wait, what=f"room to begin: {obstacle}")
        else:
            yield _so_far(_in_line(wait, in_line), said)


def _in_line(wait: Wait, waiting: set[str]) -> Wait:
    """What is said of a step whose path is among those that wait for their turn."""
    if wait.path not in waiting:
        return wait
    return msgspec.structs.replace(wait, what=f"its turn to run {wait.what}: as many steps run as may")


def _so_far(wait: Wait, said: dict[str, str]) -> Wait:
    """What is said of a step that has said how far it is."""
    if wait.kind not in ("step", "retry") or wait.path not in said:
        return wait
    return msgspec.structs.replace(wait, what=f"{wait.what}: {said[wait.path]}")


def _is_over(entry: Open) -> bool:
    """Whether nobody waits for it: it was abandoned, and is no step whose attempt has to stop first."""
    return entry.abandoned and not isinstance(entry.command, commands.StepCall)


def _not_begun(run_id: str, asked: Asked) -> str:
    """Why there is no run of an id that was given to somebody who asked for it in SQL."""
    if asked.state == "NEW":
        return f"run {run_id} was asked for in SQL, and has not begun yet"
    return f"run {run_id} was asked for in SQL, and refused: {asked.why}"


def _until(command: commands.WaitUntil) -> Wait:
    return Wait(command.path, "until", "a condition on the run's own state")


def _wait(entry: Open, ahead: dict[str, list[str]]) -> Wait:
    match entry.command:
        case commands.StepCall() as call if entry.abandoned:
            return Wait(entry.path, "step", f"step {call.step.name}, which was cancelled, to stop")
        case commands.StepCall() if entry.held:
            return Wait(entry.path, "incident", f"a person's decision on {entry.path}", error=entry.last_error)
        case commands.StepCall() if entry.retry_at is not None:
            what = f"attempt {entry.failures + 1} of step {entry.command.step.name}"
            return Wait(entry.path, "retry", what, until=entry.retry_at, error=entry.last_error)
        case commands.StepCall() as call:
            return Wait(entry.path, "step", f"step {call.step.name}")
        case commands.Sleep() as sleep if entry.path == START:
            return Wait(entry.path, "start", "its time to begin, and room for it then", until=sleep.deadline)
        case commands.Sleep() as sleep:
            return Wait(entry.path, "timer", "a deadline" if entry.target else "time", until=sleep.deadline)
        case commands.WaitSignal() as wait:
            return Wait(entry.path, "signal", f"signal {wait.signal!r}")
        case commands.ChildCall() as child:
            return Wait(entry.path, "child", f"child run of workflow {child.workflow!r}")
        case commands.Answer() as answer:
            return Wait(entry.path, "update", f"update {answer.update!r}, message {answer.message_id}")
        case commands.SetAttributes():
            return Wait(entry.path, "marker", "a change of its attributes")
        case commands.Lock() as lock:
            return Wait(entry.path, "lock", f"lock {lock.key!r}", behind=ahead.get(entry.path, []))
        case commands.StartChild() as start:
            return Wait(entry.path, "child", f"a run of workflow {start.call.workflow!r} to be started")
        case commands.SendSignal() as send:
            return Wait(entry.path, "marker", f"its signal {send.signal!r} to reach run {send.run}")
        case commands.ContinueAsNew():
            return Wait(entry.path, "marker", "a new run to go on for it")
        case _:
            return Wait(entry.path, "marker", "a record of its own")
