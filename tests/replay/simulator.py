"""A life around the replay machine, in memory and without trio: deterministic for a seed.

It does what an actor and a journal do. It can crash after any append, leave memory whenever nothing is under way, and
settle steps as late as it likes.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from jivsd.authoring import commands
from jivsd.authoring.errors import TimedOut, record_error
from jivsd.engine.replay import LOCK, Machine, Open, Phase
from jivsd.engine.replay.updates import path_of
from jivsd.records import (
    AttemptFailed,
    CancelRequested,
    ChildEnded,
    Ended,
    ErrorRecord,
    Event,
    Kind,
    LockGranted,
    Marker,
    Options,
    Recovered,
    Reset,
    Signal,
    Started,
    Status,
    StepCancelled,
    StepDone,
    StepFailed,
    TimerFired,
    Update,
    encode,
    payload_of,
)
from replay.programs import Declined, Program
from replay.world import RUN_ID, Incarnation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jivsd.authoring.workflows import Workflow

SECOND = 1_000_000
MOST_ACTIONS = 2_000


class Crash(BaseException):
    """The process died right after an append."""


class Attempt:
    def __init__(self, entry: Open, number: int) -> None:
        self.entry = entry
        self.number = number
        self.stopping = False


class Life:
    """A run's life.

    `crashes`: after which seqs the process dies. `evict`: leave memory whenever it is possible. `lazy`: cancelled steps
    settle as late as possible. `instant`: at this action a timer, an outcome and a cancel request come at one instant,
    in this order.
    """

    def __init__(
        self,
        program: list[Any],
        seed: int,
        *,
        crashes: Iterable[int] = (),
        evict: bool = False,
        lazy: bool = False,
        instant: tuple[int, tuple[int, ...]] | None = None,
        workflow: Workflow[..., Any] = Program,
        options: Options | None = None,
    ) -> None:
        self.rng = Random(seed)
        self.world = World(self.rng)
        self.luck = self.rng.choice([0.5, 0.7, 0.9])
        """How likely an attempt is to succeed (and below 0.4, to be stopped in time when it is cancelled)."""
        self.workflow = workflow
        self.crashes = set(crashes)
        self.evict = evict
        self.lazy = lazy
        self.instant = instant
        self.actions = 0
        self.clock = 1_700_000_000 * SECOND
        self.journal: list[Event] = []
        self.queue: list[Event] = []
        self.incarnations: list[Incarnation] = []
        self.attempts: dict[str, Attempt] = {}
        self.active: set[str] = set()
        """Paths that owe an event which is appended but not delivered."""
        self.messages = self.rng.randint(0, 4)
        self.cancel_at = self.rng.randint(1, 40) if self.rng.random() < 0.3 else None
        self.sent: list[str] = []
        self.live = False
        self.incarnation = Incarnation(workflow, ())
        self.program = program
        if options is None:
            timeout = self.rng.choice([None, None, None, 20 * SECOND])
            lock = "lock" if self.rng.random() < 0.2 else None
            options = Options(timeout=timeout, lock_key=lock, lock_wait=self.rng.choice([None, 30 * SECOND]))
        self.options = options

    @property
    def machine(self) -> Machine:
        return self.incarnation.machine

    # ---- the journal

    def append(self, kind: Kind, path: str, payload: Any, attempt: int = 0) -> None:
        last = self.journal[-1].at if self.journal else 0
        at = max(self.clock, last)
        event = Event(RUN_ID, len(self.journal) + 1, kind, path, encode(payload), at, attempt)
        self.journal.append(event)
        self.queue.append(event)
        self.active.add(path)
        if event.seq in self.crashes:
            self.crashes.discard(event.seq)
            raise Crash

    def deliver_all(self) -> None:
        """Deliver what is appended, one event a turn; after each, carry out what the machine asks for."""
        while self.queue:
            self.turn(self.queue.pop(0))

    def turn(self, event: Event) -> None:
        self.active.discard(event.path)
        self.incarnation.deliver(event)
        machine = self.machine
        assert machine.blocked is None, machine.blocked
        if not self.live:
            return
        for entry in machine.dropped:
            self.drop(entry)
        for entry in machine.fresh:
            if machine.open.get(entry.path) is entry:
                self.carry_out(entry)
        if event.kind == Kind.LOCK_GRANTED:
            self.go_live()
        if event.kind == Kind.ATTEMPT_FAILED and (entry := machine.open.get(event.path)) is not None:
            self.carry_out(entry)

    # ---- commands

    def carry_out(self, entry: Open) -> None:
        if entry.path in self.attempts or entry.path in self.active:
            return
        if isinstance(entry.command, commands.Answer) and entry.command.outcome is not None:
            self.append(Kind.UPDATE_DONE, entry.path, entry.command.outcome)
        if not isinstance(entry.command, commands.StepCall):
            return
        if self.settle_cancelled(entry) or entry.held or self.idle(entry) or LOCK in self.machine.open:
            return
        self.begin(entry)

    def begin(self, entry: Open) -> None:
        call = entry.command
        assert isinstance(call, commands.StepCall)
        path = entry.path
        settled = {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED}
        assert not any(event.path == path and event.kind in settled for event in self.journal), f"{path} ran again"
        if path.endswith("!undo"):
            undone = path.removesuffix("!undo")
            assert undone not in self.attempts, f"{path} beside its step"
            assert undone not in self.machine.open, f"{path} before its step has settled"
        self.attempts[path] = Attempt(entry, entry.failures + 1)
        self.world.begin(path, call)

    def drop(self, entry: Open) -> None:
        if not isinstance(entry.command, commands.StepCall):
            return
        if entry.path in self.attempts:
            self.attempts[entry.path].stopping = True
        else:
            self.settle_cancelled(entry)

    def idle(self, entry: Open) -> bool:
        return entry.held or (entry.retry_at is not None and entry.retry_at > self.clock)

    def settle_cancelled(self, entry: Open) -> bool:
        if not (entry.abandoned or entry.cancelling):
            return False
        if entry.path not in self.active:
            started = "unknown" if not self.live and not self.idle(entry) else "no"
            self.append(Kind.STEP_CANCELLED, entry.path, StepCancelled(entry.command.args_hash, started))
        return True

    # ---- outcomes

    def finish(self, path: str) -> None:
        """An attempt ends in one of the ways in which attempts end."""
        attempt = self.attempts.pop(path)
        call = attempt.entry.command
        assert isinstance(call, commands.StepCall)
        args_hash = call.args_hash
        drawn = self.rng.random()
        if attempt.stopping and drawn < 0.4:
            self.world.maybe_apply(path, call)
            self.append(Kind.STEP_CANCELLED, path, StepCancelled(args_hash, "unknown"), attempt.number)
        elif drawn < (0.2 if path in self.world.lost else self.luck):
            result = msgspec.Raw(encode(self.world.apply(path, call)))
            self.append(Kind.STEP_DONE, path, StepDone(args_hash, result), attempt.number)
        else:
            unknown = self.rng.random() < 0.3
            if unknown:
                self.world.maybe_apply(path, call)
            self.append(*self.failure(attempt, call, unknown), attempt.number)

    def failure(self, attempt: Attempt, call: commands.StepCall, unknown: bool) -> tuple[Kind, str, Any]:
        path = attempt.entry.path
        errors = [ValueError("no"), Declined("declined", amount=12), KeyError("key")]
        error = record_error(TimedOut("late") if unknown else self.rng.choice(errors))
        if attempt.number < call.step.retry.attempts:
            due = self.clock + self.rng.choice([0, SECOND, 10 * SECOND])
            return Kind.ATTEMPT_FAILED, path, AttemptFailed(call.args_hash, error, due, unknown)
        if call.step.on_exhausted == "incident" and not (attempt.entry.abandoned or attempt.entry.cancelling):
            return Kind.ATTEMPT_FAILED, path, AttemptFailed(call.args_hash, error, None, unknown)
        return Kind.STEP_FAILED, path, StepFailed(call.args_hash, error, unknown)

    def resolve(self, entry: Open) -> None:
        """A person decides about a held step: another try, or a value."""
        call = entry.command
        assert isinstance(call, commands.StepCall)
        if self.rng.random() < 0.5:
            error = ErrorRecord("Retried", "by a person")
            self.append(
                Kind.ATTEMPT_FAILED, entry.path, AttemptFailed(call.args_hash, error, self.clock), entry.failures
            )
        else:
            if entry.path.endswith("!undo"):
                self.world.apply(entry.path, call)
            self.append(Kind.STEP_DONE, entry.path, StepDone(call.args_hash, msgspec.Raw(b"null")))

    def fire(self, entry: Open) -> None:
        assert isinstance(entry.command, commands.Sleep)
        self.clock = max(self.clock, entry.command.deadline)
        self.append(Kind.TIMER_FIRED, entry.path, TimerFired())

    def mark(self, entry: Open) -> None:
        match entry.command:
            case commands.SideEffect() as command:
                value = Marker(msgspec.Raw(encode(command.function())))
                if self.rng.random() < 0.2:
                    value = Marker(error=ErrorRecord("Declined", "side effect", {"amount": 1}))
            case commands.SetAttributes() as command:
                value = Marker(msgspec.Raw(command.changes))
            case commands.VersionCall() as command:
                value = Marker(msgspec.Raw(encode(command.maximum)))
            case _:
                raise AssertionError
        self.append(Kind.MARKER, entry.path, value)

    def end_child(self, entry: Open) -> None:
        call = entry.command
        assert isinstance(call, commands.ChildCall)
        status = self.rng.choice([Status.COMPLETED, Status.COMPLETED, Status.FAILED])
        if entry.cancelling and self.rng.random() < 0.5:
            status = Status.CANCELLED
        if status is Status.COMPLETED:
            payload = ChildEnded("child", status, msgspec.Raw(b'"output"'))
        else:
            payload = ChildEnded("child", status, error=ErrorRecord("ValueError", "in the child"))
        self.append(Kind.CHILD_ENDED, entry.path, payload)

    def start_retry(self, entry: Open) -> None:
        self.clock = max(self.clock, entry.retry_at or 0)
        self.begin(entry)

    # ---- messages

    def send(self) -> None:
        program = self.machine.instance
        if self.rng.random() < 0.3:
            self.update()
            return
        name = self.rng.choice(["go", "come", "bump", "stop", "spawn"])
        match name:
            case "bump":
                value: Any = 1
            case "stop":
                value = self.rng.choice(list(getattr(program, "scopes", None) or ["nothing"]))
            case "spawn":
                value = self.rng.choice(list(getattr(program, "nurseries", None) or ["nothing"]))
            case _:
                value = self.rng.choice([len(self.journal), f"text {len(self.journal)}"])
        self.signal(name, value)

    def signal(self, name: str, value: Any) -> None:
        message_id = f"{value}" if name in ("go", "come") else f"m{len(self.journal)}"
        if name in ("go", "come"):
            self.sent.append(message_id)
        self.append(Kind.SIGNAL, "", Signal(name, message_id, msgspec.Raw(encode(value))))

    def update(self) -> None:
        if self.rng.random() < 0.5:
            name, value = "add", self.rng.choice([1, 2, -1, "one"])
        else:
            name, value = "errand", self.rng.choice(["step", "sleep", "saga", "shield", "nursery"])
        message_id = f"u{len(self.journal)}"
        self.append(Kind.UPDATE, path_of(message_id), Update(name, message_id, msgspec.Raw(encode(value))))

    def cancel(self) -> None:
        self.append(Kind.CANCEL_REQUESTED, "", CancelRequested("enough"))

    # ---- life

    def run(self) -> Life:
        try:
            started = Started(msgspec.Raw(encode(self.program)), "hash", "seed", self.options)
            self.live = True
            self.incarnations.append(self.incarnation)
            self.append(Kind.STARTED, "", started)
            self.deliver_all()
        except Crash:
            self.recover()
        return self.to_the_end()

    def to_the_end(self) -> Life:
        for _ in range(MOST_ACTIONS):
            try:
                if not self.act():
                    self.append(Kind.ENDED, "", Ended(self.machine.outcome.status))  # pyright: ignore
                    self.deliver_all()
                    return self
            except Crash:
                self.recover()
        raise AssertionError("the life does not end")

    @classmethod
    def fork(cls, source: Life, cut: int, seed: int) -> Life:
        """The life of a reset: a prefix of the source's journal, later outcomes of what was open there, a new seed."""
        life = cls(source.program, seed, workflow=source.workflow, options=source.options)
        life.journal = source.journal[:cut]
        life.replay()
        open_paths = set(life.machine.open)
        carried = {Kind.STEP_DONE, Kind.TIMER_FIRED, Kind.CHILD_ENDED, Kind.MARKER}
        later = [event for event in source.journal[cut:] if event.kind in carried and event.path in open_paths]
        for seq, event in enumerate(later, cut + 1):
            life.journal.append(msgspec.structs.replace(event, seq=seq))
        life.clock = life.journal[-1].at
        life.sent = [
            payload_of(event).message_id
            for event in life.journal
            if event.kind == Kind.SIGNAL and payload_of(event).name in ("go", "come")
        ]
        life.append(Kind.RESET, "", Reset("source", f"seed {seed}"))
        return life

    def run_on(self) -> Life:
        """Live on from the journal as it is."""
        self.recover()
        return self.to_the_end()

    def act(self) -> bool:
        """Do one to three things that are possible, append them all, then deliver. False when all is over."""
        if self.cancel_at is not None and len(self.journal) >= self.cancel_at:
            self.cancel_at = None
            self.cancel()
        self.actions += 1
        if self.instant is not None and self.instant[0] == self.actions and self.machine.outcome is None:
            self.all_at_once(self.instant[1])
        else:
            self.act_at_random()
        self.deliver_all()
        if self.machine.outcome is not None and not self.attempts and not self.active:
            return False
        if self.evict and not self.attempts and not self.markers():
            self.leave_memory()
        return True

    def act_at_random(self) -> None:
        for _ in range(self.rng.choice([1, 1, 1, 1, 2, 3])):
            if self.machine.outcome is not None and not self.attempts:
                break
            choices = self.possible()
            if choices:
                weights = [weight for weight, _ in choices]
                self.rng.choices([action for _, action in choices], weights)[0]()

    def all_at_once(self, order: tuple[int, ...]) -> None:
        timers = [entry for entry in self.open() if isinstance(entry.command, commands.Sleep)]
        timers.sort(key=lambda entry: entry.command.deadline)
        happenings: list[Callable[[], None]] = [self.cancel]
        happenings += [partial(self.finish, path) for path in list(self.attempts)[:1]]
        happenings += [partial(self.fire, entry) for entry in timers[:1]]
        if timers:
            self.clock = max(self.clock, timers[0].command.deadline)
        for number in order:
            if number < len(happenings):
                happenings[number]()

    def markers(self) -> list[Open]:
        kinds = (commands.SideEffect, commands.VersionCall, commands.SetAttributes)
        return [entry for entry in self.open() if isinstance(entry.command, kinds)]

    def open(self) -> list[Open]:
        return [entry for entry in self.machine.open.values() if entry.path not in self.active]

    def possible(self) -> list[tuple[float, Callable[[], None]]]:
        """What can happen next, with weights: deadlines, and the run's own above all, are mostly later than steps."""
        choices: list[tuple[float, Callable[[], None]]] = []
        for path, attempt in self.attempts.items():
            if not (self.lazy and attempt.stopping):
                choices.append((3, partial(self.finish, path)))
        for entry in self.open():
            match entry.command:
                case commands.Sleep():
                    weight = 0.1 if entry.target is self.machine.root else 1 if entry.target is not None else 3
                    choices.append((weight, partial(self.fire, entry)))
                case commands.SideEffect() | commands.VersionCall() | commands.SetAttributes():
                    choices.append((3, partial(self.mark, entry)))
                case commands.ChildCall():
                    choices.append((3, partial(self.end_child, entry)))
                case commands.Lock():
                    choices.append((3, partial(self.append, Kind.LOCK_GRANTED, entry.path, LockGranted(1))))
                case commands.StepCall() if entry.path not in self.attempts and LOCK not in self.machine.open:
                    if entry.held and not entry.abandoned:
                        choices.append((3, partial(self.resolve, entry)))
                    elif entry.retry_at is not None:
                        choices.append((3, partial(self.start_retry, entry)))
                case _:
                    pass
        if self.messages and self.rng.random() < 0.2:
            self.messages -= 1
            choices.append((3, self.send))
        if not choices:
            choices = [(1, partial(self.finish, path)) for path in self.attempts]
        if not choices and not self.active:
            choices = [(1, self.move_on)]
        return choices

    def move_on(self) -> None:
        """Nothing happens by itself any more: send what the code waits for, and at last cancel it."""
        machine = self.machine
        stuck = len(self.sent) > 30 or len(self.journal) > 300
        if machine.predicates and not stuck:
            self.signal("bump", 1)
        elif machine.listeners and not stuck:
            self.signal(next(iter(machine.listeners)), len(self.journal))
        else:
            assert machine.cancel_status is None or machine.phase is not Phase.RUNNING, "the run is stuck"
            assert machine.phase is Phase.RUNNING, "the end of the run is stuck"
            self.cancel()

    # ---- death

    def drop_machine(self) -> None:
        """Freeze the machine and see that nothing it says from then on counts."""
        machine, incarnation = self.machine, self.incarnation
        before = len(incarnation.trace), list(machine.open), list(machine.fresh)
        assert machine.freeze() == ()
        assert (len(incarnation.trace), list(machine.open), list(machine.fresh)) == before

    def replay(self) -> None:
        self.live = False
        self.queue.clear()
        self.active.clear()
        self.incarnation = Incarnation(self.workflow, self.journal)
        self.incarnations.append(self.incarnation)
        for event in self.journal:
            self.incarnation.deliver(event)
            assert self.machine.blocked is None, self.machine.blocked

    def leave_memory(self) -> None:
        before = {path: entry.command.args_hash for path, entry in self.machine.open.items()}
        self.drop_machine()
        self.replay()
        assert {path: entry.command.args_hash for path, entry in self.machine.open.items()} == before
        self.go_live()

    def recover(self) -> None:
        """What a daemon does when it starts again (DESIGN.md section 4, rules 6 and 9)."""
        while True:
            try:
                self.drop_machine()
                for path, attempt in self.attempts.items():
                    call = attempt.entry.command
                    assert isinstance(call, commands.StepCall)
                    self.world.maybe_apply(path, call)
                self.attempts.clear()
                self.replay()
                self.settle_what_was_left()
                self.deliver_all()
                self.go_live()
            except Crash:
                continue
            return

    def settle_what_was_left(self) -> None:
        in_flight: list[str] = []
        overdue: list[tuple[int, Open]] = []
        for entry in list(self.machine.open.values()):
            if isinstance(entry.command, commands.StepCall):
                if not self.settle_cancelled(entry) and not self.idle(entry):
                    in_flight.append(entry.path)
            elif isinstance(entry.command, commands.Sleep) and entry.command.deadline <= self.clock:
                overdue.append((entry.command.deadline, entry))
        for _, entry in sorted(overdue, key=lambda due: due[0]):
            self.fire(entry)
        if in_flight:
            self.append(Kind.RECOVERED, "", Recovered(in_flight))

    def go_live(self) -> None:
        self.live = True
        for entry in list(self.machine.open.values()):
            self.carry_out(entry)
        self.deliver_all()
