"""Waiting for something that happens once."""

from __future__ import annotations

from typing import Any

import trio

from jivsd.trap import Trap, park, wake


class Bell:
    """A `trio.Event` for one task: waiting for it takes three objects instead of ten.

    Thousands of callers wait at once for starts to be written and for runs to end, and the collector looks at all that
    they hold.
    """

    __slots__ = ("_rung", "_task")

    def __init__(self) -> None:
        self._rung = False
        self._task: trio.lowlevel.Task | None = None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._rung

    def set(self) -> None:
        """It has happened: wake who waits."""
        self._rung = True
        if self._task is not None:
            wake(self._task)
            self._task = None

    async def wait(self) -> None:
        """Return when it has happened.

        Raises:
            RuntimeError: another task waits already.
        """
        if self._rung:
            await trio.lowlevel.checkpoint()
            return
        if self._task is not None:
            raise RuntimeError("a bell wakes one task, and another one waits")
        self._task = trio.lowlevel.current_task()
        await park(Trap(self._leave))

    def _leave(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
