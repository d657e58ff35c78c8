"""The actor: one trio task that lives a run from its journal.

It replays what is recorded, settles what a crash left open, then carries out what the code asks for. Whatever
happens (a step's outcome, a timer, a message) is appended to the journal first and delivered to the machine once it
is committed. The task is parked while there is nothing to deliver; everything else calls its plain methods.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from jivsd import logs
from jivsd.authoring import commands
from jivsd.engine import effects, incidents, unwind
from jivsd.engine.attempts import Exit
from jivsd.engine.incidents import resolved
from jivsd.engine.replay import LOCK, Machine, Open, Phase
from jivsd.records import (
    ENDED,
    NULL,
    AttemptFailed,
    ChildEnded,
    Ended,
    ErrorRecord,
    Event,
    Incident,
    Kind,
    Message,
    Recovered,
    Run,
    Status,
    StepDone,
    TimerFired,
    encode,
)
from jivsd.store.api import Entry, Refused, RunChange, TxStep, Verdict, Written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.attempts import Attempt
    from jivsd.engine.services import Services
    from jivsd.engine.timers import Timer

log = logs.get(__name__)

LEAVE_WITHIN = 60.0
"""Seconds that leaving memory may take: threads have to return and the journal has to answer."""


class Actor:
    """One run in memory. `run` is its row, kept as it will be once what is appended has been committed."""

    __slots__ = (
        "_ask",
        "_changed",
        "_early",
        "_ending",
        "_final",
        "_loaded",
        "_mail",
        "_parked",
        "_pending",
        "_seen",
        "_task",
        "active",
        "at",
        "attempts",
        "incidents",
        "live",
        "machine",
        "run",
        "seq",
        "services",
        "timers",
        "workflow",
    )

    def __init__(self, services: Services, workflow: Workflow[..., Any], run: Run) -> None:
        self.services = services
        self.workflow = workflow
        self.run = run
        self.machine = Machine(workflow, run.run_id, run.workflow_id)
        self.seq = 0
        self.at = 0
        self.live = False
        """Whether recovery is over and commands are carried out."""
        self.active: set[str] = set()
        """Paths of open commands that are being carried out."""
        self.attempts: dict[str, Attempt] = {}
        self.timers: dict[str, Timer] = {}
        self.incidents: dict[str, Incident] = {}
        """Open incidents by path; "" is the run's own."""
        self._mail: deque[Event] = deque()
        self._seen: set[str] = set()
        self._pending = 0
        self._changed: trio.Event | None = None
        self._ask: Exit | None = None
        self._final: tuple[Ended, str, tuple[str, ...]] | None = None
        """How the run is to end, by whom, and the message that asked for it: once nothing is under way."""
        self._ending = False
        self._loaded = False
        self._early: list[Message] = []
        self._parked = False
        self._task: Any = None

    # ---- the task

    async def live_on(self, events: list[Event], messages: Sequence[Message] = (), *, first_life: bool) -> Exit:
        """Live the run on from its recorded events until it ends or has to leave memory.

        `first_life`: nothing of it can have been started before. Raises whatever is a bug in the machine or the
        actor: the supervisor starts it again.
        """
        self._task = trio.lowlevel.current_task()
        task = self._task
        self.machine = Machine(
            self.workflow,
            self.run.run_id,
            self.run.workflow_id,
            journal=events,
            probe=lambda: task._cancel_status,
        )
        try:
            self._replay(events)
            self._recover([*messages, *self._early], first_life=first_life)
            while True:
                while self._mail:
                    self._turn(self._mail.popleft())
                if self.machine.blocked is not None and (self.machine.foreign or not self.machine.frozen):
                    await self._freeze()
                self._try_end()
                if (way_out := self._way_out()) is not None:
                    return way_out
                await self._park()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_WITHIN):
                await self._leave()

    def _way_out(self) -> Exit | None:
        if self._ask is Exit.FENCED:
            return Exit.FENCED
        if self.run.status in ENDED:
            return Exit.ENDED if not self._pending else None
        if self._ask is not None:
            return self._ask if not self.attempts and not self._pending else None
        return None

    async def _park(self) -> None:
        self._parked = True

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._parked = False
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        if self._parked:
            self._parked = False
            trio.lowlevel.reschedule(self._task)

    def ask(self, way_out: Exit) -> None:
        """Ask the run to leave memory. Nothing new starts; it goes when what is under way has been recorded."""
        if self._ask is None:
            self._ask = way_out
        self.wake()

    async def changed(self) -> None:
        """Return after the next event has been delivered, or the run has left memory."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def cancel_attempts(self) -> None:
        for attempt in list(self.attempts.values()):
            attempt.cancel()

    async def _leave(self) -> None:
        """Freeze the code, stop what runs, wait until the journal owes no answer."""
        self.live = False
        if self._ask is None:
            self._ask = Exit.STOPPED
        await self._freeze()
        for timer in self.timers.values():
            timer.cancel()
        if self.run.options.lock_key is not None:
            self.services.locks.forget(self.run.options.lock_key, self.run.run_id)
        self.cancel_attempts()
        while self.attempts or self._pending:
            await self._park()
        self._notify()

    async def _freeze(self) -> None:
        for foreign in self.machine.freeze():
            await unwind.undo(foreign)

    # ---- replay and recovery

    def _replay(self, events: list[Event]) -> None:
        for event in events:
            self.machine.deliver(event)
            self.seq, self.at = event.seq, event.at
            if event.kind == Kind.SIGNAL:
                self._seen.add(msgspec.json.decode(event.payload)["message_id"])
            if self.machine.blocked is not None:
                self.seq, self.at = events[-1].seq, events[-1].at
                break

    def _recover(self, messages: Sequence[Message], *, first_life: bool) -> None:
        """Settle what the last life left open; what the journal says of it is delivered before anything starts."""
        self._loaded = True
        in_flight: list[str] = []
        overdue: list[tuple[int, str]] = []
        now = self.services.clock.now()
        for entry in () if first_life else self.machine.open.values():
            if isinstance(entry.command, commands.StepCall):
                if not effects.settle_cancelled(self, entry) and not effects.idle(entry, now):
                    in_flight.append(entry.path)
            elif isinstance(entry.command, commands.Sleep) and entry.command.deadline <= now and not self.run.paused:
                overdue.append((entry.command.deadline, entry.path))
        for message in messages:
            self.receive(message)
        for _, path in sorted(overdue):
            self.active.add(path)
            self._append(Kind.TIMER_FIRED, path, TimerFired())
        if in_flight:
            self._append(Kind.RECOVERED, "", Recovered(in_flight), by="recovery")
        if not self._pending:
            self._go_live()

    def _go_live(self) -> None:
        self.live = True
        self._carry_out_all()
        self._after_turn()

    # ---- turns

    def _turn(self, event: Event) -> None:
        self.active.discard(event.path)
        self.machine.deliver(event)
        if event.kind == Kind.PAUSED:
            self.run.paused = True
        elif event.kind == Kind.RESUMED:
            self.run.paused = False
        if not self.live:
            if not self._pending and not self._mail:
                self._go_live()
            return
        if self.machine.blocked is None:
            for entry in self.machine.dropped:
                effects.drop(self, entry)
            for entry in self.machine.fresh:
                if self.machine.open.get(entry.path) is entry:
                    self.carry_out(entry)
            if event.kind == Kind.ATTEMPT_FAILED and (entry := self.machine.open.get(event.path)) is not None:
                self.carry_out(entry)
            elif event.kind == Kind.RESUMED:
                self._carry_out_all()
        self._after_turn()

    def _carry_out_all(self) -> None:
        for entry in list(self.machine.open.values()):
            self.carry_out(entry)

    def carry_out(self, entry: Open) -> None:
        if self._ask is None and self._final is None and self.machine.blocked is None:
            effects.carry_out(self, entry)

    def _after_turn(self) -> None:
        machine = self.machine
        if self._changed is not None:
            self._notify()
        if machine.slow:
            for path, took in machine.slow:
                log.warning("workflow code blocked the loop", path=path, seconds=round(took, 3), **self.words())
            machine.slow.clear()
        if machine.misfits:
            for message_id, why in machine.misfits:
                self.open_incident(incidents.misfit(self.run, message_id, why, self.services.clock.now()))
            machine.misfits.clear()
        if machine.blocked is not None and "" not in self.incidents:
            self.open_incident(incidents.blocked(self.run, machine.blocked, self.services.clock.now()))
        for entry in machine.open.values():
            if entry.held and entry.path not in self.incidents:
                self.open_incident(incidents.held(self.run, entry, self.services.clock.now(), machine.phase))
        if machine.outcome is None:
            self.sync_status()
        elif machine.blocked is None and self._final is None:
            unread = [message_id for queue in machine.unread.values() for message_id, _ in queue]
            outcome = machine.outcome
            self._final = Ended(outcome.status, outcome.output or NULL, outcome.error, unread), "", ()

    def _try_end(self) -> None:
        """Append the end, once no attempt runs and the journal owes no answer (DESIGN.md, Lock key)."""
        if self._final is not None and not (self._ending or self.attempts or self._pending or self._mail or self._ask):
            self._ending = True
            self._end(*self._final)

    def _end(self, ended: Ended, by: str, consumed: Sequence[str]) -> None:
        """Append the run's end, tell its parent, give back its lock: one transaction."""
        now = self.services.clock.now()
        options = self.run.options
        inbox: list[Message] = []
        if options.parent is not None and options.parent_path is not None:
            payload = ChildEnded(self.run.run_id, ended.status, ended.output, ended.error)
            inbox.append(
                Message(
                    workflow=options.parent_workflow or "",
                    workflow_id=options.parent_workflow_id or "",
                    message_id=f"end:{self.run.run_id}",
                    kind=Kind.CHILD_ENDED,
                    path=options.parent_path,
                    payload=encode(payload),
                    at=now,
                    run_id=options.parent,
                )
            )
        change = RunChange(
            status=ended.status,
            paused=False,
            output=ended.output if ended.status is Status.COMPLETED else None,
            error=encode(ended.error) if ended.error else None,
            ended_at=max(now, self.at),
        )
        self._append(Kind.ENDED, "", ended, by=by, change=change, inbox=inbox, consumed=consumed, ends=True)

    def sync_status(self) -> None:
        """Write the run's status when it has changed; never per step."""
        machine = self.machine
        held = any(entry.held for entry in machine.open.values())
        if machine.phase is Phase.COMPENSATING:
            status = Status.COMPENSATION_BLOCKED if held or machine.blocked else Status.COMPENSATING
        elif held or machine.blocked is not None:
            status = Status.BLOCKED
        else:
            status = Status.PENDING if LOCK in machine.open else Status.RUNNING
        if status is not self.run.status and self.run.status not in ENDED:
            started_at = self.at if self.run.started_at is None and status is Status.RUNNING else None
            self._submit(Entry(**self._address(), change=RunChange(status=status, started_at=started_at)))
            self.run.status = status
            self.run.started_at = self.run.started_at or started_at

    # ---- the journal

    def _address(self) -> dict[str, Any]:
        return {"run_id": self.run.run_id, "shard": self.run.shard}

    def new_event(
        self, kind: Kind, path: str, payload: msgspec.Struct | bytes, attempt: int = 0, by: str = ""
    ) -> Event:
        """The next event of the run's journal; it must be submitted before another is made."""
        self.seq += 1
        self.at = max(self.services.clock.now(), self.at)
        body = payload if isinstance(payload, bytes) else encode(payload)
        return Event(self.run.run_id, self.seq, kind, path, body, self.at, attempt, by)

    def _append(
        self,
        kind: Kind,
        path: str,
        payload: msgspec.Struct | bytes,
        *,
        attempt: int = 0,
        by: str = "",
        **rest: Any,
    ) -> None:
        event = self.new_event(kind, path, payload, attempt, by)
        self._submit(Entry(**self._address(), events=(event,), **rest), event)

    append = _append

    def append_transaction(self, event: Event, tx: TxStep) -> None:
        """Append a transaction step; the event that it yields stands in the place of `event`."""
        self._submit(Entry(**self._address(), tx=tx), event)

    def _submit(self, entry: Entry, event: Event | None = None) -> None:
        self._pending += 1
        self.services.committer.submit(entry, partial(self._committed, entry, event))

    def _committed(self, entry: Entry, event: Event | None, verdict: Verdict) -> None:
        self._pending -= 1
        match verdict:
            case Written(tx_event):
                event = tx_event or event
                if tx_event is not None:
                    self.attempts.pop(tx_event.path, None)
                    self.active.discard(tx_event.path)
                if event is not None:
                    self._mail.append(event)
                if entry.ends:
                    self._ended(entry)
            case Refused(why):
                log.warning("append refused", why=why, **self.words())
                if entry.tx is not None and event is not None:
                    self.attempts.pop(event.path, None)
                self._ask = Exit.FENCED if why == "fenced" else self._ask or Exit.RESTART
            case _:
                raise AssertionError(f"an append cannot be answered with {verdict!r}")
        self.wake()

    def _ended(self, entry: Entry) -> None:
        assert entry.change is not None
        assert entry.change.status is not None
        self.run.status = entry.change.status
        self.run.output = entry.change.output
        self.run.ended_at = entry.change.ended_at
        for message in entry.inbox:
            self.services.deliver(message)

    # ---- messages

    def receive(self, message: Message) -> None:
        """Turn a message of the inbox into an event. Message and event change places in one transaction."""
        if not self._loaded:
            self._early.append(message)
            return
        if message.message_id in self._seen or self._ending:
            return
        self._seen.add(message.message_id)
        consumed = (message.message_id,)
        if message.kind is Kind.ENDED:
            self._terminate(message)
            return
        if message.kind is Kind.CANCEL_REQUESTED and self.run.paused:
            self._append(Kind.RESUMED, "", message.payload, by=message.by, change=RunChange(paused=False))
        change = None
        if message.kind in (Kind.PAUSED, Kind.RESUMED):
            change = RunChange(paused=message.kind is Kind.PAUSED)
        self._append(message.kind, message.path, message.payload, by=message.by, change=change, consumed=consumed)

    def _terminate(self, message: Message) -> None:
        """End without compensating, as soon as no attempt runs; children are terminated too."""
        self._final = Ended(Status.TERMINATED), message.by, (message.message_id,)
        for entry in list(self.machine.open.values()):
            if isinstance(entry.command, commands.ChildCall):
                effects.end_child(self, entry, Kind.ENDED, message.payload)
        self.cancel_attempts()
        self.wake()

    # ---- incidents

    def open_incident(self, incident: Incident) -> None:
        self.incidents[incident.path] = incident
        log.error("incident", incident=incident.incident_id, what=incident.message, path=incident.path, **self.words())
        self._submit(Entry(**self._address(), incidents=(incident,)))

    def close_incident(self, incident: Incident, resolution: str, *, by: str = "", why: str = "") -> None:
        """Record that an incident has gone by itself."""
        closed = resolved(incident, resolution, by=by, why=why, at=self.services.clock.now())
        self._submit(Entry(**self._address(), incidents=(closed,)))

    def retry_incident(self, closed: Incident) -> bool:
        """Try again what an incident holds. False if it holds nothing any more."""
        if self.incidents.get(closed.path) is None or self._ask is not None:
            return False
        entry = self.machine.open.get(closed.path)
        if closed.path == "":
            self._submit(Entry(**self._address(), incidents=(closed,)))
            self.ask(Exit.RESTART)
        elif entry is not None and entry.held:
            again = ErrorRecord("Retried", closed.resolved_why or "")
            payload = AttemptFailed(entry.command.args_hash, again, self.services.clock.now())
            self._append(Kind.ATTEMPT_FAILED, entry.path, payload, by=closed.resolved_by or "", incidents=(closed,))
        else:
            return False
        del self.incidents[closed.path]
        return True

    def resolve_step(self, closed: Incident, value: bytes) -> bool:
        """Take a person's value for the result of a step that an incident holds. False if it is not held any more.

        Raises:
            Invalid: the value does not fit the step's result type.
        """
        entry = self.machine.open.get(closed.path)
        if entry is None or not entry.held or self._ask is not None or closed.path not in self.incidents:
            return False
        effects.check_result(entry, value)
        payload = StepDone(entry.command.args_hash, msgspec.Raw(value))
        self._append(Kind.STEP_DONE, entry.path, payload, by=closed.resolved_by or "", incidents=(closed,))
        del self.incidents[closed.path]
        return True

    def words(self) -> dict[str, Any]:
        """What every log line about this run carries."""
        return {
            "run_id": self.run.run_id,
            "workflow": self.run.workflow,
            "correlation_id": self.run.options.correlation_id,
        }
