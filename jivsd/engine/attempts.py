"""Running steps: one attempt is one task (or one thread, or one savepoint), whose outcome goes to its actor."""

from __future__ import annotations

from enum import Enum
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from jivsd import sizes
from jivsd.authoring.errors import Cancelled, NotDurable, TimedOut
from jivsd.clock import SECOND
from jivsd.engine import unwind
from jivsd.engine.replay.interrupts import from_terminal
from jivsd.store.api import TransactionLate
from jivsd.store.txstep import OpenTx

if TYPE_CHECKING:
    from jivsd.authoring.commands import StepCall
    from jivsd.authoring.steps import StepContext
    from jivsd.engine.heartbeats import Heart  # noqa: TC004 -- nobody decodes an attempt
    from jivsd.engine.line import Place  # noqa: TC004 -- nobody decodes an attempt
    from jivsd.engine.replay import Open  # noqa: TC004 -- nobody decodes an attempt
    from jivsd.engine.slots import Turn  # noqa: TC004 -- nobody decodes an attempt
    from jivsd.engine.timers import Timer  # noqa: TC004 -- nobody decodes an attempt
    from jivsd.store.txstep import Transactions


class Exit(Enum):
    """Why an actor's task has ended."""

    ENDED = "ended"
    FENCED = "fenced"
    STOPPED = "stopped"
    RESTART = "restart"
    PARKED = "parked"


class Stale(Exception):
    """The journal refused an append: what this life knows is not what is recorded."""


class Done(msgspec.Struct, frozen=True):
    """The step has returned; `result` is JSON that fits its annotation."""

    result: msgspec.Raw


class Raised(msgspec.Struct, frozen=True):
    """The step has failed. `unknown`: it may have happened nevertheless (its time was up)."""

    error: BaseException
    unknown: bool = False


class Taken(msgspec.Struct, frozen=True):
    """A transaction step has returned; what it wrote is committed with its record."""

    result: msgspec.Raw
    open: OpenTx


class Stopped(msgspec.Struct, frozen=True):
    """It was cancelled, because its scope was or because the run leaves memory."""


