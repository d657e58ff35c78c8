"""What makes scenarios short: steps that fail, time that passes, things that happen later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from jivsd.clock import SECOND, Duration, as_datetime, microseconds
from jivsd.testing.standins import Standins, steps_named

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from jivsd.authoring.steps import Step
    from jivsd.clock import Clock
    from jivsd.registry.registry import Registry


class Comforts:
    """A part of `jivsd.testing.Env`."""

    registry: Registry

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._standins = Standins()
        self._nursery: trio.Nursery

    @property
    def now(self) -> datetime:
        """What time it is for the workflows. Tests begin on 2026-01-01."""
        return as_datetime(self._clock.now())

    def fail(self, step: str | Step[..., Any], error: BaseException, *, times: int | None = 1) -> None:
        """Let a step's next attempts raise an error, so many of them (None: all), in whichever run.

        Raises:
            LookupError: no plugin of this test has such a step.
        """
        self._standins.fail(steps_named(self.registry.workflows, step), error, times)

    def replace(self, step: str | Step[..., Any], function: Callable[..., Any]) -> None:
        """Let a function be called in a step's place until the test ends, with the same arguments.

        Raises:
            LookupError: no plugin of this test has such a step. TypeError: an async function for a plain step.
        """
        self._standins.replace(steps_named(self.registry.workflows, step), function)

    async def sleep(self, duration: Duration) -> None:
        """Let time pass; when this returns, all that was due has happened."""
        await trio.sleep(microseconds(duration) / SECOND)
        await trio.testing.wait_all_tasks_blocked()

    def later(self, delay: Duration, act: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Do something after a while, beside the test: `env.later("2h", env.signal, run, "approve", "ann")`.

        What is still to come when the test ends is left out.
        """

        async def wait_and_act() -> None:
            await trio.sleep(microseconds(delay) / SECOND)
            await act(*arguments)

        self._nursery.start_soon(wait_and_act)
