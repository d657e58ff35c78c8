"""Undoing what foreign awaits in workflow code have done to the task that drives it (rule 16)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from jivsd.engine.replay import ForeignYield

MAX_THROWS: Final = 100


class Unwound(BaseException):
    """Thrown into a branch that awaited something undurable, so that its `with` blocks restore the task."""


async def undo(foreign: ForeignYield) -> None:
    """Let a branch take back what it did to the current task, and end it.

    A trap of trio that can be aborted is aborted; one that cannot (a thread that is running) is waited for.
    """
    yielded = foreign.yielded
    for _ in range(MAX_THROWS):
        await _settle(yielded)
        try:
            yielded = foreign.body.throw(Unwound())
        except BaseException:
            return


async def _settle(trap: Any) -> None:
    abort = getattr(trap, "abort_func", None)
    if abort is None:
        return

    def raise_cancel() -> Any:
        raise Unwound

    if abort(raise_cancel) is trio.lowlevel.Abort.FAILED:
        with contextlib.suppress(BaseException):
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