class Attempt(msgspec.Struct, eq=False):
    """One try of a step that is under way."""

    entry: Open
    number: int
    stopping: bool = False
    interrupted: str = ""
    """Why somebody wants this try to end as a failed one, and the next to begin."""
    cut_short: bool = False
    """Whether the scope that it ran in was cancelled: its stop was asked for, or its time was up."""
    turn: Place[Turn] | None = None
    """Where it waits for its turn to run; None once it had it."""
    watch: Timer | None = None
    """What will say so when its thread does not return."""
    heart: Heart | None = None
    """What it says with heartbeats, if it may have said anything."""
    scope: trio.CancelScope | None = None
    """What it runs in, once it runs."""

    def is_over(self, now: float) -> bool:
        """Whether it was cancelled, or its time is up: what a thread has to ask, since nobody can cancel it."""
        scope = self.scope
        return self.stopping or (scope is not None and now >= scope.deadline)

    def cancel(self) -> None:
        """Stop it as soon as it can be; a thread or a savepoint runs to its end."""
        self.stopping = True
        if self.scope is not None:
            self.scope.cancel()

    @property
    def code(self) -> object:
        """The code object of the step's function; None if it has none."""
        call = cast("StepCall", self.entry.command)
        return getattr(call.step.function, "__code__", None)

    def interrupt(self, why: str) -> bool:
        """End this try as a failed one, as soon as it can be. False if it cannot be.

        A thread runs to its end, unless it beats: then it is told with the next heartbeat.
        """
        call = cast("StepCall", self.entry.command)
        if (call.step.mode == "plain" and self.heart is None) or self.scope is None or self.stopping:
            return False
        self.interrupted = why
        self.cancel()
        return True

    async def run(
        self, threads: trio.CapacityLimiter | None, scope: trio.CancelScope, context: StepContext | None
    ) -> Done | Raised | Stopped:
        """Run the step's function once, in `scope`; when it was cut short, the caller must leave that.

        Raises trio.Cancelled only when the whole node stops at once.
        """
        call: StepCall = self.entry.command  # pyright: ignore[reportAssignmentType] -- only steps have attempts
        step = call.step
        task: Any = trio.lowlevel.current_task()
        before = task._cancel_status
        self.scope = scope
        if self.stopping:
            scope.cancel()
        if step.timeout is not None:
            scope.deadline = trio.current_time() + step.timeout / SECOND
        try:
            arguments = step.signature.decode(call.args)
            if context is not None:
                arguments = (context, *arguments)
            if step.mode != "plain":
                value = await step.function(*arguments)
            else:
                function = step.function if self.heart is None else partial(self.heart.follow, step.function)
                if threads is not None:
                    value = await trio.to_thread.run_sync(partial(function, *arguments), limiter=threads)
                else:
                    value = function(*arguments)
            how = Done(to_json(step, value))
        except BaseException as error:  # whatever the author's code raises is the attempt's outcome
            if from_terminal(error):
                raise
            told = isinstance(error, Cancelled) and scope.cancel_called  # by its heartbeat, in a thread
            if not (told or _only_cancelled(error)):
                how = Raised(error)
            elif not scope.cancel_called:
                raise
            elif self.interrupted:
                how = Raised(TimedOut(f"step {step.name!r} was {self.interrupted}"), unknown=True)
            elif self.stopping:
                how = Stopped()
            else:
                seconds = (step.timeout or 0) / SECOND
                how = Raised(TimedOut(f"step {step.name!r} took longer than {seconds:g} s"), unknown=True)
        finally:
            self.scope = None
            if self.stopping or step.timeout is not None:
                self.cut_short = scope.cancel_called
                scope.deadline = inf
        if task._cancel_status is not before:
            await unwind.close_what_is_open(before)
            how = Raised(RuntimeError(f"step {step.name!r} has left one of trio's scopes open"))
        return how

    async def transact(self, transactions: Transactions, scope: trio.CancelScope) -> Taken | Raised | Stopped:
        """Run a transaction step once, in a transaction of its own that stays open when it has returned.

        Whatever else becomes of it, all is rolled back when this returns.

        Raises trio.Cancelled only when the whole node stops at once.
        """
        call = cast("StepCall", self.entry.command)
        step = call.step
        self.scope = scope
        if self.stopping:
            scope.cancel()
        try:
            arguments = step.signature.decode(call.args)
            limit = None if step.timeout is None else step.timeout / SECOND
            taken = await transactions.open(lambda tx: step.function(tx, *arguments), limit)
        except TransactionLate as error:
            return Raised(TimedOut(f"step {step.name!r} took longer than {error.seconds:g} s: all is rolled back"))
        except BaseException as error:  # whatever the author's code raises is the attempt's outcome
            if from_terminal(error):
                raise
            if not _only_cancelled(error):
                return Raised(error)
            if not scope.cancel_called:
                raise
            return Raised(TimedOut(f"step {step.name!r} was {self.interrupted}")) if self.interrupted else Stopped()
        finally:
            self.scope = None
            self.cut_short = scope.cancel_called
        try:
            return Taken(to_json(step, taken.value), taken)
        except TypeError as error:
            await taken.abandon()
            return Raised(error)


def to_json(step: Any, value: Any) -> msgspec.Raw:
    """Encode a step's result, and see that it comes back as the type that was promised.

    Raises:
        TypeError: it does not, or it is too large.
    """
    try:
        result = msgspec.Raw(msgspec.json.encode(value))
        step.signature.result.decode(result)
    except (msgspec.DecodeError, TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"the result of step {step.name!r} does not fit its annotation: {error}") from None
    if len(result) > sizes.LARGEST:
        raise TypeError(sizes.too_large(f"the result of step {step.name!r}", len(result)))
    return result


def drive(coroutine: Any) -> Any:
    """Run a transaction step's coroutine to its end where the connection lives.

    Raises:
        NotDurable: it awaited something else than its transaction.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    except (SystemExit, KeyboardInterrupt) as error:  # it would end the thread that all writes go through
        if from_terminal(error):
            raise
        raise RuntimeError(f"a step does not end the process: {error!r}") from None
    coroutine.close()
    raise NotDurable("a transaction step may await only its transaction")


def _only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_cancelled, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, trio.Cancelled)
