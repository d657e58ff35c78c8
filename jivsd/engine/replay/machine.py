"""The machine: drives a run's branches from its journal, one event a turn.

`deliver(event)` takes the next event in seq order and runs everything that it wakes until all branches are parked
or have ended. What was asked for meanwhile stands in `fresh` (commands to carry out once this turn's event is
committed, which it is) and `dropped` (commands to cancel); `outcome` says how the run is to end, `blocked` why it
cannot go on. The event handlers are in `jivsd.engine.replay.delivery`.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd import sizes
from jivsd.authoring import commands
from jivsd.authoring.context import Context
from jivsd.authoring.errors import Cancelled, Frozen, TimedOut, record_error
from jivsd.engine.replay import delivery
from jivsd.engine.replay.driving import Driving
from jivsd.engine.replay.interrupts import from_terminal
from jivsd.engine.replay.nursery import only_cancelled
from jivsd.engine.replay.parts import LOCK, PARK, Body, Branch, ForeignYield, Open, Outcome, Phase
from jivsd.engine.replay.place import raised_at
from jivsd.records import Event, Kind, Options, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jivsd.authoring.updates import UpdateHandler
    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.replay.updates import Updates

SLOW_SEND: Final = 0.05
"""Seconds that one `send` may take before it is reported as blocking code."""

graveyard: Final[list[Body]] = []
"""Branches that would not end when frozen. They are never closed: that would run their code again."""


class Machine(Driving):
    """One run. It implements `jivsd.authoring.context.Driver`.

    `journal` is only looked ahead into, for version markers and code changes (rule 12); `probe` returns something
    whose identity changes when workflow code meddles with the task that drives it (rule 16); `on_issue` sees each
    command as it is issued, for tests and for adopt.
    """

    __slots__ = (
        "_body",
        "_probe",
        "arguments",
        "begun",
        "cancel_status",
        "foreign",
        "instance",
        "main_timer",
        "options",
        "outcome",
        "phase",
        "slow",
        "updates",
    )

    def __init__(
        self,
        workflow: Workflow[..., Any],
        run_id: str,
        workflow_id: str,
        *,
        journal: Iterable[Event] = (),
        probe: Callable[[], object] = lambda: None,
        on_issue: Callable[[commands.Command], None] | None = None,
    ) -> None:
        super().__init__(workflow, run_id, workflow_id, on_issue)
        self.instance: Any = None
        self.arguments: tuple[Any, ...] = ()
        self.options = Options()
        self.phase = Phase.RUNNING
        self.outcome: Outcome | None = None
        self.foreign: tuple[ForeignYield, ...] = ()
        self.slow: tuple[tuple[str, float], ...] = ()
        self.cancel_status: Status | None = None
        self.main_timer: Open | None = None
        self.begun = False
        """Whether the code has begun."""
        self.updates: Updates | None = None
        """There are none until the first one comes."""
        self._body: Callable[..., Any] = workflow.function
        self._probe = probe
        for event in journal:
            if event.kind == Kind.MARKER and event.path.startswith("version:"):
                self._markers |= {event.path}
            elif event.kind == Kind.CODE_CHANGED:
                self._changed_at = event.seq

    def driven_by(self, probe: Callable[[], object]) -> None:
        """Another task drives from now on; see `probe`. Nobody sees any more what is issued."""
        self._probe, self._on_issue = probe, None

    def succeed(self, other: Machine) -> None:
        """Take the place of another machine of this run: who drives that drives this one."""
        self.driven_by(other._probe)

    def deliver(self, event: Event) -> None:
        """Take the next event and run everything that it wakes. Does nothing once frozen or blocked.

        The turn that blocks the run asks for nothing.
        """
        if self.frozen or self.blocked is not None:
            return
        self.fresh = []
        self.dropped = []
        if event.seq != self.seq + 1:
            self.block("damage", f"event {event.seq} follows event {self.seq}: the journal is damaged", event.path)
            return
        self.seq = event.seq
        self.at = event.at
        delivery.HANDLERS[event.kind](self, event)
        if self._ready or self.predicates:
            hooks = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(None, _let_lie)
            try:
                self._run_dry()
            finally:
                sys.set_asyncgen_hooks(*hooks)
        if self.blocked is not None:
            self.fresh = []
            self.dropped = []

    def _run_dry(self) -> None:
        while True:
            for branch, value, error in self._ready:  # which grows meanwhile
                self._resume(branch, value, error)
                if self.blocked is not None:
                    return
            self._ready.clear()
            if not self.predicates or not self._wake_a_predicate():
                return

    def _wake_a_predicate(self) -> bool:
        for branch, command in self.predicates.items():
            try:
                value = command.predicate()
                if not value:
                    continue
            except BaseException as error:  # the author's own; it belongs to the branch that waits
                if from_terminal(error):
                    raise
                self.ready(branch, error=error)
            else:
                self.ready(branch, value)
            del self.predicates[branch]
            self.closed[command.path] = None
            return True
        return False

    def _resume(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        branch.parked = None
        branch.raised = 0
        self._current = branch
        before = self._probe()
        started = time.perf_counter()
        try:
            yielded = branch.body.send(value) if error is None else branch.body.throw(error)
        except StopIteration as stop:
            ended, value, error = True, stop.value, None
        except BaseException as raised:  # whatever the author's code raises is the branch's outcome
            if from_terminal(raised):
                raise
            ended, value, error = True, None, raised
        else:
            ended = False
            if yielded is not PARK or self._probe() is not before or (branch.parked is None and not self.frozen):
                self._trip(branch, yielded, before)
            elif self.frozen:
                del self._branches[branch]
                graveyard.append(branch.body)
        finally:
            self._current = None
            if (took := time.perf_counter() - started) > SLOW_SEND:
                self.slow += ((branch.path, took),)
        if ended:
            if self._probe() is not before:
                self._trip(branch, None, before)
                return
            self._branch_ended(branch, value, error)

    def _branch_ended(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        branch.leave()
        del self._branches[branch]
        if self.frozen or self.blocked is not None:
            return
        if branch.nursery is not None:
            branch.nursery.child_ended(branch, value, error)
        elif error is not None:
            self.block("replay", f"the run's own procedure failed: {error!r}", branch.path)

    def _trip(self, branch: Branch, yielded: Any, before: object) -> None:
        if yielded is PARK:
            what = "a context call under a trio scope or nursery"
        elif yielded is None and branch.parked is None and self._probe() is not before:
            what = "a trio scope or nursery is left open"
        else:
            what = f"an await of {_shown(yielded)}"
        rule = "workflow code may await only its context, as in `await ctx.sleep(5)`, and leaves the rest to steps"
        self.block("foreign", f"{self.where(branch)}: {what}; {rule}", branch.path)
        self.foreign += (ForeignYield(branch.body, yielded, before),)
        self._branches.pop(branch, None)

    def freeze(self) -> tuple[ForeignYield, ...]:
        """Throw Frozen into every branch, leaves first; nothing that they say any more counts (rule 14).

        Returns foreign yields that whoever drives must undo, in this order.
        """
        self.frozen = True
        self._ready.clear()
        if self._branches:
            hooks = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(None, _let_lie)
            try:
                for branch in reversed(list(self._branches)):
                    self._freeze_branch(branch)
            finally:
                sys.set_asyncgen_hooks(*hooks)
            self._branches.clear()
        foreign, self.foreign = self.foreign[::-1], ()
        return foreign

    def forget(self) -> None:
        """Let go of the code once nobody drives it any more, so that its memory is free without a search for cycles."""
        self._probe = lambda: None
        for entry in self.open.values():
            entry.branch = entry.target = None
        for held in (self.open, self.listeners, self.predicates, self._joining):
            held.clear()
        self._settling = ()
        self.own_lock = self.locks = None
        self.root.children = self.root.members = None
        self.main_timer = None

    def _freeze_branch(self, branch: Branch) -> None:
        before = self._probe()
        branch.raised = 0
        self._current = branch
        yielded: Any = None
        ended = False
        try:
            yielded = branch.body.throw(Frozen())
        except BaseException as error:  # Frozen, mostly; whatever it is, it does not count
            if from_terminal(error):
                raise
            ended = True
        finally:
            self._current = None
        if self._probe() is not before or not (ended or yielded is PARK):
            self.foreign += (ForeignYield(branch.body, yielded, before),)
        elif not ended:
            graveyard.append(branch.body)
        branch.leave()
        branch.parked = branch.nursery = None

    def make(self) -> None:
        """Make the run's instance, if its workflow is a class."""
        try:
            self._body = self.workflow.make()
        except (Exception, SystemExit) as error:  # the author's __init__
            self.block("replay", f"{self.workflow.where}: its class cannot be made: {type(error).__name__}: {error}")
            return
        self.instance = getattr(self._body, "__self__", None)

    def begin(self) -> None:
        """Create the main branch and make it ready."""
        if self.blocked is None:
            self.begun = True
            self.ready(self.new_branch("", self._life(), self.root, self.saga_root))
            if self.updates is not None:
                self.updates.begin()

    async def _life(self) -> None:
        main = self.entering(uncancelled=False)
        arguments, self.arguments = self.arguments, ()
        try:
            value = await self._body(Context(self), *arguments)
            output = msgspec.Raw(msgspec.json.encode(value))
            self.workflow.signature.result.decode(output)
            if len(output) > sizes.LARGEST:
                raise ValueError(sizes.too_large("the run's output", len(output)))
            if self.updates is not None:
                await self.updates.finish()
        except BaseException as error:  # whatever it is, it is how the run fails
            if self.passes(error):
                raise
            status = self.cancel_status if only_cancelled(error) and self.cancel_status else Status.FAILED
            record = record_error(error if status is Status.FAILED else _reason(status))
            place = raised_at(error, self.workflow.function.__code__.co_filename) if status is Status.FAILED else ""
            self._drop_timeout()
            self.phase = Phase.COMPENSATING
            if self.updates is not None:
                await self.updates.stop()
            await self.compensate(main, self.saga_root)
            if self.compensated and status is Status.FAILED:
                status = Status.COMPENSATED
            self.end(Outcome(status, error=record if status is not Status.CANCELLED else None, raised_at=place))
        else:
            self.end(Outcome(Status.COMPLETED, output=output))

    def _drop_timeout(self) -> None:
        if self.main_timer is not None:
            self.drop_deadline(self.main_timer)

    def end(self, outcome: Outcome) -> None:
        """The code has come to its end, also if it still waits for its lock."""
        if self.frozen or self.blocked is not None:
            return
        self._drop_timeout()
        if self.updates is not None:
            self.updates.end()
        if (lock := self.open.get(LOCK)) is not None:
            self._abandon(lock)
        self.phase = Phase.DONE
        self.outcome = outcome

    def stop(self, status: Status) -> None:
        """Cancel the whole run, because it was asked for (CANCELLED) or its time is up (TIMED_OUT)."""
        if self.phase is not Phase.RUNNING or self.cancel_status is not None:
            return
        self.cancel_status = status
        if self._branches:
            self.cancel(self.root)
        else:
            for waiting in list(self.open.values()):
                if not isinstance(waiting.command, commands.Answer):
                    self._abandon(waiting)
            self.end(Outcome(status, error=record_error(_reason(status)) if status is Status.TIMED_OUT else None))

    def handle(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Call a signal handler. One that raises blocks the run."""
        try:
            self.call_handler(function, arguments)
        except BaseException as error:  # the author's own
            if from_terminal(error):
                raise
            self.block("handler", f"signal handler {function.__qualname__} raised {type(error).__name__}: {error}")

    def call_handler(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call a method that changes state, may cancel a scope or start a keyed child, and nothing else."""
        self._in_handler = True
        try:
            return function(self.instance, *arguments)
        finally:
            self._in_handler = False

    def check_update(self, handler: UpdateHandler, arguments: tuple[Any, ...]) -> None:
        """Ask an update's validator. Raises what it raises."""
        if handler.check is not None:
            handler.check(self.instance, *arguments)

    def query(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Call a query's method. Raises what it raises; KeyError for an unknown one."""
        return self.workflow.queries[name].function(self.instance, *arguments)

    @property
    def driven(self) -> str:
        """The path of the branch that is being driven, for those who look from another thread; "" is the main one."""
        return "" if self._current is None else self._current.path

    @property
    def quiet(self) -> bool:
        """Whether no step is under way."""
        return not any(isinstance(entry.command, commands.StepCall) for entry in self.open.values())


def _reason(status: Status) -> BaseException:
    if status is Status.TIMED_OUT:
        return TimedOut("the run's time is up")
    return Cancelled("the run was cancelled")


def _let_lie(generator: object) -> None:
    """In place of closing an async generator that nobody iterates any more.

    Python, or trio, would run its `finally` blocks whenever the garbage collector comes by: in another turn in life
    than in replay.
    """


def _shown(yielded: Any) -> str:
    return "something undurable" if yielded is None else f"something undurable ({type(yielded).__name__})"
