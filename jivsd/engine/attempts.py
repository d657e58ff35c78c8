"""Running steps: one attempt is one task (or one thread, or one savepoint), whose outcome goes to its actor."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from jivsd.authoring.errors import NotDurable, TimedOut
from jivsd.clock import SECOND

if TYPE_CHECKING:
    from jivsd.authoring.commands import StepCall
    from jivsd.authoring.steps import StepContext
    from jivsd.engine.replay import Open


class Exit(Enum):
    """Why an actor's task has ended."""

    ENDED = "ended"
    FENCED = "fenced"
    STOPPED = "stopped"
    RESTART = "restart"


class Done(msgspec.Struct, frozen=True):
    """The step has returned; `result` is JSON that fits its annotation."""

    result: msgspec.Raw


class Raised(msgspec.Struct, frozen=True):
    """The step has failed. `unknown`: it may have happened nevertheless (its time was up)."""

    error: BaseException
    unknown: bool = False


class Stopped(msgspec.Struct, frozen=True):
    """It was cancelled, because its scope was or because the run leaves memory."""


class Attempt:
    """One try of a step that is under way."""

    __slots__ = ("_scope", "context", "entry", "number", "started", "stopping")

    def __init__(self, entry: Open, number: int, context: StepContext) -> None:
        self.entry = entry
        self.number = number
        self.context = context
        self.started = trio.current_time()
        self.stopping = False
        self._scope: trio.CancelScope | None = None

    def cancel(self) -> None:
        """Stop it as soon as it can be; a thread or a savepoint runs to its end."""
        self.stopping = True
        if self._scope is not None:
            self._scope.cancel()

    def seconds(self) -> float:
        """How long it has been under way."""
        return trio.current_time() - self.started

    async def run(self, threads: trio.CapacityLimiter | None) -> Done | Raised | Stopped:
        """Run the step's function once. Raises trio.Cancelled only when the whole node stops at once."""
        call: StepCall = self.entry.command  # pyright: ignore[reportAssignmentType] -- only steps have attempts
        step = call.step
        how: Done | Raised | None = None
        with trio.CancelScope() as scope:
            self._scope = scope
            if self.stopping:
                scope.cancel()
            if step.timeout is not None:
                scope.deadline = trio.current_time() + step.timeout / SECOND
            try:
                arguments = step.signature.decode(call.args)
                if step.wants_context:
                    arguments = (self.context, *arguments)
                if step.mode == "plain" and threads is None:
                    value = step.function(*arguments)
                elif step.mode == "plain":
                    value = await trio.to_thread.run_sync(partial(step.function, *arguments), limiter=threads)
                else:
                    value = await step.function(*arguments)
                how = Done(to_json(step, value))
            except BaseException as error:  # whatever the author's code raises is the attempt's outcome
                if isinstance(error, KeyboardInterrupt) or _only_cancelled(error):
                    raise
                how = Raised(error)
        if how is not None:
            return how
        if self.stopping:
            return Stopped()
        seconds = (step.timeout or 0) / SECOND
        return Raised(TimedOut(f"step {step.name!r} took longer than {seconds:g} s"), unknown=True)


def to_json(step: Any, value: Any) -> msgspec.Raw:
    """Encode a step's result, and see that it comes back as the type that was promised.

    Raises:
        TypeError: it does not.
    """
    try:
        result = msgspec.Raw(msgspec.json.encode(value))
        step.signature.result.decode(result)
    except (msgspec.DecodeError, TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"the result of step {step.name!r} does not fit its annotation: {error}") from None
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
    coroutine.close()
    raise NotDurable("a transaction step may await only its transaction")


def _only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_cancelled, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, trio.Cancelled)
