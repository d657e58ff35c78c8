"""Undoing what foreign awaits in workflow code have done to the task that drives it (rule 16).

Such an await has left trio's own bookkeeping half done: a scope entered, a place in a queue taken, a thread started.
The branch is driven on as trio would drive a cancelled task, until its blocks have put everything back.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

import trio

from jivsd.engine.replay.interrupts import from_terminal
from jivsd.engine.replay.machine import graveyard

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from jivsd.engine.replay import ForeignYield

UNWIND_WITHIN: Final = 10.0
"""Seconds that a run's code may take to unwind what it awaited besides its context, when the run leaves memory."""
MAX_TRAPS: Final = 100
"""At how many more awaits a branch is unwound before it is buried and what it left open is closed over its head."""


class Unwound(BaseException):
    """Thrown into a branch that awaited something undurable, so that its `with` blocks restore the task."""


async def undo_in_time(foreign: Sequence[ForeignYield]) -> None:
    """Undo them in this order, whatever is cancelled meanwhile."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + UNWIND_WITHIN):
        for one in foreign:
            await undo(one)


async def undo(foreign: ForeignYield) -> None:
    """Let a branch take back what it did to the current task, and end it.

    An await that trio can abort is aborted; one that it cannot (a thread, the end of a nursery) is waited for.
    """
    body, yielded = foreign.body, foreign.yielded
    try:
        for _ in range(MAX_TRAPS):
            answer = await _settle(yielded)
            yielded = body.throw(Unwound()) if answer is None else body.send(answer)
        graveyard.append(body)
    except BaseException as error:  # Unwound, mostly: the branch has ended
        if from_terminal(error):
            raise
    finally:
        await close_what_is_open(foreign.before)


async def _settle(trap: Any) -> Any:
    """Bring an await to an end: the answer that trio gives to it, or None when it was aborted (or is not trio's)."""
    abort = getattr(trap, "abort_func", None)
    if abort is not None and abort(_raise_unwound) is trio.lowlevel.Abort.SUCCEEDED:
        return None
    if abort is None and getattr(trap, "__name__", "") != "CancelShieldedCheckpoint":
        return None
    return await _pass_on(trap)


def _raise_unwound() -> Any:
    raise Unwound


@coroutine
def _pass_on(trap: Any) -> Generator[Any, Any, Any]:
    return (yield trap)


async def close_what_is_open(before: Any) -> None:
    """Close scopes and nurseries that no block will close any more: entered by hand, or buried with their branch.

    trio has no public way to do that for another's; what is used here is held by the tests of the tripwire.
    """
    task: Any = trio.lowlevel.current_task()
    while (status := task._cancel_status) is not before and _encloses(before, status):
        if task.child_nurseries and task.child_nurseries[-1]._cancel_status is status:
            await task.child_nurseries[-1]._nested_child_finished(Unwound())
        status._scope.__exit__(None, None, None)


def _encloses(outer: Any, status: Any) -> bool:
    while status is not None and status is not outer:
        status = status.parent
    return status is outer
