"""Parking a task until another one wakes it, for half of what `trio.lowlevel.wait_task_rescheduled` takes.

That makes four objects each time: a coroutine, what it yields to trio, what trio sends back, and the frame that unwraps
it. Here what is yielded may be kept and yielded again, and what is sent is one for all.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def _kind() -> Callable[[Callable[[Any], trio.lowlevel.Abort]], Any]:
    waiting = trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)  # noqa: ASYNC105 -- no wait
    yielded: Any = waiting.send(None)
    waiting.close()
    return yielded.__class__


_reschedule: Final = trio.lowlevel.reschedule
Trap: Final = _kind()
"""What `trio.lowlevel.wait_task_rescheduled` yields to trio; made with what to call when the task is cancelled."""
WOKEN: Final = outcome.Value(None)
"""What `wake` has trio send to the task. It is looked at and never unwrapped: that can be done only once."""


@coroutine
def park(trap: Any) -> Generator[Any, Any, None]:
    """Park this task until somebody wakes it.

    Raises:
        trio.Cancelled: it is cancelled, and what was called then said that it may be.
    """
    sent = yield trap
    if sent is not WOKEN:
        sent.unwrap()


def wake(task: trio.lowlevel.Task) -> None:
    """Wake a task that is parked here."""
    _reschedule(task, WOKEN)
