"""The actor: one trio task that lives a run from its journal.

It replays what is recorded, settles what a crash left open, then carries out what the code asks for. Whatever
happens (a step's outcome, a timer, a message) is appended to the journal first and delivered to the machine once it
is committed. The task is parked while there is nothing to deliver; everything else calls its plain methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd import logs
from jivsd.engine import ahead, beginnings, closing, effects, intake, locking, parking, transacting, troubles, unwind
from jivsd.engine.attempts import Exit, Stale
from jivsd.engine.pen import Pen
from jivsd.engine.replay import LOCK, START, Machine, Open, Phase
from jivsd.engine.seat import Seat
from jivsd.records import ENDED, Ended, Event, Incident, Kind, Message, Recovered, Run, Status
from jivsd.store.api import WRITTEN, Entry, Refused, Verdict, Written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.attempts import Attempt
    from jivsd.engine.beginnings import Ticket
    from jivsd.engine.services import Services
    from jivsd.engine.timers import Timer

log = logs.get(__name__)

_STEP_DONE: Final = Kind.STEP_DONE
_RUNNING: Final = Status.RUNNING
_FORWARD: Final = Phase.RUNNING
"""Python 3.11 takes ten times as long to get a member from its enum as to get a global."""


class Actor(Pen):
    """One run in memory. `run` is its row, kept as it will be once what is appended has been committed."""

    __slots__ = (
        "_ask",
        "_catching_up",
        "_changed",
        "_ending",
        "_failure",
        "_loaded",
        "_lone",
        "_mail",
        "_seat",
        "_seen",
        "_terminated",
        "active",
        "ahead",
        "attempts",
        "early",
        "errands",
        "filed",
        "final",
        "first",
        "hold",
        "incidents",
        "live",
        "machine",
        "moved",
        "parting",
        "pausing",
        "refused",
        "started_until",
        "timers",
        "workflow",
    )

    def __init__(self, services: Services, workflow: Workflow[..., Any], run: Run) -> None:
        super().__init__(services, msgspec.structs.replace(run))
        self.workflow = workflow
        self.machine: Machine
        """Made when the life begins."""
        self.live = False
        """Whether recovery is over and commands are carried out."""
        self.moved = False
        """Whether this life has brought the run forward: a crash after that is not one of a series."""
        self.first = False
        """Whether nothing of the run can have been started before this life."""
        self.hold = False
        """Whether no step or child run is to start for a moment: other code is about to take over."""
        self.pausing = run.paused
        """Whether the run is paused once what has been appended is delivered."""
        self.active: set[str] = set()
        """Paths of open commands that are being carried out."""
        self.ahead: Event | None = None
        """What the code has seen though it is not committed yet; see `ahead`."""
        self.attempts: dict[str, Attempt] = {}
        self.timers: dict[str, Timer | Ticket] = {}
        self.errands = 0
        """What others have been asked to write and have not answered yet: starts of children, messages."""
        self.filed = run.parked
        """Whether the store may have it that the run is parked: then nothing but appends may be under way for it."""
        self.parting = False
        """Whether it leaves memory as soon as the journal has it that the run waits; see `parking`."""
        self.started_until = 0
        """The event up to which whatever child runs were asked for have been started, as the run was parked then."""
        self.refused: tuple[str, ...] = ()
        """Paths of child runs that were not started, which has been recorded."""
        self.incidents: dict[str, Incident] = {}
        """Open incidents by their place; see `incidents.place`."""
        self._mail: list[Event] = []
        self.early: tuple[Message, ...] = ()
        """Messages that came before the journal was read."""
        self._seen: dict[str, None] = {}
        self._changed: trio.Event | None = None
        self._ask: Exit | None = None
        self._failure: Exception | None = None
        self.final: Ended | None = None
        """How the run is to end, once nothing is under way; after that is decided nothing else is recorded."""
        self._terminated: Message | None = None
        """The message that has asked for the end."""
        self._ending = False
        self._catching_up = False
        """Whether timers that were overdue are being recorded; everything else comes after them."""
        self._loaded = False
        self._lone: Attempt | None = None
        """The attempt that the run's own task is to be lent to."""
        self._seat: Seat | None = None

    # ---- the task

    async def live_on(self, events: Sequence[Event], *, first: bool) -> Exit:
        """Live the run on from its recorded events until it ends or has to leave memory.

        Raises whatever is a bug in the machine or the actor: the run is started again.
        """
        seat = self._seat = Seat(self.services.nursery, self._relieve)
        self.first, run = first, self.run
        self.machine = Machine(self.workflow, run.run_id, run.workflow_id, journal=events, probe=seat.cancel_status)
        try:
            self._replay(events)
            if self.machine.foreign:
                await self.freeze()  # before any other await: the task still stands in scopes that are not its own
            await troubles.forget_old_letters(self)
            self._recover()
            if ahead.come_back(self):
                await self.freeze()
            while True:
                await self._work_off()
                if (way_out := self._way_out()) is not None:
                    return way_out
                if self._lone is None:
                    if self.idle:
                        self.services.rests(self)
                    await seat.park()
                else:
                    await self._run_lone_steps(seat)
        finally:
            await self._leave(seat)
            seat.leave()
            self._seat = None
            self.machine.forget()

    async def _run_lone_steps(self, seat: Seat) -> None:
        """Lend the run's own task to a step, and to the next ones as long as the run waits for nothing else.

        They share a scope, until one of them is cut short: entering a scope costs more than a small step.
        """
        with trio.CancelScope() as scope:
            while (attempt := self._lone) is not None:
                self._lone = None
                seat.away = True
                try:
                    await effects.run_attempt(self, attempt, scope)
                finally:
                    seat.away = False
                    if seat.relief is not None:
                        await seat.take_over()
                if attempt.cut_short:
                    return
                del attempt  # nothing of it is kept for as long as its record is written
                if ahead.run(self):
                    await self.freeze()
                while self.pending and self._lone is None and not self.leaving:
                    await seat.park()
                    if self._deliver():
                        await self._halt()

    async def _work_off(self) -> None:
        """Deliver what has arrived, and do what follows from it."""
        if self._deliver():
            await self._halt()

    def _deliver(self) -> bool:
        """Deliver what has arrived. True if the code has come to its end, or to where it cannot go on."""
        mail = self._mail
        while mail:
            self._turn(mail.pop(0))
        if not self.pending:
            if not (self.live or self._ending):
                self._go_live()
            elif self._catching_up:
                self._catching_up = False
                self._carry_out_all()
        return self.final is not None or self.machine.blocked is not None

    async def _halt(self) -> None:
        """The code goes no further: take it down if it is blocked, record the end if it has come."""
        if self.machine.blocked is not None and (self.machine.foreign or not self.machine.frozen):
            await self.freeze()
        self.try_end()

    async def _relieve(self) -> bool:
        """Stand in for the run's own task while that is lent to a step, which is cut short if the run must leave."""
        try:
            await self._work_off()
        except Exception as error:
            self._failure = self._failure or error
        if self._failure is not None or self._ask is Exit.FENCED:
            self._stop_attempts()
            return False
        return True

    def _way_out(self) -> Exit | None:
        if self._failure is not None:
            raise self._failure
        if self._ask is Exit.FENCED:
            return Exit.FENCED
        if self.run.status in ENDED:
            return Exit.ENDED if not self.pending else None
        if self._ask is not None:
            return self._ask if not self.attempts and not self.pending else None
        if self.parting and parking.parts(self):
            return Exit.PARKED
        return None

    def wake(self) -> None:
        if self._seat is not None:
            self._seat.wake()

    def begin(self, attempt: Attempt) -> None:
        """Run an attempt: in the run's own task while it is the only one, or else in a task beside it."""
        seat = self._seat
        if len(self.attempts) == 1 and seat is not None and not seat.away:
            self._lone = attempt
            seat.wake()
        else:
            self.services.nursery.start_soon(self._beside, attempt)

    async def _beside(self, attempt: Attempt) -> None:
        try:
            with trio.CancelScope() as scope:
                await effects.run_attempt(self, attempt, scope)
        finally:
            if self.leaving or self.final is not None:
                self.wake()

    def ask(self, way_out: Exit) -> None:
        """Ask the run to leave memory. Nothing new starts; it goes when what is under way has been recorded."""
        if self._ask is None:
            self._ask = way_out
        self.wake()

    def drop(self) -> None:
        """Leave memory at once: another node goes on, or more is recorded than this life knows."""
        self._ask, self.void = Exit.FENCED, True
        self._stop_attempts()
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

    def fail(self, error: Exception) -> None:
        """Something has gone wrong in what was done for this run: it crashes, and nobody else."""
        self._failure = self._failure or error
        self.wake()

    @property
    def leaving(self) -> bool:
        """Whether the run is about to leave memory: nothing more is started."""
        return self._ask is not None or self._failure is not None

    async def _leave(self, seat: Seat) -> None:
        """Freeze the code, stop what runs, wait until the journal owes no answer.

        What cannot be stopped (a thread) is waited for, so that no later life runs beside it.
        """
        self.live = False
        self._ask = self._ask or Exit.STOPPED
        if foreign := self.machine.freeze():
            await unwind.undo_in_time(foreign)
        for timer in self.timers.values():
            timer.cancel()
        locking.leave(self)
        if self._lone is not None:
            self.services.slots.release(self.workflow)
            del self.attempts[self._lone.entry.path]
        self._stop_attempts()
        while self.attempts or self.pending:
            await seat.park()
        self._notify()

    async def freeze(self) -> None:
        """Take the code down, and undo what it awaited of trio's."""
        for foreign in self.machine.freeze():
            await unwind.undo(foreign)

    def _stop_attempts(self) -> None:
        for attempt in list(self.attempts.values()):
            effects.stop(self, attempt)

    # ---- replay and recovery

    def _replay(self, events: Sequence[Event]) -> None:
        for event in events:
            self.machine.deliver(event)
            if event.kind in (Kind.SIGNAL, Kind.UPDATE):
                self._seen[msgspec.json.decode(event.payload)["message_id"]] = None
        self.seq, self.at = events[-1].seq, events[-1].at

    def _recover(self) -> None:
        """Settle what the last life left open; what the journal says of it is delivered before anything starts."""
        self._loaded = True
        settle = not self.first and self.machine.blocked is None
        if self.filed and not self.held_back:
            self.started_until = self.seq if self.run.started_at is not None else 0
        in_flight = effects.in_flight(self) if settle and not self.filed else []
        overdue = effects.overdue(self) if settle and not self.run.paused else []
        for message in self.early:
            self.receive(message)
        self.early = ()
        effects.fire(self, overdue)
        if in_flight:
            self.append(Kind.RECOVERED, "", Recovered(in_flight), by="recovery")

    def _go_live(self) -> None:
        self.live = True
        troubles.forget_gone(self)
        if self.machine.blocked is None:
            locking.settle(self)
            self._catching_up = not (self.first or self.run.paused) and self.startable and effects.catch_up(self)
            if not self._catching_up:
                self._carry_out_all()
            for path in list(self.machine.open):
                troubles.find_held(self, path)
        self._after_turn()

    # ---- turns

    def _turn(self, event: Event) -> None:
        machine, ordinary = self.machine, event.kind == _STEP_DONE
        self.active.discard(event.path)
        if event is self.ahead:
            self.ahead = None
        else:
            machine.deliver(event)
        if not ordinary and event.kind in (Kind.PAUSED, Kind.RESUMED):
            self.run.paused = event.kind == Kind.PAUSED
        if ordinary or event.kind != Kind.RECOVERED:
            self.moved = True
        if self.live:
            if machine.blocked is None:
                for entry in machine.dropped:
                    effects.drop(self, entry)
                for entry in machine.fresh:
                    if machine.open.get(entry.path) is entry:
                        self.carry_out(entry)
                if not ordinary:
                    self._follow(event)
            self._after_turn()

    def _follow(self, event: Event) -> None:
        """Do what else an event leads to, by its kind."""
        if event.kind == Kind.ATTEMPT_FAILED and (entry := self.machine.open.get(event.path)) is not None:
            if not effects.settle_cancelled(self, entry):
                self.carry_out(entry)
                troubles.find_held(self, event.path)
        elif event.kind in (Kind.RESUMED, Kind.RECOVERED) or event.path in (START, LOCK):
            self._catching_up = event.kind == Kind.RESUMED and effects.catch_up(self)
            if not self._catching_up:
                self._carry_out_all()

    def _carry_out_all(self) -> None:
        for entry in list(self.machine.open.values()):
            self.carry_out(entry)

    def carry_out(self, entry: Open) -> None:
        if self.startable or closing.owed(self, entry):
            effects.carry_out(self, entry)

    @property
    def startable(self) -> bool:
        """Whether anything may still be started for this run."""
        return self._ask is None and self._failure is None and self.final is None and self.machine.blocked is None

    @property
    def busy(self) -> bool:
        """Whether the run is active: it does something, or is about to, and does not just wait."""
        return not self.live or bool(self.attempts or self.pending or self._mail)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: the run waits for time, for a message or for its lock, and not for room."""
        return self.startable and not (self.busy or self.errands or beginnings.in_line(self))

    @property
    def held_back(self) -> bool:
        """Whether steps and child runs must not start now: it is paused, or waits for its locks, room or other code."""
        machine = self.machine
        return self.run.paused or self.hold or LOCK in machine.open or START in machine.open or machine.relocking > 0

    def _after_turn(self) -> None:
        machine = self.machine
        if self._changed is not None:
            self._notify()
        if machine.slow:
            for path, took in machine.slow:
                log.warning("workflow code blocked the loop", path=path, seconds=round(took, 3), **self.words())
            machine.slow = ()
        if machine.misfits or machine.blocked is not None:
            troubles.find(self)
        if machine.outcome is None:
            if not self.attempts or self.incidents or self.run.status is not _RUNNING or machine.phase is not _FORWARD:
                troubles.sync_status(self)
        elif machine.blocked is None and self.final is None:
            self.final = closing.final(machine.outcome)

    def end_as(self, ended: Ended | None) -> None:
        """Let the run end as soon as nothing is under way; or, after all, not. Termination comes before that."""
        if self._terminated is None:
            self.final = ended

    def try_end(self) -> None:
        """Append the end, once no attempt runs and the journal owes no answer (DESIGN.md, Lock key), or one to come."""
        if self.final is None or self._ending or self.leaving or self.attempts or self._mail:
            return
        if (self.pending and self.ahead is None) or (self.final.status is Status.CONTINUED and self.run.paused):
            return
        self._ending = True
        self.submit(*closing.end(self, self.final, self._terminated))

    # ---- the journal

    def committed(self, entry: Entry, event: Event | None, verdict: Verdict) -> None:
        if verdict is WRITTEN and event is not None and entry.change is None:
            self._mail.append(event)
        else:
            self._answer(entry, event, verdict)
        if self._mail or not (self.live and self.pending) or self.leaving or self.final is not None:
            self.wake()

    def _answer(self, entry: Entry, event: Event | None, verdict: Verdict) -> None:
        match verdict:
            case Written(tx_event):
                if self.filed and (change := entry.change) is not None and change.status and not change.parked:
                    self.filed = False
                    if self.live and self.machine.blocked is None:
                        self._carry_out_all()
                if tx_event is not None and event is not None:
                    transacting.recorded(self, event, tx_event)
                event = tx_event or event
                if event is not None:
                    self._mail.append(event)
                if entry.ends:
                    closing.ended(self, entry)
            case Refused(why, _, detail):
                log.warning("append refused", why=why, **self.words())
                if entry.tx is not None and event is not None:
                    transacting.refused(self, entry, event)
                if why != "fenced":
                    self._failure = self._failure or Stale(f"the journal refused an append: {why} {detail}".rstrip())
                self.drop()
            case _:
                raise AssertionError(f"an append cannot be answered with {verdict!r}")

    # ---- messages

    def receive(self, message: Message) -> None:
        """Turn a message of the inbox into an event."""
        if not self._loaded:
            self.early += (message,)
            return
        if message.message_id in self._seen or self._ending:
            return
        self._seen[message.message_id] = None
        if message.kind is Kind.ENDED:
            self.final, self._terminated = msgspec.json.decode(message.payload, type=Ended), message
            self._stop_attempts()
            self.wake()
            return
        intake.take(self, message)
