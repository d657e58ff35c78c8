"""The end of a run: one entry that records it, tells the parent and, when it was terminated, its children."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from jivsd.bell import Bell
from jivsd.clock import TrioClock
from jivsd.engine.timers import Timers
from jivsd.records import ChildEnded, Ended, Event, Kind, Message, Run, Status, encode
from jivsd.store.api import Entry, RunChange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from jivsd.records import Incident

T = TypeVar("T")


def end_entry(
    run: Run,
    event: Event,
    ended: Ended,
    *,
    consumed: Sequence[str] = (),
    children: Iterable[Message] = (),
    incidents: Sequence[Incident] = (),
) -> Entry:
    """What ends a run: `event` is its last one and says `ended`.

    `consumed` is the message that asked for it, `children` are messages to child runs. The commit gives back the
    run's lock.
    """
    change = RunChange(
        status=ended.status,
        paused=False,
        output=ended.output if ended.status is Status.COMPLETED else None,
        error=encode(ended.error) if ended.error else None,
        ended_at=event.at,
    )
    inbox = [*children]
    continued = ended.status is Status.CONTINUED  # the parent hears of the last run of the chain
    if not continued and run.options.parent is not None and run.options.parent_path is not None:
        inbox.append(_to_parent(run, event, ended))
    return Entry(
        run_id=run.run_id,
        shard=run.shard,
        events=(event,),
        change=change,
        inbox=inbox,
        consumed=consumed,
        incidents=incidents,
        ends=True,
    )


def _to_parent(run: Run, event: Event, ended: Ended) -> Message:
    options = run.options
    return Message(
        workflow=options.parent_workflow or "",
        workflow_id=options.parent_workflow_id or "",
        message_id=f"end:{run.run_id}",
        kind=Kind.CHILD_ENDED,
        path=options.parent_path or "",
        payload=encode(ChildEnded(run.run_id, ended.status, ended.output, ended.error, options.parent_args)),
        at=event.at,
        run_id=options.parent,
    )


def to_child(
    parent: Run, workflow: str, workflow_id: str | None, run_id: str, kind: Kind, payload: bytes, at: int
) -> Message:
    """Ask a child to cancel or terminate. The message's id is the same in every life of the parent."""
    return Message(
        workflow=workflow,
        workflow_id=workflow_id or run_id,
        message_id=f"{kind}:{run_id}",
        kind=kind,
        path="",
        payload=payload,
        at=at,
        by=f"parent {parent.run_id}",
        run_id=run_id,
    )


class Glances(msgspec.Struct, frozen=True):
    """How often it is looked again: after `first` seconds, then after twice that, and so on up to `last`."""

    first: float
    last: float

    async def until(self, told: Bell, look: Callable[[], Awaitable[T | None]]) -> T | None:
        """Look until there is something, and return it; None if somebody tells first that it is worth a look."""
        pause = self.first
        if pause == inf:
            await told.wait()
        while not told.is_set():
            with trio.move_on_after(pause):
                await told.wait()
                return None
            if (found := await look()) is not None:
                return found
            pause = min(2 * pause, self.last)
        return None


ONCE: Final = Glances(inf, inf)
"""Not again: somebody will tell."""


class Waiters:
    """Those who wait for the ends of runs."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[_Waiter]] = {}
        self._late: Timers | None = None
        """When somebody's time is up; made when the first one waits."""

    def tell(self, run: Run) -> None:
        """A run has ended."""
        for waiter in self._waiting.pop(run.run_id, ()):
            waiter.run = run
            waiter.set()

    async def until_ended(
        self, run_id: str, seconds: float, look: Callable[[], Awaitable[Run | None]], again: Glances = ONCE
    ) -> Run | None:
        """Wait for a run's end and return its row, or None after some seconds.

        `look` returns the row if it has ended already. It is called once, and then as often as `again` says, because
        the end may come where nobody tells of it.
        """
        waiter = _Waiter()
        waiters = self._waiting.setdefault(run_id, [])
        waiters.append(waiter)
        try:
            if (run := await look()) is not None:
                return run
            if again is ONCE and seconds < inf:
                await self._told(waiter, seconds)
            else:
                with trio.move_on_after(seconds):
                    run = await again.until(waiter, look)
            return waiter.run or run
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters and self._waiting.get(run_id) is waiters:
                del self._waiting[run_id]

    async def _told(self, waiter: _Waiter, seconds: float) -> None:
        """Return when somebody tells, or after some seconds: a timer costs a fifth of trio's scope for that."""
        if self._late is None:
            self._late = Timers(TrioClock(0), look_again=inf)  # nobody sets that clock
            trio.lowlevel.spawn_system_task(self._late.run)  # who waits may do so while the host is down
        timer = self._late.add(self._late.after(seconds), waiter.set)
        try:
            await waiter.wait()
        finally:
            timer.cancel()


class _Waiter(Bell):
    """For the end of a run."""

    __slots__ = ("run",)

    def __init__(self) -> None:
        super().__init__()
        self.run: Run | None = None
